# SPDX-License-Identifier: Apache-2.0
"""What spaces are made of: decision variables with their options, and layers that name them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

import numpy as np

from npusim.errors import ConfigError, UnknownNameError

BITWIDTH_MAX = 32
SIZE_MAX = 1 << 16
"""Most a kernel, a stride, an image side or a depth may be: products of counts stay in i64."""
DENOMINATOR_MAX = 10**6
"""Of an option as a fraction: fine enough for any option, coarse enough for i64 products."""

Option = int | float | str
"""One value that a decision variable can take, in the unit of its `Kind`."""


class Kind(StrEnum):
    """What a decision variable chooses; options are ordered numbers, for operators names."""

    WIDTH = "width"
    """Fraction of a layer's output channels that exist, in (0, 1]; [UDC] rho."""
    BITWIDTH = "bitwidth"
    """Bits of a weight, 1..32; 32 leaves weights as they are; [UDC] b."""
    SPARSITY = "sparsity"
    """Fraction of a layer's weights that are **not** zero, in (0, 1]; [UDC] s."""
    KERNEL = "kernel"
    """Height and width of a kernel."""
    OPERATOR = "operator"
    """Which of a choice's inputs is computed, by name; one of them may do nothing: [UDC] z_f."""
    DEPTH = "depth"
    """Which of a choice's inputs is computed, where each goes on from the one before it."""
    RESOLUTION = "resolution"
    """Height and width of the image."""


class LayerKind(StrEnum):
    """What a layer computes."""

    INPUT = "input"
    """The image, of `Space.image_shape`."""
    CONV = "conv"
    """2-D convolution, "same" padding; batch norm or bias; activation."""
    DEPTHWISE = "depthwise"
    """2-D convolution of each channel by itself, else as `CONV`; as many channels as its input."""
    TRANSPOSE_CONV = "transpose_conv"
    """Transpose of a "same" convolution: `stride` times the height and width; else as `CONV`."""
    DENSE = "dense"
    """Matrix product and bias on a 1x1 feature map; activation."""
    ADD = "add"
    """Sum of maps of one shape; activation."""
    ACTIVATION = "activation"
    """Batch norm if `norm`, then an activation, where no convolution is before it to fold into."""
    AVERAGE_POOL = "average_pool"
    """Mean over windows, "same" padding that does not count."""
    MAX_POOL = "max_pool"
    """Maximum over windows, "same" padding that does not count."""
    GLOBAL_POOL = "global_pool"
    """Mean over height and width."""
    DEPTH_TO_SPACE = "depth_to_space"
    """Channels as pixels: `stride` times the height and width, in steps of 2 in which channel
    ``(2 * y + x) * ofm_depth + c`` becomes channel c of pixel (y, x)."""
    MATCH_DEPTH = "match_depth"
    """The first channels of the input, with zeros after them if there are not enough."""
    ZERO = "zero"
    """Zeros of the shape that a pool with this stride has."""
    CHOICE = "choice"
    """One of its inputs, as a decision says; what only the others need is not there."""
    GIVEN = "given"
    """An operation of a network that is there already, of a shape of its own; see `Given`."""


WEIGHTED = (
    *(LayerKind.CONV, LayerKind.DEPTHWISE, LayerKind.TRANSPOSE_CONV),
    *(LayerKind.DENSE, LayerKind.GIVEN),
)
"""Layers with weights: the ones that bitwidths and sparsities apply to."""
DEEPENING = (LayerKind.CONV, LayerKind.TRANSPOSE_CONV, LayerKind.DENSE, LayerKind.MATCH_DEPTH)
"""Layers that have an `ofm_depth` of their own, and so may have a width."""
WINDOWED = (
    *(LayerKind.CONV, LayerKind.DEPTHWISE, LayerKind.TRANSPOSE_CONV),
    *(LayerKind.AVERAGE_POOL, LayerKind.MAX_POOL),
)
"""Layers with a kernel and a stride."""
NORMED = (
    *(LayerKind.CONV, LayerKind.DEPTHWISE, LayerKind.TRANSPOSE_CONV),
    LayerKind.ACTIVATION,
)
"""Layers that may have batch norm."""
ACTIVATED = (*NORMED, LayerKind.DENSE, LayerKind.ADD)
"""Layers that may have an activation."""
ONE_BY_ONE = (LayerKind.GLOBAL_POOL, LayerKind.DENSE)
"""Layers whose output has height and width 1."""
ACTIVATIONS = ("none", "relu", "relu6", "prelu")

KINDS_OF: Mapping[str, tuple[Kind, ...]] = {
    "width": (Kind.WIDTH,),
    "bitwidth": (Kind.BITWIDTH,),
    "sparsity": (Kind.SPARSITY,),
    "kernel": (Kind.KERNEL,),
    "choice": (Kind.OPERATOR, Kind.DEPTH),
    "resolution": (Kind.RESOLUTION,),
}
"""Which decisions each attribute of a `Layer` may name."""


