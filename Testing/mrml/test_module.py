"""The module loads at once, in any Slicer, and knows nothing of torch."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "HCCNet"
SCRIPTS = sorted(MODULE.rglob("*.py"))
OURS = {"HCCNetSlicer", "HCCNetWindow", "HCCNetLib"}
OF_SLICER = {"slicer", "vtk", "numpy", "qt", "ctk"}


def test_there_is_something_to_look_at() -> None:
    assert len(SCRIPTS) > 15


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_at_file_scope_only_what_slicer_brings_is_imported(script: Path) -> None:
    """What reviewers of Slicer's extension index ask for: a module that always loads."""
    for module, line in imports_at_file_scope(script):
        package = module.split(".")[0]
        assert package in sys.stdlib_module_names | OURS | OF_SLICER, f"{script.name}:{line} imports {module}"


def imports_at_file_scope(script: Path) -> Iterator[tuple[str, int]]:
    for node in ast.parse(script.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.lineno


def test_loading_all_helpers_loads_no_heavy_package() -> None:
    helpers = [
        f"HCCNetSlicer.{path.stem}" for path in (MODULE / "HCCNetSlicer").glob("*.py") if path.stem != "__init__"
    ]
    code = (
        f"import sys, {', '.join(helpers)}\n"
        "print([name for name in ('torch', 'monai', 'nibabel', 'scipy', 'safetensors', 'pydicom') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (MODULE, ROOT)))}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
