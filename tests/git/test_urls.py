"""Which URLs and refs the Git room lets in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ploinky.deploy_errors import RefNotFound, RepositoryUnreachable, UrlRefused
from ploinky.git.urls import admit, check_ref, followed, parse


@pytest.mark.parametrize(
    ("raw_url", "url", "name"),
    [
        ("https://github.com/a/demo.git", "https://github.com/a/demo.git", "demo"),
        ("HTTPS://GitHub.com/a/Demo/", "https://github.com/a/Demo", "Demo"),
        ("http://127.0.0.1:8080/x", "http://127.0.0.1:8080/x", "x"),
        ("https://[::1]:8443/x", "https://[::1]:8443/x", "x"),
        ("ssh://git@host:22/a/b.git", "ssh://git@host:22/a/b.git", "b"),
        ("ssh://host/~me/b", "ssh://host/~me/b", "b"),
        ("git@github.com:a/b.git", "git@github.com:a/b.git", "b"),
        ("deploy@[::1]:b", "deploy@[::1]:b", "b"),
        ("file:///srv/git/b.git/", "file:///srv/git/b.git", "b"),
        ("file://localhost/srv/my%20repo", "file:///srv/my%20repo", "my repo"),
        ("file:////srv//x/../b", "file:///srv/b", "b"),
    ],
)
def test_four_kinds_of_url_are_taken(raw_url, url, name):
    """Each has one spelling, so that a repository has one mirror."""
    remote = parse(raw_url)
    assert (remote.url, remote.name) == (url, name)
    assert parse(remote.url) == remote


@pytest.mark.parametrize(
    "raw_url",
    [
        "",
        "--upload-pack=touch /tmp/x",
        "-oProxyCommand=sh",
        "ext::sh -c touch% /tmp/x",
        "fd::3",
        "git://host/x",
        "ftp://host/x",
        "rsync://host/x",
        "helper::https://host/x",
        "transport+https://host/x",
        "/srv/git/x",
        "../x",
        "host:path",
        "ssh://-oProxyCommand=sh/x",
        "ssh://-oProxyCommand=sh@host/x",
        "ssh://git@-host/x",
        "ssh://host/-x",
        "git@-host:x",
        "git@host:-x",
        "git@host::x",
        "-git@host:x",
        "ssh://git:secret@host/x",
        "https://host",
        "https://host/",
        "https:///x",
        "https://host:0/x",
        "https://host:99999/x",
        "https://ho st/x",
        "https://host/x y",
        "https://host/x\n",
        "https://host/x%0aHost:evil",
        "https://host\\evil/x",
        "https://host/x?token=1",
        "https://host/x#y",
        "https://host%00/x",
        "file://elsewhere/x",
        "file:///x%00",
        "file:///x%0a",
        "file:///%ff",
        "https://host/" + "x" * 3000,
    ],
)
def test_every_other_text_is_refused(raw_url):
    """Options, remote helpers, other transports, and what could be read in two ways."""
    with pytest.raises(UrlRefused):
        parse(raw_url)


@pytest.mark.parametrize(
    "raw_url",
    [
        *("https://me:hunter2@host/x", "https://hunter2@host/x", "ssh://git:hunter2@host/x"),
        *("https://me:p@hunter2@host/x", "https://me:p/hunter2@host/x", "me:hunter2@host:x"),
    ],
)
def test_a_credential_in_a_url_is_refused_and_not_repeated(raw_url):
    """It could end up in logs and process lists."""
    with pytest.raises(UrlRefused) as caught:
        parse(raw_url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["://:a" * 200_000, "a:" * 500_000, "https://me:hunter2" + "x" * 4000]
)
def test_what_is_far_too_long_is_refused_at_once(text):
    """And is not repeated: where it would be cut, half of a secret may stand."""
    for refuse, error in ((parse, UrlRefused), (check_ref, RefNotFound)):
        with pytest.raises(error) as caught:
            refuse(text)
        assert len(str(caught.value)) < 3000
        assert "hunter2" not in str(caught.value)


@given(st.text(max_size=60) | st.from_regex(r"[a-z]{2,5}(://|::?|@).{0,40}", fullmatch=True))
def test_whatever_is_let_in_is_no_option_and_no_helper(raw_url):
    """Nothing that gets through could mean something else to git or ssh."""
    try:
        remote = parse(raw_url)
    except UrlRefused:
        return
    assert remote.url.isprintable()
    assert not remote.url.startswith("-")
    assert not remote.site.startswith("-")
    assert "::" not in remote.url.partition("/")[0].replace("[::", "[")
    assert remote.scheme in ("https", "http", "ssh", "file")


def repository(path: Path) -> Path:
    """A directory that has the parts of a repository that `admit` looks at."""
    for name in ("objects", "refs"):
        (path / ".git" / name).mkdir(parents=True)
    return path


def test_file_urls_stay_below_the_allowed_roots(tmp_path):
    """Neither dots nor links nor a common beginning of the name lead out of them."""
    inside = repository(tmp_path / "root" / "x")
    outside = repository(tmp_path / "root-not")
    (tmp_path / "root" / "link").symlink_to(outside)
    roots = [str(tmp_path / "root")]
    assert admit(parse(f"file://{inside}"), roots, False).path == str(inside)
    for path in (outside, f"{inside}/../../root-not", tmp_path / "root" / "link", "/etc", "/"):
        with pytest.raises(UrlRefused, match="gitFileRoots"):
            admit(parse(f"file://{path}"), roots, False)
    with pytest.raises(UrlRefused):
        admit(parse(f"file://{inside}"), [], False)


def test_what_was_registered_below_a_root_cannot_be_changed_for_what_is_not(tmp_path):
    """Whoever may write there would read whatever the server may, by what an admin's word covers."""
    root = tmp_path / "root"
    mine = repository(root / "mine")
    place = parse(f"file://{mine}")
    assert admit(place, [str(root)], True).path == str(mine)
    (mine / ".git/objects/info").mkdir()
    (mine / ".git/objects/info/alternates").write_text("/secret")
    with pytest.raises(UrlRefused, match="borrows"):
        admit(place, [str(root)], True)
    mine.rename(tmp_path / "away")
    mine.symlink_to(repository(tmp_path / "secret"))
    with pytest.raises(UrlRefused, match=f"name {tmp_path}/secret itself"):
        admit(place, [str(root)], True)


