"""Several processes that train one model: as one process with the joint batch, or not at all."""

from typing import Dict

from snn_core.backend import Backend
from snn_core.errors import Unsupported
from snn_core.testing.check import Refused, check
from snn_core.testing.compare import require, require_raises, require_same_tensors
from snn_core.testing.fit import fit, require_same_outcome
from snn_core.testing.nets import dense
from snn_core.testing.pieces import Activity
from snn_core.testing.processes import in_processes, launched
from snn_core.testing.trial import Trial, reference, tolerance

__all__ = ["CHECKS"]

_CASES: Dict[str, Trial] = {
    "shares that differ in size, a penalty that is no mean": dense(15, size=5, terms=(Activity(),)),
}


@check(cases=_CASES)
def processes_train_as_one_with_the_joint_batch(backend: Backend, trial: Trial) -> None:
    """Two processes that share each batch report and end with what the reference does of the whole; undeclared, compile
    refuses.
    """
    trial = trial.on(backend)
    if not backend.capabilities.distributed:
        with launched(2):
            require_raises("compile in one of two processes", Unsupported, lambda: _compile(backend, trial))
        raise Refused("distributed")
    (one, mine), (other, theirs) = in_processes(backend, trial, 2)
    twice = sorted(set(mine) & set(theirs))
    require(not twice, f"samples {twice} were read by both processes; each must read its own share of a batch alone")
    require_same_tensors("in the other process, tensor", other.weights, one.weights)
    require_same_outcome(one, fit(reference(), trial), tolerance(backend, trial))


def _compile(backend: Backend, trial: Trial) -> None:
    program = backend.compile(trial.step(trial.build()), trial.optimizer, trial.batch(), trial.train)
    program.close()


CHECKS = (processes_train_as_one_with_the_joint_batch,)
