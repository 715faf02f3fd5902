"""The engines' codecs of the frame wire, held to the vectors that the server's is held to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
VECTORS = json.loads((HERE.parent / "frames.json").read_text())
PROGRAMS = {
    "node": ["node", str(HERE / "codec.js")],
    "python": [sys.executable, str(HERE / "codec.py")],
}
TYPES = {"OPEN": 1, "CANCEL": 2, "CREDIT": 3}


def to_write(vector: dict[str, Any]) -> dict[str, Any]:
    """Say what an engine must write for a vector."""
    wanted = {"type": vector["name"].split(" ")[0], "id": vector["id"]}
    if "length" in vector:
        wanted["begin"] = [vector["toEvents"], vector["length"]]
    for field in ("result", "body", "data"):
        if field in vector:
            wanted["payload"] = vector[field]
    if "status" in vector:
        wanted["status"] = vector["status"]
    return wanted


@pytest.fixture(params=[pytest.param("node", marks=pytest.mark.program("node")), "python"])
def codec(request: pytest.FixtureRequest) -> Any:
    """What an engine's codec made of the vectors."""
    _, *others = VECTORS["from_agent"]
    given = {
        "preface": VECTORS["preface"],
        "from_server": [vector["hex"] for vector in VECTORS["from_server"]],
        "write": [to_write(vector) for vector in others],
    }
    ran = subprocess.run(
        PROGRAMS[request.param], input=json.dumps(given), capture_output=True, text=True, check=True
    )
    return json.loads(ran.stdout)


def test_engine_reads_what_the_server_writes(codec: Any) -> None:
    """In one piece, and byte by byte."""
    vectors = VECTORS["from_server"]
    assert len(codec["read"]) == 2 * len(vectors)
    for vector, read in zip(vectors * 2, codec["read"], strict=True):
        assert (read["type"], read["id"]) == (TYPES[vector["name"].split(" ")[0]], vector["id"])
        assert read.get("credit") == vector.get("credit")
        if "open" in vector:
            opened = dict(read["open"], task=read["open"]["id"], params=read["open"]["text"])
            assert {name: opened[name] for name in vector["open"]} == vector["open"]


def test_engine_writes_what_the_server_reads(codec: Any) -> None:
    """Byte by byte, all frames in one piece."""
    assert codec["written"] == "".join(vector["hex"] for vector in VECTORS["from_agent"])
