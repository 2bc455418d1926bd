"""The sample patients: what Slicer's module Sample Data gets of them, and what its button and its functions bring."""

from __future__ import annotations

import hashlib
import sys
import types
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import slicer
import slicer.util
from mrml_helpers import hierarchy, load_volume

import HCCNetLib
from HCCNetLib.readers import read_input
from HCCNetLib.records import Refusal
from HCCNetSlicer.exam_table import ExamTable
from HCCNetSlicer.hierarchy import Hierarchy
from HCCNetSlicer.sample_data import SAMPLES, Sample, register_sample_data
from HCCNetSlicer.volumes import PHANTOM_ATTRIBUTE

ICON = Path(__file__).resolve().parents[2] / "HCCNet" / "Resources" / "Icons" / "HCCNet.png"
CHANNELS = ("DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800")
DATES = {
    "GP01": ["2018-03-14", "2018-09-26", "2019-02-07", "2019-07-05"],
    "RA01": ["2021-03-04", "2021-09-07", "2022-04-20", "2023-01-11"],
}
GENERATED, REAL = SAMPLES
LISTS = ("uris", "fileNames", "nodeNames", "checksums", "loadFileTypes")


def patient_of(sample: Sample) -> str:
    return Path(sample.folder).name


both = pytest.mark.parametrize("sample", SAMPLES, ids=patient_of)


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """Registers the samples with a module that has Slicer's own arguments; returns what it got."""
    calls: list[dict[str, Any]] = []

    class SampleDataLogic:
        @staticmethod
        def registerCustomSampleDataSource(  # noqa: N802 - Slicer's name
            category: str = "Custom",
            sampleName: str | None = None,
            uris: Any = None,
            fileNames: Any = None,
            nodeNames: Any = None,
            customDownloader: Any = None,
            thumbnailFileName: Any = None,
            loadFileTypes: Any = None,
            loadFiles: Any = None,
            loadFileProperties: Any = None,
            checksums: Any = None,
            loadFileType: Any = None,
        ) -> None:
            calls.append(dict(locals()))

    module = types.ModuleType("SampleData")
    module.SampleDataLogic = SampleDataLogic  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "SampleData", module)

    def registered() -> list[dict[str, Any]]:
        calls.clear()
        register_sample_data(ICON)
        return list(calls)

    return registered


class Loader:
    """``slicer.util.loadVolume``, with Slicer's reader of volumes; the file ``broken`` can't be read."""

    def __init__(self, scene: Any) -> None:
        self.scene = scene
        self.shown: list[str] = []
        self.broken = ""

    def __call__(self, filename: str, properties: dict[str, Any]) -> Any:
        assert isinstance(filename, str)  # Qt knows no Path
        assert set(properties) == {"name", "show"}
        if self.broken and filename.endswith(self.broken):
            raise RuntimeError(f"Failed to load node from file: {filename}")
        node = load_volume(self.scene, filename, properties["name"])
        if properties["show"]:
            self.shown.append(node.GetName())
        return node


@pytest.fixture
def loader(scene: Any, monkeypatch: pytest.MonkeyPatch) -> Loader:
    loader = Loader(scene)
    monkeypatch.setattr(slicer.util, "loadVolume", loader)
    return loader


def ids(scene: Any) -> set[str]:
    return {scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())}


def assert_complete(table: ExamTable, sample: Sample) -> None:
    """Four exams, each with the four channels of its day."""
    assert [exam.exam_id for exam in table.exams()] == DATES[patient_of(sample)]
    for exam in table.exams():
        assert {channel: node.GetName() for channel, node in exam.volumes.items()} == {
            channel: f"{channel} {exam.exam_id}" for channel in CHANNELS
        }


# ------------------------------------------------------------ what Slicer gets


def test_the_generated_patient_comes_first(register: Callable[[], list[dict[str, Any]]]) -> None:
    sources = register()
    assert [source["category"] for source in sources] == ["HCCNet", "HCCNet"]
    assert [source["sampleName"] for source in sources] == [
        "HCCNet generated patient GP01",
        "HCCNet real anatomy RA01",
    ]
    assert all(Path(source["thumbnailFileName"]).is_file() for source in sources)