@dataclass(frozen=True, slots=True)
class DecisionVariable:
    """One choice of a search space.

    Args:
        name: unique in its space.
        kind: what is chosen; sets the unit of the options.
        options: its possible values, strictly rising; for operators different names.

    Raises:
        ConfigError: no options, options that do not rise, or one out of the range of its kind.
    """

    name: str
    kind: Kind
    options: tuple[Option, ...]

    def __post_init__(self) -> None:
        where = f"options of decision {self.name!r}"
        if not self.options:
            raise ConfigError(f"{where} must be one or more, got none")
        for option in self.options:
            _check_option(where, self.kind, option)
        if not self.ordered:
            if len(set(self.options)) < len(self.options):
                raise ConfigError(f"{where} must differ, got {self.options}")
        elif any(a >= b for a, b in zip(self.options, self.options[1:], strict=False)):  # type: ignore[operator]
            raise ConfigError(f"{where} must rise, got {self.options}")

    @property
    def ordered(self) -> bool:
        """Whether options are numbers, so that neighbours among them are alike."""
        return self.kind is not Kind.OPERATOR

    @property
    def fractions(self) -> tuple[np.ndarray, np.ndarray]:
        """Numerators and denominators of numeric options, i64 [n_options] each.

        0.07 * 100 is 7.000000000000001 in floats, of which the ceiling is 8; as 7/100 it is 7.
        Options count as the nearest fraction with a denominator of at most `DENOMINATOR_MAX`.
        """
        exact = [Fraction(option).limit_denominator(DENOMINATOR_MAX) for option in self.options]
        return (
            np.array([f.numerator for f in exact], dtype=np.int64),
            np.array([f.denominator for f in exact], dtype=np.int64),
        )


_INTEGERS = {
    Kind.BITWIDTH: (1, BITWIDTH_MAX),
    Kind.KERNEL: (1, SIZE_MAX),
    Kind.DEPTH: (0, SIZE_MAX),
    Kind.RESOLUTION: (1, SIZE_MAX),
}


def _check_option(where: str, kind: Kind, option: object) -> None:
    if kind is Kind.OPERATOR:
        if not isinstance(option, str) or not option:
            raise ConfigError(f"{where} must be names, got {option!r}")
    elif kind in _INTEGERS:
        low, high = _INTEGERS[kind]
        if type(option) is not int or not low <= option <= high:
            raise ConfigError(f"{where} must be ints in {low}..{high}, got {option!r}")
    elif (
        isinstance(option, bool)
        or not isinstance(option, int | float)
        or not 1 / DENOMINATOR_MAX <= option <= 1
    ):
        raise ConfigError(f"{where} must be in {1 / DENOMINATOR_MAX}..1, got {option!r}")


@dataclass(frozen=True, slots=True)
class Given:
    """What a `LayerKind.GIVEN` is: sizes that no decision changes.

    Attributes:
        operator: as its file names it, such as "CONV_2D".
        ofm_shape: height, width, depth of its output.
        ifm_depth: channels of its (first) input.
        n_weights: all of them, zeros included; 0 for operations without.
        macs: multiply-accumulates for one image.
    """

    operator: str
    ofm_shape: tuple[int, int, int]
    ifm_depth: int
    n_weights: int = 0
    macs: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """One node of a space's graph; an attribute that is searched names its decision variable.

    Args:
        name: unique in its space.
        kind: what it computes.
        inputs: names of the layers it reads, all of them earlier in `Space.layers`.
        ofm_depth: output channels at full width of the kinds in `DEEPENING`; 0 for the others.
        kernel: height and width of the kernel, or the decision of it.
        stride: step in both directions; of what enlarges a map, how much larger the ofm is.
        width, bitwidth, sparsity: names of decisions, or None for full width, 32 bits, no zeros.
        choice: of a `LayerKind.CHOICE`: the decision with an option for each of its inputs.
        resolution: of the input: the decision of its height and width.
        norm: batch norm follows.
        bias: a convolution or dense layer without batch norm has a bias.
        activation: of `ACTIVATIONS`, at the end.
        given: sizes of a `LayerKind.GIVEN`.
    """

    name: str
    kind: LayerKind
    inputs: tuple[str, ...] = ()
    ofm_depth: int = 0
    kernel: int | str = 1
    stride: int = 1
    width: str | None = None
    bitwidth: str | None = None
    sparsity: str | None = None
    choice: str | None = None
    resolution: str | None = None
    norm: bool = False
    bias: bool = True
    activation: str = "none"
    given: Given | None = None

    @property
    def decisions(self) -> dict[str, str]:
        """The decisions this layer names itself, by attribute."""
        named = {attribute: getattr(self, attribute) for attribute in KINDS_OF}
        return {attribute: name for attribute, name in named.items() if isinstance(name, str)}

    @property
    def weighted(self) -> bool:
        """Whether it has weights."""
        if self.given is not None:
            return self.given.n_weights > 0
        return self.kind in WEIGHTED


