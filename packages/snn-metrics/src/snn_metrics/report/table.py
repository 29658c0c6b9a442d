"""A report as lines on a terminal."""

from typing import Any, List, Mapping, Sequence, Tuple

import click

from snn_core.cli.output import print_rows
from snn_metrics.report.counts import SynOpsReport
from snn_metrics.report.numbers import count, joules, percent

__all__ = ["COLUMNS", "print_report"]

COLUMNS = {
    "synops_per_sample": "synops_per_sample",
    "synops_per_step": "synops_per_step",
    "dense_per_sample": "dense",
    "effective_per_sample": "effective",
    "sparse_per_sample": "sparse",
    "acs_per_sample": "acs",
    "macs_per_sample": "macs",
}
"""Columns of a table of layers: the field of `LayerCounts`, and its heading."""


def print_report(where: Mapping[str, Any], report: SynOpsReport) -> None:
    """Print what was counted. where: the checkpoint, the backend and the data, by name."""
    rows = [(key, str(value)) for key, value in where.items()]
    rows += [("samples", f"{report.samples:,}"), ("steps", str(report.steps)), ("loss", f"{report.loss:.6g}")]
    if report.accuracy is not None:
        rows.append(("accuracy", percent(report.accuracy)))
    print_rows(rows, indent="")
    click.echo()
    lines = [["layer", "type", *COLUMNS.values()]]
    for row in (*report.layers, report.total):
        lines.append([row.layer, row.kind, *(count(getattr(row, name)) for name in COLUMNS)])
    _print_table(lines)
    click.echo("(dense, effective, sparse, acs, macs: operations of a sample, summed over its steps)")
    if report.neurons:
        click.echo()
        lines = [["layer", "type", "neurons", "spikes_per_neuron_and_step"]]
        lines += [[row.layer, row.kind, f"{row.neurons:,}", f"{row.firing_rate:.4f}"] for row in report.neurons]
        _print_table(lines)
    for item in report.energy:
        cost = item.cost
        click.echo()
        rows = [("energy_per_sample", f"{joules(item.joules_per_sample)} by {cost.name}, {cost.process_nm:g} nm")]
        print_rows([*rows, ("source", cost.citation), *([("note", cost.note)] if cost.note else [])], indent="")


def _print_table(lines: Sequence[Sequence[str]], words: int = 2) -> None:
    """Print aligned columns: the first ones words, the others numbers, which stand to the right."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    rows: List[Tuple[str, ...]] = [
        tuple(cell if i < words else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths)))
        for line in lines
    ]
    print_rows(rows, indent="")
