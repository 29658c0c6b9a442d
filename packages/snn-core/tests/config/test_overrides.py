"""--set KEY=VALUE: what a value means, and that nothing but its key changes."""

import copy
from typing import Any, Dict, Tuple

import pytest
import tomli_w
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from snn_core.config import Config
from snn_core.config.overrides import override, parse
from snn_core.errors import ConfigError

NAME = st.sampled_from(["a", "b", "c-d", "e_1"])  # few, so that paths meet
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126))
SCALAR = st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), PRINTABLE)
VALUE = st.one_of(SCALAR, st.lists(SCALAR, max_size=3))
NUMBER = st.one_of(st.integers(), st.booleans())  # no texts: one where a table is needed becomes that table's name
TREE = st.dictionaries(NAME, st.one_of(NUMBER, st.dictionaries(NAME, NUMBER, max_size=3)), max_size=4)


def toml(value: Any) -> str:
    """The value as TOML on one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return tomli_w.dumps({"x": value}).partition("=")[2].strip()


@settings(deadline=None, max_examples=100)
@given(VALUE)
def test_a_value_is_what_toml_makes_of_it(value: Any) -> None:
    path, read = parse(f"a.b = {toml(value)}")
    assert (path, read, type(read)) == (["a", "b"], value, type(value))


@settings(deadline=None, max_examples=50)
@given(st.from_regex(r"[A-Za-z_/~.][A-Za-z0-9_./:~-]*", fullmatch=True))
def test_a_bare_word_is_a_text(word: str) -> None:
    assume(word not in ("true", "false", "inf", "nan"))
    assert parse(f"data.root={word}")[1] == word


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-2", 0.01),
        ("007", "007"),
        ("2024-01-31", "2024-01-31"),
        ("run#3", "run#3"),
        ("3#4", "3#4"),
        ("a=b", "a=b"),
        ('"12"', "12"),
        ("[0.9, 0.99]", [0.9, 0.99]),
        ("{name = 'adam', lr = 1}", {"name": "adam", "lr": 1}),
    ],
)
def test_numbers_are_numbers_and_what_only_looks_like_one_is_a_text(text: str, expected: Any) -> None:
    assert parse(f"a.b={text}")[1] == expected


def leaves(tree: Any, path: Tuple[str, ...] = ()) -> Dict[Tuple[str, ...], Any]:
    """Everything in a tree that is no filled table, by its path."""
    if not isinstance(tree, dict) or not tree:
        return {path: tree}
    return {key: leaf for name, below in tree.items() for key, leaf in leaves(below, (*path, name)).items()}


@settings(deadline=None, max_examples=100)
@given(TREE, st.lists(NAME, min_size=1, max_size=3).map(tuple), VALUE)
def test_an_override_changes_its_key_and_nothing_else(tree: Dict[str, Any], path: Tuple[str, ...], value: Any) -> None:
    before = copy.deepcopy(tree)
    after = override(tree, [f"{'.'.join(path)}={toml(value)}"])
    assert tree == before

    def is_apart(key: Tuple[str, ...]) -> bool:
        return key[: len(path)] != path and path[: len(key)] != key

    kept = {key: leaf for key, leaf in leaves(tree).items() if is_apart(key)}
    assert leaves(after) == {**kept, path: value}


def test_of_two_overrides_the_later_wins() -> None:
    assert override({}, ["train.epochs=1", "train.epochs=2"]) == {"train": {"epochs": 2}}


def test_a_section_set_by_its_name_starts_afresh_and_takes_arguments_after_it() -> None:
    file = {"optimizer": {"name": "adam", "betas": [0.5, 0.5]}}
    changed = override(file, ["optimizer=sgd", "optimizer.lr=0.5"])
    assert changed == {"optimizer": {"name": "sgd", "lr": 0.5}}


def test_an_argument_goes_into_a_table_that_was_only_switched_on() -> None:
    assert override({"terms": {"ops": True}}, ["terms.ops.weight=2"]) == {"terms": {"ops": {"weight": 2}}}


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 10**6), st.floats(0, 10), st.sampled_from(["fp32", "bf16"]))
def test_overrides_reach_the_configuration(epochs: int, lr: float, precision: str) -> None:
    raw = override({}, [f"train.epochs={epochs}", f"optimizer.lr={lr!r}", f"train.precision={precision}"])
    config = Config.from_mapping(raw)
    assert (config.train.epochs, config.optimizer.lr, config.settings().precision) == (epochs, lr, precision)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("epochs", "--set 'epochs' sets nothing; write SECTION.KEY=VALUE, such as train.epochs=3"),
        ("=3", "--set '=3' sets nothing"),
        ("a..b=3", "--set 'a..b=3' sets nothing"),
        ("a b=3", "--set 'a b=3' sets nothing"),
        ("train.epochs=", "--set 'train.epochs=' has no value"),
        ("a.b=[1", "--set 'a.b=[1' is no TOML value: "),
        ("a.b='x", "mind the shell's quotes"),
        ("a.b=1\nc=2", "holds a line break"),
        ("a.b=\udcff", "what is no character"),
    ],
)
def test_what_sets_nothing_is_refused(change: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(change)
    assert message in str(caught.value)
