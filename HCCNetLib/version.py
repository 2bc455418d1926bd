"""The version of the library, the command and the Slicer extension."""

__version__ = "0.1.0"
