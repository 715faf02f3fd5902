"""Requests to a server, and what its answers mean.

`requests` is used as the Docker SDK brings it along anyway; a command makes a
handful of calls, so nothing here needs to be asynchronous.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from ploinky.cli.connection import Connection
from ploinky.cli.failures import (
    AUTHENTICATION,
    CONFIGURATION,
    CONNECTION,
    CommandFailed,
    debug,
    from_answer,
)

API = "/management/api"
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
STREAMED_BYTES = 1024 * 1024
_PER_PAGE = 500
_TEXTS = ("text/plain", "application/jsonl")
"""What the API sends as it is: output and logs."""


class Client:
    """One server, spoken to as one principal.

    Args:
        patience_seconds: How long a server may take to accept a connection.
        is_quiet: Whether its requests are nobody's, not even of those who want to see more.
    """

    def __init__(
        self,
        connection: Connection,
        patience_seconds: float = CONNECT_SECONDS,
        is_quiet: bool = False,
    ) -> None:
        if not _is_address(connection.url):
            raise CommandFailed(
                f"{connection.url!r} is not a server's address",
                hint="it looks like http://localhost:8000",
                exit_code=CONFIGURATION,
            )
        self.connection = connection
        self._patience_seconds = patience_seconds
        self._is_quiet = is_quiet
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy or .netrc must never see the key

    def api(
        self,
        method: str,
        path: str,
        /,
        body: Any = None,
        *,
        timeout: float | None = ANSWER_SECONDS,
        **query: Any,
    ) -> Any:
        """Call the management API.

        Args:
            timeout: Seconds to wait for the answer; None for as long as it takes.

        Returns:
            The answer's JSON, an object; or its text where it is plain text.

        Raises:
            CommandFailed: No connection, an error answer, or one that no server of ours gives.
        """
        answer = self._answer(method, f"{API}/{path}", body, query=query, timeout_seconds=timeout)
        document = _document(answer)
        kind = _kind(answer) or "something"
        if not (isinstance(document, dict) or kind in _TEXTS):
            raise CommandFailed(
                f"{self.connection.url} answered with {kind} that is none of its own",
                hint="is this a Ploinky server, or does a proxy answer for it?",
                exit_code=CONNECTION,
            )
        return document

    def all_pages(self, path: str, name: str, /, **query: Any) -> Any:
        """Get a whole list of the management API, page by page.

        Args:
            name: Of the list in the answer.

        Returns:
            The first answer, with all entries in it.
        """
        whole = answer = self.api("GET", path, page=1, perPage=_PER_PAGE, **query)
        while answer[name] and len(whole[name]) < whole["total"]:
            number = answer["page"] + 1
            answer = self.api("GET", path, page=number, perPage=_PER_PAGE, **query)
            whole[name] += answer[name]
        return whole

    def stream(self, path: str, body: Any = None, /, **query: Any) -> Iterator[bytes]:
        """Read an answer piece by piece as it comes, for as long as it goes on.

        Args:
            body: To be sent along with a ``POST``; None: it is a ``GET``.

        Raises:
            CommandFailed: No connection, an error answer, or a connection that broke off.
        """
        # However long there is nothing to tell.
        method = "GET" if body is None else "POST"
        answer = self._answer(
            method, f"{API}/{path}", body, query=query, timeout_seconds=None, stream=True
        )
        try:
            yield from answer.iter_content(STREAMED_BYTES if body is not None else None)
        except requests.exceptions.RequestException as error:
            raise CommandFailed(
                f"{self.connection.url} broke off: {_reason(error)}", exit_code=CONNECTION
            ) from error
        finally:
            answer.close()

    def prometheus(self) -> str:
        """Get the figures that Prometheus scrapes, in its own format."""
        text: str = self._json("GET", "/metrics", None)
        return text

    def login(self, key: str) -> Mapping[str, Any]:
        """Exchange an API key for a session: ``{authorizationToken, userId}``."""
        answer: Mapping[str, Any] = self._json(
            "POST", "/auth", {"command": "login", "params": [key]}, anonymous=True
        )
        return answer

    def logout(self) -> None:
        """End this session on the server."""
        self._json("POST", "/auth", {"command": "logout", "params": []})

    def call(
        self,
        domain: str,
        path: str,
        body: Any,
        timeout_seconds: float,
        fields: Mapping[str, str] | None = None,
    ) -> Any:
        """Call an agent; ``domain`` goes into the ``Host`` field."""
        headers = {**(fields or {}), **({"Host": domain} if domain else {})}
        return self._json("POST", path, body, headers=headers, timeout_seconds=timeout_seconds)

    def task(self, task: str, wait_seconds: int = 0) -> Any:
        """Give a durable task as it stands, or as it stands after so long, or when it is over."""
        query = {"wait": wait_seconds or None}
        timeout = ANSWER_SECONDS + wait_seconds
        return self._json("GET", _task(task), None, query=query, timeout_seconds=timeout)

    def cancel_task(self, task: str) -> Any:
        """Cancel a durable task."""
        return self._json("DELETE", _task(task), None)

    def _json(self, method: str, path: str, body: Any, **how: Any) -> Any:
        return _document(self._answer(method, path, body, **how))

    def _answer(
        self,
        method: str,
        path: str,
        body: Any,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        anonymous: bool = False,
        timeout_seconds: float | None = ANSWER_SECONDS,
        stream: bool = False,
    ) -> requests.Response:
        sent = dict(headers or {})
        began = time.monotonic()
        if self.connection.token and not anonymous:
            sent["Authorization"] = f"Bearer {self.connection.token}"
        try:
            answer = self._session.request(
                method,
                self.connection.url + path,
                params={k: v for k, v in (query or {}).items() if v is not None},
                json=body,
                headers=sent,
                timeout=(self._patience_seconds, timeout_seconds),
                allow_redirects=False,
                stream=stream,
            )
        except requests.exceptions.ReadTimeout as error:
            raise CommandFailed(
                f"{self.connection.url} did not answer within {timeout_seconds:.0f} s",
                exit_code=CONNECTION,
            ) from error
        except requests.exceptions.InvalidJSONError as error:
            raise CommandFailed(f"this cannot be sent: {error}", exit_code=CONFIGURATION) from error
        except requests.exceptions.InvalidHeader:  # whose words would have the key in them
            raise CommandFailed(
                "the API key is no key: it has a line's end, or blanks before it",
                hint="see PLOINKY_API_KEY; a key looks like pk_...",
                exit_code=AUTHENTICATION,
            ) from None
        except requests.exceptions.RequestException as error:
            raise CommandFailed(
                f"no connection to {self.connection.url}: {_reason(error)}",
                hint="start a server with: p-cli cloud start   "
                "or name another: p-cli cloud connect URL",
                exit_code=CONNECTION,
            ) from error
        if not self._is_quiet:
            seconds, name = time.monotonic() - began, answer.headers.get("X-Request-Id", "unnamed")
            debug(f"{method} {path} -> {answer.status_code} in {seconds:.3f} s (request {name})")
        self._check(answer)
        return answer

    def _check(self, answer: requests.Response) -> None:
        """See that an answer is what was asked for.

        Raises:
            CommandFailed: It is an error, or leads elsewhere.
        """
        if answer.is_redirect:
            there = answer.headers["Location"].partition(API)[0]
            raise CommandFailed(
                f"{self.connection.url} leads elsewhere: {there}",
                hint=f"connect to that: p-cli cloud connect {there}",
                exit_code=CONNECTION,
            )
        if not answer.ok:
            raise from_answer(answer.status_code, _document(answer))


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port, or an IPv6 address, that cannot be one
        return False


def _task(task: str) -> str:
    return f"/_ploinky/tasks/{quote(task, safe='')}"


def _kind(answer: requests.Response) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _document(answer: requests.Response) -> Any:
    """Give what an answer holds: JSON where it says so and is, else its text."""
    if _kind(answer) == "application/json":
        with suppress(ValueError):
            return answer.json()
    return answer.text


def _reason(error: BaseException) -> str:
    """Find the operating system's own word in a chain of wrappers."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        reason = getattr(seen, "reason", None) or (seen.args[0] if seen.args else None)
        seen = reason if isinstance(reason, BaseException) else seen.__cause__ or seen.__context__
    return str(error)
