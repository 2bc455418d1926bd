"""DICOM series get the channel that they surely are, and none where a description may mean two things."""

from __future__ import annotations

import subprocess
import sys

import pytest

from HCCNetLib.readers.assignment import channels_of_series
from HCCNetLib.readers.series import SeriesFacts, b_value_in_tags, name_of_series, with_tags


@pytest.mark.parametrize(
    ("description", "name"),
    [
        ("ep2d_diff_b400_tra", "DWI_b400"),
        ("DWI b=800", "DWI_b800"),
        ("b0", "DWI_b0"),
        ("T1 VIBE art", "T1_arterial"),
        ("WATER: LAVA-Flex portal", "T1_venous"),
        ("eTHRIVE equilibrium", "T1_delayed"),
        ("Ax LAVA pre", "T1_native"),
        ("t1_vibe_dixon_in", "T1_in"),
        ("dual echo out of phase", "T1_out"),
        ("t2_tse_long_te", "T2_long"),
        ("AX T2 SSFSE short TE", "T2_short"),
        ("T1W_OOP", "T1W_OOP"),
        ("T1 VIBE portalvenös", "T1_venous"),
        ("T1 VIBE spät", "T1_delayed"),
        ("THRIVE artérielle", "T1_arterial"),
        ("T1 VIBE pre contrast", "T1_native"),
        ("T1 breath hold in phase", "T1_in"),
    ],
)
def test_a_description_that_says_one_thing_is_understood(description: str, name: str) -> None:
    named = name_of_series(SeriesFacts("7: series", description))
    assert named is not None
    assert named[0] == name


@pytest.mark.parametrize(
    "description",
    [
        "ep2d_diff_b50_400_800_TRACEW",  # several b-values
        "diff b 0 b 400",
        "ADC (10^-6 mm2/s) b800",  # derived
        "DWI b800 MIP",
        "T1 late arterial",  # two phases
        "t1_fl2d_opp_in",  # both echoes
        "T1 in arterial in",
        "T1 VIBE 20min",  # hepatobiliary: no channel
        "t1 breath in hold",
        "T2 arterial",
        "AX T2 SHORT TI FS",  # short and long are said of other times too
        "t2_haste_short_bh",
        "t2 tse short breath hold",
        "T2 long echo train",
        "t2_tse long TR",
        "t1_fl2d_opp-in_tra_mbh",
        "Ax FSPGR in/out phase",
        "ep2d_diff_calc_b800",  # computed, not measured
        "cDWI b800",
        "DTI_b800 FA",
        "DWI b800 inverted",
        "FAT: Ax LAVA-Flex pre",  # the fat image of a Dixon series
        "T1 VIBE DIXON art F",
        "WASH-IN art",
        "SUBTR art",
        "care bolus art",  # no liver protocol's phase
        "CE-MRA art",
        "SAG T1 VIBE portal",
        "SWI native",
        "T1 MOLLI pre contrast",
        "t1_vibe_fs_tra_late_hepatocyte",
        "T1 VIBE post OP",  # an operation, not opposed phase
        "T1 VIBE breath out",
        "t1 vibe breath in",
        "t1_vibe_dixon_post_in",  # after contrast it is another image
        "t1 dual echo KM opp",
        "T1 VIBE pre/post",
        "t1_vibe_art-nat",
        "T1 VIBE art tardif",
        "T1 VIBE del higado",  # "of the liver"
        "T1 VIBE delayed 15min",  # hepatobiliary too
        "t1 vibe late 1h",
        "T2* GRE short TE",
        "t2_fl2d short te",
        "MRCP T2 long TE",
        "t1_vibe_q-dixon_in",
        "InPhase: IDEAL IQ T1",
        "localizer",
        "",
    ],
)
def test_a_description_that_may_mean_several_things_is_not_guessed_at(description: str) -> None:
    assert name_of_series(SeriesFacts("7: series", description)) is None


def test_a_b_value_wins_over_the_description_but_not_over_what_is_derived() -> None:
    assert name_of_series(SeriesFacts("5", "DWI", 400.0)) == ("DWI_b400", "b-value")
    assert name_of_series(SeriesFacts("5", "DWI", 0.001)) == ("DWI_b0", "b-value")
    for derived in ("ADC map", "Apparent Diffusion Coefficient (mm2/s)", "ep2d_diff_exp", "ADCs", "FA: DTI"):
        assert name_of_series(SeriesFacts("6", derived, 800.0)) is None
    # GE and others write b = 0, or any value, into series that have nothing to do with diffusion.
    assert name_of_series(SeriesFacts("5", "Ax LAVA ART", 0.0)) == ("T1_arterial", "description")
    assert name_of_series(SeriesFacts("5", "Ax LAVA ART", 800.0)) is None
    assert name_of_series(SeriesFacts("5", "Ax DWI b800", None, is_mixed=True)) is None


