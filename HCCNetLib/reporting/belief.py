"""How far the map can be believed: what a test with known lesions said, and how far the members agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from HCCNetLib.reporting.elements import has_no_meaning, rows, text
from HCCNetLib.reporting.numbers import whole_percent

# Mean correlation of the members' maps from which on the word holds.
_AGREEMENT = ((0.7, "agree closely"), (0.4, "agree in part"), (0.1, "agree little"), (-0.1, "do not agree"))
_OPPOSED = "contradict each other"


def belief(result: Mapping[str, Any]) -> str:
    """The box before the pictures; nothing where no map was made."""
    explanation = result.get("explanation")
    if not explanation:
        return ""
    return (
        f'<section class="belief"><h2>How far the map can be believed</h2>'
        f"<p>{_check(explanation.get('check'))}</p>{_reserve(result)}{_figures(result, explanation)}</section>"
    )


def _check(check: Mapping[str, Any] | None) -> str:
    """What the test found, against a random point; a missing test is told."""
    if not check:
        return "How faithful this map is has not been tested for this bundle."
    where = "On the phantom" if check["phantom"] else "On patients with known lesions"
    caution = " The phantom is simpler than a patient." if check["phantom"] else ""
    return (
        f"{where}, this map's peak in the latest exam lay within {check['within_mm']:g} mm of the lesion in {check['hits']} "
        f"of {check['patients']} patients who were diagnosed (inside it in {check['inside']}); a random point in the liver "
        f"would in "
        f"{whole_percent(check['random'])}.{caution}"
    )


def _reserve(result: Mapping[str, Any]) -> str:
    """A map of weights without meaning has none either, however it was tested."""
    if not has_no_meaning(result):
        return ""
    return '<p class="no-meaning">Demonstration: the map has no meaning for this patient.</p>'


def _figures(result: Mapping[str, Any], explanation: Mapping[str, Any]) -> str:
    """Cohort of the test, agreement, resolution and cost, as far as known."""
    agreement, cell, passes = (explanation.get(name) for name in ("agreement", "resolution_mm", "passes"))
    check = explanation.get("check")
    pairs = [("Tested on", text(check["cohort"]))] if check else []
    if agreement is not None:
        words = next((words for least, words in _AGREEMENT if agreement >= least), _OPPOSED)
        value = f"{agreement:.2f}".replace("-", "−")
        count = len(result["members"])
        pairs.append((f"Agreement of the {count} members", f"their maps {words} (mean correlation {value})"))
    if cell is not None:
        pairs.append(("Resolution", f"cells of {cell:g} mm at best; detail finer than this is interpolated"))
    scale, of_change = (explanation.get(name) for name in ("scale_logit", "change_scale_logit"))
    if scale is not None and of_change is not None:
        pairs.append(
            (
                "Scale",
                f"1 is {scale:.2g} units of the networks' output (logit) per cell; for what changed, {of_change:.2g}",
            )
        )
    if passes is not None:
        beyond = (
            "of the backbone per exam and member for these maps, beyond the prediction's own; what changed costs extra"
        )
        pairs.append(("Cost", f"{passes:g} forward passes {beyond}"))
    return rows(*pairs) if pairs else ""
