"""Everything about an IPU that is not part of training: one frozen value, the same in Python and in TOML."""

import functools
import inspect
import math
from dataclasses import dataclass, field, fields
from typing import Any, Dict, Mapping, Optional, Type, TypeVar

from snn_core.errors import ConfigError

__all__ = ["IpuOptions"]

_CHOICES: Dict[str, "tuple[str, ...]"] = {
    "loader": ("sync", "async", "async_rebatched"),
    "recomputation": ("default", "none", "standard", "norm_only", "pipeline", "all"),
    "partials": ("float32", "float16"),
    "accumulator": ("float32", "float16"),
}
_FOLDERS = ("cache", "executables")
# the device's loss is float32, whose largest power of two this is
_LARGEST_SCALING = 2.0**127
_SCALINGS = "a power of two from 1 up to 2**127, such as 1024.0: it rounds nothing"

T = TypeVar("T")


def _keyword_only(kind: Type[T]) -> Type[T]:
    """Let a dataclass be made by keywords alone, as `kw_only` does from Python 3.10 on."""
    made = kind.__init__
    parameters = inspect.signature(made).parameters.values()
    named = [p if p.name == "self" else p.replace(kind=p.KEYWORD_ONLY) for p in parameters]

    @functools.wraps(made)
    def __init__(self: T, **options: Any) -> None:
        made(self, **options)

    __init__.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
    kind.__init__ = __init__  # type: ignore[assignment]
    return kind


