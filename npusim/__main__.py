# SPDX-License-Identifier: Apache-2.0
"""``python -m npusim``: the same command line as ``npusim``."""

from npusim.cli import main

main()
