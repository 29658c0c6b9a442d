"""What several processes do not get as far as: a backend that cannot, an environment that is no launcher's."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Dict

import pytest
import torch
from torch import nn

import snn_core as snn
from snn_core.distributed import is_lost, join
from snn_core.distributed.mean import Whole
from snn_core.distributed.normalisation import join_statistics
from snn_core.distributed.shares import share, shares_of
from snn_core.errors import ConfigError, ShapeError, Unsupported
from snn_core.random_stream import RandomStream

TWO = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


class OneProcess(snn.EagerBackend):
    capabilities = replace(snn.EagerBackend.capabilities, distributed=False)


def started(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    for name, value in {**TWO, **changes}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("call", ["fit", "evaluate", "predict"])
def test_a_backend_that_cannot_is_refused_before_anything_is_made(
    call: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started(monkeypatch)
    net = snn.Sequential(snn.Constant(2), nn.Linear(2, 2), snn.LIF())
    trainer = snn.Trainer(net, loss=snn.CountCrossEntropy(), backend=OneProcess(), folder=tmp_path / "runs")
    data = torch.utils.data.TensorDataset(torch.rand(4, 2), torch.zeros(4, dtype=torch.int64))
    arguments: Dict[str, Any] = {"epochs": 1} if call == "fit" else {}
    with pytest.raises(Unsupported, match="does not train in several processes, and WORLD_SIZE is 2"):
        getattr(trainer, call)(data, **arguments)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("WORLD_SIZE", "many", "WORLD_SIZE is 'many'"),
        ("WORLD_SIZE", "0", "WORLD_SIZE is '0'; it must be a number of 1 or more"),
        ("RANK", "", "RANK is ''"),
        ("RANK", "-1", "RANK is '-1'; it must be a number of 0 or more"),
        ("RANK", "2", "RANK is 2 and WORLD_SIZE 2; RANK must be 0 to 1"),
    ],
)
def test_an_environment_that_no_launcher_made_is_refused(
    name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(monkeypatch, **{name: value})
    with pytest.raises(ConfigError, match=says):
        join()


def test_an_address_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    started(monkeypatch)
    monkeypatch.delenv("MASTER_PORT")
    with pytest.raises(ConfigError, match="WORLD_SIZE is 2 and MASTER_PORT is not set; start the processes with torch"):
        join()


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("[../third_party/gloo/gloo/transport/tcp/pair.cc:598] Connection closed by peer [127.0.0.1]:1234", True),
        ("Timed out waiting 1000ms for recv operation to complete", True),
        ("Socket Timeout", True),
        ("the socket of this lamp fits no bulb from gloomy shops", False),
    ],
)
def test_an_error_of_the_connection_is_told_from_one_of_the_model(text: str, lost: bool) -> None:
    assert is_lost(RuntimeError(text)) is lost


def test_a_joint_batch_of_one_value_for_each_channel_has_no_variance() -> None:
    class Alone(Whole):
        def total(self, value: torch.Tensor) -> torch.Tensor:
            return value

    layer = torch.nn.BatchNorm1d(3)
    join_statistics(layer, Alone(None))
    with pytest.raises(ShapeError, match="needs more than one value for each channel"):
        layer(torch.rand(1, 3))


@pytest.mark.parametrize("settings", [{}, {"folder": "runs"}, {"name": "first", "folder": None}])
def test_going_on_with_the_run_of_a_name_needs_a_name_and_a_folder(settings: Dict[str, Any], tmp_path: Path) -> None:
    net = snn.Sequential(snn.Constant(2), nn.Linear(2, 2), snn.LIF())
    trainer = snn.Trainer(net, loss=snn.CountCrossEntropy(), backend=snn.EagerBackend(), batch_size=2, **settings)
    data = torch.utils.data.TensorDataset(torch.rand(4, 2), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ConfigError, match="resume=True goes on with the run of this name"):
        trainer.fit(data, epochs=1, resume=True)


@pytest.mark.parametrize("total", range(9))
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_are_a_partition_in_order_that_differs_by_one(total: int, count: int) -> None:
    parts = [list(share(total, rank, count)) for rank in range(count)]
    assert [one for part in parts for one in part] == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_shares_are_taken_of_each_micro_batch() -> None:
    found = [shares_of([5, 6, 7, 8, 9, 3], 5, rank, 2) for rank in (0, 1)]
    # of the last, a single sample, the first process has none, and borrows it
    assert found == [([5, 6, 3], (2, 0)), ([7, 8, 9, 3], (3, 1))]


def test_processes_draw_differently_and_stay_at_one_position() -> None:
    streams = [RandomStream(torch.device("cpu"), 7, rank, 2) for rank in (0, 1)]
    drawn = []
    for rank, stream in enumerate(streams):
        with stream.active():
            drawn.append(torch.rand(3 + rank))  # one draws more than the other
    assert not torch.equal(drawn[0], drawn[1][:3])
    assert torch.equal(streams[0].state()["cpu"], streams[1].state()["cpu"])


def test_a_process_s_draws_go_on_where_its_stream_was_saved() -> None:
    stream = RandomStream(torch.device("cpu"), 7, 1, 2)
    with stream.active():
        torch.rand(5)
    saved = stream.state()
    with stream.active():
        expected = torch.rand(5)
    other = RandomStream(torch.device("cpu"), 8, 1, 2)
    other.restore(saved)
    with other.active():
        assert torch.equal(torch.rand(5), expected)
