"""From exams in a real scene through a real worker with the demonstration bundle into nodes."""

from __future__ import annotations

import datetime
import gc
import importlib
import os
import signal
import sys
import time
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from mrml_helpers import add_file, matrix
from result_helpers import save
from slicer_fakes import modules

from HCCNetLib.bundles import DEMONSTRATION_BUNDLE
from HCCNetLib.inference import Predictor
from HCCNetLib.readers import read_input
from HCCNetLib.records import Refusal
from HCCNetSlicer import prediction
from HCCNetSlicer.exam_table import ExamTable, fill_by_date
from HCCNetSlicer.folders import load_folder
from HCCNetSlicer.prediction import Predictions, Settings, Shown
from HCCNetSlicer.results import Result
from HCCNetSlicer.worker_client import Failure, Progress, WorkerClient, WorkerError, default_command

ROOT = Path(__file__).resolve().parents[2]
RA01 = ROOT / "HCCNetLib" / "samples" / "RA01"
PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerClient]:
    """One worker for all tests of this file, as a radiologist's day has."""
    command, environment = default_command(ROOT)
    client = WorkerClient(command, environment, scratch_root=tmp_path_factory.mktemp("scratch"))
    yield client
    client.close()


@pytest.fixture
def predictions(scene: Any, client: WorkerClient) -> Iterator[Predictions]:
    predictions = Predictions(scene, client)
    yield predictions
    predictions.cancel()


@pytest.fixture
def table(scene: Any) -> ExamTable:
    """RA01 in the scene."""
    table = ExamTable(scene)
    table.fill_from_patient(load_folder(scene, RA01).item)
    return table


def one_exam(scene: Any, date: str = "2023-01-11") -> ExamTable:
    """A single exam of RA01, of volumes that belong to nobody."""
    table = ExamTable(scene)
    key = table.add_row(datetime.date.fromisoformat(date))
    for channel in table.channels:
        table.set_cell(key, channel, add_file(scene, RA01 / date / f"{channel}.nii.gz"))
    return table


def predict(predictions: Predictions, table: ExamTable, **settings: Any) -> Result:
    predictions.begin(table.exams(), Settings(**settings))
    return predictions.wait()


def left_in_scratch(client: WorkerClient) -> list[Path]:
    root = client._own.folders.root
    assert root is not None
    return list(root.iterdir())


def test_the_scene_s_exams_are_predicted_as_their_files_are(
    scene: Any, predictions: Predictions, table: ExamTable, client: WorkerClient
) -> None:
    seen: list[Any] = []
    predictions.begin(table.exams(), Settings())
    result = predictions.wait(seen.append)
    expected = Predictor(DEMONSTRATION_BUNDLE, "cpu").predict(read_input(RA01).patients[0])
    assert result.prediction["risk"] == pytest.approx(expected.risk, abs=1e-6)
    assert result.prediction["members"] == pytest.approx(expected.members, abs=1e-6)
    assert [exam["date"] for exam in result.prediction["exams"]] == [
        *("2021-03-04", "2021-09-07", "2022-04-20", "2023-01-11")
    ]
    assert result.prediction["patient_id"] == "patient"
    assert "no meaning for this patient" in result.sentence()
    assert result.stale_reasons() == []
    assert isinstance(seen[-1], Shown)
    fractions = [event.fraction for event in seen if isinstance(event, Progress)]
    assert fractions == sorted(fractions)
    assert max(event.member or 0 for event in seen if isinstance(event, Progress)) == 10
    assert left_in_scratch(client) == []
    for index, row in enumerate(table.rows):
        shown = result.map_node(index)
        peak = result.prediction["exams"][index]["peak"]
        inside = [0.0] * 6
        row.cells["DWI_b0"].node.GetRASBounds(inside)
        assert shown is not None
        assert all(inside[2 * n] <= peak["mm"][n] <= inside[2 * n + 1] for n in range(3))


