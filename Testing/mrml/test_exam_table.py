"""Volumes in a real scene become a table of exams; what is wrong is said as a person would read it."""

from __future__ import annotations

import csv
import datetime
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import slicer
from mrml_helpers import add_patient, add_study, add_volume, hierarchy, matrix

from HCCNetLib.readers import read_input
from HCCNetLib.records import Refusal
from HCCNetSlicer.exam_table import ExamTable
from HCCNetSlicer.folders import load_folder
from HCCNetSlicer.handover import TABLE_FILE, hand_over
from HCCNetSlicer.hierarchy import RESULT_ATTRIBUTE
from HCCNetSlicer.table_storage import is_stored, restore_table, store_table
from HCCNetSlicer.volumes import own_affine

DWI = ("DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800")
AFFINE = np.diag([-3.0, -3.0, 4.0, 1.0])
DICOM = Path(__file__).resolve().parents[1] / "data" / "dicom" / "prostatex-dwi"
SAMPLES = Path(__file__).resolve().parents[2] / "HCCNetLib" / "samples"


def volume(scene: Any, name: str, seed: int = 0, affine: np.ndarray = AFFINE) -> Any:
    data = np.random.default_rng(seed).integers(0, 500, (6, 5, 4)).astype(np.int16)
    return add_volume(scene, name, data, affine)


def dwi(scene: Any, suffix: str = "", channels: Sequence[str] = DWI) -> list[Any]:
    return [volume(scene, f"{channel}{suffix}", number) for number, channel in enumerate(channels)]


@pytest.fixture
def patient(scene: Any) -> int:
    """A patient with two complete exams, the later one first in the hierarchy."""
    item = add_patient(scene)
    for date in ("20210907", "20210304"):
        add_study(scene, item, date, dwi(scene))
    return item


@pytest.fixture
def table(scene: Any, patient: int) -> ExamTable:
    table = ExamTable(scene)
    table.fill_from_patient(patient)
    return table


def messages(table: ExamTable) -> list[str]:
    return [problem.message for problem in table.problems()]


def write_exams(table: ExamTable, folder: Path) -> Path:
    """All steps of handing exams over; the table's path."""
    list(hand_over(table.exams(), folder, {}))
    return folder / TABLE_FILE


def status(table: ExamTable, row: int) -> str:
    return table.statuses(table.problems())[table.rows[row].key]


def names(table: ExamTable, row: int) -> dict[str, str | None]:
    return {channel: cell.node and cell.node.GetName() for channel, cell in table.rows[row].cells.items()}


# ---------------------------------------------------------------- filling


def test_a_hierarchy_with_dates_becomes_rows_in_the_order_of_their_dates(table: ExamTable) -> None:
    assert [row.date.isoformat() for row in table.rows if row.date] == ["2021-03-04", "2021-09-07"]
    assert names(table, 0) == {channel: channel for channel in DWI}
    assert table.problems() == []
    assert [status(table, n) for n in range(2)] == ["ready", "ready"]
    assert [exam.exam_id for exam in table.exams()] == ["2021-03-04", "2021-09-07"]


def test_the_only_patient_of_the_scene_is_found(scene: Any, patient: int) -> None:
    table = ExamTable(scene)
    table.fill_from_scene()
    assert len(table.rows) == 2


def test_of_several_patients_none_is_chosen(scene: Any, patient: int) -> None:
    add_study(scene, add_patient(scene, "Roe^Richard", "ID-4712"), "20200101", dwi(scene))
    with pytest.raises(Refusal) as refused:
        ExamTable(scene).fill_from_scene()
    assert refused.value.message == (
        "The scene holds 2 patients. Choose one; exams of different patients can't be mixed."
    )


def test_an_empty_scene_says_what_to_do(scene: Any) -> None:
    with pytest.raises(Refusal) as refused:
        ExamTable(scene).fill_from_scene()
    assert refused.value.message == "The scene holds no volume. Load the patient's exams first, or add their folder."
    assert messages(ExamTable(scene)) == [
        "There is no exam. Fill the table from the scene or add a folder, and include at least one exam."
    ]


def test_series_are_recognised_by_b_value_then_description(scene: Any) -> None:
    b_values = {"1.1": "0", "1.2": "150", "1.3": "400", "1.4": "800"}
    nodes = []
    for uid in b_values:
        node = volume(scene, f"{uid}: ep2d_diff")
        node.SetAttribute("DICOM.instanceUIDs", f"{uid} {uid} {uid}")
        nodes.append(node)
    item = add_patient(scene)
    add_study(scene, item, "20210304", nodes)

    def tag_of(uid: str, tag: str) -> str:
        return b_values[uid] if tag == "0019,100C" else ""

    table = ExamTable(scene, tag_of=tag_of)
    table.fill_from_patient(item)
    assert [(cell.node, cell.how) for cell in table.rows[0].cells.values()] == [(node, "b-value") for node in nodes]


