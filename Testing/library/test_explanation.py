"""What a prediction rests on: each method against what it claims, and every map at its place in the patient."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers import DWI, make_patient, rotation, write_nifti
from scipy import ndimage
from test_inference import DATES, lively_bundle
from test_preprocessing import stored_differently
from torch import nn

from HCCNetLib.bundles import DEMONSTRATION_BUNDLE, Bundle
from HCCNetLib.explanation import (
    DEFAULT_METHOD,
    METHODS,
    ChangeEvidence,
    ClassActivation,
    EnsembleEvidence,
    Evidence,
    Explainer,
    GradientAttention,
    IntegratedActivation,
    IntegratedGradients,
    Occlusion,
    PatientExplanation,
    cell_affine,
    exam_maps,
    make_explainer,
)
from HCCNetLib.explanation.attention import relevance
from HCCNetLib.explanation.check import find_check
from HCCNetLib.explanation.class_activation import features_of
from HCCNetLib.explanation.explainer import logits_with
from HCCNetLib.explanation.path import integrate
from HCCNetLib.explanation.reference import without_detail
from HCCNetLib.inference import EncodedSequence, Predictor, Reading
from HCCNetLib.models import HCCNet, ModelConfig, stage_stride
from HCCNetLib.models.convnext3d import VARIANTS, stage_macs
from HCCNetLib.preprocessing import PreparedExam
from HCCNetLib.preprocessing.geometry import scaling, translation
from HCCNetLib.preprocessing.inverse import peak_voxel
from HCCNetLib.readers import read_input
from HCCNetLib.records import ArrayImage, Exam, Patient, Refusal
from HCCNetLib.synthetic.growth import GrowthModel
from HCCNetLib.synthetic.phantom import PhantomModel, draw_phantom
from HCCNetLib.synthetic.rendering import render_exam


class Seen:
    """Keeps what each member gives its observers."""

    def __init__(self) -> None:
        self.members: list[tuple[HCCNet, EncodedSequence]] = []

    def observe(self, model: HCCNet, sequence: EncodedSequence) -> None:
        self.members.append((model, sequence))


def few_members(bundle: Bundle, count: int) -> Bundle:
    """The same bundle as if it had fewer members: the others are not loaded."""
    return replace(bundle, description=replace(bundle.description, members=bundle.description.members[:count]))


def seen_by(bundle: Bundle, patient: Patient) -> list[tuple[HCCNet, EncodedSequence]]:
    seen = Seen()
    Predictor(bundle, "cpu").predict(patient, [seen])
    return seen.members


def evidence_on(bundle: Bundle, patient: Patient, explainer: Explainer) -> tuple[Evidence, tuple[PreparedExam, ...]]:
    predictor = Predictor(bundle, "cpu")
    prepared = predictor.prepare(patient)
    ensemble = EnsembleEvidence(explainer)
    predictor.predict_prepared(patient, prepared, [ensemble])
    return ensemble.result(), prepared


@pytest.fixture(scope="module")
def patient() -> Patient:
    return make_patient(DATES)


@pytest.fixture(scope="module")
def lively(demonstration: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return lively_bundle(tmp_path_factory.mktemp("lively") / "b", demonstration)


@pytest.fixture(scope="module")
def lively_members(lively: Bundle, patient: Patient) -> list[tuple[HCCNet, EncodedSequence]]:
    return seen_by(lively, patient)


@pytest.fixture(scope="module")
def trained() -> Bundle:
    """Two of the demonstration bundle's ten networks."""
    return few_members(Bundle.open(DEMONSTRATION_BUNDLE), 2)


@pytest.fixture(scope="module")
def converter() -> tuple[Patient, np.ndarray]:
    """A generated patient who is diagnosed within the year, and the lesion's centre at the last exam, mm."""
    model = PhantomModel(disease=GrowthModel())
    phantom = draw_phantom(model, seed=2, index=0)
    exams = []
    for number, day in enumerate(phantom.course.dates):
        rendered = render_exam(model, phantom, number)
        images = {c: ArrayImage(v.astype(np.float32), rendered.grid.affine, c) for c, v in rendered.images.items()}
        exams.append(Exam(day.isoformat(), day, images))
    centre = rendered.grid.affine @ [*np.argwhere(rendered.lesion).mean(axis=0), 1]
    return Patient("P1", tuple(exams)), centre[:3]


# ---------------------------------------------------------------- what each method claims