def check_layer(
    layer: Layer, earlier: Mapping[str, Layer], decisions: Mapping[str, DecisionVariable]
) -> None:
    """Raise ConfigError where a layer does not follow from those before it and the decisions."""
    where = f"layer {layer.name!r}"
    if layer.name in earlier:
        raise ConfigError(f"layer names must be unique, got {layer.name!r} twice")
    if (layer.kind is LayerKind.INPUT) != (not earlier):
        raise ConfigError(f"the input must be the first layer and only that, got {where}")
    _check_inputs(where, layer, earlier)
    _check_sizes(where, layer)
    if layer.kind is LayerKind.DEPTH_TO_SPACE and layer.stride.bit_count() != 1:
        raise ConfigError(f"stride of {where} must be a power of 2, got {layer.stride}")
    if layer.activation not in ACTIVATIONS:
        raise UnknownNameError(f"activation of {where}", layer.activation, ACTIVATIONS)
    allowed = {"norm": NORMED, "activation": ACTIVATED}
    for what, given in (("norm", layer.norm), ("activation", layer.activation != "none")):
        if given and layer.kind not in allowed[what]:
            raise ConfigError(f"{where} must have no {what}, got a {layer.kind} with one")
    if (layer.kind is LayerKind.GIVEN) != (layer.given is not None):
        raise ConfigError(f"sizes must be given for layers of kind given alone, got {where}")
    for attribute, name in layer.decisions.items():
        _check_decision(where, layer, attribute, name, decisions)
    if layer.kind is LayerKind.CHOICE and layer.choice is None:
        raise ConfigError(f"{where} must name the decision of its choice, got none")


def _check_inputs(where: str, layer: Layer, earlier: Mapping[str, Layer]) -> None:
    n_inputs = len(layer.inputs)
    if layer.kind is LayerKind.INPUT:
        rule, fits = "0", n_inputs == 0
    elif layer.kind is LayerKind.ADD:
        rule, fits = "2 or more", n_inputs >= 2
    elif layer.kind in (LayerKind.CHOICE, LayerKind.GIVEN):
        rule, fits = "1 or more", n_inputs >= 1
    else:
        rule, fits = "1", n_inputs == 1
    if not fits:
        raise ConfigError(f"inputs of {where} must be {rule}, got {n_inputs}")
    for source in layer.inputs:
        if source not in earlier:
            raise ConfigError(f"inputs of {where} must be earlier layers, got {source!r}")


def _check_sizes(where: str, layer: Layer) -> None:
    deepening = layer.kind in DEEPENING
    if not (1 <= layer.ofm_depth <= SIZE_MAX if deepening else layer.ofm_depth == 0):
        rule = f"in 1..{SIZE_MAX}" if deepening else "0"
        raise ConfigError(f"ofm_depth of {where} must be {rule}, got {layer.ofm_depth}")
    for what, size, kinds in (
        ("kernel", layer.kernel, WINDOWED),
        ("stride", layer.stride, (*WINDOWED, LayerKind.ZERO, LayerKind.DEPTH_TO_SPACE)),
    ):
        windowed = layer.kind in kinds
        if isinstance(size, str) and windowed:
            continue
        if not isinstance(size, int) or not 1 <= size <= (SIZE_MAX if windowed else 1):
            rule = f"in 1..{SIZE_MAX}" if windowed else "1"
            raise ConfigError(f"{what} of {where} must be {rule}, got {size}")


def _check_decision(
    where: str,
    layer: Layer,
    attribute: str,
    name: str,
    decisions: Mapping[str, DecisionVariable],
) -> None:
    fits = {
        "width": layer.kind in DEEPENING,
        "bitwidth": layer.weighted,
        "sparsity": layer.weighted,
        "kernel": True,  # checked with the sizes
        "choice": layer.kind is LayerKind.CHOICE,
        "resolution": layer.kind is LayerKind.INPUT,
    }
    if not fits[attribute]:
        raise ConfigError(f"{where} must have no {attribute} decision, got {name!r}")
    if name not in decisions:
        raise UnknownNameError("decision", name, decisions)
    decision = decisions[name]
    if decision.kind not in KINDS_OF[attribute]:
        kinds = " or ".join(KINDS_OF[attribute])
        article = "an" if kinds[0] in "aeiou" else "a"
        raise ConfigError(
            f"{attribute} of {where} must name {article} {kinds} decision, "
            f"got {name!r} of kind {decision.kind}"
        )
    if attribute == "choice" and len(decision.options) != len(layer.inputs):
        raise ConfigError(
            f"inputs of {where} must be as many as options of {name!r} "
            f"({len(decision.options)}), got {len(layer.inputs)}"
        )
