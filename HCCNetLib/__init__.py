"""HCCNet: the risk of future hepatocellular carcinoma from a patient's time series of liver MRI exams.

Research software, not a medical device. The rooms, from the ground floor up: records, readers, preprocessing, models,
bundles, inference, explanation, reporting, commands. A room imports only rooms named before it.
"""

from HCCNetLib.version import __version__

__all__ = ["__version__"]
