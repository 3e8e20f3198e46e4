# SPDX-License-Identifier: Apache-2.0
"""Names of layers as tables and plots show them."""

from __future__ import annotations

_NAME_MAX = 40


def short_name(name: str) -> str:
    """The last part of a name that a converter joined from several, at most 40 characters of it.

    >>> short_name("relu;add;conv")
    'conv'
    """
    last = name.rsplit(";", 1)[-1]
    return last if len(last) <= _NAME_MAX else "…" + last[1 - _NAME_MAX :]
