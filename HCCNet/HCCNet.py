"""The Slicer module HCCNet: the risk of future hepatocellular carcinoma from a time series of liver MRI exams.

Research software, not a medical device. The networks run in a process of their own; nothing here needs torch.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)


def _library_root() -> Path:
    """The folder that holds ``HCCNetLib``: this file's where installed, the one above in a source tree."""
    here = Path(__file__).resolve().parent
    for folder in (here, here.parent):
        if (folder / "HCCNetLib" / "records.py").is_file():
            return folder
    raise ImportError("The library HCCNetLib is not where the module HCCNet is. Install the extension again.")


if str(_library_root()) not in sys.path:
    sys.path.insert(0, str(_library_root()))

from HCCNetSlicer.bundle_card import BundleCard, read_card  # noqa: E402
from HCCNetSlicer.dependencies import ensure  # noqa: E402
from HCCNetSlicer.exam_table import ExamTable, TableExam  # noqa: E402
from HCCNetSlicer.folders import load_folder  # noqa: E402
from HCCNetSlicer.prediction import Predictions, Settings  # noqa: E402
from HCCNetSlicer.results import Result  # noqa: E402
from HCCNetSlicer.worker_client import WorkerClient, default_command  # noqa: E402

Exams = ExamTable | Sequence[TableExam] | Mapping[datetime.date | str, Mapping[str, Any]]


class HCCNet(ScriptedLoadableModule):
    """What Slicer shows of the module."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "HCCNet"
        parent.categories = ["Quantification"]
        parent.dependencies = []
        parent.contributors = ["The HCCNet developers"]
        parent.helpText = _(
            "Risk of future hepatocellular carcinoma from a patient's time series of liver MRI exams. Research software, not "
            "a medical device; not for clinical use."
        )
        parent.acknowledgementText = _(
            "After the method of Nolte et al., A CNN-Transformer for Classification of Longitudinal 3D MRI Images, "
            "arXiv 2501.10733. The demonstration networks have learned from generated images and know nothing of patients."
        )


class HCCNetWidget(ScriptedLoadableModuleWidget):
    """The module's panel: for now it says how to predict from the Python console."""

    def setup(self) -> None:
        """Builds the panel."""
        import qt

        ScriptedLoadableModuleWidget.setup(self)
        text = qt.QLabel(
            _(
                "Research software, not a medical device; not for clinical use.\n\nThe window is not here yet. In the Python "
                "console:\n\nlogic = slicer.util.getModuleLogic('HCCNet')\ntable = logic.load_folder(FOLDER)\n"
                "print(logic.predict(table).sentence())"
            )
        )
        text.wordWrap = True
        text.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
        self.layout.addWidget(text)
        self.layout.addStretch(1)


