"""Random numbers that depend on seed, patient and purpose alone: not on the order of work or on who does it."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What random numbers are for; each has its own, so that a change of one leaves the others as they were."""

    COURSE = 0
    ANATOMY = 1
    EXAM = 2
    NODULES = 3
    NOISE = 4
    MEASUREMENT = 5
    LOOKS = 6


def generator(seed: int, index: int, stream: Stream, exam: int = 0) -> np.random.Generator:
    """The generator of one patient (``index`` from 0), one purpose and, where it matters, one exam."""
    return np.random.default_rng(np.random.SeedSequence((seed, index, int(stream), exam)))
