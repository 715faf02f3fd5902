"""Where an agent's code is looked for, and what is said where it is not found."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from ploinky.deploy_errors import RefNotFound, RepositoryUnreachable
from ploinky.deployment.agents import AgentFinder, Located, check_place
from ploinky.errors import AgentAmbiguous, AgentNotFound, NotFound, ValidationFailed
from ploinky.source_values import GitCredential, Repository
from ploinky.testing.store import MemoryRepositoryStore
from tests.deployment.neighbours import Source, only, request

ONE, TWO = "https://git.example/one.git", "https://git.example/two.git"


class Searched:
    """Two registered repositories and one that is not."""

    def __init__(self) -> None:
        self.source = Source()
        self.store = MemoryRepositoryStore()
        for url in (ONE, TWO, "https://else.example/x.git"):
            self.source.push(url, {"README.md": ""})

    def add(self, url: str, *agents: str) -> None:
        for agent in agents:
            path = f"{agent}/manifest.json" if agent else "manifest.json"
            self.source.push(url, {path: "{}"})

    def register(self, name: str, url: str, **changes: Any) -> None:
        work = self.store.add_repository(Repository(name, url, **changes))
        only(Deferred.fromCoroutine(work))

    def find(self, image: str = "", fresh: bool = False, **changes: Any) -> Located | None:
        finder = AgentFinder(self.source, self.store)
        asked = request(**({"repository": ""} | changes))
        found = finder.find(asked, image=image, fresh=fresh)
        located: Located | None = only(Deferred.fromCoroutine(found))
        return located


@pytest.fixture
def searched() -> Searched:
    searched = Searched()
    searched.register("One", ONE)
    searched.register("Two", TWO)
    return searched


def test_an_agent_is_found_in_the_registered_repositories(searched: Searched) -> None:
    searched.add(ONE, "other")
    searched.add(TWO, "demo")

    located = searched.find()

    assert located is not None
    assert (located.place, located.sub_path, located.source.url) == ("Two", "demo", TWO)


def test_an_agent_is_found_deeper_down_by_its_directorys_name(searched: Searched) -> None:
    searched.add(ONE, "agents/demo")
    assert searched.find().sub_path == "agents/demo"  # type: ignore[union-attr]


def test_two_agents_of_one_name_are_both_named_and_either_can_be_picked(
    searched: Searched,
) -> None:
    searched.add(ONE, "demo")
    searched.add(TWO, "demo")

    with pytest.raises(AgentAmbiguous, match="One/demo, Two/demo") as caught:
        searched.find()

    assert caught.value.details == {"candidates": ["One/demo", "Two/demo"]}
    assert searched.find(agent="Two/demo").place == "Two"  # type: ignore[union-attr]


def test_a_repository_that_is_one_agent_goes_by_its_name(searched: Searched) -> None:
    searched.add(ONE, "")
    assert searched.find(agent="One").sub_path == ""  # type: ignore[union-attr]


def test_what_was_pushed_since_the_mirror_was_made_is_found(searched: Searched) -> None:
    """Before it says that there is none, it asks the remotes."""
    with pytest.raises(AgentNotFound):
        searched.find()

    assert [fresh for _, fresh in searched.source.fetched] == [False, False, True, True]


def test_what_was_pushed_since_is_found_in_a_given_repository_too(searched: Searched) -> None:
    """Another deployment may have made the mirror, a moment before the push."""
    with pytest.raises(AgentNotFound):
        searched.find(repository=ONE)

    assert [fresh for _, fresh in searched.source.fetched] == [False, True]


def test_a_repository_that_is_away_does_not_hide_the_others(searched: Searched) -> None:
    searched.source.broken[ONE] = RepositoryUnreachable("connection refused")
    searched.add(TWO, "demo")
    assert searched.find().place == "Two"  # type: ignore[union-attr]

    with pytest.raises(AgentNotFound, match=r"Not searched: One \(connection refused\)"):
        searched.find(agent="gone")


def test_a_picked_repository_that_is_away_says_why(searched: Searched) -> None:
    searched.source.broken[ONE] = RepositoryUnreachable("connection refused")
    with pytest.raises(RepositoryUnreachable, match="connection refused"):
        searched.find(agent="One/demo")


def test_an_agent_that_is_nowhere_is_told_what_was_searched_and_what_to_type(
    searched: Searched,
) -> None:
    with pytest.raises(AgentNotFound, match=r"in One, Two.* p-cli cloud agent list.*--image"):
        searched.find()


def test_an_image_alone_needs_no_agent_in_any_repository(searched: Searched) -> None:
    assert searched.find(image="nginx") is None
    assert Searched().find(image="nginx") is None


def test_the_branch_is_the_requests_else_the_repositorys(searched: Searched) -> None:
    searched.register("Three", "https://git.example/three.git", branch="stable")
    searched.source.push("https://git.example/three.git", {"x/manifest.json": "{}"})

    with pytest.raises(RefNotFound, match="'stable'"):
        searched.find(repository="Three", agent="x")
    located = searched.find(repository="Three", agent="x", branch="main")

    assert located is not None
    assert located.source.ref == "main"


# --- in the repository that was given -------------------------------------------


def test_a_given_repository_is_a_registered_name_or_a_url(searched: Searched) -> None:
    searched.add("https://else.example/x.git", "demo")
    searched.add(ONE, "demo")

    assert searched.find(repository="One").source.url == ONE  # type: ignore[union-attr]
    unknown = searched.find(repository="https://else.example/x.git")
    assert unknown is not None
    assert unknown.source.url == "https://else.example/x.git"
    with pytest.raises(NotFound, match=r"registered: One, Two.*p-cli cloud repo add Nope URL"):
        searched.find(repository="Nope")


def test_the_agents_directory_comes_before_subpath_and_that_before_the_root(
    searched: Searched,
) -> None:
    searched.add(ONE, "", "demo", "deep/place")

    def sub_path(**changes: Any) -> str:
        located = searched.find(repository="One", **changes)
        assert located is not None
        return located.sub_path

    assert sub_path(sub_path="deep/place") == "demo"
    assert sub_path(agent="mine", sub_path="/deep/place/") == "deep/place"
    assert sub_path(agent="mine") == ""


def test_a_given_repository_without_the_agent_lists_those_it_has(searched: Searched) -> None:
    searched.add(ONE, "a", "b")
    with pytest.raises(AgentNotFound, match="Agents there: a, b"):
        searched.find(repository="One")


def test_a_registered_repositorys_credential_opens_its_url_as_well(searched: Searched) -> None:
    private = "https://git.example/private.git"
    searched.source.push(private, {"demo/manifest.json": "{}"})
    searched.register("Private", private, credential=GitCredential(token="s3cret"))

    located = searched.find(repository=private)

    assert located is not None
    assert located.source.credential == GitCredential(token="s3cret")
    assert "s3cret" not in repr(located)


def test_only_registered_urls_are_trusted_without_asking_who_deploys(searched: Searched) -> None:
    searched.add(ONE, "demo")
    searched.add("https://else.example/x.git", "demo")

    assert searched.find(repository="One").source.any_file_url  # type: ignore[union-attr]
    other = searched.find(repository="https://else.example/x.git")
    assert other is not None
    assert not other.source.any_file_url


@pytest.mark.parametrize("name", ["", "..", "../x", "a//b", "/a", "a/../b", "-x", "a b", ".git"])
def test_an_agents_name_is_never_a_way_out_of_the_repository(name: str) -> None:
    with pytest.raises(ValidationFailed, match="agent"):
        check_place(request(agent=name))
    if name.strip("/"):
        with pytest.raises(ValidationFailed, match="subPath"):
            check_place(request(sub_path=name + "/.."))