def loaded_from_dicom(scene: Any, tags: dict[str, dict[str, str]], channels: Sequence[str]) -> ExamTable:
    """A table over volumes of one study, of which a DICOM database knows these tags."""
    nodes = []
    of_instance = {f"1.2.{number}": known for number, known in enumerate(tags.values())}
    for name, uid in zip(tags, of_instance, strict=True):
        node = volume(scene, name)
        node.SetAttribute("DICOM.instanceUIDs", f"{uid} {uid}")
        nodes.append(node)
    item = add_patient(scene)
    add_study(scene, item, "20210304", nodes)
    table = ExamTable(scene, channels, tag_of=lambda uid, tag: of_instance[uid].get(tag, ""))
    table.fill_from_patient(item)
    return table


def in_cells(table: ExamTable) -> dict[str, tuple[str, str]]:
    cells = table.rows[0].cells.items()
    return {channel: (cell.node.GetName(), cell.how) for channel, cell in cells if cell.node is not None}


def test_phases_that_only_their_times_tell_apart_come_into_their_cells(scene: Any) -> None:
    dynamic = ("T1_native", "T1_arterial", "T1_venous", "T1_delayed")
    names = ("3: t1_vibe", "4: t1_vibe", "5: t1_vibe", "6: t1_vibe")
    times = ("091500.5", "092025", "092110", "092300")
    tags = {name: {"0008,0032": time, "0018,1042": "092000"} for name, time in zip(names, times, strict=True)}
    del tags["3: t1_vibe"]["0018,1042"]  # before the injection nobody tells of it
    table = loaded_from_dicom(scene, tags, dynamic)
    assert in_cells(table) == {
        channel: (name, "time after contrast") for channel, name in zip(dynamic, names, strict=True)
    }


def test_two_echoes_of_a_series_come_into_their_cells(scene: Any) -> None:
    series = {"0020,000E": "1.2.3", "0018,0087": "3"}
    tags = {"7: t1 dual": {**series, "0018,0081": "2.3"}, "8: t1 dual": {**series, "0018,0081": "1.15"}}
    table = loaded_from_dicom(scene, tags, ("T1_in", "T1_out"))
    assert in_cells(table) == {"T1_in": ("7: t1 dual", "echo time"), "T1_out": ("8: t1 dual", "echo time")}


def test_a_map_is_no_channel_whatever_its_b_value_and_description(scene: Any) -> None:
    tags = {
        "8: DWI": {"0018,9087": "800", "0008,0008": "DERIVED\\PRIMARY\\DIFFUSION\\TRACEW"},
        "9: DWI": {"0018,9087": "800", "0008,0008": "DERIVED\\PRIMARY\\DIFFUSION\\ADC"},
        "10: DWI": {"0018,9087": "800", "0008,0008": "ORIGINAL\\PRIMARY\\P\\ND"},
    }
    assert in_cells(loaded_from_dicom(scene, tags, DWI)) == {"DWI_b800": ("8: DWI", "b-value")}


def test_a_coronal_series_is_no_phase(scene: Any) -> None:
    tags = {"4: t1_vibe arterial": {"0008,0032": "092025"}}
    assert in_cells(loaded_from_dicom(scene, tags, ("T1_arterial",)))
    table = ExamTable(scene, ("T1_arterial",), tag_of=lambda uid, tag: "")
    node = scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    coronal = np.array([[-3.0, 0, 0, 0], [0, 0, 3, 0], [0, -3, 0, 0], [0, 0, 0, 1]])
    node.SetIJKToRASMatrix(matrix(coronal))
    table.fill_from_scene()
    assert not in_cells(table)


def test_a_volume_of_several_b_values_is_no_channel(scene: Any) -> None:
    node = volume(scene, "6: diffusion")
    node.SetAttribute("DICOM.instanceUIDs", "a b c")
    item = add_patient(scene)
    add_study(scene, item, "20210304", [node])
    node.SetName("6: Ax DWI b800")
    values = {"a": "0", "b": "400", "c": "800"}
    table = ExamTable(scene, tag_of=lambda uid, tag: values[uid] if tag == "0018,9087" else "")
    table.fill_from_patient(item)
    assert all(cell.node is None for cell in table.rows[0].cells.values())


def test_of_two_series_for_one_channel_none_is_taken(scene: Any) -> None:
    item = add_patient(scene)
    twice = [volume(scene, "5: dwi b800"), volume(scene, "9: dwi b800 repeat")]
    add_study(scene, item, "20210304", [*dwi(scene, channels=DWI[:3]), *twice])
    table = ExamTable(scene)
    table.fill_from_patient(item)
    assert names(table, 0)["DWI_b800"] is None
    assert messages(table) == [
        "Exam 2021-03-04 lacks DWI_b800. Choose the volume, or leave the exam out.",
        "DWI_b800 of exam 2021-03-04: 2 series may each be it; none was taken. Choose the right one.",
    ]
    table.set_cell(table.rows[0].key, "DWI_b800", twice[1])
    assert names(table, 0)["DWI_b800"] == "9: dwi b800 repeat"
    assert table.rows[0].cells["DWI_b800"].how == "chosen"
    assert table.problems() == []


