# SPDX-License-Identifier: Apache-2.0
"""Networks as if they were trained: random weights, pruned, with statistics and int8 grids."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

import spaces
from spaces.nets import CandidateNet, build
from spaces.nets.candidate_net import observe_activations, recalibrate


def drawn_net(
    space: spaces.Space,
    seed: int = 0,
    bitwidth: int | None = None,
    sparsity: float = 0.5,
    offset: bool = False,
) -> tuple[CandidateNet, torch.Tensor]:
    """A network in evaluation on int8 grids, and images [8, C, H, W] that it has seen.

    Without a bitwidth the candidate is drawn; with one it is as large as can be, with that bitwidth
    and sparsity where there are such options.
    """
    generator = torch.Generator().manual_seed(seed)
    candidate = space.sample(np.random.default_rng(seed))
    if bitwidth is not None:
        given: dict[str, Any] = {"bitwidth": bitwidth, "sparsity": sparsity}
        candidate = space.from_options(
            {
                d.name: given[d.kind] if given.get(d.kind) in d.options else d.options[-1]
                for d in space.decisions
            }
        )
    net = build(space, candidate, generator, offset=offset)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            signs = torch.randint(0, 2, module.weight.shape, generator=generator) * 2 - 1
            uniform = torch.rand(module.weight.shape, generator=generator)
            module.weight.data = signs * (0.5 + uniform)
            module.bias.data = 0.3 * torch.randn(module.bias.shape, generator=generator)
        if isinstance(module, nn.PReLU):
            module.weight.data = 0.1 + 0.4 * torch.rand(module.weight.shape, generator=generator)
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter) and not isinstance(module, nn.BatchNorm2d):
            bias.data = 0.1 * torch.randn(bias.shape, generator=generator)
    net.prune(1.0)
    for weight in net.weights().values():
        weight.calibrate()
    height, width, depth = space.image_shape
    images = torch.randn(8, depth, height, width, generator=generator)
    recalibrate(net, [images])
    observe_activations(net, [images])
    net.quantize_activations("on")
    return net.eval(), images


def input_codes(net: CandidateNet, images: torch.Tensor) -> np.ndarray:
    """Images [N, C, H, W] as int8 codes [N, H, W, C]."""
    grid = net.input_quantizer
    codes = np.rint(images.numpy() / grid.scale) + grid.zero_point
    return np.clip(codes, -128, 127).astype(np.int8).transpose(0, 2, 3, 1)
