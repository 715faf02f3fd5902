"""Static deployments on a real server: built by `install`, read by curl, replaced under load."""

from __future__ import annotations

import collections
import http.client
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.functional.conftest import Server, git_repository, until

SITE = {
    "manifest.json": """{
      "container": "node:18-alpine", "static": {"root": "dist", "spa": true},
      "install": "sh build.sh"
    }""",
    "build.sh": (
        "mkdir -p dist && cp page.html dist/index.html && seq 1 20000 > dist/numbers.txt"
        " && gzip -k dist/numbers.txt\n"
    ),
    "page.html": "one",
}
NUMBERS = "".join(f"{n}\n" for n in range(1, 20001)).encode()
PLACE = {"domain": "localhost", "path": "/site"}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a site that has to be built."""
    git_repository(tmp_path / "site", SITE)
    return tmp_path / "site"


@pytest.fixture
def site(server: Server, repository: Path) -> Iterator[str]:
    """The site's address."""
    answer = server.deploy("/site", f"file://{repository}")
    assert answer.status_code == 200, answer.text
    yield server.url + "/site"
    server.api("DELETE", "deployments", PLACE)


def curl(*arguments: str, code: int = 0) -> bytes:
    """Run curl; give what it printed."""
    done = subprocess.run(["curl", "-sS", *arguments], capture_output=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.mark.program("curl")
def test_what_install_built_is_there_for_curl(site: str, tmp_path: Path) -> None:
    """Plain, packed, in part, and resumed where a download broke off."""
    file = tmp_path / "numbers.txt"
    assert curl(f"{site}/numbers.txt") == NUMBERS
    said = curl("--compressed", "-o", str(file), "-D-", f"{site}/numbers.txt").lower()
    assert b"content-encoding: gzip" in said
    assert file.read_bytes() == NUMBERS
    assert curl("-r", "5-9", f"{site}/numbers.txt") == NUMBERS[5:10]
    file.write_bytes(NUMBERS[:50000])
    curl("-C", "-", "-o", str(file), f"{site}/numbers.txt")
    assert file.read_bytes() == NUMBERS
    assert curl("-L", site) == b"one"
    assert curl("-H", "Accept: text/html", f"{site}/a/page/of/the/application") == b"one"
    assert curl("--path-as-is", "-w", "%{http_code}", f"{site}/../../etc/passwd")[-3:] == b"400"
    assert curl("-w", "%{http_code}", f"{site}/.ploinky/queue")[-3:] == b"404"


@pytest.mark.program("curl")
def test_a_large_file(site: str, server: Server, tmp_path: Path) -> None:
    """A gigabyte goes out whole, and others are answered meanwhile."""
    deployments = server.directory / ".ploinky-cloud/deployments"
    (code,) = deployments.glob("*/releases/*/dist")
    with (code / "large.bin").open("wb") as large:
        large.truncate(1024 * 1024 * 1024)
    downloads = [
        subprocess.Popen(
            ["curl", "-sS", "-o", "/dev/null", "-w", "%{size_download}", f"{site}/large.bin"],
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    slowest = 0.0
    while any(download.poll() is None for download in downloads):
        answer = requests.get(site + "/", timeout=10)
        assert answer.text == "one"
        slowest = max(slowest, answer.elapsed.total_seconds())
    sizes = [download.communicate()[0] for download in downloads]
    assert sizes == [b"1073741824"] * 2
    assert slowest < 2


class Readers:
    """Browsers in the background, which read one page again and again.

    Attributes:
        outcomes: How often each status and text (or the name of an exception) came back.
    """

    def __init__(self, url: str, clients: int = 4) -> None:
        self._address = urlsplit(url).netloc
        self._path = urlsplit(url).path
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]
        self.outcomes: collections.Counter[tuple[int, str]] = collections.Counter()

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=30)
        while not self._over.wait(0.005):
            try:
                connection.request("GET", self._path)
                answer = connection.getresponse()
                outcome = (answer.status, answer.read().decode())
            except (OSError, http.client.HTTPException) as error:
                outcome = (0, type(error).__name__)
                connection.close()
            self.outcomes[outcome] += 1


def test_a_redeploy_drops_no_request(site: str, server: Server, repository: Path) -> None:
    """Also where it fails, and where it is restarted: readers see one whole site or the other."""
    with Readers(site + "/") as readers:
        until(lambda: readers.outcomes[200, "one"] > 50, "the readers read")
        git_repository(repository, {"page.html": "two"})
        assert server.deploy("/site", f"file://{repository}").status_code == 200
        assert requests.get(site + "/", timeout=10).text == "two"
        git_repository(repository, {"build.sh": "echo no compiler; exit 3\n"})
        answer = server.deploy("/site", f"file://{repository}")
        assert (answer.status_code, answer.json()["code"]) == (422, "INSTALL_FAILED")
        assert "no compiler" in answer.text
        assert server.api("POST", "deployments/restart", PLACE).status_code == 200
    assert set(readers.outcomes) == {(200, "one"), (200, "two")}


def test_what_cannot_be_served_says_what_to_do(site: str, server: Server, repository: Path) -> None:
    """The deploy fails, and what served before still does."""
    git_repository(repository, {"build.sh": "mkdir public; echo x > public/index.html\n"})
    answer = server.deploy("/site", f"file://{repository}")
    assert (answer.status_code, answer.json()["code"]) == (422, "PROBE_FAILED")
    assert "public" in answer.json()["message"]
    assert "static.root" in answer.json()["message"]
    assert requests.get(site + "/", timeout=10).text == "one"


def test_a_site_outlives_its_server(site: str, server: Server) -> None:
    """Stopped, started, and its leader killed: the same files under the same versions."""
    tag = requests.get(site + "/", timeout=10).headers["ETag"]
    assert server.api("POST", "deployments/stop", PLACE).status_code == 200
    answer = requests.get(site + "/", timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (503, "NO_HEALTHY_INSTANCE")
    assert server.api("POST", "deployments/start", PLACE).status_code == 200
    with Readers(site + "/") as readers:
        until(lambda: readers.outcomes[200, "one"] > 20, "the readers read")
        server.kill_leader()
        server.start()
    assert set(readers.outcomes) == {(200, "one")}
    answer = requests.get(site + "/", headers={"If-None-Match": tag}, timeout=10)
    assert answer.status_code == 304
