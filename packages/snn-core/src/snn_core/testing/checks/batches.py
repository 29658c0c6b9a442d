"""The loader: which samples, in which order, how many batches, and how time lies in them."""

from typing import Any, Dict, List, NamedTuple, Sequence, Set

import numpy as np
import torch
from torch import Tensor

from snn_core.backend import Backend, Program
from snn_core.losses import OutputMSE
from snn_core.testing.check import check
from snn_core.testing.compare import require_close, require_equal
from snn_core.testing.fit import agree, agree_on_gradients, evaluate, exact_or, one_by_one, weights_of
from snn_core.testing.nets import CLASSES, FEATURES, dense, labelled, readout, rows
from snn_core.testing.trial import Data, Trial, compiled, tolerance

__all__ = ["CHECKS"]


class _Count(NamedTuple):
    samples: int
    training: bool
    drop_last: bool


_COUNTS: Dict[str, _Count] = {
    "training, whole batches": _Count(12, True, True),
    "training, the short one left out": _Count(11, True, True),
    "training, the short one kept": _Count(11, True, False),
    "training, fewer than a batch left out": _Count(3, True, True),
    "training, fewer than a batch kept": _Count(3, True, False),
    "evaluation, whole batches": _Count(12, False, True),
    "evaluation, a short one": _Count(10, False, True),
    "evaluation, fewer than a batch": _Count(1, False, True),
}


@check(cases=_COUNTS)
def batches_counts_what_the_loader_yields(backend: Backend, count: _Count) -> None:
    """batches(n) is how many batches the loader makes of n samples."""
    trial = rows(12).training(drop_last=count.drop_last).on(backend)
    size, data = trial.size, trial.samples()
    kept = count.training and count.drop_last
    want = count.samples // size if kept else -(-count.samples // size)
    with compiled(backend, trial) as program:
        said = program.batches(count.samples, training=count.training)
        require_equal(f"batches({count.samples}, training={count.training}) of micro-batches of {size}", said, want)
        loader = program.loader(data, range(count.samples), training=count.training)
        require_equal("the number of batches that the loader yields", len(list(loader)), want)


@check()
def evaluation_keeps_the_order(backend: Backend) -> None:
    """The loader yields dataset[i] for i in order: outputs come in the order that was asked for, samples asked for
    twice too.
    """
    trial = rows(12).on(backend)
    order = [7, 2, 11, 0, 5, 2, 9, 10, 1]
    model = trial.build()
    with compiled(backend, trial, model) as program:
        output = evaluate(program, trial.samples(), order).output
    weights = weights_of(model)["1.weight"]
    want = weights[:, order].T.expand(2, len(order), 2)
    require_close("the output in the order asked for", output, want, tolerance(backend, trial))


@check()
def training_sees_the_samples_asked_for(backend: Backend) -> None:
    """Each training batch holds the next samples of the order, each once; a rest that is left out is the last."""
    order = [7, 2, 11, 0, 5, 3, 9, 10, 1, 4, 6]
    _require_seen(backend, rows(12), order, 0, [{7, 2, 11, 0}, {5, 3, 9, 10}])


@check(cases={"0": 0, "1": 1, "2": 2, "3": 3})
def training_starts_where_it_is_told(backend: Backend, start: int) -> None:
    """loader(start=k) yields the same batches from number k on."""
    order = [7, 2, 11, 0, 5, 3, 9, 10, 1, 4, 6, 8]
    every = [{7, 2, 11, 0}, {5, 3, 9, 10}, {1, 4, 6, 8}]
    _require_seen(backend, rows(12), order, start, every[start:])


@check()
def evaluation_starts_where_it_is_told(backend: Backend) -> None:
    """loader(start=k) leaves out k batches in evaluation, too."""
    trial = rows(12).on(backend)
    model = trial.build()
    with compiled(backend, trial, model) as program:
        data, outputs = trial.samples(), []
        for batch in program.loader(data, range(10), training=False, start=1):
            outputs.append(torch.as_tensor(program.eval_step(batch).output).cpu())
    want = weights_of(model)["1.weight"][:, 4:10].T.expand(2, 6, 2)
    require_close("the output from batch 1 on", torch.cat(outputs, dim=1), want, tolerance(backend, trial))


