"""The registry with real packages: one device by name, and a typed error for each way in which that fails."""

import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from snn_core import registry
from snn_core._entry_points import PluginWarning
from snn_core.backend import Backend
from snn_core.errors import (
    BackendBroken,
    BackendConflict,
    BackendIncompatible,
    BackendNotFound,
    BackendUnavailable,
    ConfigError,
)

if TYPE_CHECKING:
    from conftest import Packages


def test_metadata_alone_tells_name_package_version_and_class(installed: "Packages") -> None:
    installed.add("my-device", version="2.3", backends={"mine": "my_device_module:Device"})
    info = registry.available()["mine"]
    assert (info.name, info.package, info.version, info.value) == (
        "mine",
        "my-device",
        "2.3",
        "my_device_module:Device",
    )
    assert info.status == "installed"


def test_listing_imports_no_plugin(installed: "Packages") -> None:
    installed.add_backend("cpu", top="raise RuntimeError('imported')")
    assert list(registry.available()) == ["cpu"]
    assert not any(name.startswith("snn_backend_cpu") for name in sys.modules)


def test_a_backend_is_loaded_by_name_with_its_default_options(installed: "Packages") -> None:
    installed.add_backend("cpu")
    backend = registry.load("cpu")
    assert isinstance(backend, Backend)
    assert (backend.name, backend.options.threads) == ("cpu", 1)


def test_options_may_be_a_mapping_or_the_backend_s_own(installed: "Packages") -> None:
    installed.add_backend("cpu")
    assert registry.load("cpu", {"threads": 4}).options.threads == 4
    own = registry.load("cpu").Options(threads=5)
    assert registry.load("cpu", own).options is own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thread": 4}, r"backend 'cpu' has no option 'thread' \(did you mean 'threads'\?\); it has threads"),
        ({"threads": "four"}, r"backend 'cpu': threads is 'four'; it must be a valid integer"),
        (4, r"backend 'cpu' got options 4; give a \S+\.Options or a mapping of its fields"),
    ],
)
def test_a_wrong_option_is_a_config_error(installed: "Packages", options: Any, message: str) -> None:
    installed.add_backend("cpu")
    with pytest.raises(ConfigError, match=message):
        registry.load("cpu", options)


def test_a_known_backend_that_is_absent_comes_with_its_pip_line(installed: "Packages") -> None:
    installed.add_backend("cpu")
    with pytest.raises(
        BackendNotFound,
        match=r"no backend 'cuda' is installed.*installed: cpu; install it: pip install snn-backend-cuda",
    ):
        registry.load("cuda")


def test_a_misspelt_backend_comes_with_the_nearest_and_what_is_installed(installed: "Packages") -> None:
    installed.add_backend("loihi")
    with pytest.raises(
        BackendNotFound, match=r"no backend 'lohi' is installed \(did you mean 'loihi'\?\); installed: loihi"
    ):
        registry.load("lohi")


def test_two_packages_with_one_name_conflict_and_both_are_named(installed: "Packages") -> None:
    installed.add_backend("cpu", package="first-cpu", top="raise RuntimeError('imported')")
    installed.add_backend("cpu", package="second-cpu", top="raise RuntimeError('imported')")
    assert registry.available()["cpu"].status == "conflict"
    with pytest.raises(BackendConflict, match=r"registered by 2 packages: first-cpu 1.0, second-cpu 1.0; keep one"):
        registry.load("cpu")


def test_two_versions_of_one_package_on_the_path_are_one(installed: "Packages", tmp_path: Any) -> None:
    shadowed = type(installed)(tmp_path / "later")
    shadowed.add("my-device", version="0.1", backends={"mine": "old:Device", "dropped": "old:Dropped"})
    installed.add("my-device", version="0.2", backends={"mine": "new:Device"})
    sys.path.append(str(shadowed.folder))
    try:
        found = registry.available()
    finally:
        sys.path.remove(str(shadowed.folder))
    assert {name: (info.version, info.value, info.status) for name, info in found.items()} == {
        "mine": ("0.2", "new:Device", "installed")
    }


@pytest.mark.parametrize(
    ("top", "cause", "message"),
    [
        (
            "import no_such_driver",
            ModuleNotFoundError,
            r"No module named 'no_such_driver'; install what it lacks: pip install",
        ),
        (
            "raise OSError('libcuda.so.1: no such file')",
            OSError,
            r"OSError: libcuda.so.1: no such file; update it: pip",
        ),
        ("sys.exit(3)", SystemExit, r"cannot be imported: it called sys.exit\(3\); update it"),
        ("raise type('Panic', (BaseException,), {})('rust')", BaseException, r"Panic: rust; update it"),
        ("def f(:", SyntaxError, r"SyntaxError"),
    ],
)
def test_a_failing_import_is_broken_and_chained(installed: "Packages", top: str, cause: type, message: str) -> None:
    installed.add_backend("cpu", top=top)
    with pytest.raises(BackendBroken, match=message) as caught:
        registry.load("cpu")
    assert "backend 'cpu' (package snn-backend-cpu 1.0)" in str(caught.value)
    assert isinstance(caught.value.__cause__, cause)


