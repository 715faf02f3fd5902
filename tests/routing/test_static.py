"""Static deployments: what a browser, a download and an attacker get of a directory of files."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.task import Clock

from ploinky.errors import CallFailed
from ploinky.routing.conditions import accepted_codings
from ploinky.routing.http import Limits, read_request
from ploinky.routing.static import FileServer, asked_of
from ploinky.testing.routing import Answered, FakeLease, settled
from ploinky.values import Address, CallAuth, Files, Kind, Principal, Role, Target

MONDAY = 1_700_000_000
"""A Tuesday, in fact; when the files were written."""

SITE = {
    "dist/index.html": "<h1>home</h1>",
    "dist/app.js": "let app;\n" * 100,
    "dist/main.3f2a9c1b.js": "hashed",
    "dist/docs/index.html": "<h1>docs</h1>",
    "dist/empty/keep.txt": "",
    "dist/with space.txt": "spaced",
    "dist/größe.txt": "umlaut",
    "dist/.env": "SECRET",
    "dist/.git/config": "SECRET",
    "dist/.well-known/security.txt": "contact",
    "secret.txt": "SECRET",
    "manifest.json": "SECRET",
}


def write(place: Path, files: dict[str, str]) -> Path:
    """Write files, all of one age."""
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        os.utime(path, (MONDAY, MONDAY))
    return place


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release's directory."""
    return write(tmp_path / "7", SITE)


@pytest.fixture
def publish(corridor: Any, make_route: Any, release: Path) -> Callable[..., None]:
    """Deploy the site."""

    def do(place: str = "localhost/site", *, spa: bool = False, **changes: Any) -> None:
        files = Files(str(release), changes.pop("root", "dist"), spa)
        target = Target("deployment.7", Address(), files=files)
        principals = changes.pop("principals", ())
        route = make_route(place, Kind.STATIC, targets=(target,), **changes)
        corridor.publish(route, principals=principals)

    do()
    return do


@pytest.fixture
def get(corridor: Any, publish: Any) -> Callable[..., Any]:
    """Ask the gateway for a path."""

    async def ask(path: str, method: str = "GET", **fields: str) -> Answered:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        answer = corridor.ask("\r\n".join([*lines, "", ""]).encode())
        return await answer

    return ask


# --- what there is


@pytest_twisted.ensureDeferred
async def test_a_file_says_what_it_is(get: Any) -> None:
    """Type, length, version and how long it keeps; and that a browser shall not guess."""
    answer = await get("/site/app.js")
    assert (answer.status, answer.body) == (200, SITE["dist/app.js"].encode())
    assert answer.field(b"content-type") == b"text/javascript; charset=utf-8"
    assert answer.field(b"content-length") == b"900"
    assert answer.field(b"x-content-type-options") == b"nosniff"
    assert answer.field(b"accept-ranges") == b"bytes"
    assert answer.field(b"last-modified") == b"Tue, 14 Nov 2023 22:13:20 GMT"
    assert answer.field(b"cache-control") == b"public, no-cache"
    assert answer.field(b"etag")[:1] == b'"'
    assert answer.field(b"date")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/site/", 200, "<h1>home</h1>"),
        ("/site/docs/", 200, "<h1>docs</h1>"),
        ("/site/with%20space.txt", 200, "spaced"),
        ("/site/gr%C3%B6%C3%9Fe.txt", 200, "umlaut"),
        ("/site/%61pp.js", 200, SITE["dist/app.js"]),
        ("/site/.well-known/security.txt", 200, "contact"),
        ("/site/empty/keep.txt", 200, ""),
        ("/site/docs/?a=b", 200, "<h1>docs</h1>"),
    ],
)
async def test_paths_lead_to_files(get: Any, path: str, status: int, body: str) -> None:
    answer = await get(path)
    assert (answer.status, answer.body.decode()) == (status, body)
    assert answer.field(b"content-length") == b"%d" % len(body.encode())


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/site", b"./site/"),
        ("/site?a=b", b"./site/?a=b"),
        ("/site/docs", b"./docs/"),
        ("/site/docs?q=//x.example", b"./docs/?q=//x.example"),
    ],
)
async def test_a_directory_is_asked_for_again_with_a_slash(
    get: Any, path: str, location: bytes
) -> None:
    """Relative to the request, so that it holds behind a proxy with a prefix of its own."""
    answer = await get(path)
    assert (answer.status, answer.field(b"location")) == (308, location)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("path", ["//x.example/docs", "//x.example/%2e", "//x.example"])
