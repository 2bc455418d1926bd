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


def whole_percent(share: float) -> str:
    """A share 0-1 in whole percent, never a false 0 or 100."""
    return f"{min(max(100 * share, 0.0 if share <= 0 else 1.0), 100.0 if share >= 1 else 99.0):.0f}%"


def decimals(value: float | None, places: int = 2) -> str:
    """A number with fixed decimals; a dash where there is none."""
    return "–" if value is None else f"{value:.{places}f}"


def signed(value: float) -> str:
    """A number with two decimals and its sign; what rounds to 0 has none."""
    written = f"{value:+.2f}".replace("-", "−")
    return "0.00" if written in ("+0.00", "−0.00") else written
