"""Runs the Python engine's codec over test vectors; see codec.js, which does the same."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "agentcore", "python"))

from agentcore import frames  # type: ignore[import-not-found]

given = json.load(sys.stdin)
read = []


def take(found: Any) -> None:
    for kind, number, payload in found:
        entry: dict[str, Any] = {"type": kind, "id": number}
        if kind == frames.OPEN:
            opened = frames.read_open(payload)
            entry["open"] = {
                "id": opened.task_id,
                "command": opened.command,
                "user": opened.user,
                "requestId": opened.request_id,
                "deadline": opened.deadline,
                "toEvents": opened.to_events,
                "text": opened.raw.decode(),
            }
        if kind == frames.CREDIT:
            entry["credit"] = frames.read_credit(payload)
        read.append(entry)


stream = given["preface"].encode() + b"".join(map(bytes.fromhex, given["from_server"]))
take(frames.FrameReader().feed(stream))
slow = frames.FrameReader()
for byte in stream:
    take(slow.feed(bytes([byte])))

written = frames.hello()[len(frames.PREFACE) :]
for wanted in given["write"]:
    kind, number = getattr(frames, wanted["type"]), wanted["id"]
    payload = wanted.get("payload", "").encode()
    if "begin" in wanted:
        written += frames.begin(number, *wanted["begin"])
    elif "status" in wanted:
        written += frames.error(number, wanted["status"], payload)
    else:
        written += frames.frame(kind, number, payload)
print(json.dumps({"read": read, "written": written.hex()}))
