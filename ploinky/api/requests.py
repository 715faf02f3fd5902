"""One request to the API: what twisted.web reads, and what a route is given of it."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from attrs import field, frozen
from twisted.web.server import Request

from ploinky.api.forms import check_characters, from_query, parse_json, structured
from ploinky.api.operations import Operation
from ploinky.errors import BodyTooLarge, Forbidden, ValidationFailed
from ploinky.routing.headers import TrustedProxies
from ploinky.security.bootstrap import comes_from_here
from ploinky.security.roles import reaches
from ploinky.values import DeploymentKey, Principal

T = TypeVar("T")

MOST_BODY_BYTES = 1024 * 1024
COOKIE = "authorizationToken"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
_MARKS_OF_A_PROXY = ("Forwarded", "Via", "X-Real-IP", "X-Ploinky-Proxied")
"""The last is the gateway's word for fields that it did not believe and so dropped."""


class _Body(io.BytesIO):
    """What was sent, for as long as somebody may read it: a change outlives its connection."""

    def close(self) -> None:
        """The client has left; the change that it asked for is carried out and written down."""


class ManagementRequest(Request):
    """A request whose body is kept in memory up to `MOST_BODY_BYTES` and dropped beyond.

    What a worker itself sends was measured by its gateway already.
    """

    request_id = ""
    body_is_too_large = False
    content: io.BytesIO

    def gotLength(self, length: int | None) -> None:
        """Keep the body in memory."""
        self.content = _Body()

    def handleContentChunk(self, data: bytes) -> None:
        """Take the next part of the body."""
        if self.content.tell() + len(data) > MOST_BODY_BYTES and not self.is_from_worker:
            self.body_is_too_large = True
        if not self.body_is_too_large:
            self.content.write(data)

    @property
    def is_from_worker(self) -> bool:
        """Whether a worker made it itself.

        The gateway says of everything that it passes on where it comes from, and lets no client
        say ``X-Ploinky-User``.
        """
        fields = self.requestHeaders
        return fields.hasHeader("X-Ploinky-User") and not fields.hasHeader("X-Forwarded-For")

    def text_fields(self, name: str) -> list[str]:
        """Give a field's values; what is not UTF-8 in them is replaced."""
        values = self.requestHeaders.getRawHeaders(name.encode()) or []
        return [value.decode("utf-8", "replace").strip() for value in values]

    def text_field(self, name: str) -> str:
        """Give a field's last value, ``""`` where it was not sent."""
        return next(reversed(self.text_fields(name)), "")

    def whole_body(self) -> bytes:
        """Give the body.

        Raises:
            BodyTooLarge: It is over the limit.
        """
        if self.body_is_too_large:
            raise BodyTooLarge(f"the body is over {MOST_BODY_BYTES} bytes")
        self.content.seek(0)
        body: bytes = self.content.read()
        return body


def request_id_of(request: ManagementRequest) -> str:
    """Give the request's id if it came with a well-formed one, else ``""``."""
    sent = request.text_field("X-Request-Id")
    return sent if _REQUEST_ID.match(sent) else ""


@frozen
class Credential:
    """What a request brought to say who it is from.

    Attributes:
        in_cookie: Whether a browser may have sent it without being asked.
    """

    token: str = field(repr=False)
    in_cookie: bool = False


def credential_of(request: ManagementRequest) -> Credential | None:
    """Find the credential: ``Authorization: Bearer``, ``X-API-Key``, cookie; in this order."""
    scheme, _, token = request.text_field("Authorization").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return Credential(token.strip())
    key = request.text_field("X-API-Key")
    if key:
        return Credential(key)
    cookie = request.received_cookies.get(COOKIE.encode())
    if cookie:
        return Credential(cookie.decode("utf-8", "replace"), in_cookie=True)
    return None


@frozen
class Peer:
    """Who sent a request, as the gateway tells it.

    Attributes:
        forwarded_for: The addresses in ``X-Forwarded-For``: the last is the gateway's own entry,
            those before it are what a trusted proxy said.
        address: The client's, as `TrustedProxies.sender` says it.
        host: The ``Host`` field.
    """

    forwarded_for: tuple[str, ...]
    address: str
    host: str
    proxied: bool
    is_secure: bool

    @classmethod
    def of(cls, request: ManagementRequest, proxies: TrustedProxies) -> Peer:
        """Read the fields; only the gateway reaches the control socket, so they are believed."""
        sent = ",".join(request.text_fields("X-Forwarded-For"))
        addresses = tuple(part.strip() for part in sent.split(",") if part.strip())
        return cls(
            forwarded_for=addresses,
            address=proxies.sender_of(sent),
            host=request.text_field("Host"),
            proxied=any(request.text_field(name) for name in _MARKS_OF_A_PROXY),
            is_secure=request.text_field("X-Forwarded-Proto").lower() == "https",
        )

    @property
    def is_here(self) -> bool:
        """Whether the request was made on this machine, to this machine."""
        return comes_from_here(self.forwarded_for, self.host, self.proxied)