def _require_seen(backend: Backend, trial: Trial, order: Sequence[int], start: int, want: List[Set[int]]) -> None:
    trial = trial.on(backend)
    model = trial.build()
    seen: List[Set[int]] = []
    with compiled(backend, trial, model) as program:
        before = weights_of(model)["1.weight"]
        for batch in program.loader(trial.samples(), order, training=True, start=start):
            program.train_step(batch)
            program.sync()
            after = weights_of(model)["1.weight"]
            seen.append(set((after != before).any(0).nonzero().flatten().tolist()))
            before = after
    require_equal(f"the samples of each training batch of order {list(order)} from batch {start} on", seen, want)


@check()
def time_is_the_second_axis_at_the_boundary(backend: Backend) -> None:
    """A batch [B, T, ...] reaches the model as [T, B, ...], shown with B = T, where a mistake would fit."""
    square = labelled(4, (4, FEATURES))
    agree_on_gradients(backend, dense().but(data=square))
    values = [(x, torch.stack([torch.sin(x[t, :CLASSES]) for t in range(4)])) for x, _ in square]
    agree_on_gradients(backend, readout().but(data=values, loss=OutputMSE(readout="steps"), target_time_axis=1))


class _Arrays:
    """A dataset as users have them: no torch Dataset, NumPy arrays and Python numbers."""

    def __init__(self, data: Data) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Any:
        x, target = self._data[index]
        return np.asarray(x), int(target)


@check()
def any_map_style_dataset_will_do(backend: Backend) -> None:
    """A dataset is whatever has a length and items; items may be NumPy arrays and numbers."""
    trial = dense(10).on(backend)
    model = trial.build()
    with compiled(backend, trial, model) as program:
        got = evaluate(program, _Arrays(trial.samples()))  # type: ignore[arg-type]
    want = one_by_one(trial, model)
    require_close("the loss over a dataset of arrays", got.loss, want.loss, tolerance(backend, trial))


class _Drawing:
    """A dataset that draws at random what it returns, as augmentations do."""

    def __init__(self, data: Data) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Any:
        x, target = self._data[index]
        return x * (0.5 + torch.rand((), dtype=x.dtype)), target


@check()
def the_seed_fixes_what_the_dataset_draws(backend: Backend) -> None:
    """What a dataset draws for a batch depends on the loader's seed and the batch's number alone, wherever the loader
    starts.
    """
    trial, within = exact_or(backend, readout(count=12))
    data = _Drawing(trial.samples())
    with compiled(backend, trial) as program:
        whole = _outputs(program, data, start=0, seed=3)
        torch.rand(7)
        later = _outputs(program, data, start=1, seed=3)
        other = _outputs(program, data, start=0, seed=4)
    require_equal("the number of batches from batch 1 on", len(later), len(whole) - 1)
    for number, (got, want) in enumerate(zip(later, whole[1:]), start=1):
        require_close(f"batch {number} of an epoch begun at batch 1", got, want, within)
    require_equal("a batch drawn under another seed equals the first's", bool(torch.equal(other[0], whole[0])), False)


def _outputs(program: Program, data: Any, start: int, seed: int) -> List[Tensor]:
    loader = program.loader(data, range(len(data)), training=False, start=start, seed=seed)
    return [torch.as_tensor(program.eval_step(batch).output).cpu() for batch in loader]


@check()
def a_short_training_batch_counts_its_samples_alone(backend: Backend) -> None:
    """With drop_last=False the last, short batch trains on its samples alone, as the reference does it."""
    got = agree(backend, dense(10).training(drop_last=False))
    require_equal("samples of the training batches", [row.samples for row in got.rows], [4.0, 4.0, 2.0])


@check()
def a_short_accumulated_batch_counts_its_samples_alone(backend: Backend) -> None:
    """The same where gradients of several micro-batches are averaged."""
    got = agree(backend, dense(19).training(drop_last=False, accumulation=2))
    require_equal("samples of the training batches", [row.samples for row in got.rows], [8.0, 8.0, 3.0])


CHECKS = (
    batches_counts_what_the_loader_yields,
    evaluation_keeps_the_order,
    training_sees_the_samples_asked_for,
    training_starts_where_it_is_told,
    evaluation_starts_where_it_is_told,
    time_is_the_second_axis_at_the_boundary,
    any_map_style_dataset_will_do,
    the_seed_fixes_what_the_dataset_draws,
    a_short_training_batch_counts_its_samples_alone,
    a_short_accumulated_batch_counts_its_samples_alone,
)
