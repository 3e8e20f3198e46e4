# SPDX-License-Identifier: Apache-2.0
"""The one place where Numba's flags are chosen.

Kernel modules import this one; nothing that ``import npusim`` loads does, because importing
Numba alone takes longer than the whole package may.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile `function` at its first call, keep the machine code on disk, release the GIL."""
    return numba.njit(cache=True, nogil=True)(function)  # type: ignore[no-any-return]