def test_slicer_gets_what_it_can_download_check_and_load(
    register: Callable[[], list[dict[str, Any]]], tmp_path: Path
) -> None:
    """As its own downloader does it: from the address, under the file's name, then the checksum."""
    for source in register():
        lists = [source[key] for key in LISTS]
        assert [len(values) for values in lists] == [16] * len(lists)
        for uri, name, _, checksum, file_type in zip(*lists, strict=True):
            assert uri.startswith("file://")
            target = tmp_path / name
            assert not target.exists()
            urllib.request.urlretrieve(uri, target)
            assert checksum == f"SHA256:{hashlib.sha256(target.read_bytes()).hexdigest()}"
            assert file_type == "VolumeFile"  # Slicer would guess: a segmentation
        assert len(set(source["nodeNames"])) == 16


def test_slicer_knows_a_sample_that_is_registered_again(register: Callable[[], list[dict[str, Any]]]) -> None:
    """It compares texts; an address in memory would make the same sample another one after a reload."""
    first, second = register(), register()
    for one, other in zip(first, second, strict=True):
        assert {key: str(value) for key, value in one.items()} == {key: str(value) for key, value in other.items()}
        assert " at 0x" not in str(one["customDownloader"])


def test_slicers_functions_for_scripts_bring_loose_volumes_that_the_table_understands(
    register: Callable[[], list[dict[str, Any]]], scene: Any, loader: Loader
) -> None:
    """These ignore the custom downloader."""
    source = register()[0]
    for uri, name in zip(source["uris"], source["nodeNames"], strict=True):
        loader(urllib.request.url2pathname(uri.removeprefix("file://")), {"name": name, "show": True})
    table = ExamTable(scene, CHANNELS)
    table.fill_from_scene()
    assert_complete(table, GENERATED)


# ------------------------------------------------------------ what the button brings


@both
def test_all_exams_are_ready_with_their_dates(
    sample: Sample, register: Callable[[], list[dict[str, Any]]], scene: Any, loader: Loader
) -> None:
    source = register()[SAMPLES.index(sample)]
    nodes = source["customDownloader"](source)
    assert len(nodes) == 16
    assert {node.GetClassName() for node in nodes} == {"vtkMRMLScalarVolumeNode"}
    tree = hierarchy(scene)
    assert [tree.GetItemName(item) for item in Hierarchy(scene).patients()] == [patient_of(sample)]
    table = ExamTable(scene, CHANNELS)
    table.fill_from_scene()
    assert_complete(table, sample)
    assert table.problems() == []
    assert set(table.statuses([]).values()) == {"ready"}
    assert [row.date_found for row in table.rows] == ["study"] * 4


@both
def test_generated_images_are_marked_and_no_others(sample: Sample, scene: Any, loader: Loader) -> None:
    (patient,) = read_input(Path(HCCNetLib.__file__).parent / sample.folder).patients
    assert sample.is_generated == patient.is_phantom
    assert {node.GetAttribute(PHANTOM_ATTRIBUTE) for node in sample.load()} == {"1" if sample.is_generated else None}


@both
def test_the_latest_exam_is_shown_once(sample: Sample, loader: Loader) -> None:
    sample.load()
    assert loader.shown == [f"DWI_b0 {DATES[patient_of(sample)][-1]}"]


def test_a_saved_scene_will_not_point_into_the_extension(scene: Any, loader: Loader) -> None:
    assert {node.GetStorageNode() for node in GENERATED.load()} == {None}
    assert scene.GetNumberOfNodesByClass("vtkMRMLVolumeArchetypeStorageNode") == 0


def test_a_sample_that_is_loaded_again_is_another_patient(
    scene: Any, loader: Loader, capfd: pytest.CaptureFixture[str]
) -> None:
    GENERATED.load()
    GENERATED.load()
    patients = Hierarchy(scene).patients()
    assert len(patients) == 2
    table = ExamTable(scene, CHANNELS)
    with pytest.raises(Refusal, match="2 patients"):
        table.fill_from_scene()
    for item in patients:
        table.fill_from_patient(item)
        assert_complete(table, GENERATED)
        assert table.problems() == []
    assert capfd.readouterr() == ("", "")


def test_nothing_stays_of_a_sample_that_can_not_be_read(
    scene: Any, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ids(scene)
    loader.broken = str(Path("2019-07-05", "DWI_b150.nii.gz"))
    with pytest.raises(Refusal, match=r"GP01 could not be loaded\. Install the extension HCCNet again\..*DWI_b150"):
        GENERATED.load()
    assert ids(scene) == before
    told: list[str] = []
    monkeypatch.setattr(slicer.util, "errorDisplay", told.append)
    assert GENERATED.on_button(None) == []
    assert "GP01 could not be loaded" in told[0]
    assert ids(scene) == before
