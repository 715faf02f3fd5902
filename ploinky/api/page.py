"""``GET /management``: the dashboard, a page and the files that it is made of.

They are the files of ``web/``, and data: the scripts in them speak to the API as any client does.
The page names them by what is in them, so that a browser keeps them for ever and never mixes two
versions; its policy lets no script run but those, whatever else is served on this host.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

import ploinky
from ploinky.api.answers import Answer, as_html
from ploinky.api.endpoints import Endpoint
from ploinky.api.requests import Call
from ploinky.errors import NotFound

PAGE = "index.html"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FOR_EVER = (("Cache-Control", "public, max-age=31536000, immutable"),)


def web_directory() -> Path:
    """Give where the dashboard's files are: in the package, or beside it in a checkout."""
    package = Path(ploinky.__file__).resolve().parent
    inside = package / "web"
    return inside if inside.is_dir() else package.parent / "web"


@frozen
class Files:
    """The dashboard's files, by name, and a name for all that is in them."""

    page: str
    others: Mapping[str, Answer]
    version: str

    @classmethod
    def of(cls, directory: Path) -> Files:
        """Read them.

        Raises:
            OSError: There are none.
        """
        found = sorted(each for each in directory.rglob("*") if each.suffix in _TYPES)
        bodies = {each.relative_to(directory).as_posix(): each.read_bytes() for each in found}
        digest = hashlib.sha256(repr(bodies).encode()).hexdigest()
        answers = {
            name: Answer(body, _TYPES[Path(name).suffix], fields=_FOR_EVER)
            for name, body in bodies.items()
        }
        return cls((directory / PAGE).read_text("utf-8"), answers, digest[:16])


class PageRoutes:
    """The page, its files, and the way to it from ``/``."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        return [
            Endpoint("page", "GET", "/management", self._show, gives="text/html"),
            Endpoint(
                "page.file",
                "GET",
                "/management/web/<version>/<rest:name>",
                self._file,
                gives=("text/javascript", "text/css", "image/svg+xml"),
                errors=(NotFound,),
            ),
            Endpoint("root", "GET", "/", self._lead, gives="text/html", statuses=(302,)),
        ]

    async def _show(self, call: Call) -> Answer:
        """Show the dashboard."""
        nonce = secrets.token_urlsafe(16)
        files = f"/management/web/{self._files.version}"
        html = self._files.page.replace("{files}", files).replace("{nonce}", nonce)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self'; img-src 'self';"
            " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
            " require-trusted-types-for 'script'; trusted-types 'none'"
        )
        return as_html(html, fields=(("Content-Security-Policy", policy),))

    async def _file(self, call: Call) -> Answer:
        """Give a file of the dashboard."""
        known = self._files.others.get(call.parts["name"])
        if known is None or call.parts["version"] != self._files.version:
            raise NotFound("the dashboard has no such file; load its page again")
        return known

    async def _lead(self, call: Call) -> Answer:
        """Lead to the dashboard, where nothing is deployed at ``/``."""
        return as_html("", status=302, fields=(("Location", "/management"),))
