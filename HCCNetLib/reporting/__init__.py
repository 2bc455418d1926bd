"""Figures and the self-contained HTML report. Imports nothing: the Slicer module takes colours and words from here."""
