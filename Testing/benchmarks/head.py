"""What transformer and head make of sizes that are measured for them: AUROC by landmark number, no pass or fail. No image is read.

    python Testing/benchmarks/head.py [--patients N] [--steps N] [--seed S]

Each exam's embedding is a fixed random function of the solid nodules' log volume, measured with an error, in all of the liver
(one place) or in each of eight octants. Settings are trained as fine-tuning trains them, on the hazards of five intervals, and
judged at 12 months on other patients of the surveillance process, beside the true risk given what images show.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from HCCNetLib.evaluation.discrimination import auroc
from HCCNetLib.evaluation.follow_up import FollowUp, follow_up_of
from HCCNetLib.evaluation.landmark_sets import by_number
from HCCNetLib.models import HCCNet, ModelConfig, risk_logits
from HCCNetLib.records import months_between
from HCCNetLib.synthetic.disease import draw_courses
from HCCNetLib.synthetic.surveillance import SurveillanceCourse, SurveillanceModel
from HCCNetLib.synthetic.true_risk import SIZE_ERROR, TrueRisk, measure
from HCCNetLib.training.intervals import Intervals
from HCCNetLib.training.schedules import cosine_schedule

HORIZONS, MAIN = (6.0, 12.0, 18.0, 24.0, 36.0), 1
TEST_PATIENTS = 1000
BATCH, EXAM_DROPOUT, WARMUP, LEARNING_RATE = 16, 0.1, 20, 1e-3
SETTINGS: dict[str, tuple[int, dict[str, Any]]] = {
    "published": (1, {}),
    "gelu, change": (1, {"head": "gelu", "change": True}),
    "gelu, cells": (8, {"head": "gelu", "pooling": "cells"}),
    "change, cells": (8, {"change": True, "pooling": "cells"}),
    "gelu, change, cells": (8, {"head": "gelu", "change": True, "pooling": "cells"}),
}


@dataclass(frozen=True)
class Series:
    """A patient's measured sizes (exams, places), months of each exam, and follow-up."""

    sizes: np.ndarray
    months: np.ndarray
    follow_up: FollowUp


class Head(nn.Module):
    """Measured sizes → embeddings → transformer and head."""

    def __init__(self, network: dict[str, Any]) -> None:
        super().__init__()
        self.network = HCCNet(replace(ModelConfig.variant("mini", 1), outputs=len(HORIZONS), **network))
        self.lift = nn.Sequential(nn.Linear(1, self.network.backbone.dim), nn.LayerNorm(self.network.backbone.dim))
        for parameter in (self.lift[0].weight, self.lift[0].bias):
            nn.init.normal_(parameter, std=0.7)

    def forward(self, sizes: Tensor, months: Tensor, lengths: Tensor) -> Tensor:
        """(Q, S, P), (Q, S), (Q,) → logits of the hazards (Q, K)."""
        return self.network.classify(self.lift(sizes[..., None]).flatten(2), months, lengths)[0]


