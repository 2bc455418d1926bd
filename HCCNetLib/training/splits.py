"""Which patients train, which are held out, which are never read in training: by patient, stratified, seeded, on file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from HCCNetLib.readers.split import read_split
from HCCNetLib.records import Refusal
from HCCNetLib.training.checkpoint import write_json

SPLITS_FILE, TEST = "splits.json", "test"
LEAST_EVENTS = 2  # of each class per fold: below, a fold's AUROC says nothing and a model may see no event


@dataclass(frozen=True)
class Splits:
    """The parts of a cohort.

    Args:
        folds: patient ids of each fold of the development part.
        test: patient ids set aside.
    """

    folds: tuple[tuple[str, ...], ...]
    test: tuple[str, ...] = ()

    @property
    def development(self) -> frozenset[str]:
        """All patients but those set aside."""
        return frozenset(name for names in self.folds for name in names)

    def training(self, fold: int) -> tuple[str, ...]:
        """The development patients outside a fold."""
        return tuple(name for i, names in enumerate(self.folds) if i != fold for name in names)

    def to_dict(self) -> dict[str, Any]:
        """As it is written; ``hccnet evaluate --split`` reads the same form."""
        folds = {_fold_name(i): list(names) for i, names in enumerate(self.folds)}
        return {"parts": {**folds, **({TEST: list(self.test)} if self.test else {})}}

    @classmethod
    def read(cls, path: Path) -> Splits:
        """Reads a split; raises Refusal where it can't be read or has a patient on two sides."""
        parts = read_split(path)
        count = sum(name != TEST for name in parts)
        names = [_fold_name(i) for i in range(count)]
        if set(names) - set(parts) or count < 2:
            message = (
                f"The split {path.name} must have the parts {_fold_name(0)}, {_fold_name(1)} … and, if any, {TEST}."
            )
            raise Refusal("bad_split", message)
        return cls(tuple(tuple(sorted(parts[name])) for name in names), tuple(sorted(parts.get(TEST, ()))))


def _fold_name(number: int) -> str:
    return f"fold {number}"


def draw_splits(labels: Mapping[str, bool], folds: int, test_fraction: float, seed: int) -> Splits:
    """Deals patients into a test part and folds, each class for itself, so that all parts have like shares of events.

    Args:
        labels: patient id → label.
        folds: of the development part.
        test_fraction: of the patients.
        seed: of the order.

    Raises:
        Refusal: one class only, or fewer than two events or non-events per fold.
    """
    rng = np.random.default_rng([seed, 0x5B1175])
    dealt: list[list[str]] = [[] for _ in range(folds)]
    test: list[str] = []
    for label in (True, False):
        names = sorted(name for name, value in labels.items() if value == label)
        order = [names[i] for i in rng.permutation(len(names))]
        aside = round(test_fraction * len(order))
        test += order[:aside]
        for position, name in enumerate(order[aside:]):
            # The other class is dealt from the other end, so that no fold gets the surplus of both.
            fold = position % folds
            dealt[fold if label else folds - 1 - fold].append(name)
    splits = Splits(tuple(tuple(sorted(part)) for part in dealt), tuple(sorted(test)))
    require_events(splits, labels)
    return splits


def require_events(splits: Splits, labels: Mapping[str, bool]) -> None:
    """Refuses folds that can't be trained or judged with."""
    classes = {labels[name] for fold in splits.folds for name in fold if name in labels}
    if len(classes) < 2:
        has = "negative" if classes == {False} else "positive"
        message = (
            f"All patients that can be used are {has} at their latest landmark: there is nothing to tell apart. Check the "
            f"outcomes and the horizon."
        )
        raise Refusal("one_class", message)
    for number, fold in enumerate(splits.folds):
        present = Counter(labels[name] for name in fold if name in labels)
        for label, word in ((True, "positive"), (False, "negative")):
            if present[label] < LEAST_EVENTS:
                message = (
                    f"Fold {number} has {present[label]} {word} patient(s); it needs {LEAST_EVENTS}. Take fewer folds, a "
                    f"longer horizon, or more patients."
                )
                raise Refusal("few_events", message)


def find_splits(folder: Path, labels: Mapping[str, bool], plan: Sequence[float], seed: int) -> Splits:
    """The split on file in a run's folder, or a new one, which is written there.

    Args:
        folder: of the run.
        labels: patient id → label.
        plan: number of folds and test fraction.
        seed: of a new split.

    Raises:
        Refusal: as ``draw_splits`` and ``Splits.read``; or the split names patients who can't be used, or leaves some out.
    """
    path = folder / SPLITS_FILE
    if not path.is_file():
        splits = draw_splits(labels, int(plan[0]), plan[1], seed)
        write_json(path, splits.to_dict())
        return splits
    splits = Splits.read(path)
    named = {name for part in (*splits.folds, splits.test) for name in part}
    if len(splits.folds) != int(plan[0]):
        message = (
            f"{path} has {len(splits.folds)} folds, not {int(plan[0])}. Say --folds {len(splits.folds)}, or remove it."
        )
        raise Refusal("other_split", message)
    if named != set(labels):
        message = (
            f"{path} does not fit the cohort: {len(named - set(labels))} of its patients can't be used, "
            f"{len(set(labels) - named)} patients are in no part. Correct it, or remove it to draw a new one."
        )
        raise Refusal("other_split", message)
    if plan[1] > 0 and not splits.test:
        message = (
            f"{path} sets no patient aside, though test_fraction is {plan[1]:g}. Say --test_fraction 0, or remove it."
        )
        raise Refusal("other_split", message)
    require_events(splits, labels)
    return splits