def check_origin(request: ManagementRequest, credential: Credential | None) -> None:
    """Refuse a change that a page of another site makes a browser ask for.

    A credential that a script had to put there itself is proof enough.  A cookie is not, and
    neither is none (`init`, ``/auth``, the setting ``auth: none``).  Source: OWASP, Cross-Site
    Request Forgery Prevention; Fetch Metadata.

    Args:
        credential: What the change relies on, if anything.

    Raises:
        Forbidden: It comes from elsewhere, or a cookie came with nothing that says from where.
    """
    if request.method in (b"GET", b"HEAD") or (credential and not credential.in_cookie):
        return
    site, origin = request.text_field("Sec-Fetch-Site"), request.text_field("Origin")
    if site:
        fits = site in ("same-origin", "none")
    elif origin:
        ours = {request.text_field("Host").lower(), request.text_field("X-Forwarded-Host").lower()}
        fits = urlsplit(origin).netloc.lower() in ours - {""}
    else:
        fits = credential is None
    if not fits:
        raise Forbidden(
            "a change that is asked for with the cookie must come from this server's own pages;"
            " elsewhere send the token as Authorization: Bearer"
        )


@frozen
class Call:
    """What a route is given.

    Attributes:
        route: The route's name.
        principal: Who calls; the route's rule has let them through.
        credential: How they said so.
        parts: What the path's variable parts were.
        subjects: What it is found to be about, for the audit trail.
    """

    route: str
    request: ManagementRequest
    principal: Principal
    credential: Credential | None
    peer: Peer
    parts: Mapping[str, str]
    subjects: list[str] = field(factory=list)

    def document(self) -> Any:
        """Give the body's JSON; for a ``DELETE`` without one, the query's values as an object.

        Raises:
            BadJson, BodyTooLarge
        """
        body = self.request.whole_body()
        if not body and self.request.method == b"DELETE":
            return self.query_values()
        document = parse_json(body)
        check_characters(document)
        return document

    def form(self, form: type[T]) -> T:
        """Give the body as an attrs class.

        Raises:
            BadJson, BodyTooLarge, ValidationFailed
        """
        return structured(form, self.document())

    def queries(self, form: type[T]) -> T:
        """Give the query as an attrs class.

        Raises:
            ValidationFailed
        """
        return from_query(form, self.query_values())

    def query(self, name: str) -> str:
        """Give a query value, ``""`` where it was not sent."""
        return self.query_values().get(name, "")

    def query_values(self) -> dict[str, str]:
        """Give the query's values; of those sent twice the last."""
        query = self.request.uri.partition(b"?")[2].decode("ascii", "replace")
        return {k: v[-1] for k, v in parse_qs(query, keep_blank_values=True).items()}

    def count(self, name: str, default: int, most: int) -> int:
        """Give a query value that is a whole number from 1 to ``most``.

        Raises:
            ValidationFailed: It is something else.
        """
        raw_value = self.query(name)
        if not raw_value:
            return default
        if not (raw_value.isascii() and raw_value.isdigit() and 1 <= int(raw_value[:9]) <= most):
            raise ValidationFailed({name: f"expected a whole number from 1 to {most}"})
        return int(raw_value)

    def key(self, raw_domain: str, raw_path: str) -> DeploymentKey:
        """Validate a key that the caller names, and see that it is within their scope.

        Raises:
            ValidationFailed: Either half does not fit.
            Forbidden: It is out of scope.
        """
        key = DeploymentKey.of(raw_domain, raw_path)
        if not reaches(self.principal, key):
            scope = ", ".join(self.principal.scope)
            raise Forbidden(f"{self.principal.id} is confined to {scope}; {key} is not in it")
        return key

    def operation(self, subject: object) -> Operation:
        """Name the change that this call asks for."""
        self.subjects.append(str(subject))
        return Operation(self.route, str(subject), self.principal.id, self.request.request_id)
