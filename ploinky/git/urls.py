"""Which repository URLs and refs are let in.

Text from users enters; a `Remote` leaves that is safe to hand to git: one of
four transports, no option, no remote helper, no credential.  Everything that
git could read in a second way is refused rather than escaped.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from attrs import frozen

from ploinky.deploy_errors import RefNotFound, RepositoryUnreachable, UrlRefused

_KINDS = "use https://host/path, ssh://user@host/path, user@host:path or file:///path"
_HOST = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?\.?)+\Z|\[[0-9A-Fa-f:.]+\]\Z", re.ASCII
)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\Z")
_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]+\Z")
_ESCAPED_CONTROL = re.compile(r"%(?:[01][0-9a-f]|7f)", re.IGNORECASE)
_SCP = re.compile(r"(?P<user>[^@/:]+)@(?P<host>\[[^\]]*\]|[^:/]+):(?P<path>(?!:).+)\Z")
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>.*)\Z")
_UNFIT_IN_REF = re.compile(
    r"[\x00-\x20\x7f~^:?*\[\\\ud800-\udfff]|\.\.|@\{|//|/\.|\.lock(?:/|\Z)|\A[./-]|[./]\Z|\A@\Z"
)
_LONGEST = 2048

ALLOWED = {"https": "https", "http": "http:https", "ssh": "ssh", "file": "file"}
"""What `GIT_ALLOW_PROTOCOL` is for each scheme: a redirect may only lead to TLS."""


@frozen
class Remote:
    """A repository that git may be pointed at.

    Attributes:
        scheme: ``https``, `http`, ``ssh`` or ``file``.
        site: ``host[:port]``, lower case; ``""`` for ``file``.
        url: The one spelling that git is given.  It has no credential in it.
        path: For ``file`` the real directory; otherwise the path at the host.
    """

    scheme: str
    site: str
    url: str
    path: str

    @property
    def id(self) -> str:
        """What its mirror is called."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """The last part of its path, without ``.git``."""
        return self.path.rstrip("/").rpartition("/")[2].removesuffix(".git")


def parse(raw_url: str) -> Remote:
    """Read a URL, without looking at the file system.

    Raises:
        UrlRefused: It is of another kind, has a credential in it, or could be
            read as an option or in two ways.
    """
    if not raw_url or len(raw_url) > _LONGEST or not raw_url.isprintable():
        raise UrlRefused(f"This is not a repository URL: {_KINDS}")
    if raw_url.startswith("-"):
        raise UrlRefused(f"{shown(raw_url)} is an option, not a repository URL: {_KINDS}")
    url = _URL.match(raw_url)
    if url:
        return _parse_url(raw_url, url["scheme"].lower(), url["authority"], url["path"])
    scp = _SCP.match(raw_url)
    if scp and _USER.match(scp["user"]):
        path = scp["path"]
        if path.startswith("-") or not _PATH.match(path):
            raise UrlRefused(f"The path in {shown(raw_url)} has characters that are not allowed")
        host = _host(raw_url, scp["host"])
        return Remote("ssh", host, f"{scp['user']}@{host}:{path.rstrip('/')}", path)
    raise UrlRefused(f"{shown(raw_url)} is not a repository URL: {_KINDS}")


def _parse_url(raw_url: str, scheme: str, authority: str, path: str) -> Remote:
    if scheme not in ALLOWED:
        raise UrlRefused(f"{scheme}: URLs are not taken: {_KINDS}")
    if "?" in path or "#" in path:
        raise UrlRefused(f"{shown(raw_url)} has a query or fragment: leave it out")
    if scheme == "file":
        return _parse_file(raw_url, authority, path)
    user, at, site = authority.rpartition("@")
    if scheme != "ssh" and at:
        raise UrlRefused(
            f"{shown(raw_url)} has a credential in it: leave it out of the URL and give it "
            "to the repository as its token"
        )
    if at and not _USER.match(user):
        raise UrlRefused(f"{shown(raw_url)}: only a plain user name can stand before the @")
    host, _, port = site.rpartition(":") if re.search(r":\d*\Z", site) else (site, "", "")
    if port and not 0 < int(port) < 65536:
        raise UrlRefused(f"{shown(raw_url)}: {port} is not a port")
    host = _host(raw_url, host)
    path = path.rstrip("/")
    if not path:
        raise UrlRefused(f"{shown(raw_url)} names a host but no repository")
    if not _PATH.match(path) or _ESCAPED_CONTROL.search(path) or path.startswith("/-"):
        raise UrlRefused(f"The path in {shown(raw_url)} has characters that are not allowed")
    site = f"{host}:{port}" if port else host
    return Remote(scheme, site, f"{scheme}://{user}{at}{site}{path}", path)


def _parse_file(raw_url: str, authority: str, path: str) -> Remote:
    if authority not in ("", "localhost") or not path:
        raise UrlRefused(f"{shown(raw_url)} is not file:///path")
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise UrlRefused(f"{shown(raw_url)} is not UTF-8") from None
    if not decoded.isprintable():
        raise UrlRefused(f"The path in {shown(raw_url)} has characters that are not allowed")
    return _file(os.path.normpath(decoded).replace("//", "/"))


def _file(path: str) -> Remote:
    return Remote("file", "", f"file://{quote(path)}", path)


def _host(raw_url: str, host: str) -> str:
    if not _HOST.match(host) or len(host) > 253:
        raise UrlRefused(f"{shown(host)} in {shown(raw_url)} is not a host name")
    return host.lower()


def shown(raw_text: str) -> str:
    """Quote what a user typed, on one line, with whatever may be a secret left out."""
    if len(raw_text) > _LONGEST:
        raw_text = f"{raw_text[:_LONGEST].partition(':')[0]}..."
    raw_text = re.sub(r"\A[^/:@]+:[^@]*@(?=[^/:@]+:)", "***@", raw_text)
    hidden = re.sub(r"://(?:[^/]*|[^/:@]*:(?!\d+/).*)@", "://***@", raw_text)
    return repr(hidden if len(hidden) <= 200 else hidden[:200] + "...")


def admit(remote: Remote, roots: Sequence[str], anywhere: bool) -> Remote:
    """Resolve a file URL and hold it against the allowed roots; give others back as they are.

    Looks at the file system, so call it in a thread, before every use: links may have changed.

    Args:
        roots: Directories that file URLs may point below.
        anywhere: Whether the caller may name any place.  What is named below a root stays
            below it all the same: others may write there, and put a link in its place.

    Returns:
        For a file URL the remote of the real path, with every link followed.

    Raises:
        UrlRefused: It leads, by its path or by links in the repository, out of the roots.
        RepositoryUnreachable: There is no such directory.
    """
    if remote.scheme != "file":
        return remote
    real = os.path.realpath(remote.path)
    real_roots = [os.path.realpath(root) for root in roots]
    named_below = any(is_below(remote.path, os.path.abspath(root)) for root in roots)
    if named_below or not anywhere:
        if not any(is_below(real, root) for root in real_roots):
            if anywhere:
                raise UrlRefused(f"{remote.url} leads out of gitFileRoots: name {real} itself")
            raise UrlRefused(
                f"{remote.url} is not below a directory that file URLs may point to: ask an "
                "admin to add one to the setting gitFileRoots, or to deploy it"
            )
        _refuse_way_out(Path(real), remote.url)
    if not os.path.isdir(real):
        raise RepositoryUnreachable(f"There is no directory {real}")
    return _file(real)


def followed(remote: Remote) -> Remote:
    """Give the remote by which a file URL's mirror goes: that of its real path."""
    return remote if remote.scheme != "file" else _file(os.path.realpath(remote.path))


