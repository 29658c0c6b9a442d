"""The rows as one picture."""

import re
import textwrap
from pathlib import Path
from typing import Any, Dict, List, Sequence

import matplotlib
import matplotlib.ticker

matplotlib.use("Agg")
from matplotlib import pyplot
from ratios import Row

__all__ = ["save"]


def save(path: Path, title: str, rows: Sequence[Row], labels: Sequence[str]) -> None:
    """Write a picture with a panel for each kind of row that there is, at the most threads that were measured."""
    most = max(row.threads for row in rows)
    shown = [row for row in rows if row.threads == most]
    colours = {label: colour(label) for label in labels}
    panels = [
        (bars, [row for row in shown if row.letter in "abd"], "time of a step / cpu"),
        (lines, [row for row in shown if row.letter == "e" and row.unit == "ms"], "ms a step"),
        (lines, [row for row in shown if row.letter == "e" and row.unit == "MB"], "peak memory, MB"),
        (bandwidth, [row for row in shown if row.letter == "c"], "share of the copy bandwidth"),
        (bars, [row for row in shown if row.letter == "f"], "seconds to the end of the first step"),
        (bars, [row for row in shown if row.letter == "g"], "added by counting"),
    ]
    panels = [panel for panel in panels if panel[1]]
    columns = min(2, len(panels))
    height = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(height, columns, figsize=(7.5 * columns, 4.6 * height), squeeze=False)
    for axis, (draw, found, name) in zip(axes.flat, panels):
        draw(axis, found, colours, name)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_axis_off()
    heading = f"{title}; {most} thread{'s' if most > 1 else ''}"
    figure.suptitle(textwrap.fill(heading, 90 * columns), fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


FAMILIES = ("cpu", "eager", "hooks", "snnTorch", "SpikingJelly", "Norse", "sinabs")


def colour(label: str) -> Any:
    """A library's eager and compiled sides share a hue."""
    family, *compiled = label.split(", ")
    return matplotlib.colormaps["tab20"](2 * FAMILIES.index(family) + len(compiled))


def bars(axis: Any, rows: Sequence[Row], colours: Dict[str, Any], name: str) -> None:
    """A group of bars for each row: the ratio where there is one, else the value."""
    ratios = rows[0].unit == "ms"
    used = [label for label in colours if any(label in row.cells for row in rows)]
    width = 0.8 / len(used)
    for index, label in enumerate(used):
        places, heights, low, high = [], [], [], []
        for place, row in enumerate(rows):
            cell = row.cells.get(label)
            height = None if cell is None else cell.ratio if ratios else cell.value
            if cell is None or height is None:
                continue
            places.append(place + (index - (len(used) - 1) / 2) * width)
            heights.append(height)
            low.append(height - cell.low if ratios and cell.low is not None else 0)
            high.append(cell.high - height if ratios and cell.high is not None else 0)
        axis.bar(places, heights, width, color=colours[label], label=label, yerr=[low, high], error_kw={"lw": 0.8})
    axis.set_xticks(range(len(rows)), [wrapped(row.title) for row in rows], fontsize=8)
    axis.set_ylabel(name)
    if rows[0].unit != "added":
        axis.set_yscale("log")
        axis.set_ylim(bottom=0.5 if ratios else None)
        plain_numbers(axis)
    if ratios:
        axis.axhline(1, color="black", lw=0.8)
    # above: bars may reach any height
    axis.legend(fontsize=6, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)


def plain_numbers(axis: Any) -> None:
    """2, 5 and 10 on a logarithmic scale, where matplotlib writes powers."""
    axis.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axis.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def wrapped(title: str) -> str:
    """A row's title on several lines: at commas outside brackets, and before a plus."""
    return re.sub(r", (?![^(]*\))", ",\n", title).replace(" + ", "\n+ ")


def lines(axis: Any, rows: Sequence[Row], colours: Dict[str, Any], name: str) -> None:
    """A line for each side against the number of steps, both on logarithmic scales."""
    for label, shade in colours.items():
        points = [
            (steps_of(row.title), row.cells[label].value)
            for row in rows
            if label in row.cells and row.cells[label].value is not None
        ]
        if points:
            axis.plot(*zip(*points), marker="o", ms=3, color=shade, label=label)
    axis.set(xscale="log", yscale="log", xlabel="steps of time, T", ylabel=name)
    counts = [steps_of(row.title) for row in rows]
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    plain_numbers(axis)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=6)


def bandwidth(axis: Any, rows: Sequence[Row], colours: Dict[str, Any], name: str) -> None:
    """A line of marks for each neuron, forward with backward: a colour for each side, a shape for each T."""
    both = [row for row in rows if row.title.endswith(", both")]
    kinds: List[str] = list(dict.fromkeys(row.title.rsplit(", T = ", 1)[0] for row in both))
    counts = sorted({steps_of(row.title) for row in both})
    named = set()
    for row in both:
        place = kinds.index(row.title.rsplit(", T = ", 1)[0])
        count = steps_of(row.title)
        for label, cell in row.cells.items():
            if cell.value is not None:
                key = f"{label}, T = {count}"
                marker = "os^D"[counts.index(count) % 4]
                shown = None if key in named else key
                axis.plot(cell.value, place, marker, ms=5, color=colours[label], label=shown)
                named.add(key)
    axis.set_yticks(range(len(kinds)), kinds, fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel(f"{name}, forward with backward")
    axis.axvline(0.5, color="black", lw=0.6, ls=":")
    axis.grid(axis="x", alpha=0.3)
    axis.legend(fontsize=6)


def steps_of(title: str) -> int:
    """The T of a row's title."""
    found = re.search(r"T = (\d+)", title)
    if found is None:
        raise ValueError(f"no T in the title {title!r}")
    return int(found[1])