def test_a_moved_patient_is_predicted_alike_and_read_where_he_lies_now(scene: Any, predictions: Predictions) -> None:
    table = one_exam(scene)
    still = predict(predictions, table).prediction
    shift = np.eye(4)
    shift[:3, 3] = (30.0, -20.0, 10.0)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(matrix(shift))
    for cell in table.rows[0].cells.values():
        cell.node.SetAndObserveTransformNodeID(transform.GetID())
    moved = predict(predictions, table).prediction
    assert moved["risk"] == pytest.approx(still["risk"], abs=1e-5)
    for key, place in (("peak", "mm"), ("field", "box")):
        before, after = still["exams"][0][key][place], moved["exams"][0][key][place]
        before, after = (x["centre_mm"] if place == "box" else x for x in (before, after))
        np.testing.assert_allclose(np.subtract(after, before), shift[:3, 3], atol=0.01)


def test_a_liver_s_roi_centres_what_is_read(scene: Any, predictions: Predictions) -> None:
    table = one_exam(scene)
    elsewhere = predict(predictions, table, explain="none").prediction["exams"][0]["field"]["box"]["centre_mm"]
    centre = np.add(elsewhere, (18.0, 9.0, -6.0))
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "liver")
    roi.SetCenter(*centre)
    roi.SetSize(60.0, 60.0, 30.0)
    table.set_liver(table.rows[0].key, roi)
    result = predict(predictions, table, explain="none")
    box = result.prediction["exams"][0]["field"]["box"]
    low, high = np.subtract(box["centre_mm"], 54), np.add(box["centre_mm"], 54)
    assert (low < centre).all()
    assert (centre < high).all()
    assert np.linalg.norm(np.subtract(box["centre_mm"], elsewhere)) > 5


def test_a_refusal_of_the_worker_is_told_in_its_words(
    scene: Any, predictions: Predictions, client: WorkerClient
) -> None:
    table = one_exam(scene)
    slicer.util.arrayFromVolume(table.rows[0].cells["DWI_b400"].node)[:] = 7
    with pytest.raises(WorkerError) as failed:
        predict(predictions, table)
    assert failed.value.message == (
        "Exam 2023-01-11: DWI_b400 of row 2 has the same value in every voxel: it holds no picture. Export it again."
    )
    assert Result.find(scene) is None
    assert left_in_scratch(client) == []


def test_a_worker_that_is_killed_in_mid_run_costs_one_prediction(
    scene: Any, predictions: Predictions, client: WorkerClient
) -> None:
    table = one_exam(scene)
    killed = []

    def kill_at_first_member(event: Any) -> None:
        if isinstance(event, Progress) and event.member and not killed:
            killed.append(client.pid)
            assert client.pid is not None
            os.kill(client.pid, signal.SIGKILL)

    predictions.begin(table.exams(), Settings())
    with pytest.raises(WorkerError, match="The worker ended unexpectedly") as failed:
        predictions.wait(kill_at_first_member)
    assert failed.value.code == "crash"
    assert left_in_scratch(client) == []
    assert predict(predictions, table).prediction["landmark"] == "2023-01-11"
    assert client.pid != killed[0]


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_cancel_ends_the_worker_and_keeps_the_earlier_result(
    scene: Any, predictions: Predictions, client: WorkerClient
) -> None:
    table = one_exam(scene)
    earlier = predict(predictions, table, explain="none").prediction
    predictions.begin(table.exams(), Settings())
    pid = client.pid
    while not any(isinstance(event, Progress) and event.member for event in predictions.poll()):
        time.sleep(0.01)
    begun = time.monotonic()
    predictions.cancel()
    assert time.monotonic() - begun < 2
    assert pid is not None
    while is_there(pid) and time.monotonic() - begun < 2:
        time.sleep(0.01)
    assert not is_there(pid)
    assert not predictions.is_running
    assert left_in_scratch(client) == []
    found = Result.find(scene)
    assert found is not None
    assert found.prediction == earlier


