"""Closing a program reads the device once more: an error of that never takes the place of one that came before."""

import logging
from pathlib import Path
from typing import Any, Iterator, List

import pytest

import snn_core as snn
from snn_backend_ipu import IpuBackend, IpuOptions, IpuProgram
from snn_core.errors import DeviceError
from snn_core.optimizers import SGD
from snn_core.testing.fit import evaluate, train
from snn_core.testing.nets import dense

MOMENTUM = dense(12, optimizer=SGD(lr=0.3, momentum=0.9), dtype="float32")
KINDS = ["RecoverableError", "UnrecoverableError", "Error"]


def ipu(**options: Any) -> IpuBackend:
    return IpuBackend(IpuOptions(ipu_model=True, **options))


def lost(poptorch: Any, kind: str) -> Exception:
    made: Exception = poptorch.Error("link lost", "popart_exception")
    return made if kind == "Error" else getattr(poptorch, kind)("link lost")


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> List[IpuProgram]:
    """Every program that is compiled."""
    made: List[IpuProgram] = []
    compiles = IpuBackend.compile

    def compile(self: IpuBackend, *arguments: Any) -> IpuProgram:
        made.append(compiles(self, *arguments))
        return made[-1]

    monkeypatch.setattr(IpuBackend, "compile", compile)
    return made


@pytest.fixture
def program() -> Iterator[IpuProgram]:
    """One that has trained and evaluated, and whose turn to train it is."""
    trial = MOMENTUM
    made = ipu(share_ipus=False).compile(trial.step(trial.build()), trial.optimizer, trial.batch(), trial.train)
    train(made, trial.samples())
    evaluate(made, trial.samples())
    train(made, trial.samples())
    yield made
    made.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("folder", [True, False])
def test_the_trainers_word_on_a_lost_device_is_not_taken_back_by_closing(
    poptorch: Any, programs: List[IpuProgram], tmp_path: Path, kind: str, folder: bool
) -> None:
    trainer = snn.Trainer(
        MOMENTUM.build(),
        loss=MOMENTUM.loss,
        optimizer=MOMENTUM.optimizer,
        backend=ipu(share_ipus=False),
        batch_size=4,
        time_axis=1,
        folder=tmp_path if folder else None,
        progress=False,
        plots=False,
    )
    # three steps and three evaluations of an epoch before it
    with poptorch._contract.losing(lost(poptorch, kind), after=7), pytest.raises(DeviceError) as caught:
        trainer.fit(MOMENTUM.samples(), MOMENTUM.samples(), epochs=2)
    assert "link lost" in str(caught.value)
    assert "it happened after step 4 (epoch 2 of 2); the device did not give its weights back" in str(caught.value)
    assert caught.value.recoverable == (folder and kind == "RecoverableError")
    if caught.value.recoverable:
        assert "the checkpoint before that stands; go on with fit(..., resume=" in str(caught.value)
    (program,) = programs
    assert not program._evaluation.compiled


@pytest.mark.parametrize("kind", KINDS)
def test_leaving_a_block_by_the_devices_error_raises_that_error(
    poptorch: Any, program: IpuProgram, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    batch = next(iter(program.loader(MOMENTUM.samples(), range(4), training=True)))
    with poptorch._contract.losing(lost(poptorch, kind)):
        with caplog.at_level(logging.WARNING), pytest.raises(DeviceError, match="link lost") as caught, program:
            program.train_step(batch)
        assert program._training.compiled
    assert isinstance(caught.value.__cause__, poptorch.Error)
    assert not program._evaluation.compiled
    (told,) = caplog.messages
    assert told.startswith("the program could not be closed cleanly: the IPU failed")


def test_an_error_of_the_users_is_not_hidden_by_that_of_closing(poptorch: Any, program: IpuProgram) -> None:
    with poptorch._contract.losing(lost(poptorch, "Error")), pytest.raises(ZeroDivisionError), program:
        raise ZeroDivisionError
    assert not program._evaluation.compiled


def test_closing_after_the_devices_error_raises_nothing(poptorch: Any, program: IpuProgram) -> None:
    batch = next(iter(program.loader(MOMENTUM.samples(), range(4), training=True)))
    with poptorch._contract.losing(lost(poptorch, "UnrecoverableError")):
        with pytest.raises(DeviceError, match="link lost"):
            program.train_step(batch)
        program.close()
    assert not program._evaluation.compiled


@pytest.mark.parametrize("kind", KINDS)
def test_closing_with_no_error_before_says_that_the_device_fails(poptorch: Any, program: IpuProgram, kind: str) -> None:
    told = pytest.raises(DeviceError, match=r"the IPU failed.*link lost")
    with poptorch._contract.losing(lost(poptorch, kind)), told:
        program.close()
    assert not program._evaluation.compiled
    program.close()
    with pytest.raises(RuntimeError, match="closed"):
        program.state_dict()