def test_a_b_value_that_is_nearly_right_is_used_and_told(scene: Any) -> None:
    item = add_patient(scene)
    add_study(scene, item, "20210304", [*dwi(scene, channels=(DWI[0], *DWI[2:])), volume(scene, "DWI_b100")])
    table = ExamTable(scene)
    table.fill_from_patient(item)
    assert names(table, 0)["DWI_b150"] == "DWI_b100"
    assert messages(table) == [
        "DWI_b150 of exam 2021-03-04: the series has b = 100; it is the nearest b-value within ±50 s/mm²."
    ]
    assert status(table, 0) == "look"


def test_loose_volumes_find_their_date_in_their_names(scene: Any) -> None:
    table = ExamTable(scene)
    table.add_volumes(dwi(scene, " 2021-03-04") + dwi(scene, "_20200101"))
    assert [row.date for row in table.rows] == [datetime.date(2020, 1, 1), datetime.date(2021, 3, 4)]
    assert names(table, 0)["DWI_b400"] == "DWI_b400_20200101"
    assert messages(table)[0] == (
        "Exam 2020-01-01: its date was found in the name of a volume or folder. Look whether it is the day of the visit."
    )
    assert not any(problem.blocks for problem in table.problems())
    table.set_date(table.rows[0].key, datetime.date(2020, 1, 1))
    assert len(messages(table)) == 1  # about the other exam


def test_loose_volumes_find_their_date_in_the_folder_of_their_file(scene: Any) -> None:
    nodes = dwi(scene)
    for node in nodes:
        storage = scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
        storage.SetFileName(f"/data/2021-03-04_second/{node.GetName()}.nii.gz")
        node.SetAndObserveStorageNodeID(storage.GetID())
    table = ExamTable(scene)
    table.fill_from_scene()
    assert [row.date for row in table.rows] == [datetime.date(2021, 3, 4)]


def test_maps_and_label_maps_are_no_channels(scene: Any, patient: int, table: ExamTable) -> None:
    result = volume(scene, "DWI_b0")
    result.SetAttribute(RESULT_ATTRIBUTE, "1")
    label = add_volume(scene, "DWI_b0", np.ones((6, 5, 4), np.int16), AFFINE, "vtkMRMLLabelMapVolumeNode")
    tree = hierarchy(scene)
    study = tree.GetItemParent(tree.GetItemByDataNode(table.rows[0].cells["DWI_b0"].node))
    for node in (result, label):
        tree.SetItemParent(tree.GetItemByDataNode(node) or tree.CreateItem(study, node), study)
    table.refresh()
    assert table.problems() == []
    for node in (result, label):
        with pytest.raises(Refusal, match=r"DWI_b0 must be a greyscale volume; a label map, colour or time series"):
            table.set_cell(table.rows[0].key, "DWI_b0", node)


def test_another_bundle_shows_other_columns_and_keeps_what_was_chosen(scene: Any, table: ExamTable) -> None:
    other = volume(scene, "mine")
    table.set_cell(table.rows[0].key, "DWI_b0", other)
    table.set_channels(("T1_in", "T1_out"))
    assert messages(table)[0] == "Exam 2021-03-04 lacks T1_in, T1_out. Choose the volumes, or leave the exam out."
    table.set_channels(DWI)
    assert table.rows[0].cells["DWI_b0"].node is other


# ---------------------------------------------------------------- what is wrong


def test_a_missing_date_is_asked_for(scene: Any) -> None:
    item = add_patient(scene)
    add_study(scene, item, "", dwi(scene))
    table = ExamTable(scene)
    table.fill_from_patient(item)
    assert messages(table) == [
        "The exam with DWI_b0, DWI_b150, DWI_b400, DWI_b800 has no date. Give the day of the visit: time decides the prediction."
    ]
    with pytest.raises(Refusal, match="has no date"):
        table.exams()
    table.set_date(table.rows[0].key, datetime.date(2021, 3, 4))
    assert table.problems() == []


def test_two_exams_of_one_day_are_told(scene: Any, table: ExamTable) -> None:
    table.set_date(table.rows[1].key, datetime.date(2021, 3, 4))
    assert messages(table) == [
        "Two exams are of 2021-03-04. If they are one visit, put their volumes into one row and leave the other out; else "
        "correct a date."
    ]
    table.set_included(table.rows[1].key, False)
    assert table.problems() == []


def test_a_date_that_can_not_be_is_told(table: ExamTable) -> None:
    table.set_date(table.rows[1].key, datetime.date(2120, 1, 1))
    assert messages(table) == ["2120-01-01 is in the future. Check the date."]
    table.set_date(table.rows[1].key, datetime.date(1312, 1, 1))
    assert messages(table) == ["1312-01-01 can't be the date of an exam. Correct it."]


