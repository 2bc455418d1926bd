"""Embeddings of a frozen backbone, computed once per exam and augmentation draw, and kept.

A patient's exams share the flips and the rotation of a draw, as in fine-tuning; place and intensities are each exam's own.
One file per patient, keyed by backbone, exams and all that is drawn: it is never out of date, and a run that was stopped
goes on with the next patient.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from HCCNetLib.inference.cache import PreparedCache
from HCCNetLib.models.convnext3d import ConvNeXt3d
from HCCNetLib.preprocessing.augmentation import (
    ExamChange,
    Turn,
    draw_change,
    draw_turn,
    drop_channels,
    unchanged,
)
from HCCNetLib.preprocessing.pipeline import PIPELINE_VERSION
from HCCNetLib.records import Refusal
from HCCNetLib.training.checkpoint import write_whole
from HCCNetLib.training.digests import weights_digest
from HCCNetLib.training.distributed import Workers
from HCCNetLib.training.examples import Example
from HCCNetLib.training.images import read_images
from HCCNetLib.training.settings import EncoderConfig, FinetuneConfig

EMBEDDINGS_FOLDER = "embeddings"
_DRAW = 3
_PER_PASS = 16  # exams


@dataclass(frozen=True)
class Reading:
    """How the exams of a patient are read in one draw.

    Args:
        turn: of all exams.
        changes: one per exam.
    """

    turn: Turn
    changes: tuple[ExamChange, ...]


def draw_reading(example: Example, draw: int, config: EncoderConfig | FinetuneConfig) -> Reading:
    """The draw's reading of a patient; draw 0 is what prediction reads."""
    channels, count = len(config.channels), len(example.exams)
    if draw == 0:
        return Reading(Turn(), (unchanged(channels, config.jitter),) * count)
    rng = np.random.default_rng([config.seed, _DRAW, draw, example.number])
    turn = draw_turn(rng, config.flip, config.rotate)
    intensity = config.intensity_scale, config.intensity_shift
    changes = tuple(draw_change(rng, channels, config.jitter, *intensity) for _ in range(count))
    if isinstance(config, FinetuneConfig) and config.channel_dropout:
        changes = tuple(drop_channels(rng, change, config.channel_dropout) for change in changes)
    return Reading(turn, changes)


class Embeddings:
    """A folder of embeddings.

    Args:
        folder: is made where it does not exist.
        config: what is drawn.
        backbone: frozen; on its device.
        cache: of prepared exams.
        precision: in which the backbone computes.
    """

    def __init__(
        self,
        folder: Path,
        config: EncoderConfig | FinetuneConfig,
        backbone: ConvNeXt3d,
        cache: PreparedCache,
        precision: str = "float32",
    ) -> None:
        self.folder, self.config, self.backbone, self.cache = folder, config, backbone.eval(), cache
        self.precision = precision
        drawn = ["jitter", "flip", "rotate", "intensity_scale", "intensity_shift", "draws", "seed", "channel_dropout"]
        self._identity = [
            weights_digest(backbone.state_dict()),
            config.model.to_dict(),
            config.preparation.to_dict(),
            {name: getattr(config, name, None) for name in drawn},
            [PIPELINE_VERSION, precision],
        ]

    def fill(self, example: Example) -> None:
        """Encodes a patient's exams if that has not been done."""
        if self._read(example) is None:
            content = safetensors.torch.save({"embeddings": self._encode(example)})
            write_whole(self._path(example), content)

    def get(self, example: Example) -> Tensor:
        """(1 + draws, exams, D); raises Refusal where ``fill`` has not been there."""
        found = self._read(example)
        if found is None:
            message = f"An embedding in {self.folder} is gone or damaged. Give the same command again."
            raise Refusal("embedding_gone", message)
        return found

    def _read(self, example: Example) -> Tensor | None:
        path = self._path(example)
        if not path.is_file():
            return None
        try:
            return safetensors.torch.load_file(path)["embeddings"]
        except (OSError, SafetensorError, KeyError):
            return None

    def _path(self, example: Example) -> Path:
        content = json.dumps([*self._identity, example.number, example.exams], sort_keys=True)
        key = hashlib.sha256(content.encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.safetensors"

    @torch.no_grad()
    def _encode(self, example: Example) -> Tensor:
        device = next(self.backbone.parameters()).device
        readings = [draw_reading(example, draw, self.config) for draw in range(1 + self.config.draws)]
        images = [i for r in readings for i in read_images(self.cache, example.exams, r.turn, r.changes)]
        encoded = []
        for start in range(0, len(images), _PER_PASS):
            batch = torch.from_numpy(np.stack(images[start : start + _PER_PASS])).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                encoded.append(self.backbone(batch.contiguous(memory_format=torch.channels_last_3d)).float().cpu())
        return torch.cat(encoded).view(len(readings), len(example.exams), -1)


def fill_together(
    embeddings: Embeddings, examples: Sequence[Example], workers: Workers, progress: Callable[[str, int, int], None]
) -> None:
    """Encodes patients, each process its share of them."""
    own = [examples[i] for i in workers.share(len(examples))]
    for done, example in enumerate(own):
        progress("encoding patients", done, len(own))
        embeddings.fill(example)
    progress("encoding patients", len(own), len(own))
    workers.wait()


@torch.no_grad()
def encode_plainly(backbone: ConvNeXt3d, example: Example, cache: PreparedCache) -> Tensor:
    """Embeddings (exams, D) of a patient's exams as prediction reads them, in single precision."""
    whole = unchanged(len(cache.preparation.channels), cache.preparation.margin)
    images = np.stack(list(read_images(cache, example.exams, Turn(), (whole,) * len(example.exams))))
    return backbone.eval()(torch.from_numpy(images).to(next(backbone.parameters()).device)).float().cpu()