def test_closing_the_scene_cancels(scene: Any, predictions: Predictions, client: WorkerClient) -> None:
    predictions.begin(one_exam(scene).exams(), Settings())
    scene.Clear(True)
    assert not predictions.is_running
    assert predictions.poll() == []
    assert left_in_scratch(client) == []
    assert Result.find(scene) is None


def test_only_one_prediction_is_under_way(scene: Any, predictions: Predictions) -> None:
    table = one_exam(scene)
    predictions.begin(table.exams(), Settings(explain="none"))
    with pytest.raises(ValueError, match="under way"):
        predictions.begin(table.exams(), Settings())
    assert predictions.wait().prediction["landmark"] == "2023-01-11"


def test_two_patients_in_turn_leave_nothing_behind(scene: Any, predictions: Predictions) -> None:
    first, second = one_exam(scene, "2021-03-04"), one_exam(scene, "2022-04-20")
    before = {node.GetID() for node in scene.GetNodes()}
    predict(predictions, first)
    one = {node.GetClassName() for node in scene.GetNodes()}
    result = predict(predictions, second)
    assert result.prediction["landmark"] == "2022-04-20"
    assert {node.GetClassName() for node in scene.GetNodes()} == one
    for node in scene.GetNodes():
        assert "2021-03-04" not in node.GetName()
    result.remove()
    assert {node.GetID() for node in scene.GetNodes()} == before


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell a process's memory")
def test_ten_predictions_in_a_row_leave_nodes_and_memory_flat(
    scene: Any, predictions: Predictions, client: WorkerClient
) -> None:
    table = one_exam(scene)
    nodes, ours, theirs = [], [], []
    for _ in range(10):
        predict(predictions, table)
        gc.collect()
        assert client.pid is not None
        nodes.append(scene.GetNumberOfNodes())
        ours.append(resident(os.getpid()))
        theirs.append(resident(client.pid))
    assert len(set(nodes)) == 1
    # After the first three everything has been allocated; a leaked exam of one prediction would be some megabytes.
    assert ours[-1] - ours[2] < 8 * 2**20
    assert theirs[-1] - theirs[2] < 24 * 2**20


def test_the_result_comes_back_with_the_saved_scene(scene: Any, predictions: Predictions, tmp_path: Path) -> None:
    table = one_exam(scene)
    result = predict(predictions, table)
    sentence, risk = result.sentence(), result.prediction["risk"]
    voxels = slicer.util.arrayFromVolume(result.map_node(0)).copy()
    save(scene, tmp_path / "saved")
    scene.Clear(True)
    scene.Connect()
    again = Result.find(scene)
    assert again is not None
    again.restore()
    assert again.sentence() == sentence
    assert again.prediction["risk"] == risk
    np.testing.assert_allclose(slicer.util.arrayFromVolume(again.map_node(0)), voxels, atol=1e-6)
    assert again.stale_reasons() == []


# ---------------------------------------------------------------- the module's main script


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """HCCNet.py, with the parts of the application that it imports."""
    for name, fake in modules().items():
        monkeypatch.setitem(sys.modules, name, fake)
        monkeypatch.setattr(slicer, name.split(".")[1], fake, raising=False)
    monkeypatch.delitem(sys.modules, "HCCNet", raising=False)
    module = importlib.import_module("HCCNet")
    yield module
    sys.modules.pop("HCCNet", None)


def test_the_logic_predicts_from_a_console(scene: Any, module: Any, client: WorkerClient) -> None:
    """Dates and nodes in a dictionary, a table, the result found again and removed."""
    logic = module.HCCNetLogic()
    logic._predictions = Predictions(scene, client)  # the worker that is warm already
    before = scene.GetNumberOfNodes()
    volumes = {c: add_file(scene, RA01 / "2023-01-11" / f"{c}.nii.gz") for c in logic.card().channels}
    with_volumes = scene.GetNumberOfNodes()
    seen: list[Any] = []
    result = logic.predict({"2023-01-11": volumes}, on_event=seen.append)
    assert result.prediction["landmark"] == "2023-01-11"
    assert any(isinstance(event, Progress) for event in seen)
    assert logic.result().prediction == result.prediction
    logic.remove_result()
    assert logic.result() is None
    assert scene.GetNumberOfNodes() == with_volumes > before
    table = logic.table_from_scene()
    assert [row.date for row in table.rows] == [None]
    with pytest.raises(Refusal, match="has no date"):
        logic.predict(table)


