# SPDX-License-Identifier: Apache-2.0
"""Writing files whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from npusim.errors import ConfigError


def check_writable(what: str, path: str) -> None:
    """Refuse, before any work, a path that no file can be written to.

    Raises:
        ConfigError: it is empty or a folder, or its folder does not exist or cannot be written.
    """
    if not path:
        raise ConfigError(f"{what} must name a file, got {path!r}")
    folder = Path(path).parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(f"{what} must be in a folder that can be written, got {path!r}")
    if Path(path).is_dir():
        raise ConfigError(f"{what} must be a file, got folder {path!r}")


def write_whole(what: str, path: str, write: Callable[[Path], Any]) -> None:
    """Have `write` fill a file beside `path`, then put it in the place of `path`.

    A device or pipe, such as /dev/stdout, is written to as it is; a link stays a link.

    Raises:
        ConfigError: `path` cannot be written; names `what`.
    """
    try:
        target = Path(path).resolve()
        if target.exists() and not target.is_file():
            write(target)
            return
        part = target.with_name(f".{target.stem[:100]}.{os.getpid()}{target.suffix}")
        try:
            write(part)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{what} must be writable, got {path!r} ({error.strerror})") from None
