"""The prediction: ensemble, calibration, attention, risk without an exam, trajectory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from helpers import DWI, make_patient

from HCCNetLib.bundles import Bundle, Calibration, write_bundle
from HCCNetLib.explanation import ClassActivation, EnsembleEvidence
from HCCNetLib.inference import Predictor, choose_device, prediction_schema
from HCCNetLib.inference.attention import attention_rollout
from HCCNetLib.inference.predictor import calibrate
from HCCNetLib.models import HCCNet, ModelConfig
from HCCNetLib.preprocessing import prepare_exam
from HCCNetLib.records import Exam, Patient, Refusal

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
    Predictor(bundle, "cpu").predict(patient, [EnsembleEvidence(ClassActivation(3))])
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


def test_an_exam_needs_its_date_and_each_day_one_exam(patient: Patient) -> None:
    exam: Exam = patient.exams[0]
    with pytest.raises(ValueError, match="one a day"):
        Patient("P1", (exam, replace(exam, exam_id="other")))
    with pytest.raises(Refusal, match="no exam"):
        Patient("P1", ())
