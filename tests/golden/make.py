# SPDX-License-Identifier: Apache-2.0
"""Write the golden files: results that must not change unnoticed.

    python tests/golden/make.py

Streams are results: whoever changes a byte of them raises `STREAM_VERSION` and runs this. The
inputs are in the files, so that they stay the same with any numpy. Those of Arm's encoders come
from Arm's encoders.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "weights"))

import arm  # noqa: E402
import generators  # noqa: E402

from npusim.weights import encode  # noqa: E402
from npusim.weights.format import STREAM_VERSION  # noqa: E402

STREAMS = HERE / "weight_stream"
COMMAND = "python tests/golden/make.py"
TIGHT = (
    {},
    {"effort": 0},
    {"effort": 5},
    {"direct_offset": "free"},
)
"""Options of the tight streams in each file."""


def tensors() -> dict[str, np.ndarray]:
    """Inputs by name: one of each kind, corner cases, and pieces of other kinds in a row."""
    rng = np.random.default_rng(2024)
    found = {kind.__name__: kind(rng, 600) for kind in generators.KINDS}
    corners = generators.corner_cases()
    for name in ("single_0", "single_-255", "palette_1", "palette_32_in_zeros", "palette_33"):
        found[name] = corners[name]
    for name in ("all_values", "outliers_at_both_ends", "sparse_then_dense"):
        found[name] = corners[name]
    for number in range(4):
        found[f"pieces_{number}"] = generators.tensor_of(rng, 1500)
    return found


def record(values: np.ndarray) -> dict[str, Any]:
    """What a file holds: where it comes from, the weights, and the stream of each encoder."""
    streams = [
        {"encoder": "legacy", "options": {}, "hex": arm.legacy_encode(values).hex()},
        {"encoder": "regor", "options": {}, "hex": arm.regor_encode(values).hex()},
    ]
    for options in TIGHT:
        stream = encode(values, "tight", **options)
        streams.append({"encoder": "tight", "options": options, "hex": stream.hex()})
    return {
        "command": COMMAND,
        "stream_version": STREAM_VERSION,
        "values": values.tolist(),
        "streams": streams,
    }


def text(found: dict[str, Any]) -> str:
    """JSON with a line for the weights and one for each stream."""
    lines = [f'"{key}": {json.dumps(value)}' for key, value in found.items() if key != "streams"]
    streams = ",\n".join(f"  {json.dumps(stream)}" for stream in found["streams"])
    lines.append(f'"streams": [\n{streams}\n]')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    """Replace all files."""
    STREAMS.mkdir(exist_ok=True)
    for old in STREAMS.glob("*.json"):
        old.unlink()
    for name, values in tensors().items():
        (STREAMS / f"{name}.json").write_text(text(record(values)), encoding="utf-8")


if __name__ == "__main__":
    main()
