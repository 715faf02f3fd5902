"""Wrong logins, so many a second, until ended: ``python -m benchmarks.guesses URL RATE``.

Prints ``held up`` once the server has begun to say 429.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from urllib.parse import urlsplit


def guess(url: str, rate: float) -> None:
    """Try another key every so often; each is wrong."""
    connection = http.client.HTTPConnection(str(urlsplit(url).netloc), timeout=30)
    number, told, due = 0, False, time.monotonic()
    while True:
        number += 1
        login = {"command": "login", "params": [f"pk_{number:043}"]}
        connection.request("POST", "/auth", json.dumps(login))
        answer = connection.getresponse()
        answer.read()
        if answer.status == 429 and not told:
            told = True
            print("held up", flush=True)
        due += 1 / rate
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    guess(sys.argv[1], float(sys.argv[2]))
