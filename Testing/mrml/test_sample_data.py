"""The sample patient as Slicer's module Sample Data is told of it, and what becomes of it there."""

from __future__ import annotations

import hashlib
import sys
import types
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from mrml_helpers import add_file

from HCCNetSlicer.exam_table import ExamTable
from HCCNetSlicer.hierarchy import date_in_names
from HCCNetSlicer.sample_data import register_sample_data

ICON = Path(__file__).resolve().parents[2] / "HCCNet" / "Resources" / "Icons" / "HCCNet.png"
DATES = ["2021-03-04", "2021-09-07", "2022-04-20", "2023-01-11"]
CHANNELS = ("DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800")


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What was registered, by a module with Slicer's own arguments."""
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
    register_sample_data(ICON)
    (call,) = calls
    return call


def test_slicer_gets_what_it_can_download_and_check(source: dict[str, Any], tmp_path: Path) -> None:
    """As its own downloader does it: from the address, under the file's name, then the checksum."""
    lists = [source[key] for key in ("uris", "fileNames", "nodeNames", "checksums")]
    assert {len(values) for values in lists} == {16}
    for uri, name, _, checksum in zip(*lists, strict=True):
        assert uri.startswith("file://")
        target = tmp_path / name
        assert not target.exists()
        urllib.request.urlretrieve(uri, target)
        assert checksum == f"SHA256:{hashlib.sha256(target.read_bytes()).hexdigest()}"
    assert len(set(source["nodeNames"])) == 16


def test_it_has_a_category_a_name_and_a_picture(source: dict[str, Any]) -> None:
    assert source["category"] == "HCCNet"
    assert "sample patient" in source["sampleName"]
    assert Path(source["thumbnailFileName"]).is_file()


def test_the_exam_table_finds_four_complete_exams_in_the_loaded_volumes(
    scene: Any, source: dict[str, Any], tmp_path: Path
) -> None:
    for uri, name, node_name in zip(source["uris"], source["fileNames"], source["nodeNames"], strict=True):
        file, _ = urllib.request.urlretrieve(uri, tmp_path / name)
        node = add_file(scene, Path(file), node_name)
        date = date_in_names(node)
        assert date is not None
        assert date.isoformat() in node_name
    table = ExamTable(scene, CHANNELS)
    table.fill_from_scene()
    assert [exam.exam_id for exam in table.exams()] == DATES
    for exam in table.exams():
        assert {channel: node.GetName() for channel, node in exam.volumes.items()} == {
            channel: f"{channel} {exam.exam_id}" for channel in CHANNELS
        }
    assert [problem.message for problem in table.problems() if problem.blocks] == []
