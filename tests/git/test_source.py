"""Mirrors and checkouts as those who deploy see them."""

from __future__ import annotations

import itertools
import os
import shutil
from hashlib import sha1
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.task import Clock

from ploinky.deploy_errors import (
    RefNotFound,
    RepositoryUnreachable,
    SourceError,
    SourceTooLarge,
    UrlRefused,
)
from ploinky.git.bounds import Limits
from ploinky.source_values import GitCredential, GitSource
from ploinky.testing.git import File, LocalOrigin

A_MINUTE = 60.0


def at(origin: LocalOrigin, ref: str = "") -> GitSource:
    """A place in its history, named by an admin."""
    return GitSource(origin.url, ref, any_file_url=True)


def mirror_of(tmp_path: Path) -> Path:
    """The one mirror there is."""
    (mirror,) = (tmp_path / "repos").glob("*.git")
    return mirror


@pytest_twisted.ensureDeferred
async def test_a_mirror_is_fetched_again_when_it_is_no_longer_fresh(repositories, http, origin):
    """Until then, a push shows only to those who ask for the latest."""
    clock = Clock()
    source = repositories(clock, cache_seconds=A_MINUTE)
    place = GitSource(http.url)
    old = origin.commit({"a": "1"})
    assert await source.resolve(place, False) == old
    new = origin.commit({"a": "2"})
    clock.advance(A_MINUTE - 1)
    assert await source.resolve(place, False) == old
    assert http.refs_asked == 1
    clock.advance(1)
    assert await source.resolve(place, False) == new
    assert http.refs_asked == 2


@pytest_twisted.ensureDeferred
async def test_a_branch_pushed_after_the_last_fetch_is_found(source, http, origin):
    """Who names something that a fresh mirror lacks does not wait for it to become stale."""
    origin.commit({"a": "1"})
    await source.resolve(GitSource(http.url), False)
    pushed = origin.commit({"a": "2"}, branch="topic")
    assert await source.resolve(GitSource(http.url, "topic"), False) == pushed


@pytest_twisted.ensureDeferred
async def test_those_who_ask_at_once_share_a_fetch(source, http, origin):
    """Ten deploys of one repository clone it once."""
    commit = origin.commit({"a": "1"})
    asked = [ensureDeferred(source.resolve(GitSource(http.url), False)) for _ in range(10)]
    assert await gatherResults(asked) == [commit] * 10
    assert http.refs_asked == 1


@pytest_twisted.ensureDeferred
async def test_a_push_during_a_fetch_is_not_missed(source, http, origin):
    """Whoever wants the latest does not share a fetch that began before; ten share the next."""
    origin.commit({"a": "1"})
    pushed = []

    def push_and_ask() -> None:
        http.midway = lambda: None
        pushed.append(origin.commit({"a": "2"}))

    http.midway = push_and_ask
    first = ensureDeferred(source.resolve(GitSource(http.url), True))
    late = [ensureDeferred(source.resolve(GitSource(http.url), True)) for _ in range(10)]
    await first
    assert await gatherResults(late) == pushed * 10
    assert http.refs_asked == 2


@pytest_twisted.ensureDeferred
async def test_the_default_branch_is_the_remotes_own(source, origin):
    """Whatever it is called; where it names one that is gone, `main` or `master`, or none."""
    trunk = origin.commit({"a": "1"}, branch="trunk")
    origin.git("symbolic-ref", "HEAD", "refs/heads/trunk")
    assert await source.resolve(at(origin), True) == trunk
    origin.git("symbolic-ref", "HEAD", "refs/heads/gone")
    with pytest.raises(RefNotFound, match=r"no default branch.*trunk"):
        await source.resolve(at(origin), True)
    master = origin.commit({"a": "2"}, branch="master")
    assert await source.resolve(at(origin), True) == master
    main = origin.commit({"a": "3"}, branch="main")
    assert await source.resolve(at(origin), True) == main


@pytest_twisted.ensureDeferred
async def test_a_repository_without_commits_is_told_from_one_that_is_away(source, origin):
    """The next step is a push, not a look at the network."""
    with pytest.raises(RefNotFound, match="no commit yet"):
        await source.resolve(at(origin), False)


