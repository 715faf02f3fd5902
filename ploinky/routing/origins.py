"""Which pages may use the session that a browser sends along by itself.

A request's head enters; whether the cookie in it counts leaves.  What came in any other field a
script had to put there, which is proof enough.  Requests to the management API are the leader's
to judge, by the same rule (`ploinky.api.requests.check_origin`).
Source: OWASP, *Cross-Site Request Forgery Prevention*; Fetch Metadata.
"""

from __future__ import annotations

from ploinky.routing.http import RequestHead
from ploinky.values import Kind, Route

OF_PAGES = frozenset({b"origin", b"sec-fetch-site"})
"""Fields by which a browser says which page asks."""

_OUR_SITES = (b"same-origin", b"none")
_LOOKING = (b"GET", b"HEAD")


def may_use_session(head: RequestHead, route: Route, trusted: bool) -> bool:
    """Tell whether the session in a request's cookie counts.

    A link from elsewhere to what an agent's own server, or a file, shows is none of our
    business.  A command may do anything, also where it is called with ``GET``, and so may
    whatever goes over a connection that is upgraded.

    Args:
        trusted: Whether ``X-Forwarded-Host`` is believed.
    """
    if route.kind is Kind.CONTROL or not _comes_from_elsewhere(head, trusted):
        return True
    looks = head.method in _LOOKING and b"upgrade" not in head.options
    return looks and route.kind is not Kind.TASK


def _comes_from_elsewhere(head: RequestHead, trusted: bool) -> bool:
    """Tell whether a browser says that a page of another origin asks."""
    said = {name: value.strip(b" \t").lower() for name, _, value in head.fields}
    if site := said.get(b"sec-fetch-site"):
        return site not in _OUR_SITES
    origin = said.get(b"origin")
    if not origin:
        return False
    ours = {head.host.lower()}
    if trusted:
        ours.add(said.get(b"x-forwarded-host", b""))
    return origin.partition(b"://")[2] not in ours - {b""}
