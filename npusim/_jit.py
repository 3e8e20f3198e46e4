# SPDX-License-Identifier: Apache-2.0
"""The one place where Numba's flags are chosen.

Kernel modules import this one; nothing that ``import npusim`` loads does, because importing
Numba alone takes longer than the whole package may.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numba
from numba.core import event

_LOG = logging.getLogger("npusim")
_ONCE = "compiling kernels for this machine (up to a minute, once)"
_EVERY_TIME = (
    "compiling kernels (up to a minute, at every start: no directory for them can be written; "
    "name one in NUMBA_CACHE_DIR)"
)

KERNELS: list[Callable[..., Any]] = []
"""Every kernel made so far, in the order of its definition."""


class _Notice(event.Listener):  # type: ignore[misc]
    """Logs, once a process, that kernels are being compiled; those in the cache are not."""

    def __init__(self) -> None:
        self.said = False
        self.cached = True

    def on_start(self, event: Any) -> None:
        dispatcher = event.data["dispatcher"]
        if dispatcher not in KERNELS:
            return
        if not self.said:
            self.said = True
            _LOG.info(_ONCE if self.cached else _EVERY_TIME)
        _LOG.debug("compiling %s.%s", dispatcher.__module__, dispatcher.__qualname__)

    def on_end(self, event: Any) -> None:
        """Says nothing: the end of a kernel tells little, since its callees nest inside."""


_NOTICE = _Notice()
event.register("numba:compile", _NOTICE)


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` at its first call, keep the machine code on disk, release the GIL.

    Where no directory can be written, the machine code is not kept.
    """
    return _compiled(function, {"_nrt": True})


def leaf_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a function that makes no array and returns none, which is several times as fast.

    It counts no references to the arrays that it is given, since its caller holds them; views of
    them are no arrays of its own. Numba refuses to compile one that allocates.
    """
    return _compiled(function, {"_nrt": False})


def _compiled(function: Callable[..., Any], flags: dict[str, bool]) -> Callable[..., Any]:
    """Numba passes flags on to the functions that are called, unless they have their own."""
    try:
        made = numba.njit(cache=True, nogil=True, no_cfunc_wrapper=True, **flags)(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        _NOTICE.cached = False
        made = numba.njit(nogil=True, **flags)(function)
    KERNELS.append(made)
    return made  # type: ignore[no-any-return]
