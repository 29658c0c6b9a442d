"""The example on fewer synaptic operations, on the bundled digits: what it trains, measures, prints and writes."""

import copy
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "fewer_synops.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fewer_synops", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def images(example: ModuleType) -> torch.Tensor:
    return example.load("digits", "test").tensors[0]


@torch.no_grad()
def counted_by_ones(net: nn.Sequential, x: torch.Tensor) -> "dict[str, float]":
    """Operations of a sample in each layer: with weights of 1 a layer adds up what it received, once for each weight.

    x: counts of spikes, none negative. In float64, where whole numbers of this size are exact.
    """
    found = {}
    for name, layer in list(net.double().named_children())[1:]:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            ones = copy.deepcopy(layer)
            nn.init.ones_(ones.weight)
            found[name] = ones(x).sum().item() / len(x)
        x = layer(x)
    return found


def test_pixels_are_whole_numbers_up_to_255(images: torch.Tensor) -> None:
    assert torch.equal(images, images.round())
    assert images.max() == 255


@pytest.mark.parametrize("start", ["first", "last", "torch"])
def test_the_layers_counts_are_those_of_layers_of_ones(example: ModuleType, images: torch.Tensor, start: str) -> None:
    torch.manual_seed(0)
    net = example.network(start)
    few = torch.utils.data.TensorDataset(images[:100], torch.zeros(100, dtype=torch.int64))
    found = example.trainer(net, None, 0).evaluate(few)
    expected = counted_by_ones(net, images[:100].double())
    # float32 sums of a few million, and a floor that float64 may cross elsewhere: a spike of some ten thousand
    assert {name: found[f"operation_counts.{name}.synops"] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert found["synops_budget"] == pytest.approx(sum(expected.values()), rel=1e-4)


@pytest.mark.slow
def test_it_prints_its_tables_and_writes_every_training_and_the_plot(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    example.main(["--data", "digits", "--budgets", "none", "2e7", "--seeds", "3", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "the 1,000 test images" in printed
    assert (tmp_path / "fewer_synops.png").read_bytes().startswith(b"\x89PNG")
    document = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert document["versions"]["torch"] == torch.__version__
    found = {(result["start"], result["budget"]): result for result in document["results"]}
    # torch's own start is trained without a budget alone
    assert list(found) == [("first", None), ("first", 2e7), ("last", None), ("last", 2e7), ("torch", None)]
    for result in found.values():
        assert f"{result['accuracy']:.2f}" in printed
        assert result["synops_per_sample"] == pytest.approx(sum(result["layers"].values()), rel=1e-6)
    # two epochs are 24 steps here: enough for the penalty to show, not to reach the budget
    assert found["last", 2e7]["synops_per_sample"] < 0.8 * found["last", None]["synops_per_sample"]
    # the input decides what the first layer costs
    assert len({result["layers"]["1"] for result in found.values()}) == 1
