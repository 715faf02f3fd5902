"""What anyone may rely on who is given an `ISource`.

Subclass the mixin in a test module, with the fixtures `source` and ``origin``:
an `ISource`, and a `ploinky.testing.git.Origin` that it reaches.
"""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted
from zope.interface.verify import verifyObject

from ploinky.deploy_errors import RefNotFound, RepositoryUnreachable
from ploinky.leader_interfaces import ISource
from ploinky.source_values import AgentListing, GitSource
from ploinky.testing.git import File, Origin


class SourceContract:
    """`ISource`."""

    def at(self, origin: Origin, ref: str = "") -> GitSource:
        """A place in the origin's history."""
        return GitSource(origin.url, ref, any_file_url=True)

    def test_it_has_every_method(self, source: ISource) -> None:
        """Whoever is given one can call all of `ISource`."""
        assert verifyObject(ISource, source)

    @pytest_twisted.ensureDeferred
    async def test_a_ref_is_a_branch_a_tag_or_a_commit(
        self, source: ISource, origin: Origin
    ) -> None:
        """Nothing stands for the default branch; commit ids may be abbreviated."""
        old = origin.commit({"a": "1"}, tag="v1")
        new = origin.commit({"a": "2"})
        other = origin.commit({"a": "3"}, branch="topic/x")
        for ref, commit in (
            ("", new),
            ("main", new),
            ("topic/x", other),
            ("v1", old),
            (old, old),
            (old[:10], old),
        ):
            assert await source.resolve(self.at(origin, ref), False) == commit, ref

    @pytest_twisted.ensureDeferred
    async def test_a_branch_wins_over_a_tag_of_its_name(
        self, source: ISource, origin: Origin
    ) -> None:
        """Whoever deploys a branch gets the branch."""
        origin.commit({"a": "1"}, tag="release")
        branch = origin.commit({"a": "2"}, branch="release")
        assert await source.resolve(self.at(origin, "release"), False) == branch

    @pytest_twisted.ensureDeferred
    async def test_a_ref_that_does_not_exist_is_named_with_what_does(
        self, source: ISource, origin: Origin
    ) -> None:
        """A typing error is answered with the branches there are."""
        origin.commit({"a": "1"})
        with pytest.raises(RefNotFound, match=r"'mian'.*main"):
            await source.resolve(self.at(origin, "mian"), False)

    @pytest_twisted.ensureDeferred
    async def test_fresh_sees_the_latest_push(self, source: ISource, origin: Origin) -> None:
        """A redeploy serves what was pushed before it."""
        origin.commit({"a": "1"})
        await source.resolve(self.at(origin), False)
        pushed = origin.commit({"a": "2"})
        assert await source.resolve(self.at(origin), True) == pushed

    @pytest_twisted.ensureDeferred
    async def test_what_cannot_be_reached_is_said_so(self, source: ISource, origin: Origin) -> None:
        """A repository that does not exist is an error that names it."""
        nowhere = GitSource(f"{origin.url}-nowhere", any_file_url=True)
        with pytest.raises(RepositoryUnreachable, match="nowhere"):
            await source.resolve(nowhere, False)

    @pytest_twisted.ensureDeferred
    async def test_a_checkout_has_the_files_of_its_commit(
        self, source: ISource, origin: Origin, tmp_path: Path
    ) -> None:
        """Content and executable bits are kept; later commits do not show."""
        commit = origin.commit(
            {"a": b"\0binary", "bin/run": File(b"#!/bin/sh\n", "100755"), "l": File(b"a", "120000")}
        )
        origin.commit({"a": "later"})
        place = tmp_path / "release"
        await source.resolve(self.at(origin), True)
        await source.checkout(self.at(origin), commit, "", str(place))
        assert sorted(str(p.relative_to(place)) for p in place.rglob("*")) == [
            "a",
            "bin",
            "bin/run",
            "l",
        ]
        assert (place / "a").read_bytes() == b"\0binary"
        assert (place / "bin/run").stat().st_mode & 0o111
        assert not (place / "a").stat().st_mode & 0o111
        assert (place / "l").readlink() == Path("a")

    @pytest_twisted.ensureDeferred
    async def test_a_sub_directory_becomes_the_root(
        self, source: ISource, origin: Origin, tmp_path: Path
    ) -> None:
        """Only the agent's own directory is checked out."""
        commit = origin.commit({"agents/demo/index.js": "x", "agents/other/index.js": "y"})
        await source.resolve(self.at(origin), False)
        await source.checkout(self.at(origin), commit, "agents/demo", str(tmp_path / "release"))
        assert [p.name for p in (tmp_path / "release").iterdir()] == ["index.js"]

    @pytest_twisted.ensureDeferred
    async def test_nothing_stands_where_a_checkout_failed(
        self, source: ISource, origin: Origin, tmp_path: Path
    ) -> None:
        """A missing sub-directory is named, and leaves nothing behind."""
        commit = origin.commit({"a": "1"})
        await source.resolve(self.at(origin), False)
        with pytest.raises(RefNotFound, match="'nope'"):
            await source.checkout(self.at(origin), commit, "nope", str(tmp_path / "here/release"))
        assert list(tmp_path.glob("here/*")) == []

    @pytest_twisted.ensureDeferred
    async def test_agents_are_directories_with_a_manifest(
        self, source: ISource, origin: Origin
    ) -> None:
        """The root counts too; a manifest that cannot be read is listed with its problem."""
        origin.commit(
            {
                "manifest.json": '{"about": "all of it"}',
                "demo/manifest.json": '{"about": "says\\nhello"}',
                "broken/manifest.json": '{"about": "x",}',
                "notes/README": "no agent",
            }
        )
        broken, demo, root = sorted(
            await source.agents(self.at(origin)), key=lambda agent: agent.path or "~"
        )
        assert demo == AgentListing("demo", "demo", about="says hello")
        assert (root.path, root.about) == ("", "all of it")
        assert broken.name == "broken"
        assert "(line 1, column 1" in broken.problem

    @pytest_twisted.ensureDeferred
    async def test_what_was_forgotten_can_be_asked_for_again(
        self, source: ISource, origin: Origin
    ) -> None:
        """Removing a repository does not stop anyone from adding it again."""
        commit = origin.commit({"a": "1"})
        await source.resolve(self.at(origin), False)
        await source.forget(origin.url)
        await source.forget(origin.url)
        assert await source.resolve(self.at(origin), False) == commit
