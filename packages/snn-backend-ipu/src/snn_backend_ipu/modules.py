"""What poptorch compiles: a step on batch-first inputs that returns its numbers as one tensor."""

from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from snn_backend_ipu.calls import call
from snn_core.errors import ConfigError
from snn_core.specs import BatchSpec
from snn_core.step import Step, StepOutput

__all__ = ["EvaluationModule", "TrainingModule", "begin_stages", "freeze_parameters", "halve", "require_stages"]


class _Module(nn.Module):
    """A step with time put first for it. Whether there is time is known, so no branch is on a value.

    classified: whether its loss counts right answers, known once it has run.
    """

    classified = False

    def __init__(self, step: Step, batch: BatchSpec) -> None:
        super().__init__()
        self.step = step
        self._x_has_time = batch.x.time_axis is not None
        self._target_has_time = batch.target.time_axis is not None
        self._names = tuple(step.controls)

    def _run(self, x: Tensor, target: Tensor, controls: Optional[Tensor], valid: Optional[Tensor]) -> StepOutput:
        x = x.transpose(0, 1) if self._x_has_time else x
        target = target.transpose(0, 1) if self._target_has_time else target
        out = self.step(x, target, self._controls(controls), valid)
        self.classified = out.correct is not None
        return out

    def _controls(self, controls: Optional[Tensor]) -> Dict[str, Tensor]:
        # [B, count], each row the same: a scalar cannot be cut among device iterations
        return {} if controls is None else {name: controls[0, index] for index, name in enumerate(self._names)}


class TrainingModule(_Module):
    """(x `[B, ...]`, target `[B, ...]`, controls `[B, count]`) -> (objective, numbers `[1, k]`): see `numbers`.

    marked: the objective is the one tensor that poptorch minimises; False where there is no poptorch.
    """

    def __init__(self, step: Step, batch: BatchSpec, marked: bool = True) -> None:
        super().__init__(step, batch)
        self._marked = marked

    def forward(self, x: Tensor, target: Tensor, controls: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        out = self._run(x, target, controls, None)
        objective = call("identity_loss", x=out.objective, reduction="none") if self._marked else out.objective
        return objective, numbers(out)


class EvaluationModule(_Module):
    """The same with `valid` `[B]` of 0 and 1 -> (numbers `[1, k]`, output `[B, T, ...]`)."""

    def forward(
        self, x: Tensor, target: Tensor, valid: Tensor, controls: Optional[Tensor] = None
    ) -> Tuple[Tensor, Tensor]:
        out = self._run(x, target, controls, valid)
        return numbers(out), out.output.transpose(0, 1)


def numbers(out: StepOutput) -> Tensor:
    """Objective, loss, weight, samples, right answers (0 where none count), measures, penalties: `[1, k]`, float32.

    One row with a batch-like dimension 0, so that poptorch can return a row for each micro-batch.
    """
    correct = torch.zeros_like(out.loss) if out.correct is None else out.correct
    values: List[Tensor] = [out.objective, out.loss, out.weight, out.samples, correct, *out.measures, *out.penalties]
    return torch.stack([value.detach().float() for value in values]).unsqueeze(0)


def halve(model: nn.Module) -> None:
    """Make the weights float16. Neurons keep their own numbers in float32, and so do running statistics here: an update
    of a hundredth is lost in float16.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats]
    kept = [(norm.running_mean, norm.running_var) for norm in norms]
    model.half()
    for norm, (mean, variance) in zip(norms, kept):
        norm.running_mean, norm.running_var = mean, variance


def freeze_parameters(model: nn.Module) -> None:
    """Make buffers of the parameters that do not require a gradient: poptorch's optimiser cannot move those.

    Names and sharing stay as they were.
    """
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and not parameter.requires_grad:
                del module._parameters[name]
                module.register_buffer(name, parameter.data)


def require_stages(model: nn.Module, stages: Mapping[str, int], calls: Sequence[str]) -> None:
    """Raise ConfigError for the name of a stage that no module has or that never runs as one, and for a way back.

    calls: the modules by name, in the order in which they ran; the IPUs of those that begin a stage must never fall.
    """
    names = [name for name, _ in model.named_modules() if name]
    for stage in stages:
        if stage not in names:
            raise ConfigError(
                f"stages names the module {stage!r}, which the model does not have; it has {', '.join(names)}"
            )
        if stage not in calls:
            # containers hand their children's inputs on themselves, and a neuron inside Recurrent is no call
            running = [name for name in names if name in calls]
            raise ConfigError(
                f"stages names the module {stage!r}, which never runs as a module, so that no stage would begin there; "
                f"name a layer that runs: {', '.join(running)}"
            )
    begun = [name for name in calls if name in stages]
    for before, name in zip(begun, begun[1:]):
        if stages[name] < stages[before]:
            raise ConfigError(
                f"stages is {dict(stages)}, and module {name!r} on IPU {stages[name]} runs after {before!r} on IPU "
                f"{stages[before]}; data goes through a pipeline once, from IPU 0 up, and never back: number the IPUs "
                "in the order in which the modules run. Of a loop over time that calls them in turn keep all on one "
                "IPU, or let each module run over all steps before the next does, as snn.Sequential lets it"
            )


def begin_stages(model: nn.Module, stages: Mapping[str, int]) -> None:
    """Begin a block at each module of `stages`, by its name."""
    modules = dict(model.named_modules())
    for name, ipu in stages.items():
        call("BeginBlock", layer_to_call=modules[name], user_id=name, ipu_id=ipu)
