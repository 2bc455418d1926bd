"""The sample patient in Slicer's module Sample Data, from the library's own files: no network is needed."""

from __future__ import annotations

import hashlib
from pathlib import Path

CATEGORY = "HCCNet"
NAME = "HCCNet sample patient (4 exams)"


def register_sample_data(icon: Path) -> None:
    """Offers the sample patient in the module Sample Data; a second call changes nothing.

    To be called when the application has started: before, the module Sample Data may not be there yet.

    Args:
        icon: a picture for the button.
    """
    import SampleData

    files = _sample_files()
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=NAME,
        # Slicer takes addresses alone, also of files; and it copies them into its cache, where all names must differ.
        uris=[file.as_uri() for file in files],
        fileNames=[f"HCCNet-{file.parents[1].name}-{file.parent.name}-{file.name}" for file in files],
        # Channel and date in the name: so the table of the exams finds both.
        nodeNames=[f"{file.name.removesuffix('.nii.gz')} {file.parent.name}" for file in files],
        # Without them Slicer would go on showing what an earlier version of the extension put into its cache.
        checksums=[f"SHA256:{hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files],
        thumbnailFileName=str(icon),
    )


def _sample_files() -> list[Path]:
    """The sample patient's images, by date."""
    import HCCNetLib

    return sorted(Path(HCCNetLib.__file__).resolve().parent.glob("samples/RA01/*/*.nii.gz"))
