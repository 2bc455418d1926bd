"""A result's files and exams → nodes in the scene."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from HCCNetLib.records import Grid
from HCCNetSlicer import placement, result_nodes
from HCCNetSlicer.map_kinds import DIRECTIONS, KINDS, TOWARDS, add_colour_table, default_threshold
from HCCNetSlicer.record import Record, ShownExam, field_role, map_role, volume_role
from HCCNetSlicer.result_files import MapImage, ResultFiles
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
    """Adds all nodes but the maps and puts them where they belong in the subject hierarchy."""
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
        box, date = files.prediction["exams"][index]["field"]["box"], record.exams[index]["date"]
        field = result_nodes.add_field(scene, f"HCCNet field {date}", box)
        record.own(field_role(index), field)
        placement.place(scene, field, placement.study_of(scene, exam.present(scene)))
    _choose_shown_channels(record, files)


def add_maps(record: Record, files: ResultFiles, kinds: Iterable[str]) -> None:
    """Adds the maps of some kinds, each beside its exam in the subject hierarchy; those that are there already stay."""
    scene, threshold = record.scene, record.kept("state")["threshold"]
    for key in kinds:
        kind = KINDS[key]
        for index, exam in enumerate(record.exams):
            image = files.maps.get((key, index))
            if image is None or record.get(map_role(key, index)) is not None:
                continue
            name = result_nodes.titled(f"HCCNet {kind.words} {exam['date']}", files.prediction)
            node = result_nodes.add_map(scene, name, image, record.get(f"colours.{kind.direction}"))
            result_nodes.set_map_threshold(node, threshold)
            record.own(map_role(key, index), node)
            volumes = [volume for channel in exam["channels"] if (volume := record.volume(index, channel)) is not None]
            placement.place(scene, node, placement.study_of(scene, volumes))


def _common_nodes(scene: Any, files: ResultFiles) -> Iterator[tuple[str, Any]]:
    """Texts, tables and charts with their roles."""
    prediction = files.prediction
    yield "text.prediction", result_nodes.add_text(scene, "HCCNet prediction", files.text)
    yield "text.report", result_nodes.add_text(scene, "HCCNet report", files.report)
    risk, exams = result_nodes.add_risk_table(scene, prediction), result_nodes.add_exam_table(scene, prediction)
    tables, charts = {"table.risk": risk, "table.exams": exams}, result_nodes.charts(prediction)
    if "chart.horizons" in charts:
        tables["table.horizons"] = result_nodes.add_horizon_table(scene, prediction)
    yield from tables.items()
    for role, chart in charts.items():
        series = [result_nodes.add_series(scene, each, tables[each.table]) for each in chart.series]
        yield from zip((each.role for each in chart.series), series, strict=True)
        yield role, result_nodes.add_chart(scene, chart, series)


def _choose_shown_channels(record: Record, files: ResultFiles) -> None:
    """Shows of each exam the last channel on the map's grid, as the report does.

    Maps lie on the first channel's grid: without a map, that decides.
    """
    chosen = []
    for index, exam in enumerate(record.exams):
        volumes = [(channel, record.volume(index, channel)) for channel in exam["channels"]]
        images = (files.maps.get((kind, index)) for kind in KINDS)
        first = next((_grid_of_map(image) for image in images if image is not None), _grid_of(volumes[0][1]))
        on_grid = [channel for channel, volume in volumes if _matches(_grid_of(volume), first)]
        chosen.append({**exam, "shown": on_grid[-1] if on_grid else exam["shown"]})
    record.keep("exams", chosen)


def _grid_of(volume: Any) -> Grid | None:
    return None if volume is None or volume.GetImageData() is None else grid_of(volume)


def _grid_of_map(image: MapImage) -> Grid:
    x, y, z = image.voxels.shape
    return Grid((x, y, z), image.affine)


def _matches(one: Grid | None, other: Grid | None) -> bool:
    return one is not None and other is not None and one.matches(other)
