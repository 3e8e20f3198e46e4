# SPDX-License-Identifier: Apache-2.0
"""The count of ones in a word: processors have an instruction for it, Numba has no function."""

from __future__ import annotations

from typing import Any

from numba import config, types
from numba.extending import intrinsic


def count_ones_python(value: Any) -> int:
    """Ones in `value`, a u64."""
    return int(value).bit_count()


@intrinsic
def _count_ones(typingctx, value):  # type: ignore[no-untyped-def]
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.ctpop(args[0])

    return types.int64(types.uint64), codegen


count_ones = count_ones_python if config.DISABLE_JIT else _count_ones
