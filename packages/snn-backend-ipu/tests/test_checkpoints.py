"""What a program saves, and what of it another kind of device can use."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import snn_core as snn
from snn_backend_ipu import IpuBackend, IpuOptions, IpuProgram
from snn_core import checkpoint
from snn_core.backend import Backend
from snn_core.errors import CheckpointError, DeviceError
from snn_core.optimizers import SGD, Adam, Optimizer
from snn_core.testing.fit import evaluate, train, weights_of
from snn_core.testing.nets import dense, dropout
from snn_core.testing.trial import Trial, compiled

MOMENTUM = dense(12, optimizer=SGD(lr=0.3, momentum=0.9), dtype="float32")


def ipu(**options: Any) -> IpuBackend:
    return IpuBackend(IpuOptions(ipu_model=True, **options))


def trained_state(backend: Backend, trial: Trial = MOMENTUM) -> Any:
    with compiled(backend, trial) as program:
        train(program, trial.samples())
        return program.state_dict()


@pytest.mark.parametrize(("saved_by", "loaded_by"), [("ipu", "eager"), ("eager", "ipu")])
def test_weights_move_to_other_devices_and_what_is_lost_is_said(saved_by: str, loaded_by: str) -> None:
    backends = {"ipu": ipu(), "eager": snn.EagerBackend()}
    state = trained_state(backends[saved_by])
    with compiled(backends[loaded_by], MOMENTUM.but(seed=7)) as program:
        with pytest.warns(UserWarning, match=r"momentum, moments.*are lost and start anew"):
            program.load_state_dict(state)
        got = program.state_dict()["model"]
        assert all(torch.equal(got[name], state["model"][name]) for name in state["model"])
        train(program, MOMENTUM.samples())


def test_a_state_of_its_own_kind_is_loaded_without_a_warning() -> None:
    state = trained_state(ipu())
    with compiled(ipu(), MOMENTUM) as program, warnings.catch_warnings():
        warnings.simplefilter("error")
        program.load_state_dict(state)


def test_a_state_survives_a_checkpoint_on_the_disk(tmp_path: Path) -> None:
    state = trained_state(ipu())
    checkpoint.save(tmp_path / "one.safetensors", state)
    loaded, _ = checkpoint.load(tmp_path / "one.safetensors")
    assert loaded["format"] == "poptorch"
    assert set(loaded["optimizer"]["state"]["ipu_state"]) == set(state["optimizer"]["state"]["ipu_state"])


def test_going_back_to_the_beginning_forgets_the_momentum() -> None:
    ends = []
    model = MOMENTUM.build()
    with compiled(ipu(), MOMENTUM, model) as program:
        start = program.state_dict()
        for _ in range(2):
            train(program, MOMENTUM.samples())
            program.sync()
            ends.append(weights_of(model))
            program.load_state_dict(start)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_learning_rate_is_that_of_the_saved_run() -> None:
    results = []
    for saves in (False, True):
        model = MOMENTUM.build()
        with compiled(ipu(), MOMENTUM, model) as program:
            program.set_lr(0.01)
            if saves:
                program.load_state_dict(program.state_dict())
            train(program, MOMENTUM.samples())
            if saves:
                program.load_state_dict(program.state_dict())
            train(program, MOMENTUM.samples())
            program.sync()
        results.append(weights_of(model))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_another_optimizers_state_is_refused() -> None:
    state = trained_state(ipu(), MOMENTUM.but(optimizer=Adam(lr=0.01)))
    with compiled(ipu(), MOMENTUM) as program, pytest.raises(CheckpointError, match="'adam', this run's 'sgd'"):
        program.load_state_dict(state)


def test_an_evaluation_in_between_leaves_momentum_and_random_numbers_as_they_were() -> None:
    trial = dropout(12, optimizer=SGD(lr=0.3, momentum=0.9), dtype="float32")
    results = []
    for disturbed in (False, True):
        model = trial.build()
        with compiled(ipu(), trial, model) as program:
            for batch in program.loader(trial.samples(), range(12), training=True):
                program.train_step(batch)
                if disturbed:
                    evaluate(program, trial.samples())
            program.sync()
        results.append(weights_of(model))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


@pytest.mark.parametrize("when", ["trained", "evaluated"])
@pytest.mark.parametrize("optimizer", [SGD(lr=0.05, momentum=0.9), Adam(lr=0.01)], ids=["sgd", "adam"])
def test_saving_between_turns_on_shared_ipus_leaves_the_optimizer_as_it_was(optimizer: Optimizer, when: str) -> None:
    trial = MOMENTUM.but(optimizer=optimizer)
    results = []
    for shared, saves in ((False, ""), (True, when)):
        model = trial.build()
        with compiled(ipu(share_ipus=shared), trial, model) as program:
            for turn in range(3):
                train(program, trial.samples())
                # once: what the host has then is soon out of date
                if saves == "trained" and turn == 0:
                    program.state_dict()
                evaluate(program, trial.samples())
                if saves == "evaluated" and turn == 0:
                    program.state_dict()
            program.sync()
        results.append(weights_of(model))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def moments(state: Any) -> Any:
    return state["optimizer"]["state"]["ipu_state"]


def test_a_state_is_saved_without_a_turn_on_the_device() -> None:
    with compiled(ipu(), MOMENTUM) as program:
        assert isinstance(program, IpuProgram)
        train(program, MOMENTUM.samples())
        before = program.state_dict()
        evaluate(program, MOMENTUM.samples())
        after = program.state_dict()
        assert not program._training.attached
    assert after["rng"] == before["rng"]
    for got, want in ((after["model"], before["model"]), (moments(after), moments(before))):
        assert all(torch.equal(got[name], want[name]) for name in want)


def test_the_first_state_that_is_saved_after_an_evaluation_is_the_device_s() -> None:
    states = []
    for evaluates in (False, True):
        with compiled(ipu(), MOMENTUM) as program:
            train(program, MOMENTUM.samples())
            if evaluates:
                evaluate(program, MOMENTUM.samples())
            states.append(moments(program.state_dict()))
    assert states[0]
    assert all(torch.equal(states[1][name], states[0][name]) for name in states[0])


def test_a_program_compiled_offline_has_a_state(tmp_path: Path) -> None:
    with compiled(IpuBackend(IpuOptions(offline=2)), MOMENTUM) as program:
        assert isinstance(program, IpuProgram)
        before = program.state_dict()
        program.export(tmp_path)
        after = program.state_dict()
    assert all(torch.equal(after["model"][name], before["model"][name]) for name in before["model"])


def trainer(model: Any, folder: Any, **settings: Any) -> snn.Trainer:
    usual = {"progress": False, "plots": False, "folder": folder, "batch_size": 4, "time_axis": 1, "backend": ipu()}
    mine = {"loss": snn.CountCrossEntropy(), "optimizer": SGD(lr=0.3, momentum=0.9)}
    return snn.Trainer(model, **{**usual, **mine, **settings})


def test_a_run_with_validation_and_momentum_is_the_references() -> None:
    histories = []
    for backend in (snn.EagerBackend(), ipu()):
        trial = dense(24, dtype="float32")
        data, held = trial.samples()[:16], trial.samples()[16:]
        ours = trainer(trial.build(), None, backend=backend, optimizer=Adam(lr=0.01))
        histories.append(ours.fit(data, held, epochs=4).history)
    for want, got in zip(*histories):
        assert got["train_loss"] == pytest.approx(want["train_loss"], rel=1e-5)
        assert got["val_loss"] == pytest.approx(want["val_loss"], rel=1e-5)


def test_a_recoverable_failure_is_saved_and_resumed_with_the_weights_of_an_undisturbed_run(
    poptorch: Any, tmp_path: Path
) -> None:
    whole, broken, resumed = (MOMENTUM.build() for _ in range(3))
    trainer(whole, None).fit(MOMENTUM.samples(), epochs=2)
    poptorch._contract.inject("execute", poptorch.RecoverableError("link lost", "PARTITION_RESET"), after=4)
    with pytest.raises(DeviceError) as caught:
        trainer(broken, tmp_path / "runs").fit(MOMENTUM.samples(), epochs=2)
    assert caught.value.recoverable
    assert "can recover (PARTITION_RESET): link lost; reset the partition" in str(caught.value)
    assert "after step 4 (epoch 2 of 2); the model holds the weights of that step" in str(caught.value)
    assert "the state is saved; go on with fit(..., resume=" in str(caught.value)
    (run,) = (tmp_path / "runs").iterdir()
    trainer(resumed, tmp_path / "runs").fit(MOMENTUM.samples(), epochs=2, resume=run)
    want, got = weights_of(whole), weights_of(resumed)
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_a_runtime_error_while_it_runs_is_saved_as_other_failures_are(poptorch: Any, tmp_path: Path) -> None:
    poptorch._contract.inject("execute", RuntimeError("stream closed"), after=2)
    with pytest.raises(DeviceError, match=r"RuntimeError: stream closed; it happened after step 2 .*state is saved"):
        trainer(MOMENTUM.build(), tmp_path / "runs").fit(MOMENTUM.samples(), epochs=1)


def test_after_a_failure_amid_several_steps_the_checkpoint_before_stands(poptorch: Any, tmp_path: Path) -> None:
    data = MOMENTUM.samples()
    poptorch._contract.inject("execute", poptorch.RecoverableError("link lost", "IPU_RESET"))
    with pytest.raises(DeviceError, match="the checkpoint before that stands"):
        trainer(MOMENTUM.build(), tmp_path / "runs", steps_per_call=3).fit(data, epochs=1)
    (run,) = (tmp_path / "runs").iterdir()
    state, _ = checkpoint.load(run / "checkpoints" / "last.safetensors")
    assert state["loop"]["step"] == 0


def test_a_loaded_state_stands_after_a_failure(poptorch: Any) -> None:
    trial = MOMENTUM.training(steps_per_call=3)
    with compiled(ipu(), trial) as program:
        start = program.state_dict()
        poptorch._contract.inject("execute", poptorch.RecoverableError("link lost", "IPU_RESET"))
        with pytest.raises(DeviceError, match="link lost"):
            train(program, trial.samples())
        program.load_state_dict(start)
        program.sync()
        got = program.state_dict()["model"]
    assert all(torch.equal(got[name], start["model"][name]) for name in got)
