"""What the options of a program do, each against the reference or by hand, on the contract fake."""

from typing import Any, Dict, List, Tuple

import pytest
import torch
from torch import Tensor, nn

import snn_core as snn
from snn_backend_ipu import IpuBackend, IpuOptions, IpuProgram
from snn_core.errors import ConfigError, Unsupported
from snn_core.optimizers import SGD
from snn_core.testing.fit import agree, evaluate, fit, one_by_one, train, weights_of
from snn_core.testing.nets import dense, images, rows, static
from snn_core.testing.pieces import Activity, Drive
from snn_core.testing.trial import Trial, compiled

STAGES = {"0": 0, "2": 1}


def backend(**options: Any) -> IpuBackend:
    return IpuBackend(IpuOptions(ipu_model=True, **options))


TRAINED: Dict[str, Tuple[Dict[str, Any], Trial]] = {
    "two replicas": ({"replicas": 2}, dense(24, terms=(Activity(),)).training(accumulation=2)),
    "two replicas that accumulate": ({"replicas": 2}, dense(32).training(accumulation=4)),
    "a pipeline": ({"stages": STAGES}, dense(24).training(accumulation=3)),
    "a pipeline on two replicas": ({"stages": STAGES, "replicas": 2}, dense(48).training(accumulation=6)),
    "all that does not change a result": (
        {
            "available_memory": 0.4,
            "partials": "float16",
            "recomputation": "all",
            "floating_point_exceptions": True,
            "loss_scaling": 8.0,
        },
        dense(12, optimizer=SGD(lr=0.3, momentum=0.5)),
    ),
}


@pytest.mark.parametrize("name", TRAINED)
def test_training_is_the_references_however_it_is_spread(name: str) -> None:
    options, trial = TRAINED[name]
    agree(backend(**options), trial)


def test_stages_are_begun_on_the_programs_copies_and_not_on_the_users_model() -> None:
    trial = dense(12).training(accumulation=3)
    model = trial.build()
    with compiled(backend(stages=STAGES), trial, model) as program:
        assert isinstance(program, IpuProgram)
        for executor in (program._training, program._evaluation):
            hooked = [name for name, module in executor.model.named_modules() if module._forward_pre_hooks]
            assert hooked == ["0", "2"]
    assert not [name for name, module in model.named_modules() if module._forward_pre_hooks]


def test_a_stage_of_an_unknown_module_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="stages names the module 'fc2', which the model does not have; it has 0, 1"):
        fit(backend(stages={"0": 0, "fc2": 1}), dense(12).training(accumulation=3))


def nested() -> nn.Module:
    inner = snn.Sequential(nn.Linear(6, 7), snn.LIF())
    return snn.Sequential(inner, snn.Recurrent(snn.LIF(), nn.Linear(7, 7)), nn.Linear(7, 3), snn.LIF())


@pytest.mark.parametrize("name", ["0", "1.neuron"])
def test_a_stage_at_a_module_that_never_runs_as_one_is_refused_with_those_that_do(name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"never runs as a module.*name a layer that runs: 0\.0, 0\.1, 1, 1\.connection"
    ):
        fit(backend(stages={name: 0}), dense(12, model=nested))


def test_stages_may_begin_inside_a_container() -> None:
    agree(backend(stages={"0.0": 0, "2": 1}), dense(24, model=nested).training(accumulation=3))


