"""One plot, as an SVG of rectangles and words: requests per second by gateway."""

from __future__ import annotations

import math
from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks.product import NAME
from benchmarks.report import Result, number

_LEFT, _WIDTH, _RIGHT = 190, 420, 90
_BAR, _GAP, _HEAD = 14, 8, 58
_SHADES = ("#5b7fb4", "#b9c8de")
_OWN_SHADES = ("#c4622d", "#e6b798")


def draw(result: Result, file: Path) -> None:
    """Draw a result's bars: a line a label, a bar a group."""
    groups = list(dict.fromkeys(group for group, _, _ in result.bars))
    labels = list(dict.fromkeys(label for _, label, _ in result.bars))
    values = {(group, label): value for group, label, value in result.bars}
    most = max((value for value in values.values() if not math.isnan(value)), default=1.0)
    row = _BAR * len(groups) + _GAP
    height = _HEAD + row * len(labels) + _GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + _RIGHT}" '
        f'height="{height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="8" y="20" font-size="14">{escape(result.title)}</text>',
    ]
    for index, group in enumerate(groups):
        x = _LEFT + 70 * index
        parts.append(f'<rect x="{x}" y="32" width="12" height="12" fill="{_SHADES[index]}"/>')
        parts.append(f'<text x="{x + 17}" y="42">{escape(group)}</text>')
    for place, label in enumerate(labels):
        y = _HEAD + row * place
        shades = _OWN_SHADES if label.startswith(NAME) else _SHADES
        middle = y + row / 2
        parts.append(
            f'<text x="{_LEFT - 8}" y="{middle:.0f}" text-anchor="end">{escape(label)}</text>'
        )
        for index, group in enumerate(groups):
            value = values.get((group, label), math.nan)
            long = 0 if math.isnan(value) else _WIDTH * value / most
            at = y + _BAR * index
            parts.append(
                f'<rect x="{_LEFT}" y="{at}" width="{long:.0f}" height="{_BAR - 1}" '
                f'fill="{shades[index]}"/>'
                f'<text x="{_LEFT + long + 5:.0f}" y="{at + 11}" font-size="11">{number(value)}</text>'
            )
    file.write_text("\n".join([*parts, "</svg>\n"]), encoding="utf-8")
