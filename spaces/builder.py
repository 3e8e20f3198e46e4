# SPDX-License-Identifier: Apache-2.0
"""Writing spaces down: one call a layer, with the decisions that the space has by default.

Layers whose maps are added, or of which one is chosen, must have the same depth in every candidate;
the builder ties their widths, and so those of all layers that pass a depth on. A definition only
says what the network is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from npusim.errors import ConfigError
from spaces.base import Space
from spaces.layers import DEEPENING, DecisionVariable, Given, Kind, Layer, LayerKind, Option
from spaces.limits import Limit

Options = Sequence[Option] | None
"""What to decide between; None for no decision."""


class _Default(Enum):
    """What layers take that do not say: the options of the space."""

    DEFAULT = "default"


DEFAULT: Final = _Default.DEFAULT
_ATTRIBUTES: Final = {
    "width": Kind.WIDTH,
    "kernel": Kind.KERNEL,
    "bitwidth": Kind.BITWIDTH,
    "sparsity": Kind.SPARSITY,
    "resolution": Kind.RESOLUTION,
}
_OWNERS: Final = (LayerKind.INPUT, LayerKind.GIVEN, LayerKind.DEPTH_TO_SPACE, *DEEPENING)
"""Layers whose depth is not that of their first input."""


@dataclass(slots=True)
class _Draft:
    """A layer and what is to be decided about it: options by attribute, or a whole decision."""

    layer: Layer
    options: dict[str, tuple[Option, ...]]
    choice: DecisionVariable | None = None


class SpaceBuilder:
    """Collects layers; `build` makes the space. Methods return the name of the layer they add.

    >>> net = SpaceBuilder("tiny", "digits", (8, 8, 1), widths=(0.5, 1.0), bitwidths=(4, 8))
    >>> x = net.conv(net.input(), 16, name="stem")
    >>> x = net.add(x, net.conv(net.conv(x, 16), 16))
    >>> _ = net.dense(net.global_pool(x), 10)
    >>> [decision.name for decision in net.build().decisions if decision.kind == "width"]
    ['stem.width', 'conv2.width']

    Args:
        name: of the space.
        data_set: name of the data its candidates are trained on.
        image_shape: [H, W, C] of the input.
        widths, bitwidths, sparsities: what layers with weights decide between if they do not say;
            None for full width, 32 bits and no zeros.
        limits: what candidates are searched within by default, such as ``"0.55MB"``.
    """

    def __init__(
        self,
        name: str,
        data_set: str,
        image_shape: tuple[int, int, int],
        *,
        widths: Options = None,
        bitwidths: Options = None,
        sparsities: Options = None,
        limits: Sequence[str] = (),
    ):
        self.name, self._data_set, self._image_shape = name, data_set, image_shape
        self._defaults = {"width": widths, "bitwidth": bitwidths, "sparsity": sparsities}
        self._limits = tuple(Limit.parse(text) for text in limits)
        self._drafts: dict[str, _Draft] = {}
        self._owner: dict[str, str] = {}  # the layer whose depth a layer passes on, or itself
        self._tied_to: dict[str, str] = {}  # such layers, by an earlier one they are tied to

    # -- layers

    def input(self, resolutions: Options = None, name: str = "image") -> str:
        """The image; with `resolutions`, its height and width are decided."""
        layer = Layer(name, LayerKind.INPUT)
        return self._append(layer, {"resolution": resolutions})

    def conv(
        self,
        source: str,
        ofm_depth: int,
        kernel: int | Sequence[int] = 3,
        stride: int = 1,
        *,
        widths: Options | _Default = DEFAULT,
        bitwidths: Options | _Default = DEFAULT,
        sparsities: Options | _Default = DEFAULT,
        norm: bool = True,
        bias: bool = True,
        activation: str = "relu",
        name: str = "",
    ) -> str:
        """A convolution of `ofm_depth` channels at full width; several kernels are decided."""
        options = {"width": widths, "bitwidth": bitwidths, "sparsity": sparsities}
        return self._weighted(
            LayerKind.CONV, source, ofm_depth, kernel, options, name,
            stride=stride, norm=norm, bias=bias, activation=activation,
        )  # fmt: skip

    def depthwise(
        self,
        source: str,
        kernel: int | Sequence[int] = 3,
        stride: int = 1,
        *,
        norm: bool = True,
        activation: str = "relu",
        name: str = "",
    ) -> str:
        """A depthwise convolution, as wide as its input."""
        return self._weighted(
            LayerKind.DEPTHWISE, source, 0, kernel, {"width": None}, name,
            stride=stride, norm=norm, activation=activation,
        )  # fmt: skip

    def transpose_conv(
        self,
        source: str,
        ofm_depth: int,
        kernel: int | Sequence[int],
        stride: int,
        *,
        widths: Options | _Default = DEFAULT,
        norm: bool = False,
        activation: str = "none",
        name: str = "",
    ) -> str:
        """A transpose convolution, whose output is `stride` times as high and wide."""
        return self._weighted(
            LayerKind.TRANSPOSE_CONV, source, ofm_depth, kernel, {"width": widths}, name,
            stride=stride, norm=norm, activation=activation,
        )  # fmt: skip

    def dense(
        self,
        source: str,
        ofm_depth: int,
        *,
        widths: Options | _Default = None,
        bitwidths: Options | _Default = DEFAULT,
        sparsities: Options | _Default = DEFAULT,
        activation: str = "none",
        name: str = "",
    ) -> str:
        """A matrix product with bias on a 1x1 map; of full width if nothing is said."""
        options = {"width": widths, "bitwidth": bitwidths, "sparsity": sparsities}
        return self._weighted(
            LayerKind.DENSE, source, ofm_depth, 1, options, name, activation=activation
        )

    def given(self, sources: Sequence[str], sizes: Given, name: str) -> str:
        """An operation of a network that is there already; see `spaces.from_network`."""
        layer = Layer(name, LayerKind.GIVEN, tuple(sources), given=sizes)
        asked = ("bitwidth", "sparsity") if layer.weighted else ()
        return self._append(layer, {what: self._defaults[what] for what in asked})

    def add(self, *sources: str, activation: str = "none", name: str = "") -> str:
        """The sum of maps of one shape; their widths are tied."""
        return self._tying(Layer(name, LayerKind.ADD, sources, activation=activation))

    def activation(self, source: str, activation: str = "relu", norm: bool = False) -> str:
        """Batch norm if `norm`, then an activation, by themselves."""
        kind = LayerKind.ACTIVATION
        return self._append(Layer("", kind, (source,), norm=norm, activation=activation))

    def average_pool(self, source: str, kernel: int, stride: int = 1) -> str:
        """The mean over windows."""
        kind = LayerKind.AVERAGE_POOL
        return self._append(Layer("", kind, (source,), kernel=kernel, stride=stride))

    def max_pool(self, source: str, kernel: int, stride: int = 1) -> str:
        """The maximum over windows."""
        return self._append(Layer("", LayerKind.MAX_POOL, (source,), kernel=kernel, stride=stride))

    def global_pool(self, source: str, name: str = "pool") -> str:
        """The mean over height and width."""
        return self._append(Layer(name, LayerKind.GLOBAL_POOL, (source,)))

    def zero(self, source: str, stride: int = 1) -> str:
        """Zeros instead of `source`."""
        return self._append(Layer("", LayerKind.ZERO, (source,), stride=stride))

    def depth_to_space(self, source: str, stride: int) -> str:
        """Channels as pixels: a map `stride` times as high and wide, of full width before."""
        return self._append(Layer("", LayerKind.DEPTH_TO_SPACE, (source,), stride=stride))

    def match_depth(self, source: str, like: str) -> str:
        """The first channels of `source`, zeros after them: as many as `like` has."""
        root = self._drafts[self._root(like)].layer
        if root.kind not in DEEPENING:
            raise ConfigError(f"layer {like!r} must have a width to be matched, got an input")
        name = self._append(Layer("", LayerKind.MATCH_DEPTH, (source,), root.ofm_depth))
        self._tied_to[name] = root.name
        return name

    def choose(self, options: Mapping[str, str], name: str) -> str:
        """One of several layers, decided by name; their widths are tied.

        What only those lead to that are not chosen is left out.
        """
        decision = DecisionVariable(f"{name}.operator", Kind.OPERATOR, tuple(options))
        return self.choice(tuple(options.values()), decision, name)

    def choice(self, results: Sequence[str], decision: DecisionVariable, name: str = "") -> str:
        """One of `results`, by a decision that several choices may have in common."""
        return self._tying(Layer(name, LayerKind.CHOICE, tuple(results)), decision)

    def repeat(self, results: Sequence[str], name: str, least: int = 0) -> str:
        """How many of a chain of layers there are: the result after `least`, `least` + 1, ...

        Args:
            results: layers of which each goes on from the one before it.
            name: of the layer.
            least: number of layers that the first of `results` stands for.
        """
        depths = tuple(range(least, least + len(results)))
        decision = DecisionVariable(f"{name}.depth", Kind.DEPTH, depths)
        return self.choice(results, decision, name)

    # -- the space

    def build(self) -> Space:
        """The space of all layers so far, the last of which is the output.

        Raises:
            ConfigError: widths that are tied have different options.
        """
        groups: dict[str, list[_Draft]] = {}
        for name, owner in self._owner.items():
            if name == owner:
                groups.setdefault(self._root(name), []).append(self._drafts[name])
        widths = {root: _common_widths(group) for root, group in groups.items()}
        decisions: dict[str, DecisionVariable] = {}
        layers = []
        for name, draft in self._drafts.items():
            root = self._root(name)
            own_width = widths[root] if draft.layer.kind in DEEPENING else None
            options = {**draft.options, "width": own_width}
            named: dict[str, Any] = {}
            for attribute, kind in _ATTRIBUTES.items():
                if (values := options.get(attribute)) is not None:
                    owner = root if attribute == "width" else name
                    decision = DecisionVariable(f"{owner}.{kind}", kind, values)
                    named[attribute] = decisions.setdefault(decision.name, decision).name
            if draft.choice is not None:
                named["choice"] = decisions.setdefault(draft.choice.name, draft.choice).name
            layers.append(replace(draft.layer, **named))
        shape, limits = self._image_shape, self._limits
        return Space(
            self.name, self._data_set, shape, tuple(decisions.values()), tuple(layers), limits
        )

    def _weighted(
        self,
        kind: LayerKind,
        source: str,
        ofm_depth: int,
        kernel: int | Sequence[int],
        own: Mapping[str, Options | _Default],
        name: str,
        **attributes: Any,
    ) -> str:
        options = dict(self._defaults)
        options |= {what: values for what, values in own.items() if values is not DEFAULT}
        if not isinstance(kernel, int):
            options["kernel"], kernel = kernel, 1
        return self._append(Layer(name, kind, (source,), ofm_depth, kernel, **attributes), options)

    def _tying(self, layer: Layer, choice: DecisionVariable | None = None) -> str:
        name = self._append(layer, choice=choice)
        first, *others = (self._root(source) for source in layer.inputs)
        for other in others:
            self._tied_to.update({other: first} if other != first else {})
            first = self._root(first)
        return name

    def _append(
        self,
        layer: Layer,
        options: Mapping[str, Options] | None = None,
        choice: DecisionVariable | None = None,
    ) -> str:
        kind = layer.kind
        number = 1 + sum(draft.layer.kind is kind for draft in self._drafts.values())
        name = layer.name or f"{kind}{number}"
        if name in self._drafts:
            raise ConfigError(f"layer names must be unique, got {name!r} twice")
        for source in layer.inputs:
            if source not in self._drafts:
                raise ConfigError(
                    f"inputs of layer {name!r} must be earlier layers, got {source!r}"
                )
        decided = {
            what: _listed(what, values)
            for what, values in (options or {}).items()
            if values is not None
        }
        self._drafts[name] = _Draft(replace(layer, name=name), decided, choice)
        self._owner[name] = name if kind in _OWNERS else self._owner[layer.inputs[0]]
        return name

    def _root(self, name: str) -> str:
        """The first of the layers whose depths are tied to that of `name`."""
        owner = self._owner[name]
        while owner in self._tied_to:
            owner = self._tied_to[owner]
        return owner


def _listed(what: str, values: Any) -> tuple[Option, ...]:
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise ConfigError(f"options of a {what} must be several values, got {values!r}")
    return tuple(values)


def _common_widths(group: Sequence[_Draft]) -> tuple[Option, ...] | None:
    """What the width of tied layers is decided between; None if one of them is of full width."""
    deciding = [draft for draft in group if draft.layer.kind is not LayerKind.MATCH_DEPTH]
    seen = dict.fromkeys(draft.options.get("width") for draft in deciding)
    if len(seen) > 1 and None not in seen:
        names = ", ".join(draft.layer.name for draft in deciding)
        raise ConfigError(f"layers that are tied must have the same widths, got others in {names}")
    return None if None in seen else next(iter(seen))