def test_a_missing_channel_is_named(scene: Any, table: ExamTable) -> None:
    scene.RemoveNode(table.rows[1].cells["DWI_b400"].node)
    table.refresh()
    assert messages(table) == ["Exam 2021-09-07 lacks DWI_b400. Choose the volume, or leave the exam out."]
    assert status(table, 1) == "blocked"
    table.set_channels(DWI, missing_channels=True)
    assert messages(table) == [
        "Exam 2021-09-07 lacks DWI_b400; the networks were trained for that and read zeros instead."
    ]
    assert "DWI_b400" not in table.exams()[1].volumes


def test_exams_of_two_patients_are_never_mixed_and_nobody_is_named(scene: Any, table: ExamTable) -> None:
    other = volume(scene, "DWI_b0")
    add_study(scene, add_patient(scene, "Roe^Richard", "ID-4712"), "20210907", [other])
    table.set_cell(table.rows[1].key, "DWI_b0", other)
    assert messages(table) == [
        "DWI_b0 of exam 2021-09-07 belongs to another patient than the first exam. Exams of different patients can't be mixed: "
        "choose again, or leave the exam out."
    ]
    assert table.problems()[0].blocks


def test_a_volume_that_belongs_to_nobody_is_told(scene: Any, table: ExamTable) -> None:
    table.set_cell(table.rows[0].key, "DWI_b0", volume(scene, "somewhere"))
    assert messages(table) == ["Nothing says whose DWI_b0 of exam 2021-03-04 is. Check that it is this patient's."]


def test_a_volume_of_another_day_is_told(table: ExamTable) -> None:
    table.set_cell(table.rows[1].key, "DWI_b0", table.rows[0].cells["DWI_b0"].node)
    told = messages(table)
    assert told[0] == (
        "Exam 2021-09-07 holds volumes of different days (DWI_b0 2021-03-04, DWI_b150 2021-09-07, DWI_b400 "
        "2021-09-07, DWI_b800 2021-09-07). Choose the volumes of one visit."
    )
    assert (
        told[1] == "DWI_b0 of exam 2021-03-04 and DWI_b0 of exam 2021-09-07 are the same volume. Choose the right ones."
    )


def test_another_frame_of_reference_blocks_until_the_user_has_looked(scene: Any, table: ExamTable) -> None:
    tree = hierarchy(scene)
    for number, cell in enumerate(table.rows[0].cells.values()):
        frame = "1.2.3" if number < 3 else "1.2.4"
        tree.SetItemAttribute(tree.GetItemByDataNode(cell.node), "DICOM.FrameOfReferenceUID", frame)
    assert messages(table) == [
        "Exam 2021-03-04: DWI_b800 and DWI_b0 differ in their frame of reference: the patient may have been moved between them. "
        "Look whether they lie on each other; if they do, say that they share one patient space."
    ]
    assert table.problems()[0].blocks
    table.set_one_space(True)
    assert not table.problems()[0].blocks


def test_channels_on_different_grids_block_until_the_user_has_looked(scene: Any, table: ExamTable) -> None:
    moved = AFFINE.copy()
    moved[0, 3] = 5.0
    table.set_cell(table.rows[0].key, "DWI_b800", volume(scene, "DWI_b800", affine=moved))
    told = [problem for problem in table.problems() if problem.code == "grids_differ"]
    assert [problem.message for problem in told] == [
        "Exam 2021-03-04: the channels do not lie on one grid (DWI_b0: 6×5×4 voxels of 3×3×4 mm, LPS, centre at (-8, -6, 6) mm; "
        "DWI_b800: 6×5×4 voxels of 3×3×4 mm, LPS, centre at (-2, -6, 6) mm). Check that they are one visit; if they share one "
        "patient space, say so, and they are brought onto the first channel's grid."
    ]
    assert told[0].blocks


def test_grids_are_compared_where_the_volumes_lie_now(scene: Any, table: ExamTable) -> None:
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    shift = np.eye(4)
    shift[2, 3] = 7.0
    transform.SetMatrixTransformToParent(matrix(shift))
    table.rows[0].cells["DWI_b0"].node.SetAndObserveTransformNodeID(transform.GetID())
    assert [problem.code for problem in table.problems()] == ["grids_differ"]


def test_what_is_not_mr_is_told(scene: Any, table: ExamTable) -> None:
    tree = hierarchy(scene)
    tree.SetItemAttribute(tree.GetItemByDataNode(table.rows[0].cells["DWI_b0"].node), "DICOM.Modality", "CT")
    assert messages(table) == ["DWI_b0 of exam 2021-03-04 is not MR but CT. Choose the MR series."]


