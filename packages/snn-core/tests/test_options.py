"""Mappings become option dataclasses: what fits is kept exactly, what does not is named."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Literal, Optional, Tuple, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_core.errors import ConfigError
from snn_core.options import arguments, from_mapping


@dataclass(frozen=True)
class Options:
    threads: int = 1
    scale: float = 1.0
    fast: bool = False
    label: str = ""
    seed: Optional[int] = None
    betas: Tuple[float, float] = (0.9, 0.999)
    mode: Literal["graph", "eager"] = "graph"
    cache: Path = Path()

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ConfigError(f"threads is {self.threads}; it must be 1 or more")
        if self.label == "forbidden":
            raise ValueError("not this label")


VALUES: Dict[str, Any] = {
    "threads": st.integers(1, 1000),
    "scale": st.floats(allow_nan=False),
    "fast": st.booleans(),
    "label": st.text(max_size=5),
    "seed": st.one_of(st.none(), st.integers(-5, 5)),
    "betas": st.tuples(st.floats(0, 1), st.floats(0, 1)),
    "mode": st.sampled_from(["graph", "eager"]),
}


@settings(deadline=None, max_examples=50)
@given(st.fixed_dictionaries({}, optional=VALUES))
def test_plain_values_are_kept_and_the_rest_has_its_defaults(values: Dict[str, Any]) -> None:
    made = from_mapping(Options, values, "backend 'x'")
    assert dataclasses.asdict(made) == {**dataclasses.asdict(Options()), **values}


def test_a_list_fits_a_tuple_an_integer_a_float_and_a_text_a_path() -> None:
    made = from_mapping(Options, {"betas": [0, 0.5], "scale": 2, "cache": "/tmp/x"}, "backend 'x'")
    assert made == Options(betas=(0.0, 0.5), scale=2.0, cache=Path("/tmp/x"))
    assert type(made.scale) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"thread": 1}, r"backend 'x' has no option 'thread' \(did you mean 'threads'\?\); it has betas, cache, fast"),
        ({"threads": "4"}, r"backend 'x': threads is '4'; it must be a valid integer"),
        ({"threads": True}, r"threads is True; it must be a valid integer"),
        ({"threads": 1.5}, r"threads is 1.5; it must be a valid integer"),
        ({"threads": None}, r"threads is None; it must be a valid integer"),
        ({"fast": 1}, r"fast is 1; it must be a valid boolean"),
        ({"label": 3}, r"label is 3; it must be a valid string"),
        ({"mode": "fast"}, r"mode is 'fast'; it must be 'graph' or 'eager'"),
        ({"betas": [0.1, "x"]}, r"betas is \[0.1, 'x'\]; at \[1\] it must be a valid number"),
        ({"scale": object}, r"scale is <class 'object'>; it must be a float"),
        ({"threads": 0}, r"backend 'x': threads is 0; it must be 1 or more"),
        ({"label": "forbidden"}, r"backend 'x' refuses \{'label': 'forbidden'\}: not this label"),
    ],
)
def test_what_does_not_fit_is_named_with_what_is_allowed(values: Dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mapping(Options, values, "backend 'x'")


@dataclass(frozen=True)
class Checked:
    mode: str = "a"
    count: int = 1
    label: str = ""

    def __post_init__(self) -> None:
        if self.mode not in ("a", "b"):
            raise ConfigError(f"mode is {self.mode!r}; it must be 'a' or 'b'")
        if self.count < 1:
            raise ConfigError(f"count is {self.count!r}; it must be 1 or more")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": 3}, "x.mode is 3; it must be a valid string: 'a' or 'b'"),
        ({"mode": 3, "label": 4}, "x.mode is 3; it must be a valid string: 'a' or 'b'"),
        ({"count": 0.5}, "x.count is 0.5; it must be a valid integer: 1 or more"),
        ({"count": True}, "x.count is True; it must be a valid integer"),
        ({"count": "2"}, "x.count is '2'; it must be a valid integer"),
        ({"label": 4, "mode": "c"}, "x.label is 4; it must be a valid string"),
        ({"mod": 3, "mode": 3}, "there is no setting x.mod (did you mean 'mode'?); [x] has count, label, mode"),
    ],
)
def test_a_dataclass_that_checks_a_value_says_what_is_allowed_where_its_type_is_refused(
    values: Dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping(Checked, values, "[x]", "x.")
    assert str(caught.value) == message


def test_an_option_without_a_default_must_be_given() -> None:
    @dataclass(frozen=True)
    class Strict:
        device: str
        threads: int = 1

    with pytest.raises(ConfigError, match="backend 'x' needs a value for device; got threads"):
        from_mapping(Strict, {"threads": 2}, "backend 'x'")


def test_options_that_do_not_exist_are_refused_by_a_backend_without_any() -> None:
    @dataclass(frozen=True)
    class Empty:
        pass

    with pytest.raises(ConfigError, match="backend 'x' has no option 'threads'; it has no options"):
        from_mapping(Empty, {"threads": 2}, "backend 'x'")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"thread": 1}, "there is no setting train.thread (did you mean 'threads'?); [train] has betas, cache"),
        ({"threads": "4"}, "train.threads is '4'; it must be a valid integer"),
        ({"threads": 0}, "train.threads is 0; it must be 1 or more"),
        ({"label": "forbidden"}, "[train] refuses {'label': 'forbidden'}: not this label"),
    ],
)
def test_with_a_path_the_message_names_the_key(values: Dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping(Options, values, "[train]", "train.")
    assert str(caught.value).startswith(message)


class Plain:
    def __init__(self, count: int, other: "Union[Plain, Dict[str, Path], None]" = None, *, name: str = "x") -> None:
        if count < 1:
            raise ConfigError(f"Plain.count is {count}; it must be 1 or more")
        self.values = count, other, name


def test_a_plain_class_is_built_like_a_dataclass() -> None:
    assert from_mapping(Plain, {"count": 2, "name": "y"}, "Plain").values == (2, None, "y")
    for values, message in (
        ({}, "Plain needs a value for a.count; got none"),
        ({"count": 0}, "a.count is 0; it must be 1 or more"),
        ({"count": 1, "nam": 2}, "there is no setting a.nam (did you mean 'name'?); Plain has count, name, other"),
        ({"count": 1, "name": 2}, "a.name is 2; it must be a valid string"),
    ):
        with pytest.raises(ConfigError) as caught:
            from_mapping(Plain, values, "Plain", "a.")
        assert str(caught.value) == message


def test_an_object_of_a_class_in_a_union_and_a_type_that_cannot_be_checked_are_left_as_they_are() -> None:
    one = Plain(1)
    assert from_mapping(Plain, {"count": 1, "other": one}, "Plain").values[1] is one
    text = {"a": "b"}
    assert from_mapping(Plain, {"count": 1, "other": text}, "Plain").values[1] is text


def test_a_function_that_takes_any_name_is_given_all_of_them() -> None:
    def function(first: float, **others: int) -> None:
        pass

    assert arguments(function, {"first": 1, "more": "x"}, "function") == {"first": 1.0, "more": "x"}
