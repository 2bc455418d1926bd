"""Bundles: verified as a whole, nothing unpickled, published checkpoints converted."""

from __future__ import annotations

import datetime
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import DWI
from random_bundle import write_random_bundle
from safetensors.torch import load_file, save_file

from HCCNetLib.bundles import Bundle, BundleDescription, Calibration
from HCCNetLib.bundles.bundle import write_bundle
from HCCNetLib.bundles.convert import ConversionOptions, convert_checkpoints
from HCCNetLib.models import HCCNet
from HCCNetLib.records import Refusal


@pytest.fixture
def copy(demonstration: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demonstration.path, tmp_path / "copy"))


def refusal_of(action: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as caught:
        action()
    return caught.value.message


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    file = folder / "bundle.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_the_demonstration_bundle_says_what_it_is_and_is_the_same_every_time(
    demonstration: Bundle, tmp_path: Path
) -> None:
    again = write_random_bundle(tmp_path / "again")
    assert again.sha256 == demonstration.sha256
    description = demonstration.description
    assert description.demonstration
    assert description.channels == DWI
    assert len(description.members) == 10
    assert description.model.name == "mini"
    assert "random" in (demonstration.path / "MODEL_CARD.md").read_text()
    assert "random" in description.intended_use
    weights = [demonstration.member(i).head.weight for i in range(2)]
    assert not torch.equal(*weights)


def test_a_bundle_survives_writing_and_reading(demonstration: Bundle) -> None:
    assert BundleDescription.from_dict(demonstration.description.to_dict()) == demonstration.description
    model = demonstration.member(3)
    assert not model.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in model.parameters())


def test_horizons_calibration_and_average_risk_survive_writing_and_reading(tmp_path: Path) -> None:
    several = write_random_bundle(tmp_path / "random", horizons=(6.0, 12.0, 24.0))
    calibration = tuple(Calibration(1 + k / 10, -k / 10, "patients") for k in range(3))
    description = replace(several.description, calibration=calibration, average_risk=(0.02, 0.05, 0.11))
    members = [(several.member(i).state_dict(), i) for i in range(2)]
    path = write_bundle(tmp_path / "b", description, members, "card").path
    content = json.loads((path / "bundle.json").read_text())
    assert content["format_version"] == 2
    assert (content["horizon_months"], content["horizons_months"]) == (12, [6, 12, 24])
    assert content["calibration"][2] == {"slope": 1.2, "intercept": -0.2, "fitted_on": "patients"}
    assert content["average_risk"] == [0.02, 0.05, 0.11]
    read = Bundle.open(path)
    for name in ("horizons", "calibration", "average_risk", "model", "horizon_months"):
        assert getattr(read.description, name) == getattr(description, name)
    assert read.description.main == 1
    assert torch.equal(read.member(1).head.bias, several.member(1).head.bias.half().float())
    assert read.member(1).head.bias.shape == (3,)


def test_a_bundle_of_format_1_is_one_of_a_single_horizon(copy: Path, demonstration: Bundle) -> None:
    def as_format_1(content: dict) -> None:
        content["format_version"] = 1
        for name in ("horizons_months", "average_risk"):
            del content[name]
        del content["model"]["outputs"]
        content["calibration"] = {"slope": 1.8, "intercept": -0.2, "fitted_on": "patients"}

    edit(copy, as_format_1)
    read = Bundle.open(copy).description
    assert read == replace(demonstration.description, calibration=(Calibration(1.8, -0.2, "patients"),))
    assert (read.horizons, read.main, read.model.outputs, read.average_risk) == ((12.0,), 0, 1, ())
    edit(copy, lambda content: content.update(calibration=None))
    assert Bundle.open(copy).description == demonstration.description
    edit(copy, lambda content: content.update(calibration=[{"slope": 1.8}]))
    assert "bundle.json can't be used: " in refusal_of(lambda: Bundle.open(copy))


def test_an_altered_member_is_refused_by_name(copy: Path) -> None:
    file = copy / "members" / "04.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    assert refusal_of(lambda: Bundle.open(copy)).startswith("members/04.safetensors of the bundle was altered")


def test_a_member_altered_after_opening_is_refused_too(copy: Path) -> None:
    bundle = Bundle.open(copy)
    file = copy / "members" / "00.safetensors"
    file.write_bytes(file.read_bytes()[:-2] + b"xx")
    assert "members/00.safetensors of the bundle was altered" in refusal_of(lambda: bundle.member(0))


def test_an_altered_model_card_is_refused(copy: Path) -> None:
    (copy / "MODEL_CARD.md").write_text("# The best model\n")
    assert "MODEL_CARD.md of the bundle was altered" in refusal_of(lambda: Bundle.open(copy))