def test_a_single_slice_is_no_volume(scene: Any, table: ExamTable) -> None:
    flat = add_volume(scene, "DWI_b0", np.zeros((6, 5, 1), np.int16), AFFINE)
    table.set_cell(table.rows[0].key, "DWI_b0", flat)
    assert "DWI_b0 of exam 2021-03-04 is not a 3D volume. Load the whole series, not one slice of it." in messages(
        table
    )
    table.set_cell(table.rows[0].key, "DWI_b0", scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"))
    assert "DWI_b0 of exam 2021-03-04 is not a 3D volume. Load the whole series, not one slice of it." in messages(
        table
    )


# ---------------------------------------------------------------- corrections


def test_corrections_survive_a_refresh_and_new_series_appear(scene: Any, patient: int, table: ExamTable) -> None:
    other = volume(scene, "other")
    early, late = (row.key for row in table.rows)
    table.set_cell(early, "DWI_b0", other)
    table.set_cell(late, "DWI_b800", None)
    table.set_date(late, datetime.date(2019, 5, 6))
    table.set_included(early, False)
    add_study(scene, patient, "20220420", dwi(scene))
    table.refresh()
    assert [row.date and row.date.isoformat() for row in table.rows] == ["2019-05-06", "2021-03-04", "2022-04-20"]
    assert table.row(early).cells["DWI_b0"].node is other
    assert table.row(late).cells["DWI_b800"].node is None
    assert table.statuses(table.problems())[early] == "left out"


def test_a_chosen_volume_that_was_removed_is_never_replaced_by_another(scene: Any, table: ExamTable) -> None:
    other = volume(scene, "other")
    table.set_cell(table.rows[0].key, "DWI_b0", other)
    scene.RemoveNode(other)
    table.refresh()
    assert table.rows[0].cells["DWI_b0"].node is None
    assert messages(table) == [
        "Exam 2021-03-04: the volume chosen for DWI_b0 is no longer in the scene. Choose another."
    ]


def test_a_row_can_be_added_by_hand_and_removed(scene: Any, table: ExamTable) -> None:
    key = table.add_row(datetime.date(2018, 1, 2))
    for channel, node in zip(DWI, dwi(scene, " new"), strict=True):
        table.set_cell(key, channel, node)
    assert table.exams()[0].exam_id == "2018-01-02"
    table.remove_row(key)
    assert len(table.rows) == 2


def test_another_patient_begins_without_the_first_one_s_corrections(scene: Any, table: ExamTable) -> None:
    table.set_cell(table.rows[0].key, "DWI_b0", None)
    other = add_patient(scene, "Roe^Richard", "ID-4712")
    add_study(scene, other, "20210304", dwi(scene))
    table.fill_from_patient(other)
    assert len(table.rows) == 1
    assert table.problems() == []


def test_a_liver_that_was_removed_is_told(scene: Any, table: ExamTable) -> None:
    box = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    table.set_liver(table.rows[0].key, box)
    assert table.exams()[0].liver is box
    scene.RemoveNode(box)
    table.refresh()
    assert messages(table) == [
        "Exam 2021-03-04: what was chosen as its liver is no longer in the scene. Choose again, or none."
    ]
    with pytest.raises(Refusal, match=r"The liver must be given as a segmentation, a label map or an ROI\."):
        table.set_liver(table.rows[0].key, volume(scene, "grey"))


def test_the_table_comes_back_with_a_saved_scene(scene: Any, table: ExamTable, tmp_path: Path) -> None:
    """In Slicer the volumes' own files come back too; here only that the references and rows do."""
    other = volume(scene, "other")
    early, late = (row.key for row in table.rows)
    table.set_cell(early, "DWI_b0", other)
    table.set_date(late, datetime.date(2021, 10, 1))
    table.set_one_space(True)
    removed = volume(scene, "gone")
    table.set_cell(late, "DWI_b800", removed)
    scene.RemoveNode(removed)
    node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "HCCNet")
    store_table(table, node)
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Commit()

    scene.Clear(True)
    scene.Connect()
    again = ExamTable(scene)
    restore_table(again, scene.GetFirstNodeByName("HCCNet"))
    assert [row.key for row in again.rows] == [early, late]
    assert again.row(early).cells["DWI_b0"].node.GetName() == "other"
    assert again.row(late).date == datetime.date(2021, 10, 1)
    assert again.row(late).gone == ("DWI_b800",)
    assert again.state.one_space


def test_a_removed_volume_moves_no_other_into_its_place(scene: Any, table: ExamTable) -> None:
    """Within one reference role MRML closes the gap that a removed node leaves."""
    spare = [volume(scene, f"spare {n}", n) for n in range(5)]
    key = table.rows[0].key
    table.set_cell(table.add_row(), "DWI_b0", spare[0])
    for channel, node in zip(DWI, spare[1:], strict=True):
        table.set_cell(key, channel, node)
    table.add_volumes([volume(scene, "loose 2019-01-01")])
    node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "HCCNet")
    for gone in (spare[0], spare[2]):
        store_table(table, node)
        scene.RemoveNode(gone)
        again = ExamTable(scene)
        assert restore_table(again, node) is None
        cells = again.row(key).cells
        expected = {c: n.GetName() for c, n in zip(DWI, spare[1:], strict=True) if scene.GetNodeByID(n.GetID())}
        assert {c: cell.node.GetName() for c, cell in cells.items() if cell.node is not None} == expected
        table = again


