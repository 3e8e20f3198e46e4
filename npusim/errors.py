# SPDX-License-Identifier: Apache-2.0
"""The errors npusim raises for a caller's mistake: one base, one child per kind.

Every child is also the builtin a caller would expect, so ``except ValueError`` works too.
The wording is ``<what> must <rule>, got <value>``, lower case, without a full stop.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class NpusimError(Exception):
    """Base of all errors a caller can cause; the command line prints it and exits with 2."""

    def __reduce__(self) -> tuple[Any, ...]:
        # pickle would call the child with the finished message; worker processes send errors home
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[NpusimError], args: tuple[Any, ...], state: dict[str, Any]) -> NpusimError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigError(NpusimError, ValueError):
    """An argument, option or file field breaks a rule that the message names."""


class StreamError(NpusimError, ValueError):
    """A compressed weight stream breaks its format.

    Attributes:
        bit_offset: position of the first bit of the field that is wrong, from the stream's start.
    """

    def __init__(self, message: str, bit_offset: int):
        super().__init__(f"{message} (at bit {bit_offset})")
        self.bit_offset = bit_offset


class FormatError(NpusimError, ValueError):
    """A model file is truncated, corrupted or of another format than its reader expects."""


class InfeasibleError(NpusimError, ValueError):
    """No candidate of a search space is within a limit; the message names the least cost there is.

    Attributes:
        least: that cost, in the unit of the limit.
    """

    def __init__(self, message: str, least: int):
        super().__init__(message)
        self.least = least


class UnknownNameError(NpusimError, LookupError):
    """A name is not among the registered or built-in ones; the message lists those."""

    def __init__(self, kind: str, name: object, known: Iterable[str]):
        names = sorted(known)
        close = difflib.get_close_matches(str(name), names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        super().__init__(f"{kind} must be one of {', '.join(names)}, got {name!r}{hint}")


class MissingExtraError(NpusimError, ImportError):
    """An optional part was asked for whose dependency is not installed."""

    def __init__(self, what: str, extra: str, cause: ImportError):
        super().__init__(
            f"{what} must have the extra [{extra}] installed "
            f"(pip install 'npusim[{extra}]'), got: {cause}"
        )


class PluginError(NpusimError, ImportError):
    """A registered plug-in cannot be imported, or is not what its group holds."""
