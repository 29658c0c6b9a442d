"""What a network's neurons do on some samples, watched on the host: rates of single neurons, one sample's spikes."""

import copy
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Tuple

import torch
from torch import Tensor, nn

from snn_core import Trainer
from snn_core.data.checks import read_batch, sample_spec
from snn_core.errors import ConfigError
from snn_core.specs import BatchSpec
from snn_core.step import Step
from snn_metrics.terms.activity import firing_layers

__all__ = ["Activity", "neuron_layers", "watch"]


@dataclass(frozen=True)
class Activity:
    """What neurons did on `samples` samples of `steps` time steps, by the names of their layers, in the model's order.

    rates: of each neuron its mean |output| in a step, `[neurons]`.   raster: what it sent in the first sample,
    `[T, neurons]`.
    """

    samples: int
    steps: int
    rates: Mapping[str, Tensor]
    raster: Mapping[str, Tensor]


def watch(trainer: Trainer, data: Any, samples: int = 256) -> Activity:
    """Run the first samples of a dataset through a copy of the trainer's model on the host, in evaluation mode.

    A layer that the model's forward does not call as a module is not seen. What the model draws follows from the
    trainer's seed. Raises DataError, ShapeError or ConfigError for data that the trainer cannot take.
    """
    settings = trainer.settings
    spec = BatchSpec(settings.batch_size, *sample_spec(data, settings.time_axis, settings.target_time_axis))
    steps = Step(trainer.model, trainer.loss).validate(spec)[0]
    model = copy.deepcopy(trainer.model).cpu().eval()
    watchers = {name: _Watcher() for name in neuron_layers(model)}
    for name, module in model.named_modules():
        if name in watchers:
            module.register_forward_hook(watchers[name])
    count = min(samples, len(data))
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        torch.manual_seed(settings.seed)
        for start in range(0, count, settings.batch_size):
            x, _ = read_batch(data, range(start, min(start + settings.batch_size, count)), spec)
            model(x if spec.x.time_axis is None else x.transpose(0, 1))
    rates = {
        name: watcher.total / (watcher.sequences * steps) for name, watcher in watchers.items() if watcher.sequences
    }
    return Activity(count, steps, rates, {name: watchers[name].first[0] for name in rates})


def neuron_layers(model: nn.Module) -> Dict[str, nn.Module]:
    """The model's layers of neurons that fire, by name; none where it has no such."""
    try:
        names = firing_layers(model, "the report")
    except ConfigError:
        return {}
    modules = dict(model.named_modules())
    return {name: modules[name] for name in names}


class _Watcher:
    """A forward hook that adds up what a layer's neurons send, so that no sequence but one sample's is kept."""

    def __init__(self) -> None:
        self.sequences = 0
        self.total = torch.zeros(())
        self.first: List[Tensor] = []

    def __call__(self, module: nn.Module, args: Tuple[Tensor, ...], out: Tensor) -> None:
        sent = out.detach().float().flatten(2) if out.ndim > 2 else out.detach().float().unsqueeze(-1)
        self.total = self.total + sent.abs().sum((0, 1))
        self.sequences += sent.shape[1]
        if not self.first:
            self.first.append(sent[:, 0].clone())
