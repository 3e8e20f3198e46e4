# SPDX-License-Identifier: Apache-2.0
"""What relaxed networks cost: sizes, multiply-accumulates and parameters that torch differentiates.

Every layer's cost is a formula of a few means over options: channels in and out, kernel area,
bitwidth, sparsity, map area, presence. The means of all layers and samples are taken at once; on
one-hot samples they are the integers of `spaces.concrete`, and costs those of `spaces.costs` but
for the rounding of non-zero weights and bits to whole ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from npusim._arguments import choice
from searchers.udc.npu_cost import family, width_columns
from searchers.udc.sampling import Decisions
from spaces.base import Candidate, Layer, LayerKind, Space
from spaces.concrete import WITH_BIAS, ConcreteLayer, concrete_layer
from spaces.npu_limits import NpuLimit
from spaces.surrogate import Surrogate

MEASURES = ("size_bits", "macs", "n_parameters")
BOUNDS = ("mask_aware", "as_printed")
CHANGES = 64
"""Options that `ChangeCost` looks at in one turn, some hundredths of a second each."""
_MEANS = ("ifm_depth", "ofm_depth", "kernel_area", "bitwidth", "sparsity", "map_area")


class RelaxedCost:
    """One measure of a space's relaxed candidates.

    Args:
        space: whose.
        measure: of `MEASURES`; the same as those of `spaces.costs`.
        count_input_width: whether channels that the layer before has not are weights that are not
            stored; else only the layer's own width counts, as [UDC] eq. (4) says to the letter.
        bound: "mask_aware" for ``s*b + H2(s)`` bits a weight, "as_printed" for ``b + H2(s)``.
        device: where samples are.

    Raises:
        UnknownNameError: no such measure or bound.

    Source: [UDC] section 3.1, eq. (4), at the means of the options; MACs as in section 6, SR.
    Differs: channels are the whole numbers that are built, ``ceil(rho * C)``; see also
    `npusim.weights.measures` for the missing ``s``.
    """

    def __init__(
        self,
        space: Space,
        measure: str = "size_bits",
        *,
        count_input_width: bool = True,
        bound: str = "mask_aware",
        device: torch.device | str = "cpu",
    ):
        self.measure = choice("measure", measure, MEASURES)
        self.bound = choice("bound", bound, BOUNDS)
        self.layers = [layer for layer in space.layers if _costs(layer, measure)]
        self._device = device
        n_columns = max(1, *space.n_options.tolist(), 1)
        shape = (len(_MEANS), len(self.layers))
        decisions = np.full(shape, len(space.decisions), dtype=np.int64)  # that of no decision
        values = np.zeros((*shape, n_columns))
        for column, layer in enumerate(self.layers):
            found = _dependencies(space, layer, count_input_width)
            for row, (position, options) in enumerate(found):
                decisions[row, column] = len(space.decisions) if position is None else position
                values[row, column, : len(options)] = options
        self._decisions = torch.from_numpy(decisions).to(device)
        self._values = torch.from_numpy(values).to(device)
        self._tied = self._decisions[0] == self._decisions[1]
        self._entropies = _binary_entropy_bits(self._values[4]).to(device)
        shared = [layer.kind is not LayerKind.DEPTHWISE for layer in self.layers]
        self._reads_all = torch.tensor(shared, device=device)
        self._weighted = torch.tensor([layer.weighted for layer in self.layers], device=device)
        per_channel = [
            2 if layer.norm else int(layer.bias and layer.kind in WITH_BIAS)
            for layer in self.layers
        ]
        self._per_channel = torch.tensor(per_channel, dtype=torch.float64, device=device)
        given = [0 if layer.given is None else layer.given.n_weights for layer in self.layers]
        self._given_weights = torch.tensor(given, dtype=torch.float64, device=device)
        given = [0 if layer.given is None else layer.given.macs for layer in self.layers]
        self._given_macs = torch.tensor(given, dtype=torch.float64, device=device)
        self._is_given = torch.tensor(
            [layer.given is not None for layer in self.layers], device=device
        )
        self._presence = [space.present[layer.name] for layer in self.layers]

    def __call__(self, z: Tensor) -> Tensor:
        """The cost of relaxed candidates [S, D, K], f64 [S]."""
        return self.by_layer(z).sum(1)

    def by_layer(self, z: Tensor) -> Tensor:
        """The cost of each layer of relaxed candidates [S, D, K], f64 [S, n_layers]."""
        picked = self._picked(z)
        means = (picked * self._values).sum(-1)  # [S, 6, L]
        return self._formula(means, means[:, 0] * means[:, 1], _binary_entropy_bits(means[:, 4]), z)

    def expected(self, pi: Tensor) -> Tensor:
        """The mean cost of candidates whose decisions are drawn independently, f64 [].

        Args:
            pi: probabilities [D, K].

        Source: [UDC] eq. (6), the constraint of earlier differentiable searches, exactly.
        """
        z = pi[None]
        picked = self._picked(z)
        means = (picked * self._values).sum(-1)
        both = (picked[:, 0] * self._values[0] * self._values[1]).sum(-1)
        depths = torch.where(self._tied, both, means[:, 0] * means[:, 1])
        entropy = (picked[:, 4] * self._entropies).sum(-1)
        return self._formula(means, depths, entropy, z).sum()

    def _picked(self, z: Tensor) -> Tensor:
        """The rows of samples that the means are over, [S, 6, L, K]; no decision: the first."""
        rows = z.to(torch.float64)
        none = rows.new_zeros(len(z), 1, z.shape[2])
        none[..., 0] = 1
        return torch.cat([rows, none], 1)[:, self._decisions]

    def _formula(self, means: Tensor, depths: Tensor, entropy: Tensor, z: Tensor) -> Tensor:
        _, ofm_depth, kernel_area, bitwidth, sparsity, map_area = means.unbind(1)
        n_weights = kernel_area * torch.where(self._reads_all, depths, ofm_depth)
        n_weights = torch.where(self._is_given, self._given_weights, n_weights * self._weighted)
        if self.measure == "macs":
            cost = torch.where(self._is_given, self._given_macs, n_weights * map_area)
        elif self.measure == "n_parameters":
            cost = n_weights + self._per_channel * ofm_depth
        else:
            kept = sparsity if self.bound == "mask_aware" else torch.ones_like(sparsity)
            cost = n_weights * (kept * bitwidth + entropy)  # [UDC] eq. (4)
        return cost * self._present(z)

    def _present(self, z: Tensor) -> Tensor:
        """How far each layer is there, [S, n_layers]: the mean of presence over its choices."""
        columns = []
        for table in self._presence:
            values = torch.as_tensor(table.values, dtype=torch.float64, device=self._device)
            mean = values.expand(len(z), *values.shape)
            for position, n_options in zip(table.scope, table.values.shape, strict=True):
                weights = z[:, position, :n_options].to(torch.float64)
                mean = torch.einsum("sk,sk...->s...", weights, mean)
            columns.append(mean)
        return torch.stack(columns, 1) if columns else torch.zeros(len(z), 0)


class SurrogateCost:
    """A cost on an NPU of relaxed candidates, at the means of their widths.

    The surrogate knows nothing of bitwidths and sparsities. So it is corrected by what the most
    likely candidate really costs, as often as `correct` is called.

    Args:
        space: see `searchers.udc.npu_cost.family`.
        limit: its measure and NPU.

    Attributes:
        correction: factor of the surrogate.

    Raises:
        ConfigError: the space does not differ in widths alone.

    Source: the means as in [UDC] section 3.1; between widths as `spaces.surrogate.Surrogate`.
    """

    def __init__(self, space: Space, limit: NpuLimit):
        self._positions, options = width_columns(space)
        self._options = [torch.from_numpy(each).double() for each in options]
        names = family(space).widths
        allowed = {
            name: np.unique(each).tolist() for name, each in zip(names, options, strict=True)
        }
        self._surrogate = Surrogate(family(space), allowed, limit.npu, limit.measure)
        self._space, self._limit = space, limit
        self.correction = 1.0

    def __call__(self, z: Tensor) -> Tensor:
        """The cost of relaxed candidates [S, D, K], f64 [S]."""
        widths = [
            (z[:, at, : len(options)].double() * options.to(z.device)).sum(1)
            for at, options in zip(self._positions, self._options, strict=True)
        ]
        found: Tensor = self._surrogate(torch.stack(widths, 1))
        return self.correction * found

    @torch.no_grad()
    def correct(self, candidate: Candidate) -> None:
        """Make the cost of a candidate exact."""
        z = Decisions.of(self._space).one_hot(torch.tensor([candidate.choices]))
        self.correction *= self._limit.cost(self._space, candidate) / self(z).item()

    def expected(self, pi: Tensor) -> Tensor:
        """The cost at the mean widths of probabilities [D, K], f64 []."""
        return self(pi[None])[0]

    def state_dict(self) -> dict[str, Any]:
        """What corrections have led to."""
        return {"correction": self.correction}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.correction = state["correction"]


class ChangeCost:
    """A cost on an NPU of relaxed candidates of any space, from what single changes cost.

    The cost of one candidate, and how much more or less each other option of each decision costs
    there. So it is exact for that candidate and for those one change away, as of the latest time
    that the decision's turn came; linear in between and beyond. Each option takes an estimate, so
    after the first time each `correct` looks at `CHANGES` of them or a few more.

    Args:
        space: any that `spaces.estimate` costs.
        limit: its measure and NPU.
        device: where samples are.
    """

    def __init__(self, space: Space, limit: NpuLimit, device: torch.device | str = "cpu"):
        self._space, self._limit = space, limit
        shape = Decisions.of(space).valid.shape
        self._cost = 0.0
        self._changes = torch.zeros(shape, dtype=torch.float64, device=device)
        self._turn: int | None = None  # the decision that is next; at first all are

    def __call__(self, z: Tensor) -> Tensor:
        """The cost of relaxed candidates [S, D, K], f64 [S]."""
        return self._cost + (z.double() * self._changes).sum((1, 2))

    @torch.no_grad()
    def correct(self, candidate: Candidate) -> None:
        """Make the cost of a candidate exact, and that of changes of the decisions in turn."""
        choices, n_options = candidate.choices, self._space.n_options.tolist()
        self._cost = float(self._limit.cost(self._space, candidate))
        first, n_asked = self._turn or 0, 0
        for step in range(len(choices)):
            at = (first + step) % len(choices)
            if self._turn is not None and n_asked >= CHANGES:
                break
            for option in range(n_options[at]):
                changed = self._space.candidate([*choices[:at], option, *choices[at + 1 :]])
                more = self._limit.cost(self._space, changed) - self._cost
                self._changes[at, option] = more
            n_asked += n_options[at] - 1
            self._turn = (at + 1) % len(choices)
        chosen = torch.tensor(choices, device=self._changes.device)[:, None]
        self._changes -= self._changes.gather(1, chosen)  # the others' too are against it

    def expected(self, pi: Tensor) -> Tensor:
        """The mean cost of candidates drawn by probabilities [D, K], f64 []."""
        return self(pi[None])[0]

    def state_dict(self) -> dict[str, Any]:
        """What corrections have led to."""
        return {"cost": self._cost, "changes": self._changes.clone(), "turn": self._turn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._cost, self._turn = state["cost"], state["turn"]
        self._changes.copy_(state["changes"])


def _costs(layer: Layer, measure: str) -> bool:
    return layer.weighted or (measure == "n_parameters" and layer.norm)


def _dependencies(
    space: Space, layer: Layer, count_input_width: bool
) -> list[tuple[int | None, np.ndarray]]:
    """Of each of `_MEANS`: the decision that it depends on, if any, and its value by option."""
    source = space.depths[layer.inputs[0]]
    kernel = layer.kernel if isinstance(layer.kernel, str) else None

    def by_option(decision: str | None, what: Callable[[ConcreteLayer[np.ndarray]], np.ndarray]):
        position = None if decision is None else space.position(decision)

        def pick(asked: int) -> np.ndarray:
            return np.arange(space.n_options[asked]) if asked == position else np.asarray(0)

        return position, np.atleast_1d(what(concrete_layer(space, layer, pick)))

    own_width = space.depths[layer.name].width
    found = [
        by_option(source.width, lambda concrete: concrete.ifm_depth)
        if count_input_width
        else (None, np.array([source.full])),
        by_option(own_width, lambda concrete: concrete.ofm_depth),
        by_option(kernel, lambda concrete: concrete.kernel**2),
        by_option(layer.bitwidth, lambda concrete: concrete.bitwidth),
    ]
    if layer.sparsity is None:
        found.append((None, np.ones(1)))
    else:
        position = space.position(layer.sparsity)
        found.append((position, np.array(space.decisions[position].options, dtype=np.float64)))
    mapped = layer.inputs[0] if layer.kind is LayerKind.TRANSPOSE_CONV else layer.name
    resolution = space.layers[0].resolution
    found.append(
        (None if resolution is None else space.position(resolution), space.maps[mapped].prod(1))
    )
    return found


def _binary_entropy_bits(s: Tensor) -> Tensor:
    """``H2(s)``, with the limit 0 at both ends and a finite gradient there."""
    inside = s.clamp(1e-12, 1 - 1e-12)
    return -(inside * inside.log2() + (1 - inside) * (1 - inside).log2())
