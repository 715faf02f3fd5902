"""Uploads: ``POST /<path>/upload`` with files in ``multipart/form-data`` (contract, section 4).

A body enters piece by piece and goes to the spool; when it is whole, a task for
the command ``upload`` leaves, with where the agent finds the files.  Between the
two nothing is held but a piece: not the file, not a lease.

Nobody knows beforehand whether the agent has that command: with ``runTask`` it has
any.  One that has not says so as ever, after the body.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from attrs import define, field, frozen
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from zope.interface import implementer

from ploinky.errors import AgentBroken, BadJson, BadRequest, CallFailed
from ploinky.interfaces import IAgentTransport, IAnswer, IExchange, ILease
from ploinky.routing.http import RequestHead
from ploinky.routing.spool import Batch
from ploinky.values import TaskCall

UPLOAD = "upload"
"""The command."""

FILE = "file"
METADATA = "metadata"
"""Names of parts."""

METADATA_BYTES = 64 * 1024
MOST_FILES = 100
_NAME_CHARACTERS = 1024
_LONGEST_BOUNDARY = 70  # RFC 2046, 5.1.1


@frozen
class UploadForm:
    """What a head says of an upload."""

    boundary: str


def upload_form(head: RequestHead, command: str) -> UploadForm | None:
    """Tell whether a call of ``command`` brings files; a body of JSON is a call like any other.

    Raises:
        BadRequest: It says so, and not how its parts are told apart.
    """
    if command != UPLOAD or head.method != b"POST":
        return None
    said = next((value for name, _, value in head.fields if name == b"content-type"), b"")
    kind, options = parse_options_header(said.decode("latin-1"))
    if kind != "multipart/form-data":
        return None
    boundary = options.get("boundary", "")
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY or not boundary.isprintable():
        raise BadRequest("Content-Type: multipart/form-data takes a boundary of 1 to 70 characters")
    return UploadForm(boundary)


@define
class _File:
    """One file of an upload.

    Attributes:
        path: Below the instance's queue.
        name: What the client called it: never a path of ours.
    """

    path: str
    name: str
    type: str
    size: int = 0


@implementer(IExchange, IAnswer)
class Reception:
    """One upload from its first byte to the end of its task.

    To the call it is the exchange that takes its body, and later the one with the agent; to the
    agent's transport it is the answer, so that the files go when the task is over.

    Args:
        id: The task's.
        batch: Its own from now on.
        answer: What the agent says, or why there is nothing to be said, goes there.
        received: Called when all files are whole: a lease is wanted, and then `send`.
    """

    def __init__(
        self,
        form: UploadForm,
        id: str,
        batch: Batch,
        answer: IAnswer,
        received: Callable[[], None],
    ) -> None:
        self._id = id
        self._batch = batch
        self._answer = answer
        self._received = received
        # Not strict: that refuses the line end after the last boundary, if it comes by itself.
        self._parser = PushMultipartParser(form.boundary, max_segment_count=MOST_FILES + 1)
        self._files: list[_File] = []
        self._metadata: _Metadata | None = None
        self._in_metadata = False
        self._exchange: IExchange | None = None
        self._over = False

    # --- the way in: the call calls these

    def write(self, chunk: bytes) -> None:
        """Take a piece of the body."""
        try:
            for event in self._parser.parse(chunk) if chunk else ():
                if isinstance(event, MultipartSegment):
                    self._begin_part(event)
                elif event is None:
                    self._batch.end_file()
                else:
                    self._add(bytes(event))
        except MultipartError as error:
            self._refuse(_no_upload(error))
        except CallFailed as error:
            self._refuse(error)

    def finish(self) -> None:
        """The body is whole."""
        try:
            self._parser.close()
            if not self._files:
                raise BadRequest(f"the upload has no file: send one in a part called {FILE}")
            if self._metadata is not None:
                self._metadata.read()
        except MultipartError as error:
            self._refuse(_no_upload(error))
        except CallFailed as error:
            self._refuse(error)
        else:
            self._received()

    def _begin_part(self, part: MultipartSegment) -> None:
        self._in_metadata = part.name == METADATA
        if self._in_metadata:
            if self._metadata is not None:
                raise BadRequest(f"the upload has more than one part called {METADATA}")
            self._metadata = _Metadata(part.content_type == "application/json")
        elif part.name == FILE:
            if len(self._files) == MOST_FILES:
                raise BadRequest(f"the upload has over {MOST_FILES} files")
            name = (part.filename or "")[:_NAME_CHARACTERS]
            kind = part.content_type or "application/octet-stream"
            self._files.append(_File(self._batch.begin_file(), name, kind))
        else:
            raise BadRequest(
                f"an upload's parts are called {FILE} and {METADATA}, and not"
                f" {(part.name or '')[:100]!r}"
            )

    def _add(self, chunk: bytes) -> None:
        if self._in_metadata and self._metadata is not None:
            self._metadata.add(chunk)
        else:
            self._batch.write(chunk)
            self._files[-1].size += len(chunk)

    def _refuse(self, error: CallFailed) -> None:
        self._end()
        self._answer.failed(error)

    # --- on to the agent: the gateway calls this

    def send(self, transport: IAgentTransport, lease: ILease, task: TaskCall) -> IExchange:
        """Hand the files and the task to an instance; as `IAgentTransport.send`."""
        target = lease.target
        try:
            if not target.queue_directory:
                raise AgentBroken("the agent's instance has no directory that takes files")
            self._batch.hand_to(target.queue_directory)
        except CallFailed as error:
            self._refuse(error)
            return self
        params = self._params(target.inner_queue or target.queue_directory)
        self._exchange = transport.send(
            lease, msgspec.structs.replace(task, task=self._id, params=params), self
        )
        return self

    def _params(self, queue: str) -> bytes:
        files: list[dict[str, Any]] = [
            {"path": f"{queue}/{one.path}", "name": one.name, "size": one.size, "type": one.type}
            for one in self._files
        ]
        metadata = self._metadata.value if self._metadata is not None else None
        return msgspec.json.encode([{**files[0], "metadata": metadata, "files": files}])

    # --- the way back: the transport calls these

    def started(
        self, status: int, fields: Sequence[tuple[bytes, bytes]], length: int | None
    ) -> None:
        """See `IAnswer.started`."""
        self._answer.started(status, fields, length)

    def data(self, chunk: bytes) -> None:
        """See `IAnswer.data`."""
        self._answer.data(chunk)

    def ended(self) -> None:
        """See `IAnswer.ended`."""
        self._end()
        self._answer.ended()

    def complete(self, status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        """See `IAnswer.complete`."""
        self._end()
        self._answer.complete(status, fields, body)

    def failed(self, error: CallFailed) -> None:
        """See `IAnswer.failed`."""
        self._refuse(error)

    # --- ends

    def cancel(self) -> None:
        """See `IExchange.cancel`."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None and not self._over:
            exchange.cancel()
        self._end()

    def _end(self) -> None:
        self._over = True
        self._batch.remove()

    def pause(self) -> None:
        """See `IExchange.pause`."""
        if self._exchange is not None:
            self._exchange.pause()

    def resume(self) -> None:
        """See `IExchange.resume`."""
        if self._exchange is not None:
            self._exchange.resume()


