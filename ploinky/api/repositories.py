"""`repositories` and ``agents``: where code comes from, and what it has to offer."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import unquote, urlsplit, urlunsplit

from attrs import Factory, frozen
from twisted.internet.defer import Deferred, gatherResults

from ploinky.api import documents
from ploinky.api.answers import Answer, as_json
from ploinky.api.documents import AgentDocument, RepositoryDocument
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.requests import Call
from ploinky.api.shapes import SECRET, NameForm, Page, PageQuery, Success
from ploinky.deploy_errors import RefNotFound, RepositoryUnreachable, SourceTooLarge, UrlRefused
from ploinky.errors import Conflict, NotFound, PloinkyError, ValidationFailed
from ploinky.source_values import GitCredential, GitSource, Repository
from ploinky.values import Role

GIT = (UrlRefused, RepositoryUnreachable, RefNotFound, SourceTooLarge)
"""What may come of looking into a repository."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@frozen
class CredentialForm:
    """Write-only: no answer ever holds it.

    Attributes:
        token: Password or access token, for https.
        ssh_key: Private key in OpenSSH's format.
    """

    username: str = "git"
    token: Annotated[str, SECRET] = ""
    ssh_key: Annotated[str, SECRET] = ""
    known_hosts: str = ""


@frozen
class RepositoryForm:
    """``{"name", "url", "branch"?, "credential"?: {"username", "token", "sshKey", "knownHosts"}}``.

    Attributes:
        credential: What opens it.
    """

    name: str
    url: str
    branch: str = ""
    credential: Annotated[CredentialForm | None, SECRET] = None


@frozen(kw_only=True)
class RepositoryList(Page):
    """A page of repositories."""

    repositories: list[RepositoryDocument]


@frozen(kw_only=True)
class RepositoryAnswer(Success):
    """The repository as it stands."""

    repository: RepositoryDocument


@frozen(kw_only=True)
class Fetched(Success):
    """The commit that its branch is at now."""

    commit: str


@frozen
class RepositoryProblem:
    """Why a repository could not be looked into."""

    repository: str
    code: str
    message: str


@frozen(kw_only=True)
class AgentList(Page):
    """A page of agents, and the repositories that could not be read."""

    agents: list[AgentDocument]
    problems: list[RepositoryProblem] = Factory(list)


