# SPDX-License-Identifier: Apache-2.0
"""What networks come to where they are deployed, as tables for people and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from npusim.deployment import VELA, Agreement, Deployment, Runtime

if TYPE_CHECKING:
    from rich.table import Table

_TITLES = {
    "eq4_bytes": "eq. (4), ≤ 8 bits",
    "entropy_bytes": "order-0 entropy",
    "tight_bytes": "streams by tight",
    "stream_bytes": "weight streams",
    "flash_bytes": "flash",
    "sram_peak_bytes": "SRAM",
    "total_cycles": "cycles",
}


def size_table(found: Deployment) -> Table:
    """Bytes and cycles, ours beside the compiler's."""
    from rich.table import Table

    where = f"{found.npu}, {found.system_config}, {found.memory_mode}"
    table = Table(title=f"{found.model}: {found.n_weights:,} weights on {where}")
    table.add_column("")
    for name in ("npusim", "Vela", "difference", "bits a weight"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, title in _TITLES.items():
        ours = getattr(found, name)
        theirs = getattr(found.compiled, VELA.get(name, ""), None)
        if theirs is None and found.compiled is not None:  # bounds, and ours: of the streams
            theirs = found.compiled.weights_encoded_bytes
        difference = "" if not theirs else f"{100 * (ours / theirs - 1):+.2f} %"
        bits = f"{8 * ours / found.n_weights:.3f}" if name in list(_TITLES)[:4] else ""
        cells = ("" if theirs is None else f"{theirs:,}", difference, bits)
        table.add_row(title, f"{ours:,}", *cells)
    return table


def runtime_table(runtimes: Sequence[Runtime], n_samples: int, samples: str) -> Table:
    """A row for each way of running it that there is something to say of."""
    from rich.table import Table

    table = Table(title=f"outputs for {n_samples:,} {samples}")
    scores = list(dict.fromkeys(name for each in runtimes for name in each.scores))
    trained = any(each.to_torch is not None for each in runtimes)
    agreements = ["as our integers", "as torch"] if trained else ["as our integers"]
    table.add_column("", no_wrap=True)
    for name in (*scores, *agreements):
        table.add_column(name, justify="right", no_wrap=True)
    for each in runtimes:
        found = [f"{each.scores[name]:.4f}" if name in each.scores else "" for name in scores]
        found.append(_share(each.to_integers))
        found += [_share(each.to_torch)] if trained else []
        if any(found):
            table.add_row(each.name, *found)
    return table


def _share(agreement: Agreement | None) -> str:
    """How many codes are equal, and by how much the others differ at most."""
    if agreement is None:
        return ""
    if agreement.n_equal == agreement.n_codes:
        return "all"
    return f"{100 * agreement.share:.2f} %, ±{agreement.largest}"


def to_json(
    found: Deployment, runtimes: Sequence[Runtime], n_samples: int, samples: str
) -> dict[str, Any]:
    """JSON values of both tables."""
    return {
        **found.to_json(),
        "samples": samples,
        "n_samples": n_samples,
        "runtimes": [each.to_json() for each in runtimes],
    }
