"""The sample patients in Slicer's module Sample Data, from the library's own files: no network and no package is needed."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import slicer
import slicer.util

from HCCNetLib.records import Refusal
from HCCNetSlicer.folders import add_to_hierarchy, all_or_nothing
from HCCNetSlicer.volumes import PHANTOM_ATTRIBUTE

CATEGORY = "HCCNet"


@dataclass(frozen=True)
class Sample:
    """A patient that comes with the library.

    Args:
        name: on the button, and in ``SampleData.downloadSample(name)``.
        folder: of the patient, below the library's.
        is_generated: whether the images are generated, so that the result of the demonstration networks has a meaning.
    """

    name: str
    folder: str
    is_generated: bool

    def files(self) -> list[Path]:
        """The images, by date and channel."""
        import HCCNetLib

        return sorted((Path(HCCNetLib.__file__).resolve().parent / self.folder).glob("*/*.nii.gz"))

    def load(self) -> list[Any]:
        """Loads the patient into Slicer's scene and shows the first channel of the latest exam; returns the volumes.

        Raises:
            Refusal: a file can't be read; then nothing is left in the scene.
        """
        by_exam = {exam: list(files) for exam, files in groupby(self.files(), lambda file: file.parent)}
        shown = by_exam[max(by_exam)][0]
        with all_or_nothing(slicer.mrmlScene):
            volumes = {exam: [self._volume(file, file == shown) for file in files] for exam, files in by_exam.items()}
        exams = [(e.name, datetime.date.fromisoformat(e.name), nodes) for e, nodes in volumes.items()]
        add_to_hierarchy(slicer.mrmlScene, Path(self.folder).name, exams)
        return [node for nodes in volumes.values() for node in nodes]

    def on_button(self, source: Any) -> list[Any]:
        """What Slicer calls when the button is pressed; an error is shown, since nothing catches it there."""
        try:
            return self.load()
        except Refusal as refusal:
            slicer.util.errorDisplay(refusal.message)
            return []

    def _volume(self, file: Path, show: bool) -> Any:
        name = _volume_name(file)
        try:
            # Never by a reader that Slicer guesses: it takes .nii.gz for a segmentation.
            node = slicer.util.loadVolume(str(file), {"name": name, "show": show})
        except RuntimeError as error:
            message = f"{self.name} could not be loaded. Install the extension HCCNet again. Slicer says: {error}"
            raise Refusal("unreadable_sample", message) from error
        node.SetName(name)  # Slicer adds a number where there is one of this name
        if self.is_generated:
            node.SetAttribute(PHANTOM_ATTRIBUTE, "1")
        # As Slicer does with its own samples: a saved scene then holds the images and does not point into the extension.
        slicer.mrmlScene.RemoveNode(node.GetStorageNode())
        node.SetAndObserveStorageNodeID(None)
        return node


# The first is the one that a new user should meet first.
SAMPLES = (
    Sample("HCCNet generated patient GP01", "samples_generated/GP01", is_generated=True),
    Sample("HCCNet real anatomy RA01", "samples/RA01", is_generated=False),
)


def register_sample_data(icon: Path) -> None:
    """Offers the sample patients in the module Sample Data; a second call changes nothing.

    To be called when the application has started: before, the module Sample Data may not be there yet.

    Args:
        icon: a picture for the buttons.
    """
    for sample in SAMPLES:
        _register(sample, icon)


def _register(sample: Sample, icon: Path) -> None:
    """The button calls ``on_button``; Slicer's functions for scripts know only addresses and load loose volumes."""
    import SampleData

    files = sample.files()
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=sample.name,
        # Slicer takes addresses alone, also of files; and it copies them into its cache, where all names must differ.
        uris=[file.as_uri() for file in files],
        fileNames=[f"HCCNet-{file.parents[1].name}-{file.parent.name}-{file.name}" for file in files],
        nodeNames=[_volume_name(file) for file in files],
        # Without them Slicer would go on showing what an earlier version of the extension put into its cache.
        checksums=[f"SHA256:{hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files],
        loadFileTypes=["VolumeFile"] * len(files),
        # Its text has no address in memory, so that Slicer knows a sample that it has already.
        customDownloader=sample.on_button,
        thumbnailFileName=str(icon),
    )


def _volume_name(file: Path) -> str:
    """Channel and date: the exam table finds both in it."""
    return f"{file.name.removesuffix('.nii.gz')} {file.parent.name}"
