"""How well risks predict, by landmark and horizon: discrimination, calibration, usefulness, lead time. No torch."""
