"""What is measured, at which sizes, and who takes part."""

from dataclasses import dataclass, replace
from typing import Any, Dict, List, Mapping, Sequence, Tuple

__all__ = [
    "BASE",
    "CASES",
    "LABELS",
    "NEURONS",
    "Case",
    "cases",
    "from_the_start",
    "seed_settings",
    "steps_and_memory",
]

LABELS: Dict[str, Tuple[str, str]] = {
    "cpu": ("ours", "cpu"),
    "eager": ("ours", "eager"),
    "hooks": ("ours", "hooks"),
    "snnTorch": ("snntorch", "eager"),
    "snnTorch, compiled": ("snntorch", "compile"),
    "SpikingJelly": ("spikingjelly", "eager"),
    "SpikingJelly, compiled": ("spikingjelly", "compile"),
    "Norse": ("norse", "eager"),
    "Norse, compiled": ("norse", "compile"),
    "sinabs": ("sinabs", "eager"),
    "sinabs, compiled": ("sinabs", "compile"),
}
"""Columns of the table: the module of sides/ and its mode."""

BASE = "cpu"
EVERYBODY = tuple(label for label in LABELS if label != "hooks")
UNCOMPILED = tuple(label for label in EVERYBODY if "compiled" not in label)
ONE_COMPILED = (*UNCOMPILED, "snnTorch, compiled")
"""With the compiled side that is the fastest, or is so after the least time."""
CHUNK = 25
"""Steps that are compiled at once where there are 500, which would take a compiler many minutes."""

CASES = {
    "a": "seed network, one training step",
    "b": "Linear(N, N) + LIF, forward and backward",
    "c": "the neuron alone, share of the copy bandwidth",
    "d": "spiking VGG, one training step",
    "e": "time and memory against the number of steps",
    "f": "from the start of the process, and without its imports, to the end of the first step",
    "g": "what counting synaptic operations adds to a training step",
}

NEURONS = (
    "IF",
    "LIF",
    "LIF, learnt",
    "LIF, zero",
    "LI",
    "ParametricLIF",
    "Lapicque",
    "Synaptic",
    "Alpha",
    "ALIF",
    "SigmaDelta",
    "ExpLIF",
    "QIF",
    "AdEx",
    "Izhikevich",
    "SlidingPSN",
    "Recurrent, one to one",
)
"""This project's neurons, as sides/ours.py names them. The one that all libraries have is LIF."""


@dataclass(frozen=True)
class Case:
    """One row of measurements. labels: who takes part, of those that the run has."""

    letter: str
    title: str
    benchmark: str
    settings: Mapping[str, Any]
    labels: Sequence[str]
    turns: int

    def uncompiled(self) -> "Case":
        """The same without the compiled sides."""
        return replace(self, labels=[label for label in self.labels if label in UNCOMPILED or label == "hooks"])


def seed_settings(quick: bool, **changed: Any) -> Dict[str, Any]:
    sizes = {"steps": 5, "batch": 8, "hidden": 50} if quick else {"steps": 25, "batch": 128, "hidden": 1000}
    return {**sizes, "beta": 0.9, "lr": 1e-3, "by_layer": False, **changed}


def cases(quick: bool, most: bool) -> List[Case]:
    """The cases in which sides take turns at one size: a, b, c, d and g.

    quick: sizes that only show that all works.   most: for the run's largest number of threads, with which b has its
    larger size and the compiled sides take part, which need minutes to prepare.
    """
    turns = 2 if quick else 11
    # Norse and sinabs are cut into many small graphs, and stay as they are or become slower: the first case shows it
    found = [
        Case("a", "seed network", "seed", seed_settings(quick), EVERYBODY, turns),
        Case(
            "a", "seed network, peers tuned by hand", "seed", seed_settings(quick, by_layer=True), ONE_COMPILED, turns
        ),
    ]
    for size in (32,) if quick else (512, 2048) if most else (512,):
        chunk = 10 if quick else CHUNK
        settings = {"steps": 20 if quick else 500, "shape": [16, size], "beta": 0.9, "chunk": chunk}
        few = 2 if quick else 7 if size == 512 else 3
        found.append(Case("b", f"Linear({size}, {size}) + LIF", "layer", settings, ONE_COMPILED, few))
    channels = [8, 0, 16] if quick else [64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 512]
    vgg = {"steps": 2 if quick else 4, "batch": 2 if quick else 8, "channels": channels, "beta": 0.5, "lr": 0.01}
    taking = (*ONE_COMPILED, "SpikingJelly, compiled")
    found.append(Case("d", "spiking VGG", "vgg", vgg, taking, 2 if quick else 7))
    counting = ("cpu", "eager", "hooks", "sinabs")
    found.append(Case("g", "sinabs' tutorial", "synops", {"batch": 8 if quick else 512}, counting, 2 if quick else 7))
    found += _neurons(quick)
    # where nothing is to be concluded, one case shows which compilers work
    return [case if most and (case is found[0] or not quick) else case.uncompiled() for case in found]


def _neurons(quick: bool) -> List[Case]:
    shapes = {4: [8, 100]} if quick else {16: [128, 2000], 500: [16, 512]}
    found = []
    for kind in NEURONS:
        for steps, shape in shapes.items():
            settings = {"steps": steps, "shape": shape, "kind": kind, "chunk": min(CHUNK, steps)}
            labels = ONE_COMPILED if kind == "LIF" else (BASE,)
            found.append(Case("c", kind, "neuron", settings, labels, 2 if quick else 7))
    return found


def steps_and_memory(quick: bool) -> List[Case]:
    """The seed network at growing numbers of steps: in this order, since a process's peak of memory only grows."""
    counts = (5, 10) if quick else (10, 30, 100, 300, 1000)
    return [
        Case(
            *("e", f"seed network, T = {steps}", "seed", seed_settings(quick, steps=steps, batch=4 if quick else 32)),
            *(UNCOMPILED, 2),
        )
        for steps in counts
    ]


def from_the_start(quick: bool) -> Sequence[str]:
    """Who is started anew, with empty caches and with filled ones; more compiled sides would take a minute each way."""
    return UNCOMPILED if quick else (*UNCOMPILED, "snnTorch, compiled", "Norse, compiled")
