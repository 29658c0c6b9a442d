"""The table of ratios, as text."""

from typing import Dict, Iterable, List, Sequence, Tuple

from ratios import Cell, Row
from rich.console import Console
from rich.table import Table

__all__ = ["show"]

Column = Tuple[int, str]
"""Threads, and the end of a title: "16, forward"."""

UNITS = {"ms": "{:.3g} ms", "s": "{:.2f} s", "MB": "{:.0f} MB", "share": "{:.2f}", "added": "{:+.1%}"}


def show(console: Console, title: str, rows: Sequence[Row], labels: Sequence[str]) -> None:
    """Print the rows, the neurons' in a table of their own, and what is to be said of them."""
    shares = [row for row in rows if row.unit == "share"]
    others = [row for row in rows if row.unit != "share"]
    if others:
        console.print(by_side(title, others, labels))
    if shares:
        console.print(by_neuron(f"c  the neuron alone, share of the copy bandwidth\n{title}", shares, labels))
    for line in remarks(rows):
        console.print(line, highlight=False)


def by_side(title: str, rows: Sequence[Row], labels: Sequence[str]) -> Table:
    """A column for each side; under each value its ratio to the base."""
    table = Table(title=title, show_lines=True)
    table.add_column("")
    table.add_column("threads", justify="right")
    used = [label for label in labels if any(label in row.cells for row in rows)]
    for label in used:
        table.add_column(label.replace(", ", ",\n"), justify="right")
    for row in rows:
        cells = [text(row.cells.get(label), row.unit) for label in used]
        table.add_row(f"{row.letter}  {row.title}", str(row.threads), *cells)
    return table


def by_neuron(title: str, rows: Sequence[Row], labels: Sequence[str]) -> Table:
    """A row for each neuron of each side; a column for each number of threads and steps, forward and with backward."""
    table = Table(title=title)
    table.add_column("neuron")
    table.add_column("side")
    found: Dict[str, Dict[Column, Row]] = {}
    for row in rows:
        kind, end = row.title.split(", T = ")
        found.setdefault(kind, {})[row.threads, end] = row
    columns = sorted({column for by_column in found.values() for column in by_column}, key=order)
    for threads, end in columns:
        table.add_column(f"T = {end}\n{threads} thread{'s' if threads > 1 else ''}", justify="right")
    for kind, by_column in found.items():
        for label in labels:
            cells = [by_column[column].cells.get(label) if column in by_column else None for column in columns]
            if any(cells):
                table.add_row(kind, label, *(text(cell, "share") for cell in cells))
    return table


def order(column: Column) -> Tuple[int, int, str]:
    """By threads, then steps, then forward before both."""
    steps, part = column[1].split(", ")
    return column[0], int(steps), {"forward": "0", "both": "1"}.get(part, part)


def text(cell: "Cell | None", unit: str) -> str:
    """A cell's value, with its ratio below it; a star leads to a remark."""
    if cell is None:
        return ""
    if cell.error is not None:
        return "-*"
    if cell.value is None:
        return ""
    star = "*" if cell.remark else ""
    value = UNITS[unit].format(cell.value) + star
    return value if cell.ratio is None else f"{value}\n{cell.ratio:.2f}x"


def remarks(rows: Iterable[Row]) -> List[str]:
    """Errors and differences of work, each once with the rows that it is about."""
    found: Dict[str, List[str]] = {}
    for row in rows:
        for label, cell in row.cells.items():
            for said in (cell.error, cell.remark):
                if said:
                    where = f"{row.letter} {row.title}"
                    places = found.setdefault(f"* {label}: {said}", [])
                    if where not in places:
                        places.append(where)
    return [f"{said} ({'; '.join(places[:3])}{'; …' if len(places) > 3 else ''})" for said, places in found.items()]
