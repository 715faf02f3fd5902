"""Where the code of an agent is: which repository, which commit, which directory.

A `DeployRequest` enters, a `Located` leaves, or None for an image alone.  It reads repositories
through `ISource` only.  Source: contract, section 2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs
from attrs import frozen

from ploinky.deploy_errors import RefNotFound, SourceError
from ploinky.errors import AgentAmbiguous, AgentNotFound, NotFound, ValidationFailed
from ploinky.leader_interfaces import ISource
from ploinky.source_values import AgentListing, GitSource, Repository
from ploinky.store_interfaces import IRepositoryStore
from ploinky.values import DeployRequest

_SEGMENT = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9_.@+-]{0,99}")
_MOST_NAMED = 20


@frozen
class Located:
    """Code to check out.

    Attributes:
        place: For people: the repository's name, or its URL.
        sub_path: Directory in the repository; ``""`` for all of it.
    """

    place: str
    source: GitSource
    commit: str
    sub_path: str


@frozen
class _Listed:
    """A registered repository as it was searched."""

    repository: Repository
    source: GitSource
    commit: str
    agents: tuple[AgentListing, ...]


def check_place(request: DeployRequest) -> None:
    """Check the names that lead to the code, before anything is looked up by them.

    Raises:
        ValidationFailed: The agent or ``subPath`` is not a plain relative path.
    """
    problems = {}
    if not _is_plain(request.agent):
        problems["agent"] = f"{request.agent[:100]!r} is not a name such as demo or repo/demo"
    if request.sub_path and not _is_plain(request.sub_path.strip("/")):
        problems["subPath"] = f"{request.sub_path[:100]!r} is not a directory such as agents/demo"
    if problems:
        raise ValidationFailed(problems)


def _is_plain(path: str) -> bool:
    return len(path) <= 400 and all(_SEGMENT.fullmatch(part) for part in path.split("/"))


class AgentFinder:
    """Finds agents in repositories, given or registered."""

    def __init__(self, source: ISource, repositories: IRepositoryStore) -> None:
        self._source = source
        self._repositories = repositories

    async def find(self, request: DeployRequest, *, image: str, fresh: bool) -> Located | None:
        """Find the code.

        Args:
            request: Has passed `check_place`.
            image: The image that the deployment names itself, or ``""``.
            fresh: Fetch even where a mirror is young.

        Returns:
            None where there is no such agent and an image was named: it is deployed alone.

        Raises:
            NotFound: No repository of this name is registered.
            AgentNotFound: What was searched, and what to type.
            AgentAmbiguous: Naming each place.
            SourceError: The repository that was named cannot be read.
        """
        registered = await self._repositories.repositories()
        if request.repository:
            try:
                return await self._in_given(request, registered, fresh)
            except AgentNotFound:
                if fresh:
                    raise
                return await self._in_given(request, registered, True)  # as below
        missed: list[str] = []
        for again in (fresh, True):  # what was pushed since the mirror was made is found too
            missed.clear()
            located = await self._in_registered(request, registered, again, missed)
            if located is not None or again:
                break
        if located is None and not image:
            raise _not_found(request.agent, registered, missed)
        return located

    async def _in_given(
        self, request: DeployRequest, registered: Sequence[Repository], fresh: bool
    ) -> Located:
        source, place = _given_source(request, registered)
        commit = await self._source.resolve(source, fresh)
        agents = await self._source.agents(attrs.evolve(source, ref=commit))
        found = _matching(agents, request.agent)
        if len(found) > 1:
            raise _ambiguous(request.agent, [f"{place}: {agent.path}" for agent in found])
        if found:
            sub_path = found[0].path
        elif request.sub_path:
            sub_path = request.sub_path.strip("/")
        elif any(agent.path == "" for agent in agents):
            sub_path = ""
        else:
            there = _named([agent.path or "." for agent in agents]) or "none"
            raise AgentNotFound(
                f"{place} has no agent {request.agent!r}: neither a directory of that name nor its"
                f" root has a manifest.json. Agents there: {there}. Give the directory with"
                " --sub-path if it is another one"
            )
        return Located(place, source, commit, sub_path)

    async def _in_registered(
        self,
        request: DeployRequest,
        registered: Sequence[Repository],
        fresh: bool,
        missed: list[str],
    ) -> Located | None:
        """Search all; add to ``missed`` those that could not be."""
        first, _, rest = request.agent.partition("/")
        named = [one for one in registered if one.name == first] if rest else []
        agent = rest if named else request.agent
        candidates: list[tuple[_Listed, AgentListing]] = []
        for repository in named or registered:
            try:
                listed = await self._listed(repository, request.branch, fresh)
            except RefNotFound:
                missed.append(f"{repository.name} (it has no {request.branch or 'commit'})")
                continue
            except SourceError as error:
                if named:
                    raise
                missed.append(f"{repository.name} ({error.message})")
                continue
            at_root = [one for one in listed.agents if one.path == ""]
            found = _matching(listed.agents, agent)
            if not found and agent == repository.name:
                found = at_root
            candidates += [(listed, one) for one in found]
        if len(candidates) > 1:
            raise _ambiguous(
                agent,
                [f"{one.repository.name}/{found.path or agent}" for one, found in candidates],
            )
        if not candidates:
            return None
        listed, chosen = candidates[0]
        return Located(listed.repository.name, listed.source, listed.commit, chosen.path)

    async def _listed(self, repository: Repository, branch: str, fresh: bool) -> _Listed:
        source = registered_source(repository, branch)
        commit = await self._source.resolve(source, fresh)
        agents = await self._source.agents(attrs.evolve(source, ref=commit))
        return _Listed(repository, source, commit, tuple(agents))


def registered_source(repository: Repository, branch: str = "") -> GitSource:
    """Give the source of a registered repository.

    Whoever registered it was allowed to, so its URL is not questioned again.
    """
    return GitSource(repository.url, branch or repository.branch, repository.credential, True)


def _given_source(
    request: DeployRequest, registered: Sequence[Repository]
) -> tuple[GitSource, str]:
    for repository in registered:
        if request.repository == repository.name:
            return registered_source(repository, request.branch), repository.name
    for repository in registered:
        if request.repository == repository.url:
            return registered_source(repository, request.branch), repository.name
    if not any(sign in request.repository for sign in ":/-"):
        names = _named([repository.name for repository in registered]) or "none"
        raise NotFound(
            f"no repository {request.repository!r} is registered (registered: {names}); add it"
            f" with p-cli cloud repo add {request.repository} URL, or give its URL"
        )
    source = GitSource(request.repository, request.branch, None, request.any_file_url)
    return source, request.repository


def _matching(agents: Sequence[AgentListing], agent: str) -> list[AgentListing]:
    """Give the one at exactly this path, else all whose directory has this name."""
    exact = [one for one in agents if one.path == agent]
    return exact or [one for one in agents if one.path.endswith("/" + agent)]


def _ambiguous(agent: str, places: Sequence[str]) -> AgentAmbiguous:
    return AgentAmbiguous(
        f"there is more than one agent {agent!r}: {_named(places)}; name the one you mean",
        details={"candidates": list(places)},
    )


def _not_found(
    agent: str, registered: Sequence[Repository], missed: Sequence[str]
) -> AgentNotFound:
    if not registered:
        return AgentNotFound(
            f"no agent {agent!r}: no repository is registered. Add one with p-cli cloud repo add"
            " NAME URL, or give --repository URL, or --image IMAGE to deploy an image alone"
        )
    unread = f" Not searched: {'; '.join(missed)}." if missed else ""
    return AgentNotFound(
        f"no agent {agent!r} in {_named([one.name for one in registered])}.{unread} See p-cli"
        " cloud agent list, or give --repository URL, or --image IMAGE to deploy an image alone"
    )


def _named(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