def test_an_admin_may_name_any_directory(tmp_path):
    """What does not exist is said so, whoever asks."""
    place = repository(tmp_path / "x")
    assert admit(parse(f"file://{place}"), [], True).path == str(place)
    with pytest.raises(RepositoryUnreachable, match="no directory"):
        admit(parse(f"file://{place}-not"), [], True)


def test_a_link_and_its_place_have_one_mirror(tmp_path):
    """Forgetting either forgets both."""
    repository(tmp_path / "x")
    (tmp_path / "link").symlink_to("x")
    assert followed(parse(f"file://{tmp_path}/link")).id == parse(f"file://{tmp_path}/x").id


def test_a_repository_below_a_root_may_not_borrow_from_outside(tmp_path):
    """Git would follow alternates, worktree pointers and links inside; so they are refused."""
    ways = {
        "alternates": lambda git: (
            (git / "objects/info").mkdir(),
            (git / "objects/info/alternates").write_text("/secret"),
        ),
        "commondir": lambda git: (git / "commondir").write_text("/secret"),
        "objects": lambda git: ((git / "objects").rmdir(), (git / "objects").symlink_to("/tmp")),
        "pack": lambda git: (git / "objects/pack").symlink_to("/tmp"),
        "HEAD": lambda git: (git / "HEAD").symlink_to("/etc/passwd"),
    }
    for name, make in ways.items():
        place = repository(tmp_path / name)
        make(place / ".git")
        with pytest.raises(UrlRefused):
            admit(parse(f"file://{place}"), [str(tmp_path)], False)
    worktree = tmp_path / "worktree"
    worktree.mkdir()
    (worktree / ".git").write_text("gitdir: /secret/.git")
    with pytest.raises(UrlRefused):
        admit(parse(f"file://{worktree}"), [str(tmp_path)], False)


@pytest.mark.parametrize("ref", ["", "main", "feature/x-1", "v1.0", "a.b", "0123abcd", "@x", "x@y"])
def test_names_that_git_takes_are_taken(ref):
    """As git-check-ref-format(1) has it."""
    check_ref(ref)


@pytest.mark.parametrize(
    "ref",
    [
        *("-x", "--output=x", "a..b", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "a@{1}"),
        *("@", "/a", "a/", "a//b", ".a", "a/.b", "a.", "a.lock", "a.lock/b", "a\nb", "a\x7f"),
        *("a" * 300, "half-a-\ud800-character"),
    ],
)
def test_names_that_git_refuses_are_refused(ref):
    """Among them all that could be an option or a revision expression."""
    with pytest.raises(RefNotFound, match="cannot be the name"):
        check_ref(ref)
