"""Exams side by side in time: a layout with an axial view for every exam, and the chart of the risk below them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

MOST = 12  # exams in the layout; of more, the latest
GROUP = 7250  # of the views, which scroll and zoom together; a layout's number is this and how many exams it shows
CHART_VIEW = "HCCNet"

_PER_ROW = 4
_CHART_SHARE = 350  # of 1000
_VIEW = re.compile(r"HCCNet(\d+)")


def register(layout: Any) -> None:
    """Makes the layouts known, also to a saved scene that is opened later.

    Args:
        layout: the vtkMRMLLayoutNode.
    """
    for count in range(1, MOST + 1):
        layout.AddLayoutDescription(GROUP + count, _description(count))


def layout_for(exams: int) -> int:
    """The number of the layout that shows this many exams."""
    return GROUP + min(exams, MOST)


def is_ours(layout: int) -> bool:
    """Whether a layout's number is one of ours."""
    return GROUP < layout <= GROUP + MOST


def is_view(name: str | None) -> bool:
    """Whether a view with this name in the layout is one of ours."""
    return _VIEW.fullmatch(name or "") is not None


def exam_of(name: str, exams: int) -> int | None:
    """Index of the exam that one of our views shows; None where there are fewer exams than views.

    Args:
        name: of the view.
        exams: how many the patient has.
    """
    found = _VIEW.fullmatch(name)
    number = int(found[1]) if found else 0
    return max(exams - MOST, 0) + number - 1 if 1 <= number <= min(exams, MOST) else None


def place_views(views: Sequence[Any], boxes: Sequence[np.ndarray], places: Sequence[np.ndarray]) -> None:
    """Turns views to axial slices on one scale, each through its place, in which all of its exam can be seen.

    Args:
        views: vtkMRMLSliceNode, whose sizes in pixels are known.
        boxes: per view the bounds (3, 2) of its exam, RAS mm.
        places: per view a point, RAS mm, that its slice goes through and that its picture is centred at.
    """
    if not views:
        return
    sizes = [np.maximum(view.GetDimensions()[:2], 1) for view in views]
    halves = [np.abs(box - place[:, None]).max(axis=1)[:2] for box, place in zip(boxes, places, strict=True)]
    scale = max(float((2 * half / size).max()) for half, size in zip(halves, sizes, strict=True))
    for view, size, place in zip(views, sizes, places, strict=True):
        was_modifying = view.StartModify()
        view.SetOrientationToAxial()
        view.SetXYZOrigin(0, 0, 0)
        view.SetFieldOfView(*(scale * size), view.GetFieldOfView()[2])
        view.JumpSliceByCentering(*place)
        view.EndModify(was_modifying)


def _description(count: int) -> str:
    """A layout as XML: rows of exams from the earliest to the latest, then the chart."""
    rows = -(-count // _PER_ROW)
    per_row = -(-count // rows)
    numbers = range(1, count + 1)
    lines = [_row([_view(n) for n in numbers[start : start + per_row]]) for start in range(0, count, per_row)]
    exams = "".join(f"<item>{line}</item>" for line in lines)
    return (
        f'<layout type="vertical" split="true">'
        f'<item splitSize="{1000 - _CHART_SHARE}"><layout type="vertical">{exams}</layout></item>'
        f'<item splitSize="{_CHART_SHARE}"><view class="vtkMRMLPlotViewNode" singletontag="{CHART_VIEW}">'
        f'<property name="viewlabel" action="default">{CHART_VIEW}</property></view></item>'
        f"</layout>"
    )


def _row(views: Sequence[str]) -> str:
    return f'<layout type="horizontal">{"".join(f"<item>{view}</item>" for view in views)}</layout>'


def _view(number: int) -> str:
    properties = {"orientation": "Axial", "viewlabel": number, "viewcolor": "#8C8C8C", "viewgroup": GROUP}
    inside = "".join(f'<property name="{key}" action="default">{value}</property>' for key, value in properties.items())
    return f'<view class="vtkMRMLSliceNode" singletontag="HCCNet{number}">{inside}</view>'
