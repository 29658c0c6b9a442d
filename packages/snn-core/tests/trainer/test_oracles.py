"""What the trainer computes, against loops and formulas written by hand in float64."""

from typing import Any, Dict, List, Tuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from snn_core.containers import Sequential
from snn_core.encoders import Constant
from snn_core.losses import CountCrossEntropy
from snn_core.neurons import LI
from snn_core.optimizers import SGD
from snn_core.trainer import Trainer

STEPS, BETA = 4, 0.875  # a decay that float32 holds exactly
# sum over t of sum over s <= t of beta^(t - s): what a leaky integrator at rest makes of a constant input, summed up
GAIN = sum(BETA**k for t in range(STEPS) for k in range(t + 1))


def close(found: Tensor, expected: Tensor, relative: float = 1e-11) -> bool:
    """Equal but for float64 sums in another order."""
    return torch.allclose(found, expected, rtol=relative, atol=relative / 100)


def linear_readout() -> Sequential:
    torch.manual_seed(2)
    return Sequential(Constant(steps=STEPS), nn.Linear(5, 3).double(), LI(beta=BETA).double())


def data(count: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(7)
    return TensorDataset(torch.randn(count, 5, generator=generator, dtype=torch.float64), torch.arange(count) % 3)


def trained(model: nn.Module, dataset: TensorDataset, epochs: int = 1, **changes: Any) -> nn.Module:
    settings: Dict[str, Any] = {"optimizer": SGD(lr=0.3), "backend": "eager", "batch_size": len(dataset), **changes}
    loss = settings.pop("loss", CountCrossEntropy())
    Trainer(model, loss=loss, folder=None, progress=False, **settings).fit(dataset, epochs=epochs)
    return model


def gradient(weight: Tensor, bias: Tensor, dataset: TensorDataset, rows: slice = slice(None)) -> Tuple[Tensor, Tensor]:
    """Of the mean cross-entropy of the summed membrane, with the integrator's sum in closed form."""
    w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    x, y = dataset.tensors
    cross_entropy(GAIN * (x[rows] @ w.T + b), y[rows]).backward()
    return w.grad, b.grad  # type: ignore[return-value]


def weights(model: nn.Module) -> Tuple[Tensor, Tensor]:
    return model[1].weight.detach().clone(), model[1].bias.detach().clone()  # type: ignore[index]


def test_micro_batches_average_to_the_whole_batchs_gradient() -> None:
    model, dataset = linear_readout(), data(12)
    w, b = weights(model)
    grad_w, grad_b = gradient(w, b, dataset)
    trained(model, dataset, batch_size=3, accumulation=4)
    assert close(weights(model)[0], w - 0.3 * grad_w)
    assert close(weights(model)[1], b - 0.3 * grad_b)


def test_clip_norm_scales_the_whole_gradient_to_its_bound() -> None:
    model, dataset = linear_readout(), data(12)
    w, b = weights(model)
    grad_w, grad_b = gradient(w, b, dataset)
    norm = float(torch.sqrt(grad_w.square().sum() + grad_b.square().sum()))
    bound = norm / 3
    trained(model, dataset, clip_norm=bound)
    # torch divides by norm + 1e-6
    assert close(weights(model)[0], w - 0.3 * grad_w * bound / norm, 1e-5)
    assert close(weights(model)[1], b - 0.3 * grad_b * bound / norm, 1e-5)


def test_clip_value_bounds_each_element() -> None:
    model, dataset = linear_readout(), data(12)
    w, b = weights(model)
    grad_w, grad_b = gradient(w, b, dataset)
    bound = float(grad_w.abs().median())
    trained(model, dataset, clip_value=bound)
    assert close(weights(model)[0], w - 0.3 * grad_w.clamp(-bound, bound))
    assert close(weights(model)[1], b - 0.3 * grad_b.clamp(-bound, bound))


def test_a_chunk_takes_one_step_and_hands_its_detached_state_on() -> None:
    torch.manual_seed(3)
    sequences, labels = torch.randn(6, 7, 5, dtype=torch.float64), torch.arange(6) % 3
    model = Sequential(nn.Linear(5, 3).double(), LI(beta=BETA).double())
    w, b = (p.detach().clone().requires_grad_() for p in (model[0].weight, model[0].bias))
    membrane = torch.zeros(6, 3, dtype=torch.float64)
    for start in (0, 3, 6):  # 7 time steps in chunks of 3, 3 and 1
        membrane, total = membrane.detach(), torch.zeros(6, 3, dtype=torch.float64)
        for t in range(start, min(start + 3, 7)):
            membrane = BETA * membrane + sequences[:, t] @ w.T + b
            total = total + membrane
        cross_entropy(total, labels).backward()
        with torch.no_grad():
            for p in (w, b):
                p -= 0.3 * p.grad
                p.grad = None
    result = Trainer(
        model,
        loss=CountCrossEntropy(),
        optimizer=SGD(lr=0.3),
        backend="eager",
        batch_size=6,
        chunk=3,
        time_axis=1,
        folder=None,
        progress=False,
    ).fit(TensorDataset(sequences, labels), epochs=1)
    assert result.steps == 3
    assert close(model[0].weight, w)
    assert close(model[0].bias, b)


@pytest.mark.parametrize("class_weights", [None, (1.0, 0.5, 3.0)])
def test_evaluate_equals_one_computation_over_every_sample(class_weights: Any) -> None:
    model, dataset = linear_readout(), data(37)
    w, b = weights(model)
    x, y = dataset.tensors
    scores = GAIN * (x @ w.T + b)
    weight = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float64)
    trainer = Trainer(
        model, loss=CountCrossEntropy(class_weights=class_weights), backend="eager", batch_size=8, progress=False
    )
    found = trainer.evaluate(dataset)  # 37 = 4 * 8 + 5
    # the losses widen to float32 at least, and keep float64
    assert found["loss"] == pytest.approx(float(cross_entropy(scores, y, weight)), rel=1e-9)
    assert found["accuracy"] == float((scores.argmax(1) == y).double().mean())


