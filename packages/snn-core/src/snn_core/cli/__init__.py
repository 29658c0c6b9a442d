"""The command `snn`. `main` is the console script's entry; everything else is imported by the command that needs it."""

from typing import Optional, Sequence

__all__ = ["main"]


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run `snn` with `arguments` (default: the process's own) and return the exit code; see `snn_core.cli.app`."""
    from snn_core.cli.app import run

    return run(arguments)
