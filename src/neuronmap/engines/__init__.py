"""Where work runs: in this process, or by a pool of workers on the hosts of a Ray cluster.

The room knows nothing of what the work is: :class:`Work` is opened once in each worker and then asked for one shard after the other. Ray is
imported only when it is asked for.
"""

from neuronmap.engines.choice import EngineName, EngineSettings, running
from neuronmap.engines.shards import cut, slowest
from neuronmap.engines.work import Advance, Pool, Shared, Work, Worker

__all__ = ["Advance", "EngineName", "EngineSettings", "Pool", "Shared", "Work", "Worker", "cut", "running", "slowest"]
