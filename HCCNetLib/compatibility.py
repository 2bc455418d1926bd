"""Which versions of packages go together; asked without importing them, so that Slicer's own process may ask too."""

from __future__ import annotations

import re
from importlib import metadata

TORCH_FOR_NUMPY_2 = (2, 3)


def installed_version(name: str) -> str | None:
    """A package's version, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def version_numbers(version: str | None) -> tuple[int, int]:
    """The first two numbers of a version, with which versions are compared; (0, 0) for None."""
    numbers = [int(n) for n in re.findall(r"\d+", (version or "").split("+")[0])[:2]]
    major, minor = (*numbers, 0, 0)[:2]
    return major, minor


def find_torch_problem(torch_version: str | None, numpy_version: str | None) -> str | None:
    """Why this torch can't exchange arrays with this numpy, in words; None if it can or one of them is missing."""
    if torch_version is None or version_numbers(numpy_version) < (2, 0):
        return None
    if version_numbers(torch_version) >= TORCH_FOR_NUMPY_2:
        return None
    return (
        f"torch {torch_version} was built for numpy 1 and can't exchange arrays with numpy {numpy_version}. "
        "Update torch to 2.3 or newer; in Slicer leave numpy as it is."
    )
