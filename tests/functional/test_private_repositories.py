"""Private repositories behind a real server: Git's own HTTP server with passwords, OpenSSH's with keys.

What opens them is looked for while git runs, in every process and file of the machine's part that
is ours; `Server.destroy` looks again, as for every secret of these tests.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from secrets import token_hex

import pytest
import requests

from ploinky.testing.git import File, LocalOrigin
from tests.functional.agents import PYTHON
from tests.functional.conftest import SECRECY, Server, until
from tests.git.remotes import HttpRemote, SshRemote

TOKEN = "glpat-a/very-secret token+%"
"""With characters that a URL, a shell or JSON would write otherwise."""

WRONG = "glpat-the-one-of-yesterday"


def files(says: str = "first") -> dict[str, str]:
    """An agent whose `hello` says this."""
    handler = f"def handle(params, context):\n    return {says!r}\n"
    return {f"app/{n}": t for n, t in {**PYTHON, "handlers/hello.py": handler}.items()}


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that knows no repository yet."""
    server = Server(tmp_path_factory.mktemp("private"), "process")
    for secret in (TOKEN, WRONG):
        SECRECY.note("token", secret)
    try:
        server.start()
        yield server
    finally:
        server.destroy()


@pytest.fixture
def origin(tmp_path: Path) -> LocalOrigin:
    """A repository with an agent."""
    origin = LocalOrigin(tmp_path / "origins" / "demo.git")
    origin.commit(files())
    return origin


@pytest.fixture
def http(origin: LocalOrigin) -> Iterator[HttpRemote]:
    """It, behind a password."""
    remote = HttpRemote(origin.directory.parent)
    remote.users = {"git": TOKEN}
    yield remote
    remote.close()


@pytest.fixture
def ssh(origin: LocalOrigin, short_directory: Path) -> Iterator[SshRemote]:
    """It, behind a key."""
    remote = SshRemote(short_directory)
    for line in remote.key.splitlines()[1:-1]:
        SECRECY.note("SSH key", line)
    yield remote
    remote.close()


def refused(server: Server, *arguments: str, says: str, stdin: str = "") -> None:
    """A repository that cannot be added, and why."""
    done = server.p_cli("cloud", "repo", "add", *arguments, check=False, stdin=stdin)
    assert done.returncode == 4
    assert says in done.stderr


def test_a_token_opens_a_repository_and_is_seen_nowhere(
    private: Server, http: HttpRemote, origin: LocalOrigin
) -> None:
    """Not even while git has it; and after a restart, and a sync, it is still there to be used."""
    data = private.directory / ".ploinky-cloud"
    seen: list[str] = []
    http.midway = lambda: seen.extend(["looked", *SECRECY.leaks(data)])
    refused(private, "web", http.url, says="it is private, or does not exist")
    refused(private, "web", http.url, "--token-file", "-", stdin=WRONG, says="token it was given")
    private.p_cli("cloud", "repo", "add", "web", http.url, "--token-file", "-", stdin=TOKEN)
    assert private.deploy("/web", "web").status_code == 200
    assert private.call("/web", "hello").json() == "first"
    origin.commit(files("second"))
    private.stop()
    private.start()
    body = {"domain": "localhost", "path": "/web"}
    assert private.api("POST", "deployments/sync", body).status_code == 200
    assert private.call("/web", "hello").json() == "second"
    assert seen == ["looked"] * 2
    assert {offered.partition(":")[2] for offered in http.offered} == {TOKEN, WRONG}
    for name in ("repositories", "deployments", "audit", "config", "logs?lines=10000"):
        assert not SECRECY.in_bytes(private.api("GET", name).content), name


def test_a_token_in_a_url_is_refused_or_taken_out(
    private: Server, http: HttpRemote, origin: LocalOrigin
) -> None:
    """A deployment's URL is shown in lists; a repository's is kept without it."""
    token = "tok@n:with-an-at"
    SECRECY.note("token", token)
    http.users = {"git": token}
    url = http.url.replace("http://", f"http://git:{token}@")
    answer = private.deploy("/no", url)
    assert answer.status_code == 400
    assert "repo add" in answer.text
    private.p_cli("cloud", "repo", "add", "with-login", url)
    listed = private.api("GET", "repositories").json()["repositories"]
    assert [r["url"] for r in listed if r["name"] == "with-login"] == [http.url]
    assert private.p_cli("cloud", "audit", "list", "--json").stdout.count("with-login")
    assert not SECRECY.in_bytes(private.api("GET", "audit").content)


@pytest.mark.parametrize(
    "url",
    [
        "https://git:{secret}@nowhere.invalid/x.git",
        "https://git:sl/sh-{secret}@nowhere.invalid/x.git",
        "ssh://git:{secret}@nowhere.invalid/x.git",
        "git:{secret}@nowhere.invalid:x.git",
        "ftp://git:{secret}@nowhere.invalid/x.git",
    ],
)
def test_a_secret_in_any_url_is_kept_nowhere(private: Server, url: str) -> None:
    """Refused before anything is written down, and not repeated, whichever way it was put in."""
    secret = f"hunter2-{token_hex(6)}"
    SECRECY.note("password", secret)
    told = url.format(secret=secret)
    place = {"domain": "localhost", "path": "/leaky", "agent": "app", "repository": told}
    assert private.api("POST", "deployments", place).status_code in (400, 422)
    body = {"name": "leaky", "url": told}
    assert private.api("POST", "repositories", body).status_code >= 400
    listed = private.api("GET", "deployments")
    assert all(found["path"] != "/leaky" for found in listed.json()["deployments"])
    assert SECRECY.leaks(private.directory / ".ploinky-cloud") == []