def test_a_missing_member_is_refused_by_name(copy: Path) -> None:
    (copy / "members" / "07.safetensors").unlink()
    assert refusal_of(lambda: Bundle.open(copy)) == "The bundle lacks members/07.safetensors. Get the bundle again."


def test_a_pickle_in_a_bundle_is_refused_and_never_loaded(copy: Path, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (trap,)

    (copy / "members" / "extra.pt").write_bytes(pickle.dumps(Trap()))
    assert "files that do not belong to it: members/extra.pt" in refusal_of(lambda: Bundle.open(copy))
    assert not trap.exists()


def test_a_link_out_of_the_bundle_is_no_member(copy: Path, tmp_path: Path) -> None:
    member = copy / "members" / "02.safetensors"
    member.rename(tmp_path / "elsewhere.safetensors")
    member.symlink_to(tmp_path / "elsewhere.safetensors")
    assert "lacks members/02.safetensors" in refusal_of(lambda: Bundle.open(copy))


def test_what_file_managers_leave_behind_does_no_harm(copy: Path, demonstration: Bundle) -> None:
    (copy / ".DS_Store").write_bytes(b"x")
    assert Bundle.open(copy).sha256 == demonstration.sha256


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda c: c.update(format_version=3),
            "bundle.json has format version 3; this software reads versions 1 and 2. Update hccnet, or use a bundle made for it.",
        ),
        (lambda c: c.pop("format_version"), "bundle.json has format version None"),
        (lambda c: c.pop("channels"), "'channels' is missing"),
        (lambda c: c.update(colour="red"), "unknown settings: colour"),
        (lambda c: c["channels"].pop(), "the model has 4 channels, but 3 are named"),
        (lambda c: c["time"].update(unit="fortnights"), "time unit 'fortnights' is none of days, weeks, months, years"),
        (lambda c: c["time"].update(origin="diagnosis"), "time must count back from the landmark"),
        (lambda c: c["preprocessing"].update(sharpen=True), "unknown preprocessing settings: sharpen"),
        (lambda c: c["model"].update(version="v3"), "block version 'v3' is neither v1 nor v2"),
        (lambda c: c.update(demonstration="no"), "demonstration must be true or false"),
        (lambda c: c.update(horizon_months=0), "horizon_months must be above 0"),
        (
            lambda c: c["members"][0].update(file="../../etc/x.safetensors"),
            "a member needs a file members/NAME.safetensors",
        ),
        (lambda c: c["members"].clear(), "members must be listed"),
        (lambda c: c.update(missing_channels="false"), "missing_channels must be true or false"),
        (lambda c: c.update(name=3), "name must be text"),
        (lambda c: c.update(version=[]), "version must be text"),
        (lambda c: c.update(horizon_months=float("inf")), "horizon_months must be a finite number"),
        (lambda c: c.update(channels="abcd"), "channels must be a list"),
        (lambda c: c.update(channels=[1, 2, 3, 4]), "a channel must be text"),
        (lambda c: c.update(members=3), "members must be a list"),
        (lambda c: c.update(members=[3]), "bundle.json can't be used"),
        (lambda c: c.update(model=[]), "bundle.json can't be used"),
        (lambda c: c.update(operating_thresholds=[3]), "operating_thresholds must be a list of objects"),
        (lambda c: c.update(training_data="x"), "training_data must be an object"),
        (lambda c: c.update(calibration=[{"slope": -1, "intercept": 0}]), "calibration.slope must be above 0"),
        (lambda c: c.update(calibration=[{"slope": "x"}]), "calibration.slope must be a finite number"),
        (lambda c: c.update(calibration=[{"slope": 1, "intercept": float("nan")}]), "calibration.intercept must be"),
        (lambda c: c.update(calibration={"slope": 1, "intercept": 0}), "calibration must be a list"),
        (lambda c: c.update(calibration=[{"slope": 1}] * 2), "calibration must be one per horizon"),
        (lambda c: c.update(average_risk=[0.1, 0.2]), "average_risk must be one per horizon"),
        (lambda c: c.update(average_risk=[1.5]), "average_risk must be within 0 and 1"),
        (lambda c: c.update(average_risk=["x"]), "average_risk must be a finite number"),
        (lambda c: c.pop("horizons_months"), "'horizons_months' is missing"),
        (lambda c: c.update(horizons_months=[6, 12]), "the model has 1 outputs for 2 horizons"),
        (lambda c: c["model"].update(outputs=2), "the model has 2 outputs for 1 horizons"),
        (lambda c: c.update(horizons_months=[6]), "the main horizon (12 months) must be one of 6"),
        (lambda c: c.update(horizons_months=[12, 6]), "horizons must be above 0 months, ascending, each once"),
        (lambda c: c.update(horizons_months=[12, 12]), "horizons must be above 0 months, ascending, each once"),
        (lambda c: c.update(horizons_months=[-1, 12]), "horizons must be above 0 months, ascending, each once"),
        (lambda c: c.update(horizons_months=["12"]), "a horizon must be a finite number"),
        (lambda c: c.update(horizons_months=12), "horizons_months must be a list"),
        (lambda c: c["model"].update(change="false"), "change must be true or false"),
        (
            lambda c: (c["model"].update(change=True), c["time"].update(unit="days")),
            "bundle.json can't be used: a model that reads changes needs time in months. Get the bundle again.",
        ),
        (lambda c: c["model"].update(eps="x"), "eps above 0"),
        (lambda c: c["model"].update(eps=-1), "eps above 0"),
        (lambda c: c["model"].update(dropout=5), "all below 1"),
        (lambda c: c["model"].update(layers=2.5), "must be whole numbers"),
        (lambda c: c["model"].update(dims=[16, 32, 64, 100]), "must be a multiple of 128"),
        (lambda c: c["preprocessing"].update(crop_voxels=72.5), "crop_voxels is of a wrong kind"),
        (lambda c: c["preprocessing"].update(crop_voxels=10**7), "crop_voxels must lie between 24"),
        (lambda c: c["preprocessing"].update(central_fraction=[1]), "central_fraction is of a wrong kind"),
        (lambda c: c["preprocessing"].update(central_fraction=3), "central_fraction is of a wrong kind"),
        (lambda c: c["preprocessing"].update(spacing_mm=float("nan")), "spacing_mm is of a wrong kind, or not finite"),
        (lambda c: c["preprocessing"].update(spacing_mm=1e-9), "spacing_mm must lie between"),
        (lambda c: c["preprocessing"].update(liver_min_voxels="a"), "liver_min_voxels is of a wrong kind"),
    ],
)
def test_a_description_that_cannot_be_trusted_is_refused(
    copy: Path, change: Callable[[dict], object], sentence: str
) -> None:
    edit(copy, change)
    assert sentence in refusal_of(lambda: Bundle.open(copy))


