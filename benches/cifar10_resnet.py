# SPDX-License-Identifier: Apache-2.0
"""A real network with real data: ResNet-20 of CIFAR-10, quantized to int8 after training.

    python benches/cifar10_resnet.py WEIGHTS.npz TEST.npz FOLDER

writes resnet20.tflite and test.npz (inputs and labels) into FOLDER, for

    npusim schemes compare FOLDER/resnet20.tflite --prune 0,0.3,0.5 --data FOLDER/test.npz

WEIGHTS.npz has the parameters of akamaster/pytorch_resnet_cifar10's resnet20 by their names there;
TEST.npz has uint8 images x [n, 32, 32, 3] and labels y. The first `N_CALIBRATION` images set the
scales of the feature maps and are not among those that are written.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from npusim.formats.tflite_write import write
from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.tensor import Tensor

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
N_CALIBRATION = 200
N_BLOCKS = 3
_EPSILON = 1e-5
Float32 = npt.NDArray[np.float32]


class Quantizer:
    """Builds the int8 network layer by layer while the float one runs on calibration images."""

    def __init__(self, parameters: dict[str, Float32], images: Float32):
        self.parameters = parameters
        self.net = NetworkBuilder("resnet20")
        self.real = torch.from_numpy(images).permute(0, 3, 1, 2)  # [n, 3, 32, 32]
        scale, zero_point = affine(self.real)
        self.map = self.net.input((1, 32, 32, 3), scale=scale, zero_point=zero_point)

    def convolution(self, name: str, norm: str, stride: int, activation: str) -> None:
        """A convolution with its batch norm folded into it."""
        weights, p = self.parameters[f"{name}.weight"], self.parameters
        gain = p[f"{norm}.weight"] / np.sqrt(p[f"{norm}.running_var"] + _EPSILON)
        weights = weights * gain[:, None, None, None]
        bias = p[f"{norm}.bias"] - p[f"{norm}.running_mean"] * gain
        self.real = functional.conv2d(
            self.real, torch.from_numpy(weights), torch.from_numpy(bias), stride, padding=1
        )
        self.real = functional.relu(self.real) if activation == "RELU" else self.real
        kernel, offsets = self.coded(weights.transpose(0, 2, 3, 1), bias)
        scale, zero_point = affine(self.real)
        strides = {"stride_h": stride, "stride_w": stride}
        if stride == 2:  # torch pads one row above, "SAME" none
            pads = np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32)
            self.map = self.net.op("PAD", self.map, pads)
        self.map = self.net.op(
            *("CONV_2D", self.map, kernel, offsets),
            scale=scale,
            zero_point=zero_point,
            padding="VALID" if stride == 2 else "SAME",
            fused_activation=activation,
            name=name,
            **strides,
        )

    def coded(self, weights: Float32, bias: Float32) -> tuple[Tensor, Tensor]:
        """Weights [O, ...] with a scale for each output channel, and their bias."""
        rows = weights.reshape(len(weights), -1)
        scales = (np.abs(rows).max(axis=1) / 127).astype(np.float32)
        codes = np.rint(rows / scales[:, None]).astype(np.int8).reshape(weights.shape)
        kernel = self.net.constant(codes, scales=scales)
        assert self.map.quantization is not None
        steps = scales.astype(np.float64) * self.map.quantization.scales[0]
        return kernel, self.net.bias(np.rint(bias / steps).astype(np.int64), self.map, kernel)

    def block(self, name: str, stride: int) -> None:
        """Two convolutions and what goes past them, as it is or every other pixel of it."""
        real, shortcut = self.real, self.map
        self.convolution(f"{name}.conv1", f"{name}.bn1", stride, "RELU")
        self.convolution(f"{name}.conv2", f"{name}.bn2", 1, "NONE")
        if stride == 2:
            more = self.real.shape[1] // 4
            real = functional.pad(real[:, :, ::2, ::2], (0, 0, 0, 0, more, more))
            ends = [np.array(each, np.int32) for each in ([0] * 4, [1, *shortcut.shape[1:]])]
            steps = np.array([1, 2, 2, 1], np.int32)
            _, height, width, depth = shortcut.shape
            half = (1, height // 2, width // 2, depth)
            shortcut = self.net.op("STRIDED_SLICE", shortcut, *ends, steps, shape=half)
            pads = np.array([[0, 0], [0, 0], [0, 0], [more, more]], np.int32)
            shortcut = self.net.op("PAD", shortcut, pads)
        self.real = functional.relu(self.real + real)
        scale, zero_point = affine(self.real)
        self.map = self.net.op(
            *("ADD", self.map, shortcut),
            scale=scale,
            zero_point=zero_point,
            fused_activation="RELU",
        )

    def head(self) -> None:
        """The mean of each channel and a matrix."""
        self.real = self.real.mean(dim=(2, 3))
        axes = np.array([1, 2], np.int32)
        scale, zero_point = affine(self.real)
        self.map = self.net.op("MEAN", self.map, axes, scale=scale, zero_point=zero_point)
        weights, bias = (self.parameters[f"linear.{name}"] for name in ("weight", "bias"))
        self.real = self.real @ torch.from_numpy(weights.T) + torch.from_numpy(bias)
        kernel, offsets = self.coded(weights, bias)
        scale, zero_point = affine(self.real)
        self.map = self.net.op(
            *("FULLY_CONNECTED", self.map, kernel, offsets), scale=scale, zero_point=zero_point
        )


def affine(real: torch.Tensor) -> tuple[float, int]:
    """Scale and zero point of int8 for all values of a map, zero among them."""
    low, high = min(0.0, float(real.min())), max(0.0, float(real.max()))
    scale = (high - low) / 255
    return scale, round(-128 - low / scale)


def resnet20(parameters: dict[str, Float32], images: Float32) -> Network:
    """The int8 network.

    Args:
        parameters: by name; weights [O, I, H, W].
        images: for calibration, normalised, float32 [n, 32, 32, 3].
    """
    made = Quantizer(parameters, images)
    made.convolution("conv1", "bn1", 1, "RELU")
    for stage in (1, 2, 3):
        for number in range(N_BLOCKS):
            made.block(f"layer{stage}.{number}", 2 if stage > 1 and number == 0 else 1)
    made.head()
    return made.net.build(made.map)


def main() -> None:
    """Write the model and its test data."""
    weights, test, folder = map(Path, sys.argv[1:])
    with np.load(weights) as file:
        parameters = {name: file[name] for name in file}
    with np.load(test) as file:
        images = ((file["x"] / 255 - MEAN) / DEVIATION).astype(np.float32)
        labels = file["y"].astype(np.int64)
    network = resnet20(parameters, images[:N_CALIBRATION])
    write(network, folder / "resnet20.tflite")
    rest = slice(N_CALIBRATION, None)
    np.savez_compressed(folder / "test.npz", inputs=images[rest], labels=labels[rest])
    print(network)


if __name__ == "__main__":
    main()
