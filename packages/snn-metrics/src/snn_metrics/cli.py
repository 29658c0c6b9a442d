"""The commands of this package: `snn synops` and `snn report` (entry points of group "snn.commands")."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Sequence, Tuple, Union

import click

from snn_core.cli.output import print_json, print_rows
from snn_core.cli.train import backend_option, changes_option
from snn_core.cli.trained import Trained, data_option, json_option, load_trained, source_argument, split_option
from snn_core.errors import ConfigError

if TYPE_CHECKING:
    from snn_core.config import Config
    from snn_metrics.report import SynOpsReport

__all__ = ["report", "synops"]


def _print_costs(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from snn_metrics.energy import COSTS

        for cost in COSTS.values():
            mac = "no MAC" if cost.mac_pj is None else f"MAC {cost.mac_pj:g} pJ"
            click.echo(f"{cost.name}\n  AC {cost.ac_pj:g} pJ, {mac}; {cost.process_nm:g} nm, {cost.number_format}")
            print_rows([(text,) for text in (cost.citation, cost.note) if text])
        ctx.exit()


_OPTIONS: Sequence[Callable[..., Any]] = (
    source_argument,
    data_option,
    split_option,
    click.option(
        "--layout",
        "layouts",
        multiple=True,
        metavar="KIND|LAYER=KIND",
        help="How time lies in the inputs of layers that a module's own forward calls: first, folded, static or step.",
    ),
    click.option(
        "--pooling",
        "poolings",
        multiple=True,
        metavar="sum|none|LAYER=FACTOR",
        help="What average pools count as in synops: sum pools (default), or the |activation| that they leave.",
    ),
    click.option(
        "--energy", "costs", multiple=True, metavar="COST", help="A published cost of an operation, by its name."
    ),
    click.option(
        "--costs",
        "show_costs",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_costs,
        help="Show the known costs with their sources.",
    ),
    backend_option,
    changes_option,
)


def _counting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@_counting_options
@json_option
def synops(
    source: str,
    name: Optional[str],
    split: str,
    layouts: Tuple[str, ...],
    poolings: Tuple[str, ...],
    costs: Tuple[str, ...],
    backend: Optional[str],
    changes: Tuple[str, ...],
    as_json: bool,
) -> None:
    """Count a trained network's synaptic operations, layer by layer, over every sample of a dataset.

    Give a run's folder, whose best checkpoint is taken, or a checkpoint in RUN/checkpoints. The network runs on the
    run's own backend.

    \b
      snn synops runs/20250131-093000
      snn synops runs/20250131-093000 --split train --energy jouppi-2021-int8-7nm
      snn synops runs/20250131-093000/checkpoints/last.safetensors --json
    """
    from snn_metrics.report.table import print_report

    found = load_trained(source, name, split, backend, changes, with_terms=False)
    counted = _count(found, layouts, poolings, costs)
    if as_json:
        print_json({**found.describe(), **counted.to_dict()})
    else:
        print_report(found.describe(), counted)


def _count(found: Trained, layouts: Sequence[str], poolings: Sequence[str], costs: Sequence[str]) -> "SynOpsReport":
    from snn_metrics.energy import cost_named
    from snn_metrics.report import count_operations

    prices = [cost_named(cost) for cost in costs]
    return count_operations(found.trainer, found.data, costs=prices, **_options(found, layouts, poolings))


def _options(found: Trained, layouts: Sequence[str], poolings: Sequence[str]) -> Dict[str, Any]:
    """How operations are counted: as the command says, else as the run's own terms did."""
    options = _of_terms(found.config)
    if layouts:
        options["layout"] = _parsed("--layout", "KIND", layouts, str)
    if poolings:
        options["pooling"] = _parsed("--pooling", "sum or none", poolings, _factor)
    return options


def _of_terms(config: "Config") -> Dict[str, Any]:
    """How the run itself counted, where it did."""
    told = config.terms.get("synops_budget", config.terms.get("operation_counts", {}))
    return {name: told[name] for name in ("layout", "pooling") if name in told}


def _parsed(option: str, alone: str, words: Sequence[str], read: Callable[[str], Any]) -> Union[str, Dict[str, Any]]:
    """One word for all layers, or LAYER=VALUE for each."""
    if len(words) == 1 and "=" not in words[0]:
        return words[0]
    if not all("=" in word for word in words):
        raise ConfigError(f"{option} is {', '.join(words)}; give {alone} once for all layers, or LAYER=... for each")
    pairs = (word.rsplit("=", 1) for word in words)
    return {layer: read(value) for layer, value in pairs}


def _factor(text: str) -> float:
    try:
        return float(text)
    except ValueError as exc:
        raise ConfigError(f"--pooling LAYER={text}: the factor must be a number above 0") from exc


@click.command()
@_counting_options
@click.option("--compare", multiple=True, metavar="RUN", help="Another run to draw beside this one; again and again.")
@click.option("--output", metavar="FILE", help="Where the page is written; RUN/report.html unless it is given.")
def report(
    source: str,
    name: Optional[str],
    split: str,
    layouts: Tuple[str, ...],
    poolings: Tuple[str, ...],
    costs: Tuple[str, ...],
    backend: Optional[str],
    changes: Tuple[str, ...],
    compare: Tuple[str, ...],
    output: Optional[str],
) -> None:
    """Write one self-contained HTML page about a trained network: its operations, energy, firing and course.

    An earlier report is replaced, another file never. Runs to compare are counted too, each on its own data or on that
    of --data.

    \b
      snn report runs/20250131-093000
      snn report runs/small --compare runs/large --output comparison.html
    """
    from snn_metrics.report.making import make_page
    from snn_metrics.report.page import require_place, write_page

    found = load_trained(source, name, split, backend, changes, with_terms=False)
    path = found.run / "report.html" if output is None else Path(output)
    require_place(path)  # counting takes its time
    counted = _count(found, layouts, poolings, costs)
    others = []
    for run in compare:
        other = load_trained(run, name, split, backend, (), with_terms=False)
        others.append((other, _count(other, (), (), ())))
    write_page(path, make_page(found, counted, _options(found, layouts, poolings), others))
    print_rows([("report", str(path))], indent="")