def main() -> None:
    """Draws patients, trains each setting and prints a row for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=1200, help="to train on")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = SurveillanceModel()
    courses = draw_courses(model, arguments.seed, range(arguments.patients + TEST_PATIENTS))
    true, aside = TrueRisk(model), courses[arguments.patients :]
    ceiling = [true.from_images(measure(c, e, arguments.seed))[MAIN] for c in aside for e in range(len(c.dates))]
    follow_up = FollowUp.joined([follow_up_of([(c.dates, c.outcome)]) for c in aside])
    print("                        exam 1  2      3      4+     all")
    print(f"{'true risk, images':22s}  {row(follow_up, np.array(ceiling))}", flush=True)
    for name, (places, network) in SETTINGS.items():
        rng = np.random.default_rng(arguments.seed)
        series = [measured(course, places, rng) for course in courses]
        head = trained(series[: arguments.patients], network, arguments.steps, arguments.seed)
        print(f"{name:22s}  {row(follow_up, risks(head, series[arguments.patients :]))}", flush=True)


def measured(course: SurveillanceCourse, places: int, rng: np.random.Generator) -> Series:
    """Log volumes with an error; each nodule lies in one place."""
    nodules = [nodule for nodule in course.nodules if nodule.kind != "cyst"]
    volumes = np.zeros((len(course.dates), places))
    for nodule in nodules:
        cubes = np.array(nodule.diameters) ** 3 * 2 ** rng.normal(0, SIZE_ERROR, len(course.dates))
        volumes[:, rng.integers(places)] += cubes
    months = np.array([months_between(date, course.dates[-1]) for date in course.dates])
    return Series((np.log2(volumes + 100) - 8.5) / 3, months, follow_up_of([(course.dates, course.outcome)]))


def sequences(series: Sequence[Series], rng: np.random.Generator | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Sizes and months before the landmark of each landmark's sequence; exams are left out where there is a generator."""
    for one in series:
        for landmark in range(len(one.months)):
            kept = [i for i in range(landmark) if rng is None or rng.random() >= EXAM_DROPOUT]
            yield one.sizes[[*kept, landmark]], one.months[[*kept, landmark]] - one.months[landmark]


def batch(series: Sequence[Series], rng: np.random.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
    """Padded sizes (Q, S, P), months (Q, S), lengths (Q,)."""
    rows = [(torch.tensor(s).float(), torch.tensor(m).float()) for s, m in sequences(series, rng)]
    sizes, months = (nn.utils.rnn.pad_sequence(list(part), batch_first=True) for part in zip(*rows, strict=True))
    return sizes, months, torch.tensor([len(m) for _, m in rows])


def trained(series: Sequence[Series], network: dict[str, Any], steps: int, seed: int) -> Head:
    """A head after ``steps`` updates."""
    torch.manual_seed(seed)
    head, rng = Head(network), np.random.default_rng(seed)
    everyone = FollowUp.joined([one.follow_up for one in series])
    hazards = Intervals.of(everyone.months, everyone.status, HORIZONS).hazards / series[0].sizes.shape[1]
    head.network.head.bias.data = torch.tensor(np.log(hazards / (1 - hazards))).float()
    parameters = [p for name, p in head.named_parameters() if "backbone" not in name]
    optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.05)
    head.train()
    for rate in cosine_schedule(LEARNING_RATE, 1e-6, steps, WARMUP):
        optimiser.param_groups[0]["lr"] = rate
        chosen = [series[i] for i in rng.choice(len(series), BATCH, replace=False)]
        now = FollowUp.joined([one.follow_up for one in chosen])
        outcome = Intervals.of(now.months, now.status, HORIZONS)
        diagnosed, at_risk = torch.tensor(outcome.diagnosed).float(), torch.tensor(outcome.at_risk).float()
        errors = functional.binary_cross_entropy_with_logits(head(*batch(chosen, rng)), diagnosed, reduction="none")
        weights = torch.tensor(1 / now.numbers)
        loss = ((errors * at_risk).sum(1) * weights).sum() / weights.sum()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 3.0)
        optimiser.step()
    return head.eval()


@torch.no_grad()
def risks(head: Head, series: Sequence[Series]) -> np.ndarray:
    """(N,) risk within the main horizon of every landmark."""
    found = [risk_logits(head(*batch([one], None)))[:, MAIN].sigmoid().numpy() for one in series]
    return np.concatenate(found)


def row(follow_up: FollowUp, scores: np.ndarray) -> str:
    """AUROC at 12 months at the first, second, third and later landmarks, and at all."""
    known, cases = follow_up.known(HORIZONS[MAIN]), follow_up.cases(HORIZONS[MAIN])
    sets = [*by_number(follow_up.numbers).values(), np.ones(len(scores), dtype=bool)]
    return "  ".join(f"{auroc(cases[known & among], scores[known & among]):.3f}" for among in sets)


if __name__ == "__main__":
    main()