class Looping(nn.Module):
    """A loop over time that calls both layers at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.first, self.fc2, self.second = nn.Linear(6, 7), snn.LIF(), nn.Linear(7, 3), snn.LIF()

    def forward(self, x: Tensor) -> Tensor:
        one = two = None
        out = []
        for current in x:
            spikes, one = self.first.step(self.fc1(current), one)
            spikes, two = self.second.step(self.fc2(spikes), two)
            out.append(spikes)
        return torch.stack(out)


BACKWARDS: Dict[str, Tuple[Trial, Dict[str, int], str]] = {
    "the first module on the last IPU": (dense(12), {"2": 0, "0": 1}, "module '2' on IPU 0 runs after '0' on IPU 1"),
    "a loop over time": (
        dense(12, model=Looping),
        {"fc1": 0, "fc2": 1},
        "module 'fc1' on IPU 0 runs after 'fc2' on IPU 1",
    ),
}


@pytest.mark.parametrize("name", BACKWARDS)
def test_a_pipeline_that_would_go_back_is_refused(name: str) -> None:
    trial, stages, says = BACKWARDS[name]
    with pytest.raises(ConfigError) as caught:
        fit(backend(stages=stages), trial.training(accumulation=3))
    assert says in str(caught.value)
    assert "never back" in str(caught.value)


def test_stages_may_be_named_in_any_order() -> None:
    agree(backend(stages={"2": 1, "0": 0}), dense(24).training(accumulation=3))


@pytest.mark.parametrize("samples", [1, 9, 23, 24, 25])
def test_evaluating_several_batches_in_a_call_counts_every_sample_once(samples: int) -> None:
    trial = dense(samples, terms=(Activity(), Drive())).on(backend())
    model = trial.build()
    with compiled(backend(evaluation_iterations=3, replicas=2), trial.training(accumulation=2), model) as program:
        assert program.batches(samples, training=False) == -(-samples // 24)
        got = evaluate(program, trial.samples())
    want = one_by_one(trial, model)
    assert got.samples == samples
    assert got.loss == pytest.approx(want.loss, rel=1e-5)
    assert got.measures == pytest.approx(want.measures, rel=1e-5)
    torch.testing.assert_close(got.output, want.output)


@pytest.mark.parametrize("options", [{"loader": "async"}, {"loader": "async_rebatched", "workers": 1}, {"workers": 2}])
def test_every_loader_gives_the_same_training_and_evaluation(options: Dict[str, Any]) -> None:
    trial = dense(10)
    results = []
    for one in (backend(**options), backend()):
        model = trial.on(one).build()
        with compiled(one, trial, model) as program:
            train(program, trial.on(one).samples())
            results.append(evaluate(program, trial.on(one).samples()))
            program.sync()
        results.append(weights_of(model))
    assert torch.equal(results[0].output, results[2].output)
    assert results[0].samples == 10
    assert all(torch.equal(results[1][name], results[3][name]) for name in results[1])


def test_training_and_evaluation_take_turns_on_shared_ipus() -> None:
    trial = dense(8).on(backend())
    for shared in (True, False):
        with compiled(backend(share_ipus=shared), trial) as program:
            assert isinstance(program, IpuProgram)
            data = trial.samples()
            for _ in range(2):
                train(program, data)
                assert (program._training.attached, program._evaluation.attached) in ((True, False), (True, not shared))
                evaluate(program, data)
                assert (program._training.attached, program._evaluation.attached) == (not shared, True)


def test_one_ipu_is_enough_where_training_and_evaluation_share_it(poptorch: Any) -> None:
    trial = dense(8).on(backend())
    with poptorch._contract.hardware(1), compiled(IpuBackend(IpuOptions()), trial) as program:
        data = trial.samples()
        for _ in range(2):
            train(program, data)
            evaluate(program, data)
        program.load_state_dict(program.state_dict())
        train(program, data)


def test_executors_that_share_nothing_need_a_device_each(poptorch: Any) -> None:
    trial = dense(8).on(backend())
    one = IpuBackend(IpuOptions(share_ipus=False))
    with poptorch._contract.hardware(1), compiled(one, trial) as program:
        train(program, trial.samples())
        with pytest.raises(Unsupported, match=r"Failed to acquire 1 IPU\(s\)"):
            evaluate(program, trial.samples())


def test_batch_norm_counts_its_batches_on_the_host() -> None:
    trial = images(8, size=2).training(accumulation=2).on(backend())
    model = trial.build()
    with compiled(backend(), trial, model) as program:
        train(program, trial.samples(), epochs=2)
        program.sync()
        assert int(model.state_dict()["1.num_batches_tracked"]) == 8
        program.load_state_dict(program.state_dict())
        train(program, trial.samples())
        program.sync()
    assert int(model.state_dict()["1.num_batches_tracked"]) == 12


class Normed(nn.Module):
    """A batch norm in a time loop of its own, with a second name, and a buffer whose name ends as its counter's."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = self.outer = nn.BatchNorm1d(6)
        self.register_buffer("my_num_batches_tracked", torch.tensor(3))
        self.neuron = snn.LIF()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.neuron(torch.stack([self.inner(part) for part in x]))


def looping() -> nn.Module:
    return snn.Sequential(Normed(), nn.Linear(6, 3), snn.LIF())