def test_a_stored_table_is_known_again_node_by_node(scene: Any, table: ExamTable) -> None:
    node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "HCCNet")
    assert is_stored(table.state, node)  # which keeps nothing: no contradiction
    one, other = volume(scene, "one"), volume(scene, "other")
    table.set_cell(table.rows[0].key, "DWI_b0", one)
    table.set_cell(table.rows[0].key, "DWI_b150", other)
    store_table(table, node)
    assert is_stored(table.state, node)
    again = ExamTable(scene)
    restore_table(again, node)
    assert is_stored(again.state, node)
    again.set_cell(table.rows[0].key, "DWI_b0", volume(scene, "third"))
    assert not is_stored(again.state, node)
    for gone in (one, other):
        scene.RemoveNode(gone)
    restore_table(again, node)
    assert is_stored(table.state, node)
    assert again.rows[0].gone == ("DWI_b0", "DWI_b150")


def test_a_damaged_table_in_a_scene_is_told_and_left_empty(scene: Any, table: ExamTable) -> None:
    node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "HCCNet")
    for text in ("{", "[]", "{}", '{"version": 9}', '{"version": 1, "channels": 3}'):
        node.SetParameter("HCCNet.Exams", text)
        assert restore_table(table, node) == (
            "The table of exams that the scene keeps can't be read: it is damaged or of another release. Fill it again."
        )
        assert table.rows == ()


def test_the_next_patient_in_a_cleared_scene_gets_nothing_of_the_last_one(scene: Any) -> None:
    """After a scene was closed the IDs of nodes begin anew."""
    table = ExamTable(scene)
    table.add_volumes(dwi(scene))
    table.set_date(table.rows[0].key, datetime.date(2021, 1, 1))
    table.set_one_space(True)
    scene.Clear(False)
    others = dwi(scene)
    table.refresh()
    assert table.rows == ()
    assert not table.state.one_space
    table.add_volumes(others)
    assert [row.date for row in table.rows] == [None]


def test_a_scanner_s_b_value_of_zero_makes_no_dynamic_series_a_diffusion_image(scene: Any) -> None:
    item = add_patient(scene)
    node = volume(scene, "5: Ax LAVA ART")
    node.SetAttribute("DICOM.instanceUIDs", "a b c")
    add_study(scene, item, "20210304", [node])
    table = ExamTable(scene, ("DWI_b0", "T1_arterial"), lambda uid, tag: "0\\0\\0\\0" if tag == "0043,1039" else "")
    table.fill_from_patient(item)
    assert names(table, 0) == {"DWI_b0": None, "T1_arterial": "5: Ax LAVA ART"}


def test_series_below_no_study_are_no_lost_exam(scene: Any, patient: int, table: ExamTable) -> None:
    tree = hierarchy(scene)
    for node in dwi(scene, " 2022-02-02"):
        tree.CreateItem(patient, node)
    volume(scene, "somebody's")
    table.fill_from_patient(patient)
    assert [row.date and row.date.isoformat() for row in table.rows] == ["2021-03-04", "2021-09-07", "2022-02-02"]
    assert messages(table)[-1] == (
        "1 volume(s) of the scene belong to no patient and are in no exam. Add them to the table if they are this patient's."
    )


def test_a_patient_that_is_there_twice_is_read_where_he_was_chosen(scene: Any, patient: int, table: ExamTable) -> None:
    """As after a scene was added twice: both items carry the same mark."""
    tree = hierarchy(scene)
    copy = add_patient(scene)
    tree.SetItemAttribute(copy, "HCCNet.Key", tree.GetItemAttribute(patient, "HCCNet.Key"))
    add_study(scene, copy, "20230101", dwi(scene))
    table.fill_from_patient(copy)
    assert [row.date and row.date.isoformat() for row in table.rows] == ["2023-01-01"]


def test_loose_volumes_of_different_days_are_told(scene: Any) -> None:
    table = ExamTable(scene)
    table.add_volumes([*dwi(scene, " 2021-03-04"), *dwi(scene, " 2020-01-01")])
    table.set_cell(table.rows[1].key, "DWI_b0", table.rows[0].cells["DWI_b0"].node)
    assert any(problem.code == "days_differ" and problem.blocks for problem in table.problems())


def test_a_birthday_in_a_name_is_no_exam_date(scene: Any) -> None:
    table = ExamTable(scene)
    table.add_volumes([volume(scene, "Doe_19610312_DWI_b0")])
    assert [row.date for row in table.rows] == [None]


