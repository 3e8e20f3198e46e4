# SPDX-License-Identifier: Apache-2.0
"""What makes sections of a report of something that npusim itself does not know, such as a search.

Registered under the entry-point group ``npusim.reports``, as a class without arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from npusim.report.page import Section


class Reader(Protocol):
    """Reads inputs of one kind.

    One with an attribute ``machine`` is given the `npusim.hardware.Machine` that the options of
    the report name first, if they name any.
    """

    def reads(self, text: str) -> bool:
        """Whether an input is of its kind; quick, and never an error."""
        ...

    def sections(self, texts: Sequence[str], show: Callable[[float], None]) -> list[Section]:
        """What to show of all inputs of its kind.

        Args:
            texts: the inputs, one or more.
            show: hears which fraction of the work is done.
        """
        ...