def test_a_description_that_is_no_json_is_refused(copy: Path) -> None:
    (copy / "bundle.json").write_text("{")
    assert "bundle.json is not JSON: damaged" in refusal_of(lambda: Bundle.open(copy))


def test_weights_of_another_network_are_refused(demonstration: Bundle, tmp_path: Path) -> None:
    state = demonstration.member(0).state_dict()
    state.pop("head.bias")
    bundle = write_bundle(tmp_path / "b", demonstration.description, [(state, 0)], "card")
    assert "00.safetensors does not hold the weights of the network" in refusal_of(lambda: bundle.member(0))


def test_weights_that_are_not_finite_are_refused(demonstration: Bundle, tmp_path: Path) -> None:
    state = demonstration.member(0).state_dict()
    state["head.bias"] = torch.tensor([float("nan")])
    bundle = write_bundle(tmp_path / "b", demonstration.description, [(state, 0)], "card")
    assert "not finite half- or single-precision numbers" in refusal_of(lambda: bundle.member(0))


def test_a_bundle_is_never_written_over_something(demonstration: Bundle, copy: Path) -> None:
    state = demonstration.member(0).state_dict()
    message = refusal_of(lambda: write_bundle(copy, demonstration.description, [(state, 0)], "card"))
    assert "exists already" in message
    Bundle.open(copy)


