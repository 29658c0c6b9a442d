"""Backends that are wrong about state, the user's model or random draws."""

import contextlib
import os
from dataclasses import replace
from typing import Any, Dict, Mapping

from torch import Tensor, nn
from wrong_backends import caught

from snn_core.backend import Report
from snn_core.eager import EagerOptions, EagerProgram
from snn_core.specs import BatchSpec, TrainSpec
from snn_core.step import Step, StepOutput

Batch = Any


@caught("a stale state", "nothing_of_a_batch_reaches_the_next_step", "dense", "again differs")
@caught("a stale state in evaluation", "every_kind_of_neuron_starts_at_rest", "LIF", "after another batch differs")
@caught("a stale state after chunks", "chunked_state_ends_with_its_batch", "", "again differs")
@caught(
    "a stale state, in the next evaluation",
    "nothing_of_a_batch_reaches_the_next_evaluation",
    "dense",
    "after another batch",
)
class StaleState(EagerProgram):
    """The membranes of one batch are where the next begins."""

    _left: Any = ()

    def _forward(self, step: Step, x: Tensor, target: Tensor, states: Any) -> StepOutput:
        fits = self._left and self._left[0][0][0].shape[0] == (
            x.shape[0] if self._batch.x.time_axis is None else x.shape[1]
        )
        out = super()._forward(step, x, target, states or (self._left if fits else ()))
        self._left = tuple(tuple(tuple(t.detach() for t in state) for state in calls) for calls in out.states)
        return out


@caught("shared parameters", "the_user_model_is_not_touched_before_sync", "dense", "after training")
@caught("shared parameters, written to", "the_program_shares_nothing_with_the_user_model", "dense", "differs")
class SharesParameters(EagerProgram):
    """The program's weights are the user's."""

    def __init__(self, step: Step, *args: Any) -> None:
        super().__init__(step, *args)
        mine = dict(self._training.model.named_parameters())
        for name, parameter in step.source.named_parameters():  # type: ignore[union-attr]
            mine[name].data = parameter.data
        theirs = dict(self._evaluation.model.named_parameters())
        for name, parameter in mine.items():
            theirs[name].data = parameter.data


@caught("the step itself compiled", "a_step_can_be_compiled_twice", "", "differs")
class CompilesTheStepItself(EagerProgram):
    def __init__(self, step: Step, *args: Any) -> None:
        super().__init__(step, *args)
        theirs = dict(step.model.named_parameters())
        for tree in (self._training, self._evaluation):
            for name, parameter in tree.model.named_parameters():
                parameter.data = theirs[name].data


@caught("hooks left on the model", "the_user_model_is_not_touched_before_sync", "dense", "compile changed")
@caught("hooks that do not pickle", "a_used_model_can_be_copied", "pickle", "pickle")
class LeavesHooks(EagerProgram):
    """Listens on the user's model itself."""

    def __init__(self, step: Step, *args: Any) -> None:
        super().__init__(step, *args)
        step.source.register_forward_hook(lambda module, args, out: None)  # type: ignore[union-attr]


@caught("sync that forgets buffers", "sync_copies_weights_and_buffers", "batch norm", "running_mean")
class SyncForgetsBuffers(EagerProgram):
    def sync(self) -> None:
        source: Any = self._source.source
        source.load_state_dict(dict(self._training.model.named_parameters()), strict=False)


@caught("sync that hands out its own", "sync_may_be_called_at_any_time", "", "without sync")
class SyncHandsOutItsOwn(EagerProgram):
    """After sync the user's parameters are views of the program's."""

    def sync(self) -> None:
        super().sync()
        mine = dict(self._training.model.named_parameters())
        for name, parameter in self._source.source.named_parameters():  # type: ignore[union-attr]
            parameter.data = mine[name].data


@caught("optimizer not saved", "a_resumed_run_ends_with_the_same_weights", "sgd with momentum", "after resuming")
@caught("momentum lost by saving", "saving_changes_nothing", "", "with saves in between")
class OptimizerNotSaved(EagerProgram):
    def state_dict(self) -> Dict[str, Any]:
        state = super().state_dict()
        state["optimizer"]["state"] = {}
        return state


@caught("random stream not saved", "a_resumed_run_ends_with_the_same_weights", "dropout", "after resuming")
class RandomStreamNotSaved(EagerProgram):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict({**state, "rng": self._random.state()})


@caught("a state that is not a copy", "a_saved_state_is_a_copy", "", "differs")
class StateNotCopied(EagerProgram):
    def state_dict(self) -> Dict[str, Any]:
        return {**super().state_dict(), "model": self._training.model.state_dict()}


@caught("weights under other names", "the_state_holds_the_weights_by_their_names", "", "names of the model's state")
class StateUnderOtherNames(EagerProgram):
    def state_dict(self) -> Dict[str, Any]:
        state = super().state_dict()
        return {**state, "model": {f"model.{name}": tensor for name, tensor in state["model"].items()}}


@caught("a foreign state loaded", "a_foreign_state_is_refused", "other names", "raises nothing")
class LoadsAnything(EagerProgram):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with contextlib.suppress(Exception):
            super().load_state_dict(state)


@caught("use after close", "use_after_close_is_an_error", "train_step", "raises nothing")
@caught("a context that does not close", "leaving_the_context_closes", "", "raises nothing")
class OpenAfterClose(EagerProgram):
    def close(self) -> None:
        pass


@caught("close once", "close_may_be_called_twice", "", "closed")
class CloseOnce(EagerProgram):
    def close(self) -> None:
        self._require_open()
        super().close()


@caught("a report that keeps the graph", "reports_are_detached_scalars", "", "keeps the graph")
class KeepsTheGraph(EagerProgram):
    def train_step(self, batch: Batch) -> Report:
        report = super().train_step(batch)
        return replace(report, loss=report.loss.clone().requires_grad_())


@caught("chance declared deterministic", "two_deterministic_runs_give_the_same_bits", "no draws", "allowed: 0")
class NotDeterministic(EagerProgram):
    """The last bits of every gradient are chance, though it declares to be deterministic."""

    def _clip(self) -> None:
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad += parameter.grad * (int.from_bytes(os.urandom(2), "big") * 1e-18 + 1e-15)
        super()._clip()


@caught("a seed ignored", "another_seed_draws_otherwise", "rate encoder", "seeds 5 and 6")
class SeedIgnored(EagerProgram):
    def __init__(self, step: Step, optimizer: Any, batch: BatchSpec, train: TrainSpec, options: EagerOptions) -> None:
        super().__init__(step, optimizer, batch, replace(train, seed=0), options)


@caught("draws from the host", "draws_belong_to_the_program", "dropout", "among host draws")
@caught("draws from the host, seen there", "the_host_keeps_its_random_stream", "dropout", "global generator")
class DrawsFromTheHost(EagerProgram):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._random.active = contextlib.nullcontext  # type: ignore[method-assign, assignment]


@caught("dropout drawn once for all steps", "draws_are_new_at_every_step", "dropout", "differ from the step before")
class DropoutOnceForAllSteps(EagerProgram):
    """Takes dropout into what is computed once for a constant input."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for container in self._training.modules():
            for name, child in list(container._modules.items()):
                if isinstance(child, nn.Dropout):
                    container._modules[name] = _Once(child.p)


class _Once(nn.Module):
    deterministic = True

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.p)


@caught("dropout of another rate", "draws_have_their_probability", "dropout", "of 4096 draws")
class DropoutOfAnotherRate(EagerProgram):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for module in self._training.modules():
            if isinstance(module, nn.Dropout):
                module.p = module.p / 2
