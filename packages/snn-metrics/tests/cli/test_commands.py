"""`snn synops` and `snn report` as they are typed: what they print, and what they refuse."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest

from snn_core.cli import main
from snn_core.cli.trained import load_trained
from snn_metrics.energy import COSTS
from snn_metrics.report import count_operations
from snn_metrics.report.numbers import count, joules, percent

COUNTS = {
    "synops_per_sample",
    "synops_per_step",
    "dense_per_sample",
    "effective_per_sample",
    "sparse_per_sample",
    "acs_per_sample",
    "macs_per_sample",
}


def printed(capsys: Any, *arguments: str) -> str:
    assert main([*arguments]) == 0
    return capsys.readouterr().out


def refused(capsys: Any, *arguments: str) -> str:
    assert main([*arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "unexpected" not in err
    return err


def document_of(capsys: Any, *arguments: str) -> Dict[str, Any]:
    return json.loads(printed(capsys, "synops", *arguments, "--json"))


def test_the_commands_are_found_by_snn_and_explain_themselves(capsys: Any) -> None:
    out = printed(capsys, "--help")
    assert "synops" in out
    assert "report" in out
    for command in ("synops", "report"):
        text = printed(capsys, command, "--help")
        assert "--layout" in text
        assert f"snn {command} runs/" in text


def test_help_needs_neither_torch_nor_matplotlib() -> None:
    source = "import sys, snn_metrics.cli; sys.exit(bool({'torch', 'matplotlib', 'jinja2'} & set(sys.modules)))"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert subprocess.run([sys.executable, "-c", source], env=environment, check=False).returncode == 0


def test_synops_prints_a_line_for_each_layer_and_their_total(runs: Any, capsys: Any) -> None:
    found = load_trained(str(runs.budget), with_terms=False)
    report = count_operations(found.trainer, found.data)
    lines = [line.split() for line in printed(capsys, "synops", str(runs.budget)).splitlines()]
    facts = {line[0]: line[1] for line in lines if len(line) > 1}
    assert (facts["backend"], facts["data"], facts["split"]) == ("eager", "digits", "test")
    assert (facts["samples"], facts["steps"]) == ("70", "6")
    assert facts["accuracy"] == percent(report.accuracy or 0.0).split()[0]
    (header,) = [line for line in lines if line[:2] == ["layer", "type"] and "dense" in line]
    assert header[2:] == ["synops_per_sample", "synops_per_step", "dense", "effective", "sparse", "acs", "macs"]
    for row in (*report.layers, report.total):
        (line,) = [line for line in lines if line[:1] == [row.layer]]
        values = [row.synops_per_sample, row.synops_per_step, row.dense_per_sample, row.effective_per_sample]
        values += [row.sparse_per_sample, row.acs_per_sample, row.macs_per_sample]
        assert line[-7:] == [count(value) for value in values]
    for neuron in report.neurons:
        assert [neuron.layer, "LIF", f"{neuron.neurons}", f"{neuron.firing_rate:.4f}"] in lines


def test_no_label_says_synops_without_saying_of_what(runs: Any, capsys: Any) -> None:
    out = printed(capsys, "synops", str(runs.budget))
    words = out.replace(str(runs.budget), "").split()
    assert [word for word in words if "synops" in word.lower()] == ["synops_per_sample", "synops_per_step"]


def test_columns_stand_under_their_headings(runs: Any, capsys: Any) -> None:
    lines = printed(capsys, "synops", str(runs.budget)).splitlines()
    start = next(index for index, line in enumerate(lines) if "synops_per_sample" in line)
    assert len({len(line) for line in lines[start : start + 4]}) == 1


def test_energy_lines_give_the_joules_the_node_and_the_source(runs: Any, capsys: Any) -> None:
    names = ("jouppi-2021-int8-7nm", "horowitz-2014-int32-45nm")
    out = printed(capsys, "synops", str(runs.budget), "--energy", names[0], "--energy", names[1])
    document = document_of(capsys, str(runs.budget), "--energy", names[0], "--energy", names[1])
    assert [item["cost"]["name"] for item in document["energy"]] == list(names)
    for item, name in zip(document["energy"], names):
        cost = COSTS[name]
        assert f"energy_per_sample  {joules(item['joules_per_sample'])} by {name}, {cost.process_nm:g} nm" in out
        assert cost.citation in out
        total = document["total"]
        expected = 1e-12 * (total["acs_per_sample"] * cost.ac_pj + total["macs_per_sample"] * (cost.mac_pj or 0))
        assert item["joules_per_sample"] == pytest.approx(expected)


def test_costs_lists_every_known_cost_with_its_source(capsys: Any) -> None:
    out = printed(capsys, "synops", "--costs")
    for cost in COSTS.values():
        assert cost.name in out
        assert cost.citation in out


def test_json_is_one_document_with_everything(runs: Any, capsys: Any) -> None:
    document = document_of(capsys, str(runs.budget))
    assert list(document) == [
        "checkpoint", "backend", "data", "split", "samples", "steps", "loss", "accuracy", "layers", "total", "neurons",
        "energy",
    ]  # fmt: skip
    assert [row["layer"] for row in document["layers"]] == ["features.conv", "head.full"]
    for row in (*document["layers"], document["total"]):
        assert set(row) == {"layer", "kind", *COUNTS}
        assert all(isinstance(row[name], float) for name in COUNTS)
    assert all(set(row) == {"layer", "kind", "neurons", "firing_rate"} for row in document["neurons"])
    (item,) = document["energy"]
    assert set(item) == {"joules_per_sample", "cost"}
    assert {"name", "ac_pj", "mac_pj", "process_nm", "citation"} <= set(item["cost"])


def test_a_checkpoint_a_split_and_a_smaller_part_of_the_data_can_be_named(runs: Any, capsys: Any) -> None:
    last = runs.budget / "checkpoints" / "last.safetensors"
    document = document_of(capsys, str(last), "--split", "train", "--set", "data.limit=9", "--backend", "eager")
    assert (document["checkpoint"], document["split"], document["samples"]) == (str(last), "train", 9)


def test_pooling_none_takes_the_factor_of_average_pools_away(runs: Any, capsys: Any) -> None:
    layers: List[Dict[str, float]] = [
        document_of(capsys, str(runs.budget), *options)["layers"][1]
        for options in ((), ("--pooling", "none"), ("--pooling", "head.full=3"))
    ]
    pooled, plain, named = (row["synops_per_sample"] for row in layers)
    assert (pooled, named) == (pytest.approx(4 * plain), pytest.approx(3 * plain))
    assert layers[0]["effective_per_sample"] == layers[1]["effective_per_sample"]


def test_a_run_is_counted_as_its_own_budget_was(runs: Any, capsys: Any) -> None:
    name = "terms.synops_budget.pooling=none"
    told = document_of(capsys, str(runs.budget), "--set", name)
    asked = document_of(capsys, str(runs.budget), "--pooling", "none")
    assert told["layers"] == asked["layers"]


def test_a_layer_called_by_hand_needs_its_layout_and_takes_it(runs: Any, tmp_path: Path, capsys: Any) -> None:
    where = ("--set", "train.name=hand", "--set", f"train.folder={tmp_path}", "--set", "data.limit=40")
    few = ("--set", "train.epochs=1", "--set", "train.batch_size=20", "--set", "train.plots=false")
    model = ("--set", 'model={factory = "report_nets:ByHand"}')
    printed(capsys, "train", *where, *few, *model)
    run = str(tmp_path / "hand")
    assert "'full' is called by a module's own forward" in refused(capsys, "synops", run)
    static = document_of(capsys, run, "--layout", "static")["total"]["synops_per_sample"]
    assert document_of(capsys, run, "--layout", "full=static")["total"]["synops_per_sample"] == static
    assert document_of(capsys, run, "--layout", "step")["total"]["synops_per_sample"] == pytest.approx(static / 3)
    assert "give KIND once for all layers" in refused(
        capsys, "synops", run, "--layout", "step", "--layout", "full=step"
    )
    assert "layout is 'sideways'; it must be one of 'first'" in refused(capsys, "synops", run, "--layout", "sideways")
    assert "a layer 'fall' that the model does not" in refused(capsys, "synops", run, "--layout", "fall=step")
    assert "the factor must be a number" in refused(capsys, "synops", run, "--pooling", "full=x")


@pytest.mark.parametrize("command", ["synops", "report"])
def test_wrong_use_is_one_error_that_says_what_to_do(command: str, runs: Any, tmp_path: Path, capsys: Any) -> None:
    run = str(runs.budget)
    assert "there is no run folder or checkpoint nowhere" in refused(capsys, command, "nowhere")
    assert "is no run folder" in refused(capsys, command, str(tmp_path))
    assert "it must be one of digits, mnist" in refused(capsys, command, run, "--data", "nope")
    assert "no split 'dev'" in refused(capsys, command, run, "--split", "dev")
    assert "there is no cost 'horowitz'" in refused(capsys, command, run, "--energy", "horowitz")
    assert "prices spikes of one size" in refused(capsys, command, run, "--energy", "davies-2018-loihi-14nm")
    assert "no backend 'abacus'" in refused(capsys, command, run, "--backend", "abacus")


def test_a_network_without_weight_layers_is_refused(runs: Any, tmp_path: Path, capsys: Any) -> None:
    from snn_core import Trainer
    from snn_core.checkpoint import save
    from snn_core.config import load, trainer

    # it has nothing to train, so its run is made by hand
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    source = 'model = {factory = "report_nets:without_weights"}\ndata = {name = "digits", limit = 5}\n'
    (run / "config.toml").write_text(source, encoding="utf-8")
    made: Trainer = trainer(load(run / "config.toml"))
    state = {"program": {"model": dict(made.model.state_dict())}}
    save(run / "checkpoints" / "last.safetensors", state, {"kind": "run"})
    for command in ("synops", "report"):
        assert "the model has no weight layer" in refused(capsys, command, str(run))


def test_report_says_where_the_page_is_and_refuses_before_it_counts(runs: Any, tmp_path: Path, capsys: Any) -> None:
    out = printed(capsys, "report", str(runs.budget))
    assert out.split() == ["report", str(runs.budget / "report.html")]
    mine = tmp_path / "mine.html"
    mine.write_text("mine", encoding="utf-8")
    # the unknown layer would be found by counting
    words = ("report", str(runs.budget), "--layout", "x=step", "--output")
    assert "is no report of `snn report`" in refused(capsys, *words, str(mine))
    assert "its folder does not exist" in refused(capsys, *words, str(tmp_path / "none" / "x.html"))
    assert mine.read_text(encoding="utf-8") == "mine"


def test_a_run_that_has_not_ended_can_be_reported(runs: Any, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "going"
    shutil.copytree(str(runs.plain), str(run))
    (run / "summary.json").unlink()
    with open(run / "metrics.jsonl", "a", encoding="utf-8") as log:
        log.write('{"kind": "step", "epo')  # as a killed process leaves it
    printed(capsys, "report", str(run))
    assert "the run has not ended" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.04321, "0.0432"), (12.345, "12.3"), (12.0, "12"), (1234.5, "1,234"), (999_999.4, "999,999"),
     (999_999.6, "1.00e6"), (12_345_678.0, "1.23e7"), (2.5e12, "2.50e12"), (float("nan"), "not finite")],
)  # fmt: skip
def test_counts_are_written_short(value: float, text: str) -> None:
    assert count(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(2.0, "2 J"), (1.694e-6, "1.69 uJ"), (8.57e-7, "857 nJ"), (3e-13, "0.3 pJ"), (0.0, "0 pJ")]
)
def test_energies_have_the_prefix_that_fits(value: float, text: str) -> None:
    assert joules(value) == text