def test_a_batch_norm_that_runs_at_each_step_counts_as_the_references() -> None:
    trial = dense(8, model=looping, dtype="float32")
    for one in (snn.EagerBackend(), backend()):
        model = trial.build()
        with compiled(one, trial, model) as program:
            train(program, trial.samples())
            program.sync()
        counts = {name: int(value) for name, value in model.state_dict().items() if name.endswith("tracked")}
        # two batches of five steps; the buffer that is the user's own stays
        assert counts == {
            "0.inner.num_batches_tracked": 10,
            "0.outer.num_batches_tracked": 10,
            "0.my_num_batches_tracked": 3,
        }


def counting() -> nn.Module:
    return snn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7, momentum=None), snn.LIF(), nn.Linear(7, 3), snn.LIF())


def refused(one: IpuBackend, trial: Trial) -> str:
    trial = trial.on(one)
    with pytest.raises(Unsupported) as caught:
        one.compile(trial.step(trial.build()), trial.optimizer, trial.batch(), trial.train)
    return str(caught.value)


def test_a_batch_norm_that_needs_its_count_is_refused() -> None:
    assert "batch norm with momentum=None" in refused(backend(), dense(8, model=counting))


def test_a_batch_norm_on_replicas_is_refused() -> None:
    trial = images(8, size=2).training(accumulation=2)
    assert "layer '1' is a batch norm" in refused(backend(replicas=2), trial)


def nodes(steps: int) -> Any:
    model = snn.Sequential(snn.Constant(steps), nn.Linear(6, 7), snn.LIF(), nn.Linear(7, 3), snn.LIF())
    with compiled(backend(), static(4, model=lambda: model)) as program:
        assert isinstance(program, IpuProgram)
        return program.nodes


def test_nodes_grow_with_the_steps_and_the_layers_before_the_first_neuron_do_not() -> None:
    few, many = nodes(10), nodes(20)
    assert few.total < many.total < 2 * few.total
    # the first layer once for its constant input, the second once for all steps
    assert few.kinds["aten::linear"] == many.kinds["aten::linear"] == 2


def test_a_run_begins_with_the_size_of_the_graph(capsys: pytest.CaptureFixture) -> None:
    trial = dense(8).on(backend())
    trainer = snn.Trainer(
        trial.build(), loss=trial.loss, backend=backend(), batch_size=4, time_axis=1, folder=None, plots=False
    )
    trainer.fit(trial.samples(), epochs=1)
    with compiled(backend(), trial) as program:
        assert isinstance(program, IpuProgram)
        assert f"compiled: a training graph of {program.nodes.total:,} nodes (" in capsys.readouterr().out


def test_each_process_of_poprun_trains_on_its_own_part(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: List[List[int]] = []
    for process in (0, 1):
        for name, value in (("INSTANCE", process), ("INSTANCES", 2), ("REPLICAS", 2)):
            monkeypatch.setenv(f"POPDIST_CONTRACT_{name}", str(value))
        trial = rows(12).training(accumulation=2).but(size=2)
        model = trial.build()
        with compiled(backend(popdist=True), trial, model) as program:
            assert program.batches(12, training=True) == 3
            assert program.batches(12, training=False) == 6
            before = weights_of(model)["1.weight"]
            train(program, trial.samples())
            program.sync()
        moved = (weights_of(model)["1.weight"] != before).any(0)
        seen.append(moved.nonzero().flatten().tolist())
    assert seen == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]]


def test_running_statistics_stay_wide_under_half_precision() -> None:
    trial = images(8, dtype="float32").training(precision="fp16")
    with compiled(backend(), trial) as program:
        assert isinstance(program, IpuProgram)
        tree = dict(program._training.model.named_modules())["1"]
        assert (tree.weight.dtype, tree.running_mean.dtype) == (torch.float16, torch.float32)
        train(program, trial.samples())
        moved = program.state_dict()["model"]["1.running_mean"]
    full = fit(backend(), trial.training(precision="fp32")).weights["1.running_mean"]
    torch.testing.assert_close(moved, full, rtol=1e-2, atol=1e-2)


def test_half_precision_gives_back_the_digits_of_what_did_not_move() -> None:
    trial = dense(8, dtype="float32", optimizer=SGD(lr=0.0)).training(precision="fp16")
    got = fit(backend(), trial)
    assert all(torch.equal(got.weights[name], got.start[name]) for name in got.start)
    moved = fit(backend(), trial.but(optimizer=SGD(lr=1.0))).weights["0.weight"]
    changed = moved != got.start["0.weight"]
    assert changed.any()
    # what moved is a half-precision number
    assert torch.equal(moved[changed], moved[changed].half().float())
