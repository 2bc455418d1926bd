"""Prepared exams kept on disk, keyed by what the images hold and how they are prepared.

A changed file, another setting or another version of the pipeline is another key, so nothing here is ever out of date
and two runs may share a folder. An entry is one safetensors file; it names no patient. The pipeline's last step, the shift
and scale of each channel, is done when an entry is read: entries serve whatever is subtracted.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from HCCNetLib.preprocessing import PreparedExam, PreprocessingConfig, prepare_exam
from HCCNetLib.preprocessing.field import Window
from HCCNetLib.preprocessing.pipeline import PIPELINE_VERSION, normalise_channels
from HCCNetLib.records import Exam, Grid, Problem, Refusal


@dataclass(frozen=True)
class Preparation:
    """How exams are prepared, and how precisely they are kept.

    Args:
        channels: in the network's order.
        config: the pipeline's numbers.
        allow_missing: a missing channel becomes zeros.
        margin: voxels beyond the network's cube on every side, for crops drawn in training.
        half: kept in half precision; an error of at most 0.002 SD for values within ±4.
    """

    channels: tuple[str, ...]
    config: PreprocessingConfig
    allow_missing: bool = False
    margin: int = 0
    half: bool = False

    @property
    def kept(self) -> PreprocessingConfig:
        """The pipeline's numbers without its last step."""
        return replace(self.config, channel_mean=None, channel_sd=None)

    @property
    def kept_alike(self) -> Preparation:
        """The same for all preparations that share their entries."""
        return replace(self, config=self.kept)

    def prepare(self, exam: Exam, first: PreparedExam | None = None) -> PreparedExam:
        """Prepares an exam, without the last step; ``first`` is the patient's first one, prepared in the same way."""
        return prepare_exam(exam, self.channels, self.kept, self.allow_missing, self.margin, first)

    def key(self, exam: Exam, first: str | None = None) -> str:
        """Where the exam is kept: a digest of its images, of the liver that was given, and of all settings.

        Args:
            exam: the exam.
            first: key of the patient's first exam, onto which this one is moved where the settings say so.
        """
        images = {c: exam.images[c].fingerprint() for c in self.channels if c in exam.images}
        box = exam.liver_box
        content = {
            "pipeline": PIPELINE_VERSION,
            "settings": [self.kept.to_dict(), self.allow_missing, self.margin, self.half],
            "channels": list(self.channels),
            "images": images,
            "liver_mask": None if exam.liver_mask is None else exam.liver_mask.fingerprint(),
            "liver_box": None if box is None else [*box.low, *box.high],
            **({"first": first} if first and self.config.align_voxels else {}),
            "names": {c: exam.images[c].source for c in images},  # they stand in the problems that are kept
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class PreparedCache:
    """A folder of prepared exams.

    Args:
        folder: is made where it does not exist.
        preparation: of all exams that are asked for here.
    """

    def __init__(self, folder: Path, preparation: Preparation) -> None:
        self.folder = folder
        self.preparation = preparation

    def fill(self, patients: Sequence[Sequence[Exam]], processes: int = 1) -> Iterator[str | Refusal]:
        """Prepares what is not there yet; yields each exam's key, or why it can't be prepared, in order.

        Args:
            patients: the exams of each, oldest first.
            processes: at work at once; more than one need an importable main module (``spawn``).

        Raises:
            Refusal: the folder can't be written.
        """
        self._make_folder()
        if processes <= 1 or len(patients) <= 1:
            for exams in patients:
                yield from self._keys_or_refusals(exams)
            return
        executor = ProcessPoolExecutor(min(processes, len(patients)), mp_context=get_context("spawn"))
        try:
            yield from chain.from_iterable(executor.map(self._keys_or_refusals, patients))
        except BrokenProcessPool as error:
            message = "A process ended unexpectedly; memory may be short. Give the same command with fewer processes."
            raise Refusal("process_ended", message) from error
        finally:
            executor.shutdown(cancel_futures=True)

    def get(self, exams: Sequence[Exam]) -> list[PreparedExam]:
        """A patient's prepared exams, from the folder where they are there and whole; raises Refusal as ``prepare_exam`` does."""
        prepared: list[PreparedExam] = []
        first: str | None = None
        for exam in exams:
            key = self.preparation.key(exam, first)
            one = self._load(key, exam.exam_id)
            if one is None:
                self._make_folder()
                one = self.preparation.prepare(exam, prepared[0] if prepared else None)
                self._save(key, one)
            first = first or key
            prepared.append(one)
        return [replace(one, data=normalise_channels(one.data, self.preparation.config)) for one in prepared]

    def data(self, key: str) -> NDArray[Any]:
        """(C, X, Y, Z) of an entry that ``fill`` named, without the last step; raises Refusal where it is gone."""
        try:
            with safe_open(self._path(key), framework="numpy") as file:
                values: NDArray[Any] = file.get_tensor("data")
        except (OSError, SafetensorError) as error:
            raise self._damaged() from error
        return values

    def field(self, key: str) -> tuple[Window, Grid]:
        """What was read of an exam that ``fill`` named, and the grid of its first channel; raises Refusal where it is gone."""
        try:
            with safe_open(self._path(key), framework="numpy") as file:
                content = json.loads(file.metadata()["exam"])
            return _window(content), _grid(content["source_grid"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise self._damaged() from error

    def crops(self, key: str, places: Sequence[tuple[int, tuple[int, int, int], int]]) -> list[NDArray[Any]]:
        """Cubes of single channels of an entry, without the rest of it being read.

        Args:
            key: of the entry.
            places: per cube its channel, first voxel along each axis, and edge.

        Returns:
            (edge, edge, edge) each, in the precision in which entries are kept.

        Raises:
            Refusal: the entry is gone or damaged.
        """
        try:
            with safe_open(self._path(key), framework="numpy") as file:
                data = file.get_slice("data")
                return [data[(c, *(slice(s, s + edge) for s in start))] for c, start, edge in places]
        except (OSError, SafetensorError) as error:
            raise self._damaged() from error

    def _damaged(self) -> Refusal:
        return Refusal(
            "cache_damaged", f"A prepared exam in {self.folder} is gone or damaged. Give the same command again."
        )

    def _keys_or_refusals(self, exams: Sequence[Exam]) -> list[str | Refusal]:
        found: list[str | Refusal] = []
        first: tuple[str, Exam] | None = None  # the first that can be read
        for exam in exams:
            try:
                key = self.preparation.key(exam, first and first[0])
                if not self.has(key):
                    onto = None if first is None else self._load(first[0], "") or self.preparation.prepare(first[1])
                    self._save(key, self.preparation.prepare(exam, onto))
                first = first or (key, exam)
                found.append(key)
            except Refusal as refusal:
                if refusal.code == "cannot_write":
                    raise
                found.append(refusal)
        return found

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> Refusal:
        message = f"Prepared exams can't be kept in {self.folder}: {error.strerror or error}. Make room or choose another place."
        return Refusal("cannot_write", message)

    def _save(self, key: str, prepared: PreparedExam) -> None:
        dtype = np.float16 if self.preparation.half else np.float32
        self.put(key, prepared.data.astype(dtype), {"exam": json.dumps(_description(prepared))})

    def put(self, key: str, data: NDArray[Any], about: dict[str, str] | None = None) -> None:
        """Keeps an array (C, X, Y, Z) as the entry ``key``; raises Refusal where there is no room."""
        content = save({"data": np.ascontiguousarray(data)}, about)
        path = self._path(key)
        aside = path.with_name(f".{secrets.token_hex(6)}.part")
        try:
            path.parent.mkdir(exist_ok=True)
            aside.write_bytes(content)
            aside.replace(path)
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            with suppress(OSError):  # what stands in its way has been reported above
                aside.unlink()

    def has(self, key: str) -> bool:
        """Whether the entry is there; opening it compares the file's length with what its header announces."""
        path = self._path(key)
        try:
            if not path.is_file():
                return False
            with safe_open(path, framework="numpy") as file:
                return "data" in file.keys()  # noqa: SIM118 - not a dict
        except (OSError, SafetensorError):
            return False

    def _load(self, key: str, exam_id: str) -> PreparedExam | None:
        """The entry, or None where there is none or it is damaged and has to be made again."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                content = json.loads(file.metadata()["exam"])
                data = file.get_tensor("data").astype(np.float32)
            return _prepared(content, data, exam_id)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return None


def _description(prepared: PreparedExam) -> dict[str, Any]:
    """Everything of a prepared exam but its voxels and its name, as plain data."""
    return {
        "window": _grid_data(prepared.window.grid),
        "read": [[s.start, s.stop] for s in prepared.window.read],
        "source_grid": _grid_data(prepared.source_grid),
        "liver_fraction": prepared.liver_fraction,
        "problems": [[p.code, p.message] for p in prepared.problems],
    }


def _prepared(content: dict[str, Any], data: NDArray[np.float32], exam_id: str) -> PreparedExam:
    problems = tuple(Problem(code, message, exam_id) for code, message in content["problems"])
    liver = content["liver_fraction"]
    return PreparedExam(exam_id, data, _window(content), _grid(content["source_grid"]), liver, problems)


def _window(content: dict[str, Any]) -> Window:
    x, y, z = (slice(*ends) for ends in content["read"])
    return Window(_grid(content["window"]), (x, y, z))


def _grid_data(grid: Grid) -> dict[str, Any]:
    return {"shape": list(grid.shape), "affine": grid.affine.tolist()}


def _grid(content: dict[str, Any]) -> Grid:
    x, y, z = content["shape"]
    return Grid((x, y, z), np.array(content["affine"]))
