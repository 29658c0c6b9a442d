"""`snn lint`: findings and exit codes, for devices that are here and that are not."""

import json
from typing import TYPE_CHECKING

import pytest

from snn_core.cli import main

if TYPE_CHECKING:
    from conftest import Packages

QUICK = ("--set", "data.limit=200", "--set", "model.args.hidden=10")

FINDS_ONE = """
from dataclasses import dataclass
from snn_core.backend import Backend, Capabilities, Finding, Health

@dataclass(frozen=True)
class Options:
    pass

class Device(Backend):
    name = "absent"
    api = 1
    Options = Options
    capabilities = Capabilities(optimizers=frozenset({"adam"}))
    priority = 10

    def probe(self):
        return Health("unavailable", "no driver", "install the driver")

    def compile(self, step, optimizer, batch, train):
        raise NotImplementedError

    def lint(self, step, optimizer, batch, train, samples=None):
        slow = Finding("slow", f"{samples} samples are few", "get more", severity="warning")
        return [*super().lint(step, optimizer, batch, train, samples), slow]
"""


def test_a_clean_run_exits_with_0_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "--backend", "eager", *QUICK]) == 0
    assert capsys.readouterr().out == "backend eager: nothing found\n"


def test_an_error_exits_with_1_and_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "--backend", "eager", *QUICK, "--set", "train.precision=fp16"]) == 1
    said = capsys.readouterr().out
    assert said == (
        "error: backend 'eager' has no precision 'fp16' [undeclared]\n    it has bf16, fp32\nbackend eager: 1 error\n"
    )


def test_a_warning_alone_exits_with_0_though_the_device_is_not_here(packages: "Packages") -> None:
    packages.add_backend("absent", source=FINDS_ONE)
    done = packages.snn("lint", "--backend", "absent", *QUICK)
    assert done.stdout == ("warning: 200 samples are few [slow]\n    get more\nbackend absent: 1 warning\n"), (
        done.stderr
    )
    assert done.returncode == 0


def test_errors_come_before_warnings(packages: "Packages") -> None:
    packages.add_backend("absent", source=FINDS_ONE)
    done = packages.snn("lint", "--backend", "absent", "--json", *QUICK, "--set", "optimizer=sgd")
    assert [found["severity"] for found in json.loads(done.stdout)["findings"]] == ["error", "warning"]
    assert done.returncode == 1


def test_json_is_one_document_with_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "--backend", "eager", "--json", *QUICK, "--set", "train.precision=fp16"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "backend": "eager",
        "findings": [
            {
                "rule": "undeclared",
                "message": "backend 'eager' has no precision 'fp16'",
                "remedy": "it has bf16, fp32",
                "file": None,
                "line": None,
                "severity": "error",
            }
        ],
    }


def test_a_backend_that_is_not_installed_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "--backend", "nowhere", *QUICK]) == 2
    assert "no backend 'nowhere' is installed" in capsys.readouterr().err