async def test_no_redirect_leads_to_another_host(publish: Any, get: Any, path: str) -> None:
    """Also with a deployment at the root, where a path may begin with two slashes."""
    publish("localhost/")
    answer = await get(path)
    assert answer.status in (400, 404)
    assert answer.field(b"location") is None


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/site/nothing", 404),
        ("/site/empty/", 404),
        ("/site/empty", 404),
        ("/site/app.js/", 404),
        ("/site/app.js/x", 404),
        ("/site/docs//index.html", 404),
        ("/site/.env", 404),
        ("/site/%2eenv", 404),
        ("/site/.git/config", 404),
        ("/site/../secret.txt", 400),
        ("/site/%2e%2e/secret.txt", 400),
        ("/site/..%2fsecret.txt", 400),
        ("/site/..%5csecret.txt", 400),
        ("/site/docs%2findex.html", 400),
        ("/site/app.js%00.html", 400),
        ("/site/%zz", 400),
        ("/site/%252e%252e/secret.txt", 404),
        ("/site/" + "x" * 300, 404),
    ],
)
async def test_what_is_not_shown(get: Any, path: str, status: int) -> None:
    """Hidden files, other ways to say the same, and ways out."""
    answer = await get(path)
    assert answer.status == status
    assert b"SECRET" not in answer.body


@pytest_twisted.ensureDeferred
async def test_the_agents_own_manifest_is_not_shown(get: Any, publish: Any) -> None:
    """Where the whole release is served: its settings are nobody else's business."""
    publish(root="")
    assert (await get("/site/manifest.json")).status == 404
    assert (await get("/site/dist/app.js")).status == 200


@pytest_twisted.ensureDeferred
async def test_links_work_as_far_as_they_stay_inside(get: Any, release: Path) -> None:
    dist = release / "dist"
    for name, leads_to in {
        "latest.js": "app.js",
        "manual": "docs",
        "docs/up.js": "../app.js",
        "docs/round": "../docs/../docs/index.html",
        "out": "../secret.txt",
        "outside": "..",
        "docs/out": "../../secret.txt",
        "absolute": str(dist / "app.js"),
        "circle": "circle",
        "hidden": ".env",
    }.items():
        (dist / name).symlink_to(leads_to)
    for path in ("latest.js", "manual/", "docs/up.js", "manual/up.js", "docs/round"):
        assert (await get("/site/" + path)).status == 200, path
    for path in ("out", "outside/secret.txt", "docs/out", "absolute", "circle", "hidden"):
        assert (await get("/site/" + path)).status == 404, path


@pytest_twisted.ensureDeferred
async def test_special_files_are_not_opened_for_anybody(get: Any, release: Path) -> None:
    """A pipe would hold everybody up."""
    os.mkfifo(release / "dist/pipe")
    assert (await get("/site/pipe")).status == 404


@pytest_twisted.ensureDeferred
async def test_files_are_only_read(get: Any, corridor: Any) -> None:
    answer = await get("/site/app.js", "DELETE")
    assert (answer.status, answer.field(b"allow")) == (405, b"GET, HEAD")
    answer = await corridor.ask(
        b"GET /site/app.js HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
    )
    assert answer.status == 400


@pytest_twisted.ensureDeferred
async def test_head_says_the_same_and_sends_nothing(get: Any) -> None:
    answer = await get("/site/app.js", "HEAD", Range="bytes=0-1")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.field(b"content-length") == b"900"


@pytest_twisted.ensureDeferred
async def test_who_may_not_call_may_not_read(get: Any, publish: Any) -> None:
    """`auth` holds for files as for agents, and shared caches may not keep what it guards."""
    import hashlib

    key = Principal("a", Role.CALLER, hashlib.sha256(b"key").hexdigest())
    publish(auth=CallAuth.KEY, principals=(key,))
    assert (await get("/site/app.js")).status == 401
    answer = await get("/site/app.js", X_API_Key="key")
    assert (answer.status, answer.field(b"cache-control")) == (200, b"private, no-cache")


@pytest_twisted.ensureDeferred
async def test_an_application_of_one_page(get: Any, publish: Any) -> None:
    """With `spa`, a person gets `index.html` for what is not there; a script or image does not."""
    publish(spa=True)
    page = {"Accept": "text/html,application/xhtml+xml"}
    for path in ("/site/orders/17", "/site/empty/", "/site/empty"):
        answer = await get(path, **page)
        assert (answer.status, answer.body) == (200, b"<h1>home</h1>")
        assert answer.field(b"cache-control") == b"public, no-cache"
    assert (await get("/site/orders/17", Accept="*/*")).status == 404
    assert (await get("/site/gone.js", **page)).status == 404
    assert (await get("/site/.git/config", **page)).body == b"<h1>home</h1>"


