"""A contract fake of PopDist: what `poprun` tells each instance through the environment.

The real package reads variables of its own; here they are `POPDIST_CONTRACT_INSTANCE`, `_INSTANCES` and `_REPLICAS`.
"""

import os


def _read(name, default):
    return int(os.environ.get(f"POPDIST_CONTRACT_{name}", default))


def isPopdistEnvSet():
    """Say whether this process was started by poprun."""
    return "POPDIST_CONTRACT_INSTANCES" in os.environ


def getInstanceIndex():
    """Return the index of this instance."""
    return _read("INSTANCE", 0)


def getNumInstances():
    """Return the number of instances."""
    return _read("INSTANCES", 1)


def getNumTotalReplicas():
    """Return the number of replicas of all instances."""
    return _read("REPLICAS", getNumInstances())


def getNumLocalReplicas():
    """Return the number of replicas of this instance."""
    return getNumTotalReplicas() // getNumInstances()


def getReplicaIndexOffset():
    """Return the index of this instance's first replica."""
    return getInstanceIndex() * getNumLocalReplicas()
