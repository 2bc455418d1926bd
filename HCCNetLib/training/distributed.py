"""Several processes that train one network: gradients are summed over them, nothing else is shared."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

_PATIENCE = datetime.timedelta(hours=24)  # the others wait while the first one prepares exams


@dataclass(frozen=True)
class Workers:
    """This process among those that torchrun started.

    Args:
        rank: of this process, from 0.
        count: of all processes.
        device: of this process.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Which of ``count`` items this process takes."""
        return range(self.rank, count, self.count)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier()

    def decided(self, value: bool) -> bool:
        """What the first process says, in all of them: each might see files that another has just written."""
        return self.sum([float(value and self.is_first)])[0] > 0

    def sum_gradients(self, model: nn.Module) -> None:
        """Sums the gradients over the processes; one without a gradient gets zeros, so that all send the same."""
        if self.count == 1:
            return
        parameters = [p for p in model.parameters() if p.requires_grad]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        distributed.all_reduce(flat)
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """Sums a tensor of this process's device over the processes."""
        if self.count > 1:
            distributed.all_reduce(tensor)
        return tensor

    def sum(self, values: Iterable[float]) -> list[float]:
        """Sums some numbers over the processes."""
        tensor = torch.tensor(list(values), dtype=torch.float64)
        if self.count > 1:
            tensor = _summed(tensor, self.device)
        return [float(v) for v in tensor]


def _summed(tensor: Tensor, device: torch.device) -> Tensor:
    moved = tensor.to(device) if device.type == "cuda" else tensor
    distributed.all_reduce(moved)
    return moved.cpu()


@contextmanager
def workers(device: torch.device) -> Iterator[Workers]:
    """Joins the processes that torchrun started, or stands alone; NCCL on GPUs, gloo on CPUs."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Workers(0, 1, device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Workers(distributed.get_rank(), count, device)
    finally:
        distributed.destroy_process_group()