@pytest_twisted.ensureDeferred
async def test_a_site_may_have_a_page_for_what_is_not_there(get: Any, release: Path) -> None:
    write(release, {"dist/404.html": "<h1>lost</h1>"})
    answer = await get("/site/nope.png", Accept="text/html")
    assert (answer.status, answer.body) == (404, b"<h1>lost</h1>")
    assert answer.field(b"content-type") == b"text/html; charset=utf-8"
    answer = await get("/site/nope.png")
    assert answer.status == 404
    assert b"NO_SUCH_FILE" in answer.body


# --- versions, parts, codings


@pytest_twisted.ensureDeferred
async def test_what_a_browser_has_already_is_not_sent_again(get: Any) -> None:
    tag = (await get("/site/app.js")).field(b"etag").decode()
    since = "Tue, 14 Nov 2023 22:13:20 GMT"
    before = "Tue, 14 Nov 2023 22:13:19 GMT"
    for status, fields in (
        (304, {"If_None_Match": tag}),
        (304, {"If_None_Match": f'"x", W/{tag}'}),
        (304, {"If_None_Match": "*"}),
        (200, {"If_None_Match": '"x"'}),
        (304, {"If_Modified_Since": since}),
        (304, {"If_Modified_Since": "Tuesday, 14-Nov-23 22:13:20 GMT"}),
        (304, {"If_Modified_Since": "Tue Nov 14 22:13:20 2023"}),
        (200, {"If_Modified_Since": before}),
        (200, {"If_Modified_Since": "yesterday"}),
        (200, {"If_None_Match": '"x"', "If_Modified_Since": since}),
        (200, {"If_Match": tag}),
        (412, {"If_Match": '"x"'}),
        (412, {"If_Match": f"W/{tag}"}),
        (200, {"If_Unmodified_Since": since}),
        (412, {"If_Unmodified_Since": before}),
        (200, {"If_Match": "*", "If_Unmodified_Since": before}),
    ):
        answer = await get("/site/app.js", **fields)
        assert answer.status == status, fields
        if status == 304:
            assert answer.field(b"etag").decode() == tag
            assert answer.field(b"content-type") is None


@pytest_twisted.ensureDeferred
async def test_parts_of_a_file(get: Any) -> None:
    whole = SITE["dist/app.js"].encode()
    for wanted, start, stop in (
        ("bytes=0-9", 0, 10),
        ("bytes=890-", 890, 900),
        ("bytes=-5", 895, 900),
        ("bytes=-5000", 0, 900),
        ("bytes=10-5000", 10, 900),
        ("Bytes=899-899", 899, 900),
    ):
        answer = await get("/site/app.js", Range=wanted)
        assert answer.status == 206, wanted
        assert answer.body == whole[start:stop]
        assert answer.field(b"content-range") == b"bytes %d-%d/900" % (start, stop - 1)
    for wanted in ("bytes=0-1,5-6", "bytes=5-3", "bytes=x", "lines=1-2", "bytes=-", "bytes=1"):
        answer = await get("/site/app.js", Range=wanted)
        assert (answer.status, answer.body) == (200, whole), wanted
    for wanted in ("bytes=900-", "bytes=1000-2000", "bytes=-0"):
        answer = await get("/site/app.js", Range=wanted)
        assert (answer.status, answer.field(b"content-range")) == (416, b"bytes */900"), wanted


@pytest_twisted.ensureDeferred
async def test_a_download_goes_on_only_with_the_same_file(get: Any, release: Path) -> None:
    """`If-Range`: a part of what it was, or all of what it is now."""
    tag = (await get("/site/app.js")).field(b"etag").decode()
    assert (await get("/site/app.js", Range="bytes=5-", If_Range=tag)).status == 206
    date = "Tue, 14 Nov 2023 22:13:20 GMT"
    assert (await get("/site/app.js", Range="bytes=5-", If_Range=date)).status == 206
    for other in ('"x"', f"W/{tag}", "Tue, 14 Nov 2023 22:13:21 GMT", "soon"):
        assert (await get("/site/app.js", Range="bytes=5-", If_Range=other)).status == 200
    os.unlink(release / "dist/app.js")
    write(release, {"dist/app.js": SITE["dist/app.js"]})
    os.utime(release / "dist/app.js", (MONDAY + 1, MONDAY + 1))
    assert (await get("/site/app.js", Range="bytes=5-", If_Range=tag)).status == 200