@pytest.mark.parametrize(
    ("tag", "text", "value"),
    [
        ("0018,9087", "800", 800.0),
        ("0019,100C", "150", 150.0),
        ("2001,1003", "1500.0", 1500.0),
        ("0065,1009", "400", 400.0),
        ("0043,1039", "1000000800\\8\\0\\0", 800.0),
        ("0043,1039", "50\\0", 50.0),
        ("0019,100C", "b'8'", None),
        ("0019,100C", "38\\30\\30\\20", 800.0),  # of unknown representation: codes of characters
        ("0043,1039", "31\\30\\30\\30\\30\\30\\30\\38\\30\\30\\5c\\38", 800.0),
        ("0018,9087", "-1", None),
    ],
)
def test_b_values_are_found_where_vendors_write_them(tag: str, text: str, value: float | None) -> None:
    assert b_value_in_tags(lambda asked: text if asked == tag else "") == value


@pytest.mark.parametrize(("echo_time", "channel"), [(80.0, "T2_short"), (4.6, None), (750.0, None), (None, "T2_short")])
def test_a_t2_channel_has_an_echo_time_that_it_can_have(echo_time: float | None, channel: str | None) -> None:
    named = name_of_series(SeriesFacts("5", "T2 TSE short TE", echo_time=echo_time))
    assert (named and named[0]) == channel


def test_images_in_and_out_of_phase_of_a_dynamic_phase_are_neither_it_nor_the_channels_of_before_contrast() -> None:
    series = {
        name: SeriesFacts(name, "t1_vibe_dixon_art", dixon=dixon)
        for name, dixon in {"a": "in", "b": "out", "c": "water"}.items()
    }
    assert {c: key for c, (key, _) in channels_of_series(series, "exam X").channels.items()} == {"T1_arterial": "c"}


@pytest.mark.parametrize(("description", "dixon"), [("t1_vibe_dixon_in", ""), ("t1_vibe_dixon", "in")])
def test_an_image_in_phase_that_was_acquired_after_contrast_is_not_taken(description: str, dixon: str) -> None:
    facts = SeriesFacts("5", description, dixon=dixon, acquired=36_100.0, contrast_given=36_000.0)
    found = channels_of_series({"a": facts}, "exam X")
    assert not found.channels
    assert found.ambiguous == {"a": "T1_in"}


@pytest.mark.parametrize(
    ("tags", "acquired"),
    [
        ({}, 32_400.0),
        ({"0018,1060": "350"}, 32_400.0),  # of a heart beat
        ({"0020,0105": "4", "0018,1060": "90000", "0008,0070": "GE MEDICAL SYSTEMS"}, 32_490.0),
        ({"0020,0105": "4"}, None),  # the beginning of the series is not that of its phases
    ],
)
def test_a_phase_of_many_was_acquired_when_it_says_itself(tags: dict[str, str], acquired: float | None) -> None:
    values = {"0008,0032": "090000.000000", **tags}
    assert with_tags(SeriesFacts("5", "LAVA"), lambda tag: values.get(tag, "")).acquired == acquired


def test_what_can_t_be_read_gives_way_to_a_whole_series_but_not_within_its_own() -> None:
    broken, whole = SeriesFacts("a", "T1 art", series="1", is_broken=True), SeriesFacts("b", "T1 art", series="2")
    assert channels_of_series({"a": broken, "b": whole}, "exam X").channels == {"T1_arterial": ("b", "description")}
    same = SeriesFacts("b", "T1 art", series="1")
    assert channels_of_series({"a": broken, "b": same}, "exam X").channels == {}
    assert channels_of_series({"a": broken}, "exam X").channels == {}


def test_b_values_go_to_channels_one_to_one_by_the_rules_for_files() -> None:
    series = {
        name: SeriesFacts(name, "dwi", value) for name, value in {"a": 0.0, "b": 50.0, "c": 420.0, "d": 790.0}.items()
    }
    found = channels_of_series(series, "exam X")
    assert {channel: key for channel, (key, _) in found.channels.items()} == {
        "DWI_b0": "a",
        "DWI_b400": "c",
        "DWI_b800": "d",
    }
    assert [problem.code for problem in found.problems] == ["b_value_not_equal", "b_value_not_equal"]


def test_a_b_value_that_is_there_twice_gives_its_channel_to_nobody() -> None:
    series = {
        "a": SeriesFacts("a", "dwi", 800.0),
        "b": SeriesFacts("b", "dwi", 800.0),
        "c": SeriesFacts("c", "dwi", 830.0),
    }
    found = channels_of_series(series, "exam X")
    assert found.channels == {}
    assert [(problem.channel, problem.says) for problem in found.problems] == [
        ("DWI_b800", "2 series may each be it; none was taken. Choose the right one.")
    ]


def test_the_rules_of_assignment_need_neither_torch_nor_nibabel() -> None:
    """The Slicer module follows them before anything is installed."""
    code = (
        "import HCCNetLib.readers.exams, HCCNetLib.readers.series, sys; "
        "print([m for m in ('torch', 'scipy', 'nibabel', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
