# SPDX-License-Identifier: Apache-2.0
"""Where these tests find the interpreter that those of the formats use."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "formats"))
