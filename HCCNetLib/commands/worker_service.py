"""A request → an answer; the latest bundle's networks stay in memory."""

from __future__ import annotations

import gc
import platform
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from HCCNetLib.bundles import Bundle
from HCCNetLib.commands.failures import refusal_of
from HCCNetLib.commands.outputs import PREDICTION_FILE
from HCCNetLib.commands.predict import Explaining, Job, check_writable, tell_set_aside
from HCCNetLib.commands.progress import Teller
from HCCNetLib.commands.worker_requests import PredictRequest
from HCCNetLib.explanation.check import find_check
from HCCNetLib.inference import Predictor, choose_device, software_versions
from HCCNetLib.readers import ReadingOptions, read_input
from HCCNetLib.records import Cohort, Patient, Refusal

# After these the networks are dropped: they fill the memory, or are in nobody knows what state.
_DROP_AFTER = ("out_of_memory", "memory", "internal")


def versions() -> dict[str, str]:
    """The packages that shape a result, and Python."""
    return {**software_versions(), "python": platform.python_version()}


class Service:
    """Predicts one patient after the other."""

    def __init__(self) -> None:
        self._latest: Predictor | None = None

    def answer(self, request: PredictRequest, tell: Teller) -> dict[str, Any]:
        """The result or error event of a request, without its id; raises nothing."""
        try:
            return {"event": "result", "path": str(self._predict(request, tell))}
        except Exception as error:  # noqa: BLE001 - a bug in one request must not end the others
            event = _error_event(error)
        # Only here is the exception gone, and with it the tensors that its frames hold.
        if event["code"] in _DROP_AFTER:
            self._drop()
        return event

    def _predict(self, request: PredictRequest, tell: Teller) -> Path:
        tell("opening bundle", 0, 1)
        patient = _read_patient(request)
        predictor = self._predictor(Bundle.open(request.bundle), request.device)
        check = find_check(predictor.bundle, request.method) if request.explain == "saliency" else None
        check_writable(request.out)
        job = Job(predictor, request.out, Explaining(request.explain, request.method, check))
        return job.predict(patient, tell)[1] / PREDICTION_FILE

    def _predictor(self, bundle: Bundle, device: str) -> Predictor:
        """The latest one, if it is of the same bundle and device."""
        latest = self._latest
        same = latest is not None and (latest.bundle.path, latest.bundle.sha256) == (bundle.path, bundle.sha256)
        if latest is None or not same or latest.device != choose_device(device):
            self._drop()
            self._latest = latest = Predictor(bundle, device)
        return latest

    def _drop(self) -> None:
        self._latest = None
        gc.collect()
        if torch.cuda.is_initialized():
            try:
                torch.cuda.empty_cache()
            except RuntimeError as error:  # a GPU that has failed once fails again
                _log(error)


def _read_patient(request: PredictRequest) -> Patient:
    """The table's only patient."""
    cohort = read_input(request.table, ReadingOptions(resample_channels=request.resample_channels))
    _require_one(cohort)
    for patient_id, refusal in cohort.refused.items():
        tell_set_aside(request.out, patient_id)
        raise refusal
    return cohort.patients[0]


def _require_one(cohort: Cohort) -> None:
    if cohort.form != "cohort table":
        raise Refusal("not_a_table", f"The worker reads a table (.csv, .tsv); this is a {cohort.form}.")
    count = len(cohort.patients) + len(cohort.refused)
    if count != 1:
        message = f"The table holds {count} patients; the worker predicts one at a time. Give each a table of its own."
        raise Refusal("not_one_patient", message)


def _error_event(error: Exception) -> dict[str, Any]:
    refusal = refusal_of(error)
    if refusal is None:
        _log(error)
        kind = type(error).__name__
        message = f"The prediction met an error that the software does not expect ({kind}). The details tell where."
        refusal = Refusal("internal", message)
    event = {"event": "error", "code": refusal.code, "message": refusal.message}
    return event if refusal.exam_id is None else {**event, "exam_id": refusal.exam_id}


def _log(error: BaseException) -> None:
    """Where an exception and its causes came from; not what they say, which may name a patient or a patient's folder."""
    chain: BaseException | None = error
    while chain is not None:
        print(f"{type(chain).__name__}, at:", file=sys.stderr)
        traceback.print_tb(chain.__traceback__)
        if isinstance(chain, RuntimeError):  # torch's; they tell of devices and shapes
            print(f"{type(chain).__name__}: {next(iter(str(chain).splitlines()), '')}", file=sys.stderr)
        chain = chain.__cause__ or chain.__context__
