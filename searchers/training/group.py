# SPDX-License-Identifier: Apache-2.0
"""Several processes that train one network together, each on its part of every batch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from npusim.errors import ConfigError


class Group:
    """The processes of torch.distributed, or this one alone where that is not initialized.

    Batch norm and the ranges of feature maps see each process's part of a batch, as is usual; all
    else is as with one process.
    """

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if together else 0
        self.size = dist.get_world_size() if together else 1

    def require_parts(self, batch_size: int) -> None:
        """Raise ConfigError where a batch does not split evenly."""
        if batch_size % self.size:
            raise ConfigError(
                f"batch_size must be a multiple of the {self.size} processes, got {batch_size}"
            )

    def part(self, batch: Tensor) -> Tensor:
        """This process's samples of a batch, [N, ...] to [N / size, ...]."""
        n = len(batch) // self.size
        return batch[self.rank * n : (self.rank + 1) * n] if self.size > 1 else batch

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace float tensors by their means over the processes, in one exchange."""
        if self.size == 1:
            return
        all_of_them = list(tensors)
        flat = torch.cat([each.reshape(-1) for each in all_of_them])
        dist.all_reduce(flat)
        flat /= self.size
        at = 0
        for each in all_of_them:
            each.copy_(flat[at : at + each.numel()].view(each.shape))
            at += each.numel()


def run_in_processes(n: int, function: Callable[..., None], *arguments: Any, device: str) -> None:
    """Call ``function(*arguments, device)`` in `n` new processes that train together.

    Args:
        n: processes, at least 2.
        function: importable by name.
        arguments: are pickled.
        device: "cpu", where each process has one thread, or "cuda", where each has its own device.

    Raises:
        Exception: whatever a process raised; the others are ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        torch.multiprocessing.spawn(
            _process, args=(n, meeting.as_uri(), function, arguments, device), nprocs=n
        )


def _process(
    rank: int, n: int, meeting: str, function: Callable[..., None], arguments: Any, device: str
) -> None:
    torch.set_num_threads(1)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(
        backend, init_method=meeting, rank=rank, world_size=n, timeout=timedelta(minutes=10)
    )
    try:
        function(*arguments, f"cuda:{rank}" if device == "cuda" else device)
    finally:
        dist.destroy_process_group()