class HCCNetLogic(ScriptedLoadableModuleLogic):
    """All that the module does, for scripts and the console too.

    Example:
        >>> logic = HCCNetLogic()
        >>> table = logic.load_folder("/data/patient")  # or logic.table_from_scene()
        >>> print(logic.predict(table).sentence())
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self._predictions: Predictions | None = None

    @property
    def predictions(self) -> Predictions:
        """The predictions with their worker, of which there is one; it starts with the first."""
        if self._predictions is None:
            self._predictions = Predictions(slicer.mrmlScene, _make_client())
        return self._predictions

    def card(self, bundle: str | Path | None = None) -> BundleCard:
        """What a bundle says of itself; the demonstration bundle where None. Raises Refusal."""
        return read_card(None if bundle is None else Path(bundle))

    def table_from_scene(self, bundle: str | Path | None = None) -> ExamTable:
        """The exams of the scene's only patient, for a bundle's channels.

        Raises:
            Refusal: no volume, several patients, or no bundle.
        """
        table = self._table(bundle)
        table.fill_from_scene()
        return table

    def load_folder(self, folder: str | Path, bundle: str | Path | None = None) -> ExamTable:
        """Loads a patient's dated folders into the scene; the table of the exams.

        Raises:
            Refusal: it can't be read.
            DependencyError: what reads images is not installed.
        """
        table = self._table(bundle)
        if (
            find_spec("nibabel") is None
        ):  # which reads the images; what else is missing is asked for with the prediction
            ensure()
        loaded = load_folder(slicer.mrmlScene, Path(folder))
        table.fill_from_patient(loaded.item)
        for key, liver in loaded.livers.items():
            table.set_liver(key, liver)
        return table

    def predict(
        self,
        exams: Exams,
        bundle: str | Path | None = None,
        settings: Settings | None = None,
        on_event: Callable[[Any], None] | None = None,
    ) -> Result:
        """Predicts, and shows the result in the scene in place of an earlier one.

        Args:
            exams: a table; or date (``2021-03-14``) → channel → volume node.
            bundle: its folder; the demonstration bundle where None.
            settings: how; its own bundle is passed over.
            on_event: is given every event, progress for example, as it comes.

        Returns:
            The result; ``result.sentence()`` says it in words.

        Raises:
            Refusal: the exams can't be used.
            DependencyError: a package is missing and was not installed.
            WorkerError: the prediction failed.
        """
        self.begin(exams, bundle, settings)
        return self.predictions.wait(on_event)

    def begin(self, exams: Exams, bundle: str | Path | None = None, settings: Settings | None = None) -> None:
        """Begins what ``predict`` does, without waiting: ``predictions.poll()`` tells what becomes of it."""
        settings = settings or Settings()
        card = self.card(bundle)
        chosen = _as_exams(exams, card, settings)
        ensure()
        path = None if bundle is None else card.path.absolute()
        one_space = settings.one_space or (isinstance(exams, ExamTable) and exams.state.one_space)
        self.predictions.begin(chosen, Settings(path, settings.explain, settings.method, settings.device, one_space))

    def result(self) -> Result | None:
        """The result that the scene shows, also one that was saved and opened again."""
        return Result.find(slicer.mrmlScene)

    def remove_result(self) -> None:
        """Removes everything that shows a result; the exams stay."""
        result = self.result()
        if result is not None:
            result.remove()

    def close(self) -> None:
        """Ends the worker; the next prediction starts another."""
        if self._predictions is not None:
            self._predictions.close()
            self._predictions = None

    def _table(self, bundle: str | Path | None) -> ExamTable:
        card = self.card(bundle)
        table = ExamTable(slicer.mrmlScene)
        table.set_channels(card.channels, card.missing_channels)
        return table


def _as_exams(exams: Exams, card: BundleCard, settings: Settings) -> Sequence[TableExam]:
    """Exams in any form, checked by the rules of the table."""
    if isinstance(exams, Mapping):
        table = ExamTable(slicer.mrmlScene)
        table.set_channels(card.channels, card.missing_channels)
        table.set_one_space(settings.one_space)
        for date, volumes in exams.items():
            key = table.add_row(date if isinstance(date, datetime.date) else datetime.date.fromisoformat(date))
            for channel, node in volumes.items():
                table.set_cell(key, channel, node)
        return table.exams()
    if isinstance(exams, ExamTable):
        exams.set_channels(card.channels, card.missing_channels)
        return exams.exams()
    return exams


def _make_client() -> WorkerClient:
    application = getattr(slicer, "app", None)
    temporary = Path(application.temporaryPath) if application is not None else None
    command, environment = default_command(_library_root())
    return WorkerClient(command, environment, scratch_root=temporary)


class HCCNetTest(ScriptedLoadableModuleTest):
    """The module in a running Slicer, on its own sample patient; run by Slicer's test runner."""

    def setUp(self) -> None:
        """Begins with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:  # noqa: N802 - Slicer's name
        """Runs all tests."""
        self.setUp()
        self.test_sample_patient()

    def test_sample_patient(self) -> None:
        """Folder → table → worker → nodes → nothing left."""
        logic = HCCNetLogic()
        try:
            table = logic.load_folder(_library_root() / "HCCNetLib" / "samples" / "RA01")
            nodes = slicer.mrmlScene.GetNumberOfNodes()
            result = logic.predict(table)
            self.assertEqual(len(result.prediction["exams"]), 4)
            self.assertIn("no meaning for this patient", result.sentence())
            self.assertEqual(result.stale_reasons(), [])
            logic.remove_result()
            self.assertIsNone(logic.result())
            self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes)
        finally:
            logic.close()
