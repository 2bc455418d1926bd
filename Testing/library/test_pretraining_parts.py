"""What self-supervision is made of: views, DINO's loss and head, shuffled sequences, kept embeddings, taken-over weights."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch.nn import functional
from training_helpers import CHANNELS, PREPROCESSING, example, examples_of, open_cache, tiny_config, write_yaml

from HCCNetLib.evaluation.probe import linear_probe
from HCCNetLib.inference.cache import Preparation, PreparedCache
from HCCNetLib.models import HCCNet
from HCCNetLib.models.dino_head import DinoHead
from HCCNetLib.preprocessing.augmentation import Turn
from HCCNetLib.preprocessing.pipeline import normalise_channels
from HCCNetLib.readers import read_input
from HCCNetLib.records import Outcome, Refusal
from HCCNetLib.synthetic.disease import draw_courses
from HCCNetLib.synthetic.growth import GrowthModel
from HCCNetLib.synthetic.oracle import ask_about_order
from HCCNetLib.training.configuration import build_config
from HCCNetLib.training.digests import weights_digest
from HCCNetLib.training.dino import DinoTask, Watch, dino_loss, first_model, single_channel, teacher_temperatures
from HCCNetLib.training.distributed import Workers
from HCCNetLib.training.embeddings import Embeddings, draw_reading
from HCCNetLib.training.examples import gather_exams
from HCCNetLib.training.loop import Loop, LoopSettings, parameter_groups
from HCCNetLib.training.order import (
    OrderModel,
    OrderTask,
    ShufflePlan,
    draw_permutation,
    held_out_shuffles,
    hold_out,
)
from HCCNetLib.training.pretraining import Pretrained, load_backbone, repeat_stem, seeded_network
from HCCNetLib.training.recipe import read_pretraining, read_recipe, read_stage
from HCCNetLib.training.settings import BackboneConfig, EncoderConfig
from HCCNetLib.training.views import View, ViewPlan, cut_views

ROOT = Path(__file__).resolve().parents[2]
ALONE = Workers(0, 1, torch.device("cpu"))
SHARED: dict[str, Any] = {
    "channels": list(CHANNELS),
    "preprocessing": PREPROCESSING,
    "variant": "mini",
    "start": "scaled",
    "steps": 8,
    "warmup": 2,
    "processes": 1,
    "threads": 1,
    "device": "cpu",
}


def backbone_config(**changes: Any) -> BackboneConfig:
    tiny = {"jitter": 4, "local_voxels": 24, "outputs": 32, "batch": 4, "out": "run"}
    tiny["preprocessing"] = {**PREPROCESSING, "crop_voxels": 27}
    return build_config(BackboneConfig, {**SHARED, **tiny, **changes})


def encoder_config(**changes: Any) -> EncoderConfig:
    return build_config(EncoderConfig, {**SHARED, "jitter": 2, "batch": 4, "draws": 2, "out": "run", **changes})


def refusal(work: Any, *given: Any, **named: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        work(*given, **named)
    assert caught.value.message.endswith(".")
    return caught.value


# ---------------------------------------------------------------- DINO: reference numbers


@pytest.fixture(scope="module")
def golden(test_data: Path) -> dict[str, torch.Tensor]:
    return load_file(test_data / "golden" / "dino_small.safetensors")


def test_the_head_gives_the_reference_output(golden):
    head = DinoHead(32, 64)
    state = {name.removeprefix("state."): value for name, value in golden.items() if name.startswith("state.")}
    head.load_state_dict(state, strict=True)
    torch.testing.assert_close(head(golden["head_input"]), golden["head_output"], rtol=0, atol=1e-6)


def test_losses_and_centre_follow_the_reference_over_three_steps(golden):
    config = backbone_config(steps=100, outputs=64, first_teacher_temperature=0.02, teacher_warmup=20)
    temperatures, centre = teacher_temperatures(config), torch.zeros(64)
    for number, step in enumerate((0, 15, 30)):
        student, teacher = golden[f"student_{number}"].view(4, 3, 64), golden[f"teacher_{number}"].view(2, 3, 64)
        loss = dino_loss(student, teacher, centre, 0.1, temperatures[step])
        assert loss.shape == (3,)
        assert float(loss.mean()) == pytest.approx(float(golden[f"loss_{number}"]), abs=1e-5)
        centre = 0.9 * centre + 0.1 * teacher.mean(dim=(0, 1))
        torch.testing.assert_close(centre[None], golden[f"center_{number}"], rtol=0, atol=1e-6)


def test_the_last_layer_s_rows_keep_length_1():
    head = DinoHead(32, 64)
    assert not head.last_layer.parametrizations.weight.original0.requires_grad
    torch.testing.assert_close(head.last_layer.weight.norm(dim=1), torch.ones(64))


# ---------------------------------------------------------------- views


def plan_of(config: BackboneConfig, patients: int = 7) -> ViewPlan:
    return ViewPlan(config, [example([None] * 3, f"P{i}", i) for i in range(patients)])


def drawn(view: View) -> tuple[Any, ...]:
    return view.channel, view.start, view.turn, view.scale, view.shift


def test_over_20_draws_no_two_views_of_an_exam_share_their_draws():
    """The published code draws once for both global views, which are then the same picture twice."""
    plan = plan_of(
        backbone_config(
            channels=["DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800"], preprocessing={}, jitter=12, local_voxels=48
        )
    )
    draws = [plan.draw(plan.examples[0], 0, epoch).views for epoch in range(20)]
    for views in draws:
        assert len(views) == 4
        for one, other in itertools.combinations(views, 2):
            assert one.start != other.start
            assert one.scale != other.scale
            assert one.shift != other.shift
    assert len({drawn(view) for views in draws for view in views}) == 80
    for one, other in itertools.combinations(range(4), 2):
        pairs = [(views[one], views[other]) for views in draws]
        # Alike by chance: channel 1/4; a turn 1/8 · (1/4 + …) at most. All alike would be 20 of 20.
        assert sum(a.channel == b.channel for a, b in pairs) <= 12
        assert sum(a.turn == b.turn for a, b in pairs) <= 8


def test_the_draws_of_two_global_views_are_uncorrelated():
    plan = plan_of(
        backbone_config(
            channels=["DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800"], preprocessing={}, jitter=12, local_voxels=48
        )
    )
    draws = [plan.draw(plan.examples[0], 0, epoch).views for epoch in range(600)]

    def numbers(view: View) -> list[float]:
        return [view.channel, *view.start, *view.turn.flips, view.turn.quarters > 0, view.scale, view.shift]

    first, second = (np.array([numbers(views[i]) for views in draws], dtype=float) for i in (0, 1))
    for a, b in itertools.product(range(first.shape[1]), repeat=2):
        # Of 600 independent pairs |r| exceeds 0.17 with a chance of 3e-5.
        assert abs(np.corrcoef(first[:, a], second[:, b])[0, 1]) < 0.17
    assert Counter(first[:, 0]).keys() == {0, 1, 2, 3}
    assert {int(v) for v in first[:, 1:4].ravel()} == set(range(25))
    assert 0.4 < first[:, 4:7].mean() < 0.6


def test_draws_follow_from_seed_epoch_and_exam_and_nothing_else():
    config = backbone_config()
    seven, five = plan_of(config, 7), plan_of(config, 5)
    one = seven.draw(seven.examples[3], 2, 11)
    assert one.views == five.draw(five.examples[3], 2, 11).views
    assert one.views != seven.draw(seven.examples[3], 1, 11).views
    assert one.views != seven.draw(seven.examples[3], 2, 12).views
    assert one.views != plan_of(backbone_config(seed=1)).draw(seven.examples[3], 2, 11).views


def test_an_epoch_reads_each_exam_once():
    plan = plan_of(backbone_config(batch=3))
    read = [(e.example.number, e.exam) for step in range(7) for e in plan.batch(step)]
    assert sorted(read) == sorted((p, k) for p in range(7) for k in range(3))
    assert read != sorted(read)


@pytest.fixture(scope="module")
def volume_cache(tmp_path_factory) -> tuple[PreparedCache, np.ndarray]:
    """A cache with one entry of which every voxel differs."""
    config = backbone_config().preparation
    cache = PreparedCache(tmp_path_factory.mktemp("views"), Preparation(CHANNELS, config, margin=4, half=True))
    values = np.random.default_rng(0).permutation(2 * 35**3).reshape(2, 35, 35, 35)
    data = (values / 40000).astype(np.float16)
    path = cache._path("entry")
    path.parent.mkdir()
    save_file({"data": data}, path)
    return cache, data


@pytest.mark.parametrize("flips", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("edge", [24, 27])
def test_a_view_on_the_device_is_the_turned_and_changed_crop(volume_cache, flips, edge):
    cache, data = volume_cache
    patient = replace(example([None]), exams=("entry",))
    for plane, quarters in itertools.product([(0, 1), (0, 2), (1, 2)], range(4)):
        turn = Turn(flips, plane, quarters)
        view = View(1, (3, 0, 5), edge, turn, scale=1.1, shift=-0.05)
        exam = replace(plan_of(backbone_config()).draw(patient, 0, 0), views=(view,))
        (batch,) = cut_views(cache, [exam])
        rendered = batch.render()
        assert rendered.shape == (1, 1, edge, edge, edge)
        crop = data[:, 3 : 3 + edge, 0:edge, 5 : 5 + edge].astype(np.float32)
        expected = turn.apply(normalise_channels(crop, cache.preparation.config))[1] * 1.1 - 0.05
        np.testing.assert_allclose(rendered[0, 0].numpy(), expected, rtol=0, atol=1e-5)


def test_global_views_of_all_exams_come_first_then_local_ones(volume_cache):
    cache, data = volume_cache
    patient = replace(example([None] * 2), exams=("entry", "entry"))
    plan = ViewPlan(backbone_config(flip=0.0, rotate=0.0), [patient])
    exams = [plan.draw(patient, exam, 3) for exam in range(2)]
    batches = cut_views(cache, exams)
    assert [tuple(b.crops.shape) for b in batches] == [(4, 27, 27, 27), (4, 24, 24, 24)]
    for number, (view, exam) in enumerate(itertools.product(range(2), range(2))):
        chosen = exams[exam].views[view]
        x, y, z = (slice(s, s + 27) for s in chosen.start)
        np.testing.assert_array_equal(batches[0].crops[number].numpy(), data[chosen.channel, x, y, z])


# ---------------------------------------------------------------- DINO: what a step does


class PlantedViews:
    """In place of a cache: exams that differ in brightness."""

    def __init__(self, config: BackboneConfig) -> None:
        self.preparation = Preparation(config.channels, config.preparation, margin=config.jitter, half=True)

    def data(self, key: str) -> np.ndarray:
        edge = self.preparation.config.crop_voxels + 2 * self.preparation.margin
        rng = np.random.default_rng(sum(key.encode()))
        return (rng.normal(size=(2, edge, edge, edge)) * rng.uniform(0.2, 2)).astype(np.float16)

    def crops(self, key: str, places: Any) -> list[np.ndarray]:
        data = self.data(key)
        return [data[(c, *(slice(s, s + edge) for s in start))] for c, start, edge in places]


def dino_task(said: list[str] | None = None, **changes: Any) -> DinoTask:
    config = backbone_config(**changes)
    say = print if said is None else said.append
    return DinoTask(config, plan_of(config), PlantedViews(config), first_model(config), say)  # type: ignore[arg-type]


def gradient_of(task: DinoTask, step: int = 3) -> dict[str, torch.Tensor]:
    task.model.train()
    for item in task.load(step, ALONE):
        task.losses(item, step).total.backward()
    return {n: p.grad.clone() for n, p in task.model.named_parameters() if p.grad is not None}


def test_student_and_teacher_begin_alike_and_only_the_student_has_gradients():
    task = dino_task()
    student, teacher = task.model.student.state_dict(), task.model.teacher.state_dict()
    assert all(torch.equal(student[name], teacher[name]) for name in student)
    gradients = gradient_of(task)
    assert all(name.startswith("student.") for name in gradients)
    assert any("backbone.stages.0" in name for name in gradients)


@pytest.mark.parametrize("per_pass", [1, 3])
def test_a_step_in_several_passes_has_the_gradient_centre_and_teacher_of_the_whole(per_pass):
    whole, parts = dino_task(drop_path=0.3), dino_task(drop_path=0.3, per_pass=per_pass)
    one, other = gradient_of(whole), gradient_of(parts)
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-6)
    for task in (whole, parts):
        torch.optim.SGD(task.model.student.parameters(), lr=1.0).step()
        task.after_update(3, ALONE)
    torch.testing.assert_close(parts.model.centre, whole.model.centre, rtol=1e-4, atol=1e-6)
    assert whole.model.centre.abs().max() > 0
    for one, other in zip(whole.model.teacher.parameters(), parts.model.teacher.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-6)


def test_the_loss_is_not_rounded_to_half_precision_under_autocast():
    student, teacher = torch.randn(4, 3, 64), torch.randn(2, 3, 64)
    plain = dino_loss(student, teacher, torch.zeros(64), 0.1, 0.04)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = dino_loss(student, teacher, torch.zeros(64), 0.1, 0.04)
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, plain)


def test_a_step_in_bfloat16_has_nearly_the_gradient_of_single_precision():
    task, half = dino_task(), dino_task()
    one = gradient_of(task)
    half.model.train()
    with torch.autocast("cpu", torch.bfloat16):
        (item,) = half.load(3, ALONE)
        losses = half.losses(item, 3)
    losses.total.backward()
    name = "student.backbone.stages.3.blocks.0.fc1.weight"
    other = dict(half.model.named_parameters())[name].grad
    assert functional.cosine_similarity(one[name].flatten(), other.flatten(), dim=0) > 0.95


def test_the_task_s_own_centre_follows_the_reference(golden):
    task = dino_task(outputs=64, batch=3)
    for number in range(3):
        task._add_outputs(golden[f"teacher_{number}"].view(2, 3, 64))
        task.after_update(0, ALONE)
        torch.testing.assert_close(task.model.centre[None], golden[f"center_{number}"], rtol=0, atol=1e-6)


def test_the_teacher_follows_the_student_by_its_momentum_and_the_centre_by_its_own():
    task = dino_task(teacher_momentum=0.75, steps=1000)
    gradient_of(task, 0)
    outputs = task._outputs.clone()
    with torch.no_grad():
        for parameter in task.model.student.backbone.parameters():
            parameter += 1
    before = [p.clone() for p in task.model.teacher.backbone.parameters()]
    task.after_update(0, ALONE)
    for old, new in zip(before, task.model.teacher.backbone.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)
    torch.testing.assert_close(task.model.centre, 0.1 * outputs / (2 * 4))
    still = [p.clone() for p in task.model.teacher.backbone.parameters()]
    task.after_update(999, ALONE)  # half a cosine later the momentum is almost 1
    assert all(
        torch.allclose(a, b, atol=1e-4) for a, b in zip(still, task.model.teacher.backbone.parameters(), strict=True)
    )


def test_the_last_layer_waits_for_a_tenth_of_the_warm_up():
    task = dino_task(steps=100, warmup=20)
    for step, waits in ((0, True), (1, True), (2, False)):
        task.model.zero_grad()
        gradient_of(task, step)
        task.before_update(step)
        gradients = [p.grad for p in task.model.student.head.last_layer.parameters() if p.requires_grad]
        assert all((g is None) == waits for g in gradients)
        assert task.model.student.head.mlp[0].weight.grad is not None


def test_a_collapse_is_told_once_in_words_and_so_is_its_end():
    said: list[str] = []
    task = dino_task(said)
    with torch.no_grad():
        head = task.model.teacher.head.mlp[-1]
        kept = head.weight.clone()
        head.weight.zero_()
        head.bias.fill_(1.0)
    for _ in range(2):
        watched = task.validate()
    assert watched["exams_told_apart"] == pytest.approx(0, abs=1e-6)
    assert len(said) == 1
    assert said[0].startswith("The training has collapsed: the teacher tells exams apart by 0.000 nats only; ")
    with torch.no_grad():
        head.weight.copy_(50 * kept)
        head.bias.zero_()
    task.validate()
    assert said[1:] == ["The training no longer looks collapsed."]


def test_verdicts_name_the_kind_of_collapse_and_what_to_do():
    apart = functional.one_hot(torch.arange(8)).float()
    spread = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    assert Watch.of(apart, spread).verdict() is None
    assert Watch.of(apart, spread).information == pytest.approx(math.log(8))
    even = Watch.of(torch.full((8, 8), 1 / 8), spread).verdict()
    assert "evenly" in even
    assert "Lower teacher_temperature" in even
    one = Watch.of(apart[:1].repeat(8, 1), spread).verdict()
    assert "on one output" in one
    assert "Raise teacher_temperature" in one
    alike = Watch.of(apart, spread[:1].repeat(8, 1))
    assert alike.spread == pytest.approx(0, abs=1e-6)
    assert "embeddings of different exams are alike" in alike.verdict()


# ---------------------------------------------------------------- order: what is shuffled


def test_a_permutation_is_never_the_identity_and_all_others_are_as_likely():
    rng = np.random.default_rng(0)
    assert {draw_permutation(rng, (3, 5)) for _ in range(50)} == {(5, 3)}
    counted = Counter(draw_permutation(rng, (0, 1, 2)) for _ in range(3000))
    assert len(counted) == 5
    assert (0, 1, 2) not in counted
    assert all(500 < n < 700 for n in counted.values())  # 600 ± 4.5 SD
    with pytest.raises(ValueError, match="one exam has no other order"):
        draw_permutation(rng, (0,))


def test_half_of_the_sequences_are_shuffled_and_dates_stay_sorted():
    examples = [example([None] * (2 + i % 4), f"P{i}", i) for i in range(40)]
    plan = ShufflePlan(encoder_config(exam_dropout=0.3, max_exams=3, batch=40), examples)
    sequences = [s for step in range(25) for s in plan.batch(step)]
    assert 430 < sum(s.is_shuffled for s in sequences) < 570
    for s in sequences:
        assert list(s.exams) == sorted(s.exams)
        assert sorted(s.places) == list(s.exams)
        assert 2 <= len(s.exams) <= 3
        assert s.draw in (1, 2)
    assert {len(s.exams) for s in sequences if len(s.example.exams) == 5} == {2, 3}


def test_patients_with_one_exam_are_in_no_part():
    examples = [example([None] * (1 + i % 3), f"P{i}", i) for i in range(60)]
    training, held_out = hold_out(examples, encoder_config())
    assert len(training) + len(held_out) == 40
    assert len(held_out) == 8
    assert not {e.patient_id for e in training} & {e.patient_id for e in held_out}
    assert min(len(e.exams) for e in (*training, *held_out)) == 2
    shown = held_out_shuffles(held_out, encoder_config())
    assert sum(s.is_shuffled for s in shown) == len(shown) / 2
    assert {s.draw for s in shown} == {0}


class PlantedEmbeddings:
    """In place of kept ones: the first feature grows from exam to exam, or does not."""

    def __init__(self, grows: bool) -> None:
        self.grows = grows

    def get(self, patient: Any) -> torch.Tensor:
        count = len(patient.exams)
        values = torch.randn(3, count, 128, generator=torch.Generator().manual_seed(patient.number))
        values[..., 0] = 3 * torch.arange(count) if self.grows else 0
        return values


def order_task(grows: bool, **changes: Any) -> OrderTask:
    config = encoder_config(**{"batch": 32, "steps": 100, "warmup": 5, "validation_fraction": 0.3, **changes})
    examples = [example([None] * (2 + i % 3), f"P{i}", i) for i in range(200)]
    training, held_out = hold_out(examples, config)
    model = OrderModel(seeded_network(config, config.model, 2))
    return OrderTask(config, ShufflePlan(config, training), held_out, PlantedEmbeddings(grows), model)  # type: ignore[arg-type]


def test_embeddings_move_and_dates_stay():
    task = order_task(True)
    sequences = [s for s in task.plan.batch(0) if s.is_shuffled]
    batch = task.collate(sequences, 4)
    for row, sequence in enumerate(sequences):
        count = len(sequence.exams)
        assert batch.times[row, :count].tolist() == sorted(batch.times[row, :count].tolist(), reverse=True)
        assert batch.times[row, count - 1] == 0
        assert batch.embeddings[row, :count, 0].tolist() == [3.0 * place for place in sequence.places]
        assert batch.labels[row] == 1


def test_an_order_that_is_there_is_learned_and_one_that_is_not_is_not(tmp_path):
    found = {}
    for grows in (True, False):
        task = order_task(grows)
        settings = LoopSettings(tmp_path / str(grows), "planted", 100, (2e-3, 1e-6), (0.05, 0.05), warmup=5)
        Loop(task, parameter_groups(dict(task.model.named_parameters()), lambda _: 1.0), settings, ALONE).run(
            lambda *_: None
        )
        found[grows] = task.auroc(resamples=200)
    assert found[True].low > 0.9
    assert found[False].low < 0.5 < found[False].high


def test_the_oracle_tells_order_from_exact_sizes_and_less_from_inexact_ones():
    courses = draw_courses(GrowthModel(), 1, range(200))
    exact, inexact = (ask_about_order(courses, error) for error in (0.0, 3.0))
    assert exact.low > 0.9
    assert 0.5 < inexact.value < exact.low
    assert "at least 10 patients with two exams" in refusal(ask_about_order, courses[:5], 0.0).message


# ---------------------------------------------------------------- kept embeddings


@pytest.fixture(scope="module")
def tiny_exams(tiny_phantom, tiny_cache):
    return examples_of(tiny_phantom, tiny_cache, tiny_config())


def embeddings_in(folder: Path, tiny_cache: Path, **changes: Any) -> Embeddings:
    config = encoder_config(**changes)
    backbone = seeded_network(config, config.model, 1).backbone
    return Embeddings(folder, config, backbone, open_cache(tiny_cache, tiny_config()))


def test_embeddings_are_computed_once_and_are_the_network_s(tmp_path, tiny_exams, tiny_cache, monkeypatch):
    kept, patient = embeddings_in(tmp_path, tiny_cache), tiny_exams[0]
    assert refusal(kept.get, patient).code == "embedding_gone"
    kept.fill(patient)
    values = kept.get(patient)
    assert values.shape == (3, len(patient.exams), 128)
    assert not torch.allclose(values[0], values[1], atol=1e-3)
    monkeypatch.setattr(Embeddings, "_encode", lambda *_: pytest.fail("it was encoded again"))
    kept.fill(patient)
    monkeypatch.undo()
    # Draw 0 is what prediction reads.
    config = kept.cache.preparation.config
    crops = [kept.cache.data(key)[:, 2:26, 2:26, 2:26].astype(np.float32) for key in patient.exams]
    images = torch.from_numpy(np.stack([normalise_channels(crop, config) for crop in crops]))
    with torch.no_grad():
        torch.testing.assert_close(kept.backbone(images), values[0], rtol=0, atol=1e-5)


def test_exams_of_a_patient_share_their_turn_within_a_draw(tiny_exams):
    patient = max(tiny_exams, key=lambda e: len(e.exams))
    readings = [draw_reading(patient, draw, encoder_config(draws=30)) for draw in range(31)]
    assert readings[0].turn == Turn()
    assert len({r.turn for r in readings}) > 10
    for reading in readings[1:]:
        assert len({float(c.scale[0]) for c in reading.changes}) == len(patient.exams)


def test_another_backbone_seed_or_draw_has_embeddings_of_its_own(tmp_path, tiny_exams, tiny_cache):
    embeddings_in(tmp_path, tiny_cache).fill(tiny_exams[0])
    for changes in ({"seed": 1}, {"draws": 3}, {"intensity_shift": 0.2}, {"pooling": "generalised_mean"}):
        assert refusal(embeddings_in(tmp_path, tiny_cache, **changes).get, tiny_exams[0]).code == "embedding_gone"


def test_a_damaged_embedding_is_computed_again(tmp_path, tiny_exams, tiny_cache):
    kept = embeddings_in(tmp_path, tiny_cache)
    kept.fill(tiny_exams[0])
    (file,) = tmp_path.rglob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    kept.fill(tiny_exams[0])
    assert file.read_bytes() == whole


# ---------------------------------------------------------------- who is read


def test_exams_without_labels_leave_out_test_patients_and_what_follows_a_diagnosis(tmp_path, tiny_phantom, tiny_cache):
    cohort, config = read_input(tiny_phantom), encoder_config()
    cache = open_cache(tiny_cache, tiny_config())
    patients = cohort.patients
    early = Outcome(patients[0].patient_id, patients[0].exams[-1].date, patients[0].exams[-1].date)
    outcomes = {early.patient_id: early}  # nobody else has one, and needs none
    examples = gather_exams(
        replace(cohort, outcomes=outcomes), config, cache, {}, [patients[1].patient_id], lambda *_: None
    )
    names = [e.patient_id for e in examples.all]
    assert patients[1].patient_id not in names
    assert examples.reasons() == {"set aside as test": 1}
    assert len(names) == len(patients) - 1
    first = next(e for e in examples.all if e.patient_id == early.patient_id)
    assert len(first.exams) == len(patients[0].exams) - 1
    assert examples.counts["exams on or after the diagnosis"] == 1
    assert all(label is None for e in examples.all for label in e.labels)


def test_a_cohort_of_whom_nobody_is_left_is_refused_in_words(tmp_path):
    patient = read_input(ROOT / "HCCNetLib" / "samples").patients[0]
    cohort = replace(read_input(ROOT / "HCCNetLib" / "samples"), patients=(patient,))
    cache = PreparedCache(tmp_path, Preparation(CHANNELS, encoder_config().preparation))
    found = refusal(gather_exams, cohort, encoder_config(), cache, {}, [patient.patient_id], lambda *_: None)
    assert "set aside as test (1)" in found.message


# ---------------------------------------------------------------- what is taken over


def test_a_repeated_stem_gives_for_equal_channels_what_one_gave():
    one = HCCNet(single_channel(backbone_config().model)).backbone
    images = torch.randn(2, 1, 24, 24, 24)
    weights = {f"backbone.{name}": tensor for name, tensor in one.state_dict().items()}
    for channels in (2, 4):
        config = replace(backbone_config().model, channels=channels)
        several = HCCNet(config).backbone
        adapted = load_backbone(several, Pretrained(Path("run"), {}, weights))
        assert adapted == ["stages.0.downsample.0.weight"]
        torch.testing.assert_close(several(images.repeat(1, channels, 1, 1, 1)), one(images), rtol=0, atol=1e-5)
    torch.testing.assert_close(repeat_stem(one.stem.weight, 4).sum(dim=1), one.stem.weight[:, 0])


def test_a_missing_a_superfluous_and_a_misshapen_tensor_are_refused_by_name():
    backbone = HCCNet(backbone_config().model).backbone
    whole = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    lacks = {name: tensor for name, tensor in whole.items() if name != "backbone.norm.weight"}
    extra = {**whole, "backbone.more": torch.zeros(1)}
    other = {**whole, "backbone.norm.weight": torch.zeros(7)}
    before = weights_digest(backbone.state_dict())
    for weights, word, name in (
        (lacks, "lacks", "norm.weight"),
        (extra, "besides", "more"),
        (other, "shape", "norm.weight"),
    ):
        found = refusal(load_backbone, backbone, Pretrained(Path("run"), {}, weights))
        assert word in found.message
        assert name in found.message
    assert weights_digest(backbone.state_dict()) == before


# ---------------------------------------------------------------- the probe


def test_a_probe_finds_what_is_in_the_embeddings_and_nothing_else():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 3)
    embeddings = rng.normal(size=(180, 20))
    told = embeddings @ rng.normal(size=20) + 0.5 * rng.normal(size=180)
    r2 = linear_probe(embeddings, told, patients)
    assert r2.low > 0.85
    assert r2.low < r2.value < r2.high < 1
    nothing = linear_probe(embeddings, rng.normal(size=180), patients)
    assert nothing.value < 0.1
    # A number that is the patient's own is not learned from the patient's other exams.
    own = np.repeat(rng.normal(size=60), 3)
    marked = np.hstack([embeddings, np.eye(60)[patients]])
    assert linear_probe(marked, own, patients).value < 0.1
    assert "at least 25 patients" in refusal(linear_probe, embeddings[:30], told[:30], patients[:30]).message
    assert "the same target" in refusal(linear_probe, embeddings, np.ones(180), patients).message


# ---------------------------------------------------------------- settings and recipes


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"global_views": 1, "local_views": 0}, "one view alone"),
        ({"local_voxels": 28}, "local_voxels must lie between 24 .* and 27, the edge of a global crop; it is 28"),
        ({"teacher_momentum": 1.0}, "teacher_momentum must be at least 0 and below 1"),
        ({"student_temperature": 0.0}, "student_temperature must be above 0"),
        ({"target_column": "lesion_log_ml"}, "go together"),
        ({"freeze_last": 2.0}, "freeze_last must lie between 0 and 1"),
        ({"out": ""}, "out is empty"),
    ],
)
def test_settings_that_no_backbone_could_be_trained_with_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        backbone_config(**changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"max_exams": 1}, "max_exams must be at least 2"),
        ({"shuffled": 1.0}, "shuffled must lie between 0 and 1"),
        ({"draws": -1}, "draws must be at least 0"),
    ],
)
def test_settings_that_no_order_could_be_learned_with_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        encoder_config(**changes)


RECIPE: dict[str, Any] = {
    "shared": {**SHARED, "cohort": "c"},
    "backbone": {"local_voxels": 24},
    "encoder": {"draws": 1},
    "finetune": {"out": "runs/x", "test_fraction": 0.2},
    "arms": {
        "none": {"pretraining": "none"},
        "order": {"pretraining": "order"},
        "backbone": {"pretraining": "backbone"},
        "index": {"time": "months", "dropout": 0.2},
    },
}


def recipe_file(folder: Path, **changes: Any) -> Path:
    return write_yaml(folder / "recipe.yaml", {k: v for k, v in {**RECIPE, **changes}.items() if v is not None})


def test_a_recipe_says_which_runs_each_arm_begins_with(tmp_path):
    recipe = read_recipe(recipe_file(tmp_path), {"shared.seed": "3"})
    assert [stage.out for stage in recipe.stages] == [
        "runs/x-pretrained-backbone",
        "runs/x-pretrained-encoder",
        "runs/x-pretrained-encoder-untrained",
    ]
    backbone, encoder, untrained = recipe.stages
    assert (encoder.backbone_from, untrained.backbone_from) == ("runs/x-pretrained-backbone", "")
    assert {stage.leave_out for stage in recipe.stages} == {"runs/x/splits.json"}
    assert {stage.seed for stage in recipe.stages} == {3} == {recipe.finetune.seed}
    assert backbone.cohort == recipe.finetune.cohort == "c"
    begun = {name: (arm.backbone_from, arm.encoder_from) for name, arm in recipe.arms.items()}
    assert begun == {
        "none": ("", ""),
        "order": ("runs/x-pretrained-encoder-untrained", "runs/x-pretrained-encoder-untrained"),
        "backbone": ("runs/x-pretrained-backbone", ""),
        "index": ("runs/x-pretrained-backbone", "runs/x-pretrained-encoder"),
    }
    assert (recipe.finetune.backbone_from, recipe.finetune.encoder_from) == (
        "runs/x-pretrained-backbone",
        "runs/x-pretrained-encoder",
    )
    assert len({arm.out for arm in recipe.arms.values()}) == 4


def test_a_recipe_runs_only_the_stages_that_are_used(tmp_path):
    recipe = read_recipe(recipe_file(tmp_path, arms=None), {})
    assert [type(stage) for stage in recipe.stages] == [BackboneConfig, EncoderConfig]
    recipe = read_recipe(recipe_file(tmp_path, arms=None, encoder=None), {})
    assert [type(stage) for stage in recipe.stages] == [BackboneConfig]
    assert recipe.finetune.encoder_from == ""
    recipe = read_recipe(recipe_file(tmp_path, arms=None, encoder=None, backbone=None), {})
    assert recipe.stages == ()


def test_empty_sections_are_sections_with_the_defaults(tmp_path):
    file = tmp_path / "empty.yaml"
    file.write_text("backbone:\nencoder:\nfinetune:\n")
    recipe = read_recipe(file, {})
    assert [type(stage) for stage in recipe.stages] == [BackboneConfig, EncoderConfig]
    assert recipe.finetune.backbone_from == "runs/finetune-pretrained-backbone"


def test_the_stages_have_data_and_network_of_the_supervised_one(tmp_path):
    file = write_yaml(
        tmp_path / "r.yaml",
        {
            "shared": {"cohort": "shared", "seed": 4},
            "backbone": {},
            "finetune": {
                "cohort": "own",
                "phantom_patients": 9,
                "variant": "atto",
                "channels": ["T2_short", "T2_long"],
            },
        },
    )
    (stage,) = read_recipe(file, {}).stages
    assert (stage.cohort, stage.phantom_patients, stage.variant, stage.seed) == ("own", 9, "atto", 4)
    assert stage.channels == ("T2_short", "T2_long")
    assert stage.batch == BackboneConfig().batch


def test_a_stage_s_command_takes_its_section_of_a_recipe(tmp_path):
    path = recipe_file(tmp_path)
    assert read_pretraining(BackboneConfig, path, {"steps": "9"}).steps == 9
    assert read_pretraining(EncoderConfig, path, {}).draws == 1
    assert read_stage(path, "order", {}).encoder_from == "runs/x-pretrained-encoder-untrained"
    alone = write_yaml(tmp_path / "alone.yaml", {**SHARED, "local_voxels": 24})
    assert read_pretraining(BackboneConfig, alone, {}).local_voxels == 24
    found = refusal(read_pretraining, EncoderConfig, recipe_file(tmp_path, encoder=None, arms=None), {})
    assert "Add a section encoder" in found.message


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"arms": {"a": {"pretraining": "some"}}}, "pretraining must be one of none, backbone, order, both"),
        ({"encoder": None, "arms": {"a": {"pretraining": "both"}}}, "the section encoder is missing"),
        ({"shared": {"cohort": "c", "out": "runs/y"}}, "out can't be shared"),
        ({"shared": {"cohort": "c", "horizon_months": 3.0}}, "horizon_months can't be shared"),
        ({"backbone": {"out": "runs/x", "local_voxels": 24}}, "two stages or arms have one folder"),
        ({"backbone": {"draws": 3}}, "unknown settings: draws"),
        ({"test": {"cohort": "c"}}, "the test cohort is the cohort that is trained on"),
        ({"backbone": {"local_voxels": 24, "pooling": "attention"}}, "these settings differ: pooling"),
        ({"backbone": {"preprocessing": {"crop_voxels": 48}}}, "these settings differ: spacing_mm"),
        ({"encoder": {"channels": ["DWI_b0"], "preprocessing": {"crop_voxels": 24}}}, "spacing_mm"),
        ({"encoder": {"time": "exams"}}, "these settings differ: time"),
        ({"arms": {"a": {"variant": "atto"}}}, "these settings differ: depths, dims"),
        ({"arms": {"a": {"test_fraction": 0.3}}}, "sets other patients aside"),
        ({"arms": {"a": {"seed": 3}}}, "sets other patients aside"),
        ({"finetune": {"backbone_from": "given"}}, "backbone_from is given beside a self-supervised stage"),
        ({"arms": {"a": {"pretraining": "none", "encoder_from": "x"}}}, "encoder_from is given beside"),
    ],
)
def test_recipes_that_can_t_be_run_are_refused_before_anything_is(tmp_path, changes, sentence):
    assert sentence in refusal(read_recipe, recipe_file(tmp_path, **changes), {}).message


PUBLISHED = sorted((ROOT / "Training" / "published").glob("*.yaml"))
PARAMETERS = {"femto": (5.2, 12.4), "pico": (9.2, 22.0), "nano": (15.9, 45.9), "tiny": (29.2, 72.4)}


@pytest.mark.parametrize("variant", PARAMETERS)
@pytest.mark.parametrize("file", PUBLISHED, ids=lambda f: f.stem)
def test_published_configurations_are_whole_for_each_channel_group_and_size(file, variant):
    recipe = read_recipe(file, {"shared.variant": variant})
    assert [type(stage) for stage in recipe.stages] == [BackboneConfig, EncoderConfig]
    assert len(recipe.finetune.channels) in (2, 4)
    for config in (*recipe.stages, recipe.finetune):
        assert config.channels == recipe.finetune.channels
        assert config.preparation.crop_voxels == 72
        assert config.model.name == variant
    published = recipe.finetune
    assert (published.horizons_months, published.loss, published.landmark_weight) == ((12.0,), "balanced", "equal")
    assert (published.model.outputs, published.channel_dropout) == (1, 0.0)
    backbone = recipe.stages[0]
    assert (backbone.global_views, backbone.local_views, backbone.local_voxels, backbone.outputs) == (2, 2, 48, 4096)
    assert (backbone.student_temperature, backbone.teacher_temperature, backbone.teacher_momentum) == (
        0.1,
        0.04,
        0.9995,
    )
    if len(recipe.finetune.channels) == 4:
        network = HCCNet(recipe.finetune.model)
        of_backbone, of_all = PARAMETERS[variant]
        counted = sum(p.numel() for p in network.backbone.parameters()) / 1e6
        assert counted == pytest.approx(of_backbone, abs=0.06)
        assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(of_all, abs=0.06)


def test_there_is_a_published_configuration_for_each_channel_group():
    groups = {tuple(read_recipe(file, {}).finetune.channels) for file in PUBLISHED}
    assert groups == {
        ("DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800"),
        ("T1_native", "T1_arterial", "T1_venous", "T1_delayed"),
        ("T1_in", "T1_out"),
        ("T2_short", "T2_long"),
    }
