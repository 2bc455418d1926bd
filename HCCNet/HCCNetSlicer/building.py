"""A result's files and exams → nodes in the scene."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from HCCNetSlicer import placement, result_nodes
from HCCNetSlicer.map_kinds import DIRECTIONS, KINDS, TOWARDS, add_colour_table, default_threshold
from HCCNetSlicer.record import SERIES, Record, ShownExam, field_role, map_role, volume_role
from HCCNetSlicer.result_files import ResultFiles
from HCCNetSlicer.staleness import kept_path
from HCCNetSlicer.volumes import grid_of

_DEFAULT_OPACITY = 0.6


def describe(
    record: Record, exams: Sequence[ShownExam], prediction: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Keeps in the script node what is no node: what the prediction was made from, and how it is shown."""
    bundle = {name: prediction["bundle"][name] for name in ("name", "version", "sha256")}
    path = kept_path(settings.get("bundle"))
    record.keep("bundle", {**bundle, "path": path})
    record.keep("settings", {**settings, "bundle": path} if "bundle" in settings else dict(settings))
    state = {"exam": 0, "kind": TOWARDS.key, "field": False}
    record.keep("state", {**state, "threshold": default_threshold(), "opacity": _DEFAULT_OPACITY})
    described = [
        {
            "exam_id": exam.exam_id,
            "date": exam.date.isoformat(),
            "channels": list(exam.volumes),
            "shown": next(iter(exam.volumes)),
            "maps": [key for key, kind in KINDS.items() if kind.file_of(predicted) is not None],
            "fingerprints": exam.fingerprints,
        }
        for exam, predicted in zip(exams, prediction["exams"], strict=True)
    ]
    record.keep("exams", described)
    notice = str(prediction["notice"])
    record.node.SetDescription(notice)
    record.node.SetAttribute("HCCNet.notice", notice)
    if result_nodes.has_no_meaning(prediction):
        record.keep_meaning(result_nodes.NO_MEANING)


def build(record: Record, exams: Sequence[ShownExam], files: ResultFiles) -> None:
    """Adds the nodes and puts them where they belong in the subject hierarchy."""
    scene = record.scene
    folder = placement.add_folder(scene, [volume for exam in exams for volume in exam.present(scene)])
    placement.place(scene, record.node, folder)
    for role, node in _common_nodes(scene, files):
        record.own(role, node)
        placement.place(scene, node, folder)
    for direction in DIRECTIONS:
        if any(KINDS[kind].direction == direction for kind, _ in files.maps):
            table = add_colour_table(scene, direction, f"HCCNet {direction} output")
            record.own(f"colours.{direction}", table)
    for index, exam in enumerate(exams):
        for number, volume in enumerate(exam.volumes.values()):
            if volume.GetScene() is scene:
                record.refer(volume_role(index, number), volume)
        study = placement.study_of(scene, exam.present(scene))
        for role, node in _exam_nodes(record, index, files):
            record.own(role, node)
            placement.place(scene, node, study)
    _choose_shown_channels(record)


def _common_nodes(scene: Any, files: ResultFiles) -> Iterator[tuple[str, Any]]:
    """Texts, tables and charts with their roles."""
    prediction = files.prediction
    yield "text.prediction", result_nodes.add_text(scene, "HCCNet prediction", files.text)
    yield "text.report", result_nodes.add_text(scene, "HCCNet report", files.report)
    risk, exams = result_nodes.add_risk_table(scene, prediction), result_nodes.add_exam_table(scene, prediction)
    yield from (("table.risk", risk), ("table.exams", exams))
    chart, series = result_nodes.add_risk_chart(scene, prediction, risk, exams)
    yield from zip(("chart.risk", *SERIES["chart.risk"]), (chart, *series), strict=True)
    chart, series = result_nodes.add_attention_chart(scene, prediction, exams)
    yield from zip(("chart.attention", *SERIES["chart.attention"]), (chart, *series), strict=True)


def _exam_nodes(record: Record, index: int, files: ResultFiles) -> Iterator[tuple[str, Any]]:
    """Maps and field of an exam with their roles."""
    scene, date, prediction = record.scene, record.exams[index]["date"], files.prediction
    for kind in KINDS.values():
        image = files.maps.get((kind.key, index))
        if image is not None:
            name = result_nodes.titled(f"HCCNet {kind.words} {date}", prediction)
            node = result_nodes.add_map(scene, name, image, record.get(f"colours.{kind.direction}"))
            result_nodes.set_map_threshold(node, record.kept("state")["threshold"])
            yield map_role(kind.key, index), node
    box = prediction["exams"][index]["field"]["box"]
    yield field_role(index), result_nodes.add_field(scene, f"HCCNet field {date}", box)


def _choose_shown_channels(record: Record) -> None:
    """Shows of each exam the last channel on the map's grid, as the report does.

    Maps lie on the first channel's grid: without a map, that decides.
    """
    chosen = []
    for index, exam in enumerate(record.exams):
        volumes = [(channel, record.volume(index, channel)) for channel in exam["channels"]]
        maps = (record.get(map_role(kind, index)) for kind in KINDS)
        first = next((node for node in maps if node is not None), volumes[0][1])
        on_grid = [channel for channel, volume in volumes if _share_grid(volume, first)]
        chosen.append({**exam, "shown": on_grid[-1] if on_grid else exam["shown"]})
    record.keep("exams", chosen)


def _share_grid(one: Any, other: Any) -> bool:
    if any(node is None or node.GetImageData() is None for node in (one, other)):
        return False
    return grid_of(one).matches(grid_of(other))
