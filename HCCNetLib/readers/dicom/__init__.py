"""DICOM of any vendor → patients with dated exams: headers by pydicom, geometry from positions alone."""

from HCCNetLib.readers.dicom.exams import NOTHING_SAYS, OTHER_B_VALUE, read_dicom, read_dicom_files
from HCCNetLib.readers.dicom.files import holds_dicom, is_dicom, is_dicom_folder

__all__ = [
    "NOTHING_SAYS",
    "OTHER_B_VALUE",
    "holds_dicom",
    "is_dicom",
    "is_dicom_folder",
    "read_dicom",
    "read_dicom_files",
]
