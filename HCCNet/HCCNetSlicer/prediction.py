"""From exams to a result in the scene: out to the worker, wait without blocking, back as nodes."""

from __future__ import annotations

import time
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
from HCCNetSlicer.worker_client import Event, Failure, PredictRequest, WorkerClient, WorkerError
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


@dataclass(frozen=True)
class _Run:
    """What a prediction that is under way will need at its end."""

    folder: Path
    exams: Sequence[ShownExam]
    settings: Mapping[str, Any]
    observer: int


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
            ValueError: another prediction is under way.
        """
        if self._run is not None:
            raise ValueError("a prediction is under way")
        folder = self.client.new_folder()
        try:
            kept = settings.plain(exams)
            shown = [with_fingerprints(exam) for exam in as_shown(exams)]
            table = write_exams(exams, folder)
        except OSError as error:
            self.client.release(folder)
            reason = error.strerror or type(error).__name__
            message = f"The exams can't be handed to the worker: {reason}. Check the free space for temporary files."
            raise WorkerError("cannot_write", message) from error
        except BaseException:
            self.client.release(folder)
            raise
        # A result must not come into a scene that its exams have left.
        observer = self.scene.AddObserver(slicer.vtkMRMLScene.StartCloseEvent, lambda *_: self.cancel())
        self._run = _Run(folder, shown, kept, observer)
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

    def poll(self) -> list[Event | Shown]:
        """What has happened since the last time; a result is brought into the scene here. Never waits."""
        events: list[Event | Shown] = []
        for event in self.client.poll():
            if isinstance(event, WorkerResult):
                events.append(self._show(event))
            else:
                events.append(event)
                if isinstance(event, Failure) and event.of_request:
                    self._end()
        return events

    def wait(self, on_event: Callable[[Event | Shown], None] | None = None) -> Result:
        """Waits for the prediction, while Slicer's window stays alive; Ctrl-C cancels.

        Raises:
            WorkerError: it failed.
            ValueError: none is under way, or it was cancelled meanwhile.
        """
        try:
            while self._run is not None:
                for event in self.poll():
                    if on_event is not None:
                        on_event(event)
                    if isinstance(event, Shown):
                        return event.result
                    if isinstance(event, Failure) and event.of_request:
                        raise event.error
                _let_slicer_work()
        finally:
            self.cancel()
        raise ValueError("no prediction is under way")

    def cancel(self) -> None:
        """Ends a prediction that is under way; an earlier result stays."""
        self._end()
        self.client.cancel()

    def close(self) -> None:
        """Ends the worker, and a prediction that is under way."""
        self._end()
        self.client.close()

    def _end(self) -> _Run | None:
        run, self._run = self._run, None
        if run is not None:
            self.scene.RemoveObserver(run.observer)
        return run

    def _show(self, event: WorkerResult) -> Event | Shown:
        run = self._end()
        if run is None:
            raise RuntimeError("a result came that nobody waits for")
        try:
            return Shown(show_result(self.scene, event.path.parent, run.exams, run.settings, event.notices))
        except ResultError as error:
            return Failure(WorkerError("bad_result", str(error)))
        finally:
            self.client.release(run.folder)


def as_shown(exams: Sequence[TableExam]) -> list[ShownExam]:
    """Exams as a result knows them."""
    return [ShownExam(exam.exam_id, exam.date, exam.volumes) for exam in exams]


def _let_slicer_work() -> None:
    application = getattr(slicer, "app", None)  # there is none where the scene is used without Slicer
    if application is not None:
        application.processEvents()
    time.sleep(0.02)
