"""What reaches poptorch: its Options and its optimisers, read back from the fake."""

from typing import Any, Dict, Optional

import pytest
import torch
from torch import nn

from snn_backend_ipu import IpuOptions
from snn_backend_ipu.layout import layout
from snn_backend_ipu.optimizers import build
from snn_backend_ipu.settings import make_settings
from snn_core.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from snn_core.specs import BatchSpec, TensorSpec, TrainSpec

BATCH = BatchSpec(4, TensorSpec((3,), "float32"), TensorSpec((), "int64"))


def settings(training: bool = True, train: Optional[Dict[str, Any]] = None, **options: Any) -> Any:
    asked, spec = IpuOptions(**options), TrainSpec(**(train or {}))
    return make_settings(asked, spec, layout(BATCH, spec, asked, training), training)


def test_the_factors_of_the_combined_batch(poptorch: Any) -> None:
    train = {"accumulation": 6, "steps_per_call": 5}
    made = settings(True, train, replicas=2, evaluation_iterations=3)
    assert (made.device_iterations, made.replication_factor, made.Training.gradient_accumulation) == (5, 2, 3)
    made = settings(False, train, replicas=2, evaluation_iterations=3)
    assert (made.device_iterations, made.replication_factor, made.Training.gradient_accumulation) == (3, 2, 1)


@pytest.mark.parametrize("training", [True, False])
def test_every_micro_batchs_result_comes_back(poptorch: Any, training: bool) -> None:
    assert settings(training).output_mode == poptorch.OutputMode.All


def test_gradients_are_averaged(poptorch: Any) -> None:
    reduction = settings(train={"accumulation": 2}).Training.accumulation_and_replication_reduction_type
    assert reduction == poptorch.ReductionType.Mean


def test_the_seed_is_the_runs(poptorch: Any) -> None:
    before = torch.get_rng_state()
    assert settings(train={"seed": 12}).random_seed == 12
    torch.set_rng_state(before)


def test_buffers_are_not_broadcast_among_replicas(poptorch: Any) -> None:
    assert settings(train={"accumulation": 2}, replicas=2).broadcast_buffers is False


def test_an_offline_program_never_connects(poptorch: Any) -> None:
    made = settings(offline=1)
    assert made.ipu_version == 1
    assert made.connection_type == poptorch.ConnectionType.Never
    assert settings().connection_type == poptorch.ConnectionType.OnDemand


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        ({"recomputation": "all"}, "autoRecomputation", 4),
        ({"recomputation": "none"}, "autoRecomputation", 0),
        ({"stochastic_rounding": True}, "enableStochasticRounding", True),
        ({}, "enableStochasticRounding", False),
        ({"partials": "float16"}, "partialsTypeMatMuls", "half"),
        ({"automatic_loss_scaling": True}, "automaticLossScalingSettings.enabled", True),
        ({"floating_point_exceptions": True}, "enableFloatingPointChecks", True),
        ({"cache": "folder"}, "cachePath", "folder"),
    ],
)
def test_options_of_the_compiler(poptorch: Any, options: Dict[str, Any], key: str, value: Any) -> None:
    assert settings(**options)._Popart.options[key] == value


def test_what_is_not_asked_for_is_left_to_poptorch(poptorch: Any) -> None:
    assert "autoRecomputation" not in settings()._Popart.options
    assert "cachePath" not in settings()._Popart.options


def test_shares_of_memory_go_by_ipu(poptorch: Any) -> None:
    made = settings(train={"accumulation": 3}, stages={"0": 0, "3": 1}, available_memory=0.25)
    assert made.available_memory_proportion == {0: 0.25, 1: 0.25}


def test_poprun_sets_the_replicas_itself(poptorch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("INSTANCE", 1), ("INSTANCES", 2), ("REPLICAS", 4)):
        monkeypatch.setenv(f"POPDIST_CONTRACT_{name}", str(value))
    made = settings(train={"accumulation": 8}, popdist=True)
    assert (made.replication_factor, made.Training.gradient_accumulation) == (2, 2)
    assert (made.Distributed.processId, made.Distributed.numProcesses) == (1, 2)


OPTIMIZERS = [
    SGD(lr=0.1, momentum=0.5, weight_decay=0.2),
    Adam(lr=0.1, betas=(0.5, 0.6), eps=1e-3),
    AdamW(lr=0.1, betas=(0.5, 0.6), eps=1e-3, weight_decay=0.2),
    RMSprop(lr=0.1, alpha=0.5, eps=1e-3, momentum=0.3),
]


@pytest.mark.parametrize("spec", OPTIMIZERS, ids=lambda spec: spec.name)
def test_an_optimizer_has_the_specs_values_and_a_variable_rate(poptorch: Any, spec: Optimizer) -> None:
    made: Any = build(spec, list(nn.Linear(2, 2).parameters()), TrainSpec(), IpuOptions(loss_scaling=4.0))
    assert type(made) is getattr(poptorch.optim, type(spec).__name__)
    (group,) = made.param_groups
    assert {name: group[name] for name in vars(spec) if name in group} == {
        name: value for name, value in vars(spec).items() if name in group
    }
    assert made.loss_scaling == 4.0
    assert not made.variable_attrs.isConstant("lr")


def test_values_at_their_default_stay_constants_of_the_compiled_step(poptorch: Any) -> None:
    made: Any = build(SGD(lr=0.1), list(nn.Linear(2, 2).parameters()), TrainSpec(), IpuOptions())
    for name in ("momentum", "dampening", "weight_decay", "loss_scaling"):
        assert made.variable_attrs.isConstant(name), name


def test_clipping_is_the_optimizers(poptorch: Any) -> None:
    made: Any = build(Adam(), list(nn.Linear(2, 2).parameters()), TrainSpec(clip_norm=0.5), IpuOptions())
    assert made.max_grad_norm == 0.5


def test_gradients_are_summed_in_the_type_asked_for(poptorch: Any) -> None:
    made: Any = build(SGD(), list(nn.Linear(2, 2).parameters()), TrainSpec(), IpuOptions(accumulator="float16"))
    assert made.accum_type == torch.float16
