"""The phantom cohort: patients in whom growth per time decides, and an oracle that proves it."""
