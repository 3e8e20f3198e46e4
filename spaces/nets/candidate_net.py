# SPDX-License-Identifier: Apache-2.0
"""A candidate as a torch module.

Channels and non-zeros come from `spaces.concrete`, as the size does, so what is trained is what
was costed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from npusim.errors import ConfigError
from spaces.base import Candidate, Space
from spaces.concrete import concrete_layers
from spaces.nets.activations import ActivationQuantizer, Mode
from spaces.nets.modules import KeepsGrid, Weighted, module
from spaces.nets.weights import CompressedWeight


class CandidateNet(nn.Module):
    """A candidate's network: images f32 [N, C, H, W] to the output layer's values.

    Attributes:
        space, candidate: what it was built from.
        sources: names of the layers that each layer reads, in order; the first is the input.
        blocks: modules of the layers but the input, see `block`.
        input_quantizer: int8 grid of the images.
    """

    def __init__(self, space: Space, candidate: Candidate, generator: torch.Generator):
        super().__init__()
        self.space, self.candidate = space, candidate
        found = concrete_layers(space, candidate)
        maps = {each.layer.name: (each.ofm_height, each.ofm_width) for each in found}
        self.sources = {each.layer.name: each.inputs for each in found}
        self.input_quantizer = ActivationQuantizer()
        self.blocks = nn.ModuleDict()
        for each in found:
            if each.inputs:
                self.blocks[_key(each.layer.name)] = module(each, maps[each.inputs[0]], generator)

    def forward(self, images: Tensor) -> Tensor:
        results: dict[str, Tensor] = {}
        for name, sources in self.sources.items():
            if not sources:
                x = self.input_quantizer(images)
            else:
                block = self.block(name)
                x = block(*(results[source] for source in sources))
                if isinstance(block, KeepsGrid):
                    x = self.quantizer(name)(x, observe=False)
            results[name] = x
        return x

    def block(self, name: str) -> nn.Module:
        """The module of a layer other than the input."""
        return self.blocks[_key(name)]

    def quantizer(self, name: str) -> ActivationQuantizer:
        """The int8 grid that the result of a layer is on: of another layer's where that is kept."""
        while self.sources[name]:
            block = self.block(name)
            if not isinstance(block, KeepsGrid):
                found: ActivationQuantizer = block.ofm_quantizer  # type: ignore[assignment]
                return found
            name = self.sources[name][0]
        return self.input_quantizer

    def quantizers(self) -> dict[str, ActivationQuantizer]:
        """All int8 grids by the layer whose range they have."""
        kept = {
            n
            for n, inputs in self.sources.items()
            if inputs and isinstance(self.block(n), KeepsGrid)
        }
        return {name: self.quantizer(name) for name in self.sources if name not in kept}

    def weights(self) -> dict[str, CompressedWeight]:
        """The compressed weights, by the name of their layer."""
        blocks = {name: self.block(name) for name, inputs in self.sources.items() if inputs}
        return {name: block.weight for name, block in blocks.items() if isinstance(block, Weighted)}

    def prune(self, progress: float) -> None:
        """Refresh all masks; see `CompressedWeight.prune`."""
        for weight in self.weights().values():
            weight.prune(progress)

    def quantize_activations(self, mode: Mode | str = Mode.ON, learned: bool = False) -> None:
        """Set the mode of all `ActivationQuantizer` at once, and whether ranges are learned.

        Raises:
            ConfigError: it is to be on, and a range was never observed: see `observe_activations`.
        """
        mode = Mode(mode)
        for name, quantizer in self.quantizers().items():
            if mode is Mode.ON and not quantizer.calibrated:
                raise ConfigError(
                    f"activation quantizer of layer {name!r} must have observed a range, got none"
                )
            quantizer.mode = mode
            if learned:
                quantizer.learn()

    def inherit(self, values: Mapping[str, Tensor]) -> None:
        """Take over the weights of another candidate of the space: the first channels of each.

        Args:
            values: the other's `state_dict`; layers that it has not keep what they have here. Masks
                and ranges are set anew, by the weights.

        Raises:
            ConfigError: a layer is narrower there than here, or of another kind.
        """
        mine = self.state_dict()
        for name, value in mine.items():
            if name not in values or name.endswith(("mask", "beta", "log_range")):
                continue
            other = values[name]
            if other.dim() != value.dim() or any(
                here > there for here, there in zip(value.shape, other.shape, strict=True)
            ):
                raise ConfigError(
                    f"weights to inherit must be at least of shape {tuple(value.shape)}, "
                    f"got {name} of {tuple(other.shape)}"
                )
            value.copy_(other[tuple(slice(size) for size in value.shape)])
        for weight in self.weights().values():
            weight.prune(0.0)
            weight.calibrate()


def build(
    space: Space, candidate: Candidate, generator: torch.Generator, offset: bool = False
) -> CandidateNet:
    """The candidate's module with fresh weights drawn from `generator`, not pruned yet.

    Args:
        space: of the candidate.
        candidate: what to build.
        generator: draws the weights, on the CPU.
        offset: quantize weights in the number format Q-hat, not Q; see `CompressedWeight`.

    Raises:
        ConfigError: `candidate` is of another space, or of one made from a network.
    """
    net = CandidateNet(space, candidate, generator)
    for weight in net.weights().values():
        weight.offset = offset
    return net


@torch.no_grad()
def recalibrate(net: CandidateNet, batches: Iterable[Tensor]) -> None:
    """Measure the statistics of batch norm anew: the means over the batches, all with equal weight.

    They have followed weights that training changed since; after it, 100 batches will do.

    Args:
        net: is otherwise as in evaluation meanwhile, and is left in evaluation.
        batches: images f32 [N, C, H, W]; one at least.

    Raises:
        ConfigError: there are no batches.
    """
    net.eval()
    norms = [each for each in net.modules() if isinstance(each, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a mean over all batches
        norm.train()
    n_batches = 0
    for images in batches:
        net(images)
        n_batches += 1
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    net.eval()
    if not n_batches:
        raise ConfigError("batches to recalibrate with must be one or more, got none")


@torch.no_grad()
def observe_activations(net: CandidateNet, batches: Iterable[Tensor]) -> None:
    """Let all activation quantizers see the maps of some images; leaves `net` in evaluation.

    Args:
        net: its quantizers are then in mode "observe".
        batches: images f32 [N, C, H, W].
    """
    net.quantize_activations(Mode.OBSERVE)
    net.eval()
    for images in batches:
        net(images)


def _key(name: str) -> str:
    """A layer's name as torch allows it: dots separate modules there."""
    return name.replace(".", "/")
