"""The networks against the published numbers."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from HCCNetLib.models import VARIANTS, HCCNet, ModelConfig, risk_logits, time_encoding
from HCCNetLib.models.convnext3d import GlobalResponseNorm
from HCCNetLib.models.keyed import DropPath
from HCCNetLib.models.published import convert_state_dict, infer_config
from HCCNetLib.records import Refusal

GOLDEN = ("mednet_v1_small", "mednet_v2_small")


def golden_network(test_data: Path, name: str) -> tuple[HCCNet, dict[str, Tensor]]:
    golden = load_file(test_data / "golden" / f"{name}.safetensors")
    published = {k.removeprefix("state."): v.float() for k, v in golden.items() if k.startswith("state.")}
    converted = convert_state_dict(published)
    model = HCCNet(infer_config(converted, eps=1e-6)).eval()
    model.load_state_dict(converted, strict=True)
    return model, golden


@pytest.mark.parametrize("name", GOLDEN)
def test_features_and_logits_equal_the_published_arithmetic(test_data: Path, name: str) -> None:
    model, golden = golden_network(test_data, name)
    images = golden["input"].float()
    lengths = torch.full((len(images),), images.shape[1])
    with torch.no_grad():
        features = model.backbone(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        logits = model(images, golden["positions"], lengths)
    assert torch.allclose(features, golden["features"], atol=1e-4, rtol=0)
    assert torch.allclose(logits, golden["logits"], atol=1e-4, rtol=0)


# backbone, whole model; the published tables round them to 5.2/12.4, 9.2/22.0, 15.9/45.9 and 29.2/72.4 million
@pytest.mark.parametrize(
    ("name", "backbone", "whole"),
    [
        ("atto", 2_318_944, 5_544_801),
        ("femto", 5_174_160, 12_421_393),
        ("pico", 9_159_872, 22_034_113),
        ("nano", 15_937_520, 45_891_441),
        ("tiny", 29_228_448, 72_349_345),
        ("mini", 306_288, 719_857),
    ],
)
def test_parameter_counts_with_four_channels(name: str, backbone: int, whole: int) -> None:
    with torch.device("meta"):
        model = HCCNet(ModelConfig.variant(name, channels=4))
    assert sum(p.numel() for p in model.backbone.parameters()) == backbone
    assert sum(p.numel() for p in model.parameters()) == whole


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("name", list(VARIANTS))
def test_every_variant_turns_72_cubed_into_27_cells(name: str, version: str) -> None:
    config = ModelConfig.variant(name, channels=2, version=version)
    with torch.device("meta"):
        model = HCCNet(config)
        x = torch.empty(1, 2, 72, 72, 72)
        sides = []
        for stage in range(4):
            x = model.backbone.forward_stages(x, stage, stage + 1)
            sides.append(tuple(x.shape[1:]))
    assert sides == [(d, s, s, s) for d, s in zip(VARIANTS[name].dims, (24, 12, 6, 3), strict=True)]
    assert model.backbone.pool(x).shape == (1, VARIANTS[name].dims[-1])


@pytest.fixture(scope="module")
def small() -> HCCNet:
    torch.manual_seed(3)
    return HCCNet(ModelConfig.variant("mini", channels=1, version="v2")).eval()


@torch.no_grad()
def test_batching_with_a_longer_patient_changes_no_logit(small: HCCNet) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 4, 1, 24, 24, 24)
    times = torch.tensor([[9.5, 3.25, 0.0, 0.0], [30.0, 11.1, 2.2, 0.0]])
    alone = small(images[:1, :3], times[:1, :3], torch.tensor([3]))
    images[0, 3] = float("nan")  # whatever stands in the padding
    times[0, 3] = float("nan")
    together = small(images, times, torch.tensor([3, 4]))
    assert abs(float(together[0] - alone[0])) < 1e-5


@torch.no_grad()
def test_an_exam_at_time_0_is_an_exam(small: HCCNet) -> None:
    torch.manual_seed(1)
    embeddings = torch.randn(1, 3, 128)
    times = torch.tensor([[12.0, 6.0, 0.0]])
    with_landmark, attention = small.classify(embeddings, times, torch.tensor([3]))
    without, _ = small.classify(embeddings[:, :2], times[:, :2], torch.tensor([2]))
    assert abs(float(with_landmark - without)) > 1e-3
    assert float(attention[0, 0, 0, 0, 3]) > 0.05


@torch.no_grad()
def test_attention_leaves_padding_out_and_sums_to_1(small: HCCNet) -> None:
    embeddings = torch.randn(2, 5, 128)
    _, attention = small.classify(embeddings, torch.rand(2, 5) * 20, torch.tensor([2, 5]))
    assert attention.shape == (2, 2, 1, 6, 6)
    assert float(attention[0, ..., 3:].abs().max()) == 0
    assert torch.allclose(attention.sum(dim=-1), torch.ones(2, 2, 1, 6), atol=1e-6)


@torch.no_grad()
def test_time_and_not_the_place_in_the_list_tells_the_order(small: HCCNet) -> None:
    torch.manual_seed(2)
    embeddings, times = 5 * torch.randn(1, 4, 128), torch.tensor([[24.0, 13.0, 5.0, 0.0]])
    order = torch.tensor([2, 0, 3, 1])
    straight, _ = small.classify(embeddings, times, torch.tensor([4]))
    shuffled, _ = small.classify(embeddings[:, order], times[:, order], torch.tensor([4]))
    moved, _ = small.classify(embeddings[:, order], times, torch.tensor([4]))
    assert torch.allclose(straight, shuffled, atol=1e-5)
    assert abs(float(straight - moved)) > 100 * abs(float(straight - shuffled))
    assert abs(float(straight - moved)) > 1e-5


def test_time_encoding_is_the_sinusoid_at_real_times() -> None:
    encoded = time_encoding(torch.tensor([0.0, 2.5]), 4)
    # frequencies 1 and 10000^(-2/4) = 0.01
    expected = torch.tensor([[0.0, 1.0, 0.0, 1.0], [0.598472, -0.801144, 0.0249974, 0.9996875]])
    assert torch.allclose(encoded, expected, atol=1e-6)


def test_global_response_norm_by_hand() -> None:
    norm = GlobalResponseNorm(2, eps=0.0)
    norm.gamma.data = torch.tensor([1.0, 2.0])
    norm.beta.data = torch.tensor([0.5, 0.0])
    x = torch.tensor([3.0, 1.0, 4.0, 0.0]).view(1, 2, 1, 1, 2)  # norms over space: 5 and 1, their mean 3
    expected = torch.tensor([3 + 3 * 5 / 3 + 0.5, 1 + 2 * 1 / 3, 4 + 4 * 5 / 3 + 0.5, 0.0]).view_as(x)
    assert torch.allclose(norm(x), expected)


def test_drop_path_keeps_the_mean_in_training_and_does_nothing_after() -> None:
    torch.manual_seed(0)
    path = DropPath(0.25)
    dropped = path.train()(torch.ones(4000, 1, 1, 1, 1)).flatten()
    assert sorted(set(dropped.tolist())) == pytest.approx([0, 4 / 3])
    assert float(dropped.mean()) == pytest.approx(1, abs=0.05)
    assert torch.equal(path.eval()(torch.ones(3)), torch.ones(3))


def test_names_that_training_wrapped_are_read(test_data: Path) -> None:
    golden = load_file(test_data / "golden" / "mednet_v1_small.safetensors")
    plain = {k.removeprefix("state."): v for k, v in golden.items() if k.startswith("state.")}
    wrapped = {f"module._orig_mod.{k}": v for k, v in plain.items()} | {"module.positional_encoding.pe": torch.zeros(1)}
    converted = convert_state_dict(wrapped)
    assert converted.keys() == convert_state_dict(plain).keys()


def test_a_foreign_checkpoint_is_refused_by_the_names_it_holds() -> None:
    with pytest.raises(Refusal, match=r"not one of the published classifier's: it holds layer4\.conv\.weight"):
        convert_state_dict({"layer4.conv.weight": torch.zeros(1)})


# ---------------------------------------------------------------- hazards


def test_the_risk_is_1_minus_the_product_of_no_diagnosis_and_never_falls() -> None:
    torch.manual_seed(0)
    hazards = 4 * torch.randn(20000, 5, dtype=torch.float64)
    risks = risk_logits(hazards).sigmoid()
    expected = 1 - (1 - hazards.sigmoid()).cumprod(dim=-1)
    assert torch.allclose(risks, expected, atol=1e-14, rtol=0)
    assert (risks.diff(dim=-1) >= 0).all()
    # Rare diagnoses keep their digits, which 1 − (1 − hazard) loses: the hazards then just add up.
    rare = torch.full((1, 3), -45.0, dtype=torch.float64)
    wanted = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64) * rare[0, 0].exp()
    assert torch.allclose(risk_logits(rare).sigmoid(), wanted, rtol=1e-12, atol=0)


def test_the_risk_in_one_interval_is_the_network_s_logit_bit_for_bit() -> None:
    torch.manual_seed(0)
    one = 20 * torch.randn(1000, 1)
    assert torch.equal(risk_logits(one), one)
    several = torch.cat([one, torch.randn(1000, 2)], dim=-1)
    assert torch.equal(risk_logits(several)[:, :1], one)


def test_extreme_hazards_have_finite_risks_and_gradients() -> None:
    signs = torch.tensor(list(itertools.product((-60.0, 0.0, 60.0), repeat=4)))
    hazards = signs.requires_grad_(True)
    logits = risk_logits(hazards)
    (gradient,) = torch.autograd.grad(logits.sum(), hazards)
    assert logits.isfinite().all()
    assert gradient.isfinite().all()
    assert (gradient >= 0).all()
    exact = risk_logits(signs.double())
    assert torch.allclose(logits.double(), exact, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_each_interval_has_an_output_of_its_own(small: HCCNet) -> None:
    torch.manual_seed(4)
    model = HCCNet(replace(small.config, outputs=3)).eval()
    embeddings, times = torch.randn(2, 3, 128), torch.tensor([[12.0, 6.0, 0.0]] * 2)
    hazards, _ = model.classify(embeddings, times, torch.tensor([3, 3]))
    assert hazards.shape == (2, 3)
    model.head.weight[1] += 1.0
    changed, _ = model.classify(embeddings, times, torch.tensor([3, 3]))
    assert torch.equal(changed[:, [0, 2]], hazards[:, [0, 2]])
    assert not torch.equal(changed[:, 1], hazards[:, 1])


@pytest.mark.parametrize("change", ["false", "", 0, None])
def test_whether_changes_are_read_is_true_or_false(change: object) -> None:
    with pytest.raises(ValueError, match="change must be true or false"):
        replace(ModelConfig.variant("mini", 2), change=change)


@pytest.mark.parametrize("outputs", [0, -1, 2.0])
def test_a_network_without_whole_outputs_is_refused(outputs: float) -> None:
    with pytest.raises(ValueError, match=r"at least one layer, channel and output|outputs must be whole numbers"):
        replace(ModelConfig.variant("mini", 1), outputs=outputs)  # type: ignore[arg-type]
