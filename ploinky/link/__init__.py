"""Leader and workers: route tables one way, acknowledgements and counts the other.

The leader owns ``run/link.sock``; each worker keeps one connection to it and comes back whenever
it is lost.  The protocol is AMP (`ploinky.link.wire`).  This room knows neither how processes
are started (`ploinky.processgroup`) nor how requests are served (`ploinky.routing`).
"""

from ploinky.link.leader import ITally, IWorkerSlots, WorkerLink, WorkerLinks
from ploinky.link.local import LocalWorkerGroup
from ploinky.link.outbox import Outbox
from ploinky.link.wire import Identity, NotListening, Peer
from ploinky.link.worker import ICorridor, LeaderLink

__all__ = [
    "ICorridor",
    "ITally",
    "IWorkerSlots",
    "Identity",
    "LeaderLink",
    "LocalWorkerGroup",
    "NotListening",
    "Outbox",
    "Peer",
    "WorkerLink",
    "WorkerLinks",
]
