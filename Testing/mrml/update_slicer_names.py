"""Writes slicer_names.json anew: of an inventory taken in a running Slicer, the part that this project uses.

    python Testing/mrml/update_slicer_names.py FULL_INVENTORY

To be run when test_names.py does not find a name that Slicer has. Of every class, module and object that the code names, all
members are written (of qt.Qt those that are used); of other classes only the members that the code uses, each with a class
that has it ("elsewhere"). What is used and not in the inventory is printed: a mistake, or a name to be read in Slicer's
sources (READ_IN_SOURCES in name_checker.py).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import slicer
from name_checker import CALL, INVENTORY, READ_IN_SOURCES, SUBMODULES, WIDGETS, Names, Uses, uses_of_project


def part_used(full: Mapping[str, Any], uses: Uses) -> dict[str, Any]:
    """The part of an inventory that covers what is used."""
    chains = {steps for steps, _ in uses.chains}
    seconds = {steps[:2] for steps in chains}
    part: dict[str, Any] = {
        "seen_in": full["seen_in"],
        "QObject": _text(full["QObject"]),
        "QWidget": _text(full["QWidget"]),
        "slicer_names": _text(
            name for name in full["slicer_names"] if ("slicer", name) in seconds and not hasattr(slicer, name)
        ),
        "slicer.app": _text(full["slicer.app"]),
        "SampleData": _text(full["SampleData"]),
    }
    named = {steps[1] for steps in chains if len(steps) > 1} | {cls for cls, _, _ in uses.widgets}
    if ("slicer", "modules") in seconds:
        named.add("qSlicerLoadableModule")
    for section in WIDGETS:
        part[section] = {
            name: {"is": entry["is"], "names": _text(entry["names"])}
            for name, entry in sorted(full[section].items())
            if name in named
        }
    for name in SUBMODULES:
        if ("slicer", name) in seconds:
            part[f"slicer.{name}"] = {key: _members(value) for key, value in sorted(full[f"slicer.{name}"].items())}
    if "Qt" in part["qt"]:  # a thousand constants
        values = {steps[2] for steps in chains if steps[:2] == ("qt", "Qt") and len(steps) > 2}
        part["qt"]["Qt"]["names"] = _text(values & set(full["qt"]["Qt"]["names"]))
    thirds = {steps[2] for steps in chains if steps[:2] == ("slicer", "modules") and len(steps) > 2}
    part["slicer.modules"] = {
        name: {"logic_names": _text(full["slicer.modules"][name]["logic_names"] or ())}
        for name in sorted(thirds & set(full["slicer.modules"]))
    }
    part["instances"] = {
        written: _text(names)
        for written, names in sorted(full["instances"].items())
        if written != "slicer.mrmlScene"  # a real class
        and any(".".join(steps).replace(f".{CALL}", CALL).startswith(written) for steps in chains)
    }
    missing = {problem.name for problem in Names(part).problems(uses)}
    part["elsewhere"] = dict(sorted({name: place for name, place in _places(full) if name in missing}.items()))
    return dict(sorted(part.items()))


def _places(full: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every name and something that has it; simple things come last, so that a dict keeps them."""
    for section in ("slicer.parameterNodeWrapper", "instances", *reversed(WIDGETS)):
        for owner, entry in sorted(full[section].items(), reverse=True):
            names = entry["names"] if section in WIDGETS else entry
            if not isinstance(names, str):
                yield from ((name, owner) for name in names)


def _members(value: Any) -> str:
    """The members of a class; nothing of a function."""
    return "" if isinstance(value, str) else _text(value)


def _text(names: Iterable[str]) -> str:
    return " ".join(sorted(names))


def main() -> int:
    """Writes the file; 1 where something is used that the inventory lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inventory", type=Path)
    full = json.loads(parser.parse_args().inventory.read_text(encoding="utf-8"))
    uses = uses_of_project()
    part = part_used(full, uses)
    INVENTORY.write_text(json.dumps(part, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    problems = [problem for problem in Names(part).problems(uses) if problem.name not in READ_IN_SOURCES]
    print(*problems, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
