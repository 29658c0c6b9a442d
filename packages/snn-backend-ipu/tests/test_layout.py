"""How samples are shared out, worked out by hand."""

from typing import Any, Dict, List

import pytest

from snn_backend_ipu import IpuOptions, calls
from snn_backend_ipu.layout import Layout, layout
from snn_core.errors import ConfigError
from snn_core.specs import BatchSpec, TensorSpec, TrainSpec

BATCH = BatchSpec(4, TensorSpec((3,), "float32"), TensorSpec((), "int64"))
PIPELINE = {"0": 0, "3": 1}


def cut(options: IpuOptions, training: bool = True, **train: int) -> Layout:
    return layout(BATCH, TrainSpec(**train), options, training)


def test_without_options_a_call_is_a_micro_batch() -> None:
    assert cut(IpuOptions()) == Layout(4, 1, 1, 1)
    assert cut(IpuOptions()).combined == 4


def test_replicas_share_out_the_accumulation_so_that_the_batch_stays_the_trainers() -> None:
    shared = cut(IpuOptions(replicas=2), accumulation=6, steps_per_call=5)
    assert shared == Layout(4, 5, 2, 3)
    assert shared.combined == 4 * 6 * 5


def test_evaluation_has_iterations_and_replicas_and_no_accumulation() -> None:
    assert cut(IpuOptions(replicas=2, evaluation_iterations=3), False, accumulation=6) == Layout(4, 3, 2, 1)


def test_an_accumulation_that_cannot_be_shared_out_is_refused_with_the_sum() -> None:
    with pytest.raises(ConfigError) as caught:
        cut(IpuOptions(replicas=4), accumulation=6, steps_per_call=2)
    assert "accumulation must be a multiple of 4" in str(caught.value)
    assert "batch_size 4 x accumulation 6 x steps_per_call 2 = 48 samples in a call" in str(caught.value)


def test_a_pipeline_too_short_of_micro_batches_is_refused_with_how_many_it_needs() -> None:
    with pytest.raises(
        ConfigError, match=r"2 for each of the replicas \(2\).*needs 3 or more.*raise accumulation to 6"
    ):
        cut(IpuOptions(stages=PIPELINE, replicas=2), accumulation=4)
    assert cut(IpuOptions(stages=PIPELINE), accumulation=3).accumulation == 3


@pytest.mark.parametrize("training", [True, False])
def test_a_loader_that_rebatches_needs_a_combined_batch_of_several_samples(training: bool) -> None:
    one = BatchSpec(1, BATCH.x, BATCH.target)
    options = IpuOptions(loader="async_rebatched", workers=1)
    with pytest.raises(ConfigError) as caught:
        layout(one, TrainSpec(), options, training)
    assert "loader is 'async_rebatched'" in str(caught.value)
    assert f"one call {'trains' if training else 'evaluates'} 1 sample" in str(caught.value)
    assert "set loader='async'" in str(caught.value)
    for fits in (IpuOptions(loader="async"), IpuOptions()):
        assert layout(one, TrainSpec(), fits, training).combined == 1


def test_a_loader_that_rebatches_may_have_one_sample_in_evaluation_alone() -> None:
    one = BatchSpec(1, BATCH.x, BATCH.target)
    options = IpuOptions(loader="async_rebatched", workers=1)
    assert layout(one, TrainSpec(accumulation=4), options, True).combined == 4
    with pytest.raises(ConfigError, match=r"one call evaluates 1 sample.*raise evaluation_iterations"):
        layout(one, TrainSpec(accumulation=4), options, False)
    several = IpuOptions(loader="async_rebatched", workers=1, evaluation_iterations=2)
    assert layout(one, TrainSpec(accumulation=4), several, False).combined == 2


@pytest.fixture
def poprun(monkeypatch: pytest.MonkeyPatch) -> Dict[str, int]:
    """What popdist says in a process that poprun started, to be changed by the test."""
    said = {"isPopdistEnvSet": 1, "getNumInstances": 2, "getInstanceIndex": 1, "getNumTotalReplicas": 4}
    monkeypatch.setattr(calls, "call", lambda name, **arguments: said[name.rpartition(".")[2]])
    return said


def test_under_poprun_the_replicas_are_those_of_all_processes(poprun: Dict[str, int]) -> None:
    shared = cut(IpuOptions(popdist=True), accumulation=8)
    assert shared == Layout(4, 1, 2, 2, processes=2, process=1)
    assert (shared.combined, shared.samples) == (16, 32)


def test_popdist_without_poprun_is_refused_with_the_command(poprun: Dict[str, int]) -> None:
    poprun["isPopdistEnvSet"] = 0
    with pytest.raises(ConfigError, match="poprun --num-instances"):
        cut(IpuOptions(popdist=True))


@pytest.mark.parametrize(("process", "own"), [(0, [0, 1, 2, 3, 8, 9, 10, 11]), (1, [4, 5, 6, 7, 12, 13, 14, 15])])
def test_each_process_takes_its_part_of_every_optimiser_step(process: int, own: List[int]) -> None:
    # two steps in a call, two processes, two micro-batches of two samples each
    shared = Layout(2, 2, 1, 2, processes=2, process=process)
    assert shared.own(list(range(16))) == own


def test_all_processes_together_take_every_sample_once() -> None:
    parts: List[Any] = [Layout(3, 2, 2, 1, processes=3, process=p).own(list(range(36))) for p in range(3)]
    assert sorted(index for part in parts for index in part) == list(range(36))
