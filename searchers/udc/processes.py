# SPDX-License-Identifier: Apache-2.0
"""A search in several processes, each with samples of its own: what torch.distributed adds to it.

Gradients are summed in double precision. The sum of a few single-precision numbers is exact there,
unless they differ by more than 2**24 times, so the order does not matter: a search in several
processes is bit for bit the search in one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from npusim.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Processes:
    """Which of the processes this is, and how many there are.

    Attributes:
        rank: from 0.
        n: how many.
        joined: whether they were joined here, and so are to be left.
    """

    rank: int = 0
    n: int = 1
    joined: bool = False

    @classmethod
    def started(cls, device: torch.device) -> Processes:
        """Those that torch.distributed is set up for, or that torchrun started; else one."""
        from torch import distributed

        if not distributed.is_available():
            return cls()
        joined = not distributed.is_initialized()
        if joined:
            if int(os.environ.get("WORLD_SIZE", "1")) == 1:
                return cls()
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(distributed.get_rank(), distributed.get_world_size(), joined)

    def leave(self) -> None:
        """End what `started` began: what follows is each process's own."""
        if self.joined:
            from torch import distributed

            distributed.destroy_process_group()

    def share(self, value: Any) -> Any:
        """What the first process has, for all of them."""
        if self.n == 1:
            return value
        from torch import distributed

        values = [value]
        distributed.broadcast_object_list(values, 0)
        return values[0]

    def own(self, n_mc: int, n_together: int) -> range:
        """The samples of this process.

        Raises:
            ConfigError: samples that go through the network together would be torn apart.
        """
        if n_mc % (self.n * n_together):
            raise ConfigError(
                f"n_mc must be a multiple of processes times n_together, "
                f"got {n_mc} for {self.n} times {n_together}"
            )
        share = n_mc // self.n
        return range(self.rank * share, (self.rank + 1) * share)

    def sum(self, values: Tensor) -> None:
        """Make `values` their sum over all processes, in place."""
        if self.n > 1:
            from torch import distributed

            distributed.all_reduce(values)


class GradientSum:
    """Gradients of parameters, added up over parts of a step in one flat f64 buffer."""

    def __init__(self, parameters: Iterable[nn.Parameter]):
        self._parameters = list(parameters)
        n = sum(parameter.numel() for parameter in self._parameters)
        device = self._parameters[0].device
        self._sum = torch.zeros(n, dtype=torch.float64, device=device)

    def clear(self) -> None:
        """Start a step."""
        self._sum.zero_()
        for parameter in self._parameters:
            parameter.grad = None

    def take(self) -> None:
        """Add the parameters' gradients, and clear them."""
        at = 0
        for parameter in self._parameters:
            if parameter.grad is not None:
                self._sum[at : at + parameter.numel()] += parameter.grad.flatten()
                parameter.grad = None
            at += parameter.numel()

    def give(self, processes: Processes) -> None:
        """Give the parameters the sum over all parts and processes."""
        processes.sum(self._sum)
        at = 0
        for parameter in self._parameters:
            part = self._sum[at : at + parameter.numel()]
            parameter.grad = part.view(parameter.shape).to(parameter.dtype)
            at += parameter.numel()
