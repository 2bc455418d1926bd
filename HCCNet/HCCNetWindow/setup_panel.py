"""Advanced: device and method, temporary files, the worker, and whether all that is needed is there."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from HCCNetSlicer.dependencies import check, offline_instructions
from HCCNetSlicer.worker_client import FOLDER_PREFIX, WorkerError
from HCCNetWindow.helpers import choose
from HCCNetWindow.parameters import DEVICES, EXPLANATIONS, METHODS

# What to explain and how, in one list for the user: maps by a method, attention alone, nothing.
CHOICES = (*(("saliency", method) for method in METHODS), *((explain, METHODS[0]) for explain in EXPLANATIONS[1:]))

_DAY_SECONDS = 86_400


class SetupPanel:
    """Shows and takes what is seldom changed.

    Args:
        ui: the window's widgets by name.
        changed: called when device or method are chosen.
        temporary: where folders for requests are made.
        worker_versions: the packages of the worker; empty while it is not running. Raises WorkerError where it can't run.
        end_worker: ends the worker.
    """

    def __init__(
        self,
        ui: Any,
        changed: Callable[[], None],
        temporary: Path,
        worker_versions: Callable[[], dict[str, str]],
        end_worker: Callable[[], None],
    ) -> None:
        self._ui, self._temporary, self._versions, self._end_worker = ui, temporary, worker_versions, end_worker
        ui.deviceComboBox.connect("activated(int)", lambda index: changed())
        ui.methodComboBox.connect("activated(int)", lambda index: changed())
        ui.clearTemporaryButton.connect("clicked()", self.clear_temporary)
        ui.endWorkerButton.connect("clicked()", self.end_worker)
        ui.setupButton.connect("clicked()", self.check)
        self.choose(DEVICES[0], EXPLANATIONS[0], METHODS[0])
        self.show_temporary()

    @property
    def device(self) -> str:
        """Of ``DEVICES``."""
        return DEVICES[self._ui.deviceComboBox.currentIndex]

    @property
    def explain(self) -> str:
        """Of ``EXPLANATIONS``."""
        return CHOICES[self._ui.methodComboBox.currentIndex][0]

    @property
    def method(self) -> str:
        """Of ``METHODS``."""
        return CHOICES[self._ui.methodComboBox.currentIndex][1]

    def set_running(self, running: bool) -> None:
        """While a prediction is under way its worker is ended by Cancel alone."""
        self._ui.endWorkerButton.setEnabled(not running)

    def choose(self, device: str, explain: str, method: str) -> None:
        """Shows what is chosen; what nobody knows is shown as the default."""
        choose(self._ui.deviceComboBox, device_words(), DEVICES.index(device) if device in DEVICES else 0)
        wanted = (explain, method if explain == "saliency" else METHODS[0])
        choose(self._ui.methodComboBox, method_words(), CHOICES.index(wanted) if wanted in CHOICES else 0)

    def show_temporary(self) -> None:
        """Shows how much predictions have left that broke off, by a power cut say."""
        size = sum(_size(folder) for folder in self._left_over())
        self._ui.temporaryLabel.setText(_("{size:.1f} MB left over").format(size=size / 1e6))
        self._ui.clearTemporaryButton.setEnabled(size > 0)

    def clear_temporary(self) -> None:
        """Removes what predictions that broke off have left."""
        for folder in self._left_over():
            shutil.rmtree(folder, ignore_errors=True)
        self.show_temporary()

    def end_worker(self) -> None:
        """Ends the worker, which frees its memory; the next prediction starts another."""
        self._end_worker()

    def check(self) -> None:
        """Shows versions, memory and disk, and what is missing with what will be done about it."""
        self._ui.setupText.setPlainText("\n".join(self._lines()))
        self.show_temporary()

    def _left_over(self) -> list[Path]:
        """Folders that are a day old; a younger one may be another Slicer's, which is predicting."""
        folders = [path for path in self._temporary.glob(f"{FOLDER_PREFIX}*") if path.is_dir()]
        return [path for path in folders if time.time() - path.stat().st_mtime > _DAY_SECONDS]

    def _lines(self) -> list[str]:
        setup = check()
        lines = [f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
        for package in setup.packages:
            state = _("ok") if package.ok else package.problem or ""
            lines.append(f"{package.name} {package.installed or '–'} ({package.requirement}): {state}")
        free = shutil.disk_usage(self._temporary).free / 1e9
        lines.append(_("Free space for temporary files: {size:.1f} GB").format(size=free))
        try:
            versions = self._versions()
        except WorkerError as error:
            return [*lines, error.message]
        told = ", ".join(f"{name} {version}" for name, version in versions.items()) or _("not running")
        lines.append(_("Worker: {versions}").format(versions=told))
        if setup.ok:
            lines.append(_("All that a prediction needs is there."))
        else:
            lines += ["", *setup.find_obstacles(), *setup.what_will_be_asked(), "", offline_instructions()]
        return lines


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def device_words() -> list[str]:
    """What the devices are called, in the order of ``DEVICES``."""
    return [_("GPU where there is one"), _("Processor"), _("GPU")]


def method_words() -> list[str]:
    """What the choices of an explanation are called, in the order of ``CHOICES``."""
    return [
        _("Maps: integrated activation"),
        *(_("Maps: class activation, stage {n}").format(n=n) for n in range(1, 5)),
        _("Maps: integrated gradients (takes long)"),
        _("Maps: occlusion (takes long)"),
        _("Attention over exams only"),
        _("Nothing"),
    ]