@pytest_twisted.ensureDeferred
async def test_what_was_packed_beforehand_is_sent_to_who_can_unpack_it(
    get: Any, release: Path
) -> None:
    plain = await get("/site/app.js")
    assert plain.field(b"vary") is None
    packed = gzip.compress(SITE["dist/app.js"].encode())
    (release / "dist/app.js.gz").write_bytes(packed)
    (release / "dist/app.js.br").write_bytes(b"brotli")
    for accepted, coding in (
        ("gzip", b"gzip"),
        ("gzip, br", b"br"),
        ("gzip, br;q=0.5", b"gzip"),
        ("zstd", None),
        ("*", b"br"),
        ("br;q=0, *;q=0.1", b"gzip"),
        ("gzip;q=0", None),
        ("identity, gzip;q=0.5", None),
        ("", None),
    ):
        answer = await get("/site/app.js", Accept_Encoding=accepted)
        assert answer.field(b"content-encoding") == coding, accepted
        assert answer.field(b"vary") == b"Accept-Encoding"
        assert answer.field(b"content-type") == b"text/javascript; charset=utf-8"
        assert (answer.field(b"etag") == plain.field(b"etag")) is (coding is None)
        assert answer.field(b"content-length") == b"%d" % len(answer.body)
    assert (await get("/site/app.js.gz")).field(b"content-type") == b"application/gzip"
    assert (await get("/site/app.js.gz")).field(b"content-encoding") is None


@pytest_twisted.ensureDeferred
async def test_a_name_with_a_hash_keeps_for_a_year(get: Any, release: Path) -> None:
    """Only where it can be nothing else: an English word is no hash."""
    write(
        release,
        {
            "dist/report-20240115.pdf": "",
            "dist/about-deadbeef.js": "",
            "dist/page-3f2a9c1b.html": "",
            "dist/_next/static/chunks/main.js": "",
        },
    )
    for path, keeps in (
        ("main.3f2a9c1b.js", True),
        ("_next/static/chunks/main.js", True),
        ("report-20240115.pdf", False),
        ("about-deadbeef.js", False),
        ("page-3f2a9c1b.html", False),
        ("app.js", False),
    ):
        answer = await get("/site/" + path)
        assert (b"immutable" in answer.field(b"cache-control")) is keeps, path


def test_codings_by_quality() -> None:
    assert accepted_codings(b"gzip;q=0.8, br;q=0.9, zstd") == (b"zstd", b"br", b"gzip")
    assert accepted_codings(b"deflate") == ()
    assert accepted_codings(b"x-gzip") == (b"gzip",)
    assert accepted_codings(b";;,q=,gzip;q=7") == (b"gzip",)


# --- sending


