# SPDX-License-Identifier: Apache-2.0
"""How near an image is to another: PSNR and SSIM as the super-resolution literature has them."""

from __future__ import annotations

import math

import numpy as np


def psnr(image: np.ndarray, truth: np.ndarray, border: int) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 255; infinite for equal images.

    Args:
        image, truth: luminance, 0..255, [H, W]; both are rounded first.
        border: pixels at each side that do not count, by custom the scale.
    """
    inside = slice(border, -border or None)
    difference = (np.rint(image) - np.rint(truth))[inside, inside]
    error = float(np.mean(difference**2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ssim(image: np.ndarray, truth: np.ndarray, border: int) -> float:
    """Structural similarity, at most 1: mean over Gaussian windows of 11x11, sigma 1.5.

    Args:
        image, truth: luminance, 0..255, [H, W]; both are rounded first.
        border: pixels at each side that do not count.

    Source: Wang et al., Image quality assessment, 2004: K = (0.01, 0.03), windows inside alone.
    """
    inside = slice(border, -border or None)
    x, y = np.rint(image)[inside, inside], np.rint(truth)[inside, inside]
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    alike = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    most = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return float(np.mean(alike / most))


def _blur(x: np.ndarray) -> np.ndarray:
    """Gaussian mean over windows that are inside, [H - 10, W - 10]."""
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()
    for axis in (0, 1):
        x = np.lib.stride_tricks.sliding_window_view(x, 11, axis) @ taps
    return x