def test_a_liver_of_another_patient_and_one_of_another_name_are_told(scene: Any, table: ExamTable) -> None:
    label = add_volume(scene, "L", np.ones((6, 5, 4), np.int16), AFFINE, "vtkMRMLLabelMapVolumeNode")
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(label, segmentation)
    segmentation.GetSegmentation().GetNthSegment(0).SetName("Spleen")
    table.set_liver(table.rows[0].key, segmentation)
    assert messages(table) == [
        "Exam 2021-03-04: the segment that is taken as the liver is not named liver. Look whether it is."
    ]
    add_study(scene, add_patient(scene, "Roe^Richard", "ID-4712"), "20210304", [label])
    table.set_liver(table.rows[0].key, label)
    assert messages(table) == [
        "Exam 2021-03-04: what was chosen as its liver belongs to another patient. Choose again, or none."
    ]


def test_a_removed_exam_comes_back_when_its_volumes_are_added_again(scene: Any) -> None:
    table, nodes = ExamTable(scene), dwi(scene, " 2021-03-04")
    table.add_volumes(nodes)
    table.remove_row(table.rows[0].key)
    assert table.rows == ()
    table.add_volumes(nodes)
    assert len(table.rows) == 1


def test_filling_again_keeps_the_corrections_also_beside_loose_volumes(
    scene: Any, patient: int, table: ExamTable
) -> None:
    table.set_date(table.rows[0].key, datetime.date(2021, 3, 5))
    by_hand = table.add_row()
    table.remove_row(by_hand)
    table.add_volumes([volume(scene, "loose 2019-01-01")])
    table.fill_from_patient(patient)
    assert [row.date and row.date.isoformat() for row in table.rows] == ["2019-01-01", "2021-03-05", "2021-09-07"]


def test_what_the_worker_would_refuse_is_told_before(scene: Any, table: ExamTable) -> None:
    shear = np.eye(4)
    shear[0, 1] = 0.3
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(matrix(shear))
    table.rows[0].cells["DWI_b0"].node.SetAndObserveTransformNodeID(transform.GetID())
    assert messages(table) == [
        "DWI_b0 of exam 2021-03-04: the voxel axes are not at right angles (gantry tilt or shear). Resample it to a "
        "right-angled grid."
    ]
    transform.SetMatrixTransformToParent(matrix(np.diag([0.0, 1, 1, 1])))
    assert table.problems()[0].code == "bad_affine"
    table.rows[0].cells["DWI_b0"].node.GetImageData().GetPointData().SetScalars(None)
    assert table.problems()[0].code == "not_3d"


# ---------------------------------------------------------------- folders, and out to a prediction


def test_two_people_whose_folders_have_one_name_stay_two(scene: Any, tmp_path: Path) -> None:
    for person in ("alice", "bob"):
        folder = tmp_path / person / "mri" / "2021-03-04"
        folder.mkdir(parents=True)
        for channel in DWI:
            nib.save(
                nib.Nifti1Image(np.arange(60, dtype=np.float32).reshape(5, 4, 3), AFFINE), folder / f"{channel}.nii"
            )
    one, other = (load_folder(scene, tmp_path / person / "mri") for person in ("alice", "bob"))
    table = ExamTable(scene)
    table.fill_from_patient(other.item)
    theirs = table.rows[0].cells["DWI_b800"].node
    table.fill_from_patient(one.item)
    table.set_cell(table.rows[0].key, "DWI_b800", theirs)
    assert [problem.code for problem in table.problems() if problem.blocks] == ["patients_mixed"]


def test_a_dated_folder_is_read_by_the_library_s_reader(scene: Any) -> None:
    loaded = load_folder(scene, SAMPLES / "RA01")
    table = ExamTable(scene)
    table.fill_from_patient(loaded.item)
    assert table.problems() == []
    assert [exam.exam_id for exam in table.exams()] == ["2021-03-04", "2021-09-07", "2022-04-20", "2023-01-11"]
    assert loaded.problems == ()


def test_a_dicom_folder_is_read_by_the_library_s_reader(scene: Any) -> None:
    loaded = load_folder(scene, DICOM)
    table = ExamTable(scene)
    table.fill_from_patient(loaded.item)
    assert table.problems() == []
    (exam,) = table.exams()
    images = read_input(DICOM).patients[0].exams[0].images
    for channel, image in images.items():
        node = exam.volumes[channel]
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(node).transpose(2, 1, 0), image.read())
        np.testing.assert_allclose(own_affine(node), image.grid.affine)


def test_series_that_no_rule_knows_are_told_when_a_dicom_folder_is_loaded(scene: Any, tmp_path: Path) -> None:
    for path in DICOM.iterdir():
        shutil.copy(path, tmp_path)
    for path in tmp_path.iterdir():
        dataset = pydicom.dcmread(path)
        if dataset[0x0019, 0x100C].value.strip() == b"400":
            dataset[0x0019, 0x100C].value = b"1000"
            dataset.save_as(path)
    loaded = load_folder(scene, tmp_path)
    assert loaded.problems[-1] == (
        "exam 2011-02-18: not recognised as a channel and not loaded: series 8, b 1000 (ep2d-advdiff-3Scan-4bval_spair_511b). "
        "If one of them is a channel, import the folder with Slicer's DICOM module and choose it in the table."
    )


