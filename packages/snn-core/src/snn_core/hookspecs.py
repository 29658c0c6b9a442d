"""Every hook, in one place. A plugin is any object or module with functions of these names marked by
`snn_core.hookimpl`.

Installed plugins are found through entry points of group "snn.plugins"; `Trainer(callbacks=[...])` adds objects to
one run.
"""

from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping

import pluggy

if TYPE_CHECKING:
    from snn_core.backend import Report
    from snn_core.trainer.run import Run, RunResult

__all__ = ["hookimpl", "hookspec"]

hookspec = pluggy.HookspecMarker("snn")
hookimpl = pluggy.HookimplMarker("snn")


@hookspec
def snn_register_terms() -> "Mapping[str, Callable[..., Any]]":
    """Return the terms that this plugin offers, name to class, for configuration files and `snn terms`."""
    raise AssertionError("a hook specification is never called")


@hookspec
def snn_register_callbacks() -> "Mapping[str, Callable[..., object]]":
    """Return the callbacks that this plugin offers, name to class, for `[callbacks.NAME]` of configuration files."""
    raise AssertionError("a hook specification is never called")


@hookspec
def snn_run_start(run: "Run") -> None:
    """A run is about to take its first step, fresh or resumed; `run.folder`, `run.model` and `run.settings` are
    ready.
    """


@hookspec
def snn_step_end(run: "Run", report: "Report", metrics: Dict[str, float]) -> None:
    """An optimiser step whose count is a multiple of `log_every` has ended. metrics: this step's, on the host."""


@hookspec
def snn_epoch_end(run: "Run", metrics: Dict[str, float]) -> None:
    """An epoch and its validation have ended. `run.stop(reason)` ends training after this epoch.

    What a plugin adds to `metrics`, numbers by name, is logged and saved with the others.
    """


@hookspec
def snn_checkpoint(run: "Run") -> None:
    """Save `run.state()`: before the first step, every `checkpoint_every` steps, after each epoch, on an interrupt."""


@hookspec
def snn_run_end(run: "Run", result: "RunResult") -> None:
    """Training ended, by itself or because it was stopped; the user's model holds the final weights."""


@hookspec
def snn_save_state(run: "Run") -> "Mapping[str, Any]":
    """Return what this plugin must remember across a resume, JSON values only, under a key of its own."""
    raise AssertionError("a hook specification is never called")


@hookspec
def snn_load_state(run: "Run", state: "Mapping[str, Any]") -> None:
    """A run resumes: take back what `snn_save_state` returned. `state` holds every plugin's keys."""
