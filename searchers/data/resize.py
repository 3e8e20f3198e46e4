# SPDX-License-Identifier: Apache-2.0
"""Bicubic resizing and luminance as the super-resolution literature has them: those of MATLAB."""

from __future__ import annotations

import math

import numpy as np


def bicubic(image: np.ndarray, scale: float) -> np.ndarray:
    """The image `scale` times as high and wide; pixels are u8 between the two passes too.

    Shrinking widens the cubic kernel (a = -1/2) by 1/scale, against aliasing; beyond the borders
    their pixels repeat.

    Args:
        image: u8 [H, W] or [H, W, C].
        scale: factor, more than 0; sizes are rounded up.

    Source: MATLAB's ``imresize(image, scale, "bicubic")``, which the literature uses.
    """
    for axis in (0, 1):
        n_in = image.shape[axis]
        weights, at = _taps(n_in, math.ceil(n_in * scale), scale)
        lines = np.moveaxis(image, axis, 0).reshape(n_in, -1)
        mixed = np.zeros((len(at), lines.shape[1]))
        for tap in range(at.shape[1]):
            mixed += weights[:, tap, None] * lines[at[:, tap]]
        pixels = np.clip(np.floor(mixed + 0.5), 0, 255).astype(np.uint8)
        pixels = pixels.reshape(len(at), *np.moveaxis(image, axis, 0).shape[1:])
        image = np.moveaxis(pixels, 0, axis)
    return image


def _taps(n_in: int, n_out: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights f64 and input positions i64 of what makes each output, both [n_out, n_taps]."""
    stretch = min(scale, 1.0)
    centre = (np.arange(n_out) + 0.5) / scale - 0.5
    first = np.floor(centre - 2 / stretch).astype(np.int64)
    at = first[:, None] + np.arange(math.ceil(4 / stretch) + 2)
    weights = _cubic((centre[:, None] - at) * stretch)
    weights /= weights.sum(1, keepdims=True)
    return weights, at.clip(0, n_in - 1)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -1/2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def luminance(image: np.ndarray) -> np.ndarray:
    """Y of BT.601, 16..235, not rounded: u8 [..., 3] (red, green, blue) to f64 [...].

    >>> luminance(np.array([[255, 255, 255], [0, 0, 0]])).tolist()
    [235.0, 16.0]
    """
    weights = np.array([65.481, 128.553, 24.966]) / 255
    result: np.ndarray = 16 + image.astype(np.float64) @ weights
    return result.round(9)
