"""DICOM of any vendor → patients with dated exams: headers by pydicom, geometry from positions alone."""

from HCCNetLib.readers.dicom.exams import read_dicom
from HCCNetLib.readers.dicom.files import is_dicom, is_dicom_folder

__all__ = ["is_dicom", "is_dicom_folder", "read_dicom"]
