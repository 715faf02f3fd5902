"""A fuzzer for the gateway: ``python -m tests.fuzz --seconds 600``.

Bytes of clients and of agents are made from the corpus of `tests.routing.corpus` by mutation, and
go through the real connection, gateway and upstream in memory.  Every trial follows from its
number, so what was found is repeated with ``--only NUMBER``.
"""
