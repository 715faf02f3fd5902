"""Credentials and servers: who is let in, what is said to who is not, what never leaks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.logger import LogPublisher, globalLogPublisher

from ploinky.deploy_errors import RepositoryUnreachable, SourceError, UrlRefused
from ploinky.source_values import GitCredential, GitSource
from tests.git.remotes import HttpRemote

SSH = pytest.mark.program("ssh")
TOKEN = "glpat-very/secret token+%"
USER = "a-user-name-that-is-a-secret"


@pytest.fixture
def logged():
    """All that was logged during the test, as text."""
    events: list[str] = []

    def note(event: dict) -> None:
        events.append(repr(event))

    assert isinstance(globalLogPublisher, LogPublisher)
    globalLogPublisher.addObserver(note)
    yield events
    globalLogPublisher.removeObserver(note)


@pytest.fixture
def told_git(tmp_path: Path) -> tuple[str, Path]:
    """A git that writes down its arguments and variables before it goes to work."""
    record = tmp_path / "told"
    wrapper = tmp_path / "wrapped-git"
    wrapper.write_text(f'#!/bin/sh\n{{ echo "$@"; env; }} >> {record}\nexec git "$@"\n')
    wrapper.chmod(0o755)
    return str(wrapper), record


def files_with(secret: str, *places: Path) -> list[Path]:
    """Which files below the places have a text in them."""
    return [
        path
        for place in places
        for path in place.rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    ]


def processes_with(secret: str) -> list[str]:
    """Which processes have a text in their arguments or variables."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                text = (process / name).read_bytes()
            except OSError:
                continue
            if secret.encode() in text:
                found.append(f"{name}: {text!r}")
    return found


@pytest_twisted.ensureDeferred
async def test_a_token_opens_a_private_repository_and_shows_nowhere(
    repositories, http, origin, told_git, logged, tmp_path
):
    """Not in arguments, variables, logs, errors, the mirror or the checkout."""
    program, record = told_git
    http.users = {USER: TOKEN}
    seen = []
    http.midway = lambda: seen.append(processes_with(TOKEN) + processes_with(USER))
    source = repositories(program=program)
    commit = origin.commit({"a": os.urandom(10_000)})
    private = GitSource(http.url, credential=GitCredential(username=USER, token=TOKEN))
    assert await source.resolve(private, False) == commit
    await source.checkout(private, commit, "", str(tmp_path / "release"))
    with pytest.raises(SourceError) as caught:
        await source.resolve(GitSource(http.url, "nope", credential=private.credential), True)
    assert http.offered
    assert seen
    assert not any(seen)
    assert "fetch" in record.read_text()
    for secret in (TOKEN, USER):
        assert secret not in record.read_text()
        assert secret not in str(caught.value) + repr(caught.value.details)
        assert not [event for event in logged if secret in event]
        assert files_with(secret, tmp_path / "repos", tmp_path / "release") == []
    assert any("cloned" in event for event in logged)


@pytest_twisted.ensureDeferred
async def test_without_a_token_the_next_step_is_named(source, http, origin):
    """Private and missing look alike from outside, so both are said."""
    http.users = {USER: TOKEN}
    origin.commit({"a": "1"})
    with pytest.raises(RepositoryUnreachable, match=r"is private, or does not exist.*--token"):
        await source.resolve(GitSource(http.url), False)


@pytest_twisted.ensureDeferred
async def test_a_wrong_token_is_said_to_be_wrong(source, http, origin, logged):
    """And is not repeated."""
    http.users = {"git": "right"}
    origin.commit({"a": "1"})
    wrong = GitSource(http.url, credential=GitCredential(token=TOKEN))
    with pytest.raises(RepositoryUnreachable, match=r"token it was given was refused") as caught:
        await source.resolve(wrong, False)
    assert TOKEN not in repr(caught.value) + repr(caught.value.details)
    assert TOKEN not in "".join(logged)
    assert any(TOKEN in offered for offered in http.offered)


@pytest_twisted.ensureDeferred
async def test_a_token_with_a_line_break_inside_is_refused(source, http, origin):
    """It could forge an answer to git; a final line break is a slip and is forgiven."""
    http.users = {"git": "right"}
    commit = origin.commit({"a": "1"})
    forged = GitSource(http.url, credential=GitCredential(token="right\nhost=evil"))
    with pytest.raises(RepositoryUnreachable, match="line break"):
        await source.resolve(forged, False)
    slip = GitCredential(token=" right\n")
    assert await source.resolve(GitSource(http.url, credential=slip), False) == commit


@pytest_twisted.ensureDeferred
async def test_a_redirect_to_another_host_does_not_get_the_token(source, http, origin):
    """It is for the host that the user named."""
    origin.commit({"a": "1"})
    other = HttpRemote(origin.directory.parent)
    try:
        other.users = {"git": "whatever"}
        http.redirect = f"http://{other.host}"
        place = GitSource(http.url, credential=GitCredential(token=TOKEN))
        with pytest.raises(RepositoryUnreachable):
            await source.resolve(place, False)
        assert other.offered == []
    finally:
        other.close()


