"""`snn conformance NAME`: what it shows, and its exit code for conforming, wrong, absent and unknown backends."""

import json
from typing import TYPE_CHECKING

import pytest

from snn_core.cli import main

if TYPE_CHECKING:
    from conftest import Packages

WRONG = """
from snn_core.eager import EagerBackend, EagerProgram

class Wrong(EagerBackend):
    name = "wrong"

    def compile(self, *arguments):
        return Program(*arguments, self.options)

class Program(EagerProgram):
    def close(self):
        pass
    def set_lr(self, lr):
        1 / 0
"""


@pytest.fixture
def backends(installed: "Packages") -> "Packages":
    """The reference, and one that is wrong in two places."""
    installed.add("kit-eager", backends={"eager": "snn_core.eager:EagerBackend"})
    installed.add("kit-wrong", modules={"kit_wrong": WRONG}, backends={"wrong": "kit_wrong:Wrong"})
    return installed


def test_a_conforming_backend_ends_with_0(backends: "Packages", capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "eager", "--only", "fire op"]) == 0
    out = capsys.readouterr().out
    assert "backend eager: torch" in out
    assert "neurons\n  ties follow the fire op ..\n2 passed; 2 cases in" in out


def test_only_a_part_is_not_said_to_conform(backends: "Packages", capsys: pytest.CaptureFixture[str]) -> None:
    main(["conformance", "eager", "--only", "fire op"])
    assert capsys.readouterr().out.splitlines()[-1] == "backend eager passes these checks"


def test_several_processes_of_a_launcher_are_refused(
    backends: "Packages", capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["conformance", "eager", "--only", "fire op"]) == 2
    assert "WORLD_SIZE is 2; the kit runs in one process" in capsys.readouterr().err


def test_a_wrong_backend_ends_with_1_and_says_which_claim_fails(
    backends: "Packages", capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["conformance", "wrong", "--only", "close"]) == 1
    out = capsys.readouterr().out
    assert "use after close is an error FFFFFFFFF\n    loader: the call after close raises nothing" in out
    assert "10 failed" in out
    assert "backend wrong does not conform" in out
    assert "snn conformance wrong --only leaving_the_context_closes" in out


def test_another_error_is_told_apart_and_shown_where(backends: "Packages", capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "wrong", "--only", "follows set lr", "--traceback"]) == 1
    captured = capsys.readouterr()
    assert "the learning rate follows set lr E\n    ZeroDivisionError: division by zero" in captured.out
    assert "1 / 0" in captured.err


def test_what_is_refused_is_counted_as_such(backends: "Packages", capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "eager", "--only", "several steps"]) == 0
    out = capsys.readouterr().out
    assert "several steps in one call are several steps rrr" in out
    assert "3 refused; 3 cases" in out


def test_json_is_one_document_with_every_case(backends: "Packages", capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "wrong", "--only", "close", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["backend"], document["conforms"]) == ("wrong", False)
    failed = [row for row in document["results"] if row["status"] == "failed"]
    assert {row["check"] for row in failed} == {"leaving_the_context_closes", "use_after_close_is_an_error"}
    assert all(row["claim"] and row["theme"] == "contract" and row["detail"] for row in failed)


def test_an_unknown_backend_ends_with_2(backends: "Packages", capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "cuda"]) == 2
    assert "pip install snn-backend-cuda" in capsys.readouterr().err


def test_an_absent_device_ends_with_2_and_runs_nothing(
    installed: "Packages", capsys: pytest.CaptureFixture[str]
) -> None:
    installed.add_backend("absent", probe="return Health('unavailable', 'no driver', 'install the driver')")
    assert main(["conformance", "absent"]) == 2
    captured = capsys.readouterr()
    assert "install the driver" in captured.err
    assert captured.out == ""


def test_a_broken_plugin_ends_with_2(installed: "Packages", capsys: pytest.CaptureFixture[str]) -> None:
    installed.add_backend("lacking", top="import no_such_driver")
    assert main(["conformance", "lacking"]) == 2
    assert "no_such_driver" in capsys.readouterr().err


def test_a_text_that_no_check_has_ends_with_2(backends: "Packages", capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "eager", "--only", "no such claim"]) == 2
    assert "no check has 'no such claim'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_kit_says_that_the_reference_conforms(packages: "Packages") -> None:
    packages.add("kit-eager", backends={"eager": "snn_core.eager:EagerBackend"})
    run = packages.python("-m", "snn_core", "conformance", "eager", timeout=300)
    assert run.returncode == 0, run.stdout
    assert run.stdout.splitlines()[-1] == "backend eager conforms"
