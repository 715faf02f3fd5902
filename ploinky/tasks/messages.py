"""The texts of a task and of its outcome, as they travel on either wire.

A `TaskCall` enters and JSON leaves, or the reverse; docs/protocols.md has the
forms with examples.  Params and results are passed on as the text they came
as, never decoded and encoded again.  No I/O here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import quote

import msgspec
from attrs import frozen
from msgspec import UNSET, Raw, Struct, UnsetType

from ploinky.errors import AgentBroken
from ploinky.values import TaskCall

_encode = msgspec.json.Encoder().encode


@frozen
class Outcome:
    """How a task ended, in the form in which HTTP would have brought it.

    Attributes:
        body: JSON text.
    """

    status: int
    fields: Sequence[tuple[bytes, bytes]]
    body: bytes


JSON_FIELD = (b"Content-Type", b"application/json")
EVENTS_FIELD = (b"Content-Type", b"text/event-stream")

EVENT_BEGIN = b"data: "
EVENT_END = b"\n\n"
LAST_EVENT = b"event: end\ndata: null\n\n"
"""What an agent says after its last item, and the server for one that cannot."""

_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPES = re.compile(rb"%b%b|(%b|%b)|\\." % (_HIGH, _LOW, _HIGH, _LOW), re.DOTALL)
_NO_CHARACTER = rb"\ufffd"
_MOST_MENDED = 1024 * 1024
"""Of an answer that cannot be read as it is; it is gone through escape by escape."""

_BLANKS = bytes.maketrans(b"\r\n", b"  ")


class _Task(Struct):
    id: str
    command: str
    params: Raw
    user: str
    deadline: int
    requestId: str


class _Outcome(Struct):
    id: str


class _Result(_Outcome):
    data: Raw


class _Failure(Struct):
    message: str
    code: str = "HANDLER_FAILED"
    status: int = 500
    details: Raw | UnsetType = UNSET


class _Error(_Outcome):
    error: _Failure


class _ErrorBody(Struct):
    error: bool
    code: str
    message: str
    details: Raw | UnsetType
    requestId: str


_T = TypeVar("_T", bound=_Outcome)
_result = msgspec.json.Decoder(_Result)
_error = msgspec.json.Decoder(_Error)


def field_text(text: str) -> str:
    """Give `text` as it may stand in a field or line, whatever it holds.

    Printable ASCII stands for itself; anything else, and ``%``, is percent-encoded as UTF-8,
    which AgentCore undoes.  So a line end in a key's name cannot begin a new field.
    """
    if text.isascii() and text.isprintable() and "%" not in text:
        return text
    return quote(text, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}~", errors="replace")


def http_body(call: TaskCall) -> bytes:
    """Give the body of ``POST /task``."""
    return b'{"command":%b,"params":%b}' % (_encode(call.command), call.params)


def task_file(call: TaskCall) -> bytes:
    """Give the content of ``tasks/<id>``."""
    return _encode(
        _Task(
            call.task, call.command, Raw(call.params), call.user, call.deadline_ms, call.request_id
        )
    )


def result_outcome(content: bytes, call: TaskCall) -> Outcome:
    """Read ``results/<id>``.

    Raises:
        AgentBroken: It is not ``{"id", "data"}`` in JSON and UTF-8, or is another task's.
    """
    data = bytes(_read(_result, content, call, "results").data)
    if call.to_events:
        event = EVENT_BEGIN + on_one_line(data) + EVENT_END
        return Outcome(200, (EVENTS_FIELD, _command_field(call)), event + LAST_EVENT)
    return Outcome(200, (JSON_FIELD, _command_field(call)), data)


def error_outcome(content: bytes, call: TaskCall) -> Outcome:
    """Read ``errors/<id>``.

    Raises:
        AgentBroken: It is not ``{"id", "error": {"status", "code", "message"}}``, or is another task's.
    """
    failure = _read(_error, content, call, "errors").error
    if not 400 <= failure.status <= 599:
        raise AgentBroken(f"the agent gave status {failure.status} for an error; 400 to 599 can be")
    body = _ErrorBody(True, failure.code, failure.message, failure.details, call.request_id)
    return Outcome(failure.status, (JSON_FIELD, _command_field(call)), _encode(body))


def on_one_line(json: bytes) -> bytes:
    """Give JSON text, or a piece of it, without line ends, which mean nothing there."""
    return json.translate(_BLANKS)


def _command_field(call: TaskCall) -> tuple[bytes, bytes]:
    return b"X-Ploinky-Command", call.command.encode()


def _read(decoder: msgspec.json.Decoder[_T], content: bytes, call: TaskCall, place: str) -> _T:
    try:
        found = _decoded(decoder, content)
        if not content.isascii():
            content.decode()  # msgspec does not look into the strings of a Raw
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        problem = f"the agent wrote {place}/{call.task} that cannot be read: {error}"
        raise AgentBroken(problem) from error
    if found.id != call.task:
        raise AgentBroken(f"the agent wrote {place}/{call.task} with the id of another task")
    return found


def _decoded(decoder: msgspec.json.Decoder[_T], content: bytes) -> _T:
    """Decode what may have halves of surrogate pairs in it: JavaScript makes them by cutting text.

    HTTP and frames pass such a result on unread.  Here it is read, so that they become what stands
    for no character; else what the agent did would be lost for it.
    """
    try:
        return decoder.decode(content)
    except msgspec.DecodeError:
        if len(content) > _MOST_MENDED:
            raise
        whole = _ESCAPES.sub(lambda escape: _NO_CHARACTER if escape[1] else escape[0], content)
        if whole == content:
            raise
        return decoder.decode(whole)