@pytest_twisted.ensureDeferred
async def test_a_slow_reader_holds_little_and_gets_all(
    corridor: Any, get: Any, release: Path
) -> None:
    """16 MiB for a client that does not read: most of it stays on the disk until it does."""
    with (release / "dist/big.bin").open("wb") as file:
        file.truncate(16 * 1024 * 1024)
    client = await corridor.connect()
    client.transport.pauseProducing()
    client.send(b"GET /site/big.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await settled(reactor, lambda: corridor.factory.connections)
    (connection,) = corridor.factory.connections

    def sent() -> bool:
        corridor.clock.advance(0)
        return connection.outlet.queued > 256 * 1024

    await settled(reactor, sent)
    for _ in range(100):
        corridor.clock.advance(0)
    assert connection.outlet.queued < 1024 * 1024
    client.transport.resumeProducing()

    def come() -> bool:
        corridor.clock.advance(0)
        return len(client.received) > 16 * 1024 * 1024

    await settled(reactor, come)
    await settled(reactor, lambda: corridor.orchestrator.in_flight() == 0)


@pytest_twisted.ensureDeferred
async def test_a_file_that_becomes_shorter_cuts_the_answer_off(
    corridor: Any, get: Any, release: Path
) -> None:
    """A client must not take half a file for a whole one."""
    big = release / "dist/big.bin"
    big.write_bytes(b"x" * 1024 * 1024)
    client = await corridor.connect()
    client.send(b"GET /site/big.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await client.take(b"\r\n\r\n")
    os.truncate(big, 200 * 1024)
    for _ in range(10):
        corridor.clock.advance(0)
    await settled(reactor, lambda: client.reason)
    assert len(client.received) < 1024 * 1024
    assert corridor.records()[-1]["mood"] == "broken"
    assert corridor.orchestrator.in_flight() == 0


@pytest_twisted.ensureDeferred
async def test_who_leaves_early_leaves_nothing_open(corridor: Any, get: Any, release: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    (release / "dist/big.bin").write_bytes(b"x" * 4 * 1024 * 1024)
    client = await corridor.connect()
    client.send(b"GET /site/big.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await client.take(b"\r\n\r\n")
    client.transport.abortConnection()
    await settled(reactor, lambda: corridor.orchestrator.in_flight() == 0)
    corridor.clock.advance(1)
    await settled(reactor, lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert corridor.records()[-1]["status"] == 499


@pytest_twisted.ensureDeferred
async def test_two_requests_on_one_connection(corridor: Any, get: Any) -> None:
    """The same head again, which the connection remembers, and another one after it."""
    client = await corridor.connect()
    for path, body in ((b"docs/", b"docs"), (b"docs/", b"docs"), (b"", b"home")):
        client.send(b"GET /site/%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
        assert body in (await client.answer()).body


# --- no way out, whatever is asked for


class Taken:
    """An answer that keeps all."""

    def __init__(self) -> None:
        self.body = b""
        self.status = 0

    def started(self, status: int, fields: Any, length: int | None) -> None:
        self.status = status

    def data(self, chunk: bytes) -> None:
        self.body += chunk

    def ended(self) -> None:
        pass

    def failed(self, error: CallFailed) -> None:
        self.status = error.status


PLACES = [
    f"{place}{name}"
    for place in ("", "a/", "7/", "7/a/", "7/dist/", "7/dist/a/")
    for name in ("index.html", "b", ".hidden/b", "manifest.json")
]
"""Where files are, beneath a directory in which `7` is the release."""

NAMES = st.sampled_from(["a", "b", "dist", "link", "other", "b", "index.html", ".hidden"])
ODD = st.sampled_from(
    ["..", ".", "", "%2e%2e", ".%2e", "..%2f", "%2f", "%5c..", "..;", "%00", "%61", "\\..", "%252e"]
)
PATHS = st.one_of(st.lists(NAMES, max_size=3), st.lists(st.one_of(NAMES, ODD), max_size=6)).map(
    "/".join
)
LINKS = st.dictionaries(
    st.sampled_from(["link", "other", "a/link", "a/other", "dist", "dist/link", "dist/a/link"]),
    st.one_of(
        st.builds(
            lambda ups, place: "../" * ups + place,
            st.integers(0, 4),
            st.sampled_from([*PLACES, ".", "7", "7/dist", "7/a", "a", "dist", "link", "other"]),
        ),
        st.lists(st.one_of(NAMES, st.just("..")), min_size=1, max_size=5).map("/".join),
    ),
    max_size=5,
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, dict[str, str]]:
    """Give a root, a path and links; the path is often that of a link, or of what is behind it."""
    root = draw(st.sampled_from(["", "dist", "dist/a", "a", "link", "a/link"]))
    links = draw(LINKS)
    known = sorted(name[len(root) :].strip("/") for name in links if name.startswith(root))
    if not known or draw(st.integers(0, 3)) == 0:
        return root, draw(PATHS), links
    behind = draw(st.sampled_from(["", "/", "/b", "/a/b", "/.hidden/b", "/link", "/../b"]))
    return root, draw(st.sampled_from(known)) + behind, links


@settings(max_examples=300, deadline=None)
@given(request=requests())
def test_no_path_and_no_link_leads_out(
    tmp_path_factory: pytest.TempPathFactory, request: tuple[str, str, dict[str, str]]
) -> None:
    """Any mix of segments, escapes and links yields bytes from inside of the root, or none."""
    root, path, links = request
    base = tmp_path_factory.mktemp("base")
    release = base / "7"
    for name, leads_to in links.items():
        place = release / name
        with suppress(OSError):  # a link stands where its directory would be
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(leads_to)
    for name in PLACES:  # each file says where it is
        place = base / name
        if not place.parent.is_symlink() and not place.exists():
            with suppress(OSError):
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(os.path.realpath(place), encoding="utf-8")
    files = Files(str(release), root, spa=True)
    route = _route(files)
    taken = Taken()
    try:
        head = read_request(
            f"GET /site/{path} HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\n\r\n".encode(), Limits()
        )
        FileServer(Clock()).send(FakeLease(route, route.targets[0]), asked_of(head, route), taken)
    except CallFailed:
        return
    if taken.body:
        found, served = Path(taken.body.decode()), Path(os.path.realpath(release / root))
        assert served.is_relative_to(release)
        assert found.is_relative_to(served)
        assert not any(part.startswith(".") for part in found.relative_to(served).parts)
        assert found != release / "manifest.json"


def _route(files: Files) -> Any:
    from tests.routing.conftest import route

    target = Target("deployment.7", Address(), files=files)
    return route("x/site", Kind.STATIC, targets=(target,))
