"""`snn plugins` and `snn terms` with real packages."""

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Packages

GOOD = '''
import snn_core

class Sparsity:
    """Penalise spikes above a budget.

    At length."""

@snn_core.hookimpl
def snn_run_start(run): pass

@snn_core.hookimpl
def snn_register_terms(): return {"sparsity": Sparsity}
'''


def _install(packages: "Packages") -> None:
    packages.add("my-plugins", version="0.3", modules={"good_plugin": GOOD}, plugins={"good": "good_plugin"})
    packages.add("bad-plugins", modules={"bad_plugin": "import no_such_thing"}, plugins={"bad": "bad_plugin"})


def test_plugins_are_shown_with_their_hooks_and_what_to_do_about_a_broken_one(packages: "Packages") -> None:
    _install(packages)
    done = packages.snn("plugins")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "installed plugins (2)",
        "  bad   bad-plugins 1.0  broken  cannot be imported: ModuleNotFoundError: No module named 'no_such_thing'",
        "  good  my-plugins 0.3   loaded  snn_register_terms, snn_run_start",
        "what to do",
        "  bad  install what it lacks: pip install --upgrade bad-plugins",
    ]


def test_plugins_as_json(packages: "Packages") -> None:
    _install(packages)
    bad, good = json.loads(packages.snn("plugins", "--json").stdout)["plugins"]
    assert (bad["name"], bad["status"], bad["hooks"]) == ("bad", "broken", [])
    assert (good["package"], good["version"], good["status"]) == ("my-plugins", "0.3", "loaded")
    assert good["hooks"] == ["snn_register_terms", "snn_run_start"]


def test_terms_are_shown_with_their_plugin_and_summary_and_a_broken_plugin_is_one_line_on_stderr(
    packages: "Packages",
) -> None:
    _install(packages)
    done = packages.snn("terms")
    assert done.stdout.splitlines() == [
        "terms (1)",
        "  sparsity  good (my-plugins)  Penalise spikes above a budget.",
    ]
    assert done.stderr.startswith("warning: plugin 'bad' (package bad-plugins 1.0) is left out: cannot be imported: ")
    assert done.stderr.count("\n") == 1


def test_terms_as_json_is_one_document_on_stdout(packages: "Packages") -> None:
    _install(packages)
    assert json.loads(packages.snn("terms", "--json").stdout) == {
        "terms": [{"name": "sparsity", "plugin": "good (my-plugins)", "summary": "Penalise spikes above a budget."}]
    }


def test_two_plugins_with_one_term_are_an_error_that_names_both(packages: "Packages") -> None:
    packages.add("one", modules={"plugin_one": GOOD}, plugins={"first": "plugin_one"})
    packages.add("two", modules={"plugin_two": GOOD}, plugins={"second": "plugin_two"})
    done = packages.snn("terms")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'sparsity' is registered by two plugins" in done.stderr
    assert "first (one)" in done.stderr
    assert "second (two)" in done.stderr


def test_with_nothing_installed_a_newcomer_learns_where_terms_come_from(packages: "Packages") -> None:
    assert packages.snn("plugins").stdout.startswith("no plugins are installed; pip install snn-metrics adds")
    assert packages.snn("terms").stdout.startswith("no terms are installed; pip install snn-metrics adds")
