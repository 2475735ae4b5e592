"""A table of measurements that are repeated over seeds, for the experiments: Markdown on the screen, and figures."""

from collections.abc import Sequence

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

MARKS = {1: " >", -1: " <", 0: ""}


class SeedTable:
    """Rows of values, one list for every seed; shown as mean (sd), None as "-".

    With `against`, the name of a row, another row's value is marked > or < where it is larger or smaller than that
    row's on every seed, by more than two standard deviations of the difference on average. Chance alone marks about
    one comparison in ten with 3 seeds, three in ten with 2.
    """

    def __init__(self, title: str, headings: Sequence[str], against: str = ""):
        self.title, self.headings, self.against = title, list(headings), against
        self.rows: dict[str, list[Sequence[float | None]]] = {}

    def add(self, row: str, values: Sequence[float | None]) -> None:
        """What one more seed gave; a line on the screen as well."""
        self.rows.setdefault(row, []).append(values)
        shown = ", ".join("-" if value is None else f"{value:.3f}" for value in values)
        print(f"  {self.title} | {row}: {shown}", flush=True)

    def print(self, decimals: int = 2) -> dict[str, float]:
        """Print the means; returns them."""
        seeds = max(map(len, self.rows.values()))
        table = Table(title=f"{self.title}: {seeds} seeds", box=box.MARKDOWN, header_style="", title_style="")
        table.add_column("")
        for heading in self.headings:
            table.add_column(heading, justify="right", no_wrap=True)
        figures = {}
        for row, found in self.rows.items():
            table.add_row(row, *(self._cell(found, column, decimals) for column in range(len(self.headings))))
            for heading, column in zip(self.headings, zip(*found, strict=True), strict=True):
                if None not in column:
                    figures[f"{self.title}_{row}_{heading}".replace(" ", "_")] = round(float(np.mean(column)), 4)
        Console(width=180).print(table)
        return figures

    def _cell(self, found: list[Sequence[float | None]], column: int, decimals: int) -> str:
        values = [one[column] for one in found]
        if None in values:
            return "-"
        mark = MARKS[self._direction(values, column)]
        return f"{np.mean(values):.{decimals}f} ({np.std(values):.{decimals}f}){mark}"

    def _direction(self, values: list[float], column: int) -> int:
        reference = [one[column] for one in self.rows.get(self.against, [])]
        if len(reference) != len(values) or len(values) < 2 or None in reference:
            return 0
        difference = np.subtract(values, reference)
        agree = abs(np.sign(difference).sum()) == len(difference)
        return int(np.sign(difference.mean())) if agree and abs(difference.mean()) > 2 * difference.std() else 0
