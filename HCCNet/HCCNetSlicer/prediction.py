"""From exams to a result in the scene: out to the worker, wait without blocking, back as nodes."""

from __future__ import annotations

import time
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer

from HCCNetLib.readers.exams import in_exam
from HCCNetLib.records import Refusal
from HCCNetSlicer.exam_table import TableExam, write_exams
from HCCNetSlicer.liver import liver_fingerprint
from HCCNetSlicer.results import Result, ResultError, ShownExam, show_result, with_fingerprints
from HCCNetSlicer.worker_client import Event, Failure, PredictRequest, WorkerClient, WorkerError, cancelled
from HCCNetSlicer.worker_client import Result as WorkerResult


@dataclass(frozen=True)
class Settings:
    """How to predict.

    Args:
        bundle: the bundle's folder; None: the demonstration bundle.
        explain: none, attention or saliency.
        method: that makes the maps; None: the library's default.
        device: auto, cpu or cuda.
        one_space: the user says that channels on different grids share one patient space.
    """

    bundle: Path | None = None
    explain: str = "saliency"
    method: str | None = None
    device: str = "auto"
    one_space: bool = False

    def plain(self, exams: Sequence[TableExam]) -> dict[str, Any]:
        """What a result depends on besides the volumes of its exams, as it is kept with it; not the device."""
        return {
            "bundle": str(self.bundle) if self.bundle else "",
            "explain": self.explain,
            "method": self.method,
            "one_space": self.one_space,
            "livers": {exam.exam_id: _liver_of(exam) for exam in exams if exam.liver is not None},
        }


def _liver_of(exam: TableExam) -> str:
    try:
        return liver_fingerprint(exam.liver)
    except Refusal as refusal:
        raise in_exam(refusal, exam.exam_id) from refusal


@dataclass(frozen=True)
class Shown:
    """A prediction's good end: its result is in the scene."""

    result: Result


@dataclass(eq=False)
class _Run:
    """One prediction: what it will need at its end, and then what became of it; None where it was cancelled."""

    folder: Path
    exams: Sequence[ShownExam]
    settings: Mapping[str, Any]
    observer: int
    outcome: Result | WorkerError | None = None


class Predictions:
    """Predicts one patient after the other.

    Args:
        scene: that holds the exams and takes the results.
        client: of the worker.
    """

    def __init__(self, scene: Any, client: WorkerClient) -> None:
        self.scene = scene
        self.client = client
        self._run: _Run | None = None

    @property
    def is_running(self) -> bool:
        """Whether a prediction is under way."""
        return self._run is not None

    def begin(self, exams: Sequence[TableExam], settings: Settings) -> None:
        """Sends exams, as they lie in the scene now, to the worker; what becomes of them comes by ``poll``.

        Raises:
            Refusal: a liver can't be used.
            WorkerError: no folder can be made or written.
            ValueError: another prediction is under way, here or by another user of the client.
        """
        if self._run is not None or self.client.is_running:
            raise ValueError("a prediction is under way")
        folder = self.client.new_folder()
        try:
            kept = settings.plain(exams)
            shown = [with_fingerprints(exam) for exam in as_shown(exams)]
            table = write_exams(exams, folder)
            self.client.predict(
                PredictRequest(
                    table=table,
                    out=folder / "result",
                    bundle=settings.bundle,
                    explain=settings.explain,
                    method=settings.method,
                    device=settings.device,
                    resample_channels=settings.one_space,
                )
            )
        except OSError as error:
            self.client.release(folder)
            reason = error.strerror or type(error).__name__
            message = f"The exams can't be handed to the worker: {reason}. Check the free space for temporary files."
            raise WorkerError("cannot_write", message) from error
        except BaseException:
            self.client.release(folder)
            raise
        self._run = _Run(folder, shown, kept, self._observe_closing())

    def poll(self) -> list[Event | Shown]:
        """What has happened since the last time; a result is brought into the scene here. It waits for nothing to happen."""
        events: list[Event | Shown] = []
        for event in self.client.poll():
            if isinstance(event, WorkerResult):
                events += self._show(event)
                continue
            events.append(event)
            if isinstance(event, Failure) and event.of_request:
                self._end(event.error)
        if self._run is not None and not self.client.works_on(self._run.folder):
            # The client was closed, or its request cancelled, by somebody else: no end will come.
            self._end(cancelled())
            events.append(Failure(cancelled()))
        return events

    def wait(self, on_event: Callable[[Event | Shown], None] | None = None) -> Result:
        """Waits for the prediction, while Slicer's window stays alive; Ctrl-C cancels.

        It ends with this prediction, whoever polls its end and whatever is begun meanwhile.

        Raises:
            WorkerError: it failed, or was cancelled meanwhile.
            ValueError: none is under way.
        """
        run = self._run
        if run is None:
            raise ValueError("no prediction is under way")
        try:
            while self._run is run:
                for event in self.poll():
                    if on_event is not None:
                        on_event(event)
                if self._run is run:
                    _let_slicer_work()
        finally:
            if self._run is run:
                self.cancel()
        if isinstance(run.outcome, Result):
            return run.outcome
        raise run.outcome or cancelled()

    def cancel(self) -> None:
        """Ends a prediction that is under way; an earlier result stays."""
        run = self._end()
        if run is not None:
            if self.client.works_on(run.folder) or not self.client.is_running:
                self.client.cancel()  # also takes back what nobody has polled
            self.client.release(run.folder)

    def close(self) -> None:
        """Ends the worker, and a prediction that is under way."""
        self._end()
        self.client.close()

    def _observe_closing(self) -> int:
        """A result must not come into a scene that its exams have left."""
        cancel = weakref.WeakMethod(self.cancel)  # the scene must not keep this, and with it the worker

        def closing(*_: Any) -> None:
            if (method := cancel()) is not None:
                method()

        return int(self.scene.AddObserver(slicer.vtkMRMLScene.StartCloseEvent, closing))

    def _end(self, outcome: WorkerError | None = None) -> _Run | None:
        run, self._run = self._run, None
        if run is not None:
            run.outcome = outcome
            self.scene.RemoveObserver(run.observer)
        return run

    def _show(self, event: WorkerResult) -> list[Event | Shown]:
        run = self._end()
        if run is None:  # somebody else's
            for folder in event.path.parents:
                self.client.release(folder)
            return []
        try:
            run.outcome = show_result(self.scene, event.path.parent, run.exams, run.settings, event.notices)
        except ResultError as error:
            run.outcome = WorkerError("bad_result", str(error))
        except Exception as error:  # noqa: BLE001 - whoever polls by a timer must not meet a bug
            run.outcome = _not_shown(error)
        finally:
            self.client.release(run.folder)
        return [Shown(run.outcome) if isinstance(run.outcome, Result) else Failure(run.outcome)]


def _not_shown(error: Exception) -> WorkerError:
    """An error of a kind that nobody expects; without what it says, which may name a patient."""
    name = type(error).__name__
    message = f"The result could not be shown ({name}). Predict again; if it happens again, look at the details."
    places = "".join(traceback.format_tb(error.__traceback__))
    return WorkerError("bad_result", message, f"{places}{name}")


def as_shown(exams: Sequence[TableExam]) -> list[ShownExam]:
    """Exams as a result knows them."""
    return [ShownExam(exam.exam_id, exam.date, exam.volumes) for exam in exams]


def _let_slicer_work() -> None:
    application = getattr(slicer, "app", None)  # there is none where the scene is used without Slicer
    if application is not None:
        application.processEvents()
    time.sleep(0.02)
