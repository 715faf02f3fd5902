"""Static deployments: files of a release, served by the worker itself.

A head becomes `Asked` once; with a lease on a release it becomes an answer, like
an agent's.  Which files may be seen is `beneath`'s business, what a client wants
of them `conditions`', and how a file goes out `sending`'s.
"""

from __future__ import annotations

import mimetypes
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import unquote_to_bytes
from wsgiref.handlers import format_date_time

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime

from ploinky.errors import BadRequest, CallFailed, MethodNotAllowed, NoSuchFile
from ploinky.interfaces import IAnswer, IExchange, ILease
from ploinky.routing.beneath import NotThere, Opened, Walk
from ploinky.routing.conditions import (
    CODINGS,
    NOTED,
    Part,
    Version,
    accepted_codings,
    is_news,
    part_wanted,
)
from ploinky.routing.http import RequestHead
from ploinky.routing.sending import Sending
from ploinky.values import CallAuth, Files, Route

INDEX = b"index.html"
NOT_FOUND = b"404.html"
"""Shown to people, where a site has it, instead of an error in JSON."""

_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_UNSAFE = re.compile(rb"[\x00-\x1f\x7f/\\]")
_HASHED = re.compile(rb"[.-](?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{8,64}\.", re.IGNORECASE)
_HASHED_DIRECTORIES = ((b"_next", b"static"), (b"_app", b"immutable"), (b"_nuxt",))
"""Where Next.js, SvelteKit and Nuxt put files whose names change with their content."""

_MORE_TYPES = {
    ".avif": "image/avif",
    ".flac": "audio/flac",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".otf": "font/otf",
    ".ttf": "font/ttf",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}
_PACKED = {"gzip": b"application/gzip", "bzip2": b"application/x-bzip2", "xz": b"application/x-xz"}


def _types() -> mimetypes.MimeTypes:
    """Give the built-in table, as hosts differ in theirs, and what it lacks."""
    types = mimetypes.MimeTypes()
    for ending, kind in _MORE_TYPES.items():
        types.add_type(kind, ending)
    return types


_TYPES = _types()


@frozen
class Asked:
    """What a head asks of a static deployment.

    Attributes:
        segments: Of the path below the deployment's, decoded.
        of_directory: Whether the path ends in a slash.
        slashed: Where the same with a slash is, relative to the request itself: so it holds
            behind proxies that add a prefix, and can lead to no other host.
        whole: It is a GET, and not a HEAD.
        fields: Those of `conditions.NOTED`, by name in lower case.
    """

    segments: tuple[bytes, ...]
    of_directory: bool
    slashed: bytes
    whole: bool
    fields: Mapping[bytes, bytes] = field(factory=dict)

    @property
    def by_a_person(self) -> bool:
        """Whether a browser's address line asks, and not a page for its parts."""
        return b"text/html" in self.fields.get(b"accept", b"")

    @property
    def names_a_page(self) -> bool:
        """Whether it may be a route inside of an application: no file's ending."""
        return not self.segments or b"." not in self.segments[-1]


def asked_of(head: RequestHead, route: Route) -> Asked:
    """Read what path, method and fields say.

    Raises:
        MethodNotAllowed: It is neither GET nor HEAD.
        BadRequest: It has a body, or the path cannot be that of a file.
        NoSuchFile: A segment of the path is empty.
    """
    if head.method not in (b"GET", b"HEAD"):
        raise MethodNotAllowed("files are read with GET or HEAD", allow=["GET", "HEAD"])
    if head.length != 0:
        raise BadRequest("a file is asked for without a body")
    own = route.key.path
    rest = head.path[len(own) if own != "/" else 0 :]
    of_directory = rest.endswith(b"/")
    raw_segments = rest.split(b"/")[1 : -1 if of_directory else None]
    slashed = b"./%b/" % head.path.rpartition(b"/")[2]
    if head.query is not None:
        slashed += b"?" + head.query
    fields: dict[bytes, bytes] = {}
    for name, _, value in head.fields:
        if name in NOTED:
            value = value.strip(b" \t")
            fields[name] = fields[name] + b", " + value if name in fields else value
    return Asked(
        tuple(map(_segment, raw_segments)), of_directory, slashed, head.method == b"GET", fields
    )


def _segment(raw_segment: bytes) -> bytes:
    """Decode one segment of a path: once, and into a name and nothing else."""
    if not raw_segment:
        raise NoSuchFile("there is no file with an empty segment // in its path")
    if _BROKEN_ESCAPE.search(raw_segment) is not None:
        raise BadRequest("the path has a % that is not followed by two hexadecimal digits")
    segment = unquote_to_bytes(raw_segment)
    if segment in (b".", b"..") or _UNSAFE.search(segment) is not None:
        raise BadRequest("the path has a dot segment, or an escaped /, \\ or control character")
    return segment


