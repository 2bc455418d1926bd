"""The state of a run as one safetensors file, written aside and renamed: there is always one that is whole."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from HCCNetLib.records import Refusal

_MODEL, _AVERAGE, _OPTIMISER = "model.", "average.", "optimiser."


@dataclass
class TrainingState:
    """All that changes from step to step; randomness is keyed by step, so there is no generator to keep.

    Args:
        model: with everything that is trained.
        optimiser: over its parameters.
        average: moving average of the parameters, or None.
        step: updates done.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    average: dict[str, Tensor] | None = None
    step: int = 0

    def save(self, path: Path, identity: str) -> None:
        """Writes the state; raises Refusal where there is no room, and leaves the earlier checkpoint as it was."""
        tensors = {_MODEL + k: v for k, v in self.model.state_dict().items()}
        tensors |= {_AVERAGE + k: v for k, v in (self.average or {}).items()}
        tensors |= {_OPTIMISER + k: v for k, v in self._optimiser_tensors().items()}
        plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        content = safetensors.torch.save(plain, {"step": str(self.step), "identity": identity})
        write_whole(path, content)

    def load(self, path: Path, identity: str) -> None:
        """Takes the state from a file, strictly.

        Raises:
            Refusal: damaged, or of a run with other settings or data.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
            tensors = safetensors.torch.load_file(path)
            step = int(metadata["step"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            message = f"{path} is no readable checkpoint. Remove it to start this member again."
            raise Refusal("bad_checkpoint", message) from error
        if metadata.get("identity") != identity:
            message = (
                f"{path} belongs to a run with other settings, other patients or another version. Give the same settings, "
                f"or another folder with --out."
            )
            raise Refusal("other_run", message)
        self.model.load_state_dict(_below(tensors, _MODEL), strict=True)
        device = next(self.model.parameters()).device
        if self.average is not None:
            self.average = {k: v.to(device) for k, v in _below(tensors, _AVERAGE).items()}
        self._take_optimiser_tensors(_below(tensors, _OPTIMISER))
        self.step = step

    def _optimiser_tensors(self) -> dict[str, Tensor]:
        names = {id(p): name for name, p in self.model.named_parameters()}
        state = self.optimiser.state
        return {f"{names[id(p)]}:{key}": value for p, values in state.items() for key, value in values.items()}

    def _take_optimiser_tensors(self, tensors: dict[str, Tensor]) -> None:
        parameters = dict(self.model.named_parameters())
        for name, value in tensors.items():
            parameter_name, key = name.rsplit(":", 1)
            parameter = parameters[parameter_name]
            # AdamW keeps its count of steps on the CPU.
            self.optimiser.state[parameter][key] = value if key == "step" else value.to(parameter.device)


def identity_of(path: Path) -> str | None:
    """The run that a checkpoint belongs to; None where it can't be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("identity")
    except (OSError, SafetensorError):
        return None


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file aside, flushes it to the disk and renames it.

    Raises:
        Refusal: no room or no permission; whatever stood at ``path`` still does.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        message = (
            f"Nothing could be written into {path.parent}: {error.strerror or type(error).__name__}. Make room or check "
            f"permissions, then give the same command: it goes on from the last checkpoint."
        )
        raise Refusal("cannot_write", message) from error
    finally:
        with suppress(OSError):  # what stands in its way has been told above
            aside.unlink()


def write_json(path: Path, content: Any) -> None:
    """Writes JSON whole or not at all."""
    write_whole(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