def test_predict_keeps_the_datasets_order() -> None:
    model, dataset = linear_readout(), data(21)
    w, b = weights(model)
    current = dataset.tensors[0] @ w.T + b
    expected = [current * sum(BETA**k for k in range(t + 1)) for t in range(STEPS)]
    trainer = Trainer(model, loss=CountCrossEntropy(), backend="eager", batch_size=8, progress=False)
    assert close(trainer.predict(dataset), torch.stack(expected))


def test_fit_equals_a_loop_written_by_hand_over_many_epochs() -> None:
    model, dataset = linear_readout(), RecordedOrder(data(20))
    w, b = weights(model)
    trained(model, dataset, epochs=3, batch_size=6)  # type: ignore[arg-type]
    # of 20 samples, 18 in three batches each epoch; the first read is the trainer's look at sample 0
    order = dataset.order[1:]
    assert len(order) == 3 * 18
    for start in range(0, len(order), 6):
        grad_w, grad_b = gradient(w, b, dataset.data, order[start : start + 6])  # type: ignore[arg-type]
        w, b = w - 0.3 * grad_w, b - 0.3 * grad_b
    assert close(weights(model)[0], w)
    assert close(weights(model)[1], b)


class RecordedOrder(torch.utils.data.Dataset):
    """A dataset that remembers which samples were read."""

    def __init__(self, inner: TensorDataset) -> None:
        self.data, self.order = inner, []  # type: Tuple[TensorDataset, List[int]]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        self.order.append(index)
        return self.data[index]


def test_an_epoch_reads_each_sample_once_in_an_order_of_seed_and_epoch() -> None:
    def orders(seed: int) -> List[List[int]]:
        dataset = RecordedOrder(data(20))
        trained(linear_readout(), dataset, epochs=2, batch_size=6, drop_last=False, seed=seed)  # type: ignore[arg-type]
        return [dataset.order[1:21], dataset.order[21:41]]

    first, second = orders(0)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert orders(0) == [first, second]
    assert all(order not in (first, second) for order in orders(1))