@frozen
class _Found:
    """A file to be sent.

    Attributes:
        coding: How it is coded; ``b""`` if it is not.
        varies: Whether there are other codings of it.
    """

    file: Opened
    type: bytes
    status: int = 200
    coding: bytes = b""
    varies: bool = False

    @property
    def version(self) -> Version:
        """What tells it from any other.

        Strong, byte for byte: a release's files are never changed in place, and a new file
        has another inode or time.
        """
        file = self.file
        tag = b'"%x-%x-%x"' % (file.size, file.modified_ns, file.inode)
        return Version(tag, file.modified_ns // 1_000_000_000, file.size)


class FileServer:
    """Answers from files, as agents' transports answer from agents.

    Args:
        clock: Lets others have their turn between two pieces of a large file.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    def send(self, lease: ILease, asked: Asked, answer: IAnswer) -> IExchange:
        """Answer a request; everything goes to ``answer``, never by exception."""
        files = lease.target.files
        assert files is not None
        sending = Sending(self._clock, answer)
        try:
            found = self._find(files, asked)
            if found is None:
                sending.say(308, ((b"Location", asked.slashed), (b"Cache-Control", b"no-cache")))
            else:
                sending.take(found.file)
                self._begin(sending, found, asked, lease.route.auth)
        except CallFailed as error:
            sending.fail(error)
        return sending

    def _find(self, files: Files, asked: Asked) -> _Found | None:
        """Open what is asked for, or what stands in for it; None: ask again with a slash.

        Raises:
            NoSuchFile: There is nothing.
        """
        try:
            with Walk(files.directory) as walk:
                walk.settle(files.root.encode().split(b"/"))
                try:
                    return self._open(walk, asked)
                except NotThere:
                    walk.back()
                    return self._open_instead(walk, files, asked)
        except NotThere:
            path = b"/".join(asked.segments).decode("utf-8", "backslashreplace")
            raise NoSuchFile(f"there is no file /{path[:300]}") from None

    def _open(self, walk: Walk, asked: Asked) -> _Found | None:
        file = walk.open(asked.segments)
        if file is None:
            file = walk.open((INDEX,))
            if file is None:
                raise NotThere(INDEX)
            if not asked.of_directory:
                os.close(file.descriptor)
                return None
        elif asked.of_directory:
            os.close(file.descriptor)
            raise NotThere(asked.segments)
        return self._best_coding(walk, file, asked)

    def _open_instead(self, walk: Walk, files: Files, asked: Asked) -> _Found:
        """Open what a person gets to see where there is nothing.

        Raises:
            NotThere: Nor is there that.
        """
        if not asked.by_a_person:
            raise NotThere(asked.segments)
        if files.spa and asked.names_a_page:
            file = walk.open((INDEX,))
            if file is not None:
                return self._best_coding(walk, file, asked)
            walk.back()
        file = walk.open((NOT_FOUND,))
        if file is None:
            raise NotThere(asked.segments)
        return _Found(file, _type_of(NOT_FOUND), 404)

    def _best_coding(self, walk: Walk, file: Opened, asked: Asked) -> _Found:
        """Choose among a file and what was packed beside it beforehand."""
        wanted = accepted_codings(asked.fields.get(b"accept-encoding", b""))
        packed = {
            coding: variant
            for coding, ending in CODINGS.items()
            if (variant := walk.beside(file.name + ending)) is not None
        }
        best = next((coding for coding in wanted if coding in packed), b"")
        chosen = packed.pop(best, file)
        for other in (*packed.values(), file):
            if other is not chosen:
                os.close(other.descriptor)
        return _Found(chosen, _type_of(file.name), 200, best, bool(packed or best))

    def _begin(self, sending: Sending, found: _Found, asked: Asked, auth: CallAuth) -> None:
        version = found.version
        fields = [
            (b"Cache-Control", _cache_control(found, asked, auth)),
            (b"ETag", version.tag),
            (b"Last-Modified", _date(version.modified)),
        ]
        if found.varies:
            fields.append((b"Vary", b"Accept-Encoding"))
        part = None
        if found.status == 200:
            if not is_news(asked.fields, version):
                sending.say(304, tuple(fields))
                return
            part = part_wanted(asked.fields, version) if asked.whole else None
        fields += [
            (b"Content-Type", found.type),
            (b"X-Content-Type-Options", b"nosniff"),
            (b"Accept-Ranges", b"bytes"),
        ]
        if found.coding:
            fields.append((b"Content-Encoding", found.coding))
        if part is not None:
            whereabouts = b"bytes %d-%d/%d" % (part.start, part.stop - 1, version.size)
            fields.append((b"Content-Range", whereabouts))
        status = 206 if part is not None else found.status
        sending.begin(status, tuple(fields), part or Part(0, version.size), asked.whole)


@lru_cache(maxsize=1024)
def _type_of(name: bytes) -> bytes:
    kind, packing = _TYPES.guess_type(name.decode("utf-8", "replace"))
    if packing is not None:
        return _PACKED.get(packing, b"application/octet-stream")
    if kind is None:
        return b"application/octet-stream"
    return f"{kind}; charset=utf-8".encode() if kind.startswith("text/") else kind.encode()


@lru_cache(maxsize=1024)
def _date(seconds: int) -> bytes:
    return format_date_time(seconds).encode()


def _cache_control(found: _Found, asked: Asked, auth: CallAuth) -> bytes:
    """Say how long a file is good for.

    For a year where its name has a hash of its content in it, else for as long as the server,
    when asked, says that it has not changed: what was deployed is what people see.
    """
    shared = b"public" if auth is CallAuth.NONE else b"private"
    in_hashed = any(
        asked.segments[: len(directory)] == directory for directory in _HASHED_DIRECTORIES
    )
    is_page = found.type.startswith(b"text/html")
    if not is_page and (in_hashed or _HASHED.search(found.file.name) is not None):
        return shared + b", max-age=31536000, immutable"
    return shared + b", no-cache"