@_keyword_only
@dataclass(frozen=True)
class IpuOptions:
    """How a program uses IPUs, by keyword. Raises ConfigError for a value of another type or out of range.

    replicas: copies of the model, each on IPUs of its own; an optimiser step's micro-batches (`accumulation`) are
    shared out among them.   stages: which IPU the layers from a module on run on, by the module's name, such as
    {"2": 0, "4": 1}; several make a pipeline.   auto_round_ipus: take more IPUs than are used, up to a power of two.
    evaluation_iterations: batches that one call evaluates (default 1, or as many as there are stages).
    share_ipus: training and evaluation take turns on the same IPUs; False gives each its own.
    recomputation: what the backward pass computes again to save memory: "default" is poptorch's choice.
    available_memory: the share of an IPU's memory, above 0 up to 1, that a product may use while it runs; one number or
    one for each IPU ("IPU0").   stochastic_rounding: of float16 results.   partials: the type of products' sums.
    accumulator: the type of summed gradients.   loss_scaling: a power of two, 1 or more, that multiplies the loss, so
    that small float16 gradients are kept.   automatic_loss_scaling: let poptorch find it.
    floating_point_exceptions: stop at a NaN or an overflow.
    cache: the folder that keeps compiled executables, for the next process.   executables: the folder from which
    `training.poptorch` and `evaluation.poptorch` are loaded instead of being compiled.
    offline: compile without an IPU, for IPUs of this version (1 or 2); such a program can be exported, not run.
    ipu_model: simulate one on the host, slowly.   loader: "sync", "async" reads ahead in a process of its own,
    "async_rebatched" too, in batches as small as its workers like.   workers: processes that read the dataset.
    popdist: `poprun` started several of these processes, which train one model together.
    progress_bar: show poptorch's own while it compiles.
    """

    replicas: int = 1
    stages: Mapping[str, int] = field(default_factory=dict)
    auto_round_ipus: bool = False
    evaluation_iterations: Optional[int] = None
    share_ipus: bool = True
    recomputation: str = "default"
    available_memory: Any = None
    stochastic_rounding: bool = False
    partials: str = "float32"
    accumulator: str = "float32"
    loss_scaling: float = 1.0
    automatic_loss_scaling: bool = False
    floating_point_exceptions: bool = False
    cache: Optional[str] = None
    executables: Optional[str] = None
    offline: Optional[int] = None
    ipu_model: bool = False
    loader: str = "sync"
    workers: int = 0
    popdist: bool = False
    progress_bar: bool = False

    def __post_init__(self) -> None:
        for name, least in (("replicas", 1), ("workers", 0), ("evaluation_iterations", 1)):
            _require_count(name, getattr(self, name), least, optional=name == "evaluation_iterations")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                _refuse(name, getattr(self, name), f"one of {', '.join(map(repr, allowed))}")
        for option in fields(self):
            if option.type is bool and not isinstance(getattr(self, option.name), bool):
                _refuse(option.name, getattr(self, option.name), "True or False")
        for name in _FOLDERS:
            folder = getattr(self, name)
            if folder is not None and not (isinstance(folder, str) and folder):
                _refuse(name, folder, "the path of a folder as text, or None")
        if not _is_scaling(self.loss_scaling):
            _refuse("loss_scaling", self.loss_scaling, _SCALINGS)
        if self.offline is not None and (not _is_whole(self.offline) or self.offline not in (1, 2)):
            _refuse("offline", self.offline, "the version of the IPU, 1 or 2, or None to run on one")
        object.__setattr__(self, "loss_scaling", float(self.loss_scaling))
        object.__setattr__(self, "stages", _stages(self.stages))
        object.__setattr__(self, "available_memory", self._memory())
        self._check_stages()
        self._check_together()

    @property
    def ipus(self) -> int:
        """IPUs that one replica uses."""
        return 1 + max(self.stages.values(), default=0)

    @property
    def iterations(self) -> int:
        """Batches that one call evaluates on each replica; a pipeline needs one for each stage."""
        return self.ipus if self.evaluation_iterations is None else self.evaluation_iterations

    def _memory(self) -> Optional[Dict[str, float]]:
        given = self.available_memory
        if given is None:
            return None
        shares = given if isinstance(given, Mapping) else {f"IPU{ipu}": given for ipu in range(self.ipus)}
        names = [f"IPU{ipu}" for ipu in range(self.ipus)]
        fits = all(name in names and _is_number(share) and 0 < share <= 1 for name, share in shares.items())
        if not fits or not shares:
            _refuse("available_memory", given, f"a number above 0 up to 1, or one for each of {', '.join(names)}")
        return {name: float(share) for name, share in shares.items()}

    def _check_stages(self) -> None:
        begun = sorted(set(self.stages.values()))
        if begun != list(range(len(begun))):
            raise ConfigError(f"stages is {self.stages}; it must use IPUs 0, 1, 2, ..., with none left out")
        used = self.replicas * self.ipus
        if used & (used - 1) and not self.auto_round_ipus and not self.popdist:
            raise ConfigError(
                f"replicas {self.replicas} x {self.ipus} IPUs each are {used} IPUs, and IPUs come in powers of two; "
                "change replicas or stages, or set auto_round_ipus=True to reserve more than are used"
            )
        if self.iterations < self.ipus:
            raise ConfigError(
                f"evaluation_iterations is {self.iterations} and the pipeline has {self.ipus} stages; it needs that "
                "many batches at least: raise evaluation_iterations, or leave it unset"
            )

    def _check_together(self) -> None:
        if self.popdist and self.replicas != 1:
            raise ConfigError(
                f"replicas is {self.replicas} and popdist is True; poprun decides how many replicas there are: "
                "leave replicas unset and give poprun --num-replicas"
            )
        if self.offline is not None and self.ipu_model:
            raise ConfigError(
                "offline and ipu_model exclude each other; the one compiles for an IPU, the other simulates it"
            )
        if self.offline is not None and self.executables is not None:
            raise ConfigError("offline compiles and executables loads what was compiled; set one of them")
        if self.loader == "async_rebatched" and self.workers < 1:
            raise ConfigError("loader is 'async_rebatched' and workers is 0; it needs workers=1 or more")


def _require_count(name: str, got: Any, least: int, optional: bool) -> None:
    if optional and got is None:
        return
    if not _is_whole(got) or got < least:
        _refuse(name, got, f"a whole number of {least} or more")


def _stages(given: Any) -> Dict[str, int]:
    fits = isinstance(given, Mapping) and all(
        isinstance(name, str) and _is_whole(ipu) and ipu >= 0 for name, ipu in given.items()
    )
    if not fits:
        _refuse("stages", given, 'names of modules with the numbers of their IPUs, from 0: {"2": 0, "4": 1}')
    return dict(given)


def _is_scaling(value: Any) -> bool:
    """Whether it is a power of two that float32 has, and no less than 1: gradients divided by less overflow to NaN."""
    return _is_number(value) and 1 <= value <= _LARGEST_SCALING and math.frexp(value)[0] == 0.5


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _refuse(name: str, got: Any, allowed: str) -> None:
    raise ConfigError(f"{name} is {got!r}; it must be {allowed}")
