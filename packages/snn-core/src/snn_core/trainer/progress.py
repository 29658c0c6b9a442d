"""What a run shows while it goes on: a bar on a terminal, one line for each epoch elsewhere."""

from typing import TYPE_CHECKING, Dict, Iterable, Mapping, Optional

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from snn_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from snn_core.trainer.run import Run, RunResult

__all__ = ["ProgressBar"]


class _Bar(Progress):
    """A bar that reads the run each time it is drawn, so that no step has to report itself."""

    def __init__(self, run: "Run", *columns: ProgressColumn, console: Console) -> None:
        self._run = run
        super().__init__(*columns, console=console, expand=True)

    def get_renderables(self) -> Iterable[RenderableType]:
        run = self._run
        for task in self.tasks:
            self.update(task.id, completed=run.step, epoch=run.epoch)
        return super().get_renderables()


class ProgressBar:
    """Prints the device, the folder and each epoch's metrics; on a terminal, a bar with step, loss and accuracy too."""

    def __init__(self, console: Optional[Console] = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._bar: Optional[_Bar] = None

    @hookimpl(trylast=True)
    def snn_run_start(self, run: "Run") -> None:
        plan = run.plan
        self._print(f"backend {plan.backend} ({plan.device}): {plan.reason}")
        if run.program.summary:
            self._print(f"compiled: {run.program.summary}")
        if run.folder is not None:
            self._print(f"run folder {run.folder}")
        if run.resumed:
            self._print(f"resumed after step {run.step}, epoch {len(run.history)} of {plan.epochs} done")
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._bar = self._make_bar(run)
            run.on_exit(self._bar.stop)
            self._bar.start()

    def _make_bar(self, run: "Run") -> _Bar:
        total, epochs = run.total_steps, run.plan.epochs
        bar = _Bar(
            run,
            TextColumn(f"epoch {{task.fields[epoch]}}/{epochs}"),
            BarColumn(bar_width=None),
            TextColumn(f"step {{task.completed}}/{total}"),
            TextColumn("{task.fields[values]}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        bar.add_task("", total=total, completed=run.step, epoch=run.epoch, values="")
        return bar

    @hookimpl(trylast=True)
    def snn_step_end(self, run: "Run", metrics: Dict[str, float]) -> None:
        self._show(metrics, "")

    @hookimpl(trylast=True)
    def snn_epoch_end(self, run: "Run", metrics: Dict[str, float]) -> None:
        self._show(metrics, "val_" if run.val is not None else "train_")
        named = "  ".join(f"{name} {_spell(name, value)}" for name, value in metrics.items() if name not in _APART)
        self._print(f"epoch {run.epoch}/{run.plan.epochs}  {named}  {metrics['seconds']:.1f} s")

    @hookimpl(trylast=True)
    def snn_run_end(self, run: "Run", result: "RunResult") -> None:
        if self._bar is not None:
            self._bar.stop()
        if result.stopped is not None:
            self._print(f"stopped after epoch {result.epochs}: {result.stopped}")
        if result.best is not None:
            best = result.best
            self._print(f"best: {best.metric} {_spell(best.metric, best.value)} after epoch {best.epoch}")

    def _show(self, metrics: Mapping[str, float], prefix: str) -> None:
        if self._bar is not None:
            values = [(name, metrics.get(prefix + name)) for name in ("loss", "accuracy")]
            text = "  ".join(f"{prefix}{name} {_spell(name, value)}" for name, value in values if value is not None)
            for task in self._bar.tasks:
                self._bar.update(task.id, values=text)

    def _print(self, text: str) -> None:
        self._console.print(escape(text))


_APART = ("epoch", "step", "lr", "seconds")


def _spell(name: str, value: float) -> str:
    return f"{100 * value:.2f} %" if name.endswith("accuracy") else f"{value:.4g}"
