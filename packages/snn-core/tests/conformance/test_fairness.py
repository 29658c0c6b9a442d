"""The kit's own networks: each fires, learns and stays clear of ties, so that a check is neither empty nor unfair."""

from typing import Any, Dict, List, Optional, Tuple

import pytest
import torch
from torch import Tensor

from snn_core import surrogate
from snn_core.neurons import spiking
from snn_core.optimizers import SGD
from snn_core.testing import EVERY, Check, Example
from snn_core.testing.checks import neurons
from snn_core.testing.fit import gradients, one_step
from snn_core.testing.nets import lookup
from snn_core.testing.trial import Trial, reference


def _trials() -> Dict[str, Trial]:
    """Every trial that stands in a check's cases; what is there to be refused need not learn."""
    found: Dict[int, Tuple[str, Trial]] = {}
    for check in EVERY:
        for case, value in check.cases.items():
            trial = _trial_of(value)
            if trial is not None and check.theme != "refusals":
                found.setdefault(id(value), (f"{check.name}[{case}]", trial))
    return dict(found.values())


def _trial_of(value: Any) -> Optional[Trial]:
    if isinstance(value, Example):
        return lookup(neurons.normal_currents(value.shape), value.make)
    trial = value if isinstance(value, Trial) else getattr(value, "trial", None)
    return trial if isinstance(trial, Trial) else None


TRIALS = _trials()


@pytest.mark.parametrize("name", list(TRIALS))
def test_a_trial_tells_samples_apart_and_trains_every_parameter(name: str) -> None:
    trial = TRIALS[name].on(reference()).but(optimizer=SGD(lr=1.0), size=len(TRIALS[name].data))
    trial = trial.training(accumulation=1, chunk=None)
    outcome, seen = one_step(reference(), trial)
    untrained = [n for n, slope in gradients(outcome, trial).items() if float(slope.abs().max()) < 1e-6]
    alike = all(torch.equal(seen.output[:, 0], seen.output[:, i]) for i in range(1, len(trial.data)))
    assert (untrained, alike) == ([], False)


@pytest.mark.slow
@pytest.mark.parametrize("check", EVERY, ids=lambda check: check.name)
def test_no_membrane_lies_so_near_its_threshold_that_rounding_decides(check: Check, monkeypatch: Any) -> None:
    """Nearer than 5e-6, a device's float32 might fire where the reference does not. Exact ties are one check's
    business.
    """
    nearest: List[float] = []
    attach = surrogate.attach

    def spy(value: Tensor, u: Tensor, kind: surrogate.Surrogate) -> Tensor:
        distance = u.detach().abs()
        nearest.extend(distance[distance > 0].flatten().sort().values[:1].tolist())
        return attach(value, u, kind)

    for module in (surrogate, spiking):
        monkeypatch.setattr(module, "attach", spy)
    for case in check.names():
        check(reference(), case)
    assert min(nearest, default=1.0) > 5e-6
