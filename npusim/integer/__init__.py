# SPDX-License-Identifier: Apache-2.0
"""Running int8 networks in integers, code for code as the runtimes do."""

from npusim.integer.interpreter import KINDS, run
from npusim.integer.requantize import PROFILES

__all__ = ["KINDS", "PROFILES", "run"]
