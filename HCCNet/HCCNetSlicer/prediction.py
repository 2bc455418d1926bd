"""From exams to a result in the scene: out to the worker, wait without blocking, back as nodes."""

from __future__ import annotations

import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer

from HCCNetLib.records import Refusal
from HCCNetSlicer.exam_table import TableExam
from HCCNetSlicer.handover import TABLE_FILE, fingerprint_of_liver, hand_over
from HCCNetSlicer.result_files import ResultFiles, read_result
from HCCNetSlicer.results import Result, ResultError, ShownExam, show_files
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
            "livers": {exam.exam_id: fingerprint_of_liver(exam) for exam in exams if exam.liver is not None},
        }


@dataclass(frozen=True)
class Shown:
    """A prediction's good end: its result is in the scene."""

    result: Result


@dataclass(eq=False)
class _Run:
    """One prediction: what it needs on its way, and then what became of it; None where it was cancelled.

    Args:
        folder: the client's, for its files.
        settings: as they are kept with the result.
        request: what the worker is asked for.
        writing: writes one volume at each step; None once all are written.
        observer: of the scene.
        exams: those that are written.
        reading: the result's files, which are read beside the window; None while there is no result.
        notices: that came with the result.
    """

    folder: Path
    settings: Mapping[str, Any]
    request: PredictRequest
    writing: Iterator[ShownExam | None] | None
    observer: int
    exams: list[ShownExam] = field(default_factory=list)
    reading: _Reading | None = None
    notices: Sequence[str] = ()
    outcome: Result | WorkerError | None = None


class _Reading:
    """Reads a result's files in a thread: unpacking the maps of large exams takes seconds."""

    def __init__(self, folder: Path) -> None:
        self._files: ResultFiles | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._read, args=(folder,), daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def files(self) -> ResultFiles:
        """What was read; raises what reading raised."""
        if self._error is not None or self._files is None:
            raise self._error or RuntimeError("nothing was read")
        return self._files

    def _read(self, folder: Path) -> None:
        try:
            self._files = read_result(folder)
        except Exception as error:  # noqa: BLE001 - it is raised where it is asked for
            self._error = error


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
        self._incomplete: Result | None = None

    @property
    def is_running(self) -> bool:
        """Whether a prediction is under way."""
        return self._run is not None

    def begin(self, exams: Sequence[TableExam], settings: Settings) -> None:
        """Begins to send exams to the worker; every ``poll`` takes it a step further, so that the window stays alive.

        Each volume goes out as it lies in the scene when its turn comes, within moments.

        Raises:
            Refusal: a liver can't be used.
            WorkerError: no folder can be made.
            ValueError: another prediction is under way, here or by another user of the client.
        """
        if self._run is not None or self.client.is_running:
            raise ValueError("a prediction is under way")
        kept = settings.plain(exams)
        folder = self.client.new_folder()
        self.client.start()  # it gets ready while the volumes are written
        request = PredictRequest(
            table=folder / TABLE_FILE,
            out=folder / "result",
            bundle=settings.bundle,
            explain=settings.explain,
            method=settings.method,
            device=settings.device,
            resample_channels=settings.one_space,
        )
        self._run = _Run(folder, kept, request, hand_over(exams, folder, kept["livers"]), self._observe_closing())

    def poll(self) -> list[Event | Shown]:
        """What has happened since the last time; a result is brought into the scene here. It waits for nothing to happen."""
        events: list[Event | Shown] = []
        for event in self.client.poll():
            if isinstance(event, WorkerResult):
                self._take(event)
                continue
            events.append(event)
            if isinstance(event, Failure) and event.of_request:
                self._end(event.error)
        self.complete()
        run = self._run
        if run is None:
            return events
        if run.writing is not None:
            events += self._write_on(run)
        elif run.reading is not None:
            events += self._show(run) if run.reading.is_done else []
        elif not self.client.works_on(run.folder):
            # The client was closed, or its request cancelled, by somebody else: no end will come.
            self._end(cancelled())
            events.append(Failure(cancelled()))
        return events

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing left to poll for: no prediction is under way, and no map is still to be built."""
        return self._run is None and self._incomplete is None

    def complete(self) -> None:
        """Builds the maps of the latest result that are not shown first; the next ``poll`` does it, when the result is seen.

        Not when they are chosen: Slicer does not say when a scene is about to be saved, and none may be missing then.
        """
        result, self._incomplete = self._incomplete, None
        if result is not None:
            result.complete()

    def _write_on(self, run: _Run) -> list[Event | Shown]:
        """Writes volumes for a moment; after the last, asks the worker."""
        assert run.writing is not None
        if not run.folder.is_dir():  # the client was closed by somebody else
            self._end(cancelled())
            return [Failure(cancelled())]
        try:
            end = time.monotonic() + _WRITING_SECONDS
            for written in run.writing:
                if written is not None:
                    run.exams.append(written)
                if time.monotonic() >= end:
                    return []
            if not self.client.is_running:
                run.writing = None
                self.client.predict(run.request)
                return []
            failure = WorkerError("busy", "Another prediction is under way. Wait for its end, or cancel it.")
        except OSError as error:
            reason = error.strerror or type(error).__name__
            message = f"The exams can't be handed to the worker: {reason}. Check the free space for temporary files."
            failure = WorkerError("cannot_write", message)
        except Refusal as refusal:
            failure = WorkerError(refusal.code, refusal.message, exam_id=refusal.exam_id)
        except Exception as error:  # noqa: BLE001 - a volume that was changed or removed meanwhile
            failure = _unexpected(error, "The exams could not be handed to the worker")
        self._end(failure)
        self.client.release(run.folder)
        return [Failure(failure)]

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
                    _let_slicer_work(pause=run.writing is None)
        finally:
            if self._run is run:
                self.cancel()
        if isinstance(run.outcome, Result):
            self.complete()
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
        self.complete()
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

    def _take(self, event: WorkerResult) -> None:
        """Begins to read a result."""
        run = self._run
        if run is None or run.folder not in event.path.parents:  # somebody else's
            for folder in event.path.parents:
                self.client.release(folder)
            return
        run.reading, run.notices = _Reading(event.path.parent), event.notices

    def _show(self, run: _Run) -> list[Event | Shown]:
        assert run.reading is not None
        self._end()
        try:
            run.outcome = self._incomplete = show_files(
                self.scene, run.reading.files(), run.exams, run.settings, run.notices
            )
        except ResultError as error:
            run.outcome = WorkerError("bad_result", str(error))
        except Exception as error:  # noqa: BLE001 - whoever polls by a timer must not meet a bug
            run.outcome = _unexpected(error, "The result could not be shown")
        finally:
            self.client.release(run.folder)
        return [Shown(run.outcome) if isinstance(run.outcome, Result) else Failure(run.outcome)]


_WRITING_SECONDS = 0.2  # that a window can stand still for


def _unexpected(error: Exception, what: str) -> WorkerError:
    """An error of a kind that nobody expects; without what it says, which may name a patient."""
    name = type(error).__name__
    message = f"{what} ({name}). Predict again; if it happens again, look at the details."
    places = "".join(traceback.format_tb(error.__traceback__))
    return WorkerError("internal", message, f"{places}{name}")


def as_shown(exams: Sequence[TableExam]) -> list[ShownExam]:
    """Exams as a result knows them."""
    return [ShownExam(exam.exam_id, exam.date, exam.volumes) for exam in exams]


def _let_slicer_work(pause: bool) -> None:
    application = getattr(slicer, "app", None)  # there is none where the scene is used without Slicer
    if application is not None:
        application.processEvents()
    if pause:
        time.sleep(0.02)
