"""The house's rules about who may import whom."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "HCCNetLib"

# From the ground floor up. `version` and `compatibility` (of packages) import nothing: every room and Slicer may read them.
ROOMS = (
    *(
        "version",
        "compatibility",
        "records",
        "readers",
        "preprocessing",
        "models",
        "bundles",
        "inference",
        "explanation",
    ),
    *("evaluation", "training", "synthetic", "reporting", "commands"),
)
PREDICTION_PATH = (
    *(
        "version",
        "compatibility",
        "records",
        "readers",
        "preprocessing",
        "models",
        "bundles",
        "inference",
        "explanation",
    ),
)
PREDICTION_PACKAGES = {"torch", "numpy", "scipy", "nibabel", "safetensors", "pydicom"}
SLICER_PACKAGES = {"slicer", "vtk", "qt", "ctk", "PySide6", "PyQt5", "vtkmodules"}


def imports_of(file: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, also inside functions, with its line."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide which room is meant"
            yield node.module or "", node.lineno


def room_of(file: Path) -> str:
    return file.relative_to(LIBRARY).parts[0].removesuffix(".py")


def library_files() -> list[Path]:
    files = sorted(LIBRARY.rglob("*.py"))
    assert len(files) > 30
    return files


def test_every_room_is_on_the_list() -> None:
    rooms = {room_of(f) for f in library_files()} - {"__init__", "__main__"}
    assert rooms <= set(ROOMS)


@pytest.mark.parametrize("file", library_files(), ids=lambda f: str(f.relative_to(LIBRARY)))
def test_a_room_imports_only_rooms_below_it(file: Path) -> None:
    room = room_of(file)
    if room in ("__init__", "__main__"):
        return
    for module, line in imports_of(file):
        parts = module.split(".")
        if parts[0] == "HCCNetLib" and len(parts) > 1 and parts[1] != room:
            assert ROOMS.index(parts[1]) < ROOMS.index(room), f"{file}:{line} imports {module}"
        assert parts[0] not in SLICER_PACKAGES, f"{file}:{line} imports {module}"


@pytest.mark.parametrize("file", library_files(), ids=lambda f: str(f.relative_to(LIBRARY)))
def test_the_prediction_path_needs_few_packages(file: Path) -> None:
    if room_of(file) not in PREDICTION_PATH or file.parts[-2:] == ("preprocessing", "augmentation.py"):
        return
    for module, line in imports_of(file):
        package = module.split(".")[0]
        packages = PREDICTION_PACKAGES | ({"nrrd"} if room_of(file) == "readers" else set())
        allowed = package in sys.stdlib_module_names or package in packages or package == "HCCNetLib"
        assert allowed, f"{file}:{line} imports {module}"


def test_nothing_is_ever_unpickled() -> None:
    for file in library_files():
        text = file.read_text(encoding="utf-8")
        assert "pickle.load" not in text
        assert "weights_only=False" not in text
        assert "allow_pickle=True" not in text
        calls = re.findall(r"(?<!safetensors\.)torch\.load\((.*)\)", text)
        assert all(file.name == "convert.py" and "weights_only=True" in call for call in calls)


def test_the_slicer_module_knows_no_torch() -> None:
    for file in (ROOT / "HCCNet").rglob("*.py"):
        for module, line in imports_of(file):
            assert module.split(".")[0] not in {"torch", "monai"}, f"{file}:{line}"
