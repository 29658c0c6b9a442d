"""Listeners: installed plugins (entry points of group "snn.plugins") and a run's own callbacks, in one manager."""

import inspect
import warnings
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, Mapping, Tuple

import pluggy

from snn_core import hookspecs
from snn_core._entry_points import Entry, PluginWarning, describe, entries, repair
from snn_core.errors import ConfigError, nearest

__all__ = [
    "PluginInfo",
    "PluginWarning",
    "TermInfo",
    "callbacks",
    "installed",
    "plugin_manager",
    "registered_terms",
    "terms",
]

GROUP = "snn.plugins"
_HOOKS = tuple(sorted(name for name in vars(hookspecs) if name.startswith("snn_")))
_ALL = ", ".join(_HOOKS)


@dataclass(frozen=True)
class PluginInfo:
    """One installed plugin. `status` is "loaded" or "broken"; `hooks` are those that it implements."""

    name: str
    package: str
    version: str
    value: str
    status: str
    hooks: Tuple[str, ...] = ()
    detail: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class TermInfo:
    """One term that a plugin offers: its name, the plugin's name and the callable that makes it."""

    name: str
    plugin: str
    factory: Callable[..., Any]

    @property
    def summary(self) -> str:
        """The first line of the factory's docstring."""
        lines = (inspect.getdoc(self.factory) or "").splitlines()
        return lines[0] if lines else ""


def plugin_manager(callbacks: Iterable[object] = ()) -> pluggy.PluginManager:
    """Return a manager that knows every hook, the objects in `callbacks`, called in this order, then installed plugins.

    An installed plugin that cannot be used is left out with a PluginWarning. Raises ConfigError for a callback that is
    a class, implements no hook or misspells one, takes an argument that the hook does not have, or is given twice.
    """
    manager = _bare_manager()
    for info in _register_installed(manager):
        if info.status == "broken":
            warnings.warn(
                f"plugin {info.name!r} (package {info.package} {info.version}) is left out: "
                f"{info.detail}; {info.remedy}",
                PluginWarning,
                stacklevel=2,
            )
    # pluggy calls the last registered first; callbacks are called in the order in which they were given
    for index, callback in reversed(list(enumerate(callbacks))):
        name = f"callbacks[{index}] {type(callback).__name__}"
        fault = _register(manager, callback, name)
        if fault:
            raise ConfigError(f"{name}: {fault}")
    return manager


def installed() -> List[PluginInfo]:
    """Load every installed plugin and say what became of it."""
    return _register_installed(_bare_manager())


def terms(manager: pluggy.PluginManager) -> Dict[str, Callable[..., Any]]:
    """Return every term that the manager's plugins offer, by name. Raises ConfigError where two plugins offer one."""
    return {term.name: term.factory for term in registered_terms(manager)}


def registered_terms(manager: pluggy.PluginManager) -> List[TermInfo]:
    """As `terms`, in order of names and each with its plugin. A plugin that fails to list its terms is warned of."""
    found = _offered(manager.hook.snn_register_terms, "term")
    return [TermInfo(name, *found[name]) for name in sorted(found)]


def callbacks(manager: pluggy.PluginManager) -> Dict[str, Callable[..., object]]:
    """As `terms`, for the callbacks that the plugins offer to configuration files."""
    found = _offered(manager.hook.snn_register_callbacks, "callback")
    return {name: found[name][1] for name in sorted(found)}


def _offered(hook: pluggy.HookCaller, what: str) -> Dict[str, Tuple[str, Callable[..., Any]]]:
    """By name, the plugin and the callable of everything that plugins return from `hook`."""
    found: Dict[str, Tuple[str, Callable[..., Any]]] = {}
    # Not `hook()`, which says neither whose a result is nor goes on after an exception.
    for implementation in hook.get_hookimpls():
        plugin = implementation.plugin_name
        try:
            offered = _checked(implementation.function(), hook.name)
        except Exception as exc:
            text = f"the {what}s of plugin {plugin!r} are left out: {describe(exc)}"
            warnings.warn(text, PluginWarning, stacklevel=3)
            continue
        for name, factory in offered.items():
            if name in found:
                raise ConfigError(
                    f"{what} {name!r} is registered by two plugins, {found[name][0]!r} and {plugin!r}; uninstall one"
                )
            found[name] = (plugin, factory)
    return found


