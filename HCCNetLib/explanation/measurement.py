"""A patient explained by several methods at one time, with what each costs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from HCCNetLib.explanation.attention import GradientAttention
from HCCNetLib.explanation.evidence import EnsembleEvidence, Evidence
from HCCNetLib.explanation.methods import make_explainer
from HCCNetLib.inference import EncodedSequence, MemberObserver, Prediction, Predictor
from HCCNetLib.models import HCCNet
from HCCNetLib.preprocessing import PreparedExam
from HCCNetLib.records import Patient


@dataclass(frozen=True)
class Explained:
    """What all methods say of a patient.

    Args:
        prediction: of the ensemble.
        evidence: method → evidence.
        seconds: method → what explaining took, all exams and members.
        encoding_seconds: what encoding all exams by all members takes; 0 where nobody asked.
        gradient_attention: (S,) shares of the exams; None where no exam raises any member's output.
    """

    prediction: Prediction
    evidence: Mapping[str, Evidence]
    seconds: Mapping[str, float]
    encoding_seconds: float
    gradient_attention: NDArray[np.float64] | None


def explain(
    predictor: Predictor,
    patient: Patient,
    prepared: Sequence[PreparedExam],
    methods: Sequence[str],
    time_encoding: bool = False,
) -> Explained:
    """Predicts a patient with all ``methods`` looking on; encoding is done once more where its time is asked for."""
    ensembles = {key: EnsembleEvidence(make_explainer(key)) for key in methods}
    timed = {key: _Timed(ensemble) for key, ensemble in ensembles.items()}
    encoding, attention = _Timed(_Encoding()), GradientAttention()
    first: list[MemberObserver] = [encoding] if time_encoding else []
    prediction = predictor.predict_prepared(patient, prepared, [*first, attention, *timed.values()])
    return Explained(
        prediction=prediction,
        evidence={key: ensemble.result() for key, ensemble in ensembles.items()},
        seconds={key: one.seconds for key, one in timed.items()},
        encoding_seconds=encoding.seconds,
        gradient_attention=attention.shares(),
    )


class _Timed:
    """An observer with a stopwatch."""

    def __init__(self, observer: MemberObserver) -> None:
        self._observer = observer
        self.seconds = 0.0

    def observe(self, model: HCCNet, sequence: EncodedSequence) -> None:
        """Adds the time that the observer takes."""
        _wait_for(sequence.images.device)
        start = time.perf_counter()
        self._observer.observe(model, sequence)
        _wait_for(sequence.images.device)
        self.seconds += time.perf_counter() - start


class _Encoding:
    """Encodes the exams once more, one by one as the predictor does, to be timed."""

    def observe(self, model: HCCNet, sequence: EncodedSequence) -> None:
        """One forward pass of the backbone per exam."""
        for image in sequence.images:
            model.backbone(image[None])


def _wait_for(device: torch.device) -> None:
    """A GPU works on after the call has returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
