"""The leader's sockets and worker processes.

The public port is opened once per worker with ``SO_REUSEPORT``, and the leader keeps every socket:
what waits before a worker that dies is served by the next one in its slot.  Workers outlive a
leader that crashes, and the next leader takes their sockets and processes over.

It hears from the workers through `ploinky.link` and must not know what they serve.
"""

from ploinky.processgroup.group import ProcessGroup, WorkerCommand
from ploinky.processgroup.lock import LeaderLock
from ploinky.processgroup.processes import COULD_NOT_BOOT, LISTENING_DESCRIPTOR
from ploinky.processgroup.records import WorkerRecords

__all__ = [
    "COULD_NOT_BOOT",
    "LISTENING_DESCRIPTOR",
    "LeaderLock",
    "ProcessGroup",
    "WorkerCommand",
    "WorkerRecords",
]
