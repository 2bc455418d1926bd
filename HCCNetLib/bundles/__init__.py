"""What is shipped: weights, configuration, calibration, hashes."""

from HCCNetLib.bundles.bundle import Bundle, write_bundle
from HCCNetLib.bundles.description import BundleDescription, Calibration, Member

__all__ = ["Bundle", "BundleDescription", "Calibration", "Member", "write_bundle"]
