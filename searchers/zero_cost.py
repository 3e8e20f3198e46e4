# SPDX-License-Identifier: Apache-2.0
"""Zero-cost proxies: scores of candidates at initialisation, without any training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from npusim._arguments import choice, integer
from npusim.errors import ConfigError
from searchers.base import Evaluation
from searchers.data import Split
from searchers.evaluators import ResultTrained, TrainConfig
from searchers.training.evaluator import TrainEvaluator, one_thread
from spaces.base import Candidate, Space
from spaces.nets import CandidateNet, build

PROXIES = ("nwot", "synflow")


class ZeroCostEvaluator(ResultTrained):
    """Scores a candidate by a proxy of its accuracy; the result of a search is trained, though.

    Proxies rank candidates of one space and say nothing of accuracies. How well they rank is to be
    checked before they are trusted: both grow with the size of the network.

    Args:
        space: what the candidates are of.
        proxy: ``nwot`` counts how differently the images of a batch switch the rectifiers on and
            off; ``synflow`` how much of the weights' synaptic flow passes the network.
        batch_size: images of the batch.
        trained: has the data, and trains the result of a search for its test; None for the space's
            own data and the settings by default.

    Raises:
        UnknownNameError: no such proxy.
        ConfigError: `batch_size` is out of range, or data is not of images with classes.
        NpusimError: see `TrainEvaluator`.

    Source: Mellor et al., 2021, "Neural architecture search without training", eq. (2); Tanaka et
    al., 2020, "Pruning neural networks without any data", eq. (1) summed over all weights.
    """

    def __init__(
        self,
        space: Space,
        proxy: str = "nwot",
        batch_size: int = 64,
        trained: TrainEvaluator | None = None,
    ):
        self._space = space
        self._proxy = choice("proxy", proxy, PROXIES)
        self._batch_size = integer("batch_size", batch_size, 2, 4096)
        super().__init__(trained or TrainEvaluator(space, TrainConfig()))
        data, _ = self.search_data()
        if not isinstance(data, Split):
            raise ConfigError(
                f"data of proxy {proxy!r} must be of images with classes, got {type(data).__name__}"
            )
        images = data[:batch_size].inputs()
        self._images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()  # [N, C, H, W]

    def identity(self) -> Mapping[str, Any]:
        """The proxy, its batch, and how results are trained."""
        settings = {"evaluator": self._proxy, "batch_size": self._batch_size}
        return settings | {"trained": dict(self.trained.identity())}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        """The proxy of the candidate with weights drawn by the seed."""
        with one_thread():
            net = build(self._space, candidate, torch.Generator().manual_seed(seed))
            net.prune(1.0)
            score = nwot(net, self._images) if self._proxy == "nwot" else synflow(net, self._images)
        return Evaluation(score)


@torch.no_grad()
def nwot(net: CandidateNet, images: Tensor) -> float:
    """Log determinant of the kernel of the images' activation codes; minus infinity if two agree.

    The kernel of two images is the number of rectifiers that both switch on or both switch off.

    Args:
        net: is run in training mode, so that batch norm takes the batch's own statistics.
        images: f32 [N, C, H, W].

    Raises:
        ConfigError: the network has no rectifiers.
    """
    codes: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        codes.append((output > 0).flatten(1).double())  # [N, units]

    rectifiers = (nn.ReLU, nn.ReLU6, nn.PReLU)
    hooks = [
        each.register_forward_hook(keep) for each in net.modules() if isinstance(each, rectifiers)
    ]
    if not hooks:
        raise ConfigError("network must have rectifiers to count, got none")
    net.train()
    net(images)
    for hook in hooks:
        hook.remove()
    code = torch.cat(codes, dim=1)
    kernel = code @ code.T + (1 - code) @ (1 - code).T
    return float(torch.linalg.slogdet(kernel).logabsdet)


def synflow(net: CandidateNet, images: Tensor) -> float:
    """Log of the sum over all weights of weight times gradient of the output, all made positive.

    Args:
        net: its weights are changed; batch norm does nothing, since it is not trained yet.
        images: their shape [N, C, H, W] alone matters.
    """
    for weight in net.weights().values():
        weight.quantizes = False  # the flow is that of real numbers
        weight.theta.data.abs_()
    net.eval()
    net(torch.ones_like(images[:1])).sum().backward()
    flow = sum(
        float((weight.theta.detach() * weight.theta.grad * weight.mask).double().sum())
        for weight in net.weights().values()
        if weight.theta.grad is not None
    )
    return math.log(flow) if flow > 0 else -math.inf