def _no_upload(error: MultipartError) -> BadRequest:
    """Say why a body is none; what the parser adds to its first words is Python's."""
    return BadRequest(f"the body is no upload in multipart/form-data: {error.args[0]}")


@define
class _Metadata:
    """What a client says about its files: JSON, or else text.

    Attributes:
        is_json: Whether it was announced as JSON.
        value: Once it was read.
    """

    is_json: bool
    value: Any = None
    _held: bytearray = field(factory=bytearray)

    def add(self, chunk: bytes) -> None:
        """Take a piece.

        Raises:
            BadRequest: It is too long.
        """
        self._held += chunk
        if len(self._held) > METADATA_BYTES:
            raise BadRequest(f"the upload's {METADATA} is over {METADATA_BYTES} bytes")

    def read(self) -> None:
        """Find out what it is.

        Raises:
            BadJson: It was announced as JSON, and is none.
            BadRequest: It is not text at all.
        """
        try:
            text = self._held.decode()
        except UnicodeDecodeError as error:
            raise BadRequest(f"the upload's {METADATA} is not text in UTF-8") from error
        try:
            msgspec.json.decode(text.encode())
        except (msgspec.DecodeError, RecursionError) as error:
            if self.is_json:
                raise BadJson(f"the upload's {METADATA} is not JSON: {error}") from error
            self.value = text
        else:
            self.value = msgspec.Raw(text.encode())
