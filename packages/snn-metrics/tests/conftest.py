"""What the tests of reports and commands share: two small networks, trained for real once."""

import textwrap
from pathlib import Path
from typing import Iterator, NamedTuple

import pytest
import torch

from snn_core.cli import main

NETS = """
    from collections import OrderedDict
    import torch
    from torch import nn
    from torch.utils.data import TensorDataset
    import snn_core as snn

    def convolutional():
        features = OrderedDict(conv=nn.Conv2d(1, 3, 5, stride=2, padding=1), spikes=snn.LIF(beta=0.9),
                               pool=nn.AvgPool2d(2))
        head = OrderedDict(flat=nn.Flatten(), full=nn.Linear(108, 10), spikes=snn.LIF(beta=0.9))
        parts = OrderedDict(time=snn.Constant(steps=6), features=snn.Sequential(features), head=snn.Sequential(head))
        return snn.Sequential(parts)

    def without_weights():
        return snn.Sequential(snn.Constant(steps=2), nn.Flatten(), nn.AvgPool1d(78), snn.LIF(beta=0.9))

    def readout():
        return snn.Sequential(snn.Constant(steps=2), nn.Linear(4, 3), snn.LI(beta=0.9))

    def values(split):
        x = torch.arange(40.0).reshape(10, 4) / 40
        return TensorDataset(x, torch.zeros(10, 3)) if split == "train" else None

    class ByHand(nn.Module):
        def __init__(self):
            super().__init__()
            self.full, self.spikes = nn.Linear(784, 10), snn.LIF(beta=0.9)

        def forward(self, x):
            return self.spikes(self.full(x.flatten(1)).unsqueeze(0).expand(3, -1, -1))
"""
SAMPLES, STEPS = 70, 6


class Runs(NamedTuple):
    """Folders of finished runs. budget: a convolutional network with terms; its checkpoint is the last.   plain: a
    network of core's own, without terms.
    """

    root: Path
    budget: Path
    plain: Path


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    root = tmp_path_factory.mktemp("trained")
    (root / "report_nets.py").write_text(textwrap.dedent(NETS), encoding="utf-8")
    (root / "budget.toml").write_text(
        'model = {factory = "report_nets:convolutional"}\n'
        "[terms.synops_budget]\ntarget = 20000\nper_layer = {'head.full' = 2000}\n"
        "[terms.spike_rate]\nhigh = 0.001\n[terms.silence]\nweight = 0\n",
        encoding="utf-8",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.syspath_prepend(str(root))
        train("budget.toml", "train.name=budget", "optimizer.lr=0.02")
        train("train.name=plain", "model.args.hidden=12")
        yield Runs(root, root / "runs" / "budget", root / "runs" / "plain")


def train(*words: str) -> None:
    common = ("backend=eager", f"data.limit={SAMPLES}", "train.epochs=2", "train.batch_size=32", "train.log_every=1")
    files = [word for word in words if word.endswith(".toml")]
    changes = [word for word in (*words, *common, "train.progress=false", "train.plots=false") if word not in files]
    assert main(["train", *files, *(part for change in changes for part in ("--set", change))]) == 0
