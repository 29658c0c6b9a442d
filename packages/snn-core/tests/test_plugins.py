"""Plugins and callbacks in one manager: each in isolation, misspelt hooks refused, terms merged by name."""

from typing import TYPE_CHECKING, Any, Callable, Dict, List

import pytest

import snn_core as snn
from snn_core.errors import ConfigError
from snn_core.plugins import PluginWarning, plugin_manager, registered_terms, terms
from snn_core.plugins import installed as installed_plugins

if TYPE_CHECKING:
    from conftest import Packages

GOOD = """
import snn_core
from snn_core import hookimpl

seen = []

@hookimpl
def snn_run_start(run):
    seen.append(run)
"""


class Recorder:
    def __init__(self) -> None:
        self.seen: List[Any] = []

    @snn.hookimpl
    def snn_epoch_end(self, metrics: Dict[str, float]) -> None:
        self.seen.append(metrics)


def test_an_installed_plugin_hears_its_hooks(installed: "Packages") -> None:
    installed.add("my-plugins", modules={"good_plugin": GOOD}, plugins={"good": "good_plugin"})
    plugin_manager().hook.snn_run_start(run="a run")
    import good_plugin  # type: ignore[import-not-found]

    assert good_plugin.seen == ["a run"]


def test_a_plugin_may_be_an_object_of_a_module(installed: "Packages") -> None:
    source = """
        import snn_core
        class Plugin:
            @snn_core.hookimpl
            def snn_run_start(self, run): pass
        plugin = Plugin()
    """
    installed.add("my-plugins", modules={"object_plugin": source}, plugins={"good": "object_plugin:plugin"})
    (info,) = installed_plugins()
    assert (info.status, info.hooks, info.detail) == ("loaded", ("snn_run_start",), "")


def test_a_callback_hears_its_hooks_in_its_own_manager_only(installed: "Packages") -> None:
    first, second = Recorder(), Recorder()
    manager = plugin_manager([first])
    plugin_manager([second])
    manager.hook.snn_epoch_end(run=None, metrics={"loss": 1.0})
    assert (first.seen, second.seen) == ([{"loss": 1.0}], [])


def test_callbacks_are_called_in_the_order_given_and_before_installed_plugins(installed: "Packages") -> None:
    called: List[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        @snn.hookimpl
        def snn_run_start(self, run: List[str]) -> None:
            run.append(self.name)

    source = GOOD.replace("seen.append(run)", "run.append('installed')")
    installed.add("my-plugins", modules={"ordered_plugin": source}, plugins={"good": "ordered_plugin"})
    plugin_manager([Named("first"), Named("second")]).hook.snn_run_start(run=called)
    assert called == ["first", "second", "installed"]


def test_two_packages_may_use_one_plugin_name(installed: "Packages") -> None:
    installed.add("one", modules={"plugin_one": GOOD}, plugins={"same": "plugin_one"})
    installed.add("two", modules={"plugin_two": GOOD}, plugins={"same": "plugin_two"})
    assert [(info.package, info.status) for info in installed_plugins()] == [("one", "loaded"), ("two", "loaded")]
    assert len(plugin_manager().get_plugins()) == 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "import no_such_thing",
            r"No module named 'no_such_thing'; install what it lacks: pip install --upgrade bad-plugins",
        ),
        ("import sys; sys.exit(3)", r"it called sys.exit\(3\); update it: pip install --upgrade bad-plugins"),
        (
            GOOD.replace("snn_run_start", "snn_run_begin"),
            r"snn_run_begin is not a hook \(did you mean 'snn_run_\w+'\?\)",
        ),
        (GOOD.replace("@hookimpl", ""), r"snn_run_start is not marked as a hook; write @snn_core.hookimpl above it"),
        (GOOD.replace("(run)", "(run, epoch)"), r"\{'epoch'\}.*can not be found in the hookspec"),
        ("x = 1", r"it implements no hook; mark a method"),
    ],
)
def test_a_broken_plugin_is_warned_of_with_its_package_and_the_others_live(
    installed: "Packages", source: str, message: str
) -> None:
    installed.add("bad-plugins", modules={"bad_plugin": source}, plugins={"bad": "bad_plugin"})
    installed.add("my-plugins", modules={"fine_plugin": GOOD}, plugins={"good": "fine_plugin"})
    with pytest.warns(
        PluginWarning, match=rf"plugin 'bad' \(package bad-plugins 1.0\) is left out: .*{message}"
    ) as caught:
        manager = plugin_manager()
    assert len(caught) == 1
    assert [name for name, _ in manager.list_name_plugin()] == ["good (my-plugins)"]
    manager.hook.snn_run_start(run=None)
    assert [(info.name, info.status) for info in installed_plugins()] == [("bad", "broken"), ("good", "loaded")]


