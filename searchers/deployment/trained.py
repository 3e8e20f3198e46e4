# SPDX-License-Identifier: Apache-2.0
"""Trained networks from where `npusim train` left them, and test data to run them on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import spaces
from npusim.deployment import Codes, Outputs
from npusim.errors import ConfigError
from npusim.weights.expected import BITS_MAX
from npusim.weights.measures import mask_aware_bits
from searchers.data import DataSet, Pairs, Split, SuperResolutionData
from searchers.data.quality import psnr
from searchers.store import read_json
from searchers.training.tasks import PEAK, load_for, scale_of
from spaces.costs import ROUNDING_BITS
from spaces.nets import CandidateNet, build
from spaces.nets.activations import Mode
from spaces.nets.candidate_net import observe_activations
from spaces.nets.files import NET_KIND, load_net, read_state

N_OBSERVED = 256
"""Training images that int8 grids are taken from where training had none."""


@dataclass(frozen=True, slots=True)
class Data:
    """Where test data is.

    Attributes:
        name: of the data set; None for that of the training, or of the space.
        directory: of data sets; None for NPUSIM_DATA.
    """

    name: str | None = None
    directory: Path | None = None

    def of(self, source: Path) -> Data:
        """With the name of the training in a directory, where no other is given."""
        header = source / "training.json"
        if self.name is not None or not header.is_file():
            return self
        return Data(str(read_json(header)["data_set"]), self.directory)

    def load(self, net: CandidateNet) -> DataSet | SuperResolutionData:
        """The data set.

        Raises:
            ConfigError, FormatError: as `searchers.training.tasks.load_for`.
        """
        return load_for(net.space, self.name, self.directory)


def load_trained(source: Path, options: Mapping[str, Any], data: Data) -> CandidateNet:
    """A trained network in evaluation, on int8 grids.

    Args:
        source: directory of a finished training, or the file of a network.
        options: of the space registered under the name of the network's, to have that instead of
            the one that the file defines; it must be the same.
        data: is read if training was in floating point, so that there are no grids yet.

    Raises:
        ConfigError: there is no network, or it is of another space.
        FormatError: its file is corrupted.
    """
    path = source / "net.pt" if source.is_dir() else source
    if source.is_dir() and not path.exists():
        raise ConfigError(f"RUN must be the directory of a finished training, got no {path}")
    stored = read_state(path, NET_KIND)
    registered = options or "definition" not in stored
    net = load_net(path, spaces.get(str(stored["space"]), **options) if registered else None)
    if not net.input_quantizer.calibrated:
        observe_activations(net, [calibration_images(net, data)])
    net.quantize_activations(Mode.ON)
    return net


def calibration_images(net: CandidateNet, data: Data) -> Tensor:
    """Training images f32 [N, C, H, W] as the network's space has them.

    Raises:
        ConfigError: as `searchers.data.load`.
    """
    found = data.load(net)
    if isinstance(found, DataSet):
        rng = np.random.default_rng(0)
        rows = rng.permutation(len(found.train.labels))[:N_OBSERVED]
        return _as_torch(found.train[np.sort(rows)].inputs())
    return _as_torch(_patches(net, found.pairs("train", scale_of(net.space)), N_OBSERVED)[0])


class Samples(Protocol):
    """Test inputs f32 [N, H, W, C], and what outputs for them are worth."""

    inputs: npt.NDArray[np.float32]

    def score(self, outputs: npt.NDArray[np.float64]) -> dict[str, float]:
        """Scores of outputs [N, ...]."""


@dataclass(frozen=True, slots=True)
class Classes:
    """Images of which the class is known."""

    inputs: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def score(self, outputs: npt.NDArray[np.float64]) -> dict[str, float]:
        """Share of images whose class has the largest output, the first among equals."""
        return {"accuracy": float((outputs.argmax(axis=1) == self.labels).mean())}


@dataclass(frozen=True, slots=True)
class Patches:
    """Patches of images in low resolution, of which the high resolution is known."""

    inputs: npt.NDArray[np.float32]
    high: npt.NDArray[np.float64]
    scale: int

    def score(self, outputs: npt.NDArray[np.float64]) -> dict[str, float]:
        """Mean PSNR in dB of the patches, `scale` pixels of the borders left out."""
        images = np.clip(outputs[..., 0] * PEAK, 0, PEAK)
        ratios = [psnr(*pair, self.scale) for pair in zip(images, self.high, strict=True)]
        return {"psnr": float(np.mean(ratios))}


def read_samples(net: CandidateNet, data: Data, n: int) -> Samples:
    """The first test images of a data set, `n` at most.

    Raises:
        ConfigError: as `searchers.data.load`, or no test image is as large as the space's.
    """
    found = data.load(net)
    if isinstance(found, DataSet):
        some: Split = found.test[slice(n)]
        return Classes(some.inputs(), some.labels)
    scale = scale_of(net.space)
    parts = [_patches(net, found.pairs(name, scale), n) for name in found.tests]
    low, high = (np.concatenate(each)[:n] for each in zip(*parts, strict=True))
    return Patches(low, high, scale)


def _patches(
    net: CandidateNet, pairs: Pairs, n: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Patches of the space's size from the middle of images, [N, H, W, 1] and [N, H, W]."""
    height, width, _ = net.space.image_shape
    scale, low, high = scale_of(net.space), [], []
    for image, large in zip(pairs.low[:n], pairs.high[:n], strict=True):
        y, x = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        if min(y, x) < 0:
            continue
        low.append(image[y : y + height, x : x + width, None] / np.float32(PEAK))
        rows = slice(y * scale, (y + height) * scale)
        high.append(large[rows, x * scale : (x + width) * scale])
    if not low:
        raise ConfigError(f"images must be at least {height}x{width} in low resolution, got none")
    return np.stack(low).astype(np.float32), np.stack(high).astype(np.float64)


