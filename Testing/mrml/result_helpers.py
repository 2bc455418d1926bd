"""Results for tests on real MRML: a small folder as the worker writes it, exams in a scene, and pictures of slices."""

from __future__ import annotations

import datetime
import gc
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import slicer
from mrml_helpers import add_patient, add_study, add_volume
from vtk.util.numpy_support import vtk_to_numpy

from HCCNetSlicer.results import ShownExam

SHAPE = (40, 36, 12)
SPACING = (4.0, 4.0, 8.0)
AFFINE = np.array([[-4.0, 0, 0, 80], [0, -4.0, 0, 70], [0, 0, 8.0, -40], [0, 0, 0, 1]])
CHANNELS = ("DWI_b0", "DWI_b800")
DATES = ("2021-03-04", "2021-09-07", "2022-04-20", "2023-01-11")
VIEW = (350, 270)
NOTICE = "Research software, not a medical device. Not for clinical use."
AT_HORIZON = {
    6.0: {"months": 6.0, "risk": 0.06, "risk_uncalibrated": 0.1, "low": 0.04, "high": 0.09, "average": 0.05},
    12.0: {"months": 12.0, "risk": 0.123, "risk_uncalibrated": 0.2, "low": 0.08, "high": 0.166, "average": 0.1},
    24.0: {"months": 24.0, "risk": 0.21, "risk_uncalibrated": 0.3, "low": 0.13, "high": 0.27, "average": 0.18},
}
REPORT = "<!DOCTYPE html><title>Report</title><p>ä</p>"


@dataclass
class Written:
    """What a result is made of: voxels of maps by (kind, exam), affines by exam, and what goes into prediction.json."""

    dates: Sequence[str] = DATES
    affine: np.ndarray = field(default_factory=AFFINE.copy)
    shape: tuple[int, int, int] = SHAPE
    maps: Mapping[tuple[str, int], np.ndarray] | None = None
    demonstration: bool = False
    calibrated: bool = True
    phantom: bool = False
    horizons: Sequence[float] | None = (6.0, 12.0, 24.0)  # None: as versions wrote it that knew one
    axes: Sequence[Sequence[float]] = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))

    def planned(self) -> Mapping[tuple[str, int], np.ndarray]:
        """The maps: those given, or all kinds for all exams, a spot each, nothing that is change for the first."""
        if self.maps is not None:
            return self.maps
        kinds = ("towards", "against", "more", "less")
        return {
            (k, i): spot(self.shape, (8 + 4 * i, 9 + 5 * n, 6))
            for n, k in enumerate(kinds)
            for i in range(len(self.dates))
            if i or k in ("towards", "against")
        }


def spot(shape: tuple[int, int, int], centre: tuple[int, int, int], value: float = 1.0) -> np.ndarray:
    """A map that falls off from ``value`` at a voxel, to 0.6 of it two voxels away, and is 0.1 of it elsewhere."""
    distance = np.linalg.norm(np.stack(np.indices(shape), axis=-1) - np.array(centre), axis=-1)
    return (value * np.where(distance <= 2, 1 - 0.2 * distance, 0.1)).astype(np.float32)


def write_result(folder: Path, written: Written) -> Path:
    """Writes prediction.json, report.html and the maps."""
    places = {"towards": "saliency", "against": "saliency/against", "more": "saliency/more", "less": "saliency/less"}
    files: dict[tuple[str, int], str] = {}
    for (kind, index), voxels in written.planned().items():
        name = f"{places[kind]}/{written.dates[index]}.nii.gz"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels.astype(np.float32), written.affine), folder / name)
        files[kind, index] = name
    folder.mkdir(parents=True, exist_ok=True)
    content = prediction(written, files)
    (folder / "prediction.json").write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    (folder / "report.html").write_text(REPORT, encoding="utf-8")
    return folder


