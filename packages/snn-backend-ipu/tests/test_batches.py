"""A batch that was not made by the program's loader is held against what the program is compiled for."""

from typing import Any, Callable, Dict, Iterator, Tuple

import pytest
import torch

from snn_backend_ipu import IpuBackend, IpuOptions
from snn_core.backend import Program
from snn_core.errors import DataError
from snn_core.testing.nets import dense
from snn_core.testing.trial import compiled

TRIAL = dense(12, dtype="float32").training(accumulation=2)
ODD: Dict[str, Tuple[Callable[..., Any], str]] = {
    "short": (lambda x, *rest: (x[:2], *rest), "x has shape [2, 5, 6] and dtype float32; {does} takes [{n}, 5, 6]"),
    "features": (lambda x, *rest: (x[..., :3], *rest), "x has shape [{n}, 5, 3] and dtype float32; {does} takes"),
    "dtype": (lambda x, *rest: (x.double(), *rest), "x has shape [{n}, 5, 6] and dtype float64; {does} takes"),
    "target": (lambda x, y, *rest: (x, y.int(), *rest), "the target has shape [{n}] and dtype int32; {does} takes"),
    "no tensor": (lambda x, *rest: (x.tolist(), *rest), "x is a list; {does} takes a tensor"),
    "too few": (lambda x, *rest: (x,), "a batch of 1 parts; {does} takes {parts}"),
    "no sequence": (lambda *parts: None, "a batch that is a NoneType; {does} takes {parts}"),
}  # fmt: skip
PARTS = {True: "2 (x, the target)", False: "3 (x, the target, valid)"}


@pytest.fixture(params=[False, True], ids=["new", "compiled"])
def program(request: pytest.FixtureRequest) -> Iterator[Program]:
    """One that has run no step yet, and one that has."""
    with compiled(IpuBackend(IpuOptions(ipu_model=True)), TRIAL) as made:
        if request.param:
            made.train_step(batch_of(made, True))
            made.eval_step(batch_of(made, False))
        yield made


def batch_of(program: Program, training: bool) -> Any:
    return next(iter(program.loader(TRIAL.samples(), range(12), training=training)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ODD)
def test_a_batch_that_does_not_fit_is_the_datas_fault_and_not_the_devices(
    program: Program, name: str, training: bool
) -> None:
    change, told = ODD[name]
    does = "train_step" if training else "eval_step"
    step = program.train_step if training else program.eval_step
    with pytest.raises(DataError) as caught:
        step(change(*batch_of(program, training)))
    assert told.format(does=does, n=8 if training else 4, parts=PARTS[training]) in str(caught.value)
    assert f"the program's own loader(training={training})" in str(caught.value)
    # nothing was lost by it
    step(batch_of(program, training))


def test_half_precision_takes_half_inputs_and_says_so() -> None:
    trial = TRIAL.training(precision="fp16")
    with compiled(IpuBackend(IpuOptions(ipu_model=True)), trial) as program:
        x, target = batch_of(program, True)
        assert x.dtype is torch.float16
        with pytest.raises(DataError, match=r"dtype float32; train_step takes \[8, 5, 6\] of float16"):
            program.train_step((x.float(), target))
        program.train_step((x, target))
