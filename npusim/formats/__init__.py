# SPDX-License-Identifier: Apache-2.0
"""Model files <-> `Network`; the format is told by the file's content."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from npusim.errors import ConfigError, FormatError, MissingExtraError, NpusimError

if TYPE_CHECKING:
    import os

    from npusim.network import Network


def load(path: str | os.PathLike[str]) -> Network:
    """The network in a .tflite or .onnx file, named like the file without its ending.

    ONNX models are read as `npusim.formats.onnx` says, which needs the extra [onnx].

    Raises:
        ConfigError: there is no such file, or it cannot be read.
        FormatError: its content is not a model, is damaged, or uses what is not supported.
    """
    file = Path(path)
    try:
        if file.exists() and not file.is_file():
            raise ConfigError(f"model must be a file, got {str(file)!r}")
        data = file.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, NpusimError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"model must be a readable file, got {str(file)!r} ({reason})") from None
    return _read(data, file.stem, str(file))


def load_bytes(data: bytes, name: str = "model") -> Network:
    """The network in the content of a .tflite or .onnx file.

    Args:
        data: the whole content; constants of the network are views of it.
        name: what the network is called, also in errors.

    Raises:
        ConfigError: `data` is not bytes.
        FormatError: as for `load`.
    """
    if not isinstance(data, bytes):
        raise ConfigError(f"content of a model must be bytes, got {type(data).__name__}")
    return _read(data, name, name)


def _read(data: bytes, name: str, source: str) -> Network:
    from npusim.formats import onnx, tflite

    try:
        return onnx.read(data, name) if _is_onnx(data) else tflite.read(data, name)
    except MissingExtraError:
        raise
    except NpusimError as error:
        raise FormatError(f"{source}: {error}") from None


def _is_onnx(data: bytes) -> bool:
    """Whether content starts with the version of ONNX's format, and is not a .tflite file's."""
    from npusim.formats.tflite_schema import IDENTIFIER

    return data[:1] == b"\x08" and data[4:8] != IDENTIFIER
