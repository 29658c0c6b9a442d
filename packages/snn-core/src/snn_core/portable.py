"""What of a program's state another kind of device can use: the weights always, the rest if it is of its own kind."""

import warnings
from typing import Any, Dict, Mapping

from snn_core.errors import CheckpointError

__all__ = ["readable_by", "tagged"]

_TAG = "format"


def tagged(state: Mapping[str, Any], kind: str) -> Dict[str, Any]:
    """`Program.state_dict()` with a note that its optimiser and random numbers can be read by programs of `kind` alone.

    What has no note is torch's.
    """
    return {**state, _TAG: kind}


def readable_by(kind: str, state: Mapping[str, Any]) -> bool:
    """Whether a program of `kind` can use the optimiser's state and random numbers in `state`; else warn of the loss.

    Weights and controls move between all kinds. Raises CheckpointError for a state without "optimizer" or "rng".
    """
    for part in ("optimizer", "rng"):
        if part not in state:
            raise CheckpointError(f"the saved state has no {part!r}; it has {sorted(state)}: give a whole checkpoint")
    saved_by = state.get(_TAG, "torch")
    if saved_by == kind:
        return True
    warnings.warn(
        f"the checkpoint was saved by another kind of device ({saved_by!r}, here {kind!r}): weights and controls are "
        "taken over; what the optimizer had accumulated (momentum, moments, their step count) and the position of the "
        "random numbers are lost and start anew, so the run does not go on bit for bit",
        UserWarning,
        stacklevel=3,
    )
    return False
