"""A device that fails in the middle of a run: what is saved, and what the error says."""

from pathlib import Path
from typing import Any, Callable, Type

import pytest

from snn_core import checkpoint
from snn_core.backend import Report
from snn_core.eager import EagerBackend, EagerProgram
from snn_core.errors import DeviceError


class Failing(EagerProgram):
    """Its device fails at the third step; `lost`: and gives nothing away after that."""

    recoverable = True
    lost = False
    steps = 0

    def train_step(self, batch: Any) -> Report:
        if self.steps == 2:
            raise self._error("the link is down")
        self.steps += 1
        return super().train_step(batch)

    def state_dict(self) -> Any:
        if self.lost and self.steps == 2:
            raise self._error("no answer")
        return super().state_dict()

    def _error(self, what: str) -> DeviceError:
        return DeviceError(what, recoverable=self.recoverable, action="reset it")


def backend(program: Type[EagerProgram]) -> EagerBackend:
    class Device(EagerBackend):
        def compile(self, step: Any, optimizer: Any, batch: Any, train: Any) -> EagerProgram:
            return program(step, optimizer, batch, train, self.options)

    return Device()


def failure(trainer: Any, samples: Any, program: Type[EagerProgram], **settings: Any) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        trainer(backend=backend(program), deterministic=True, **settings).fit(samples(48), epochs=1)
    return caught.value


def saved_step(folder: Path) -> int:
    (run,) = folder.iterdir()
    state, _ = checkpoint.load(run / "checkpoints" / "last.safetensors")
    return state["loop"]["step"]


def test_what_the_device_still_gives_away_is_saved_and_the_run_goes_on(
    trainer: Callable[..., Any], samples: Callable[..., Any], network: Callable[..., Any], tmp_path: Path
) -> None:
    error = failure(trainer, samples, Failing)
    assert error.recoverable
    assert error.action == "reset it"
    assert (
        "the link is down; it happened after step 2 (epoch 1 of 1); the model holds the weights of that step; "
        in str(error)
    )
    assert "the state is saved; go on with fit(..., resume=" in str(error)
    assert saved_step(tmp_path / "runs") == 2
    (run,) = (tmp_path / "runs").iterdir()
    resumed, whole = network(), network()
    trainer(model=resumed, deterministic=True).fit(samples(48), epochs=1, resume=run)
    trainer(model=whole, deterministic=True, folder=None).fit(samples(48), epochs=1)
    assert all((a == b).all() for a, b in zip(resumed.state_dict().values(), whole.state_dict().values()))


def test_where_nothing_can_be_read_the_checkpoint_before_stands(
    trainer: Callable[..., Any], samples: Callable[..., Any], tmp_path: Path
) -> None:
    class Gone(Failing):
        lost = True

    error = failure(trainer, samples, Gone, checkpoint_every=1)
    assert "the checkpoint before that stands; go on with fit(..., resume=" in str(error)
    assert saved_step(tmp_path / "runs") in (1, 2)


def test_an_error_that_nothing_recovers_promises_no_way_on(
    trainer: Callable[..., Any], samples: Callable[..., Any]
) -> None:
    class Broken(Failing):
        recoverable = False

    error = failure(trainer, samples, Broken)
    assert not error.recoverable
    assert "resume" not in str(error)


def test_without_a_folder_the_model_gets_the_weights_and_the_error_says_that_nothing_was_saved(
    trainer: Callable[..., Any], samples: Callable[..., Any], network: Callable[..., Any]
) -> None:
    model, start = network(), network()
    error = failure(trainer, samples, Failing, folder=None, model=model)
    assert "the model holds the weights of that step; folder=None saved nothing" in str(error)
    assert not all((a == b).all() for a, b in zip(model.state_dict().values(), start.state_dict().values()))
