"""How surveillance looks: what of a picture changes from patient to patient and from exam to exam, whatever the disease does.

The disease must not be readable from brightness alone. So nodules may be bright, dark, or like the liver in some channels,
each in its own way and at each exam more or less; and much else is bright: fluid, vessels, bowel, gallbladder, spleen.
Tumours and benign solid nodules have one distribution of looks, and nothing here depends on diameters or outcomes.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from HCCNetLib.records import months_between
from HCCNetLib.synthetic.shapes import Ellipsoid
from HCCNetLib.synthetic.tissues import TISSUES, Tissue

Range = tuple[float, float]

_MONTHS_PER_YEAR = 12
_LOOPS_FROM, _LOOPS_TO = (-100.0, -30.0, -110.0), (110.0, 80.0, 10.0)  # mm


@dataclass(frozen=True)
class NoduleType:
    """One way of solid nodules to look; natural logarithms of the ratio to the liver, each drawn uniformly.

    Args:
        share: of nodules.
        s0: DWI signal at b 0.
        adc: apparent diffusion coefficient.
    """

    share: float
    s0: Range
    adc: Range


@dataclass(frozen=True)
class NoduleLooks:
    """Looks of solid nodules; natural logarithms of the ratio to the liver.

    Args:
        types: restricted diffusion, T2 shine-through, dark.
        t1: native, arterial, venous, delayed, each drawn uniformly per nodule.
        strength: factor of all of these at each exam, uniform.
        change: SD of each at each exam, besides.
        iso_fraction: chance of each T1 phase, at each exam, to show a nodule like the liver.
    """

    types: tuple[NoduleType, ...] = (
        NoduleType(0.5, (0.0, 0.35), (-0.55, -0.2)),
        NoduleType(0.25, (0.35, 0.7), (0.1, 0.5)),
        NoduleType(0.25, (-0.55, -0.25), (-0.15, 0.2)),
    )
    t1: tuple[Range, Range, Range, Range] = ((-0.35, 0.25), (-0.2, 0.6), (-0.45, 0.2), (-0.55, 0.1))
    strength: Range = (0.7, 1.4)
    change: float = 0.05
    iso_fraction: float = 0.2


@dataclass(frozen=True)
class LooksModel:
    """The range of looks; SDs are of natural logarithms.

    Args:
        nodules: solid nodules.
        liver_patient: SD of the liver's signal between patients (iron, steatosis).
        liver_drift: SD of its slope between patients, per year.
        liver_exam: SD from exam to exam.
        liver_adc: SD of its diffusion coefficient, between patients and from exam to exam each.
        tissue_signal: SD of every other tissue's signals, from exam to exam.
        tissue_adc: SD of its diffusion coefficient.
        flow: share of blood that flows, uniform at each exam.
        texture: SD of the liver's signal, as a fraction, uniform per exam.
        bowel_contrast: SD of what fills the cavity, as a fraction, uniform per exam.
        loops: mean number (Poisson) of bowel loops with fluid or faeces at an exam.
        loop_radius: their semi-axes, mm.
        loop_s0, loop_adc, loop_t1: their look, uniform (10⁻³ mm²/s).
        gallbladder: size at an exam, relative.
        spleen: size per patient, relative.
        ascites_fraction: chance of a patient to have fluid around the liver at times.
        ascites: its thickness in such a patient's exams, mm, uniform.
    """

    nodules: NoduleLooks = field(default_factory=NoduleLooks)
    liver_patient: float = 0.2
    liver_drift: float = 0.04
    liver_exam: float = 0.12
    liver_adc: float = 0.06
    tissue_signal: float = 0.18
    tissue_adc: float = 0.12
    flow: Range = (0.3, 0.9)
    texture: Range = (0.04, 0.08)
    bowel_contrast: Range = (0.2, 0.5)
    loops: float = 9.0
    loop_radius: Range = (7.0, 20.0)
    loop_s0: Range = (60.0, 700.0)
    loop_adc: Range = (0.7, 2.6)
    loop_t1: Range = (90.0, 520.0)
    gallbladder: Range = (0.6, 1.15)
    spleen: Range = (0.9, 1.35)
    ascites_fraction: float = 0.3
    ascites: Range = (-3.0, 8.0)


@dataclass(frozen=True)
class ExamLooks:
    """How one exam looks, apart from the solid nodules.

    Args:
        texture: SD of the liver's signal, as a fraction.
        bowel_contrast: SD of what fills the cavity, as a fraction.
        tissues: by name.
        sizes: factor of an organ's size, by name; 1 where none is given.
        ascites: thickness of the fluid around the liver, mm; none at 0 or below.
        loops: of the bowel, in anatomical space before the breath.
    """

    texture: float = 0.06
    bowel_contrast: float = 0.3
    tissues: Mapping[str, Tissue] = field(default_factory=lambda: TISSUES)
    sizes: Mapping[str, float] = field(default_factory=dict)
    ascites: float = 0.0
    loops: tuple[tuple[Ellipsoid, Tissue], ...] = ()


def draw_looks(
    model: LooksModel, dates: Sequence[datetime.date], contrasts: Sequence[float], rng: np.random.Generator
) -> tuple[ExamLooks, ...]:
    """Draws how a patient's exams look.

    Args:
        model: the range.
        dates: of the exams.
        contrasts: of the scanners on which they were taken.
        rng: draws everything.
    """
    liver = model.liver_patient * rng.standard_normal(2)
    drift = model.liver_drift * rng.standard_normal(2)
    adc = model.liver_adc * rng.standard_normal()
    spleen = float(rng.uniform(*model.spleen))
    has_ascites = bool(rng.random() < model.ascites_fraction)
    looks = []
    for date, contrast in zip(dates, contrasts, strict=True):
        years = months_between(dates[0], date) / _MONTHS_PER_YEAR
        s0, t1 = np.exp(liver + drift * years + model.liver_exam * rng.standard_normal(2))
        factor = float(np.exp(adc + model.liver_adc * rng.standard_normal()))
        tissues = {name: _varied(model, tissue, rng) for name, tissue in TISSUES.items()}
        tissues["liver"] = TISSUES["liver"].scaled(float(s0), factor, float(t1))
        flow = float(rng.uniform(*model.flow))
        tissues["blood"] = replace(tissues["blood"], flow=flow)
        thickness = float(rng.uniform(*model.ascites))
        looks.append(
            ExamLooks(
                texture=float(rng.uniform(*model.texture)),
                bowel_contrast=float(rng.uniform(*model.bowel_contrast)),
                tissues={name: tissue.at_contrast(contrast) for name, tissue in tissues.items()},
                sizes={"gallbladder": float(rng.uniform(*model.gallbladder)), "spleen": spleen},
                ascites=thickness if has_ascites else 0.0,
                loops=_draw_loops(model, contrast, rng),
            )
        )
    return tuple(looks)


def draw_nodule(model: NoduleLooks, livers: Sequence[Tissue], rng: np.random.Generator) -> tuple[Tissue, ...]:
    """Draws how a solid nodule looks at each exam, in livers that look so."""
    shares = [kind.share for kind in model.types]
    kind = model.types[int(rng.choice(len(shares), p=np.array(shares) / sum(shares)))]
    typical = np.array([rng.uniform(*values) for values in (kind.s0, kind.adc, *model.t1)])
    tissues = []
    for liver in livers:
        look = rng.uniform(*model.strength) * typical
        look += model.change * rng.standard_normal(len(look))
        look[2:] *= rng.random(4) >= model.iso_fraction
        ratio = np.exp(look)
        tissues.append(liver.scaled(float(ratio[0]), float(ratio[1]), ratio[2:].tolist()))
    return tuple(tissues)


def _varied(model: LooksModel, tissue: Tissue, rng: np.random.Generator) -> Tissue:
    """A tissue at one exam."""
    s0, t1 = np.exp(model.tissue_signal * rng.standard_normal(2))
    return tissue.scaled(float(s0), float(np.exp(model.tissue_adc * rng.standard_normal())), float(t1))


def _draw_loops(model: LooksModel, contrast: float, rng: np.random.Generator) -> tuple[tuple[Ellipsoid, Tissue], ...]:
    """Bowel below and in front of the liver; what lies in an organ is painted over."""
    loops = []
    for _ in range(int(rng.poisson(model.loops))):
        x, y, z = (float(value) for value in rng.uniform(_LOOPS_FROM, _LOOPS_TO))
        a, b, c = (float(value) for value in rng.uniform(*model.loop_radius, 3))
        t1 = float(rng.uniform(*model.loop_t1))
        tissue = Tissue(float(rng.uniform(*model.loop_s0)), float(rng.uniform(*model.loop_adc)), (t1,) * 4)
        loops.append((Ellipsoid((x, y, z), (a, b, c)), tissue.at_contrast(contrast)))
    return tuple(loops)
