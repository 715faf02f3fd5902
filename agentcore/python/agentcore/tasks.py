"""What a task is on the wire, and what can go wrong with one.

Raw bytes enter, values leave.  Knows nothing of HTTP, files or handlers.
"""

from __future__ import annotations

import itertools
import os
import re
from json import dumps, loads  # by name: whatever handlers put in their place
from typing import Any, Callable, Dict, List, NoReturn, Optional

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
MAX_NAME_LENGTH = 200


class Failure(Exception):
    """The way a call fails: what the caller is told.

    Attributes:
        status: The HTTP status.
        code: For programs.
        message: For people.
        details: Something that can be written as JSON, or None.
    """

    def __init__(self, status: int, code: str, message: str, details: Any = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details

    def fields(self) -> Dict[str, Any]:
        """Give the failure as JSON has it on the file wire."""
        fields = {"status": self.status, "code": self.code, "message": self.message}
        if self.details is not None:
            fields["details"] = self.details
        return fields


# Takes the result's JSON, a failure, or neither after the last item; called once, unless
# the task is cancelled.
Done = Callable[[Optional[bytes], Optional[Failure]], None]
# Takes the JSON of an item of a streaming handler.
Item = Callable[[bytes], None]
# Ends a task early, for the reason "timeout" or "cancelled".
Abort = Callable[[str], None]


def is_command_name(name: object) -> bool:
    """Tell whether this is a string that may name a command; never a path."""
    return isinstance(name, str) and len(name) <= MAX_NAME_LENGTH and bool(NAME.match(name))


def dump(value: object) -> bytes:
    """Write JSON as UTF-8, on one line.

    Raises:
        TypeError: The value is of a type that JSON does not have.
        ValueError: The value contains itself, or is no number.
    """
    try:
        text = dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def load(raw: bytes) -> Any:
    """Read JSON strictly.

    Raises:
        ValueError: It is not UTF-8, or not JSON.
    """
    try:
        return loads(raw.decode(), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


class Call:
    """A task as it was sent: its bytes and what they say."""

    __slots__ = ("command", "fields", "params", "raw")

    def __init__(self, raw: bytes) -> None:
        """Read a task strictly.

        Raises:
            Failure: BAD_JSON or BAD_COMMAND.
        """
        try:
            fields = load(raw)
        except UnicodeDecodeError as error:
            raise Failure(400, "BAD_JSON", "The task is not UTF-8.") from error
        except ValueError as error:
            raise Failure(400, "BAD_JSON", f"The task is not JSON: {error}.") from error
        form = '{"command": "name", "params": [...]}'
        if not isinstance(fields, dict):
            raise Failure(400, "BAD_JSON", f"A task is a JSON object: {form}.")
        command = fields.get("command")
        if not is_command_name(command):
            raise bad_command(command)
        params = fields.get("params", [])
        if not isinstance(params, list):
            raise Failure(400, "BAD_JSON", f'"params" is a list: {form}.')
        self.raw = raw
        self.fields: Dict[str, Any] = fields
        self.command: str = fields["command"]
        self.params: List[Any] = params


def params_of(raw: bytes) -> List[Any]:
    """Read the params out of a task's JSON, or of the JSON of its params alone.

    Raises:
        Failure: BAD_JSON.
    """
    try:
        value = load(raw)
    except ValueError as error:
        raise Failure(400, "BAD_JSON", f"The params are not JSON: {error}.") from error
    params = value.get("params", []) if isinstance(value, dict) else value
    if not isinstance(params, list):
        form = '{"command": "name", "params": [...]}'
        raise Failure(400, "BAD_JSON", f'"params" is a list: {form}.')
    return params


def bad_command(command: object) -> Failure:
    """Give the failure for what is no command's name."""
    if command is None:
        return Failure(400, "BAD_COMMAND", 'The task names no "command".')
    shown = dumps(command)[:100]
    return Failure(
        400,
        "BAD_COMMAND",
        f"{shown} is not a command's name: it takes letters, digits, "
        '"_", "." and "-", and starts with a letter, digit or "_".',
    )


_sequence = itertools.count(1)


class Task:
    """One call on its way through the engine.

    Attributes:
        deadline: When it must be done, in ms since 1970; 0 until it is known.
        abort: Ends its handler; None until it runs.
        done: Who is told.
        to_events: Whether the caller reads items as they come, for however long.
        item: Takes an item of a streaming handler; None where the caller wants all at once.
        taken: Told how many bytes of its items have left; the runner sets it.
        open_ended: True once the deadline, that of the first item, holds no more.
        finished: True once it was answered, or nobody waits for it any more.
    """

    __slots__ = (
        "_params", "abort", "command", "deadline", "done", "finished", "id", "item", "open_ended",
        "raw", "request_id", "sequence", "taken", "target", "to_events", "user",
    )  # fmt: skip

    def __init__(
        self, call: Any, task_id: object, user: object, request_id: object, deadline: object
    ) -> None:
        """Take a `Call`, or what has its `raw`, `command` and `params`; those may be None."""
        self.sequence = next(_sequence)
        self.id = str(task_id or f"{os.getpid()}-{self.sequence}")
        self.raw = call.raw
        self.command = call.command
        self._params: Optional[List[Any]] = call.params
        self.user = str(user or "InternetUser")
        self.request_id = str(request_id or self.id)
        is_time = isinstance(deadline, (int, float)) and deadline > 0
        self.deadline: float = deadline if is_time else 0  # type: ignore[assignment]
        self.target: Any = None
        self.abort: Optional[Abort] = None
        self.done: Optional[Done] = None
        self.to_events = False
        self.item: Optional[Item] = None
        self.taken: Callable[[int], None] = _nothing
        self.open_ended = False
        self.finished = False

    @property
    def params(self) -> List[Any]:
        """What the handler is called with; raises Failure where it cannot be read."""
        if self._params is None:
            self._params = params_of(self.raw)
        return self._params


def _nothing(size: int) -> None:
    """Nobody waits for items to leave."""
