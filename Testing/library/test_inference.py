"""The prediction: ensemble, calibration, attention, risk without an exam, trajectory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from helpers import DWI, make_patient

from HCCNetLib.bundles import DEMONSTRATION_BUNDLE, Bundle, Calibration, write_bundle
from HCCNetLib.explanation import ClassActivation, EnsembleEvidence
from HCCNetLib.inference import Predictor, choose_device, prediction_schema
from HCCNetLib.inference.attention import attention_rollout
from HCCNetLib.inference.predictor import calibrate
from HCCNetLib.models import HCCNet, ModelConfig
from HCCNetLib.preprocessing import prepare_exam
from HCCNetLib.records import Exam, Patient, Refusal

DATES = ("2019-01-10", "2019-08-02", "2020-11-30", "2021-03-14")


def lively_bundle(
    folder: Path,
    base: Bundle,
    members: int = 2,
    calibration: tuple[Calibration, ...] = (),
    horizons: tuple[float, ...] = (12.0,),
    **network: Any,
) -> Bundle:
    """Networks whose random weights are large enough that exams and dates matter visibly."""
    config = replace(ModelConfig.variant("mini", len(DWI), "v2"), outputs=len(horizons), **network)
    states = []
    for seed in range(members):
        torch.manual_seed(100 + seed)
        model = HCCNet(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1 and ("encoder" in name or "pooler" in name or "head" in name):
                    parameter.mul_(6)
                elif parameter.ndim > 1:
                    parameter.mul_(3)
        states.append((model.state_dict(), seed))
    description = replace(
        base.description, calibration=calibration, name="lively", model=config, horizons=horizons, average_risk=()
    )
    return write_bundle(folder, description, states, "card", precision=torch.float32)


@pytest.fixture(scope="module")
def patient() -> Patient:
    return make_patient(DATES)


@pytest.fixture(scope="module")
def bundle(demonstration: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return lively_bundle(tmp_path_factory.mktemp("lively") / "b", demonstration, calibration=(Calibration(0.7, -0.4),))


HORIZONS = (6.0, 12.0, 24.0)


@pytest.fixture(scope="module")
def of_three(demonstration: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Networks with three horizons, of which the second is the main one; with slopes that make the last risk too low."""
    calibration = (Calibration(1.0, -0.3), Calibration(0.7, -0.4), Calibration(0.5, -3.0))
    folder = tmp_path_factory.mktemp("three") / "b"
    bundle = lively_bundle(folder, demonstration, calibration=calibration, horizons=HORIZONS)
    states = [(bundle.member(i).state_dict(), i) for i in range(2)]
    described = replace(bundle.description, average_risk=(0.02, 0.05, 0.11))
    return write_bundle(folder.parent / "c", described, states, "card", precision=torch.float32)


def times_of(patient: Patient) -> torch.Tensor:
    return torch.tensor([[(patient.landmark.date - e.date).days / 30.4375 for e in patient.exams]])


def prepared_exams(bundle: Bundle, patient: Patient) -> torch.Tensor:
    return torch.stack(
        [torch.from_numpy(prepare_exam(e, DWI, bundle.description.preprocessing).data) for e in patient.exams]
    )


def test_the_risk_is_the_calibrated_mean_of_the_members_probabilities(bundle: Bundle, patient: Patient) -> None:
    prediction = Predictor(bundle, "cpu").predict(patient)
    exams, times = prepared_exams(bundle, patient), times_of(patient)
    with torch.no_grad():
        each = [float(bundle.member(i)(exams[None], times, torch.tensor([4])).sigmoid()) for i in range(2)]
    mean = sum(each) / 2
    assert prediction.risk_uncalibrated == pytest.approx(mean, abs=1e-6)
    odds = np.exp(0.7 * np.log(mean / (1 - mean)) - 0.4)
    assert prediction.risk == pytest.approx(odds / (1 + odds), abs=1e-6)
    each_odds = np.exp(0.7 * np.log(np.array(each) / (1 - np.array(each))) - 0.4)
    assert prediction.members == pytest.approx(each_odds / (1 + each_odds), abs=1e-6)
    assert prediction.spread["low"] == min(prediction.members)
    assert prediction.spread["high"] == max(prediction.members)
    assert prediction.spread["sd"] == pytest.approx(np.std(prediction.members))
    (only,) = prediction.risk_by_horizon
    assert only == {
        "months": 12.0,
        "risk": prediction.risk,
        "risk_uncalibrated": prediction.risk_uncalibrated,
        "low": prediction.spread["low"],
        "high": prediction.spread["high"],
        "average": None,
    }


def test_the_risk_by_horizon_is_the_calibrated_mean_of_the_members_cumulative_risks(
    of_three: Bundle, patient: Patient
) -> None:
    prediction = Predictor(of_three, "cpu").predict(patient)
    exams, times = prepared_exams(of_three, patient), times_of(patient)
    with torch.no_grad():
        hazards = torch.cat([of_three.member(i)(exams[None], times, torch.tensor([4])) for i in range(2)])
    each = 1 - np.cumprod(1 - hazards.double().sigmoid().numpy(), axis=1)  # (members, horizons)
    found = {key: [at[key] for at in prediction.risk_by_horizon] for key in prediction.risk_by_horizon[0]}
    assert found["months"] == list(HORIZONS)
    assert found["average"] == [0.02, 0.05, 0.11]
    assert found["risk_uncalibrated"] == pytest.approx(each.mean(axis=0), abs=1e-6)
    slopes, intercepts = np.array([1.0, 0.7, 0.5]), np.array([-0.3, -0.4, -3.0])

    def by_hand(risks: np.ndarray) -> np.ndarray:
        logits = slopes * np.log(risks / (1 - risks)) + intercepts
        return np.maximum.accumulate(1 / (1 + np.exp(-logits)), axis=-1)

    assert found["risk"] == pytest.approx(by_hand(each.mean(axis=0)), abs=1e-6)
    assert found["risk"][0] < found["risk"][1] == found["risk"][2]  # the last one alone would be lower
    assert found["low"] == pytest.approx(by_hand(each).min(axis=0), abs=1e-6)
    assert found["high"] == pytest.approx(by_hand(each).max(axis=0), abs=1e-6)
    # What stands beside it is of the main horizon.
    assert (prediction.horizon_months, prediction.risk) == (12.0, found["risk"][1])
    assert prediction.risk_uncalibrated == found["risk_uncalibrated"][1]
    assert (prediction.spread["low"], prediction.spread["high"]) == (found["low"][1], found["high"][1])
    assert prediction.members == pytest.approx(by_hand(each)[:, 1], abs=1e-6)


