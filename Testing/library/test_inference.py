"""The prediction: ensemble, calibration, attention, risk without an exam, trajectory."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pytest
import torch
from helpers import DWI, make_patient, write_nifti
from test_preprocessing import stored_differently

from HCCNetLib.bundles import Bundle, Calibration, write_bundle
from HCCNetLib.explanation import ClassActivation, cell_affine
from HCCNetLib.inference import MAP_STAGE, EncodedSequence, Predictor, choose_device, prediction_schema
from HCCNetLib.inference.attention import attention_rollout
from HCCNetLib.inference.predictor import calibrate
from HCCNetLib.models import HCCNet, ModelConfig
from HCCNetLib.preprocessing import prepare_exam
from HCCNetLib.readers import read_input
from HCCNetLib.records import ArrayImage, Exam, Patient, Refusal

DATES = ("2019-01-10", "2019-08-02", "2020-11-30", "2021-03-14")


def lively_bundle(folder: Path, base: Bundle, members: int = 2, calibration: Calibration | None = None) -> Bundle:
    """Networks whose random weights are large enough that exams and dates matter visibly."""
    states = []
    for seed in range(members):
        torch.manual_seed(100 + seed)
        model = HCCNet(ModelConfig.variant("mini", len(DWI), "v2"))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1 and ("encoder" in name or "pooler" in name or "head" in name):
                    parameter.mul_(6)
                elif parameter.ndim > 1:
                    parameter.mul_(3)
        states.append((model.state_dict(), seed))
    description = replace(base.description, calibration=calibration, name="lively")
    return write_bundle(folder, description, states, "card", precision=torch.float32)


@pytest.fixture(scope="module")
def patient() -> Patient:
    return make_patient(DATES)


@pytest.fixture(scope="module")
def bundle(demonstration: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return lively_bundle(tmp_path_factory.mktemp("lively") / "b", demonstration, calibration=Calibration(0.7, -0.4))


def test_the_risk_is_the_calibrated_mean_of_the_members_probabilities(bundle: Bundle, patient: Patient) -> None:
    prediction = Predictor(bundle, "cpu").predict(patient)
    exams = torch.stack(
        [torch.from_numpy(prepare_exam(e, DWI, bundle.description.preprocessing).data) for e in patient.exams]
    )
    times = torch.tensor([[(patient.landmark.date - e.date).days / 30.4375 for e in patient.exams]])
    with torch.no_grad():
        each = [float(bundle.member(i)(exams[None], times, torch.tensor([4])).sigmoid()) for i in range(2)]
    mean = sum(each) / 2
    assert prediction.risk_uncalibrated == pytest.approx(mean, abs=1e-6)
    odds = np.exp(0.7 * np.log(mean / (1 - mean)) - 0.4)
    assert prediction.risk == pytest.approx(odds / (1 + odds), abs=1e-6)
    assert prediction.members == pytest.approx(calibrate(np.array(each), Calibration(0.7, -0.4)), abs=1e-6)
    assert prediction.spread["low"] == min(prediction.members)
    assert prediction.spread["high"] == max(prediction.members)
    assert prediction.spread["sd"] == pytest.approx(np.std(prediction.members))


def test_risk_without_an_exam_is_the_risk_of_the_patient_without_it(bundle: Bundle, patient: Patient) -> None:
    predictor = Predictor(bundle, "cpu")
    whole = predictor.predict(patient)
    assert whole.exams[-1].risk_without is None
    for left_out in range(3):
        others = Patient("P1", tuple(e for i, e in enumerate(patient.exams) if i != left_out))
        assert whole.exams[left_out].risk_without == pytest.approx(predictor.predict(others).risk, abs=1e-5)
    assert len({round(r, 4) for r in [whole.risk, *(e.risk_without for e in whole.exams[:-1])]}) > 1


def test_the_trajectory_is_what_would_have_been_predicted_at_each_exam(bundle: Bundle, patient: Patient) -> None:
    predictor = Predictor(bundle, "cpu")
    trajectory = predictor.predict(patient).trajectory
    assert [point["as_of"] for point in trajectory] == list(DATES)
    for exam, point in zip(patient.exams, trajectory, strict=True):
        assert point["risk"] == pytest.approx(predictor.predict(patient.until(exam)).risk, abs=1e-5)


def test_dates_change_the_risk_and_attention_sums_to_1(bundle: Bundle, patient: Patient) -> None:
    predictor = Predictor(bundle, "cpu")
    moved = replace(patient.exams[0], date=patient.exams[0].date.replace(year=2017))
    earlier = Patient("P1", (moved, *patient.exams[1:]))
    first, second = predictor.predict(patient), predictor.predict(earlier)
    assert abs(first.risk - second.risk) > 1e-4
    assert sum(e.attention for e in first.exams) == pytest.approx(1)
    assert min(e.attention for e in first.exams) > 0
    assert [e.months_before_landmark for e in first.exams] == pytest.approx(
        [793 / 30.4375, 590 / 30.4375, 104 / 30.4375, 0], abs=0.05
    )


def test_each_exam_is_encoded_once_per_member(
    bundle: Bundle, patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from HCCNetLib.models import ConvNeXt3d

    encoded = []
    original = ConvNeXt3d.forward_stages

    def counting(self: ConvNeXt3d, x: torch.Tensor, start: int = 0, stop: int = 4) -> torch.Tensor:
        if start == 0:
            encoded.append(len(x))
        return original(self, x, start, stop)

    monkeypatch.setattr(ConvNeXt3d, "forward_stages", counting)
    Predictor(bundle, "cpu").predict(patient, [ClassActivation()])
    assert sum(encoded) == len(patient.exams) * len(bundle.description.members)


def test_a_prediction_satisfies_its_schema(bundle: Bundle, patient: Patient) -> None:
    schema = prediction_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for number in (1, 4):
        result = Predictor(bundle, "cpu").predict(Patient("P1", patient.exams[:number])).to_dict()
        jsonschema.validate(result, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**result, "risk": 1.2}, schema)


def test_one_exam_is_predicted_with_a_warning(bundle: Bundle, patient: Patient) -> None:
    prediction = Predictor(bundle, "cpu").predict(Patient("P1", patient.exams[:1]))
    assert prediction.exams[0].attention == 1.0
    assert prediction.exams[0].risk_without is None
    assert len(prediction.trajectory) == 1
    assert "single_exam" in {w.code for w in prediction.warnings}


def test_the_same_image_at_two_places_is_pointed_out(bundle: Bundle, patient: Patient) -> None:
    copied = replace(
        patient.exams[2], images={**patient.exams[2].images, "DWI_b800": patient.exams[2].images["DWI_b400"]}
    )
    prediction = Predictor(bundle, "cpu").predict(Patient("P1", (*patient.exams[:2], copied, patient.exams[3])))
    messages = [w.message for w in prediction.warnings if w.code == "same_image_twice"]
    assert messages == [
        "DWI_b800 of exam 2020-11-30 is the same image as DWI_b400 of exam 2020-11-30. Check that the right files were "
        "given."
    ]


def test_demonstration_weights_say_so_first(demonstration: Bundle, patient: Patient) -> None:
    warnings = Predictor(demonstration, "cpu").predict(patient).warnings
    assert warnings[0].code == "demonstration"
    assert "this result has no meaning for this patient" in warnings[0].message


def test_a_bundle_without_calibration_says_so(bundle: Bundle, patient: Patient, tmp_path: Path) -> None:
    states = [(bundle.member(0).state_dict(), 0)]
    plain = replace(bundle.description, calibration=None, demonstration=False)
    uncalibrated = write_bundle(tmp_path / "a", plain, states, "card")
    calibrated = write_bundle(tmp_path / "b", replace(plain, calibration=Calibration()), states, "card")
    one = Patient("P1", patient.exams[:1])
    assert "not_calibrated" in {w.code for w in Predictor(uncalibrated, "cpu").predict(one).warnings}
    assert "not_calibrated" not in {w.code for w in Predictor(calibrated, "cpu").predict(one).warnings}


def test_a_missing_channel_is_refused_unless_the_networks_know_it(
    bundle: Bundle, patient: Patient, tmp_path: Path
) -> None:
    images = {c: i for c, i in patient.exams[1].images.items() if c != "DWI_b150"}
    lacking = Patient("P1", (patient.exams[0], replace(patient.exams[1], images=images)))
    with pytest.raises(Refusal, match="Exam 2019-08-02 lacks DWI_b150"):
        Predictor(bundle, "cpu").predict(lacking)
    states = [(bundle.member(i).state_dict(), i) for i in range(2)]
    tolerant = write_bundle(tmp_path / "b", replace(bundle.description, missing_channels=True), states, "card")
    warnings = Predictor(tolerant, "cpu").predict(lacking).warnings
    assert [(w.code, w.exam_id) for w in warnings if w.code == "missing_channel"] == [("missing_channel", "2019-08-02")]


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(Refusal, match="no CUDA GPU"):
        choose_device("cuda")


def test_attention_rollout_by_hand() -> None:
    # Two layers, two heads, CLS and two exams. Heads average to A1, A2; with the residual (A + I)/2.
    a1 = torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2], [0.0, 1.0, 0.0]])
    a2 = torch.tensor([[0.6, 0.0, 0.4], [0.3, 0.3, 0.4], [0.1, 0.1, 0.8]])
    heads = torch.stack([torch.stack([a + 0.1 * torch.eye(3), a - 0.1 * torch.eye(3)]) for a in (a1, a2)])
    # First row of (A2+I)/2 = [.8, 0, .2]; times (A1+I)/2 = [[.6,.25,.15],[.2,.7,.1],[0,.5,.5]] = [.48, .30, .22]
    assert attention_rollout(heads) == pytest.approx(np.array([0.30, 0.22]) / 0.52)


def test_calibration_by_hand_and_at_the_ends() -> None:
    # logit(0.2) = -1.386; 2 · -1.386 + 1 = -1.7726; sigmoid = 0.1452
    assert calibrate(np.array([0.2]), Calibration(2.0, 1.0)) == pytest.approx([0.14522], abs=1e-5)
    assert np.isfinite(calibrate(np.array([0.0, 1.0]), Calibration(1.5, 0.2))).all()
    assert calibrate(np.array([0.3]), None) == pytest.approx([0.3])


# ---------------------------------------------------------------- maps


def test_a_cell_lies_where_its_voxels_lie() -> None:
    """The gradient of one cell of the third stage is centred on the voxels that its affine names."""
    torch.manual_seed(0)
    model = HCCNet(ModelConfig.variant("mini", 1, "v1"))  # layer scale 1e-6: blocks hardly mix neighbours
    image = torch.randn(1, 1, 72, 72, 72, requires_grad=True)
    cell = (4, 1, 2)
    feature_map = model.backbone.forward_stages(image, stop=MAP_STAGE + 1)
    assert feature_map.shape[2:] == (6, 6, 6)
    feature_map[(0, slice(None), *cell)].pow(2).sum().backward()
    weight = image.grad.abs()[0, 0]
    reached = torch.nonzero(weight > weight.max() * 1e-3)
    low, high = reached.min(dim=0).values.tolist(), reached.max(dim=0).values.tolist()
    assert low == [12 * c for c in cell]
    assert high == [12 * c + 11 for c in cell]
    affine = np.diag([1.5, -1.5, 2.0, 1.0])
    affine[:3, 3] = [10, 20, 30]
    centre = cell_affine(affine, MAP_STAGE) @ [*cell, 1]
    middle = affine @ [*((a + b) / 2 for a, b in zip(low, high, strict=True)), 1]
    assert centre == pytest.approx(middle)


class EvidenceProbe:
    """Asks a member what becomes of its logit when the features that enter the last stage are changed."""

    def __init__(self) -> None:
        self.slopes: list[float] = []
        self.drops: list[np.ndarray] = []

    def observe(self, model: HCCNet, sequence: EncodedSequence) -> None:
        model = copy.deepcopy(model).double()
        features = model.backbone.enter_stage(MAP_STAGE + 1, sequence.feature_maps.double())

        def logit(changed: torch.Tensor) -> float:
            embeddings = model.backbone.pool(model.backbone.leave_stage(MAP_STAGE + 1, changed))
            return float(model.classify(embeddings[None], sequence.times[None].double(), torch.tensor([4]))[0])

        self.slopes.append((logit(features * (1 + 1e-4)) - logit(features * (1 - 1e-4))) / 2e-4)
        whole = logit(features)
        drops = np.zeros((6, 6, 6))
        for cell in np.ndindex(6, 6, 6):
            without = features.clone()
            without[(3, slice(None), *cell)] = 0
            drops[cell] = whole - logit(without)
        self.drops.append(drops)


def test_evidence_is_what_the_logit_loses_without_a_cell(bundle: Bundle, patient: Patient) -> None:
    predictor = Predictor(bundle, "cpu")
    prepared = predictor.prepare(patient)
    activation, probe = ClassActivation(), EvidenceProbe()
    predictor.predict_prepared(patient, prepared, [activation, probe])
    evidence = activation.evidence()
    assert evidence.shape == (4, 6, 6, 6)
    assert float(evidence.sum(dtype=np.float64)) == pytest.approx(np.mean(probe.slopes), rel=2e-3)
    drops = np.mean(probe.drops, axis=0)
    assert np.corrcoef(evidence[3].ravel(), drops.ravel())[0, 1] > 0.9
    assert evidence[3].std() == pytest.approx(drops.std(), rel=0.5)


def test_maps_share_one_scale_per_patient_and_lie_on_their_exam(bundle: Bundle, patient: Patient) -> None:
    predictor = Predictor(bundle, "cpu")
    prepared = predictor.prepare(patient)
    activation = ClassActivation()
    predictor.predict_prepared(patient, prepared, [activation])
    maps = activation.maps(prepared)
    assert [m.shape for m in maps] == [e.images["DWI_b0"].grid.shape for e in patient.exams]
    assert max(m.max() for m in maps) == pytest.approx(1)
    assert min(m.min() for m in maps) >= 0
    assert len({round(float(m.max()), 3) for m in maps}) > 1


VARIANTS = [
    pytest.param(flips, order, id=f"{''.join('-' if f else '+' for f in flips)} {''.join('XYZ'[i] for i in order)}")
    for order in ((0, 1, 2), (2, 1, 0))
    for flips in itertools.product((False, True), repeat=3)
]


@pytest.fixture(scope="module")
def as_stored(bundle: Bundle, sample_patient: Patient) -> tuple[float, np.ndarray]:
    predictor = Predictor(bundle, "cpu")
    latest = Patient("P1", sample_patient.exams[-2:])
    prepared = predictor.prepare(latest)
    activation = ClassActivation()
    prediction = predictor.predict_prepared(latest, prepared, [activation])
    return prediction.risk, activation.maps(prepared)[1]


@pytest.mark.parametrize(("flips", "order"), VARIANTS)
def test_the_same_exam_stored_otherwise_gives_the_same_risk_and_the_same_map(
    flips: tuple[bool, ...],
    order: tuple[int, ...],
    bundle: Bundle,
    sample_patient: Patient,
    as_stored: tuple[float, np.ndarray],
    tmp_path: Path,
) -> None:
    """Eight orientations, both voxel orders, through real files."""
    early, late = sample_patient.exams[-2:]
    for channel in DWI:
        image = late.images[channel]
        other = stored_differently(ArrayImage(image.read(), image.grid.affine), order, flips)
        write_nifti(tmp_path / "P1" / late.exam_id / f"{channel}.nii.gz", other.data, other.affine)
    stored = read_input(tmp_path / "P1").patients[0].exams[0]
    predictor = Predictor(bundle, "cpu")
    variant = Patient("P1", (early, stored))
    prepared = predictor.prepare(variant)
    activation = ClassActivation()
    prediction = predictor.predict_prepared(variant, prepared, [activation])
    expected_risk, expected_map = as_stored
    assert prediction.risk == pytest.approx(expected_risk, abs=1e-3)
    expected = stored_differently(ArrayImage(expected_map, late.images["DWI_b0"].grid.affine), order, flips)
    assert np.abs(activation.maps(prepared)[1] - expected.data).max() < 1e-2
    assert prepared[1].source_grid.affine == pytest.approx(expected.affine, abs=1e-3)
    wanted = ["".join(nib.aff2axcodes(a)) for a in (expected.affine, prepared[1].source_grid.affine)]
    assert wanted[0] == wanted[1]


def test_an_exam_needs_its_date_and_each_day_one_exam(patient: Patient) -> None:
    exam: Exam = patient.exams[0]
    with pytest.raises(ValueError, match="one a day"):
        Patient("P1", (exam, replace(exam, exam_id="other")))
    with pytest.raises(Refusal, match="no exam"):
        Patient("P1", ())
