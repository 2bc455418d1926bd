"""Cells read as places: one series each, hazards that add up; and what the transformer is given of changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import make_patient
from test_explanation import seen_by
from test_inference import DATES, lively_bundle
from test_intervals import ALONE, course, task_of
from torch import Tensor

from HCCNetLib.bundles import Bundle
from HCCNetLib.evaluation.follow_up import DIAGNOSED
from HCCNetLib.explanation import ClassActivation, IntegratedActivation, IntegratedGradients
from HCCNetLib.explanation.attention import relevance
from HCCNetLib.explanation.reference import without_detail
from HCCNetLib.inference import Predictor
from HCCNetLib.models import HCCNet, ModelConfig
from HCCNetLib.models.hazards import any_place
from HCCNetLib.records import Patient
from HCCNetLib.training.finetune import TargetHead
from HCCNetLib.training.settings import BackboneConfig, EncoderConfig, PretrainConfig

TIMES = torch.tensor([[20.0, 8.0, 0.0], [5.0, 0.0, 0.0]])
LENGTHS = torch.tensor([3, 2])


def network(**changes: Any) -> HCCNet:
    """Random weights, large enough that places and exams matter."""
    torch.manual_seed(3)
    model = HCCNet(replace(ModelConfig.variant("mini", 2), outputs=3, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(5)
    return model


def of_places(count: int, seed: int = 0) -> Tensor:
    return torch.randn(2, 3, count * 128, generator=torch.Generator().manual_seed(seed))


def test_an_image_of_one_cell_is_read_as_with_the_published_mean() -> None:
    mean, cells = network(), network(pooling="cells")
    cells.load_state_dict(mean.state_dict())  # neither has weights of its own
    images = torch.randn(2, 3, 2, 24, 24, 24)
    assert cells.backbone.places(24) == 1
    assert torch.equal(cells(images, TIMES, LENGTHS), mean(images, TIMES, LENGTHS))
    assert cells.backbone.places(48) == 8
    assert cells.backbone.places(72) == 27
    assert mean.backbone.places(72) == 1
    assert cells.backbone(torch.randn(1, 2, 48, 48, 48)).shape == (1, 8 * 128)


@pytest.mark.parametrize("change", [False, True])
def test_the_hazards_of_places_add_up_whatever_their_order(change: bool) -> None:
    model, embeddings = network(pooling="cells", change=change), of_places(4)
    whole = model.classify(embeddings, TIMES, LENGTHS)[0]
    each = [model.classify(part, TIMES, LENGTHS)[0] for part in embeddings.split(128, dim=-1)]
    survival = torch.stack([1 - one.double().sigmoid() for one in each]).prod(0)
    assert torch.allclose(whole.double().sigmoid(), 1 - survival, atol=1e-6)
    assert torch.stack(each).std(0).min() > 1e-3
    moved = torch.cat([embeddings.split(128, dim=-1)[i] for i in (2, 0, 3, 1)], dim=-1)
    assert torch.allclose(model.classify(moved, TIMES, LENGTHS)[0], whole, atol=1e-5)


def test_the_attention_is_the_mean_over_places_weighted_by_their_hazard() -> None:
    model, embeddings = network(pooling="cells"), of_places(2)
    _, attention = model.classify(embeddings, TIMES, LENGTHS)
    hazards, single = zip(
        *(model.classify(part, TIMES, LENGTHS) for part in embeddings.split(128, dim=-1)), strict=True
    )
    weights = torch.stack([-torch.log1p(-one.double().sigmoid()).sum(1) for one in hazards])
    weights = (weights / weights.sum(0))[..., None, None, None, None]
    assert torch.allclose(attention.double(), (weights * torch.stack(single).double()).sum(0), atol=1e-6)
    assert torch.allclose(attention.sum(-1), torch.ones(attention.shape[:-1]), atol=1e-5)


def test_places_that_are_nearly_without_hazard_are_finite_and_so_is_their_gradient() -> None:
    hazards = torch.tensor([[[-60.0], [-60.0]], [[60.0], [-60.0]]], requires_grad=True)
    together = any_place(hazards)
    assert together[:, 0].tolist() == pytest.approx([-60 + 0.6931, 60], abs=1e-3)
    together.sum().backward()
    assert hazards.grad is not None
    assert torch.isfinite(hazards.grad).all()


@pytest.mark.parametrize("places", [1, 8])
def test_attention_is_finite_and_sums_to_1_where_nothing_is_at_risk(places: int) -> None:
    model = network(pooling="cells")
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.fill_(-120.0)
    hazards, attention = model.classify(of_places(places), TIMES, LENGTHS)
    assert hazards.max() < -80  # where single precision ends if they are added up
    assert torch.isfinite(hazards).all()
    assert torch.allclose(attention.sum(-1), torch.ones(attention.shape[:-1]), atol=1e-5)
    assert (attention[1, ..., 3] == 0).all()  # padding


def test_an_amount_in_several_places_is_the_sum_of_what_each_holds() -> None:
    head = TargetHead(128)
    one, other = torch.randn(5, 128), torch.randn(5, 128)
    together = head(torch.cat([one, other], dim=1)).exp()
    assert torch.allclose(together, head(one).exp() + head(other).exp(), rtol=1e-4)


def test_change_is_the_landmark_alone_for_a_lone_exam() -> None:
    change = network(change=True).change
    assert change is not None
    exam = torch.randn(1, 1, 128)
    of_cls, of_exam = change(exam, torch.zeros(1, 1), torch.tensor([1]))[0]
    assert torch.allclose(of_cls, change.landmark(exam[0, 0]))
    assert not of_exam.any()


def test_the_slope_is_that_of_a_straight_line_and_small_for_exams_close_in_time() -> None:
    change = network(change=True).change
    assert change is not None
    months, growth = torch.tensor([[30.0, 18.0, 11.0, 0.0]]), torch.randn(128)
    exams = torch.randn(128) - months[..., None] / 12 * growth  # growth per year
    spread = float(((months - months.mean()) ** 2).sum())

    def slope(times: torch.Tensor) -> torch.Tensor:
        lengths = torch.tensor([4])
        return change(exams, times, lengths)[0, 0] - change.landmark(exams[0, -1])

    assert torch.allclose(slope(months), change.slope(growth) * spread / (spread + 10), atol=1e-3)
    assert slope(months / 100).norm() < slope(months / 3).norm()
    with_padding = torch.cat([exams, torch.zeros(1, 2, 128)], dim=1)
    times = torch.cat([months, torch.zeros(1, 2)], dim=1)
    added = change(with_padding, times, torch.tensor([4]))[0, 0] - change.landmark(exams[0, -1])
    assert torch.allclose(added, slope(months), atol=1e-4)


@pytest.mark.parametrize("head", ["tanh", "gelu"])
def test_both_heads_have_the_same_weights(head: str) -> None:
    assert network(head=head).state_dict().keys() == network().state_dict().keys()
    logits = network(head=head).classify(of_places(1), TIMES, LENGTHS)[0]
    assert torch.allclose(logits, network().classify(of_places(1), TIMES, LENGTHS)[0]) == (head == "tanh")


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(ValueError, match="head 'relu' is neither tanh nor gelu"):
        network(head="relu")


def test_what_stands_in_padding_changes_nothing() -> None:
    model, embeddings, times = network(pooling="cells", change=True), of_places(2), TIMES.clone()
    before = model.classify(embeddings, times, LENGTHS)[0]
    embeddings[1, 2], times[1, 2] = float("nan"), float("nan")
    assert torch.equal(model.classify(embeddings, times, LENGTHS)[0], before)


def test_the_published_network_has_no_weights_for_changes() -> None:
    assert not [name for name in network().state_dict() if "change" in name]


@pytest.fixture(scope="module")
def patient() -> Patient:
    return make_patient(DATES)


@pytest.fixture(scope="module")
def placed(demonstration: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("placed") / "b"
    return lively_bundle(folder, demonstration, members=1, horizons=(6.0, 12.0, 24.0), pooling="cells", change=True)


def test_a_bundle_of_places_predicts_and_explains(placed: Bundle, patient: Patient) -> None:
    prediction = Predictor(placed, "cpu").predict(patient)
    risks = [at["risk"] for at in prediction.risk_by_horizon]
    assert risks == sorted(risks)
    assert sum(exam.attention for exam in prediction.exams if exam.attention is not None) == pytest.approx(1, abs=1e-5)
    ((model, sequence),) = seen_by(placed, patient)
    assert relevance(model, sequence).sum() == pytest.approx(1)
    evidence = IntegratedGradients(50).evidence(model, sequence).double()
    blurred = without_detail(sequence.images, sequence.field, sequence.voxel_mm)
    whole = sequence.reading.logit(model, sequence.embeddings[None])
    for exam in sequence.reading.exams:
        others = sequence.embeddings.clone()
        with torch.no_grad():
            others[exam] = model.backbone(blurred[exam][None])[0]
            lost = float(whole - sequence.reading.logit(model, others[None]))
        assert abs(lost) > 1e-3
        assert float(evidence[exam].sum()) == pytest.approx(lost, rel=0.02, abs=5e-4)
    for method in (ClassActivation(2), IntegratedActivation()):
        assert torch.isfinite(method.evidence(model, sequence)).all()


@pytest.mark.parametrize("stage", [BackboneConfig, EncoderConfig])
def test_a_self_supervised_stage_refuses_places(stage: type[PretrainConfig]) -> None:
    with pytest.raises(ValueError, match="without self-supervision: that needs one embedding per exam"):
        stage(pooling="cells")


def test_in_training_each_place_has_dropout_of_its_own_that_follows_from_the_sequences_key() -> None:
    examples = [course(n, months, DIAGNOSED) for n, months in enumerate((3.0, 9.0, 20.0))]
    task = task_of(examples, pooling="cells", dropout=0.5)
    (batch,) = task.load(0, ALONE)
    task.model.train()
    seen: list[Tensor] = []
    task.model.network.dropout.register_forward_hook(lambda _, __, out: seen.append(out))
    embeddings = torch.ones(len(batch.images), 2 * 128)
    errors = [task._label_errors(batch, embeddings) for _ in range(2)]
    assert torch.equal(errors[0], errors[1])
    first, second = seen[0].unflatten(0, (-1, 2)).unbind(1)
    assert not torch.equal(first == 0, second == 0)
