"""What is shipped: weights, configuration, calibration, hashes."""

from HCCNetLib.bundles.bundle import DEMONSTRATION_BUNDLE, Bundle, write_bundle
from HCCNetLib.bundles.description import BundleDescription, Calibration, Member

__all__ = ["DEMONSTRATION_BUNDLE", "Bundle", "BundleDescription", "Calibration", "Member", "write_bundle"]