@pytest.mark.program("ssh")
@pytest.mark.program("/usr/sbin/sshd")
def test_a_key_opens_a_repository_and_is_seen_nowhere(
    private: Server, ssh: SshRemote, origin: LocalOrigin, tmp_path: Path
) -> None:
    """Where the host is not who it was said to be, the key is not even shown to it."""
    url = ssh.url(origin.directory)
    key, other, known, unknown = (tmp_path / name for name in ("key", "other", "known", "unknown"))
    key.write_text(ssh.key)
    other.write_text(ssh.other_key)
    known.write_text(f"[127.0.0.1]:{ssh.port} {ssh.host_key}\n")
    unknown.write_text(f"[127.0.0.1]:{ssh.port} {' '.join(PUBLIC.split()[:2])}\n")
    refused(private, "shell", url, says="it wants an SSH key")
    refused(private, "shell", url, "--ssh-key", str(other), says="was refused: add its public half")
    refused(
        private, "shell", url, "--ssh-key", str(key), "--known-hosts", str(unknown),
        says="the host's SSH key is not the one that is known",
    )  # fmt: skip
    private.p_cli(
        *("cloud", "repo", "add", "shell", url, "--ssh-key", str(key), "--known-hosts", str(known))
    )
    assert private.deploy("/shell", "shell").status_code == 200
    assert private.call("/shell", "hello").json() == "first"
    assert SECRECY.leaks(private.directory / ".ploinky-cloud") == []


PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


def test_a_repositorys_submodules_are_not_asked_for(
    private: Server, http: HttpRemote, tmp_path: Path
) -> None:
    """Their host is another: whoever writes `.gitmodules` learns no token, nor that we are here."""
    elsewhere = HttpRemote(tmp_path)
    try:
        origin = LocalOrigin(tmp_path / "origins" / "outer.git")
        modules = f'[submodule "x"]\n\tpath = app/x\n\turl = http://{elsewhere.host}/x.git\n'
        origin.commit({
            **files(), ".gitmodules": modules,
            "app/x": File(b"0123456789012345678901234567890123456789", "160000"),
        })  # fmt: skip
        credential = {"token": TOKEN}
        url = f"http://{http.host}/outer.git"
        body = {"name": "outer", "url": url, "credential": credential}
        assert private.api("POST", "repositories", body).status_code == 200
        assert private.deploy("/outer", "outer").status_code == 200
        assert private.call("/outer", "hello").json() == "first"
        assert (elsewhere.refs_asked, elsewhere.offered) == (0, [])
    finally:
        elsewhere.close()


def github(secret: str, body: bytes) -> Mapping[str, str]:
    """What GitHub proves itself with."""
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Event": "push"}


def gitea(secret: str, body: bytes) -> Mapping[str, str]:
    """What Gitea proves itself with."""
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Gitea-Signature": digest, "X-Gitea-Event": "push"}


def gitlab(secret: str, body: bytes) -> Mapping[str, str]:
    """What GitLab proves itself with."""
    return {"X-Gitlab-Token": secret, "X-Gitlab-Event": "Push Hook"}


@pytest.mark.parametrize("host", [github, gitea, gitlab])
def test_a_push_to_a_private_repository_is_deployed(
    private: Server,
    http: HttpRemote,
    origin: LocalOrigin,
    host: Callable[[str, bytes], Mapping[str, str]],
) -> None:
    """Fetched with the token that was given once; whoever signs wrongly has nothing fetched."""
    name, path = host.__name__, f"/{host.__name__}"
    body = {"name": name, "url": http.url, "credential": {"token": TOKEN}}
    assert private.api("POST", "repositories", body).status_code == 200
    assert private.deploy(path, name, branch="main").status_code == 200
    made = private.p_cli("cloud", "deployments", "hook", "localhost", path, "--json")
    hook = json.loads(made.stdout)
    SECRECY.note("secret of a webhook", hook["secret"])
    pushed = origin.commit(files(name))
    told = json.dumps({"ref": "refs/heads/main", "after": pushed}).encode()
    asked = http.refs_asked
    for secret, sent in ((f"{hook['secret']}x", told), (hook["secret"][:-1], told)):
        answer = requests.post(hook["url"], data=sent, headers=host(secret, sent), timeout=30)
        assert answer.status_code == 401
    assert http.refs_asked == asked
    answer = requests.post(hook["url"], data=told, headers=host(hook["secret"], told), timeout=30)
    assert answer.status_code == 202
    until(lambda: private.call(path, "hello").json() == name, "the push is deployed")
