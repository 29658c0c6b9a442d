"""Options under poprun: replicas and processes are poprun's."""

from poptorch._options_parts import _DistributedOptions
from poptorch.options import Options as _Options

import popdist


def _refused(name):
    def refuse(self, *args, **kwargs):
        raise RuntimeError(f"Cannot call `{name}` with popdist.poptorch.Options")

    return refuse


class _Distributed(_DistributedOptions):
    def __init__(self):
        super(_DistributedOptions, self).__init__(
            num_distributed_processes=popdist.getNumInstances(), distributed_process_id=popdist.getInstanceIndex()
        )

    disable = _refused("Distributed.disable")
    setEnvVarNames = _refused("Distributed.setEnvVarNames")
    configureProcessId = _refused("Distributed.configureProcessId")


class Options(_Options):
    """PopTorch's options for one instance."""

    def __init__(self, ipus_per_replica=1):
        super().__init__()
        self.set(replication_factor=popdist.getNumLocalReplicas())
        self._distributed = _Distributed()
        self._ipus_per_replica = ipus_per_replica

    useIpuId = _refused("useIpuId")
    replicationFactor = _refused("replicationFactor")