def test_a_bundle_that_cannot_be_finished_leaves_nothing(demonstration: Bundle, tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        write_bundle(tmp_path / "b", demonstration.description, [({"x": "no tensor"}, 0)], "card")  # type: ignore[dict-item]
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- conversion


def published_checkpoint(test_data: Path, name: str, path: Path) -> Path:
    golden = load_file(test_data / "golden" / f"{name}.safetensors")
    state = {k.removeprefix("state."): v for k, v in golden.items() if k.startswith("state.")}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


OPTIONS = ConversionOptions(name="small", channels=DWI, time_unit="months")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_converted_checkpoint_gives_the_published_logits(test_data: Path, tmp_path: Path, suffix: str) -> None:
    checkpoint = published_checkpoint(test_data, "mednet_v1_small", tmp_path / f"weights{suffix}")
    bundle = convert_checkpoints([checkpoint], tmp_path / "bundle", OPTIONS)
    golden = load_file(test_data / "golden" / "mednet_v1_small.safetensors")
    with torch.no_grad():
        logits = bundle.member(0)(golden["input"].float(), golden["positions"], torch.tensor([3, 3]))
    assert torch.allclose(logits, golden["logits"], atol=1e-4, rtol=0)
    assert bundle.description.horizons == (bundle.description.horizon_months,)
    assert bundle.description.model.name == "mini"
    assert bundle.description.preprocessing.statistics == "body_box"
    assert not bundle.description.demonstration


LANDMARK, YEAR_AGO = datetime.date(2021, 3, 14), datetime.date(2020, 3, 14)


def test_time_is_counted_in_the_unit_that_the_user_gave(test_data: Path, tmp_path: Path) -> None:
    checkpoint = published_checkpoint(test_data, "mednet_v1_small", tmp_path / "weights.pth")
    factors = {}
    for unit in ("days", "weeks", "months", "years"):
        options = ConversionOptions(name="small", channels=DWI, time_unit=unit)
        description = convert_checkpoints([checkpoint], tmp_path / unit, options).description
        factors[unit] = description.times_of([YEAR_AGO, LANDMARK])[0]
    assert factors == pytest.approx({"days": 365, "weeks": 365 / 7, "months": 365 / 30.4375, "years": 365 / 365.25})


def test_a_checkpoint_with_objects_in_it_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (trap,)

    (tmp_path / "weights.pth").write_bytes(pickle.dumps({"a": Trap()}, protocol=2))
    torch.save({"net": Trap()}, tmp_path / "zip.pth")
    trap.unlink(missing_ok=True)
    for name in ("weights.pth", "zip.pth"):
        message = refusal_of(lambda name=name: convert_checkpoints([tmp_path / name], tmp_path / "b", OPTIONS))
        assert f"{name} can't be read as plain tensors" in message
    assert not trap.exists()
    assert not (tmp_path / "b").exists()


def test_checkpoints_that_do_not_fit_are_refused_in_words(test_data: Path, tmp_path: Path) -> None:
    v1 = published_checkpoint(test_data, "mednet_v1_small", tmp_path / "v1.safetensors")
    v2 = published_checkpoint(test_data, "mednet_v2_small", tmp_path / "v2.safetensors")
    out = tmp_path / "b"
    assert "not of one network" in refusal_of(lambda: convert_checkpoints([v1, v2], out, OPTIONS))
    assert "reads 2 channels; 4 are named" in refusal_of(lambda: convert_checkpoints([v2], out, OPTIONS))
    state = load_file(v1)
    state.pop("pooler.linear.bias")
    save_file(state, tmp_path / "part.safetensors")
    part = tmp_path / "part.safetensors"
    assert "part.safetensors does not hold all weights" in refusal_of(lambda: convert_checkpoints([part], out, OPTIONS))
    save_file({k: v for k, v in state.items() if k.startswith("backbone")}, part)
    assert "lacks parts of the published network" in refusal_of(lambda: convert_checkpoints([part], out, OPTIONS))
    assert "does not exist" in refusal_of(lambda: convert_checkpoints([tmp_path / "no.pth"], out, OPTIONS))
    assert not out.exists()


def test_a_checkpoint_of_anything_but_real_tensors_is_refused(test_data: Path, tmp_path: Path) -> None:
    good = torch.load(published_checkpoint(test_data, "mednet_v1_small", tmp_path / "good.pth"), weights_only=True)
    name = "pooler.linear.bias"
    for number, wrong in enumerate([good[name].to(torch.complex64), good[name] > 0, good[name].to_sparse(), 3]):
        torch.save({**good, name: wrong}, tmp_path / f"{number}.pth")
        message = refusal_of(lambda n=number: convert_checkpoints([tmp_path / f"{n}.pth"], tmp_path / "b", OPTIONS))
        assert "pooler.linear.bias, which is no dense tensor of real numbers" in message
    (tmp_path / "text.pth").write_text("abc")
    assert "can't be read as plain tensors" in refusal_of(
        lambda: convert_checkpoints([tmp_path / "text.pth"], tmp_path / "b", OPTIONS)
    )
    torch.save({**good, f"module.{name}": good[name]}, tmp_path / "twice.pth")
    assert "holds pooler.linear.bias twice" in refusal_of(
        lambda: convert_checkpoints([tmp_path / "twice.pth"], tmp_path / "b", OPTIONS)
    )
    copies = [tmp_path / "good.pth", tmp_path / "good.pth"]
    assert "hold the same weights" in refusal_of(lambda: convert_checkpoints(copies, tmp_path / "b", OPTIONS))
    assert not (tmp_path / "b").exists()


def test_member_is_the_network_that_was_stored(demonstration: Bundle) -> None:
    stored = load_file(demonstration.path / "members" / "00.safetensors")
    loaded = demonstration.member(0)
    assert isinstance(loaded, HCCNet)
    assert all(torch.equal(tensor, stored[name].float()) for name, tensor in loaded.state_dict().items())
