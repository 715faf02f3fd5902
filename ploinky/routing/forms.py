"""The forms in which a task may be called (contract, section 4), made one.

A head and, later, a body enter; a command and its params, as JSON text, leave.
Validated here, so that errors are the same on every wire to an agent.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar
from urllib.parse import parse_qsl

import attrs
import msgspec
from attrs import frozen

from ploinky.errors import BadCommand, BadJson, MethodNotAllowed
from ploinky.routing.durable import AT_ONCE, Wish, wish_of
from ploinky.routing.http import RequestHead
from ploinky.values import COMMAND_NAME, Route

T = TypeVar("T")

_SUBSCRIBE = "subscribe"

_LONGEST_COMMAND = 128
"""Characters; commands end up in fields, logs and counters."""


class _Call(msgspec.Struct):
    """``{"command": c, "params": [...], "async": false}``; whatever else it holds is ignored."""

    command: str
    params: msgspec.Raw = msgspec.Raw(b"[]")
    is_async: bool = msgspec.field(default=False, name="async")


_read_call = msgspec.json.Decoder(_Call).decode
_read_any = msgspec.json.Decoder(msgspec.Raw).decode


@frozen
class TaskForm:
    """What the head of a call says of its command.

    Attributes:
        command: ``""`` where the body names it.
        params: JSON text of an array; None where the body brings them.
        to_events: Whether the caller reads Server-Sent Events.
        wish: For a durable task; None where none is asked for.
    """

    command: str
    params: bytes | None
    to_events: bool = False
    wish: Wish | None = None

    def read(self, body: bytes) -> tuple[str, bytes, Wish | None]:
        """Give command, params and wish of a call with this body.

        Raises:
            BadJson: The body is not JSON, or not a task.
            BadCommand: It names a command that cannot be one.
        """
        if self.params is not None:
            return self.command, self.params, self.wish
        if self.command:
            return self.command, _params_alone(body), self.wish
        call = _decoded(_read_call, body)
        params = bytes(call.params)
        if params[:1] != b"[":
            raise BadJson("params is not an array")
        wish = self.wish
        if call.is_async and (wish is None or not wish.is_async):
            wish = attrs.evolve(wish or AT_ONCE, is_async=True)
        return _checked(call.command), params, wish


def task_form(head: RequestHead, route: Route) -> TaskForm:
    """Read what path, method and query say.

    Raises:
        MethodNotAllowed: It is neither POST nor, with a command in the path, GET.
        BadCommand: What follows the route's path cannot be a command.
        BadRequest: It asks for a durable task in a way that cannot be understood.
    """
    wish = wish_of(head.noted)
    own = route.key.path
    name = head.path[len(own) if own != "/" else 0 :].strip(b"/").decode("ascii", "replace")
    if head.method == b"POST":
        return TaskForm(_checked(name) if name else "", None, wish=wish)
    if not name:
        raise MethodNotAllowed(
            'a task is called with POST and a body {"command": "...", "params": [...]}',
            allow=["POST"],
        )
    if head.method != b"GET":
        raise MethodNotAllowed("a command is called with GET or POST", allow=["GET", "POST"])
    query = (head.query or b"").decode("utf-8", "replace")
    fields = parse_qsl(query, keep_blank_values=True, errors="replace")
    if name == _SUBSCRIBE:
        return _subscription(fields)  # it is its own way of waiting: no wish has a meaning here
    params = msgspec.json.encode([value for _, value in fields])
    return TaskForm(_checked(name), params, wish=wish)


def _subscription(fields: list[tuple[str, str]]) -> TaskForm:
    """Read ``?command=c&params=[json]``, or ``?command=c`` and values that are the params."""
    command = next((value for name, value in fields if name == "command"), "")
    if not command:
        raise BadCommand("a subscription names its command: subscribe?command=<name>")
    given = next((value for name, value in fields if name == "params"), None)
    if given is not None:
        params = bytes(_decoded(_read_any, given.encode()))
        if params[:1] != b"[":
            raise BadJson("params is not an array")
    else:
        params = msgspec.json.encode([value for name, value in fields if name != "command"])
    return TaskForm(_checked(command), params, to_events=True)


def _params_alone(body: bytes) -> bytes:
    """Read a body that is params (an array), one param (other JSON) or nothing."""
    if not body:
        return b"[]"
    params = bytes(_decoded(_read_any, body))
    return params if params[:1] == b"[" else b"[" + params + b"]"


@lru_cache(maxsize=1024)
def _checked(name: str) -> str:
    if COMMAND_NAME.match(name) is None or len(name) > _LONGEST_COMMAND:
        raise BadCommand(
            f"{name[:100]!r} cannot be a command: its name is made of letters, digits, _, . and -, "
            f"{_LONGEST_COMMAND} at most"
        )
    return name


def _decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    """Read JSON; what msgspec skips over it does not check for UTF-8, so that is done here."""
    try:
        if not body.isascii():
            body.decode()
        return decode(body)
    except RecursionError as error:
        raise BadJson("the body is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadJson(f"the body is not a call in JSON: {error}") from error
