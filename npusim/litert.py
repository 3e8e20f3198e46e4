# SPDX-License-Identifier: Apache-2.0
"""Google's interpreter of .tflite models, as an oracle of what they compute.

outputs = LiteRt(content, "litert_ref")([codes])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy.typing as npt

from npusim._arguments import choice
from npusim.errors import ConfigError, FormatError, MissingExtraError

RESOLVERS: Final = {
    "litert_ref": "BUILTIN_REF",
    "litert_opt": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "xnnpack": "AUTO",
}
"""What the interpreter calls its kernels, by the profile of `npusim.integer` that equals them."""

Codes = npt.NDArray[Any]


class LiteRt:
    """A model, ready to run; called with its inputs it gives its outputs.

    Args:
        content: of a .tflite file.
        profile: a key of `RESOLVERS`.

    Raises:
        UnknownNameError: no such profile.
        FormatError: the interpreter refuses the model.
        MissingExtraError: there is no interpreter.
    """

    def __init__(self, content: bytes, profile: str = "litert_ref"):
        choice("profile of LiteRT", profile, RESOLVERS)
        try:
            from ai_edge_litert.interpreter import Interpreter, OpResolverType
        except ImportError as error:
            raise MissingExtraError("LiteRT", "deploy", error) from error
        resolver = getattr(OpResolverType, RESOLVERS[profile])
        try:
            self._interpreter: Any = Interpreter(
                model_content=content, experimental_op_resolver_type=resolver
            )
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise FormatError(f"model must be one that LiteRT ({profile}) runs: {reason}") from None
        self._inputs = [each["index"] for each in self._interpreter.get_input_details()]
        self._outputs = [each["index"] for each in self._interpreter.get_output_details()]

    def __call__(self, inputs: Sequence[Codes]) -> list[Codes]:
        """Outputs of one inference.

        Raises:
            ConfigError: inputs do not fit the model.
        """
        if len(inputs) != len(self._inputs):
            raise ConfigError(f"inputs must be {len(self._inputs)} arrays, got {len(inputs)}")
        for index, codes in zip(self._inputs, inputs, strict=True):
            try:
                self._interpreter.set_tensor(index, codes)
            except ValueError as error:
                raise ConfigError(f"inputs must fit the model: {error}") from None
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]
