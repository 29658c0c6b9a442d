"""PopTorch's enumerations: names and values."""

import enum

DataLoaderMode = enum.IntEnum("DataLoaderMode", "Sync Async AsyncRebatched", start=0)
SharingStrategy = enum.IntEnum("SharingStrategy", "SharedMemory FileSystem Fork ForkServer", start=0)
OutputMode = enum.IntEnum("OutputMode", "Final EveryN All Sum Default", start=0)
ConnectionType = enum.IntEnum("ConnectionType", "Always OnDemand Never", start=0)
HalfFloatCastingBehavior = enum.IntEnum(
    "HalfFloatCastingBehavior", "FloatDowncastToHalf HalfUpcastToFloat Default", start=0
)
ReductionType = enum.IntEnum("ReductionType", "Sum Mean NoReduction", start=0)
MeanReductionStrategy = enum.IntEnum("MeanReductionStrategy", "Running Post PostAndLoss", start=0)
SyncPattern = enum.IntEnum("SyncPattern", "Full SinglePipeline ReplicaAndLadder", start=0)
AutoStage = enum.IntEnum("AutoStage", "SameAsIpu AutoIncrement", start=0)
Liveness = enum.IntEnum(
    "Liveness", "AlwaysLive OffChipAfterFwd OffChipAfterFwdNoOverlap OffChipAfterEachPhase", start=0
)


class OverlapMode(enum.Enum):
    """When inputs and outputs are copied."""

    NoOverlap = "no_overlap"
    OverlapAccumulationLoop = "overlap_accumulation_loop"
    OverlapDeviceIterationLoop = "overlap_device_iteration_loop"
