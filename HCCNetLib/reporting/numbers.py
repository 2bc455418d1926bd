"""How the report writes numbers."""

from __future__ import annotations


def percent(share: float | None) -> str:
    """A risk 0-1 in percent with one decimal; a dash where there is none. Never a false 0 or 100."""
    if share is None:
        return "–"
    if 0 < share < 0.0005:
        return "&lt;0.1%"
    if 0.9995 <= share < 1:
        return "&gt;99.9%"
    return f"{100 * share:.1f}%"


def decimals(value: float | None, places: int = 2) -> str:
    """A number with fixed decimals; a dash where there is none."""
    return "–" if value is None else f"{value:.{places}f}"
