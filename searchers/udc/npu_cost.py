# SPDX-License-Identifier: Apache-2.0
"""Spaces whose costs on an NPU a search differentiates in their widths, by `spaces.surrogate`.

Such a space must differ in widths alone, but for bitwidths and sparsities, and all of its widths
must be free in its `npusim.cost.family.Family`. Others have `searchers.udc.cost.ChangeCost`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from npusim.cost.family import Family
from npusim.errors import ConfigError
from spaces.base import Kind, Space
from spaces.lower import lower


@lru_cache(maxsize=4)
def family(space: Space) -> Family:
    """All networks of a space that differs in widths alone.

    Raises:
        ConfigError: it has other choices of what is computed, or a width that is not free.
    """
    computed = (Kind.KERNEL, Kind.OPERATOR, Kind.DEPTH, Kind.RESOLUTION)
    other = [decision.name for decision in space.decisions if decision.kind in computed]
    if other:
        raise ConfigError(
            f"space {space.name!r} must differ in widths, bitwidths and sparsities alone to be "
            f"costed on an NPU in a search, got decision {other[0]!r}"
        )
    found = Family(lower(space, space.largest()).program)
    free = {space.depths[name].width for name in found.widths}
    fixed = [d.name for d in space.decisions if d.kind is Kind.WIDTH and d.name not in free]
    if fixed:
        raise ConfigError(
            f"widths of space {space.name!r} must all be free to be costed on an NPU in a search, "
            f"got {fixed[0]!r}, on which a layer without weights depends"
        )
    return found


def is_family(space: Space) -> bool:
    """Whether `family` takes the space."""
    try:
        family(space)
    except ConfigError:
        return False
    return True


def width_columns(space: Space) -> tuple[Sequence[int], Sequence[np.ndarray]]:
    """Of each width of the family: the decision's position, and its channels by option."""
    positions, options = [], []
    for name, full in family(space).widths.items():
        width = space.depths[name].width
        if width is None:
            raise ConfigError(
                f"widths of space {space.name!r} must be decided to be costed on an NPU in a "
                f"search, got layer {name!r} of {full} channels"
            )
        positions.append(space.position(width))
        numerator, denominator = space.decisions[positions[-1]].fractions
        options.append(-(-numerator * space.depths[name].full // denominator))
    return positions, options
