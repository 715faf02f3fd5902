"""Log files: one object a line, one file a day, and no secret kept."""

from __future__ import annotations

import io
import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from ploinky.telemetry.events import TerminalLog
from ploinky.telemetry.logs import ACCESS, SERVER, DailyFile, JsonLog, at_level, prune
from ploinky.telemetry.reading import Follower, Wanted, for_people
from ploinky.telemetry.reading import tail as raw_tail
from ploinky.telemetry.redaction import Redactor

NOON = 1_700_049_600.0  # 2023-11-15T12:00:00Z
DAY = 86_400.0


def tail(directory: Path, lines: int) -> str:
    return "".join(f"{for_people(line)}\n" for line in raw_tail(directory, lines))


class Days:
    """A wall clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def days() -> Days:
    return Days()


@pytest.fixture
def file(tmp_path: Path, days: Days) -> Iterator[DailyFile]:
    file = DailyFile(days, tmp_path, SERVER)
    yield file
    file.close()


@pytest.fixture
def log(file: DailyFile) -> JsonLog:
    return JsonLog(file, "leader")


def written(tmp_path: Path, name: str = "server-2023-11-15.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]


def test_an_event_is_one_object_with_its_fields(log: JsonLog, tmp_path: Path) -> None:
    """Request and deployment can be searched for; a line end in a text starts no new line."""
    logger = Logger(namespace="ploinky.deployment", observer=log)
    logger.info("Deployed {deployment}\nnow", deployment="abc", request_id="r-1", release=3)
    (entry,) = written(tmp_path)
    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "level": "info",
        "process": "leader",
        "namespace": "ploinky.deployment",
        "message": "Deployed abc\nnow",
        "deployment": "abc",
        "request_id": "r-1",
        "release": 3,
    }


def test_a_failure_keeps_its_traceback(log: JsonLog, tmp_path: Path) -> None:
    """Why it failed can be found out afterwards."""
    try:
        raise LookupError("no such thing")
    except LookupError:
        Logger(namespace="x", observer=log).failure("It broke", Failure())
    (entry,) = written(tmp_path)
    assert (entry["level"], entry["message"], entry["error"]) == (
        "critical",
        "It broke",
        "no such thing",
    )
    assert "LookupError" in entry["traceback"]


class Unprintable:
    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (float("nan"), "nan"),
        (b"\xff", "\\xff"),
        ({"a": [1, (None, True)]}, {"a": [1, [None, True]]}),
        ("Zoë \ud800", "Zoë \ud800"),
        (2**100, 2**100),
        (Path("/tmp"), "/tmp"),
    ],
)
def test_any_value_can_be_logged(log: JsonLog, tmp_path: Path, value: Any, kept: Any) -> None:
    """What JSON cannot hold is kept as text; the line is valid JSON in every case."""
    log({"log_level": LogLevel.info, "log_format": "x", "value": value})
    assert written(tmp_path)[0]["value"] == kept


def test_what_cannot_be_printed_costs_no_line(log: JsonLog, tmp_path: Path) -> None:
    """An observer never raises: not for broken texts, not for values within themselves."""
    circle: list[Any] = []
    circle.append(circle)
    log({"log_format": "{thing}", "thing": Unprintable(), "circle": circle})
    log({})
    assert len(written(tmp_path)) == 2


def test_no_secret_reaches_the_file(tmp_path: Path, file: DailyFile) -> None:
    """Message, fields, names and tracebacks alike are masked."""
    secret = 'hunter"2\n'
    redactor = Redactor()
    redactor.add(secret)
    try:
        raise LookupError(secret)
    except LookupError:
        failure = Failure()
    logger = Logger(namespace="x", observer=JsonLog(file, "leader", redactor))
    logger.failure(
        "{a} {a!r}", failure, a=secret, deep={"b": [secret, "pk_" + "k" * 43], secret: 1}
    )
    TerminalLog(stream := io.StringIO(), redactor)({"log_format": "{a}", "a": secret})
    kept = (tmp_path / "server-2023-11-15.jsonl").read_text() + stream.getvalue()
    assert "hunter" not in kept
    assert "kkk" not in kept


def test_only_what_is_important_enough_is_kept(log: JsonLog, tmp_path: Path) -> None:
    """`logLevel: warn` leaves info out."""
    logger = Logger(namespace="x", observer=at_level(log, "warn"))
    logger.info("small")
    logger.warn("great")
    logger.error("greater")
    assert [entry["message"] for entry in written(tmp_path)] == ["great", "greater"]


def test_each_day_has_its_file(log: JsonLog, tmp_path: Path, days: Days) -> None:
    """Days are UTC; the next day's first line begins its file."""
    log({"log_format": "first"})
    days.now += DAY / 2 - 1
    log({"log_format": "still"})
    days.now += 1
    log({"log_format": "second"})
    assert [entry["message"] for entry in written(tmp_path)] == ["first", "still"]
    assert written(tmp_path, "server-2023-11-16.jsonl")[0]["message"] == "second"


def test_old_logs_go(tmp_path: Path) -> None:
    """Days over the retention are deleted, of both kinds of log; other files are left alone."""
    for day in ("12", "13", "14", "15"):
        (tmp_path / f"{SERVER}-2023-11-{day}.jsonl").touch()
        (tmp_path / f"{ACCESS}-2023-11-{day}.jsonl").touch()
    (tmp_path / "notes-2023-01-01.jsonl").touch()
    prune(tmp_path, 2, NOON)
    assert sorted(path.stem for path in tmp_path.iterdir()) == [
        *(f"access-2023-11-{day}" for day in ("13", "14", "15")),
        "notes-2023-01-01",
        *(f"server-2023-11-{day}" for day in ("13", "14", "15")),
    ]


