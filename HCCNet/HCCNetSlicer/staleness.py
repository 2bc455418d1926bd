"""Whether a result still belongs to what is in the scene and on the disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import slicer
import vtk

from HCCNetSlicer import fingerprints, layers
from HCCNetSlicer.bundle_card import DEMONSTRATION
from HCCNetSlicer.observing import Observers
from HCCNetSlicer.record import Record, ShownExam

_SETTINGS = {
    "bundle": "the bundle",
    "explain": "the explanation",
    "method": "the explanation",
    "one_space": "whether channels share one patient space",
    "livers": "the liver of an exam",
}


def kept_path(bundle: Any) -> str:
    """A bundle's folder as a scene keeps it; empty for the demonstration bundle, which another computer has elsewhere."""
    return "" if not bundle or Path(bundle) == DEMONSTRATION else str(bundle)


def volume_changes(record: Record, quick: bool = False) -> Iterator[str]:
    """What has changed in the volumes that the prediction was made from; ``quick`` as in ``has_other_voxels``."""
    for index, exam in enumerate(record.exams):
        for channel in exam["channels"]:
            volume, taken = record.volume(index, channel), exam["fingerprints"][channel]
            what = f"{channel} of {exam['date']}"
            if volume is None:
                yield f"{what} was removed from the scene."
                continue
            if fingerprints.has_other_voxels(volume, taken, quick):
                yield f"The voxels of {what} have changed."
            if fingerprints.has_moved(volume, taken):
                yield f"{what} has been moved: its geometry or its transform changed."


def exam_changes(record: Record, exams: Sequence[ShownExam]) -> Iterator[str]:
    """Whether other exams, dates or volumes are chosen now."""
    now = sorted(exams, key=lambda exam: exam.date)
    then = [(exam["date"], exam["channels"]) for exam in record.exams]
    if [(exam.date.isoformat(), list(exam.volumes)) for exam in now] != then:
        yield "Other exams, dates or channels are chosen now."
        return
    for index, exam in enumerate(now):
        for channel, volume in exam.volumes.items():
            # A volume that was removed is told of by itself.
            if record.volume(index, channel) not in (None, volume):
                yield f"Another volume is chosen now for {channel} of {exam.date}."


def bundle_changes(bundle: Mapping[str, Any]) -> Iterator[str]:
    """Whether the bundle's description is still the one that the prediction names."""
    try:
        text = (Path(bundle["path"] or DEMONSTRATION) / "bundle.json").read_bytes()
    except OSError:
        yield "The bundle that made the result can't be found any more."
        return
    if hashlib.sha256(text).hexdigest() != bundle["sha256"]:
        yield "The bundle that made the result has been changed or replaced."


def setting_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Which settings are others now; a setting that is absent is an empty one."""
    plain = json.loads(json.dumps({**now, "bundle": kept_path(now.get("bundle"))}))
    names = [*_SETTINGS, *sorted({*then, *plain} - {*_SETTINGS})]
    other = [name for name in names if (then.get(name) or None) != (plain.get(name) or None)]
    if other:
        words = dict.fromkeys(_SETTINGS.get(name, "another setting") for name in other)
        yield f"Chosen differently now: {', '.join(words)}."


class Watch:
    """Calls back when volumes of a result are edited, moved or removed; ends when the result is, and calls of that too.

    Where the map that is shown is deleted, the legend hides: Slicer would leave it.

    Args:
        record: the result's.
        callback: called once or more for an edit.
    """

    def __init__(self, record: Record, callback: Callable[[], None]) -> None:
        self._observers = Observers()
        watched = {volume.GetID(): volume for volume in record.volumes()}
        events = (
            slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent,
            slicer.vtkMRMLTransformableNode.TransformModifiedEvent,
            vtk.vtkCommand.ModifiedEvent,
        )
        for volume in watched.values():
            for event in events:
                self._observers.add(volume, event, lambda *_: callback())

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def removed(scene: Any, event: str, node: Any) -> None:
            is_end = node is record.node
            if is_end:
                self.stop()
            if scene.IsClosing():
                return
            if is_end or node.GetID() in watched:
                callback()
            else:
                layers.hide_lone_legend(record)

        self._observers.add(record.scene, slicer.vtkMRMLScene.NodeRemovedEvent, removed)

    def stop(self) -> None:
        """Calls back no more."""
        self._observers.clear()
