"""Configuration files: read, refused with the place of the fault, written in one step."""

from pathlib import Path

import pytest

from snn_core.config import Config, load, load_run, save
from snn_core.errors import ConfigError, RunFolderError


def test_a_file_is_read_with_overrides_and_the_backend_on_top(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[train]\nepochs = 3\nseed = 4\n[backend]\nname = "eager"\ndevice = "cpu"\n', encoding="utf-8")
    config = load(path, ["train.epochs=5"])
    assert (config.train.epochs, config.train.seed, config.backend.options) == (5, 4, {"device": "cpu"})
    assert load(path, backend="eager").backend.options == {"device": "cpu"}
    assert load(path, backend="cuda").backend == Config.from_mapping({"backend": "cuda"}).backend


@pytest.mark.parametrize("content", ["", 'backend = "eager"', '[backend]\nname = "cuda"\nworld = 3'])
def test_options_on_the_command_line_are_those_of_the_backend_named_beside_them(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(content, encoding="utf-8")
    config = load(path, ["backend.num_workers=2"], backend="eager")
    assert (config.backend.name, config.backend.options) == ("eager", {"num_workers": 2})


@pytest.mark.parametrize("change", ["backend=eager", "backend.name=eager"])
def test_two_backends_on_the_command_line_are_refused(change: str) -> None:
    with pytest.raises(ConfigError, match="--backend names 'cpu', and --set 'eager'; give one"):
        load(None, [change], backend="cpu")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[train]\nepochs = \n", "is no valid TOML: Invalid value (at line 2, column 10)"),
        (b"\xff\xfe", "is no text in UTF-8 (byte 0)"),
        (b"[model.args]\ndays = [2020-01-01]", "model.args.days.0 is the date or time 2020-01-01; no setting is one"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_place(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert message in str(caught.value)


def test_a_missing_file_and_a_folder_are_told_apart_and_a_forgotten_set_is_seen(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no configuration file .*gone.toml; check the path"):
        load(tmp_path / "gone.toml")
    with pytest.raises(ConfigError, match=r"no configuration file train.epochs=3; to change a setting: --set train.ep"):
        load("train.epochs=3")
    with pytest.raises(ConfigError, match=r"is a folder; give a file, such as .*config.toml"):
        load(tmp_path)


def test_a_run_s_configuration_is_found_in_its_folder_and_what_is_none_is_refused(tmp_path: Path) -> None:
    config = Config.from_mapping({"train": {"epochs": 7}})
    with pytest.raises(RunFolderError, match="does not exist"):
        load_run(tmp_path / "run")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(RunFolderError, match=r"has no config.toml: the run was started in Python.*fit\(..., resume="):
        load_run(tmp_path / "run")
    save(config, tmp_path / "run" / "config.toml")
    assert load_run(tmp_path / "run") == config
    assert [path.name for path in (tmp_path / "run").glob("*.tmp")] == []
    with pytest.raises(RunFolderError, match=r"is no run folder \(it has no config.toml\)"):
        load_run(tmp_path)


def test_a_configuration_that_cannot_be_written_is_a_run_folder_error(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"cannot write .*No such file or directory"):
        save(Config.from_mapping({}), tmp_path / "gone" / "config.toml")
