"""Which bundle predicts: its card, others to add, and whether its files are whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from HCCNetLib.records import Refusal
from HCCNetSlicer.bundle_card import BundleCard, read_card
from HCCNetSlicer.processes import ProcessTree
from HCCNetSlicer.worker_client import WorkerError
from HCCNetWindow.helpers import choose, timer

_SETTING = "HCCNet/Bundles"


class ModelPanel:
    """Shows the bundles that are known on this computer.

    Args:
        ui: the window's widgets by name.
        changed: called when another bundle is chosen.
        tell: shows a sentence as an error.
        verification: a bundle's folder → command and environment that verify it.
    """

    def __init__(
        self,
        ui: Any,
        changed: Callable[[], None],
        tell: Callable[[str], None],
        verification: Callable[[Path], tuple[list[str], dict[str, str]]],
    ) -> None:
        self._ui, self._changed, self._tell, self._verification = ui, changed, tell, verification
        self._process: ProcessTree | None = None
        self._poll = timer(100, self.look_at_verification)
        self._path = ""
        self._of_scene: list[str] = []  # bundles that a scene named: kept for this session, not on this computer
        self.card: BundleCard | None = None
        ui.bundleComboBox.connect("activated(int)", self._activated)
        ui.addBundleButton.connect("clicked()", self.ask_for_bundle)
        ui.verifyBundleButton.connect("clicked()", self.verify)

    @property
    def path(self) -> str:
        """The chosen bundle's folder; empty: the demonstration bundle."""
        return self._path

    def choose(self, path: str) -> None:
        """Chooses a bundle, also one that this computer does not know yet: a saved scene may name it."""
        self._stop_verification()
        if path and path not in self._listed():
            self._of_scene.append(path)
        self._path = path
        self._show()

    def ask_for_bundle(self) -> None:
        """Lets the user add a bundle's folder."""
        path = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("A bundle: the folder with bundle.json"))
        if not path:
            return
        try:
            read_card(Path(path))
        except Refusal as refusal:
            self._tell(refusal.message)
            return
        self._tell("")
        if path not in _known():
            _remember([*_known(), path])
        self.choose(path)
        self._changed()

    def verify(self) -> None:
        """Begins to compare every file of the bundle with its hash, in a process of its own."""
        if self._process is not None or self.card is None:
            return
        try:
            self._process = ProcessTree(*self._verification(self.card.path))
        except WorkerError as error:
            self._tell(error.message)
            return
        except OSError as error:
            self._tell(_("The bundle can't be verified: {reason}.").format(reason=error.strerror))
            return
        self._ui.verifyBundleButton.setEnabled(False)
        self._ui.cardLabel.setText(_("Verifying…"))
        self._poll.start()

    def look_at_verification(self) -> None:
        """Shows what came of it, once it is over."""
        if self._process is None or self._process.status is None:
            return
        self._process.kill()
        if not self._process.has_said_all:
            return
        is_whole, said = self._process.status == 0, self._process.tail.strip().split("\n")[-1]
        self._stop_verification()
        self._show()
        if is_whole:
            self._ui.cardLabel.setText(f"{self._ui.cardLabel.text}\n{_('Verified: every file is whole.')}")
        else:
            self._tell(said.removeprefix("hccnet: ") or _("The bundle could not be verified. Try again."))

    def stop(self) -> None:
        """Ends what is under way."""
        self._stop_verification()

    def _stop_verification(self) -> None:
        """Ends it: what it would say is about the bundle that was chosen when it began."""
        self._poll.stop()
        if self._process is not None:
            self._process.kill()
        self._process = None
        self._ui.verifyBundleButton.setEnabled(True)

    def _activated(self, index: int) -> None:
        self._tell("")
        self.choose(["", *self._listed()][index])
        self._changed()

    def _listed(self) -> list[str]:
        """The bundles to choose from besides the demonstration's, the chosen one among them whatever the settings say."""
        return list(dict.fromkeys([*_known(), *self._of_scene, *([self._path] if self._path else [])]))

    def _show(self) -> None:
        known = self._listed()
        texts = [_("Demonstration (phantom)"), *_names(known)]
        choose(self._ui.bundleComboBox, texts, ["", *known].index(self._path))
        self._ui.bundleComboBox.setToolTip(self._path or _("The networks that come with the module."))
        try:
            self.card = read_card(Path(self._path) if self._path else None)
        except Refusal as refusal:
            self.card = None
            self._ui.cardLabel.setText(refusal.message)
            return
        self._ui.cardLabel.setText(card_words(self.card))


def card_words(card: BundleCard) -> str:
    """What the user should know of a bundle before it predicts."""
    lines = [
        _("{name} {version}, {members} networks").format(name=card.name, version=card.version, members=card.members),
        _("Channels: {channels}").format(channels=", ".join(card.channels)),
        _horizon_words(card),
        card.intended_use,
    ]
    if card.demonstration:
        lines.insert(0, _("Demonstration: a result has no meaning for a patient."))
    return "\n".join(lines)


def _horizon_words(card: BundleCard) -> str:
    if len(card.horizons_months) == 1:
        return _("Horizon: {months:g} months").format(months=card.horizon_months)
    horizons = ", ".join(f"{months:g}" for months in card.horizons_months)
    return _("Horizons: {horizons} months; main: {months:g} months").format(
        horizons=horizons, months=card.horizon_months
    )


def _names(paths: list[str]) -> list[str]:
    """Folders' names, with their parents' where two are called alike."""
    names = [Path(path).name for path in paths]
    return [
        f"{name} ({Path(path).parent.name})" if names.count(name) > 1 else name
        for name, path in zip(names, paths, strict=True)
    ]


def _known() -> list[str]:
    """Bundles that were added on this computer; Qt gives a lone one as text and several as a tuple."""
    value = qt.QSettings().value(_SETTING, [])
    values = [value] if isinstance(value, str) else list(value or [])
    return [path for path in values if path]


def _remember(paths: list[str]) -> None:
    qt.QSettings().setValue(_SETTING, paths)
