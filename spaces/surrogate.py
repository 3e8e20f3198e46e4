# SPDX-License-Identifier: Apache-2.0
"""Costs of networks as functions of their widths that torch can differentiate.

    cycles = Surrogate(family, {"conv1": [8, 16, 24], "conv2": [16, 32, 64]})
    cycles(torch.tensor([[11.5, 40.0]], requires_grad=True)).sum().backward()

The widths that a search allows form a grid. On it the surrogate is what `npusim.cost.batch` says,
buffers and memory included; between, it is linear on the simplices that each cell of the grid falls
into when its widths are raised one after the other, in the order of how far they are on their way
(Kuhn's triangulation). So it is continuous, its gradients are differences of real costs, and a
network of d widths takes d + 1 of them.

Needs torch, which nothing of `npusim` itself does: ``pip install 'npusim[search]'``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from npusim._arguments import choice, integer
from npusim.cost.batch import MEASURES as BATCH_MEASURES
from npusim.cost.batch import BatchEstimator
from npusim.cost.family import WIDTH_MAX, Family
from npusim.errors import ConfigError, UnknownNameError
from npusim.hardware import Machine
from npusim.weights.expected import TRAINED, WeightStatistics

MEASURES: Final = (*BATCH_MEASURES, "macs")


class Surrogate(nn.Module):
    """One measure of the networks of a family, for widths that are real numbers.

    Args:
        family: the networks.
        options: the widths that are allowed, rising, for each of `Family.widths`.
        npu: preset name or machine.
        measure: one of `MEASURES`.
        straight_through: whether values are those of the nearest allowed widths, with the gradient
            of the interpolation.
        statistics: what is known of all weights.

    Raises:
        ConfigError: options are missing, do not rise, or are out of range.
        UnknownNameError: no such width, measure or NPU.
    """

    def __init__(
        self,
        family: Family,
        options: Mapping[str, Sequence[int]],
        npu: str | Machine = "ethos-u55-128",
        measure: str = "total_cycles",
        *,
        straight_through: bool = False,
        statistics: WeightStatistics = TRAINED,
    ):
        super().__init__()
        self.family, self.measure = family, choice("measure", measure, MEASURES)
        self.straight_through, self.statistics = straight_through, statistics
        for name in options:
            if name not in family.widths:
                raise UnknownNameError("width", name, tuple(family.widths))
        self.options = [_checked(name, options.get(name, ())) for name in family.widths]
        self._estimator = BatchEstimator(npu, sram=measure == "sram_peak_bytes")

    def forward(self, widths: Tensor) -> Tensor:
        """The measure of each network.

        Args:
            widths: float [n_networks, n_widths], in the order of `Family.widths`; beyond the
                smallest or largest option they are taken for that, with a gradient of 0.

        Returns:
            float [n_networks], of the type of widths: float64 to be exact above 16.7 million.

        Raises:
            ConfigError: widths have another shape or are not finite, or a network does not fit.
        """
        n_widths = len(self.options)
        if widths.ndim != 2 or widths.shape[1] != n_widths or not widths.is_floating_point():
            raise ConfigError(
                f"widths must be a float tensor [n_networks, {n_widths}], got {widths.dtype} "
                f"{tuple(widths.shape)}"
            )
        if not torch.isfinite(widths).all():
            raise ConfigError("widths must be finite, got others")
        parts, cells = [], []
        for column, options in enumerate(self.options):
            part, cell = _position(widths[:, column], options)
            parts.append(part)
            cells.append(cell)
        return self._interpolated(torch.stack(parts, 1), np.stack(cells, 1))

    def _interpolated(self, parts: Tensor, cells: npt.NDArray[np.int64]) -> Tensor:
        """Costs at places in cells: parts [n, d] of the way from each cell's low corner."""
        ways, order = parts.sort(dim=1, descending=True, stable=True)
        n, d = cells.shape
        corners = np.repeat(cells[:, None], d + 1, axis=1)
        turns = order.detach().cpu().numpy()
        for step in range(d):
            corners[np.arange(n), step + 1 :, turns[:, step]] += 1
        costs = self._costs(corners.reshape(n * (d + 1), d)).reshape(n, d + 1)
        at_corners = torch.as_tensor(costs, dtype=parts.dtype, device=parts.device)
        value = at_corners[:, 0] + (ways * at_corners.diff(dim=1)).sum(dim=1)
        if not self.straight_through:
            return value
        nearest = self._costs(cells + (parts.detach().cpu().numpy() >= 0.5))
        exact = torch.as_tensor(nearest, dtype=parts.dtype, device=parts.device)
        return exact + (value - value.detach())

    def _costs(self, corners: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The measure at points of the grid, given as indices of options [n, d]."""
        columns = [
            options[np.minimum(at, len(options) - 1)]
            for options, at in zip(self.options, corners.T, strict=True)
        ]
        different, which = np.unique(np.stack(columns, 1), axis=0, return_inverse=True)
        cost = self._estimator(self.family.batch(different, [self.statistics]))
        if not cost.fits.all():
            bad = different[int(np.argmin(cost.fits[:, 0]))].tolist()
            raise ConfigError(f"networks must fit the NPU's SHRAM, got one of widths {bad}")
        found = cost.macs if self.measure == "macs" else getattr(cost, self.measure)[:, 0]
        values: npt.NDArray[np.float64] = found.astype(np.float64)[which.reshape(-1)]
        return values


def _position(
    widths: Tensor, options: npt.NDArray[np.int64]
) -> tuple[Tensor, npt.NDArray[np.int64]]:
    """Of the cell that each width is in: part of the way from its low option, and its index."""
    last = max(len(options) - 2, 0)
    inside = widths.clamp(float(options[0]), float(options[-1]))
    cell = np.searchsorted(options, inside.detach().cpu().numpy(), side="right") - 1
    cell = cell.clip(0, last)
    low = options[cell]
    step = options[np.minimum(cell + 1, len(options) - 1)] - low
    step[step == 0] = 1
    bounds = torch.as_tensor(np.stack([low, step]), dtype=widths.dtype, device=widths.device)
    return (inside - bounds[0]) / bounds[1], cell


def _checked(name: str, options: Sequence[int]) -> npt.NDArray[np.int64]:
    values = [integer(f"options of {name!r}", value, 1, WIDTH_MAX) for value in options]
    if not values or sorted(set(values)) != values:
        raise ConfigError(f"options of {name!r} must rise, one at least, got {values}")
    return np.array(values, np.int64)
