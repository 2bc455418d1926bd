"""How far nodules lie from where the patient's first exam has them, on the network's grid: mm, no pass or fail.

    python Testing/benchmarks/alignment.py [--patients N] [--seed N]

Phantoms of surveillance; each exam as it was taken, and moved onto the first one by up to 18 mm along each axis. A minute.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from HCCNetLib.preprocessing import PreprocessingConfig, prepare_patient
from HCCNetLib.preprocessing.geometry import world_to_index
from HCCNetLib.records import ArrayImage, Exam
from HCCNetLib.synthetic.phantom import Phantom, PhantomModel, draw_phantom
from HCCNetLib.synthetic.rendering import render_exam

CONFIG = PreprocessingConfig(spacing_mm=2.25, crop_voxels=48, liver_min_voxels=55)


def exams_of(model: PhantomModel, phantom: Phantom) -> list[Exam]:
    """A patient's exams in memory."""
    exams = []
    for number, date in enumerate(phantom.course.dates):
        rendered = render_exam(model, phantom, number)
        images = {
            name: ArrayImage(data.astype(np.float32), rendered.grid.affine, name)
            for name, data in rendered.images.items()
        }
        exams.append(Exam(date.isoformat(), date, images))
    return exams


def distances(model: PhantomModel, phantom: Phantom, exams: list[Exam], config: PreprocessingConfig) -> np.ndarray:
    """(N, 3) mm along each axis between each nodule's place at a later exam and at the first one."""
    centres = np.array([nodule.centre for nodule in phantom.nodules])
    places = [
        world_to_index(prepared.window.grid.affine, acquisition.to_patient(centres))
        for prepared, acquisition in zip(
            prepare_patient(exams, model.channels, config), phantom.acquisitions, strict=True
        )
    ]
    return config.spacing_mm * np.concatenate([later - places[0] for later in places[1:]])


def main() -> None:
    """Prints the root of the mean square along each axis, and quantiles of the distance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model = PhantomModel()
    phantoms = [draw_phantom(model, arguments.seed, index) for index in range(arguments.patients)]
    series = [(p, exams_of(model, p)) for p in phantoms if len(p.course.dates) > 1 and p.nodules]
    print("                    P     L     I  median   90%")
    for name, voxels in (("as it was taken", 0), ("moved", 8)):
        config = replace(CONFIG, align_voxels=voxels)
        found = np.concatenate([distances(model, phantom, exams, config) for phantom, exams in series])
        spread, far = np.sqrt((found**2).mean(axis=0)), np.quantile(np.linalg.norm(found, axis=1), (0.5, 0.9))
        print(f"{name:15s} {' '.join(f'{mm:5.1f}' for mm in (*spread, *far))}", flush=True)


if __name__ == "__main__":
    main()
