"""The fixture gives what a running Slicer gives, so that tests on it mean something."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("slicer", reason="there is no slicer-core for this system: no test on MRML is run")

import slicer.util
from mrml_helpers import add_patient, add_study, add_volume, hierarchy


def test_a_volume_in_a_study_tells_its_date(scene: Any) -> None:
    volume = add_volume(scene, "DWI_b0", np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([2.0, 3.0, 4.0, 1.0]))
    add_study(scene, add_patient(scene), "20210304", [volume])
    tree = hierarchy(scene)
    item = tree.GetItemByDataNode(volume)
    assert tree.GetAttributeFromItemAncestor(item, "DICOM.StudyDate", "Study") == "20210304"
    assert slicer.util.arrayFromVolume(volume).shape == (4, 3, 2)
    assert volume.GetSpacing() == (2.0, 3.0, 4.0)