@pytest_twisted.ensureDeferred
async def test_a_redirect_to_another_kind_of_url_is_not_followed(source, http, origin):
    """A server cannot make us read our own files."""
    origin.commit({"a": "1"})
    http.redirect = f"file://{origin.directory.parent}"
    with pytest.raises(SourceError):
        await source.resolve(GitSource(http.url), False)


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("http://127.0.0.1:1/x", "no connection"),
        pytest.param("ssh://git@127.0.0.1:1/x", "no connection", marks=SSH),
        ("http://{host}/nope.git", "no such Git repository"),
        ("http://nowhere.invalid/x", "cannot be resolved"),
        pytest.param("git@nowhere.invalid:x", "cannot be resolved", marks=SSH),
    ],
)
@pytest_twisted.ensureDeferred
async def test_causes_are_told_apart(source, http, url, cause, tmp_path):
    """No connection, no such name, no such repository; and nothing is left behind."""
    with pytest.raises(RepositoryUnreachable, match=cause):
        await source.resolve(GitSource(url.format(host=http.host)), False)
    assert list((tmp_path / "repos").glob("*.git*")) == []
    assert list((tmp_path / "repos" / "keys").iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_what_a_server_says_cannot_paint_on_a_terminal(repositories, tmp_path):
    """It is quoted, without its control characters and without what looks like a password."""
    program = tmp_path / "loud-git"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *\' fetch \'*) ;; *) exec git "$@";; esac\n'
        "printf 'remote: x\\nfatal: \\033[2Jfailed at http://me:hunter2@host/x\\r\\n' >&2\nexit 128\n"
    )
    program.chmod(0o755)
    with pytest.raises(SourceError) as caught:
        await repositories(program=str(program)).resolve(GitSource("http://host/x"), False)
    assert str(caught.value) == "http://host/x: fatal:  [2Jfailed at http://***@host/x"


@pytest_twisted.ensureDeferred
async def test_an_ssh_key_opens_a_repository_and_is_removed(
    repositories, ssh, origin, told_git, logged, tmp_path
):
    """The first host key seen is kept; the private key is not, nor told to anyone."""
    program, record = told_git
    source = repositories(program=program)
    commit = origin.commit({"a": "1"})
    url = ssh.url(origin.directory)
    place = GitSource(url, credential=GitCredential(ssh_key=ssh.key.replace("\n", "\r\n").strip()))
    assert await source.resolve(place, False) == commit
    assert ssh.host_key in (tmp_path / "repos" / "known_hosts").read_text()
    secret = ssh.key.splitlines()[2]
    assert files_with(secret, tmp_path / "repos") == []
    assert secret not in record.read_text() + "".join(logged)
    assert list((tmp_path / "repos" / "keys").iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_a_refused_missing_or_unusable_ssh_key_is_told_apart(source, ssh, origin):
    """Each has its own next step."""
    origin.commit({"a": "1"})
    url = ssh.url(origin.directory)
    for credential, said in (
        (None, "wants an SSH key"),
        (GitCredential(ssh_key=ssh.other_key), "was refused: add its public half"),
        (GitCredential(ssh_key="not a key"), "cannot be used"),
    ):
        with pytest.raises(RepositoryUnreachable, match=said):
            await source.resolve(GitSource(url, credential=credential), False)


@pytest_twisted.ensureDeferred
async def test_a_host_with_another_key_than_the_known_one_is_refused(source, ssh, origin):
    """Given `known_hosts` is all that counts."""
    commit = origin.commit({"a": "1"})
    url = ssh.url(origin.directory)
    host = f"[127.0.0.1]:{ssh.port}"
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    for line, opened in ((f"{host} {ssh.host_key}", True), (f"{host} {other}", False)):
        place = GitSource(url, credential=GitCredential(ssh_key=ssh.key, known_hosts=line))
        if opened:
            assert await source.resolve(place, True) == commit
        else:
            with pytest.raises(RepositoryUnreachable, match="host's SSH key is not the one"):
                await source.resolve(place, True)


@pytest.fixture
def agent(short_directory: Path, monkeypatch) -> Iterator[None]:
    """An agent of the server's own, with the key that opens everything."""
    place = str(short_directory / "agent")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", place], stdout=subprocess.PIPE)
    assert agent.stdout
    agent.stdout.readline()  # it listens
    monkeypatch.setenv("SSH_AUTH_SOCK", place)
    yield
    agent.kill()
    agent.wait()
    agent.stdout.close()


@pytest_twisted.ensureDeferred
async def test_the_servers_own_identity_is_never_lent(source, ssh, origin, agent):
    """A repository is opened by its own key or not at all."""
    subprocess.run(["ssh-add", "-q", "-"], input=ssh.key.encode(), check=True)
    origin.commit({"a": "1"})
    with pytest.raises(RepositoryUnreachable, match="wants an SSH key"):
        await source.resolve(GitSource(ssh.url(origin.directory)), False)


@pytest_twisted.ensureDeferred
async def test_netrc_is_not_read(repositories, http, origin, tmp_path, monkeypatch):
    """The server's own passwords are not for those who deploy."""
    http.users = {"me": "mine"}
    home = tmp_path / "home"
    home.mkdir()
    (home / ".netrc").write_text("machine 127.0.0.1 login me password mine\n")
    (home / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(home))
    origin.commit({"a": "1"})
    with pytest.raises(RepositoryUnreachable, match="private"):
        await repositories().resolve(GitSource(http.url), False)


@pytest_twisted.ensureDeferred
async def test_an_ssh_url_cannot_carry_an_option(source, tmp_path):
    """`ProxyCommand` would run a program here."""
    for url in (
        f"ssh://-oProxyCommand=touch${{IFS}}{tmp_path}/made/x",
        f"-oProxyCommand=touch {tmp_path}/made@host:x",
        f"git@-oProxyCommand=touch {tmp_path}/made:x",
    ):
        with pytest.raises(UrlRefused):
            await source.resolve(GitSource(url), False)
    assert not (tmp_path / "made").exists()
