"""The group `snn`: its commands are imported when they run, so that `snn --help` needs none of them.

Exit codes: 0 done; 1 a backend that does not conform, an error found by `snn lint`, or an unexpected error, which is a
bug; 2 wrong usage, or an error that says what to do; 130 interrupted (128 + SIGINT, as a shell reports it).
"""

import importlib
import io
import sys
import traceback
import warnings
from dataclasses import dataclass
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import click

from snn_core._entry_points import Entry, describe, entries, repair
from snn_core.cli.output import print_error, show_warnings
from snn_core.errors import SnnError, TrainingInterrupted, nearest

__all__ = ["COMMANDS", "Lazy", "Settings", "run", "snn"]

OK, BUG, REFUSED, INTERRUPTED = 0, 1, 2, 130


class Lazy(NamedTuple):
    """A command that is imported when it runs: "module:attribute", and the line that `snn --help` shows for it."""

    target: str
    help: str


COMMANDS: Mapping[str, Lazy] = {
    "train": Lazy("snn_core.cli.train:train", "Train a network from a configuration file, or the seed network."),
    "eval": Lazy("snn_core.cli.evaluate:evaluate", "Evaluate a trained network: loss, accuracy and terms."),
    "resume": Lazy("snn_core.cli.resume:resume", "Go on with a run that was interrupted."),
    "lint": Lazy("snn_core.cli.lint:lint", "Say what a backend would refuse, before device time is spent."),
    "backends": Lazy("snn_core.cli.backends:backends", "Show the installed devices and which of them are ready."),
    "plugins": Lazy("snn_core.cli.plugins:plugins", "Show the installed plugins and the hooks that they implement."),
    "terms": Lazy("snn_core.cli.plugins:terms", "Show the terms that plugins offer for the loss."),
    "conformance": Lazy(
        "snn_core.cli.conformance:conformance", "Hold a backend against the reference, claim by claim."
    ),
}
"""Core's own commands, in the order of `snn --help`."""


@dataclass
class Settings:
    """Global options, as `ctx.obj` of every command."""

    traceback: bool = False


class _Group(click.Group):
    """Core's commands first, then those of other packages (entry points of group "snn.commands")."""

    def list_commands(self, ctx: click.Context) -> List[str]:
        return [*COMMANDS, *_foreign()]

    def get_command(self, ctx: click.Context, name: str) -> Optional[click.Command]:
        if name in COMMANDS:
            module, _, attribute = COMMANDS[name].target.partition(":")
            return _with_traceback(getattr(importlib.import_module(module), attribute))
        entry = _foreign().get(name)
        return None if entry is None else _with_traceback(_import_foreign(entry))

    def resolve_command(
        self, ctx: click.Context, args: List[str]
    ) -> Tuple[Optional[str], Optional[click.Command], List[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and name not in _foreign():
            known = self.list_commands(ctx)
            ctx.fail(f"no command {name!r}{nearest(name, known)}; commands are {', '.join(known)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, command.help) for name, command in COMMANDS.items()]
        rows += [(name, f"From package {entry.package}.") for name, entry in _foreign().items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _foreign() -> Dict[str, Entry]:
    """Other packages' commands by name. Core's names are core's; of two packages with one name the first has it."""
    found: Dict[str, Entry] = {}
    for entry in entries("snn.commands"):
        if entry.name not in COMMANDS:
            found.setdefault(entry.name, entry)
    return found


def _import_foreign(entry: Entry) -> click.Command:
    try:
        command = entry.load()
    except Exception as exc:
        where = f"command {entry.name!r} (package {entry.package} {entry.version})"
        raise SnnError(f"{where} cannot be imported: {describe(exc)}; {repair(entry.package, exc)}") from exc
    if not isinstance(command, click.Command):
        raise SnnError(f"package {entry.package}: {entry.value} is {command!r}, not a click command; tell its authors")
    return command


def _remember_traceback(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Settings).traceback = True


def _traceback_option() -> click.Option:
    text = "Show where in the program an error arose."
    return click.Option(
        ["--traceback"], is_flag=True, is_eager=True, expose_value=False, callback=_remember_traceback, help=text
    )


def _with_traceback(command: click.Command) -> click.Command:
    """Let `--traceback` stand after the command's name too, where people put it once something failed."""
    if all(parameter.name != "traceback" for parameter in command.params):
        command.params.append(_traceback_option())
    return command


def _print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        import snn_core

        click.echo(f"snn-core {snn_core.__version__}")
        ctx.exit()


def _welcome() -> None:
    ctx = click.get_current_context()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


snn = _Group(
    "snn",
    callback=_welcome,
    invoke_without_command=True,
    params=[
        _traceback_option(),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Show the version.",
        ),
    ],
    help="Train spiking neural networks: one model, many devices. Start with `snn backends`.",
    epilog="Exit codes: 0 done; 1 a backend does not conform, lint found an error, or an unexpected error (a bug); "
    "2 wrong usage, or an error that says what to do; 130 interrupted.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run(arguments: Optional[Sequence[str]] = None) -> int:
    """Run `snn` and return its exit code; every error becomes a message on stderr."""
    settings = Settings()
    if isinstance(sys.stdout, io.TextIOWrapper):  # what a plugin says must not fail for want of a character
        sys.stdout.reconfigure(errors="replace")
    with warnings.catch_warnings():
        show_warnings()
        try:
            result = snn.main(
                None if arguments is None else list(arguments), prog_name="snn", standalone_mode=False, obj=settings
            )
        except BaseException as exc:
            return _report(exc, settings)
    return result if isinstance(result, int) else OK


def _report(exc: BaseException, settings: Settings) -> int:
    """Print what stopped a command and return the exit code."""
    if isinstance(exc, click.Abort) and isinstance(exc.__cause__, KeyboardInterrupt):
        exc = exc.__cause__  # click's own form of Ctrl-C
    if isinstance(exc, SystemExit):
        raise exc
    if isinstance(exc, click.ClickException):
        path = exc.ctx.command_path if isinstance(exc, click.UsageError) and exc.ctx else "snn"
        print_error(f"{exc.format_message()} (see `{path} --help`)")
        return REFUSED
    if settings.traceback:
        traceback.print_exception(type(exc), exc, exc.__traceback__)
    if isinstance(exc, TrainingInterrupted):
        print_error(str(exc))
        return INTERRUPTED
    if isinstance(exc, (KeyboardInterrupt, click.Abort)):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    if isinstance(exc, SnnError):
        print_error(str(exc))
        return REFUSED
    hint = "" if settings.traceback else "; add --traceback to see where"
    print_error(f"unexpected {describe(exc)}; this is a bug in snn or in a plugin{hint}")
    return BUG