@pytest.mark.parametrize("value", ["nowhere:Device", "json:Device", "not a value", ""])
def test_an_entry_point_that_leads_nowhere_is_broken(installed: "Packages", value: str) -> None:
    installed.add("my-device", backends={"mine": value})
    with pytest.raises(BackendBroken, match="cannot be imported"):
        registry.load("mine")


def test_an_interrupted_import_stays_an_interrupt(installed: "Packages") -> None:
    installed.add_backend("cpu", top="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        registry.load("cpu")


@pytest.mark.parametrize(
    ("api", "message"),
    [
        (
            0,
            r"written for backend API 0; this snn-core has API 1; update the backend: pip install --upgrade snn-b",
        ),
        (2, r"written for backend API 2; this snn-core has API 1; update core: pip install --upgrade snn-core"),
        ("1", r"api is '1'; it must be the integer 1"),
        (True, r"api is True; it must be the integer 1"),
        (None, r"api is None; it must be the integer 1"),
    ],
)
def test_another_api_is_incompatible_and_says_which_side_to_update(
    installed: "Packages", api: Any, message: str
) -> None:
    installed.add_backend("cpu", api=api)
    with pytest.raises(BackendIncompatible, match=message):
        registry.load("cpu")


def test_every_missing_attribute_is_named(installed: "Packages") -> None:
    installed.add_backend("cpu", source="class Device:\n    name = 'cpu'\n    priority = 1\n")
    with pytest.raises(BackendIncompatible, match=r"class Device lacks api, Options, capabilities, probe, compile;"):
        registry.load("cpu")


def test_an_abstract_method_left_out_is_a_missing_attribute(installed: "Packages") -> None:
    source = "from snn_core.backend import Backend\nclass Device(Backend):\n    api = 1\n    probe = print\n"
    installed.add_backend("cpu", source=source)
    with pytest.raises(
        BackendIncompatible, match=r"class Device lacks name, Options, capabilities, priority, compile;"
    ):
        registry.load("cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("Device.name = 'gpu'", "name is 'gpu'; it must be 'cpu', as it is registered"),
        ("Device.Options = dict", "Options is <class 'dict'>; it must be a frozen dataclass"),
        ("Device.capabilities = {}", "capabilities is {}; it must be a snn_core.Capabilities"),
        ("Device.priority = 'high'", "priority is 'high'; it must be an integer"),
        ("Device = 3", "is 3, not a class"),
    ],
)
def test_an_attribute_of_the_wrong_kind_is_incompatible(installed: "Packages", change: str, message: str) -> None:
    installed.add_backend("cpu")
    (module,) = installed.folder.glob("snn_backend_cpu*.py")
    module.write_text(module.read_text() + f"\n{change}\n")
    with pytest.raises(BackendIncompatible, match=message):
        registry.load("cpu")


def test_a_constructor_that_fails_is_broken(installed: "Packages") -> None:
    installed.add_backend("cpu")
    (module,) = installed.folder.glob("snn_backend_cpu*.py")
    module.write_text(
        module.read_text() + "\n    def __init__(self, options=None):\n        raise RuntimeError('no driver')\n"
    )
    with pytest.raises(BackendBroken, match=r"cannot be made with Options\(threads=1\): RuntimeError: no driver"):
        registry.load("cpu")


def test_a_broken_backend_disturbs_no_other(installed: "Packages") -> None:
    installed.add_backend("bad", top="raise RuntimeError('no')")
    installed.add_backend("old", api=0)
    installed.add_backend("good")
    for name, error in [("bad", BackendBroken), ("old", BackendIncompatible)]:
        with pytest.raises(error):
            registry.load(name)
    assert registry.load("good").name == "good"


@pytest.mark.parametrize("text", [b"[snn.backends]\nbad = \xff\xfe\n", b"[snn.backends]\nbad\n"])
def test_a_package_with_malformed_metadata_is_warned_of_and_left_out(installed: "Packages", text: bytes) -> None:
    installed.add_backend("good")
    installed.add("bad-device", backends={"bad": "bad:Device"})
    (points,) = installed.folder.glob("bad_device*/entry_points.txt")
    points.write_bytes(text)
    with pytest.warns(PluginWarning, match="bad.device.*left out"):
        assert list(registry.available()) == ["good"]


def test_an_unrelated_package_with_malformed_metadata_is_passed_over(installed: "Packages") -> None:
    installed.add_backend("good")
    installed.add("unrelated", other={"x": "y"})
    (points,) = installed.folder.glob("unrelated*/entry_points.txt")
    points.write_text("x = y\nno section [at all\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(registry.available()) == ["good"]


def test_an_unavailable_device_is_refused_with_what_to_do(installed: "Packages") -> None:
    installed.add_backend("cuda", probe="return Health('unavailable', 'no NVIDIA driver', 'install one')")
    installed.add_backend("cpu")
    assert registry.require_ready(registry.load("cpu")).detail == "a device"
    with pytest.raises(BackendUnavailable, match="backend 'cuda' is unavailable: no NVIDIA driver; install one"):
        registry.require_ready(registry.load("cuda"))


def test_the_reference_backend_keeps_the_contract(installed: "Packages") -> None:
    installed.add("snn-core", backends={"eager": "snn_core.eager:EagerBackend"})
    backend = registry.load("eager")
    registry.require_ready(backend)
    assert backend.priority == 0
