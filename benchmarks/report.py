"""What a row found, as text for a terminal and as Markdown for docs/performance.md."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

from attrs import field, frozen

DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"

Cell = str | float
"""A number is shown with as many digits as it is worth; NaN, where every run was void, as such."""


@frozen
class Goal:
    """What was wanted and what came of it.

    Attributes:
        what: The figure's name.
        wanted: The bound, as in `at least 1x haproxy`.
        reached: The figure found.
        unit: Of both.
        met: Whether it is within the bound.
    """

    what: str
    wanted: str
    reached: float
    unit: str
    met: bool

    def __str__(self) -> str:
        verdict = "void" if math.isnan(self.reached) else "reached" if self.met else "MISSED"
        return f"{verdict}: {self.what}, {number(self.reached)}{self.unit} (goal: {self.wanted})"


def at_least(what: str, bound: float, reached: float, unit: str) -> Goal:
    """Give a goal for a figure that should be large."""
    return Goal(what, f"at least {bound:g}{unit}", reached, unit, reached >= bound)


def at_most(what: str, bound: float, reached: float, unit: str) -> Goal:
    """Give a goal for a figure that should be small."""
    return Goal(what, f"at most {bound:g}{unit}", reached, unit, reached <= bound)


@frozen
class Result:
    """One row's findings.

    Attributes:
        name: Of the row's module.
        lines: As many cells each as there are columns.
        others: How much of the machine others took meanwhile, 0 to 1; NaN if that is unknown.
        notes: What a reader has to know.
        voids: Runs that count for nothing.
        bars: For the plot: (group, label, height).
    """

    name: str
    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[Cell]]
    goals: Sequence[Goal] = ()
    others: float = 0.0
    notes: Sequence[str] = ()
    voids: Sequence[str] = ()
    bars: Sequence[tuple[str, str, float]] = field(factory=tuple)

    def text(self) -> str:
        """Give it for a terminal."""
        table = [list(self.columns), *([shown(cell) for cell in line] for line in self.lines)]
        widths = [max(len(row[i]) for row in table) for i in range(len(self.columns))]
        lines = [f"\n== {self.title}", ""]
        for row in table:
            first, *rest = (
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            lines.append("  ".join([first, *rest]).rstrip())
        return "\n".join([*lines, "", *self._remarks("")])

    def markdown(self) -> str:
        """Give it for the document."""
        lines = [
            f"| {' | '.join(self.columns)} |",
            f"|{'---|' + '---:|' * (len(self.columns) - 1)}",
            *(f"| {' | '.join(map(shown, line))} |" for line in self.lines),
        ]
        return "\n".join([*lines, "", *self._remarks("- ")])

    def _remarks(self, bullet: str) -> list[str]:
        remarks = [f"{goal}." for goal in self.goals] + list(self.notes)
        remarks += [f"VOID, and left out: {void}." for void in self.voids]
        busy = "" if math.isnan(self.others) else f"; others took {self.others:.0%} of the machine"
        remarks.append(f"Measured {time.strftime('%Y-%m-%d %H:%M')}{busy}.")
        return [bullet + remark for remark in remarks]


def shown(cell: Cell) -> str:
    """Give a cell's text."""
    return cell if isinstance(cell, str) else number(cell)


def number(value: float) -> str:
    """Give a number with three digits that mean something."""
    if math.isnan(value):
        return "void"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def times(ratio: float) -> str:
    """Give a ratio's text."""
    return "void" if math.isnan(ratio) else f"{ratio:.2f}x"


def write(blocks: dict[str, str]) -> None:
    """Put blocks into the document, each between the marks with its name."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, block in blocks.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, opened, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not opened or not closed:
            raise ValueError(f"{DOCUMENT} has no place for {name}")
        text = f"{before}{begin}{block}\n{end}{after}"
    DOCUMENT.write_text(text, encoding="utf-8")