def test_a_log_is_for_its_owner_alone(log: JsonLog, tmp_path: Path) -> None:
    """Other users of the machine do not read it."""
    log({"log_format": "x"})
    assert next(tmp_path.iterdir()).stat().st_mode & 0o077 == 0


def test_leader_and_workers_share_a_file(log: JsonLog, tmp_path: Path, days: Days) -> None:
    """Each line says whose it is; batches of access lines stand in a file of their own."""
    worker = DailyFile(days, tmp_path, SERVER)
    access = DailyFile(days, tmp_path, ACCESS)
    log({"log_format": "one"})
    JsonLog(worker, "worker-0")({"log_format": "two"})
    log({"log_format": "three"})
    access.append('{"status":200}\n{"status":404}\n')
    assert [entry["process"] for entry in written(tmp_path)] == ["leader", "worker-0", "leader"]
    assert len(written(tmp_path, "access-2023-11-15.jsonl")) == 2
    worker.close()
    access.close()


def test_a_disk_that_takes_nothing_stops_nobody(tmp_path: Path, days: Days) -> None:
    """Lines are lost while they cannot be written, and written again once they can."""
    logs = tmp_path / "logs"
    log = JsonLog(file := DailyFile(days, logs, SERVER), "leader")
    log({"log_format": "lost"})
    logs.mkdir()
    log({"log_format": "kept"})
    file.close()
    assert [entry["message"] for entry in written(logs)] == ["kept"]


def test_a_line_that_a_full_disk_cuts_does_not_spoil_the_next(
    tmp_path: Path, file: DailyFile
) -> None:
    """Once there is room again, each line is whole."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    file.append('{"first": 1}\n')
    (path,) = tmp_path.iterdir()
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, hard))
    try:
        file.append('{"cut": 2}\n')
        file.append('{"lost": 3}\n')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    file.append('{"next": 4}\n')
    assert path.read_text().splitlines() == ['{"first": 1}', '{"cut', '{"next": 4}']


def test_the_last_lines_come_from_as_many_days_as_it_takes(
    log: JsonLog, tmp_path: Path, days: Days
) -> None:
    """`logs 5` just after midnight shows yesterday's last ones, oldest first."""
    for number in range(2000):
        log({"log_format": "line {n} {padding}", "n": number, "padding": "x" * 40})
    days.now += DAY
    for number in (2000, 2001):
        log({"log_format": "line {n}", "n": number})

    def numbers(lines: int) -> list[int]:
        return [int(line.split()[4]) for line in tail(tmp_path, lines).splitlines()]

    assert numbers(5) == list(range(1997, 2002))
    assert numbers(1500) == list(range(502, 2002))
    assert numbers(9999) == list(range(2002))
    assert tail(tmp_path, 0) == ""


def test_who_follows_has_every_line_once(tmp_path: Path) -> None:
    """Whatever is written meanwhile, and if the last line was only half there at first."""
    today, tomorrow = (tmp_path / f"{SERVER}-2023-11-{day}.jsonl" for day in (15, 16))
    today.write_bytes(b"on")
    assert Follower(tmp_path, SERVER).before(9, Wanted()) == []
    today.write_bytes(b"one\ntwo\nthr")
    follower = Follower(tmp_path, SERVER)
    with today.open("ab") as file:
        file.write(b"ee\nfour\n")
    assert follower.before(9, Wanted()) == [b"one", b"two"]
    assert follower.before(1, Wanted()) == [b"two"]
    assert follower.added() == [b"three", b"four"]
    tomorrow.write_bytes(b"five\n")
    assert follower.before(9, Wanted()) == [b"one", b"two"]
    assert follower.added() == [b"five"]
    assert follower.added() == []


def test_people_read_time_level_and_message() -> None:
    """The foreground shows one plain line an event, and tracebacks below."""
    stream = io.StringIO()
    logger = Logger(namespace="x", observer=TerminalLog(stream, Redactor()))
    logger.warn("Podman does not answer")
    assert stream.getvalue()[8:] == " warn     Podman does not answer\n"
    try:
        raise LookupError("gone")
    except LookupError:
        logger.failure("It broke", Failure())
    assert "LookupError: gone" in stream.getvalue()


FORGED = "it broke\n2023-11-15T12:00:00.000Z info  leader: all is well\x1b[2J\r"


def test_nobodys_text_passes_for_an_event(log: JsonLog, tmp_path: Path) -> None:
    """Nor commands a terminal: in what is read of the files, and in the foreground."""
    stream = io.StringIO()
    for observer in (log, TerminalLog(stream, Redactor())):
        try:
            raise LookupError(FORGED)
        except LookupError:
            Logger(namespace="x", observer=observer).failure("{said}", Failure(), said=FORGED)
    for shown in (tail(tmp_path, 10), stream.getvalue()):
        first, *more = shown.splitlines()
        assert first.endswith("it broke")
        assert any("all is well" in line for line in more)
        assert all(line.startswith("    ") for line in more)
        assert not {"\x1b", "\r"} & set(shown)


def test_a_closed_terminal_stops_nothing() -> None:
    """A server whose terminal went away goes on."""
    stream = io.StringIO()
    stream.close()
    TerminalLog(stream, Redactor())({"log_format": "x"})
