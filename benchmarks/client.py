"""A client for Unix sockets and TCP, run as a program; what it says is what `load.lua` says.

    python -m benchmarks.client ADDRESS CONNECTIONS SECONDS REQUEST

Each connection sends the request, waits for the whole answer, sends it again.  An answer is
whole when as many bytes have come as its head says; heads are read, not guessed.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


def connect(address: str) -> socket.socket:
    """Connect to ``host:port``, or to the path of a Unix socket."""
    if address.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
    else:
        host, _, port = address.rpartition(":")
        connection = socket.create_connection((host, int(port)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def whole_length(data: bytes) -> int | None:
    """Give the length of the answer that begins here; None while its head is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    found = _LENGTH.search(data, 0, end + 4)
    if found is None:
        raise ValueError(f"an answer without Content-Length: {data[:200]!r}")
    return end + 4 + int(found[1])


def run(address: str, connections: int, seconds: float, request: bytes) -> dict[str, float]:
    """Load it; give what happened."""
    clients = {each.fileno(): each for each in (connect(address) for _ in range(connections))}
    poller = select.epoll()
    sent_at = {}
    waiting: dict[int, bytes] = {}
    times: list[float] = []
    bad = 0
    clock = time.perf_counter
    for number, client in clients.items():
        poller.register(number, select.EPOLLIN)
        sent_at[number] = clock()
        client.send(request)
    began, used = clock(), time.process_time()
    ends = began + seconds
    now = began
    while now < ends:
        for number, _ in poller.poll(1.0):
            client = clients[number]
            data = waiting.pop(number, b"") + client.recv(65536)
            length = whole_length(data)
            if length is None or len(data) < length:
                waiting[number] = data
                continue
            now = clock()
            times.append(now - sent_at[number])
            bad += not data.startswith(b"HTTP/1.1 200 ")
            sent_at[number] = now
            client.send(request)
        now = clock()
    return summary(times, now - began, time.process_time() - used, bad)


def summary(times: list[float], seconds: float, cpu: float, bad: int) -> dict[str, float]:
    """Give what `load.lua` gives, and the time that the client took of its core."""
    said = {"requests": len(times), "seconds": seconds, "cpu": cpu, "status": bad}
    said |= dict.fromkeys(("connect", "read", "write", "timeout"), 0)
    times.sort()
    if times:
        said["p50"] = times[len(times) // 2] * 1e6
        said["p99"] = times[len(times) * 99 // 100] * 1e6
    return said


if __name__ == "__main__":
    where, how_many, how_long, what = sys.argv[1:]
    said = run(where, int(how_many), float(how_long), what.encode())
    print(json.dumps(said), file=sys.stderr)