def prediction(written: Written, files: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    """The content of prediction.json for these files."""
    days = [
        (datetime.date.fromisoformat(written.dates[-1]) - datetime.date.fromisoformat(d)).days for d in written.dates
    ]
    box = {"centre_mm": [10.0, 5.0, 4.0], "size_mm": [60.0, 50.0, 40.0], "axes": [list(a) for a in written.axes]}
    corner = np.array(box["centre_mm"]) - np.array(written.axes).T @ np.array(box["size_mm"]) / 2
    box["origin_mm"] = corner.tolist()
    count = len(written.dates)
    by_horizon = {} if written.horizons is None else {"risk_by_horizon": [AT_HORIZON[m] for m in written.horizons]}
    exams = []
    for index, date in enumerate(written.dates):
        towards, against = files.get(("towards", index)), files.get(("against", index))
        more, less = files.get(("more", index)), files.get(("less", index))
        exams.append(
            {
                "exam_id": f"Doe Jane {date}",
                "date": date,
                "months_before_landmark": days[index] / 30.4375,
                "attention": 1 / count,
                "attention_gradient": None if index == 1 else 0.5,
                "risk_without": None if index == count - 1 else 0.1,
                "saliency": {"all": towards} if towards else None,
                "saliency_against": {"all": against} if against else None,
                "saliency_change": {"more": more, "less": less} if more and less else None,
                "peak": {"mm": [1.0, 2.0, 3.0], "value": 0.8, "members": 2} if towards else None,
                "field": {"box": box, "liver_fraction": None, "filled_fraction": 0.5},
            }
        )
    return {
        "patient_id": "Doe^Jane",
        "phantom": written.phantom,
        "bundle": {
            "name": "test-bundle",
            "version": "2",
            "sha256": "0" * 64,
            "demonstration": written.demonstration,
            "calibrated": written.calibrated,
        },
        "landmark": written.dates[-1],
        "horizon_months": 12.0,
        "risk": 0.123,
        "risk_uncalibrated": 0.2,
        **by_horizon,
        "members": [0.08, 0.166],
        "spread": {"sd": 0.06, "low": 0.08, "high": 0.166},
        "exams": exams,
        "trajectory": [{"as_of": date, "risk": 0.1 + 0.01 * n} for n, date in enumerate(written.dates)],
        "warnings": [],
        "explanation": None,
        "changes": None,
        "software": {"hccnet": "0", "torch": "0"},
        "seconds": {},
        "notice": NOTICE,
    }


def write_bundle(folder: Path, result: Path) -> Path:
    """Writes a bundle.json, and its hash into the result's prediction.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bundle.json").write_text("{}", encoding="utf-8")
    path = result / "prediction.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["bundle"]["sha256"] = hashlib.sha256(b"{}").hexdigest()
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder


def add_exams(
    scene: Any, written: Written, image: np.ndarray | None = None, patient: str = "Doe^Jane"
) -> list[ShownExam]:
    """Adds a patient with a study per exam and a volume per channel; the image (X, Y, Z), or a box in a gray room."""
    if image is None:
        image = body(written.shape)
    item = add_patient(scene, patient)
    exams = []
    for number, date in enumerate(written.dates):
        volumes = {c: add_volume(scene, f"{patient} {c} {date}", image + number, written.affine) for c in CHANNELS}
        add_study(scene, item, date.replace("-", ""), list(volumes.values()))
        exams.append(ShownExam(f"Doe Jane {date}", datetime.date.fromisoformat(date), volumes))
    return exams


def body(shape: tuple[int, int, int]) -> np.ndarray:
    """An image with values 100-227: brighter along the first axis."""
    ramp = np.linspace(0, 127, shape[0])[:, None, None]
    return (100 + np.broadcast_to(ramp, shape)).astype(np.int16)


class View:
    """A slice view without a window."""

    def __init__(self, scene: Any, name: str = "Red") -> None:
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLScene(scene)
        self.logic.AddSliceNode(name)
        self.composite, self.node = self.logic.GetSliceCompositeNode(), self.logic.GetSliceNode()

    def picture(self, orientation: str, through: Sequence[float]) -> np.ndarray:
        """RGB (rows from the top, columns, 3) of the slice through a point in RAS."""
        getattr(self.node, f"SetOrientationTo{orientation}")()
        self.node.SetDimensions(*VIEW, 1)
        self.logic.FitSliceToBackground(*VIEW)
        self.node.JumpSliceByOffsetting(*through)
        self.logic.UpdatePipeline()
        blend = self.logic.GetBlend()
        blend.Update()
        image = blend.GetOutput()
        width, height, _ = image.GetDimensions()
        pixels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)
        return pixels[::-1, :, :3].astype(int)

    def pixel(self, point: Sequence[float]) -> np.ndarray:
        """Column and row (from the top) of a point in RAS."""
        to_ras = slicer.vtkMRMLSliceNode.GetXYToRAS(self.node)
        to_xy = type(to_ras)()
        to_xy.DeepCopy(to_ras)
        to_xy.Invert()
        x, y = to_xy.MultiplyPoint((*point, 1.0))[:2]
        return np.array([x, VIEW[1] - 1 - y])


def coloured(picture: np.ndarray) -> np.ndarray:
    """Where a picture is not gray (rows, columns)."""
    return picture.max(axis=-1) - picture.min(axis=-1) > 12


def centre(mask: np.ndarray) -> np.ndarray:
    """Column and row of the middle of what is marked."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean(), rows.mean()])


def save(scene: Any, folder: Path) -> Path:
    """Saves a scene as Slicer does: every storable node into a file of its own, then the scene; returns its file."""
    folder.mkdir()
    scene.SetURL(str(folder / "scene.mrml"))
    scene.SetRootDirectory(str(folder))
    storable = [node for node in scene.GetNodes() if node.IsA("vtkMRMLStorableNode") and node.GetSaveWithScene()]
    for number, node in enumerate(storable):
        node.AddDefaultStorageNode()
        storage = node.GetStorageNode()
        if storage is not None:
            storage.SetFileName(str(folder / f"{number}.{storage.GetDefaultWriteFileExtension()}"))
            assert storage.WriteData(node)
    assert scene.Commit()
    return folder / "scene.mrml"


def memory() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE")