def _checked(offered: Any, hook: str) -> Mapping[str, Callable[..., Any]]:
    if isinstance(offered, Mapping) and all(isinstance(k, str) and callable(v) for k, v in offered.items()):
        return offered
    raise TypeError(f"{hook} returned {offered!r}; it must be a mapping of names to classes")


def _bare_manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager("snn")
    manager.add_hookspecs(hookspecs)
    return manager


def _register_installed(manager: pluggy.PluginManager) -> List[PluginInfo]:
    return [_register_entry(manager, entry) for entry in entries(GROUP)]


def _register_entry(manager: pluggy.PluginManager, entry: Entry) -> PluginInfo:
    known = (entry.name, entry.package, entry.version, entry.value)
    try:
        plugin = entry.load()
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # sys.exit() and native panics of a plugin must not end the program either
        detail = f"cannot be imported: {describe(exc)}"
        return PluginInfo(*known, "broken", detail=detail, remedy=repair(entry.package, exc))
    # A plugin's name chooses nothing, so two packages may use one: the package makes it unique.
    fault = _register(manager, plugin, f"{entry.name} ({entry.package})")
    if fault:
        remedy = f"update it: pip install --upgrade {entry.package}; or remove it: pip uninstall {entry.package}"
        return PluginInfo(*known, "broken", detail=fault, remedy=remedy)
    return PluginInfo(*known, "loaded", hooks=_hooks_of(manager, plugin))


def _register(manager: pluggy.PluginManager, plugin: Any, name: str) -> str:
    """Register `plugin`, or return what is wrong with it and leave the manager as it was."""
    if plugin is None or isinstance(plugin, type):
        return f"{plugin!r} is not a plugin object; give an instance or a module"
    if manager.is_registered(plugin):
        return f"the same object is registered already as {manager.get_name(plugin)!r}; give each object once"
    try:
        fault = _misspelt(manager, plugin)
        if fault:
            return fault
        manager.register(plugin, name)
    except Exception as exc:  # a wrong signature, or a property that raises while pluggy looks for hooks
        if manager.is_registered(plugin):
            manager.unregister(plugin)
        return " ".join(line.strip() for line in str(exc).splitlines() if not line.startswith("Plugin ")).strip()
    if not _hooks_of(manager, plugin):
        manager.unregister(plugin)
        return f"it implements no hook; mark a method with @snn_core.hookimpl and name it one of {_ALL}"
    return ""


def _misspelt(manager: pluggy.PluginManager, plugin: Any) -> str:
    """What pluggy would pass over in silence: a hook that does not exist, or a hook's name without its mark."""
    for attribute in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, attribute)
        if options is not None:
            hook = options.get("specname") or attribute
            if hook not in _HOOKS and not options.get("optionalhook"):
                return f"{hook} is not a hook{nearest(hook, _HOOKS)}; hooks are {_ALL}"
        elif attribute.startswith("snn_") and _is_own(plugin, getattr(plugin, attribute)):
            if attribute in _HOOKS:
                return f"{attribute} is not marked as a hook; write @snn_core.hookimpl above it"
            return f"{attribute} is not a hook{nearest(attribute, _HOOKS)}; hooks are {_ALL}"
    return ""


def _is_own(plugin: Any, value: Any) -> bool:
    """Whether `value` is a function that the plugin defines: a module may have imported one, or `snn_core` itself."""
    return inspect.ismethod(value) or (
        inspect.isfunction(value) and value.__module__ == getattr(plugin, "__name__", type(plugin).__module__)
    )


def _hooks_of(manager: pluggy.PluginManager, plugin: object) -> Tuple[str, ...]:
    callers = manager.get_hookcallers(plugin) or []
    return tuple(sorted(caller.name for caller in callers))
