"""The dashboard's page and files, as a browser gets them."""

from __future__ import annotations

import re

import pytest
import pytest_twisted

PAGE = "/management"


def named(html: str) -> list[str]:
    """Give the files that a page or a module asks for."""
    return re.findall(r'(?:src|href)="([^"]+)"', html)


@pytest.mark.parametrize("path", [PAGE, f"{PAGE}/"])
@pytest_twisted.ensureDeferred
async def test_the_page_has_all_that_it_asks_for(server, path):
    """For strangers too: it is where they log in; nothing comes from elsewhere."""
    page = await server.ask("GET", path, key=None)
    assert (page.status, page.field("Content-Type")) == (200, "text/html; charset=utf-8")
    files = named(page.body.decode())
    assert {each.rpartition(".")[2] for each in files} == {"js", "css", "svg"}
    for each in files:
        answer = await server.ask("GET", each, key=None)
        assert (answer.status, answer.field("Cache-Control")) == (
            200,
            "public, max-age=31536000, immutable",
        )
        assert answer.field("X-Content-Type-Options") == "nosniff"


@pytest_twisted.ensureDeferred
async def test_no_script_runs_but_the_dashboards(server):
    """An agent on the same host can serve scripts, and a name or an error can hold markup."""
    first, second = [await server.ask("GET", PAGE, key=None) for _ in range(2)]
    policies = [answer.field("Content-Security-Policy") for answer in (first, second)]
    nonces = [re.search(r"script-src 'nonce-([\w-]{22})';", policy)[1] for policy in policies]
    assert nonces[0] != nonces[1]
    assert f'nonce="{nonces[0]}"' in first.body.decode()
    assert "default-src 'none'" in policies[0]
    assert "unsafe" not in policies[0]
    assert first.field("Cache-Control") == "no-store"


@pytest_twisted.ensureDeferred
async def test_only_files_of_this_version_are_there(server):
    """Nothing beside them, and none of a version that is gone: the page is to be loaded again."""
    (script,) = (
        each for each in named((await server.ask("GET", PAGE)).body.decode()) if ".js" in each
    )
    version = script.split("/")[3]
    for path in (
        script.replace(version, "0" * 16),
        f"{PAGE}/web/{version}/../../setup.cfg",
        f"{PAGE}/web/{version}/index.html",
        f"{PAGE}/web/{version}/",
    ):
        answer = await server.ask("GET", path, key=None)
        assert (answer.status, answer.code) == (404, "NOT_FOUND"), path
