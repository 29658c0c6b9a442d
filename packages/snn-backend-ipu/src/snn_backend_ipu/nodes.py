"""How large the graph is that poptorch compiles: the time loop is unrolled, and its nodes are what compiling costs."""

import copy
import warnings
from collections import Counter
from typing import Dict, FrozenSet, NamedTuple, Optional, Set

import torch
from torch import Tensor, nn

from snn_backend_ipu.loading import keeping_random_state
from snn_backend_ipu.modules import TrainingModule
from snn_core.specs import BatchSpec, TensorSpec
from snn_core.step import Step

__all__ = ["Nodes", "count_nodes"]

# what makes no operation on the device
_FREE = ("prim::", "aten::detach", "aten::size", "aten::numel", "aten::Int")


class Nodes(NamedTuple):
    """What a trace on the host found. total: nodes of the forward graph.   kinds: by operation, the most frequent
    first.   classified: whether the loss counts right answers.   called: names of the model's modules that ran.
    counted: by how much one forward raises each counter of a batch norm, by the buffer's name.
    """

    total: int
    kinds: Dict[str, int]
    classified: bool
    called: FrozenSet[str]
    counted: Dict[str, int]


def count_nodes(step: Step, batch: BatchSpec) -> Nodes:
    """Trace a copy of the step on the CPU, on zeros, as poptorch runs it: once, for its shapes."""
    module = TrainingModule(copy.deepcopy(step).cpu().float().train(), batch, marked=False)
    called: Set[str] = set()
    for name, inner in module.step.model.named_modules():
        inner.register_forward_pre_hook(lambda *_, name=name: called.add(name))
    before = _counters(module.step.model)
    inputs = [_zeros(batch.x, batch.size), _zeros(batch.target, batch.size)]
    controls = _control_rows(step, batch.size)
    if controls is not None:
        inputs.append(controls)
    with keeping_random_state(), warnings.catch_warnings():
        # of values that a trace freezes: lint has told of them, with the line
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, tuple(inputs), check_trace=False)
    kinds = Counter(node.kind() for node in traced.inlined_graph.nodes())
    kept = {kind: count for kind, count in kinds.most_common() if not kind.startswith(_FREE)}
    counted = {name: count - before[name] for name, count in _counters(module.step.model).items()}
    return Nodes(sum(kept.values()), kept, module.classified, frozenset(called), counted)


def _counters(model: nn.Module) -> Dict[str, int]:
    """What the batch norms have counted, by the names that a state_dict gives it."""
    return {
        f"{name}.num_batches_tracked".lstrip("."): int(module.num_batches_tracked)
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.num_batches_tracked is not None
    }


def _control_rows(step: Step, size: int) -> Optional[Tensor]:
    values = list(step.controls.values())
    return torch.tensor([values] * size, dtype=torch.float32) if values else None


def _zeros(spec: TensorSpec, size: int) -> Tensor:
    return torch.zeros((size, *spec.shape), dtype=getattr(torch, spec.dtype))
