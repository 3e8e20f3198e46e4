# SPDX-License-Identifier: Apache-2.0
"""Colours and letters of a page's figures, in light and dark: configs of Vega-Lite."""

from __future__ import annotations

from typing import Any, Final

COLOURS: Final = (
    *("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2"),
    *("#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#9a9aa0"),
)
"""Ten that differ on white and on black: Tableau's."""


def _theme(text: str, faint: str, grid: str) -> dict[str, Any]:
    font = "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
    return {
        "background": "transparent",
        "font": font,
        "view": {"stroke": "transparent"},
        "axis": {
            **{"labelColor": faint, "titleColor": text, "gridColor": grid},
            **{"domainColor": grid, "tickColor": grid, "titleFontWeight": "normal"},
            **{"labelFontSize": 11, "titleFontSize": 12, "labelLimit": 190},
        },
        "legend": {
            **{"labelColor": text, "titleColor": faint, "titleFontWeight": "normal"},
            **{"orient": "top", "columns": 4, "labelLimit": 160, "symbolLimit": 60},
            "layout": {"top": {"direction": "vertical", "margin": 2}},
        },
        "title": {"color": text, "fontWeight": 600, "anchor": "start"},
        "header": {"labelColor": text, "titleColor": faint},
        "range": {"category": list(COLOURS), "heatmap": {"scheme": "blues"}},
        "text": {"color": text},
        "rule": {"color": faint},
        "line": {"strokeWidth": 2},
    }


LIGHT: Final = {**_theme("#1c2430", "#596579", "#dfe4ea"), "background": "#ffffff"}
"""For pictures, which are looked at on paper too."""
THEMES: Final = {
    "light": _theme("#1c2430", "#596579", "#dfe4ea"),
    "dark": _theme("#e8ecf2", "#a3afc0", "#36404f"),
}
"""For pages, over whatever is behind."""
