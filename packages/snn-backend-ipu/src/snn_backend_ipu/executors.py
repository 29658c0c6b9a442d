"""poptorch's executors, one for training and one for evaluation, each with a module tree and weights of its own."""

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

import torch
from torch import Tensor, nn

from snn_backend_ipu.calls import call, read, write
from snn_backend_ipu.optimizers import set_rate
from snn_backend_ipu.weights import plain_state, write_state

__all__ = ["EvaluationExecutor", "TrainingExecutor", "destroy_all"]

RandomState = Optional[List[int]]


class _Executor:
    """What both do: compile at the first batch, hold a device or not, keep weights and random numbers over that.

    executable: a file of `export` to load instead of compiling.
    """

    def __init__(self, wrapped: Any, model: nn.Module, executable: Optional[Path]) -> None:
        self._wrapped, self.model, self._executable = wrapped, model, executable
        self._random: RandomState = None

    @property
    def compiled(self) -> bool:
        return bool(call("PoplarExecutor.isCompiled", self._wrapped))

    @property
    def attached(self) -> bool:
        return self.compiled and bool(call("PoplarExecutor.isAttachedToDevice", self._wrapped))

    def run(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Execute one call on inputs of the combined batch size."""
        if not self.compiled:
            if self._executable is not None:
                call("PoplarExecutor.loadExecutable", self._wrapped, filename=str(self._executable))
            else:
                call("PoplarExecutor.compile", self._wrapped, args=tuple(inputs))
        self.attach()
        outputs: Sequence[Tensor] = call("PoplarExecutor.__call__", self._wrapped, args=tuple(inputs))
        return outputs

    def attach(self) -> None:
        """Take a device, with the weights and the random numbers that were left."""
        if not self.attached:
            call("PoplarExecutor.attachToDevice", self._wrapped)
        if self._random is not None:
            write("PoplarExecutor.rng_state", self._wrapped, self._random)
            self._random = None

    def release(self) -> None:
        """Give the device to another executor; weights and random numbers stay here."""
        if self.attached:
            self._random = self.random_state()
            self.weights()
            call("PoplarExecutor.detachFromDevice", self._wrapped)

    def weights(self) -> Dict[str, Tensor]:
        """The model's tensors as they are now, in the device's dtypes."""
        if self.attached:
            call("PoplarExecutor.copyWeightsToHost", self._wrapped)
        return plain_state(self.model)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Replace the model's tensors, on the device too."""
        write_state(self.model, state)
        if self.attached:
            call("PoplarExecutor.copyWeightsToDevice", self._wrapped)

    def random_state(self) -> RandomState:
        """Where the device's random numbers stand; None before the first call, which starts them from the seed."""
        if self._random is not None or not self.attached:
            return self._random
        return list(read("PoplarExecutor.rng_state", self._wrapped))

    def restore_random(self, state: RandomState) -> None:
        """Go on from `random_state()`; from None there is nothing to go on from."""
        self._random = None if state is None else list(state)
        if self.attached:
            self.attach()

    def export(self, path: Path, inputs: Sequence[Tensor]) -> None:
        """Compile for these inputs into a file that `executables` loads, on a machine with the same poptorch."""
        if not self.compiled:
            call("PoplarExecutor.compile", self._wrapped, args=tuple(inputs))
        # without the random numbers: a run that loads it draws from its own seed
        call("PoplarExecutor.save", self._wrapped, filename=str(path), export_model=False, save_rng_state=False)

    def destroy(self) -> None:
        """Give back the device and what was compiled."""
        if self.compiled:
            call("PoplarExecutor.destroy", self._wrapped)


def destroy_all(executors: Sequence[_Executor]) -> List[Exception]:
    """Destroy each, whatever the others raise, and return what they raised: destroying one reads its device."""
    errors: List[Exception] = []
    for executor in executors:
        try:
            executor.destroy()
        except Exception as exc:
            errors.append(exc)
    return errors


class EvaluationExecutor(_Executor):
    """Forward alone. Each pass over a dataset draws the same random numbers."""

    def __init__(self, module: nn.Module, model: nn.Module, settings: Any, executable: Optional[Path]) -> None:
        super().__init__(call("inferenceModel", model=module, options=settings), model, executable)
        self._first: RandomState = None

    def attach(self) -> None:
        super().attach()
        if self._first is None:
            self._first = self.random_state()

    def rewind(self) -> None:
        """Draw from the beginning again."""
        if self._first is not None:
            self.restore_random(self._first)


class TrainingExecutor(_Executor):
    """Forward, backward and update; poptorch has all three in one call."""

    def __init__(
        self,
        module: nn.Module,
        model: nn.Module,
        settings: Any,
        optimizer: torch.optim.Optimizer,
        executable: Optional[Path],
    ) -> None:
        wrapped = call("trainingModel", model=module, options=settings, optimizer=optimizer)
        super().__init__(wrapped, model, executable)
        self._optimizer = optimizer

    def release(self) -> None:
        if self.attached:
            # what the host has of an optimiser's state, poptorch writes to the device at each attach: it must be of now
            call("optim.Optimizer.state_dict", self._optimizer)
        super().release()

    def set_rate(self, lr: float) -> None:
        set_rate(self._optimizer, lr)
        call("PoplarExecutor.setOptimizer", self._wrapped, optimizer=self._optimizer)

    def optimizer_state(self) -> Dict[str, Any]:
        """poptorch's own, in plain values: "ipu_state", "ipu_param", torch's groups. Without a device: the last."""
        return _plain(call("optim.Optimizer.state_dict", self._optimizer))

    def replace_optimizer(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Go on with another optimiser, new-made, in a state of `optimizer_state()`."""
        call("optim.Optimizer.load_state_dict", optimizer, state=_plain(state))
        if self.compiled:
            self.attach()
        call("PoplarExecutor.setOptimizer", self._wrapped, optimizer=optimizer)
        self._optimizer = optimizer


def _plain(value: Any) -> Any:
    """The same in dicts, lists, tuples and tensors of their own memory, as a checkpoint holds them."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value
