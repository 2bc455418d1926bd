"""The HCCNet module's window, panel by panel; what it does stands in HCCNetSlicer."""