def test_a_cell_lies_where_its_voxels_lie() -> None:
    """The gradient of one cell of a stage is centred on the voxels that its affine names."""
    torch.manual_seed(0)
    model = HCCNet(ModelConfig.variant("mini", 1, "v1"))  # layer scale 1e-6: blocks hardly mix neighbours
    affine = np.diag([1.5, -1.5, 2.0, 1.0])
    affine[:3, 3] = [10, 20, 30]
    for stage, cell in ((1, (14, 5, 20)), (2, (7, 3, 1)), (3, (4, 1, 2)), (4, (1, 2, 0))):
        image = torch.randn(1, 1, 72, 72, 72, requires_grad=True)
        feature_map = model.backbone.forward_stages(image, stop=stage)
        edge = stage_stride(stage - 1)
        assert feature_map.shape[2:] == (72 // edge,) * 3
        feature_map[(0, slice(None), *cell)].pow(2).sum().backward()
        weight = image.grad.abs()[0, 0]
        reached = torch.nonzero(weight > weight.max() * 1e-3)
        low, high = reached.min(dim=0).values.tolist(), reached.max(dim=0).values.tolist()
        assert low == [edge * c for c in cell]
        assert high == [edge * c + edge - 1 for c in cell]
        centre = cell_affine(affine, edge) @ [*cell, 1]
        assert centre == pytest.approx(affine @ [*((a + b) / 2 for a, b in zip(low, high, strict=True)), 1])


@pytest.mark.parametrize("stage", [2, 3])
def test_class_activation_is_what_the_logit_loses_when_a_cell_becomes_average(
    stage: int, lively_members: list[tuple[HCCNet, EncodedSequence]]
) -> None:
    model, sequence = lively_members[0]
    evidence = ClassActivation(stage).evidence(model, sequence)[-1, 0]
    model = copy.deepcopy(model).double()
    backbone = model.backbone
    features = backbone.enter_stage(stage, sequence.stage_maps[stage - 1][-1:].double())
    embeddings = sequence.embeddings.double()
    reading = replace(sequence.reading, times=sequence.reading.times.double())
    edge = stage_stride(stage - 1)
    share = nn.functional.avg_pool3d(sequence.field[-1:, None].double(), edge)
    mean = (features * share).sum(dim=(2, 3, 4)) / share.sum()

    def logit(changed: torch.Tensor) -> float:
        last = backbone.forward_stages(backbone.leave_stage(stage, changed), start=stage + 1)
        return float(reading.logit(model, torch.cat([embeddings[:-1], backbone.pool(last)])[None]))

    losses, claimed = [], []
    whole = logit(features)
    cells = [tuple(c) for c in torch.nonzero(share[0, 0] > 0).tolist()]
    for cell in cells[:: max(1, len(cells) // 150)]:
        without = features.clone()
        without[(0, slice(None), *cell)] = mean[0]
        losses.append(whole - logit(without))
        claimed.append(float(evidence[cell]))
    assert np.corrcoef(losses, claimed)[0, 1] > 0.9
    assert np.std(claimed) == pytest.approx(np.std(losses), rel=0.5)
    assert not evidence[share[0, 0] == 0].any()


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("steps", [50])
def test_integrated_gradients_sum_to_the_logit_difference_within_2_percent(
    version: str, steps: int, trained: Bundle, lively: Bundle, converter: tuple[Patient, np.ndarray], patient: Patient
) -> None:
    """Exam by exam, in single precision: the trained networks (v1) on the phantom, random ones (v2) on another body."""
    bundle, who = (trained, converter[0]) if version == "v1" else (few_members(lively, 1), patient)
    for model, sequence in seen_by(bundle, who):
        assert model.config.version == version
        evidence = IntegratedGradients(steps).evidence(model, sequence)
        blurred = without_detail(sequence.images, sequence.field, sequence.voxel_mm)
        whole = float(sequence.reading.logit(model, sequence.embeddings[None]))
        for exam in sequence.reading.exams:
            with torch.no_grad():
                lost = whole - float(logits_with(model, sequence, exam, blurred[exam][None]))
            assert abs(lost) > 1e-3
            # Differences below 0.01 are at the edge of single precision.
            assert float(evidence[exam].double().sum()) == pytest.approx(lost, rel=0.02, abs=2e-4)


def test_integrated_activation_sums_to_the_difference_from_exams_all_of_whose_cells_are_average(
    trained: Bundle, converter: tuple[Patient, np.ndarray]
) -> None:
    """Single members turn within a small part of the way; the mean of the ten is near what eight steps claim."""
    sums, differences = [], []
    for model, sequence in seen_by(Bundle.open(DEMONSTRATION_BUNDLE), converter[0]):
        sums.append(float(IntegratedActivation().evidence(model, sequence).double().sum()))
        entered, difference = features_of(model, sequence, 1)
        backbone = model.backbone
        last = backbone.forward_stages(backbone.leave_stage(1, entered - difference), start=2)
        with torch.no_grad():
            average = sequence.reading.logit(model, backbone.pool(last)[None])
            differences.append(float(sequence.reading.logit(model, sequence.embeddings[None]) - average))
    assert abs(np.mean(differences)) > 0.5
    assert np.mean(sums) == pytest.approx(np.mean(differences), rel=0.1)
    assert np.corrcoef(sums, differences)[0, 1] > 0.9


def test_a_way_with_a_sudden_turn_gets_more_steps() -> None:
    asked: list[int] = []
    way = torch.tensor([2.0, -1.0])

    def gradients(places: torch.Tensor) -> torch.Tensor:
        asked.append(len(places))
        steep = torch.sigmoid((places - 0.3) * 400)  # the output: 3 · sigmoid, all of it due to the first element
        slope = 3 * 400 * steep * (1 - steep)
        return torch.stack([slope / 2, torch.zeros_like(slope)], dim=1)

    result = integrate(gradients, way, 3.0, steps=16, batch=8)
    assert result[1] == 0
    assert sum(asked) == 16 + 32 + 64
    asked.clear()
    gentle = integrate(lambda places: (asked.append(len(places)), torch.ones(len(places), 2))[1], way, 1.0, 16, 8)
    assert gentle.tolist() == pytest.approx([2.0, -1.0])
    assert sum(asked) == 16


class PlantedBackbone(nn.Module):
    """An exam's brightness in two boxes of voxels, and nothing else."""

    BOXES = ((slice(6, 12), slice(12, 18), slice(30, 36)), (slice(24, 30), slice(24, 30), slice(6, 12)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([images[(..., *box)].mean(dim=(1, 2, 3, 4)) for box in self.BOXES], dim=1)


class Planted(nn.Module):
    """The first box of the latest exam raises the logit, the second lowers it; the exams before play no part.

    ``curve`` makes a part of a box matter less once the rest of it is there.
    """

    def __init__(self, curve: float) -> None:
        super().__init__()
        self.backbone = PlantedBackbone()
        self.curve = curve

    def classify(
        self, embeddings: torch.Tensor, times: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        latest = embeddings[:, -1]
        logits = 2 * latest[:, 0] + self.curve * torch.tanh(latest[:, 0]) - 1.5 * latest[:, 1]
        return logits[:, None], torch.empty(0)


def planted_sequence(curve: float) -> tuple[Planted, EncodedSequence]:
    """Two exams of noise around a level, brighter in the planted boxes; a rim of padding."""
    rng = np.random.default_rng(5)
    images = torch.from_numpy(rng.normal(0, 0.02, (2, 1, 36, 36, 36)).astype(np.float32))
    for box in PlantedBackbone.BOXES:
        images[(slice(None), slice(None), *box)] += 2.0
    field = torch.ones(2, 36, 36, 36, dtype=torch.bool)
    field[:, :, :3] = False
    images[:, 0][~field] = 0.0
    model = Planted(curve)
    embeddings = model.backbone(images)
    reading = Reading((0, 1), torch.tensor([6.0, 0.0]))
    return model, EncodedSequence(images, field, (), embeddings, (reading, reading), 3.0)


def summed(evidence: torch.Tensor, box: tuple[slice, ...]) -> float:
    return float(evidence[(1, slice(None), *box)].sum())


@pytest.mark.parametrize("curve", [0.0, 1.0])
def test_occlusion_and_integrated_gradients_agree_on_a_planted_model(curve: float) -> None:
    model, sequence = planted_sequence(curve)
    gradients = IntegratedGradients().evidence(model, sequence)
    with torch.no_grad():
        occlusion = Occlusion().evidence(model, sequence)
    blurred = without_detail(sequence.images, sequence.field, sequence.voxel_mm)
    raises, lowers = PlantedBackbone.BOXES
    for box, sign in ((raises, 1), (lowers, -1)):
        changed = sequence.images[1:].clone()
        changed[(slice(None), slice(None), *box)] = blurred[(slice(1, 2), slice(None), *box)]
        reading = sequence.reading
        with torch.no_grad():
            whole = reading.logit(model, sequence.embeddings[None])
            lost = float((whole - logits_with(model, sequence, 1, changed))[0])
        assert np.sign(lost) == sign
        assert summed(gradients, box) == pytest.approx(lost, rel=1e-3)
        # Of a curved output, parts that are taken away one by one lose less than the whole.
        assert summed(occlusion, box) == pytest.approx(lost, rel=1e-3 if curve == 0 or sign < 0 else 0.2)
    assert not gradients[0].any()
    assert not occlusion[0].any()
    outside = torch.ones(36, 36, 36, dtype=torch.bool)
    for box in PlantedBackbone.BOXES:
        outside[box] = False
    assert gradients[1, 0][outside].abs().max() == 0
    coarse = [nn.functional.avg_pool3d(evidence[1:, :1], 3).flatten().numpy() for evidence in (gradients, occlusion)]
    assert np.corrcoef(coarse)[0, 1] > 0.95
    assert np.unravel_index(int(gradients[1, 0].argmax()), (36,) * 3)[0] in range(6, 12)
    assert np.unravel_index(int(occlusion[1, 0].argmax()), (36,) * 3)[0] in range(6, 12)


def test_the_reference_has_no_detail_and_keeps_level_and_padding() -> None:
    field = torch.zeros(1, 40, 40, 40, dtype=torch.bool)
    field[:, 5:] = True
    level = torch.full((1, 1, 40, 40, 40), 3.0)
    level[:, :, :5] = -1.0
    assert torch.allclose(without_detail(level, field, 2.0), level, atol=1e-5)  # padding does not bleed in
    spot = level.clone()
    index = torch.stack(torch.meshgrid(*[torch.arange(40.0)] * 3, indexing="ij"))
    inside = ((index - 22) ** 2).sum(dim=0) <= 25  # 20 mm across
    spot[0, 0][inside] += 1.0
    left = (without_detail(spot, field, 2.0) - level)[0, 0]
    assert 0 < float(left.max()) < 0.1


@pytest.mark.parametrize("main", [0, 1, 2])
def test_gradient_weighted_attention_of_one_layer_is_attention_times_gradient(main: int) -> None:
    torch.manual_seed(3)
    config = ModelConfig(1, (1, 1, 1, 1), (8, 16, 32, 128), 1, outputs=3)
    model = HCCNet(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    embeddings = torch.randn(4, 128)
    times = torch.tensor([20.0, 11.0, 5.0, 0.0])
    reading = Reading((0, 1, 2, 3), times, main)
    sequence = EncodedSequence(torch.empty(4), torch.empty(4), (), embeddings, (reading,), 1.5)
    shares = relevance(model, sequence)
    # By hand: one layer, so the relevance is its attention times the gradient, positive part, mean over heads.
    tokens, is_padding = model.tokens_of(embeddings[None].requires_grad_(True), times[None], torch.tensor([4]))
    out, attention = model.encoder.layers[0](tokens, is_padding)
    hazards = model.decide(out)[0].sigmoid()
    risk = 1 - (1 - hazards[: main + 1]).prod()
    (gradient,) = torch.autograd.grad(torch.log(risk / (1 - risk)), attention)
    expected = (attention * gradient)[0].clamp_min(0).mean(dim=0)[0, 1:].detach().numpy()
    assert expected.sum() > 0
    assert shares == pytest.approx(expected / expected.sum(), abs=1e-6)


def test_the_relevance_of_each_member_sums_to_1(lively_members: list[tuple[HCCNet, EncodedSequence]]) -> None:
    for member, its_sequence in lively_members:
        assert relevance(member, its_sequence).sum() == pytest.approx(1)


@pytest.fixture(scope="module")
def of_two_horizons(demonstration: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("horizons") / "b"
    return lively_bundle(folder, demonstration, members=1, horizons=(12.0, 24.0))


def test_what_is_explained_is_the_risk_at_the_main_horizon(of_two_horizons: Bundle, patient: Patient) -> None:
    later = replace(of_two_horizons, description=replace(of_two_horizons.description, horizon_months=24.0))
    found = {}
    for main, bundle in enumerate((of_two_horizons, later)):
        ((model, sequence),) = seen_by(bundle, patient)
        assert {reading.main for reading in sequence.as_of} == {main}
        with torch.no_grad():
            logit = float(sequence.reading.logit(model, sequence.embeddings[None]))
        prediction = Predictor(bundle, "cpu").predict(patient)
        assert prediction.risk == prediction.risk_by_horizon[main]["risk"]
        assert 1 / (1 + np.exp(-logit)) == pytest.approx(prediction.risk, abs=1e-6)
        methods = (ClassActivation(2), IntegratedGradients(2), IntegratedActivation())
        found[main] = [
            logit,
            relevance(model, sequence),
            *(method.evidence(model, sequence).detach().numpy() for method in methods),
        ]
    assert found[1][0] - found[0][0] > 0.01  # more can happen in 24 months than in 12
    assert np.abs(found[1][1] - found[0][1]).max() > 1e-3
    for one, other in zip(found[0][2:], found[1][2:], strict=True):
        assert np.abs(one - other).max() > 0.01 * np.abs(one).max()


def test_relevance_of_an_exam_that_is_not_read_is_0(lively_members: list[tuple[HCCNet, EncodedSequence]]) -> None:
    model, sequence = lively_members[0]
    latest = Reading((3,), torch.tensor([0.0]))
    alone = replace(sequence, as_of=(*sequence.as_of[:-1], latest))
    assert relevance(model, alone)[:3].tolist() == [0, 0, 0]
    assert not ClassActivation(2).evidence(model, alone)[:3].any()
    assert not IntegratedGradients(2).evidence(model, alone)[:3].any()


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_description_names_its_resolution_and_cost(name: str) -> None:
    explainer = make_explainer(name)
    assert explainer.key == name
    edge = {"integrated-gradients": 1, "occlusion": 6, "integrated-activation": 3}.get(name)
    edge = edge or 3 * 2 ** (int(name[-1]) - 1)
    assert explainer.resolution_voxels(72) == edge
    assert len(explainer.description) > 60
    config = ModelConfig.variant("pico", 4)
    if name.startswith("class-activation"):
        assert 1 + explainer.passes(config) <= 3
    else:
        costs = {"integrated-gradients": 150, "occlusion": 155, "integrated-activation": 14.0}
        assert explainer.passes(config) == pytest.approx(costs[name], abs=0.05)


@pytest.mark.parametrize(
    ("variant", "gflop"), [("femto", 2.9), ("pico", 5.0), ("nano", 8.5), ("tiny", 16.0)], ids=lambda v: str(v)
)
def test_the_cost_of_a_pass_is_the_published_one(variant: str, gflop: float) -> None:
    assert 2 * sum(stage_macs(4, VARIANTS[variant])) * 72**3 / 1e9 == pytest.approx(gflop, abs=0.06)


# ---------------------------------------------------------------- the ensemble


class Fixed:
    """An explainer whose members say what they are told to."""

    key, title, description, per_channel = "fixed", "fixed", "As planted.", False

    def __init__(self, *answers: np.ndarray) -> None:
        self._answers = iter(answers)

    def resolution_voxels(self, crop: int) -> int:
        return 1

    def passes(self, config: ModelConfig) -> float:
        return 0.0

    def evidence(self, model: HCCNet, sequence: EncodedSequence) -> torch.Tensor:
        return torch.from_numpy(next(self._answers))


def observe(explainer: Explainer, times: int, crop: int = 12) -> Evidence:
    ensemble = EnsembleEvidence(explainer)
    images = torch.empty(1, 1, crop, crop, crop)
    reading = Reading((0,), torch.zeros(1))
    sequence = EncodedSequence(images, images[:, 0] > 0, (), torch.empty(1, 1), (reading,), 1.0)
    for _ in range(times):
        ensemble.observe(HCCNet(ModelConfig.variant("mini", 1)), sequence)
    return ensemble.result()


def test_the_ensembles_evidence_is_the_mean_and_agreement_the_mean_correlation() -> None:
    answers = np.random.default_rng(1).normal(size=(3, 1, 2, 4, 4, 4))
    answers[2] += answers[0]
    evidence = observe(Fixed(*answers), 3)
    assert evidence.cells == pytest.approx(answers.mean(axis=0), abs=1e-6)
    assert evidence.cell_voxels == 3
    totals = answers.sum(axis=2)
    assert (evidence.positive == (totals > 0).sum(axis=0)).all()
    pairs = [np.corrcoef(totals[a].ravel(), totals[b].ravel())[0, 1] for a, b in ((0, 1), (0, 2), (1, 2))]
    assert evidence.agreement == pytest.approx(np.mean(pairs))
    assert observe(Fixed(answers[0]), 1).agreement is None
    assert observe(Fixed(answers[0], answers[0] * 5), 2).agreement == pytest.approx(1)
    assert observe(Fixed(answers[0], -answers[0]), 2).agreement == pytest.approx(-1)
    assert observe(Fixed(answers[0], np.zeros_like(answers[0])), 2).agreement is None


def test_maps_keep_the_signs_apart_on_one_scale_for_all_exams_and_channels(lively: Bundle, patient: Patient) -> None:
    evidence, prepared = evidence_on(lively, patient, IntegratedGradients(2))
    maps = exam_maps(evidence, prepared, DWI)
    assert all(set(m.towards) == set(m.against) == {"all", *DWI} for m in maps)
    every = [v for m in maps for side in (m.towards, m.against) for v in side.values()]
    assert max(float(v.max()) for v in every) == pytest.approx(1)
    assert min(float(v.min()) for v in every) == 0
    for of_exam, exam in zip(maps, patient.exams, strict=True):
        assert of_exam.towards["all"].shape == exam.images["DWI_b0"].grid.shape
        assert not (of_exam.towards["all"] * of_exam.against["all"]).any()
        whole = of_exam.towards["all"] - of_exam.against["all"]
        parts = sum(of_exam.towards[c] - of_exam.against[c] for c in DWI)
        assert np.abs(whole - parts).max() < 1e-5
    # Half the evidence on one exam gives half the map there: exams can be compared.
    weaker = replace(
        evidence, cells=evidence.cells * np.array([1, 0.5, 1, 1]).reshape(4, 1, 1, 1, 1).astype(np.float32)
    )
    assert max(float(v.max()) for v in (*maps[1].towards.values(), *maps[1].against.values())) < 1
    again = exam_maps(weaker, prepared, DWI)
    assert again[1].towards["all"] == pytest.approx(maps[1].towards["all"] / 2, abs=1e-6)
    assert again[0].towards["all"] == pytest.approx(maps[0].towards["all"], abs=1e-6)


def test_the_peak_is_the_maps_greatest_voxel_and_counts_the_members_there(lively: Bundle, patient: Patient) -> None:
    evidence, prepared = evidence_on(lively, patient, ClassActivation(3))
    for index, of_exam in enumerate(exam_maps(evidence, prepared)):
        values, affine = of_exam.towards["all"], prepared[index].source_grid.affine
        assert of_exam.peak is not None
        assert of_exam.peak.value == values.max()
        assert affine @ [*peak_voxel(values, affine), 1] == pytest.approx([*of_exam.peak.mm, 1])
        cell = np.linalg.inv(cell_affine(prepared[index].window.grid.affine, evidence.cell_voxels)) @ [
            *of_exam.peak.mm,
            1,
        ]
        x, y, z = np.clip(np.rint(cell[:3]).astype(int), 0, 5)
        assert of_exam.peak.members == evidence.positive[index, x, y, z]
    nothing = replace(evidence, cells=-np.abs(evidence.cells))
    assert [m.peak for m in exam_maps(nothing, prepared)] == [None] * 4


def test_class_activation_costs_less_than_three_passes(trained: Bundle) -> None:
    config = trained.description.model
    for stage in (1, 2, 3, 4):
        assert 1 + ClassActivation(stage).passes(config) < 3
    assert ClassActivation(4).passes(config) == 0
    assert ClassActivation(1).passes(config) > ClassActivation(2).passes(config) > ClassActivation(3).passes(config) > 0


# ---------------------------------------------------------------- what changed


def test_the_change_between_landmarks_is_dates_plus_picture_and_its_map_sums_to_the_picture(
    converter: tuple[Patient, np.ndarray],
) -> None:
    patient, trained = converter[0], Bundle.open(DEMONSTRATION_BUNDLE)
    change = ChangeEvidence()
    prediction = Predictor(trained, "cpu").predict(patient, [change])
    changes, cells = change.changes(), change.evidence()
    assert len(changes) == len(patient.exams) - 1
    assert not cells[0].any()
    # Each landmark asked on its own.
    logits = []
    for exam in patient.exams:
        members = seen_by(trained, patient.until(exam))
        logits.append(np.mean([float(s.reading.logit(m, s.embeddings[None])) for m, s in members]))
    for number, one in enumerate(changes, start=1):
        assert one.logit == pytest.approx(logits[number] - logits[number - 1], abs=1e-4)
        assert one.by_dates + one.by_picture == pytest.approx(one.logit)
        assert float(cells[number].sum(dtype=np.float64)) == pytest.approx(one.by_picture, rel=0.02, abs=0.001)
    assert max(abs(one.by_picture) for one in changes) > 0.05
    assert len(prediction.trajectory) == len(logits)


def test_an_exam_that_repeats_the_one_before_changed_nothing_by_its_picture(
    trained: Bundle, converter: tuple[Patient, np.ndarray]
) -> None:
    latest = converter[0].landmark
    again = replace(latest, exam_id="again", date=date(latest.date.year + 1, 1, 1))
    change = ChangeEvidence()
    Predictor(trained, "cpu").predict(Patient("P1", (latest, again)), [change])
    (only,) = change.changes()
    assert only.by_picture == pytest.approx(0, abs=1e-5)
    assert only.by_dates == pytest.approx(only.logit, abs=1e-5)
    assert abs(only.by_dates) > 1e-3
    assert np.abs(change.evidence()).max() < 1e-5


def test_where_hardly_anything_changed_the_map_of_change_is_faint(
    trained: Bundle, converter: tuple[Patient, np.ndarray]
) -> None:
    latest = converter[0].landmark
    images = {
        name: ArrayImage(image.read() * np.float32(1.0001), image.grid.affine, name)
        for name, image in latest.images.items()
    }
    again = Exam("again", date(latest.date.year + 1, 1, 1), images)
    predictor, patient = Predictor(trained, "cpu"), Patient("P1", (latest, again))
    prepared = predictor.prepare(patient)
    change = ChangeEvidence()
    predictor.predict_prepared(patient, prepared, [change])
    assert change.scale(prepared) == 0.005
    assert 0 < max(float(side.max()) for side in change.maps(prepared)[1]) < 0.15


def test_an_exam_that_is_not_read_has_no_map(trained: Bundle, converter: tuple[Patient, np.ndarray]) -> None:
    alone = replace(trained, description=replace(trained.description, history="latest"))
    explanation = PatientExplanation(alone.description, make_explainer("class-activation-1"))
    predictor = Predictor(alone, "cpu")
    prepared = predictor.prepare(converter[0])
    prediction = predictor.predict_prepared(converter[0], prepared, explanation.observers)
    completed, maps = explanation.complete(prediction, prepared)
    assert maps is not None
    assert [one is None for one in maps.exams] == [True, True, False]
    assert [exam.peak is None for exam in completed.exams] == [True, True, False]


def test_evidence_that_is_not_a_number_is_refused(trained: Bundle, converter: tuple[Patient, np.ndarray]) -> None:
    patient = Patient("P1", converter[0].exams[-1:])
    broken = EnsembleEvidence(Fixed(np.full((1, 1, 16, 16, 16), np.nan)))
    with pytest.raises(Refusal, match="not a number: say --explain none, or choose another --method"):
        Predictor(trained, "cpu").predict(patient, [broken])


def test_a_lesion_that_grew_is_where_the_picture_changed(converter: tuple[Patient, np.ndarray]) -> None:
    """The same exam twice, the second time with a bright ball: what raised or lowered the output lies there."""
    before = converter[0].landmark
    grid = before.images["DWI_b800"].grid
    index = np.moveaxis(np.indices(grid.shape), 0, -1)
    points = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    place = converter[1] + np.array([5.0, 0.0, 30.0])
    ball = np.linalg.norm(points - place, axis=-1) < 12
    assert ball.sum() > 50
    images = {
        name: ArrayImage(np.where(ball, image.read() * 1.5, image.read()).astype(np.float32), grid.affine, name)
        for name, image in before.images.items()
    }
    after = Exam("after", date(before.date.year + 1, 3, 1), images)
    predictor = Predictor(Bundle.open(DEMONSTRATION_BUNDLE), "cpu")
    patient = Patient("P1", (before, after))
    prepared = predictor.prepare(patient)
    change = ChangeEvidence()
    predictor.predict_prepared(patient, prepared, [change])
    (none_more, none_less), (more, less) = change.maps(prepared)
    assert not none_more.any()
    assert not none_less.any()
    both = more + less
    assert both.max() == pytest.approx(1)
    assert change.scale(prepared) > 0.02
    distance = np.linalg.norm(points[peak_voxel(both, grid.affine)] - place)
    assert distance < 12 + 7  # within a cell of the ball
    near = np.linalg.norm(points - place, axis=-1) < 30
    assert both[near].sum() > 0.8 * both.sum()


# ---------------------------------------------------------------- geometry

FLIPS = list(itertools.product((False, True), repeat=3))
ALL_STORAGES = [(flips, order) for order in ((0, 1, 2), (2, 1, 0)) for flips in FLIPS]
SOME_STORAGES = [((True, False, False), (0, 1, 2)), ((False, True, True), (2, 0, 1)), ((True, True, False), (1, 2, 0))]


def named(storage: tuple[tuple[bool, ...], tuple[int, ...]]) -> str:
    flips, order = storage
    return f"{''.join('-' if f else '+' for f in flips)}{''.join('XYZ'[i] for i in order)}"


def maps_by(
    bundle: Bundle, patient: Patient, explainers: Sequence[Explainer]
) -> tuple[dict[str, np.ndarray], tuple[PreparedExam, ...]]:
    """The last exam's signed map by every explainer, and of what changed."""
    predictor = Predictor(bundle, "cpu")
    prepared = predictor.prepare(patient)
    ensembles = [EnsembleEvidence(explainer) for explainer in explainers]
    change = ChangeEvidence()
    predictor.predict_prepared(patient, prepared, [*ensembles, change])
    signed = {}
    for ensemble in ensembles:
        maps = exam_maps(ensemble.result(), prepared, DWI)[-1]
        signed[ensemble.explainer.key] = maps.towards["all"] - maps.against["all"]
    more, less = change.maps(prepared)[-1]
    return {**signed, "change": more - less}, prepared


def cheap() -> list[Explainer]:
    return [*(ClassActivation(stage) for stage in (1, 2, 3, 4)), IntegratedActivation()]


def costly() -> list[Explainer]:
    return [IntegratedGradients(4), Occlusion()]


@pytest.fixture(scope="module")
def as_stored(lively: Bundle, sample_patient: Patient) -> dict[str, np.ndarray]:
    latest = Patient("P1", sample_patient.exams[-2:])
    one = few_members(lively, 1)
    return {
        **maps_by(lively, latest, cheap())[0],
        **{k: v for k, v in maps_by(one, latest, costly())[0].items() if k != "change"},
    }


def assert_same_maps(
    bundle: Bundle,
    explainers: Sequence[Explainer],
    storage: tuple[tuple[bool, ...], tuple[int, ...]],
    patient: Patient,
    as_stored: dict[str, np.ndarray],
    folder: Path,
    with_change: bool,
) -> None:
    flips, order = storage
    early, late = patient.exams[-2:]
    for channel in DWI:
        image = late.images[channel]
        other = stored_differently(ArrayImage(image.read(), image.grid.affine), order, flips)
        write_nifti(folder / "P1" / late.exam_id / f"{channel}.nii.gz", other.data, other.affine)
    stored = read_input(folder / "P1").patients[0].exams[0]
    maps, prepared = maps_by(bundle, Patient("P1", (early, stored)), explainers)
    for key, values in maps.items():
        if key == "change" and not with_change:
            continue
        expected = stored_differently(ArrayImage(as_stored[key], late.images["DWI_b0"].grid.affine), order, flips)
        assert np.abs(expected.data).max() > 0.1
        assert np.abs(values - expected.data).max() < 2e-2, key
        assert prepared[1].source_grid.affine == pytest.approx(expected.affine, abs=1e-3)
    wanted = ["".join(nib.aff2axcodes(a)) for a in (expected.affine, prepared[1].source_grid.affine)]
    assert wanted[0] == wanted[1]


@pytest.mark.parametrize("storage", ALL_STORAGES, ids=named)
def test_class_activation_and_change_lie_where_they_lay_however_the_exam_is_stored(
    storage: tuple[tuple[bool, ...], tuple[int, ...]],
    lively: Bundle,
    sample_patient: Patient,
    as_stored: dict[str, np.ndarray],
    tmp_path: Path,
) -> None:
    """Eight orientations, both voxel orders, through real files."""
    assert_same_maps(lively, cheap(), storage, sample_patient, as_stored, tmp_path, with_change=True)


@pytest.mark.parametrize("storage", SOME_STORAGES, ids=named)
def test_gradients_and_occlusion_lie_where_they_lay_however_the_exam_is_stored(
    storage: tuple[tuple[bool, ...], tuple[int, ...]],
    lively: Bundle,
    sample_patient: Patient,
    as_stored: dict[str, np.ndarray],
    tmp_path: Path,
) -> None:
    one = few_members(lively, 1)
    assert_same_maps(one, costly(), storage, sample_patient, as_stored, tmp_path, with_change=False)


def regridded(exam: Exam, turn: np.ndarray, spacing: Sequence[float]) -> Exam:
    """The exam's images interpolated onto a turned, anisotropic grid around the same middle."""
    grid = exam.images[DWI[0]].grid
    middle = (grid.affine @ [*((np.array(grid.shape) - 1) / 2), 1])[:3]
    extent = np.abs(grid.affine[:3, :3]) @ np.array(grid.shape)
    shape = tuple(int(n) for n in np.ceil(extent / np.array(spacing)))
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    step = np.linalg.inv(grid.affine) @ affine
    images = {
        name: ArrayImage(
            ndimage.affine_transform(image.read(), step[:3, :3], step[:3, 3], shape, order=1, cval=0.0), affine, name
        )
        for name, image in exam.images.items()
    }
    return replace(exam, images=images)


GRIDS: dict[str, Callable[[Exam], Exam]] = {
    "as made": lambda exam: exam,
    "oblique": lambda exam: regridded(exam, rotation(9, -7, 12), (3.0, 3.0, 3.0)),
    "thick slices": lambda exam: regridded(exam, np.diag([-1.0, -1.0, 1.0]), (2.0, 2.0, 5.0)),
    "oblique, thick, flipped": lambda exam: regridded(
        exam, rotation(-8, 6, -10) @ np.diag([-1.0, 1.0, -1.0]), (5, 2.2, 2.6)
    ),
}


@pytest.mark.parametrize("grid", GRIDS)
def test_on_any_grid_the_peak_lies_at_the_lesion(
    grid: str, trained: Bundle, converter: tuple[Patient, np.ndarray]
) -> None:
    """The whole way, from voxels on a grid to the place in the patient, for the methods that find lesions."""
    patient, centre = converter
    moved = Patient("P1", tuple(GRIDS[grid](exam) for exam in patient.exams))
    explainers = [ClassActivation(1), IntegratedActivation(), IntegratedGradients(8), Occlusion()]
    maps, prepared = maps_by(trained, moved, explainers)
    for key in (*(explainer.key for explainer in explainers), "change"):
        point = prepared[-1].source_grid.affine @ [*peak_voxel(maps[key], prepared[-1].source_grid.affine), 1]
        # The lesion's radius is 12 mm; a hit is at most 10 mm from it.
        assert np.linalg.norm(point[:3] - centre) < 22, key
    assert np.linalg.norm(centre * [-1, 1, 1] - centre) > 80  # a mirrored map would not pass


# ---------------------------------------------------------------- all of it


def test_the_prediction_says_what_explains_it(trained: Bundle, converter: tuple[Patient, np.ndarray]) -> None:
    patient = converter[0]
    check = {"patients": 4, "hits": 3, "inside": 2, "within_mm": 10, "random": 0.05, "cohort": "c", "phantom": True}
    explanation = PatientExplanation(trained.description, make_explainer("class-activation-1"), check)
    predictor = Predictor(trained, "cpu")
    prepared = predictor.prepare(patient)
    prediction = predictor.predict_prepared(patient, prepared, explanation.observers)
    completed, maps = explanation.complete(prediction, prepared)
    assert maps is not None
    assert completed.explanation is not None
    assert completed.explanation["resolution_mm"] == 3 * 2.25
    assert maps.exams[0] is not None
    assert completed.explanation["scale_logit"] == maps.exams[0].scale > 0
    assert completed.explanation["change_scale_logit"] > 0.005
    assert completed.explanation["check"] == check
    assert -1 <= completed.explanation["agreement"] <= 1
    assert sum(exam.attention_gradient or 0 for exam in completed.exams) == pytest.approx(1)
    assert completed.changes is not None
    assert [(c["from"], c["to"]) for c in completed.changes] == list(
        itertools.pairwise(exam.date for exam in completed.exams)
    )
    assert completed.changes[-1]["risk_to"] == completed.risk
    for exam, of_exam in zip(completed.exams, maps.exams, strict=True):
        assert (exam.peak is None) == (of_exam is None or of_exam.peak is None)
    attention_only = PatientExplanation(trained.description, None)
    prediction = predictor.predict_prepared(patient, prepared, attention_only.observers)
    completed, maps = attention_only.complete(prediction, prepared)
    assert maps is None
    assert completed.explanation is None
    assert completed.exams[0].attention_gradient is not None


def test_the_demonstration_bundle_comes_with_the_check_of_its_maps() -> None:
    """Whoever trains other demonstration weights has to check their maps again, with ``--beside-bundle``."""
    found = find_check(Bundle.open(DEMONSTRATION_BUNDLE), DEFAULT_METHOD)
    assert found is not None
    assert found["phantom"]
    assert found["patients"] >= 40
    assert found["hits"] >= 0.8 * found["patients"]
    assert found["random"] < 0.1


def test_maps_without_any_positive_evidence_are_said_to_be_empty(
    trained: Bundle, converter: tuple[Patient, np.ndarray]
) -> None:
    patient = Patient("P1", converter[0].exams[-1:])
    explanation = PatientExplanation(trained.description, Fixed(*[-np.ones((1, 1, 16, 16, 16))] * 2))
    predictor = Predictor(trained, "cpu")
    prepared = predictor.prepare(patient)
    prediction = predictor.predict_prepared(patient, prepared, explanation.observers)
    completed, _ = explanation.complete(prediction, prepared)
    assert (
        completed.warnings[-1].message
        == "No voxel speaks for a higher risk: the maps of what raises the output are empty."
    )
    assert completed.exams[0].peak is None


def test_gradient_attention_is_the_members_mean(lively: Bundle, patient: Patient) -> None:
    attention = GradientAttention()
    prediction = Predictor(lively, "cpu").predict(patient, [attention])
    each = [relevance(model, sequence) for model, sequence in seen_by(lively, patient)]
    assert attention.shares() == pytest.approx(np.mean(each, axis=0), abs=1e-6)
    assert len(prediction.exams) == len(each[0])


def test_cells_are_laid_out_from_the_cubes_first_corner() -> None:
    affine = translation([5.0, -3.0, 2.0]) @ scaling([2.0, 2.0, 2.0])
    assert cell_affine(affine, 1) == pytest.approx(affine)
    assert cell_affine(affine, 4) @ [0, 0, 0, 1] == pytest.approx([5 + 3, -3 + 3, 2 + 3, 1])