@pytest_twisted.ensureDeferred
async def test_tags_lead_to_commits(source, origin):
    """Annotated, nested, shadowed by a branch; one that leads to files is refused."""
    old = origin.commit({"a": "1"}, tag="v1")
    origin.git("tag", "--annotate", "--message", "x", "v1-again", "v1")
    branch = origin.commit({"a": "2"}, branch="v1")
    origin.git("tag", "files", f"{old}^{{tree}}")
    assert await source.resolve(at(origin, "v1-again"), False) == old
    assert await source.resolve(at(origin, "v1"), False) == branch
    assert await source.resolve(at(origin, "refs/tags/v1"), False) == old
    with pytest.raises(RefNotFound, match="not to a commit"):
        await source.resolve(at(origin, "files"), False)


@pytest_twisted.ensureDeferred
async def test_an_ambiguous_commit_id_is_said_to_be_one(source, origin):
    """It is there, only not long enough."""
    first = origin.commit({"a": "1"})
    tree = origin.git("rev-parse", f"{first}^{{tree}}")
    who = "test <test@example.invalid> 0 +0000"
    seen: dict[str, bytes] = {}
    for number in itertools.count():
        text = f"tree {tree}\nparent {first}\nauthor {who}\ncommitter {who}\n\n{number}\n".encode()
        short = sha1(b"commit %d\0" % len(text) + text).hexdigest()[:4]
        if short in seen:
            break
        seen[short] = text
    for name, content in (("x", text), ("y", seen[short])):
        commit = origin.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=content)
        origin.git("update-ref", f"refs/heads/{name}", commit)
    with pytest.raises(RefNotFound, match="several commit ids"):
        await source.resolve(at(origin, short), False)
    assert await source.resolve(at(origin, commit[:20]), False) == commit


@pytest_twisted.ensureDeferred
async def test_rewritten_history_and_deleted_branches_are_followed(source, origin, tmp_path):
    """A branch `a` may become `a/b`, and main anything."""
    origin.commit({"a": "1"})
    origin.commit({"a": "1"}, branch="a")
    await source.resolve(at(origin), True)
    made = mirror_of(tmp_path).stat().st_ino
    for name in ("a", "main"):
        origin.git("update-ref", "-d", f"refs/heads/{name}")
    rewritten = origin.commit({"a": "3"})
    nested = origin.commit({"a": "4"}, branch="a/b")
    assert await source.resolve(at(origin), True) == rewritten
    assert await source.resolve(at(origin, "a/b"), False) == nested
    with pytest.raises(RefNotFound, match="a/b"):
        await source.resolve(at(origin, "a"), False)
    assert mirror_of(tmp_path).stat().st_ino == made  # fetched, not cloned again


@pytest_twisted.ensureDeferred
async def test_file_urls_need_a_root_or_an_admin(repositories, origin, tmp_path):
    """`file:///etc` is nobody's way in."""
    commit = origin.commit({"a": "1"})
    source = repositories(file_roots=(str(origin.directory.parent),))
    assert await source.resolve(GitSource(origin.url), False) == commit
    with pytest.raises(UrlRefused, match="gitFileRoots"):
        await source.resolve(GitSource("file:///etc"), False)
    with pytest.raises(RepositoryUnreachable, match="no such Git repository"):
        await source.resolve(GitSource("file:///etc", any_file_url=True), False)
    with pytest.raises(UrlRefused):
        await source.resolve(GitSource(f"ext::sh -c touch% {tmp_path}/made"), False)
    with pytest.raises(UrlRefused):
        await source.checkout(GitSource("--upload-pack=x"), commit, "", str(tmp_path / "x"))
    assert not (tmp_path / "made").exists()