class RepositoryRoutes:
    """A repository is read before it is registered, so that a wrong URL is told at once."""

    def __init__(self, collaborators: Collaborators) -> None:
        self._its = collaborators

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        home = f"{API}/repositories"
        return [
            Endpoint(
                "repositories.list",
                "GET",
                home,
                self._list,
                queries=PageQuery,
                gives=RepositoryList,
            ),
            Endpoint(
                "repositories.add",
                "POST",
                home,
                self._add,
                takes=RepositoryForm,
                gives=RepositoryAnswer,
                errors=(Conflict, *GIT),
            ),
            Endpoint(
                "repositories.remove",
                "DELETE",
                home,
                self._remove,
                takes=NameForm,
                gives=Success,
                errors=(NotFound,),
            ),
            Endpoint(
                "repositories.remove-named",
                "DELETE",
                f"{home}/<name>",
                self._remove,
                gives=Success,
                errors=(NotFound,),
            ),
            Endpoint(
                "repositories.agents",
                "GET",
                f"{home}/<name>/agents",
                self._agents,
                queries=PageQuery,
                gives=AgentList,
                errors=(NotFound, *GIT),
            ),
            Endpoint(
                "repositories.sync",
                "POST",
                f"{home}/<name>/sync",
                self._sync,
                gives=Fetched,
                errors=(NotFound, *GIT),
            ),
            Endpoint(
                "agents.list",
                "GET",
                f"{API}/agents",
                self._all_agents,
                queries=PageQuery,
                gives=AgentList,
            ),
        ]

    async def _list(self, call: Call) -> Answer:
        """List the registered repositories."""
        page = call.queries(PageQuery)
        kept = await self._its.repositories.repositories()
        shown = [documents.repository(one) for one in page.of(kept)]
        return as_json(RepositoryList(repositories=shown, **page.at(len(kept))))

    async def _add(self, call: Call) -> Answer:
        """Register a repository, once it could be read."""
        repository = _read(call.form(RepositoryForm), self._its.clock.seconds())
        if any(k.name == repository.name for k in await self._its.repositories.repositories()):
            raise Conflict(f"there is a repository {repository.name!r} already")

        is_admin = call.principal.role is Role.ADMIN

        async def add() -> None:
            await self._its.source.resolve(_source(repository, is_admin), False)
            await self._its.repositories.add_repository(repository)

        await self._its.operations.begin(call.operation(repository.name), add())
        return as_json(RepositoryAnswer(repository=documents.repository(repository)))

    async def _remove(self, call: Call) -> Answer:
        """Forget a repository; what is deployed from it goes on running."""
        name = call.parts.get("name") or call.form(NameForm).name
        kept = await self._find(name)

        async def remove() -> None:
            await self._its.repositories.remove_repository(name)
            left = await self._its.repositories.repositories()
            if all(other.url != kept.url for other in left):
                await self._its.source.forget(kept.url)

        await self._its.operations.begin(call.operation(name), remove())
        return as_json(Success())

    async def _sync(self, call: Call) -> Answer:
        """Fetch a repository now."""
        kept = await self._find(call.parts["name"])
        commit = await self._its.operations.begin(
            call.operation(kept.name),
            self._its.source.resolve(_source(kept), True),
        )
        return as_json(Fetched(commit=commit))

    async def _agents(self, call: Call) -> Answer:
        """List the agents of a repository."""
        page = call.queries(PageQuery)
        kept = await self._find(call.parts["name"])
        found = await self._its.source.agents(_source(kept))
        shown = [documents.agent(one, kept.name) for one in page.of(found)]
        return as_json(AgentList(agents=shown, **page.at(len(found))))

    async def _all_agents(self, call: Call) -> Answer:
        """List the agents of every repository; one that cannot be read hides no other."""
        page = call.queries(PageQuery)
        kept = await self._its.repositories.repositories()
        looks = [Deferred.fromCoroutine(self._look(one)) for one in kept]
        found = await gatherResults(looks, consumeErrors=True)
        agents = [agent for agents, _ in found for agent in agents]
        problems = [problem for _, problems in found for problem in problems]
        return as_json(AgentList(agents=page.of(agents), problems=problems, **page.at(len(agents))))

    async def _look(self, kept: Repository) -> tuple[list[AgentDocument], list[RepositoryProblem]]:
        try:
            found = await self._its.source.agents(_source(kept))
        except PloinkyError as error:
            return [], [RepositoryProblem(kept.name, error.code, error.message)]
        return [documents.agent(one, kept.name) for one in found], []

    async def _find(self, name: str) -> Repository:
        for kept in await self._its.repositories.repositories():
            if kept.name == name:
                return kept
        raise NotFound(f"there is no repository {name!r}")


def _read(form: RepositoryForm, now: float) -> Repository:
    problems: dict[str, str] = {}
    if not _NAME.match(form.name):
        problems["name"] = "expected letters, digits, . _ - (64 at most; a letter or digit first)"
    if not form.url.strip():
        problems["url"] = "expected a Git URL such as https://host/user/repo.git"
    url, username, password = split_userinfo(form.url.strip())
    credential = None
    if form.credential is not None:
        given = form.credential
        credential = GitCredential(given.username, given.token, given.ssh_key, given.known_hosts)
    if username:
        if credential is not None:
            problems["credential"] = "the URL holds one already; give it once"
        # https://TOKEN@host is as usual as https://user:TOKEN@host
        credential = GitCredential(username if password else "git", password or username)
    if problems:
        raise ValidationFailed(problems)
    return Repository(form.name, url, form.branch, credential, now)


def split_userinfo(url: str) -> tuple[str, str, str]:
    """Take user and password out of an http(s) URL; other URLs stay as they are.

    Returns:
        The URL without them, and both, ``""`` where they were not there.

    Raises:
        ValidationFailed: It cannot be read as a URL.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme.lower() not in ("http", "https") or "@" not in parts.netloc:
            return url, "", ""
        bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        return bare, unquote(parts.username or ""), unquote(parts.password or "")
    except ValueError as error:
        raise ValidationFailed({"url": f"cannot be read as a URL: {error}"}) from error


def check_without_credential(url: str) -> None:
    """See that a repository's URL holds no credential: it would show in lists.

    Raises:
        ValidationFailed: It does.
    """
    if split_userinfo(url)[1]:
        raise ValidationFailed(
            {
                "repository": "a URL must not hold a credential; register the repository with it:"
                " p-cli cloud repo add NAME URL --token-file FILE"
            }
        )


def _source(repository: Repository, any_file_url: bool = True) -> GitSource:
    """Say where to look; what is registered was looked at with its registrant's rights."""
    return GitSource(
        url=repository.url,
        ref=repository.branch,
        credential=repository.credential,
        any_file_url=any_file_url,
    )
