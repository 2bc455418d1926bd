"""Whatever a file holds, reading it ends in an image or in a sentence: no traceback, no wait without end, little memory."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("limits of memory and alarms are POSIX'", allow_module_level=True)

from corruption import COUNT, PATIENT_ID, corruptions, good_inputs, restore_permissions
from reading_trial import Trial, fault_of, tabulate, try_reading

LARGEST_PEAK_BYTES = 2 * 2**30


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that can be deleted whatever was made of it."""
    yield tmp_path
    restore_permissions(tmp_path)


def assert_reads_or_refuses(trial: Trial, patient_id: str | None = None) -> None:
    """Every ending is an image or a sentence."""
    print("\n".join(tabulate(trial)))  # shown where the test fails
    for kind in ("hang", "crash", "traceback"):
        assert [f"{ending.name}: {ending.trace}" for ending in trial.of_kind(kind)] == []
    assert trial.bad_sentences(patient_id) == []
    assert trial.peak_bytes < LARGEST_PEAK_BYTES


def test_damaged_inputs_are_read_or_refused_in_a_sentence(folder: Path) -> None:
    cases = list(corruptions(folder, seed=0))
    assert len(cases) == len({name for name, _ in cases}) == COUNT
    trial = try_reading(cases)
    assert_reads_or_refuses(trial, PATIENT_ID)
    # Decoders fill up what is not there; that must not become an image.
    cut_off = [ending for ending in trial.endings if "code stream ends" in ending.name]
    assert len(cut_off) == 8
    assert [ending.name for ending in cut_off if ending.channels] == []


def test_the_inputs_are_good_before_they_are_damaged(folder: Path) -> None:
    trial = try_reading(list(good_inputs(folder)))
    assert [ending.name for ending in trial.endings] == list(FORMS)
    for ending in trial.endings:
        told = CHANNELS_TOLD if ending.name == "channels" else ()
        assert (ending.name, ending.kind, ending.sentences, ending.channels) == (ending.name, "read", told, 4)


FORMS = (
    *("explicit", "implicit", "enhanced", "RLE", "JPEG lossless", "JPEG-LS", "JPEG 2000"),
    *("nifti", "plain nifti", "nrrd", "table", "channels", "bids"),
)
_SCAN = "a scan of the upper abdomen in free breathing"
CHANNELS_TOLD = tuple(
    f"exam {date}: as channels.csv says, {_SCAN} DWI_b0 is DWI_b0 (row {row}), {_SCAN} DWI_b800 is DWI_b800 (row {row + 1})."
    for date, row in (("2020-01-05", 2), ("2021-03-14", 4))
)


def test_the_same_seed_makes_the_same_damage(folder: Path) -> None:
    """Of every seventh case: each way of damaging is its own function of the seed."""
    contents = []
    for name in ("a", "b"):
        cases = corruptions(folder / name, seed=3, every=7)
        contents.append([(case, path.read_bytes()) for case, place in cases for path in regular(place)])
    assert contents[0] == contents[1]


def regular(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*") if path.is_file() and not path.is_symlink())


@pytest.mark.parametrize("part", ["real", "series"])
def test_every_folder_of_real_data_is_read_or_refused_in_a_sentence(shared_data: Path, part: str) -> None:
    folders = [shared_data / part, *sorted(path for path in (shared_data / part).rglob("*") if path.is_dir())]
    assert_reads_or_refuses(try_reading([(str(path.relative_to(shared_data)), path) for path in folders]))


@pytest.mark.parametrize("part", ["real", "series"])
def test_every_file_of_real_data_is_read_or_refused_alone(shared_data: Path, folder: Path, part: str) -> None:
    cases = []
    for number, path in enumerate(sorted(path for path in (shared_data / part).rglob("*") if path.is_file())):
        exam = folder / f"{number}" / "2020-01-05"
        exam.mkdir(parents=True)
        shutil.copy(path, exam)
        cases += [(f"{path.relative_to(shared_data)} in a folder", exam.parent)]
        cases += [(f"{path.relative_to(shared_data)} itself", path)]
    assert_reads_or_refuses(try_reading(cases))


@pytest.mark.parametrize(
    "sentence",
    [
        "no capital and no name in it.",
        "The file is damaged",
        "A ValueError was raised.",
        "[Errno 2] No such file.",
        "Length is 0xFFFF.",
        "A line\nand another.",
        "P1 has no images.",
    ],
)
def test_what_is_no_sentence_for_a_person_is_found(sentence: str) -> None:
    assert fault_of(sentence, "P1") is not None


@pytest.mark.parametrize(
    "sentence", ["images/x.nii does not exist.", "2021-03-14 has no images.", "exam 2021: nothing."]
)
def test_what_begins_with_a_name_is_a_sentence(sentence: str) -> None:
    assert fault_of(sentence, "P1") is None
