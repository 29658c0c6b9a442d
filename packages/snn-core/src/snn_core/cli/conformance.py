"""`snn conformance NAME`: run the conformance kit on an installed backend."""

import traceback
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Dict, Iterable, Iterator, List, Optional, Tuple

import click

from snn_core import registry
from snn_core.backend import API_VERSION, Backend
from snn_core.cli.output import print_json
from snn_core.errors import ConfigError

if TYPE_CHECKING:
    from snn_core.testing.check import Check, Result

__all__ = ["conformance"]

PASSED, FAILED = 0, 1


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--only", metavar="TEXT", help="Run the checks that have TEXT in their theme, name or case.")
@click.pass_context
def conformance(ctx: click.Context, name: str, as_json: bool, only: Optional[str]) -> int:
    """Hold the backend NAME against the reference: what it declares must work, what it does not declare it must refuse.

    A case is marked

    \b
      .  passed
      r  refused, as it must be: the backend does not declare what the case asks for
      F  failed: the results differ, or the contract is broken
      E  an error of any other kind

    Exit codes: 0 all passed or refused; 1 something failed; 2 there is no such backend, its device is not here, no
    check has TEXT, or a launcher started several processes.
    """
    backend = registry.load(name)
    registry.require_ready(backend)
    # the kit needs torch and takes a second to import: not before the backend is known to be there
    from snn_core.distributed.processes import expected
    from snn_core.testing.run import select

    if expected() > 1:
        raise ConfigError(
            f"WORLD_SIZE is {expected()}; the kit runs in one process and starts others itself, for a backend that "
            "trains in several: run it without a launcher"
        )
    chosen = list(select(only))
    if not chosen:
        raise click.UsageError(f"no check has {only!r} in its theme, name or case")
    ran = [check.result(backend, case) for check, case in chosen] if as_json else list(_shown(chosen, backend))
    failures = [result for result in ran if not result.ok]
    if getattr(ctx.obj, "traceback", False):
        _print_tracebacks(failures)
    if as_json:
        print_json(_document(backend, ran))
    else:
        _print_summary(name, ran, failures, whole=only is None)
    return FAILED if failures else PASSED


_MARKS = {"passed": ".", "refused": "r", "failed": "F", "broken": "E"}


def _shown(chosen: Iterable[Tuple["Check", str]], backend: Backend) -> Iterator["Result"]:
    """Run the cases and print a line for each check: its name before it starts, then a mark for each case."""
    health = backend.probe()
    click.echo(f"backend {backend.name}: {health.detail or health.status}")
    theme = ""
    for check, cases in groupby(chosen, key=itemgetter(0)):
        if check.theme != theme:
            theme = check.theme
            click.echo(theme)
        click.echo(f"  {check.name.replace('_', ' ')} ", nl=False)
        wrong = []
        for _, case in cases:
            result = check.result(backend, case)
            click.echo(_MARKS[result.status], nl=False)
            if not result.ok:
                wrong.append(f"    {case + ': ' if case else ''}{result.detail}")
            yield result
        click.echo()
        for line in wrong:
            click.echo(click.style(line, fg="red"))


def _print_tracebacks(failures: Iterable["Result"]) -> None:
    for result in failures:
        if result.cause is not None:
            click.echo(f"{result.check}[{result.case}]", err=True)
            traceback.print_exception(type(result.cause), result.cause, result.cause.__traceback__)


def _print_summary(name: str, ran: List["Result"], failures: List["Result"], whole: bool) -> None:
    counts = {status: sum(result.status == status for result in ran) for status in _MARKS}
    seconds = sum(result.seconds for result in ran)
    parts = [f"{count} {status}" for status, count in counts.items() if count]
    click.echo(f"{', '.join(parts)}; {len(ran)} cases in {seconds:.1f} s")
    if not failures:
        verdict = f"backend {name} conforms" if whole else f"backend {name} passes these checks"
        click.echo(click.style(verdict, fg="green", bold=True))
        return
    failed = list(dict.fromkeys(result.check for result in failures))
    click.echo(click.style(f"backend {name} does not conform: {len(failed)} checks failed", fg="red", bold=True))
    click.echo(f"again, one of them: snn conformance {name} --only {failed[0]}")


def _document(backend: Backend, ran: List["Result"]) -> Dict[str, Any]:
    fields = ("theme", "check", "claim", "case", "status", "detail")
    return {
        "backend": backend.name,
        "api": API_VERSION,
        "device": backend.probe().detail,
        "conforms": all(result.ok for result in ran),
        "results": [
            {**{field: getattr(result, field) for field in fields}, "seconds": round(result.seconds, 4)}
            for result in ran
        ],
    }