@pytest_twisted.ensureDeferred
async def test_a_checkout_has_nothing_of_git_in_it(source, origin, tmp_path):
    """No `.git`, no hooks run, submodules empty, large-file pointers as they are."""
    origin.git("config", "uploadpack.packObjectsHook", f"touch {tmp_path}/hooked; exec")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    commit = origin.commit(
        {
            ".gitattributes": "*.bin filter=lfs\nstamp export-subst ident\nhidden export-ignore\n",
            ".gitmodules": '[submodule "sub"]\n\tpath = sub\n\turl = file:///etc\n',
            "big.bin": pointer,
            "stamp": "$Format:%H$",
            "hidden": "here",
            "sub": File(b"1" * 40, "160000"),
        }
    )
    await source.resolve(at(origin), False)
    place = tmp_path / "release"
    await source.checkout(at(origin), commit, "", str(place))
    assert not (place / ".git").exists()
    assert list((place / "sub").iterdir()) == []
    assert (place / "big.bin").read_text() == pointer
    assert (place / "stamp").read_text() == "$Format:%H$"
    assert (place / "hidden").read_text() == "here"
    assert not (tmp_path / "hooked").exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".release")] == []


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("l", "/etc/passwd"),
        ("l", "../x"),
        ("d/l", "../../x"),
        ("d/l", "up/../../x"),
        ("l", "/"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_link_that_leads_out_is_refused_by_name(source, origin, tmp_path, path, target):
    """Nobody gets to read the host through the agent's directory."""
    commit = origin.commit(
        {"a": "1", "d/up": File(b"..", "120000"), path: File(target.encode(), "120000")}
    )
    await source.resolve(at(origin), False)
    with pytest.raises(SourceError, match=f"{path} .* symbolic link"):
        await source.checkout(at(origin), commit, "", str(tmp_path / "release"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["origins", "repos"]


@pytest_twisted.ensureDeferred
async def test_links_inside_are_kept(source, origin, tmp_path):
    """Through directories and dots, dangling ones and loops too."""
    links = {"d/l": "../a", "e": "d", "e2": "e/../a", "dangling": "nothing", "loop": "loop"}
    commit = origin.commit(
        {"a": "1", "d/x": "2", **{k: File(v.encode(), "120000") for k, v in links.items()}}
    )
    await source.resolve(at(origin), False)
    place = tmp_path / "release"
    await source.checkout(at(origin), commit, "", str(place))
    assert {name: os.readlink(place / name) for name in links} == links


@pytest_twisted.ensureDeferred
async def test_a_tree_that_writes_outside_is_refused(source, origin, tmp_path):
    """Trees made by hand can name `..` and `.git`; nothing is written for them."""
    blob = origin.blob(b"evil")
    inner = origin.git("mktree", stdin=f"100644 blob {blob}\tescaped\n".encode())
    for name in ("..", ".git", ".GIT", "git~1"):
        entry = f"40000 {name}\0".encode() + bytes.fromhex(inner)
        tree = origin.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=entry)
        commit = origin.commit_tree(tree)
        await source.resolve(at(origin), True)
        with pytest.raises(SourceError):
            await source.checkout(at(origin), commit, "", str(tmp_path / "deep" / "release"))
    assert not list(tmp_path.rglob("escaped"))
    assert not list(tmp_path.glob("deep/*"))


@pytest_twisted.ensureDeferred
async def test_a_checkout_over_the_limit_is_refused(repositories, origin, tmp_path):
    """In bytes or in files, before anything is written."""
    source = repositories(limits=Limits(checkout_bytes=1000, entries=10))
    place = str(tmp_path / "release")
    large = origin.commit({"a": b"x" * 1001})
    many = origin.commit({f"f{n}": "" for n in range(11)})
    await source.resolve(at(origin), False)
    for commit in (large, many):
        with pytest.raises(SourceTooLarge, match="limit of 1,000 bytes or 10 files"):
            await source.checkout(at(origin), commit, "", place)
    with pytest.raises(SourceTooLarge):
        await source.agents(at(origin))
    assert not (tmp_path / "release").exists()


@pytest_twisted.ensureDeferred
async def test_a_few_objects_that_stand_for_billions_of_files_are_refused(
    repositories, origin, tmp_path
):
    """A tree of trees of trees is counted, not walked to its end."""
    blob = origin.blob(b"")
    entry = f"100644 blob {blob}"
    for _ in range(10):
        lines = "".join(f"{entry}\tf{n}\n" for n in range(10))
        tree = origin.git("mktree", stdin=lines.encode())
        entry = f"040000 tree {tree}"
    commit = origin.commit_tree(tree)
    source = repositories(limits=Limits(entries=5000))
    await source.resolve(at(origin), False)
    with pytest.raises(SourceTooLarge):
        await source.checkout(at(origin), commit, "", str(tmp_path / "release"))


@pytest_twisted.ensureDeferred
async def test_a_repository_over_the_limit_is_not_kept(repositories, origin, tmp_path):
    """Neither at the first fetch nor when it grows later."""
    source = repositories(limits=Limits(mirror_bytes=200_000))
    origin.commit({"a": "small"})
    await source.resolve(at(origin), False)
    origin.commit({"a": os.urandom(300_000)})
    with pytest.raises(SourceTooLarge, match="200,000 bytes"):
        await source.resolve(at(origin), True)
    assert list((tmp_path / "repos").glob("*.git*")) == []
    with pytest.raises(SourceTooLarge):
        await source.resolve(at(origin), True)
    assert list((tmp_path / "repos").glob("*.git*")) == []


DAMAGE = {
    "packs gone": lambda mirror: shutil.rmtree(mirror / "objects" / "pack"),
    "packs cut": lambda mirror: [
        (p.chmod(0o600), p.write_bytes(p.read_bytes()[:40]))
        for p in (mirror / "objects" / "pack").glob("*.pack")
    ],
    "packs overwritten": lambda mirror: [
        (p.chmod(0o600), p.write_bytes(b"\xff" * p.stat().st_size))
        for p in (mirror / "objects" / "pack").iterdir()
    ],
    "HEAD gone": lambda mirror: (mirror / "HEAD").unlink(),
    "config broken": lambda mirror: (mirror / "config").write_text("[core"),
    "refs overwritten": lambda mirror: [
        p.write_bytes(b"\0junk") for p in (mirror / "refs").rglob("*") if p.is_file()
    ],
    "all of it gone": shutil.rmtree,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("fresh", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_damaged_mirror_is_cloned_again(source, origin, tmp_path, damage, fresh):
    """Whatever the disk lost, the next deploy has it back."""
    commit = origin.commit({"a": "1", "demo/manifest.json": "{}"})
    await source.resolve(at(origin), False)
    DAMAGE[damage](mirror_of(tmp_path))
    assert await source.resolve(at(origin), fresh) == commit
    DAMAGE[damage](mirror_of(tmp_path))
    await source.checkout(at(origin), commit, "", str(tmp_path / "release"))
    assert (tmp_path / "release" / "a").read_text() == "1"
    DAMAGE[damage](mirror_of(tmp_path))
    assert [agent.name for agent in await source.agents(at(origin))] == ["demo"]


@pytest_twisted.ensureDeferred
async def test_what_a_killed_git_left_does_not_stop_the_next(source, origin, tmp_path):
    """Lock files and half a pack are cleared away."""
    origin.commit({"a": "1"})
    await source.resolve(at(origin), False)
    mirror = mirror_of(tmp_path)
    made = mirror.stat().st_ino
    left = ["packed-refs.lock", "refs/heads/main.lock", "objects/pack/tmp_pack_x", "config.lock"]
    for name in left:
        (mirror / name).write_text("")
    pushed = origin.commit({"a": "2"})
    assert await source.resolve(at(origin), True) == pushed
    assert not any((mirror / name).exists() for name in left)
    assert mirror.stat().st_ino == made  # fetched, not cloned again


@pytest_twisted.ensureDeferred
async def test_many_fetches_do_not_leave_many_packs(source, origin, tmp_path):
    """Git joins them now and then, so that a mirror stays fast."""
    for number in range(25):
        commit = origin.commit({"a": str(number)})
        await source.resolve(at(origin), True)
    assert len(list((mirror_of(tmp_path) / "objects" / "pack").glob("*.pack"))) < 20
    await source.checkout(at(origin), commit, "", str(tmp_path / "release"))


@pytest_twisted.ensureDeferred
async def test_forgetting_leaves_checkouts_and_other_mirrors(source, origin, tmp_path):
    """Removing a repository leaves deployments running."""
    other = LocalOrigin(tmp_path / "origins" / "other.git")
    other.commit({"a": "1"})
    commit = origin.commit({"a": "1"})
    await source.resolve(at(origin), False)
    await source.resolve(at(other), False)
    await source.checkout(at(origin), commit, "", str(tmp_path / "release"))
    await source.forget(origin.url)
    assert (tmp_path / "release" / "a").exists()
    assert f"{other.url}\n" == (mirror_of(tmp_path) / "description").read_text()


@pytest_twisted.ensureDeferred
async def test_mirrors_are_private(source, origin, tmp_path):
    """Other users of the machine cannot read them, whatever the umask says."""
    before = os.umask(0)
    try:
        origin.commit({"a": "1"})
        await source.resolve(at(origin), False)
    finally:
        os.umask(before)
    assert (tmp_path / "repos").stat().st_mode & 0o077 == 0


@pytest_twisted.ensureDeferred
async def test_the_servers_own_git_settings_do_not_matter(
    repositories, origin, tmp_path, monkeypatch
):
    """Not its variables, not its files: URLs rewritten there are not rewritten here."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f'[url "file:///nowhere"]\n\tinsteadOf = {origin.url}\n')
    for name, value in {
        "HOME": str(home),
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_DIR": str(tmp_path / "nowhere"),
        "GIT_TRACE": str(tmp_path / "traced"),
        "GIT_OBJECT_DIRECTORY": str(tmp_path / "nowhere"),
        "GIT_SSH_COMMAND": "false",
    }.items():
        monkeypatch.setenv(name, value)
    commit = origin.commit({"a": "1"})
    assert await repositories().resolve(at(origin), False) == commit
    assert not (tmp_path / "traced").exists()


@pytest_twisted.ensureDeferred
async def test_a_machine_without_git_says_so(repositories, origin):
    """The cause is not the repository."""
    origin.commit({"a": "1"})
    source = repositories(program="git-that-is-not-there")
    with pytest.raises(RepositoryUnreachable, match="install it"):
        await source.resolve(at(origin), False)


@pytest_twisted.ensureDeferred
async def test_agents_are_listed_within_bounds(source, origin):
    """By path; not from dependencies, hidden or deep directories, nor by way of links."""
    origin.commit(
        {
            "b/manifest.json": '{"about": 5}',
            "a/x/manifest.json": "[]",
            "c/manifest.json": b"\xff\xfe",
            "d/manifest.json": b" " * 70_000,
            "e/manifest.json": "[" * 60_000,
            "f/manifest.json": f'{{"about": {"9" * 5000}}}',
            "node_modules/x/manifest.json": "{}",
            ".github/manifest.json": "{}",
            "1/2/3/4/5/manifest.json": "{}",
            "link/manifest.json": File(b"/etc/passwd", "120000"),
        }
    )
    listed = {agent.path: agent.problem for agent in await source.agents(at(origin))}
    assert list(listed) == ["a/x", "b", "c", "d", "e", "f"]
    for path, problem in {
        "a/x": "not a JSON object",
        "b": "about: expected a string",
        "c": "not UTF-8",
        "d": "over 65,536 bytes",
        "e": "nested",
        "f": "a number too long",
    }.items():
        assert problem in listed[path], path


@pytest_twisted.ensureDeferred
async def test_a_credential_opens_a_mirror_for_itself_alone(source, http, origin):
    """That someone else could read a private repository lets nobody in."""
    http.users = {"git": "right"}
    commit = origin.commit({"a": "1"})
    private = GitSource(http.url, credential=GitCredential(token="right"))
    assert await source.resolve(private, False) == commit
    for credential in (None, GitCredential(token="wrong")):
        with pytest.raises(RepositoryUnreachable):
            await source.resolve(GitSource(http.url, credential=credential), False)
        with pytest.raises(RepositoryUnreachable):
            await source.agents(GitSource(http.url, credential=credential))


@pytest_twisted.ensureDeferred
async def test_those_with_different_credentials_do_not_share_a_fetch(source, http, origin):
    """Asking at the same moment as someone who may read lets nobody in."""
    http.users = {"git": "right"}
    commit = origin.commit({"a": "1"})
    private = GitSource(http.url, credential=GitCredential(token="right"))
    first = ensureDeferred(source.resolve(private, False))
    second = ensureDeferred(source.resolve(GitSource(http.url), False))
    with pytest.raises(RepositoryUnreachable):
        await second
    assert await first == commit