def test_the_module_s_own_test_passes(scene: Any, module: Any) -> None:
    """As Slicer's test runner runs it, with a worker of its own."""
    test = module.HCCNetTest()
    test.runTest()


def test_a_bundle_that_is_none_is_refused_in_words(scene: Any, module: Any, tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        module.HCCNetLogic().card(tmp_path)
    assert refused.value.message.endswith(
        " is no bundle: it holds no bundle.json that can be read. Choose a bundle's folder."
    )
    (tmp_path / "bundle.json").write_text("{}")
    with pytest.raises(Refusal) as refused:
        module.HCCNetLogic().card(tmp_path)
    assert refused.value.message.endswith("/bundle.json is damaged or of another release. Get the bundle again.")


def test_a_failed_event_is_no_result(scene: Any, predictions: Predictions) -> None:
    """Whoever polls by a timer is told of the failure once, and may go on."""
    table = one_exam(scene)
    predictions.begin(table.exams(), Settings(bundle=RA01))
    events: list[Any] = []
    while predictions.is_running:
        events += predictions.poll()
        time.sleep(0.01)
    (failure,) = [event for event in events if isinstance(event, Failure)]
    assert failure.error.code == "missing_bundle_file"


def test_what_a_script_gives_wrongly_is_refused_in_words(scene: Any, module: Any) -> None:
    """Nothing is passed over in silence: a missing channel would be read as zeros by some bundles."""
    logic = module.HCCNetLogic()
    volumes = {c: add_file(scene, RA01 / "2023-01-11" / f"{c}.nii.gz") for c in logic.card().channels}
    for exams, message in (
        ({"14.03.2021": volumes}, "14.03.2021 is not a date; write it as 2021-03-14."),
        (
            {"2021-03-14": {**volumes, "DWI_b0 ": volumes["DWI_b0"], "T1_arterial": volumes["DWI_b0"]}},
            "Exam 2021-03-14: the bundle reads DWI_b0, DWI_b150, DWI_b400, DWI_b800, not DWI_b0 , T1_arterial.",
        ),
    ):
        with pytest.raises(Refusal) as refused:
            logic.begin(exams)
        assert refused.value.message == message
    table = ExamTable(scene)
    fill_by_date(table, {"2021-03-14": {"DWI_b0": volumes["DWI_b0"], "DWI_b820": volumes["DWI_b800"]}})
    assert [problem.message for problem in table.problems() if problem.code == "told_by_reader"] == [
        "exam 2021-03-14: DWI_b820 is used as DWI_b800 (the nearest b-value within ±50 s/mm²)."
    ]
    with pytest.raises(Refusal, match="Two bundles are named"):
        logic.begin({"2021-03-14": volumes}, RA01, Settings(bundle=ROOT))
    with pytest.raises(Refusal, match="is no bundle"):
        logic.begin({"2021-03-14": volumes}, settings=Settings(bundle=RA01))


# ---------------------------------------------------------------- what happens while somebody waits


def at_work(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Has something happen once while ``wait`` lets Slicer work, as a timer or a user does."""
    actions = [action]

    def work(pause: bool = True) -> None:
        if actions:
            actions.pop()()
        time.sleep(0.01)

    monkeypatch.setattr(prediction, "_let_slicer_work", work)


def poll_to_the_end(predictions: Predictions) -> list[Any]:
    events: list[Any] = []
    while predictions.is_running:
        events += predictions.poll()
        time.sleep(0.01)
    return events


def begin_and_send(predictions: Predictions, table: ExamTable, **settings: Any) -> None:
    """Begins a prediction, up to the moment when the worker has been asked."""
    predictions.begin(table.exams(), Settings(**settings))
    while not predictions.client.is_running:
        assert predictions.poll() == []


def cancelled_error(predictions: Predictions) -> WorkerError:
    with pytest.raises(WorkerError, match=r"^The prediction was cancelled\.$") as failed:
        predictions.wait()
    return failed.value


def test_waiting_for_a_cancelled_prediction_gives_no_other_patient_s_result(
    scene: Any, predictions: Predictions, client: WorkerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = one_exam(scene, "2021-03-04"), one_exam(scene, "2022-04-20")

    def begin_another() -> None:
        predictions.cancel()
        predictions.begin(second.exams(), Settings(explain="none"))

    predictions.begin(first.exams(), Settings(explain="none"))
    at_work(monkeypatch, begin_another)
    assert cancelled_error(predictions).code == "cancelled"
    assert predictions.is_running
    assert predictions.wait().prediction["landmark"] == "2022-04-20"
    assert left_in_scratch(client) == []


def test_a_prediction_that_begins_on_another_one_s_result_goes_on(scene: Any, predictions: Predictions) -> None:
    first, second = one_exam(scene, "2021-03-04"), one_exam(scene, "2022-04-20")

    def begin_another(event: Any) -> None:
        if isinstance(event, Shown):
            predictions.begin(second.exams(), Settings(explain="none"))

    predictions.begin(first.exams(), Settings(explain="none"))
    assert predictions.wait(begin_another).prediction["landmark"] == "2021-03-04"
    assert predictions.is_running
    assert predictions.wait().prediction["landmark"] == "2022-04-20"


def test_a_result_that_a_timer_polled_is_returned_all_the_same(
    scene: Any, predictions: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions.begin(one_exam(scene).exams(), Settings(explain="none"))
    at_work(monkeypatch, lambda: poll_to_the_end(predictions))
    assert predictions.wait().prediction["landmark"] == "2023-01-11"


def test_a_failure_that_a_timer_polled_is_raised_all_the_same(
    scene: Any, predictions: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions.begin(one_exam(scene).exams(), Settings(bundle=RA01))
    at_work(monkeypatch, lambda: poll_to_the_end(predictions))
    with pytest.raises(WorkerError) as failed:
        predictions.wait()
    assert failed.value.code == "missing_bundle_file"


def test_closing_the_scene_while_somebody_waits_is_told_as_cancelled(
    scene: Any, predictions: Predictions, client: WorkerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions.begin(one_exam(scene).exams(), Settings())
    at_work(monkeypatch, lambda: scene.Clear(True))
    assert cancelled_error(predictions).code == "cancelled"
    assert left_in_scratch(client) == []


@pytest.mark.parametrize("end", ["close", "cancel"])
def test_a_client_that_is_ended_by_another_ends_the_prediction(
    scene: Any, predictions: Predictions, client: WorkerClient, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    table = one_exam(scene)
    begin_and_send(predictions, table)
    at_work(monkeypatch, getattr(client, end))
    assert cancelled_error(predictions).code == "cancelled"
    begin_and_send(predictions, table)
    getattr(client, end)()
    (failure,) = predictions.poll()
    assert isinstance(failure, Failure)
    assert failure.error.code == "cancelled"
    assert not predictions.is_running
    assert predictions.poll() == []
    assert left_in_scratch(client) == []


def test_a_client_that_is_closed_while_volumes_are_written_ends_the_prediction(
    scene: Any, predictions: Predictions, client: WorkerClient
) -> None:
    predictions.begin(one_exam(scene).exams(), Settings())
    assert predictions.poll() == []
    client.close()
    (failure,) = predictions.poll()
    assert isinstance(failure, Failure)
    assert failure.error.code == "cancelled"
    assert left_in_scratch(client) == []


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Volumes that take longer to write than a window can stand still for."""
    monkeypatch.setattr("HCCNetSlicer.prediction._WRITING_SECONDS", 0)


def test_small_volumes_go_out_together(scene: Any, predictions: Predictions, client: WorkerClient) -> None:
    predictions.begin(one_exam(scene).exams(), Settings())
    predictions.poll()
    assert client.is_running


def test_the_window_gets_its_turn_after_every_large_volume(
    scene: Any, predictions: Predictions, client: WorkerClient, slowly: None
) -> None:
    predictions.begin(one_exam(scene).exams(), Settings())
    (folder,) = left_in_scratch(client)
    counts = []
    while not client.is_running:
        predictions.poll()
        counts.append(len(list(folder.glob("*.nii"))))
    assert counts == [1, 2, 3, 4, 4, 4]


def test_a_volume_that_is_removed_while_it_is_handed_over_is_a_failure_in_words(
    scene: Any, predictions: Predictions, client: WorkerClient, slowly: None
) -> None:
    table = one_exam(scene)
    predictions.begin(table.exams(), Settings())
    predictions.poll()
    table.rows[0].cells["DWI_b800"].node.SetAndObserveImageData(None)
    (failure,) = poll_to_the_end(predictions)
    assert failure.error.message.startswith("The exams could not be handed to the worker (")
    table = one_exam(scene)
    predictions.begin(table.exams(), Settings())
    predictions.poll()
    scene.RemoveNode(table.rows[0].cells["DWI_b800"].node)  # its transforms are gone with it
    (failure,) = poll_to_the_end(predictions)
    assert failure.error.message == (
        "DWI_b800 of exam 2023-01-11 was removed from the scene meanwhile. Look at the table, and predict again."
    )
    assert left_in_scratch(client) == []


def test_a_liver_that_is_moved_while_volumes_are_written_is_kept_as_it_went_out(
    scene: Any, predictions: Predictions, slowly: None
) -> None:
    table = one_exam(scene)
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "liver")
    roi.SetSize(60.0, 60.0, 60.0)
    roi.SetCenter(20.0, 0.0, 60.0)
    table.set_liver(table.rows[0].key, roi)
    predictions.begin(table.exams(), Settings(explain="none"))
    predictions.poll()
    roi.SetCenter(40.0, 10.0, 60.0)
    result = predictions.wait()
    roi.SetCenter(20.0, 0.0, 60.0)
    assert result.stale_reasons(Settings(explain="none").plain(table.exams())) == [
        "Chosen differently now: the liver of an exam."
    ]


# ---------------------------------------------------------------- nothing of one prediction reaches another


def test_two_who_share_a_worker_do_not_disturb_each_other(
    scene: Any, predictions: Predictions, client: WorkerClient
) -> None:
    table, other = one_exam(scene), Predictions(scene, client)
    predictions.begin(table.exams(), Settings(explain="none"))
    other.begin(table.exams(), Settings())  # while the first one is still writing
    begun = left_in_scratch(client)
    while not client.is_running:
        predictions.poll()
    (failure,) = [event for event in poll_to_the_end(other) if isinstance(event, Failure)]
    assert failure.error.message == "Another prediction is under way. Wait for its end, or cancel it."
    assert len(left_in_scratch(client)) == len(begun) - 1
    with pytest.raises(ValueError, match="under way"):
        other.begin(table.exams(), Settings())
    assert not other.is_running
    other.cancel()
    assert predictions.wait().prediction["landmark"] == "2023-01-11"
    scene.Clear(True)


def test_a_failure_of_a_cancelled_prediction_does_not_end_the_next(
    scene: Any, client: WorkerClient, tmp_path: Path
) -> None:
    own = WorkerClient([str(tmp_path / "PythonSlicer")], client._environment, scratch_root=tmp_path / "scratch")
    predictions, table = Predictions(scene, own), one_exam(scene)
    try:
        predictions.begin(table.exams(), Settings(explain="none"))
        predictions.cancel()
        own._command[:] = client._command  # repaired
        assert predict(predictions, table, explain="none").prediction["landmark"] == "2023-01-11"
        assert left_in_scratch(own) == []
    finally:
        predictions.close()


def test_a_result_that_nobody_waits_for_is_removed(scene: Any, predictions: Predictions, client: WorkerClient) -> None:
    begin_and_send(predictions, one_exam(scene), explain="none")
    predictions._end()
    while client.is_running:
        assert not [event for event in predictions.poll() if not isinstance(event, Progress)]
        time.sleep(0.01)
    assert left_in_scratch(client) == []
    assert Result.find(scene) is None


def test_a_result_that_meets_a_bug_is_a_failure(
    scene: Any, predictions: Predictions, client: WorkerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("Jane Doe")

    monkeypatch.setattr(prediction, "show_files", fail)
    predictions.begin(one_exam(scene).exams(), Settings(explain="none"))
    error = poll_to_the_end(predictions)[-1].error
    assert error.code == "internal"
    assert error.message == (
        "The result could not be shown (KeyError). Predict again; if it happens again, look at the details."
    )
    assert "test_prediction.py" in error.details
    assert error.details.endswith("KeyError")
    assert "Jane" not in error.message + error.details.replace('KeyError("Jane Doe")', "")  # the source's own line
    assert left_in_scratch(client) == []


def test_the_scene_does_not_keep_predictions_that_nobody_refers_to(scene: Any, client: WorkerClient) -> None:
    predictions = Predictions(scene, client)
    predictions.begin(one_exam(scene).exams(), Settings())
    reference = weakref.ref(predictions)
    del predictions
    gc.collect()
    assert reference() is None
    scene.Clear(True)
    client.cancel()


# ---------------------------------------------------------------- seen soon, whole a moment later


def poll_until_shown(predictions: Predictions) -> Result:
    while True:
        for event in predictions.poll():
            if isinstance(event, Shown):
                return event.result
            assert not isinstance(event, Failure), event
        time.sleep(0.02)


def test_the_map_that_is_seen_comes_first_and_the_others_with_the_next_look(
    scene: Any, predictions: Predictions
) -> None:
    predictions.begin(one_exam(scene).exams(), Settings())
    result = poll_until_shown(predictions)
    assert result.map_node(0) is not None
    assert result.map_node(0, "against") is None
    assert not predictions.is_complete
    assert predictions.poll() == []
    assert result.map_node(0, "against") is not None
    assert predictions.is_complete
    display = result.map_node(0, "against").GetDisplayNode()
    assert display.GetLowerThreshold() == pytest.approx(result.threshold)


def test_a_result_that_is_removed_at_once_gets_no_further_maps(scene: Any, predictions: Predictions) -> None:
    predictions.begin(one_exam(scene).exams(), Settings())
    poll_until_shown(predictions).remove()
    count = scene.GetNumberOfNodes()
    predictions.poll()
    assert scene.GetNumberOfNodes() == count


def test_views_and_lists_follow_once_when_a_result_is_built(
    scene: Any, predictions: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[int] = []
    application = types.SimpleNamespace(
        pauseRender=lambda: paused.append(1), resumeRender=lambda: paused.pop(), processEvents=lambda: None
    )
    monkeypatch.setattr("slicer.app", application, raising=False)
    ends, seen = [], []
    scene.AddObserver(scene.EndBatchProcessEvent, lambda *_: ends.append(True))

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def added(scene: Any, event: str, node: Any) -> None:
        seen.append((bool(scene.IsBatchProcessing()), bool(paused)))

    predictions.begin(one_exam(scene).exams(), Settings())
    scene.AddObserver(scene.NodeAddedEvent, added)
    predictions.wait()
    assert len(ends) == 2  # what is seen first, and the other maps
    assert sum(batch and pause for batch, pause in seen) >= len(seen) - 1  # all but the legend
    assert paused == []
