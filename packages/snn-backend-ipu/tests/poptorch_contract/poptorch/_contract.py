"""What a test can say about the pretended machine: its IPUs, and faults that happen at a named stage.

Nothing here exists in PopTorch. Code under test never touches it.
"""

import contextlib
import os
import weakref

from ._errors import compiler_error

STAGES = ("move", "trace", "compile", "attach", "execute", "exchange", "save", "load")
# what needs the device itself; "exchange" moves weights, an optimiser's state or random numbers
ON_DEVICE = ("attach", "execute", "exchange")

# held: the IPUs of each attached executable; one that is gone holds none.
_machine = {"ipus": 0, "version": 2, "held": weakref.WeakKeyDictionary()}
_faults = []
_gone = []
# The class of each model that was traced, so that a test can count them.
traces = []


@contextlib.contextmanager
def hardware(ipus, version=2):
    """Pretend that the machine has so many IPUs; without it there are none, and only the IPU Model can be used."""
    before = dict(_machine)
    _machine.update(ipus=ipus, version=version, held=weakref.WeakKeyDictionary())
    try:
        yield
    finally:
        _machine.update(before)


def inject(stage, error, after=0):
    """Raise `error` when `stage` is reached, once, after it was passed `after` times. Stages: STAGES."""
    if stage not in STAGES:
        raise ValueError(f"no stage {stage!r}; it has {', '.join(STAGES)}")
    _faults.append([stage, error, after, False])


@contextlib.contextmanager
def losing(error, after=None):
    """Lose the device now, or in the call after `after` more: what needs it raises `error` to the block's end."""
    if after is None:
        _gone.append(error)
    else:
        _faults.append(["execute", error, after, True])
    try:
        yield
    finally:
        reset()


def reset():
    """Forget the faults that did not happen, the devices that were lost and the traces that did."""
    _faults.clear()
    _gone.clear()
    traces.clear()


def reach(stage):
    """Raise what was injected for this stage, if its time has come."""
    if _gone and stage in ON_DEVICE:
        raise _gone[0]
    for fault in _faults:
        if fault[0] == stage:
            if fault[2] == 0:
                _faults.remove(fault)
                if fault[3]:
                    _gone.append(fault[1])
                raise fault[1]
            fault[2] -= 1
            return


def hardware_version(ipus=1):
    """Return the version of the IPUs, or 0 where there are fewer than asked."""
    return _machine["version"] if 0 < ipus <= _machine["ipus"] else 0


def uses_ipu_model(options):
    """Say whether the options, or else the environment, ask for the IPU Model."""
    if options.exists("use_model"):
        return options.use_model
    return os.environ.get("POPTORCH_IPU_MODEL", "0") not in ("", "0")


def reserved(options, ipus):
    """Check that there is a device with so many IPUs and return how many are reserved: PopTorch takes powers of two.

    None are reserved of the IPU Model, and none for an offline target.
    """
    rounded = 1 << (ipus - 1).bit_length()
    if rounded != ipus and not options.auto_round_num_ipus:
        raise compiler_error(
            f"The model specifies the use of {ipus} IPUs, however PopTorch must reserve a minimum of {rounded} in "
            "order to allow the model to run. Set poptorch.Options().autoRoundNumIPUs(True)."
        )
    offline = options.exists("ipu_version")
    if uses_ipu_model(options):
        if offline:
            raise compiler_error("The offline IPU target cannot be used with the IPU Model")
        return 0
    if offline:
        return 0
    if not hardware_version(rounded):
        raise compiler_error(f"Failed to acquire {rounded} IPU(s)")
    return rounded


def acquire(executable, ipus):
    """Give IPUs to an executable, unless others hold them. ipus: as `reserved` says."""
    held = _machine["held"]
    if ipus and ipus > _machine["ipus"] - sum(held.values()):
        raise compiler_error(f"Failed to acquire {ipus} IPU(s)")
    held[executable] = ipus


def release(executable):
    """Take its IPUs back from an executable."""
    _machine["held"].pop(executable, None)
