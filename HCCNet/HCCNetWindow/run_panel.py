"""Predict, cancel, progress, and errors in a sentence."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

from HCCNetLib.records import Refusal
from HCCNetSlicer.dependencies import DependencyError
from HCCNetSlicer.prediction import Predictions, Shown
from HCCNetSlicer.worker_client import Failure, Notice, Progress, WorkerError
from HCCNetWindow.helpers import timer

_POLL_MS = 100


class RunPanel:
    """Runs one prediction at a time and keeps the window alive meanwhile.

    Args:
        ui: the window's widgets by name.
        predictions: gives the predictions, with their worker.
        begin: begins a prediction of what is chosen.
        running: told whether one is under way.
        done: called when a result is in the scene.
    """

    def __init__(
        self,
        ui: Any,
        predictions: Callable[[], Predictions],
        begin: Callable[[], None],
        running: Callable[[bool], None],
        done: Callable[[], None],
    ) -> None:
        self._ui, self._predictions, self._begin, self._running, self._done = ui, predictions, begin, running, done
        self._obstacles: Sequence[str] = ()
        self._poll = timer(_POLL_MS, self.look)
        ui.predictButton.connect("clicked()", self.predict)
        ui.cancelButton.connect("clicked()", self.cancel)
        ui.errorDetailsButton.connect("toggled(bool)", self._unfold)
        ui.progressBar.setRange(0, 100)
        self.clear_error()
        self._show_running(False)
        self.say("")

    def set_obstacles(self, obstacles: Sequence[str]) -> None:
        """What must be dealt with before a prediction makes sense, in sentences; none: it can begin."""
        self._obstacles = obstacles
        self._show_button()

    def predict(self) -> None:
        """Begins a prediction; what is missing may be installed first, after asking."""
        self.clear_error()
        try:
            if self._predictions().is_running:  # a script began one on the same worker
                self.tell(_("A prediction is under way. Wait for its end, or cancel it."))
                return
            self._begin()
        except (Refusal, DependencyError, WorkerError) as error:
            self.tell(str(error), getattr(error, "details", ""))
            return
        except Exception as error:  # noqa: BLE001 - a bug must not be silent, nor say a patient's name
            self._tell_bug(error)
            return
        self._show_running(True)
        self.say(_("Handing the exams to the worker…"))
        self._poll.start()

    def cancel(self) -> None:
        """Ends the prediction; an earlier result stays."""
        self._predictions().cancel()
        self._finish(_("Cancelled."))

    def look(self) -> None:
        """Shows what has happened since the last time."""
        try:
            self._look()
            if not self.is_shown_running and self._predictions().is_complete:
                self._poll.stop()
        except Exception as error:  # noqa: BLE001 - as above
            self._predictions().cancel()
            self._finish("")
            self._tell_bug(error)

    def _look(self) -> None:
        events = self._predictions().poll()
        latest = next((event for event in reversed(events) if isinstance(event, Progress)), None)
        for event in events:
            if isinstance(event, Progress):
                if event is latest:  # one at a look: every text that changes lays out the whole panel
                    self._ui.progressBar.setValue(round(100 * event.fraction))
                    self.say(progress_words(event))
            elif isinstance(event, Notice):
                self.say(event.message)
            elif isinstance(event, Failure) and event.of_request:
                self._finish("")
                self.tell(event.error.message, event.error.details)
            elif isinstance(event, Shown):
                self._finish(_("Done."))
                self._done()
        if self.is_shown_running and not self._predictions().is_running:  # the scene was closed, or a script cancelled
            self._finish(_("Cancelled."))

    def stop(self) -> None:
        """Looks at nothing any more."""
        self._poll.stop()

    def say(self, text: str) -> None:
        """Shows where things stand."""
        if text != self._ui.statusLabel.text:
            self._ui.statusLabel.setText(text)
        self._ui.statusLabel.setVisible(bool(text))

    def tell(self, message: str, details: str = "") -> None:
        """Shows an error as a sentence, with details to unfold; an empty one takes an earlier error away."""
        if not message:
            self.clear_error()
            return
        self._ui.errorLabel.setText(message)
        self._ui.errorLabel.setVisible(True)
        self._ui.errorDetailsButton.setChecked(False)
        self._ui.errorDetailsButton.setVisible(bool(details))
        self._ui.errorDetailsText.setPlainText(details)
        self._ui.errorDetailsText.setVisible(False)

    def clear_error(self) -> None:
        """Shows no error."""
        self._ui.errorLabel.setText("")
        for widget in (self._ui.errorLabel, self._ui.errorDetailsButton, self._ui.errorDetailsText):
            widget.setVisible(False)

    def _unfold(self, unfolded: bool) -> None:
        self._ui.errorDetailsText.setVisible(unfolded)
        self._ui.errorDetailsButton.setArrowType(qt.Qt.DownArrow if unfolded else qt.Qt.RightArrow)

    def _tell_bug(self, error: Exception) -> None:
        name = type(error).__name__
        message = _("The module met an error that it does not expect ({name}). The details tell where.").format(
            name=name
        )
        self.tell(message, "".join(traceback.format_tb(error.__traceback__)) + name)

    def _finish(self, text: str) -> None:
        self._show_running(False)
        self.say(text)

    def _show_running(self, running: bool) -> None:
        self.is_shown_running = running
        self._ui.progressBar.setVisible(running)
        self._ui.progressBar.setValue(0)
        self._ui.cancelButton.setEnabled(running)
        self._running(running)
        self._show_button()

    def _show_button(self) -> None:
        self._ui.predictButton.setEnabled(not self._obstacles and not self.is_shown_running)
        if self.is_shown_running:
            tip = _("A prediction is under way.")
        else:
            tip = "\n".join(self._obstacles) or _("Predict the risk from the exams above, as of the latest.")
        self._ui.predictButton.setToolTip(tip)


def progress_words(event: Progress) -> str:
    """Where a prediction stands, e.g. ``explaining, network 3``."""
    parts = [stage_words().get(event.stage, event.stage)]
    if event.exam is not None:
        parts.append(_("exam {number}").format(number=event.exam))
    if event.member is not None:
        parts.append(_("network {number}").format(number=event.member))
    return ", ".join(parts)


def stage_words() -> dict[str, str]:
    """What the worker's stages are called."""
    return {
        "opening bundle": _("Opening the bundle"),
        "reading exams": _("Reading exams"),
        "predicting": _("Predicting"),
        "explaining": _("Explaining"),
        "writing": _("Writing the result"),
    }