def test_the_risks_at_every_exam_are_those_of_predictions_from_it_at_each_horizon(
    of_three: Bundle, patient: Patient
) -> None:
    predictor = Predictor(of_three, "cpu")
    risks = predictor.risks_at_every_exam(patient, predictor.prepare(patient))
    assert risks.shape == (2, 4, 3)
    trajectory = predictor.predict(patient).trajectory
    for number, exam in enumerate(patient.exams):
        alone = predictor.predict(patient.until(exam))
        raw = [at["risk_uncalibrated"] for at in alone.risk_by_horizon]
        assert risks[:, number].mean(axis=0) == pytest.approx(raw, abs=1e-5)
        assert trajectory[number]["risk"] == pytest.approx(alone.risk, abs=1e-5)


def test_the_demonstration_predicts_what_it_did_before_there_were_horizons(sample_patient: Patient) -> None:
    """The values are those of the version before (d3b1fc5), which knew one horizon, for the patient in the package."""
    bundle = Bundle.open(DEMONSTRATION_BUNDLE)
    assert json.loads((DEMONSTRATION_BUNDLE / "bundle.json").read_text())["format_version"] == 1
    prediction = Predictor(bundle, "cpu").predict(sample_patient)
    assert prediction.risk == pytest.approx(0.9729628, abs=1e-5)
    assert prediction.risk_uncalibrated == pytest.approx(0.8927931, abs=1e-5)
    assert prediction.members[:3] == pytest.approx([0.9878929, 0.9780478, 0.9483624], abs=1e-5)
    assert [point["risk"] for point in prediction.trajectory] == pytest.approx(
        [0.6878776, 0.8219889, 0.8950510, 0.9729628], abs=1e-5
    )
    assert [exam.risk_without for exam in prediction.exams[:-1]] == pytest.approx(
        [0.9846668, 0.9381929, 0.9371051], abs=1e-5
    )
    (only,) = prediction.risk_by_horizon
    assert (only["months"], only["risk"], only["average"]) == (12.0, prediction.risk, None)


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


def test_a_prediction_satisfies_its_schema(bundle: Bundle, of_three: Bundle, patient: Patient) -> None:
    schema = prediction_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for number, which in ((1, bundle), (4, bundle), (4, of_three)):
        result = Predictor(which, "cpu").predict(Patient("P1", patient.exams[:number])).to_dict()
        jsonschema.validate(result, schema)
    first, *others = result["risk_by_horizon"]
    without_average = {key: value for key, value in first.items() if key != "average"}
    for wrong in (
        {"risk": 1.2},
        {"risk_by_horizon": []},
        {"risk_by_horizon": [{**first, "high": 1.2}, *others]},
        {"risk_by_horizon": [without_average, *others]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**result, **wrong}, schema)


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
    plain = replace(bundle.description, calibration=(), demonstration=False)
    uncalibrated = write_bundle(tmp_path / "a", plain, states, "card")
    calibrated = write_bundle(tmp_path / "b", replace(plain, calibration=(Calibration(),)), states, "card")
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
    one = (Calibration(2.0, 1.0),)
    assert calibrate(np.array([[0.2], [0.7]]), one)[:, 0] == pytest.approx([0.14522, 0.93671], abs=1e-5)
    assert np.isfinite(calibrate(np.array([[0.0], [1.0]]), (Calibration(1.5, 0.2),))).all()
    assert calibrate(np.array([0.3]), ()) == pytest.approx([0.3])


def test_a_calibrated_risk_is_never_below_that_of_a_shorter_horizon() -> None:
    calibration = (Calibration(2.0, 1.0), Calibration(0.5, -1.0), Calibration(1.0, 0.0))
    risks = np.sort(np.random.default_rng(0).random((500, 4, 3)), axis=-1)
    calibrated = calibrate(risks, calibration)
    assert (np.diff(calibrated, axis=-1) >= 0).all()
    alone = np.stack([calibrate(risks[..., k : k + 1], (one,))[..., 0] for k, one in enumerate(calibration)], axis=-1)
    assert (np.diff(alone, axis=-1) < 0).any()  # each horizon by itself would fall
    assert calibrated == pytest.approx(np.maximum.accumulate(alone, axis=-1))
    assert (calibrate(risks, ()) == risks).all()


def test_an_exam_needs_its_date_and_each_day_one_exam(patient: Patient) -> None:
    exam: Exam = patient.exams[0]
    with pytest.raises(ValueError, match="one a day"):
        Patient("P1", (exam, replace(exam, exam_id="other")))
    with pytest.raises(Refusal, match="no exam"):
        Patient("P1", ())