def resized(net: CandidateNet, height: int, width: int) -> CandidateNet:
    """The same network for images of another size, in evaluation; weights and grids are copies."""
    space = dataclasses.replace(net.space, image_shape=(height, width, net.space.image_shape[2]))
    found = build(space, space.candidate(net.candidate.choices), torch.Generator())
    for mine, new in zip(net.weights().values(), found.weights().values(), strict=True):
        new.offset, new.quantizes = mine.offset, mine.quantizes
    for mine, new in zip(net.quantizers().values(), found.quantizers().values(), strict=True):
        new.mode = mine.mode
        if mine.learned:
            new.learn()
    found.load_state_dict(net.state_dict())
    return found.eval()


def _as_torch(inputs: npt.NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(inputs).permute(0, 3, 1, 2)  # [N, H, W, C] -> [N, C, H, W]


def input_codes(net: CandidateNet, samples: Samples) -> list[list[Codes]]:
    """Inputs of each sample as int8 codes [1, H, W, C]."""
    grid = net.input_quantizer
    codes = np.rint(samples.inputs / np.float32(grid.scale)) + grid.zero_point
    codes = np.clip(codes, -128, 127).astype(np.int8)
    return [[each[None]] for each in codes]


def eq4_bytes(net: CandidateNet) -> int:
    """[UDC] eq. (4), mask-aware, of a network's weights as they are deployed: 8 bits at most."""
    size_bits = 0
    for weight in net.weights().values():
        n = weight.theta.numel()
        bits = n * mask_aware_bits(min(weight.bitwidth, BITS_MAX), weight.n_nonzero / n)
        size_bits += math.ceil(float(bits) - ROUNDING_BITS)
    return math.ceil(size_bits / 8)


@torch.no_grad()
def torch_outputs(net: CandidateNet, samples: Samples) -> Outputs:
    """Outputs of each sample in torch, as int8 codes."""
    last = net.quantizer(list(net.sources)[-1])
    found: Outputs = []
    for images in _as_torch(samples.inputs).split(64):
        values = net(images).double().numpy()
        codes = np.rint(values / last.scale) + last.zero_point
        if codes.ndim == 4:
            codes = codes.transpose(0, 2, 3, 1)
        found += [[each[None]] for each in codes.astype(np.int8)]
    return found


def real_outputs(net: CandidateNet, outputs: Outputs) -> npt.NDArray[np.float64]:
    """Codes of each sample as values [N, ...]."""
    last = net.quantizer(list(net.sources)[-1])
    codes = np.concatenate([each for (each,) in outputs]).astype(np.float64)
    found: npt.NDArray[np.float64] = (codes - last.zero_point) * last.scale
    return found