def test_channels_of_different_grids_can_be_loaded(scene: Any, tmp_path: Path) -> None:
    """DWI and T1 never lie on one grid; the model reads one or the other."""
    folder = tmp_path / "P" / "2021-03-04"
    folder.mkdir(parents=True)
    for channel, shape in (("DWI_b0", (6, 5, 4)), ("T1_native", (8, 7, 6))):
        data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        nib.save(nib.Nifti1Image(data, AFFINE), folder / f"{channel}.nii")
    table = ExamTable(scene, ("T1_native",))
    table.fill_from_patient(load_folder(scene, tmp_path / "P").item)
    assert table.problems() == []


def test_what_goes_out_is_what_came_in(scene: Any, tmp_path: Path) -> None:
    """Real images through the scene: the same voxels at the same places, and no name on the way."""
    table = ExamTable(scene)
    table.fill_from_patient(load_folder(scene, SAMPLES / "RA01").item)
    written = read_input(write_exams(table, tmp_path)).patients[0]
    original = read_input(SAMPLES / "RA01").patients[0]
    assert written.patient_id == "patient"
    assert [exam.date for exam in written.exams] == [exam.date for exam in original.exams]
    for mine, theirs in zip(written.exams, original.exams, strict=True):
        assert set(mine.images) == set(theirs.images)
        for channel, image in mine.images.items():
            np.testing.assert_array_equal(image.read(), theirs.images[channel].read())
            np.testing.assert_allclose(image.grid.affine, theirs.images[channel].grid.affine, atol=1e-5)
    assert not any("RA01" in str(path) for path in tmp_path.rglob("*"))


def test_a_folder_that_can_not_be_read_leaves_nothing_in_the_scene(scene: Any, tmp_path: Path) -> None:
    for date in ("2021-03-04", "2021-09-07"):
        (tmp_path / "P" / date).mkdir(parents=True)
        image = nib.Nifti1Image(np.arange(60, dtype=np.float32).reshape(5, 4, 3), AFFINE)
        nib.save(image, tmp_path / "P" / date / "DWI_b0.nii")
    damaged = tmp_path / "P" / "2021-09-07" / "DWI_b0.nii"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    before = scene.GetNumberOfNodes()
    with pytest.raises(Refusal, match=r"2021-09-07/DWI_b0\.nii is damaged or incomplete"):
        load_folder(scene, tmp_path / "P")
    assert scene.GetNumberOfNodes() == before
    assert hierarchy(scene).GetNumberOfItems() == 0


def test_a_folder_of_several_patients_is_not_taken_apart(scene: Any, tmp_path: Path) -> None:
    for name in ("A", "B"):
        folder = tmp_path / name / "2021-03-04"
        folder.mkdir(parents=True)
        nib.save(nib.Nifti1Image(np.arange(60, dtype=np.float32).reshape(5, 4, 3), AFFINE), folder / "DWI_b0.nii")
    with pytest.raises(Refusal) as refused:
        load_folder(scene, tmp_path)
    assert refused.value.message.endswith(" holds 2 patients. Choose the folder of one of them.")


def test_livers_of_a_folder_come_along(scene: Any, tmp_path: Path) -> None:
    for date in ("2021-03-04", "2021-09-07"):
        folder = tmp_path / "P" / date
        folder.mkdir(parents=True)
        for channel in DWI:
            nib.save(
                nib.Nifti1Image(np.arange(60, dtype=np.float32).reshape(5, 4, 3), AFFINE), folder / f"{channel}.nii"
            )
    mask = np.zeros((5, 4, 3), np.float32)
    mask[1:3, 1:3, 1] = 0.8
    nib.save(nib.Nifti1Image(mask, AFFINE), tmp_path / "P" / "2021-03-04" / "liver_mask.nii")
    (tmp_path / "P" / "2021-09-07" / "liver_box.json").write_text('{"low_mm": [-60, -50, 0], "high_mm": [0, 0, 40]}')
    loaded = load_folder(scene, tmp_path / "P")
    table = ExamTable(scene)
    table.fill_from_patient(loaded.item)
    for key, liver in loaded.livers.items():
        table.set_liver(key, liver)
    (tmp_path / "out").mkdir()
    rows = list(csv.DictReader(write_exams(table, tmp_path / "out").open()))
    assert [bool(row["liver_mask"]) for row in rows] == [True, False]
    assert [bool(row["liver_box"]) for row in rows] == [False, True]
    exams = read_input(tmp_path / "out" / "exams.csv").patients[0].exams
    assert exams[0].liver_mask is not None
    np.testing.assert_array_equal(exams[0].liver_mask.read(), mask > 0.5)
    assert exams[1].liver_box is not None
    assert exams[1].liver_box.low == (-60.0, -50.0, 0.0)
    assert slicer.mrmlScene is scene
