"""The sh engine's JSON reader agrees with Python's, on any awk."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess

import pytest

from tests.agentcore.running import ROOT

PROGRAMS = ROOT / "agentcore" / "sh"
AWKS = [["mawk"], ["busybox", "awk"], ["gawk"], ["original-awk"]]
INSTALLED = [awk for awk in AWKS if shutil.which(awk[0])]

GOOD = [
    b"null", b" true ", b"\r\n\tfalse", b"0", b"-0", b"-1.5e+10", b"1E5", b'""', b'"a\xc3\xa9\xf0\x9f\x98\x80"', b"[]", b"[ ]", b"{}",
    b"[1,[2,[3]],{}]", b'{"a":{"b":[]},"":null}', b'"\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041"', b'"\\ud83d\\ude00"', b'"\\ud800"',
    b'"\x7f"', b"[" * 400 + b"]" * 400, b'"' + b"x" * 5000 + b'"', b"12345678901234567890",
]  # fmt: skip
BAD = [
    b"", b" ", b"nul", b"True", b"truefalse", b"+1", b"01", b"1.", b".5", b"-", b"1e", b"0x1", b"NaN", b"'a'", b'"a', b'"\\x"', b'"\\u12g4"',
    b'"\n"', b'"\x00"', b'"\xff"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xe2\x82"', b"[1,]", b"[,1]", b"[1 2]", b"[1",
    b"]", b'{"a"}', b'{"a":}', b'{"a":1,}', b"{a:1}", b'{"a":1]', b"[1}", b"1 1", b"\xef\xbb\xbf1", b"{1:2}", b"\x00", b"[1]\x00", b"[" * 100_000,
]  # fmt: skip


@pytest.fixture(params=INSTALLED, ids=lambda awk: awk[0])
def awk(request: pytest.FixtureRequest) -> list[str]:
    """Each awk that this machine has."""
    return list(request.param)


def run(awk: list[str], program: str, raw: bytes) -> subprocess.CompletedProcess[bytes]:
    numbers = " ".join(str(byte) for byte in raw).encode()
    # As od prints them: sixteen to a line.
    words = numbers.split()
    lines = b"\n".join(b" ".join(words[i : i + 16]) for i in range(0, len(words), 16))
    command = [*awk, "-f", str(PROGRAMS / "json.awk"), "-f", str(PROGRAMS / f"{program}.awk")]
    return subprocess.run(
        command,
        input=lines + b"\n" if lines else b"",
        capture_output=True,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        check=False,
    )


def test_json_is_told_from_what_is_none(awk: list[str]) -> None:
    """Strictly (RFC 8259), and UTF-8 only."""
    assert [raw for raw in GOOD if run(awk, "is_json", raw).returncode != 0] == []
    assert [raw for raw in BAD if run(awk, "is_json", raw).returncode == 0] == []


def test_params_become_words_of_the_shell(awk: list[str]) -> None:
    """Strings decoded, the rest as it was written."""
    texts = ["", "it's", "''", "a\nb\n", "é\u20ac😀", '"\\', "$(id)", "\x7f\x01", "x" * 3000]
    raws = ["1.50", '{"a": [1, "q\\u00e9"]}', "null", "[ ]", "-1e5"]
    params = [json.dumps(text) for text in texts] + raws
    params.append(json.dumps("é😀", ensure_ascii=False))
    code = run(awk, "task", f'{{"command": "c", "params": [{",".join(params)}]}}'.encode())
    script = code.stdout + b'\nprintf "%s\\0" "$command" "$@"'
    words = subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout
    expected = ["c", *texts, *raws, "é😀"]
    assert words.decode().split("\0")[:-1] == expected


def test_nothing_in_a_task_is_run(awk: list[str]) -> None:
    """Every word that leaves for the shell is quoted."""
    evil = "'; touch /tmp/evil; '"
    for task in (
        {"command": evil},
        {"command": "c", "deadline": evil},
        {"command": "c", "id": evil},
        {evil: evil, "command": "c", "params": [evil]},
    ):
        code = run(awk, "task", json.dumps(task).encode()).stdout.decode()
        assert all("=" in word or word in ("set", "--", evil) for word in shlex.split(code))


def test_output_becomes_a_json_string(awk: list[str]) -> None:
    """Whatever its bytes are; the line ends that close it are dropped."""
    for raw in (
        b"",
        b"\n\n",
        b"a\n\nb\n\n",
        b'"\\/\b\f\r\t\x00\x1f\x7f',
        b"\xc3\xa9\xf0\x9f\x98\x80",
        b"\xff\xc3",
        b"\xe2\x82(\x80",
        b"\xed\xa0\x80",
    ):
        printed = json.loads(run(awk, "quote", raw).stdout)
        assert printed.replace("\ufffd", "") == raw.decode(errors="ignore").rstrip("\n")
        assert ("\ufffd" in printed) == (
            b"\xff" in raw or b"\xe2\x82(" in raw or b"\xed\xa0" in raw
        )
