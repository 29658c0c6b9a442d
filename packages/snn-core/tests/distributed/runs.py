"""Runs of several processes. `python runs.py NAME FOLDER` is one of the processes, of the run called NAME."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import torch
from torch import Tensor, nn

import snn_core as snn
from snn_core.testing.pieces import Activity
from snn_core.trainer import EarlyStopping, Trainer

RANK = int(os.environ.get("RANK", "0"))
EPOCHS = 3


class Data(torch.utils.data.Dataset):
    """Samples that a line separates, each of which remembers that it was read."""

    def __init__(self, count: int = 52) -> None:
        self.x = torch.randn(count, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.read: List[int] = []

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        self.read.append(int(index))
        return self.x[index], int(self.x[index].sum() > 0)


class Broken(Data):
    """Sample 20 cannot be read: only the process whose it is comes to know."""

    def __getitem__(self, index: int) -> Any:
        if index == 20:
            raise OSError("the disk says no")
        return super().__getitem__(index)


class At:
    """Does something at the end of one step, in one process."""

    def __init__(self, step: int, rank: int, action: Callable[[Any], object]) -> None:
        self.step, self.rank, self.action = step, rank, action

    @snn.hookimpl
    def snn_step_end(self, run: Any) -> None:
        if run.step == self.step and self.rank == run.processes.rank:
            self.action(run)


class Failing(nn.Module):
    """Fails in the forward of the second process, in the third step."""

    deterministic = True

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += self.training and x.abs().sum().item() > 0  # the dry runs are on zeros
        if RANK == 1 and self.count == 3:
            raise ValueError("it does not fit")
        return x


def network(dropout: float = 0.0, *more: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    head = [nn.Dropout(dropout)] if dropout else []
    return snn.Sequential(
        snn.Constant(steps=4), nn.Linear(6, 20), *head, *more, snn.LIF(), nn.Linear(20, 2), snn.LIF()
    ).double()


def trainer(folder: str, model: Any = None, **changes: Any) -> Trainer:
    path = Path(folder)
    settings = {
        "optimizer": snn.Adam(lr=1e-2),
        "backend": snn.EagerBackend(),
        "batch_size": 8,
        "deterministic": True,
        "checkpoint_every": 1,
        "log_every": 1,
        "folder": path.parent,
        "name": path.name,
        "plots": False,
        "timeout_s": 60.0,
        **changes,
    }
    return Trainer(network() if model is None else model, loss=snn.CountCrossEntropy(), **settings)


def finish(made: Trainer, folder: str, train: Any = None, **arguments: Any) -> Any:
    """Train, and save what this process has in the end."""
    data = Data() if train is None else train
    result = made.fit(data, Data(21), epochs=EPOCHS, **arguments)
    saved = {
        "weights": made.model.state_dict(),
        "history": [{k: v for k, v in row.items() if k != "seconds"} for row in result.history],
        "stopped": result.stopped,
        "folder": str(result.folder),
    }
    torch.save(saved, f"{folder}-{RANK}.pt")
    return result


def plain(folder: str) -> None:
    finish(trainer(folder, callbacks=[EarlyStopping("val_loss", patience=50)]), folder)


def dropout(folder: str) -> None:
    """With dropout, resumed wherever it was left; killed once, at step 8, by the process that the environment names."""
    once = Path(f"{folder}.killed")
    victim = int(os.environ.get("VICTIM", "-1"))

    def kill(run: Any) -> None:
        if not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    finish(trainer(folder, network(0.3), callbacks=[At(8, victim, kill)]), folder, resume=True)


def resumed(folder: str) -> None:
    finish(trainer(folder), folder, resume=True)


def shares(folder: str) -> None:
    data = Data()
    trainer(folder).fit(data, epochs=1)
    Path(f"{folder}-{RANK}.json").write_text(json.dumps(data.read))


def evaluation(folder: str) -> None:
    made = trainer(folder, terms=[Activity()])
    data = Data(21)
    torch.save((made.evaluate(data), made.predict(data)), f"{folder}-{RANK}.pt")


def terminated(folder: str) -> None:
    send = At(5, 1, lambda run: os.kill(os.getpid(), signal.SIGTERM))
    finish(trainer(folder, callbacks=[send]), folder, resume=True)


def terminated_alone(folder: str) -> None:
    send = At(5, 0, lambda run: os.kill(os.getpid(), signal.SIGTERM))
    finish(trainer(folder, callbacks=[send]), folder)


def unreadable(folder: str) -> None:
    finish(trainer(folder), folder, Broken())


def callback_fails(folder: str) -> None:
    finish(trainer(folder, callbacks=[At(4, 1, lambda run: {}["nothing"])]), folder)


def step_fails(folder: str) -> None:
    finish(trainer(folder, network(0.0, Failing())), folder)


def stops_in_one(folder: str) -> None:
    finish(trainer(folder, callbacks=[At(4, 1, lambda run: run.stop("the second has had enough"))]), folder)


def controls_differ(folder: str) -> None:
    setters = [At(2, rank, lambda run: run.set_control("activity.weight", 1.0 + run.processes.rank)) for rank in (0, 1)]
    seen: Dict[str, float] = {}
    look = At(3, RANK, lambda run: seen.update(run.controls))
    finish(trainer(folder, terms=[Activity()], callbacks=[*setters, look]), folder)
    Path(f"{folder}-{RANK}.json").write_text(json.dumps(seen))


def started_otherwise(folder: str) -> None:
    finish(trainer(folder), folder, Data(52 + RANK))


def batch_too_small(folder: str) -> None:
    finish(trainer(folder, batch_size=1), folder)


def stands_still(folder: str) -> None:
    stop = At(3, 1, lambda run: time.sleep(600))
    finish(trainer(folder, timeout_s=3.0, callbacks=[stop]), folder)


def nobody_comes(folder: str) -> None:
    finish(trainer(folder, timeout_s=2.0), folder)


RUNS = {
    function.__name__: function
    for function in (
        plain,
        dropout,
        resumed,
        shares,
        evaluation,
        terminated,
        terminated_alone,
        unreadable,
        callback_fails,
        step_fails,
        stops_in_one,
        controls_differ,
        started_otherwise,
        batch_too_small,
        stands_still,
        nobody_comes,
    )
}

if __name__ == "__main__":
    RUNS[sys.argv[1]](sys.argv[2])