def is_below(path: str, root: str) -> bool:
    """Tell whether a real path is a real directory, or lies in it."""
    return os.path.commonpath([path, root]) == root


def _refuse_way_out(repository: Path, url: str) -> None:
    """Refuse a repository that borrows from another: git would read that one too."""
    places = [repository, repository / ".git"]
    for place in [*places, *(p / "objects" for p in places), *(p / "refs" for p in places)]:
        if place.name == ".git" and place.is_file():
            raise UrlRefused(f"{url} is a worktree of a repository elsewhere: name that one")
        if not place.is_dir():
            continue
        linked = place.name in ("objects", "refs", ".git") and place.is_symlink()
        if linked or (place != repository and any(e.is_symlink() for e in os.scandir(place))):
            raise UrlRefused(f"{url} has symbolic links inside its Git directory")
    for place in places:
        for name in ("commondir", "objects/info/alternates", "gitdir"):
            if (place / name).exists():
                raise UrlRefused(f"{url} borrows from another repository ({name}): name that one")


def check_ref(ref: str) -> None:
    """Refuse what no branch, tag or commit can be called.

    Source: git-check-ref-format(1).

    Raises:
        RefNotFound: It cannot be a ref.
    """
    if len(ref) > 255 or _UNFIT_IN_REF.search(ref):
        raise RefNotFound(f"{shown(ref)} cannot be the name of a branch, tag or commit")
