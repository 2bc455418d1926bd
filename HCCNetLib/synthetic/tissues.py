"""What each tissue looks like in each channel, in arbitrary units before the exam's own intensity scale.

Diffusion-weighted signal is S0 · ((1 − f) · exp(−b · ADC) + f · exp(−b · D*)): f is the share of flowing blood, which is
gone at b 150 already. Values are plausible for the abdomen at 1.5 T with fat suppression; they are nobody's measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.records import Refusal

Signal = NDArray[np.float32]

DWI_CHANNELS = {"DWI_b0": 0.0, "DWI_b150": 150.0, "DWI_b400": 400.0, "DWI_b800": 800.0}
T1_CHANNELS = ("T1_native", "T1_arterial", "T1_venous", "T1_delayed")
CHANNELS = (*DWI_CHANNELS, *T1_CHANNELS)

_FLOW = 0.05  # mm²/s: pseudo-diffusion of flowing blood
_MIDDLING = 200.0  # the signal that a scanner's contrast leaves as it is


@dataclass(frozen=True)
class Tissue:
    """One tissue's signal.

    Args:
        s0: DWI signal at b 0.
        adc: apparent diffusion coefficient, 10⁻³ mm²/s.
        t1: signal native, arterial, venous, delayed.
        flow: share of the DWI signal that flows, 0–1.
    """

    s0: float
    adc: float
    t1: tuple[float, float, float, float]
    flow: float = 0.0

    def signal(self, channels: Sequence[str]) -> Signal:
        """Signal (C,) in the given channels."""
        return np.array([self._in(channel) for channel in channels], dtype=np.float32)

    def scaled(self, s0: float, adc: float, t1: float | Sequence[float]) -> Tissue:
        """The tissue with its signals and ADC multiplied by these factors."""
        a, b, c, d = (float(value) for value in np.array(self.t1) * t1)
        return replace(self, s0=self.s0 * s0, adc=self.adc * adc, t1=(a, b, c, d))

    def at_contrast(self, exponent: float) -> Tissue:
        """The tissue on a scanner that raises all signals, relative to a middling one, to a power."""
        a, b, c, d = (float(value) for value in _MIDDLING * (np.array(self.t1) / _MIDDLING) ** exponent)
        s0 = _MIDDLING * (self.s0 / _MIDDLING) ** exponent
        return replace(self, s0=s0, adc=self.adc * exponent, t1=(a, b, c, d))

    def _in(self, channel: str) -> float:
        if channel not in DWI_CHANNELS:
            return self.t1[T1_CHANNELS.index(channel)]
        b = DWI_CHANNELS[channel]
        return self.s0 * ((1 - self.flow) * np.exp(-b * self.adc * 1e-3) + self.flow * np.exp(-b * _FLOW))


TISSUES: Mapping[str, Tissue] = {
    "fat": Tissue(35, 0.2, (55, 55, 60, 60)),
    "muscle": Tissue(170, 1.5, (230, 250, 290, 290)),
    "mesentery": Tissue(150, 1.5, (170, 200, 240, 240)),
    "lung": Tissue(30, 1.0, (30, 40, 45, 45)),
    "heart": Tissue(230, 1.6, (230, 480, 420, 380), flow=0.6),
    "stomach": Tissue(420, 2.6, (130, 140, 150, 150)),
    "liver": Tissue(210, 1.10, (310, 350, 470, 440), flow=0.08),
    "spleen": Tissue(390, 0.85, (220, 480, 450, 400), flow=0.05),
    "kidney": Tissue(420, 1.9, (240, 560, 580, 520), flow=0.1),
    "blood": Tissue(260, 1.6, (180, 420, 640, 540), flow=0.85),
    "aorta": Tissue(180, 1.6, (170, 900, 620, 500), flow=0.95),
    "bile": Tissue(820, 2.9, (130, 130, 130, 140)),
    "cyst": Tissue(760, 2.7, (120, 120, 125, 130)),
    "nodule": Tissue(150, 1.05, (370, 380, 440, 410), flow=0.05),
    "marrow": Tissue(150, 0.6, (190, 230, 270, 270)),
    "disc": Tissue(230, 1.7, (160, 170, 190, 200)),
    "fluid": Tissue(900, 2.9, (70, 70, 75, 80)),
}


def lesion_tissue(s0_ratio: float, adc: float) -> Tissue:
    """The target lesion: restricted diffusion, arterial enhancement, wash-out; ``s0_ratio`` is relative to the liver."""
    return Tissue(TISSUES["liver"].s0 * s0_ratio, adc, (240, 520, 400, 330), flow=0.05)


def check_channels(channels: Sequence[str]) -> None:
    """Refuses channels that the phantom can't show.

    Raises:
        Refusal: an unknown channel, one named twice, or none.
    """
    unknown = [channel for channel in channels if channel not in CHANNELS]
    if unknown or not channels or len(set(channels)) < len(channels):
        what = f"{', '.join(unknown)} can't be made" if unknown else "Name each channel once, and at least one"
        raise Refusal("bad_channels", f"{what}. The phantom has the channels {', '.join(CHANNELS)}.")
