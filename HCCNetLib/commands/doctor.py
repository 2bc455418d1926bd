"""``hccnet doctor``: versions, devices, memory, and combinations known to be bad."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from HCCNetLib.compatibility import find_torch_problem, installed_version, version_numbers
from HCCNetLib.version import __version__

HELP = "show versions, devices and memory, and combinations known to be bad"

REQUIRED = ("torch", "numpy", "scipy", "nibabel", "safetensors")
# pydicom reads DICOM, the next two packages decode what is compressed in it, pynrrd reads NRRD.
OPTIONAL = ("pydicom", "pylibjpeg-openjpeg", "python-gdcm", "pynrrd", "monai", "scikit-learn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(arguments: argparse.Namespace) -> int:
    """Prints what there is; 1 where something will not work."""
    print(f"hccnet {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    for name in (*REQUIRED, *OPTIONAL):
        print(f"{name} {installed_version(name) or 'not installed (optional)'}")
    print(f"processors {os.cpu_count()}, torch uses {torch.get_num_threads()} threads")
    print(f"memory {_gib(total_memory())}, free space here {_gib(shutil.disk_usage(Path.cwd()).free)}")
    for line in _gpus():
        print(line)
    for note in find_notes(installed_version):
        print(f"note: {note}")
    problems = find_problems(installed_version, works=torch_and_numpy_work)
    for problem in problems:
        print(f"problem: {problem}")
    if not problems:
        print("No problem found.")
    return 1 if problems else 0


def find_problems(version_of: Callable[[str], str | None], works: Callable[[], bool]) -> list[str]:
    """Combinations with which prediction does not work, in words.

    Args:
        version_of: package → version or None.
        works: whether torch and numpy can exchange arrays.
    """
    problem = find_torch_problem(version_of("torch"), version_of("numpy"))
    if problem is not None:
        return [problem]
    return [] if works() else ["torch and numpy can't exchange arrays. Install torch again."]


def find_notes(version_of: Callable[[str], str | None]) -> list[str]:
    """What does not stop prediction but is good to know; ``version_of``: package → version or None."""
    notes = []
    torch_version = version_numbers(version_of("torch"))
    if version_of("monai") is not None and torch_version < (2, 4):
        notes.append(
            f"Current MONAI needs a newer torch than {version_of('torch')}. Prediction does not need MONAI; training does."
        )
    if torch_version < (2, 6):
        notes.append("Below torch 2.6, `hccnet bundle convert` refuses .pth checkpoints; .safetensors are read.")
    if version_of("pydicom") is not None and version_numbers(version_of("pydicom")) < (3, 0):
        notes.append(f'Reading DICOM needs pydicom 3; {version_of("pydicom")} is installed: pip install "pydicom>=3".')
    return notes


def torch_and_numpy_work() -> bool:
    """Whether an array goes to torch and back."""
    try:
        return bool(torch.from_numpy(np.ones(2, dtype=np.float32)).numpy().sum() == 2)
    except RuntimeError:
        return False


def total_memory() -> int | None:
    """Bytes of memory, or None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**30:.1f} GiB"


def _gpus() -> list[str]:
    if not torch.cuda.is_available():
        return ["GPU none that torch can use: prediction runs on the processor"]
    return [
        f"GPU {p.name}, {_gib(p.total_memory)}"
        for p in (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
    ]