def test_an_entry_point_to_a_class_is_broken_and_says_so(installed: "Packages") -> None:
    installed.add("bad-plugins", modules={"class_plugin": "class Plugin: pass"}, plugins={"bad": "class_plugin:Plugin"})
    (info,) = installed_plugins()
    assert (info.status, "is not a plugin object; give an instance or a module" in info.detail) == ("broken", True)


def _method(name: str, *, marked: bool = True, **options: Any) -> object:
    def method(self: object, run: Any) -> None: ...

    return type("Callback", (), {name: snn.hookimpl(method, **options) if marked else method})()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: _method("snn_epoch_edn"),
            r"callbacks\[0\] Callback: snn_epoch_edn is not a hook \(did you mean 'snn_epoch_end'",
        ),
        (
            lambda: _method("snn_epoch_edn", marked=False),
            r"snn_epoch_edn is not a hook \(did you mean 'snn_epoch_end'\?\)",
        ),
        (
            lambda: _method("other", specname="snn_step_edn"),
            r"snn_step_edn is not a hook \(did you mean 'snn_step_end'\?\)",
        ),
        (lambda: _method("on_epoch_end"), r"on_epoch_end is not a hook.*hooks are .*snn_epoch_end, "),
        (
            lambda: _method("snn_epoch_end", marked=False),
            r"snn_epoch_end is not marked as a hook; write @snn_core.hookimpl",
        ),
        (lambda: Recorder, r"is not a plugin object; give an instance or a module"),
        (lambda: None, r"None is not a plugin object"),
        (lambda: object(), r"callbacks\[0\] object: it implements no hook; mark a method with @snn_core.hookimpl"),
    ],
)
def test_a_callback_that_would_never_be_heard_is_refused(
    installed: "Packages", make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plugin_manager([make()])


def test_a_hook_may_be_optional_or_implemented_under_another_name(installed: "Packages") -> None:
    optional = _method("snn_of_a_later_core", optionalhook=True)
    renamed = _method("listen", specname="snn_run_start")
    manager = plugin_manager([optional, renamed])
    assert [impl.plugin for impl in manager.hook.snn_run_start.get_hookimpls()] == [renamed]


def test_a_callback_given_twice_is_refused(installed: "Packages") -> None:
    callback = Recorder()
    with pytest.raises(
        ConfigError, match=r"callbacks\[0\] Recorder: the same object is registered already as 'callbacks\[1\]"
    ):
        plugin_manager([callback, callback])


def test_a_callback_refused_leaves_no_half_of_itself(installed: "Packages") -> None:
    class Half:
        @snn.hookimpl
        def snn_epoch_end(self, run: Any) -> None: ...

        @snn.hookimpl
        def snn_run_end(self, rum: Any) -> None: ...

    from snn_core.plugins import _bare_manager, _register

    manager = _bare_manager()
    half = Half()
    assert "'rum'" in _register(manager, half, "half")
    assert not manager.is_registered(half)
    assert manager.hook.snn_epoch_end.get_hookimpls() == []


class Terms:
    def __init__(self, offered: Any) -> None:
        self.offered = offered

    @snn.hookimpl
    def snn_register_terms(self) -> Any:
        if isinstance(self.offered, Exception):
            raise self.offered
        return self.offered


class Sparsity:
    """Penalise spikes.

    At length."""


def test_terms_of_all_plugins_are_merged_by_name(installed: "Packages") -> None:
    source = "import snn_core\n@snn_core.hookimpl\ndef snn_register_terms(): return {'zeta': dict}\n"
    installed.add("my-terms", modules={"term_plugin": source}, plugins={"mine": "term_plugin"})
    manager = plugin_manager([Terms({"alpha": Sparsity})])
    assert terms(manager) == {"alpha": Sparsity, "zeta": dict}
    told = [(term.name, term.plugin) for term in registered_terms(manager)]
    assert told == [("alpha", "callbacks[0] Terms"), ("zeta", "mine (my-terms)")]
    assert registered_terms(manager)[0].summary == "Penalise spikes."


def test_a_term_of_two_plugins_is_an_error_that_names_both(installed: "Packages") -> None:
    manager = plugin_manager([Terms({"alpha": Sparsity}), Terms({"alpha": dict})])
    with pytest.raises(ConfigError, match=r"term 'alpha' is registered by two plugins, .*'callbacks\[1\] Terms'"):
        terms(manager)


@pytest.mark.parametrize("offered", [RuntimeError("no"), ["alpha"], {"alpha": 3}, {3: dict}, None])
def test_a_plugin_that_fails_to_list_its_terms_is_warned_of_and_the_others_live(
    installed: "Packages", offered: Any
) -> None:
    manager = plugin_manager([Terms(offered), Terms({"beta": Sparsity})])
    with pytest.warns(PluginWarning, match=r"the terms of plugin 'callbacks\[0\] Terms' are left out"):
        assert terms(manager) == {"beta": Sparsity}
