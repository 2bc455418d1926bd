"""Whether a result still belongs to what is in the scene and on the disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import slicer
import vtk

from HCCNetSlicer import fingerprints
from HCCNetSlicer.record import Record, ShownExam


def volume_changes(record: Record) -> Iterator[str]:
    """What has changed in the volumes that the prediction was made from."""
    for index, exam in enumerate(record.exams):
        for channel in exam["channels"]:
            volume, taken = record.volume(index, channel), exam["fingerprints"][channel]
            what = f"{channel} of {exam['date']}"
            if volume is None:
                yield f"{what} was removed from the scene."
                continue
            if fingerprints.has_other_voxels(volume, taken):
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
        text = (Path(bundle["path"]) / "bundle.json").read_bytes()
    except OSError:
        yield "The bundle that made the result can't be found any more."
        return
    if hashlib.sha256(text).hexdigest() != bundle["sha256"]:
        yield "The bundle that made the result has been changed or replaced."


def setting_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Which settings are others now."""
    plain = json.loads(json.dumps(dict(now)))
    other = sorted(name for name in {*then, *plain} if then.get(name) != plain.get(name))
    if other:
        yield f"Other settings are chosen now: {', '.join(other)}."


class Watch:
    """Calls back when volumes of a result are edited, moved or removed.

    Args:
        record: the result's.
        callback: called once or more for an edit.
    """

    def __init__(self, record: Record, callback: Callable[[], None]) -> None:
        self._observed: list[tuple[Any, int]] = []
        watched = {volume.GetID(): volume for volume in record.volumes()}
        events = (
            slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent,
            slicer.vtkMRMLTransformableNode.TransformModifiedEvent,
            vtk.vtkCommand.ModifiedEvent,
        )
        for volume in watched.values():
            self._observed += [(volume, volume.AddObserver(event, lambda *_: callback())) for event in events]

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def removed(scene: Any, event: str, node: Any) -> None:
            if node.GetID() in watched and not scene.IsClosing():
                callback()

        scene = record.scene
        self._observed.append((scene, scene.AddObserver(slicer.vtkMRMLScene.NodeRemovedEvent, removed)))

    def stop(self) -> None:
        """Calls back no more."""
        for observed, tag in self._observed:
            observed.RemoveObserver(tag)
        self._observed = []
