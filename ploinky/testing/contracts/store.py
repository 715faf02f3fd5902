"""What anyone may rely on who is given a store.

Subclass a mixin in a test module, with fixtures that give the store (and, for
keys, the clock it reads).
"""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import pytest_twisted
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from ploinky.errors import Conflict, NotFound, StateUnusable, Unauthenticated
from ploinky.source_values import GitCredential, Repository
from ploinky.store_interfaces import (
    IAuditTrail,
    IDeploymentStore,
    IHookStore,
    IKeyStore,
    IRepositoryStore,
    ISnapshots,
)
from ploinky.values import (
    AuditEntry,
    Deployment,
    DeploymentKey,
    DeployRequest,
    Principal,
    Release,
    ReleaseState,
    Role,
)

KEY = DeploymentKey("localhost", "/demo")
DEMO = Deployment(id="aaaaaaaaaaaa", key=KEY, agent="demo", created_at=1.5, updated_at=2.5)


def release(number: int, state: ReleaseState = ReleaseState.PREPARING) -> Release:
    """A release of `DEMO` with every field filled in."""
    return Release(
        deployment=DEMO.id,
        number=number,
        state=state,
        request=DeployRequest(
            key=KEY,
            agent="demo",
            repository="https://git.example/demo.git",
            branch="main",
            sub_path="agents/demo",
            image="node:18-alpine",
            environment={"TOKEN": "a secret", "EMPTY": ""},
            settings={"timeout": 5, "health": {"path": "/up"}},
            any_file_url=True,
        ),
        commit="0123456789abcdef0123456789abcdef01234567",
        image="sha256:beef",
        settings={"kind": "task", "commands": {"date": "date"}},
        environment={"TOKEN": "a secret", "EMPTY": "", "DEFAULTED": "ü"},
        created_at=3.25,
        error={"code": "PROBE_FAILED", "step": "probe", "message": "no", "output": "a\nb"},
    )


class DeploymentStoreContract:
    """`IDeploymentStore`; the fixture ``deployment_store`` gives an empty one."""

    def test_it_has_every_method(self, deployment_store: IDeploymentStore) -> None:
        """Whoever is given one can call all of `IDeploymentStore`."""
        assert verifyObject(IDeploymentStore, deployment_store)

    @pytest_twisted.ensureDeferred
    async def test_a_deployment_comes_back_as_it_was_saved(
        self, deployment_store: IDeploymentStore
    ) -> None:
        """Every field of a deployment and of a release survives."""
        await deployment_store.save_deployment(DEMO)
        await deployment_store.save_release(release(1))
        assert await deployment_store.deployments() == [DEMO]
        assert await deployment_store.releases(DEMO.id) == [release(1)]

    @pytest_twisted.ensureDeferred
    async def test_saving_again_replaces(self, deployment_store: IDeploymentStore) -> None:
        """A deployment is known by its id, a release by its number."""
        await deployment_store.save_deployment(DEMO)
        stopped = attrs.evolve(DEMO, wanted="stopped")
        await deployment_store.save_deployment(stopped)
        await deployment_store.save_release(release(1))
        failed = attrs.evolve(release(1), state=ReleaseState.FAILED, error=None)
        await deployment_store.save_release(failed)
        assert await deployment_store.deployments() == [stopped]
        assert await deployment_store.releases(DEMO.id) == [failed]

    @pytest_twisted.ensureDeferred
    async def test_two_deployments_never_share_a_key(
        self, deployment_store: IDeploymentStore
    ) -> None:
        """A second deployment at the same domain and path is refused."""
        await deployment_store.save_deployment(DEMO)
        with pytest.raises(Conflict, match="localhost/demo"):
            await deployment_store.save_deployment(attrs.evolve(DEMO, id="bbbbbbbbbbbb"))
        assert await deployment_store.deployments() == [DEMO]

    @pytest_twisted.ensureDeferred
    async def test_deployments_are_ordered_by_key(self, deployment_store: IDeploymentStore) -> None:
        """By domain, then by path."""
        keys = [DeploymentKey("b.example", "/a"), DeploymentKey("a.example", "/z"), KEY]
        for number, key in enumerate(keys):
            deployment = Deployment(id=f"{number:012}", key=key, agent="demo")
            await deployment_store.save_deployment(deployment)
        assert [d.key for d in await deployment_store.deployments()] == sorted(keys)

    @pytest_twisted.ensureDeferred
    async def test_releases_come_newest_first(self, deployment_store: IDeploymentStore) -> None:
        """By number, as numbers."""
        await deployment_store.save_deployment(DEMO)
        for number in (2, 10, 1):
            await deployment_store.save_release(release(number))
        assert [r.number for r in await deployment_store.releases(DEMO.id)] == [10, 2, 1]

    @pytest_twisted.ensureDeferred
    async def test_releases_of_several_deployments_come_by_deployment(
        self, deployment_store: IDeploymentStore
    ) -> None:
        """Of those that were asked for, newest first; of one without any, none."""
        other = attrs.evolve(DEMO, id="other0000000", key=DeploymentKey("localhost", "/other"))
        bare = attrs.evolve(DEMO, id="bare00000000", key=DeploymentKey("localhost", "/bare"))
        for deployment in (DEMO, other, bare):
            await deployment_store.save_deployment(deployment)
        for number in (1, 2):
            await deployment_store.save_release(release(number))
            await deployment_store.save_release(attrs.evolve(release(number), deployment=other.id))
        found = await deployment_store.releases_of([other.id, bare.id, "unknown00000"])
        assert {one: [r.number for r in releases] for one, releases in found.items()} == {
            other.id: [2, 1],
            bare.id: [],
            "unknown00000": [],
        }
        assert all(release.deployment == other.id for release in found[other.id])

    @pytest_twisted.ensureDeferred
    async def test_only_one_release_is_active(self, deployment_store: IDeploymentStore) -> None:
        """The switch retires what was active, leaves others alone, and is kept."""
        await deployment_store.save_deployment(DEMO)
        await deployment_store.save_release(release(1, ReleaseState.FAILED))
        for number in (2, 3):
            await deployment_store.save_release(release(number))
            switched = await deployment_store.activate(DEMO, number)
            assert switched == attrs.evolve(DEMO, active_release=number)
            assert await deployment_store.deployments() == [switched]
        assert [r.state for r in await deployment_store.releases(DEMO.id)] == [
            ReleaseState.ACTIVE,
            ReleaseState.RETIRED,
            ReleaseState.FAILED,
        ]

    @pytest_twisted.ensureDeferred
    async def test_a_switch_to_nothing_changes_nothing(
        self, deployment_store: IDeploymentStore
    ) -> None:
        """All of the switch or none of it: the old release stays active."""
        await deployment_store.save_deployment(DEMO)
        await deployment_store.save_release(release(1))
        switched = await deployment_store.activate(DEMO, 1)
        with pytest.raises(NotFound, match="release 7"):
            await deployment_store.activate(switched, 7)
        assert await deployment_store.deployments() == [switched]
        assert [r.state for r in await deployment_store.releases(DEMO.id)] == [ReleaseState.ACTIVE]

    @pytest_twisted.ensureDeferred
    async def test_deleting_takes_the_releases_along(
        self, deployment_store: IDeploymentStore
    ) -> None:
        """Nothing is left, and deleting again is no error."""
        await deployment_store.save_deployment(DEMO)
        await deployment_store.save_release(release(1))
        await deployment_store.delete_deployment(DEMO.id)
        await deployment_store.delete_deployment(DEMO.id)
        assert await deployment_store.deployments() == []
        assert await deployment_store.releases(DEMO.id) == []

    @pytest_twisted.ensureDeferred
    async def test_a_release_needs_its_deployment(self, deployment_store: IDeploymentStore) -> None:
        """A deploy that outlives its deployment's removal cannot bring a release back."""
        with pytest.raises(NotFound):
            await deployment_store.save_release(release(1))
        assert await deployment_store.releases(DEMO.id) == []


class RepositoryStoreContract:
    """`IRepositoryStore`; the fixture ``repository_store`` gives an empty one."""

    def test_it_has_every_method(self, repository_store: IRepositoryStore) -> None:
        """Whoever is given one can call all of `IRepositoryStore`."""
        assert verifyObject(IRepositoryStore, repository_store)

    @pytest_twisted.ensureDeferred
    async def test_a_repository_comes_back_as_it_was_added(
        self, repository_store: IRepositoryStore
    ) -> None:
        """Every field, its credential included; ordered by name."""
        private = Repository(
            name="private",
            url="https://git.example/x.git",
            branch="main",
            credential=GitCredential("me", "token", "key\n", "hosts\n"),
            created_at=1.5,
        )
        public = Repository(name="a-public", url="https://git.example/y.git")
        await repository_store.add_repository(private)
        await repository_store.add_repository(public)
        assert await repository_store.repositories() == [public, private]

    @pytest_twisted.ensureDeferred
    async def test_a_taken_name_is_refused(self, repository_store: IRepositoryStore) -> None:
        """The first stays what it was."""
        first = Repository(name="demo", url="https://git.example/first.git")
        await repository_store.add_repository(first)
        with pytest.raises(Conflict, match="demo"):
            await repository_store.add_repository(attrs.evolve(first, url="https://other.example"))
        assert await repository_store.repositories() == [first]

    @pytest_twisted.ensureDeferred
    async def test_a_removed_repository_is_gone(self, repository_store: IRepositoryStore) -> None:
        """Removing it twice says that there is none."""
        await repository_store.add_repository(Repository(name="demo", url="https://x.example"))
        await repository_store.remove_repository("demo")
        assert await repository_store.repositories() == []
        with pytest.raises(NotFound, match="demo"):
            await repository_store.remove_repository("demo")

    @pytest_twisted.ensureDeferred
    async def test_localhost_exists_from_the_start(
        self, repository_store: IRepositoryStore
    ) -> None:
        """A new server can be deployed to at once."""
        assert await repository_store.domains() == [{"name": "localhost", "enabled": True}]

    @pytest_twisted.ensureDeferred
    async def test_domains_are_added_and_removed(self, repository_store: IRepositoryStore) -> None:
        """Ordered by name; adding twice and removing twice are refused."""
        await repository_store.add_domain("a.example")
        with pytest.raises(Conflict, match=r"a\.example"):
            await repository_store.add_domain("a.example")
        assert [d["name"] for d in await repository_store.domains()] == ["a.example", "localhost"]
        await repository_store.remove_domain("a.example")
        with pytest.raises(NotFound, match=r"a\.example"):
            await repository_store.remove_domain("a.example")
        assert [d["name"] for d in await repository_store.domains()] == ["localhost"]

    @pytest_twisted.ensureDeferred
    async def test_domains_are_disabled_and_enabled(
        self, repository_store: IRepositoryStore
    ) -> None:
        """One at a time, as often as one likes; only those that there are."""
        await repository_store.add_domain("a.example")
        for enabled in (False, False, True):
            await repository_store.change_domain("a.example", enabled)
            assert await repository_store.domains() == [
                {"name": "a.example", "enabled": enabled},
                {"name": "localhost", "enabled": True},
            ]
        with pytest.raises(NotFound, match=r"b\.example"):
            await repository_store.change_domain("b.example", True)


ADMIN = Principal(id="Admin", role=Role.ADMIN, token_hash="a" * 64)
DEPLOYER = Principal(
    id="ci",
    role=Role.DEPLOYER,
    token_hash="b" * 64,
    expires_at=1_000.0,
    scope=("a.example", "localhost/demo"),
)
SESSION = Principal(
    id="Admin", role=Role.ADMIN, token_hash="c" * 64, expires_at=500.0, session=True
)


class KeyStoreContract:
    """`IKeyStore`; the fixture ``key_store`` gives an empty one that reads the fixture ``clock``."""

    def test_it_has_every_method(self, key_store: IKeyStore) -> None:
        """Whoever is given one can call all of `IKeyStore`."""
        assert verifyObject(IKeyStore, key_store)

    @pytest_twisted.ensureDeferred
    async def test_principals_come_back_as_they_were_added(self, key_store: IKeyStore) -> None:
        """Keys and sessions, with role, scope and expiry."""
        for principal in (ADMIN, DEPLOYER, SESSION):
            await key_store.add_principal(principal)
        assert set(await key_store.principals()) == {ADMIN, DEPLOYER, SESSION}

    @pytest_twisted.ensureDeferred
    async def test_what_has_expired_is_not_listed(self, key_store: IKeyStore, clock: Clock) -> None:
        """Neither at its last second nor after something else was added."""
        await key_store.add_principal(SESSION)
        clock.advance(499)
        assert await key_store.principals() == [SESSION]
        clock.advance(1)
        assert await key_store.principals() == []
        await key_store.add_principal(ADMIN)
        assert await key_store.principals() == [ADMIN]

    @pytest_twisted.ensureDeferred
    async def test_keys_have_names_of_their_own(self, key_store: IKeyStore) -> None:
        """A second key of the same name is refused; sessions share their key's freely."""
        await key_store.add_principal(ADMIN)
        await key_store.add_principal(SESSION)
        await key_store.add_principal(attrs.evolve(SESSION, token_hash="d" * 64))
        with pytest.raises(Conflict, match="Admin"):
            await key_store.add_principal(attrs.evolve(ADMIN, token_hash="e" * 64))
        assert len(await key_store.principals()) == 3

    @pytest_twisted.ensureDeferred
    async def test_a_removed_principal_is_gone(self, key_store: IKeyStore) -> None:
        """Removing it again is no error."""
        await key_store.add_principal(ADMIN)
        await key_store.add_principal(SESSION)
        for _ in range(2):
            await key_store.remove_principal(SESSION.token_hash)
        assert await key_store.principals() == [ADMIN]

    @pytest_twisted.ensureDeferred
    async def test_what_ends_with_a_key_goes_with_it(self, key_store: IKeyStore) -> None:
        """Sessions and keys, and what ends with those; nothing else."""
        child = attrs.evolve(DEPLOYER, parent=ADMIN.token_hash, created_at=3.5)
        grandchild = attrs.evolve(SESSION, parent=DEPLOYER.token_hash)
        other = attrs.evolve(ADMIN, id="other", token_hash="e" * 64)
        for principal in (ADMIN, child, grandchild, other):
            await key_store.add_principal(principal)
        assert set(await key_store.principals()) == {ADMIN, child, grandchild, other}
        await key_store.remove_principal(ADMIN.token_hash)
        assert await key_store.principals() == [other]

    @pytest_twisted.ensureDeferred
    async def test_nothing_begins_with_a_key_that_is_gone(self, key_store: IKeyStore) -> None:
        """A login that comes too late is refused."""
        with pytest.raises(Unauthenticated):
            await key_store.add_principal(attrs.evolve(SESSION, parent=ADMIN.token_hash))
        assert await key_store.principals() == []

    @pytest_twisted.ensureDeferred
    async def test_the_last_use_is_kept(self, key_store: IKeyStore) -> None:
        """Of those that exist; the newest that was told."""
        await key_store.add_principal(ADMIN)
        await key_store.used({ADMIN.token_hash: 5.0, "unknown": 1.0})
        await key_store.used({ADMIN.token_hash: 6.5})
        assert await key_store.last_used() == {ADMIN.token_hash: 6.5}
        assert await key_store.principals() == [ADMIN]

    @pytest_twisted.ensureDeferred
    async def test_there_is_one_first_key(self, key_store: IKeyStore) -> None:
        """Of two that claim to be the first, one is kept; a session is not a key."""
        await key_store.add_principal(SESSION)
        assert await key_store.add_first_key(ADMIN)
        second = attrs.evolve(ADMIN, id="Mallory", token_hash="f" * 64)
        assert not await key_store.add_first_key(second)
        assert set(await key_store.principals()) == {ADMIN, SESSION}


class HookStoreContract:
    """`IHookStore`; the fixture ``hook_store`` gives an empty one that knows the deployment `KEY`."""

    def test_it_has_every_method(self, hook_store: IHookStore) -> None:
        """Whoever is given one can call all of `IHookStore`."""
        assert verifyObject(IHookStore, hook_store)

    @pytest_twisted.ensureDeferred
    async def test_a_secret_is_kept_and_replaced(self, hook_store: IHookStore) -> None:
        """Without one there is none."""
        assert await hook_store.hook_secret(DEMO.id) == ""
        for secret in ("first", "second"):
            await hook_store.save_hook_secret(DEMO.id, secret)
            assert await hook_store.hook_secret(DEMO.id) == secret


ENTRY = AuditEntry(
    at=1_700_000_000.125,
    user="Admin",
    role="admin",
    address="203.0.113.9",
    action="domains.add",
    subject="a.example",
    status=200,
    request_id="r-1",
    body='{"name": "a.example"}',
)


class AuditTrailContract:
    """`IAuditTrail`; the fixture ``audit_trail`` gives an empty one."""

    def test_it_has_every_method(self, audit_trail: IAuditTrail) -> None:
        """Whoever is given one can call all of `IAuditTrail`."""
        assert verifyObject(IAuditTrail, audit_trail)

    @pytest_twisted.ensureDeferred
    async def test_entries_come_back_as_they_were_written(self, audit_trail: IAuditTrail) -> None:
        """Numbered, the newest first, page by page."""
        for number in range(3):
            await audit_trail.append(attrs.evolve(ENTRY, subject=f"d{number}"))
        total, entries = await audit_trail.entries(1, 5)
        assert total == 3
        assert [(one.number, one.subject) for one in entries] == [(2, "d1"), (1, "d0")]
        assert attrs.evolve(entries[0], number=0, hash="", subject=ENTRY.subject) == ENTRY

    @pytest_twisted.ensureDeferred
    async def test_entries_are_written_together(self, audit_trail: IAuditTrail) -> None:
        """In the order in which they are given, after those before; none is no error."""
        await audit_trail.append(attrs.evolve(ENTRY, subject="d0"))
        await audit_trail.append(*(attrs.evolve(ENTRY, subject=f"d{n}") for n in (1, 2)))
        await audit_trail.append()
        total, entries = await audit_trail.entries(0, 5)
        assert total == 3
        assert [(one.number, one.subject) for one in entries] == [(3, "d2"), (2, "d1"), (1, "d0")]
        assert not (await audit_trail.verify("")).problem

    @pytest_twisted.ensureDeferred
    async def test_what_was_only_added_to_is_intact(self, audit_trail: IAuditTrail) -> None:
        """An empty one as well; the head is the last entry's hash."""
        assert (await audit_trail.verify("")).entries == 0
        await audit_trail.append(ENTRY)
        verdict = await audit_trail.verify("")
        assert (verdict.entries, verdict.problem) == (1, "")
        assert verdict.head == (await audit_trail.entries(0, 1))[1][0].hash


class SnapshotsContract:
    """`ISnapshots`; the fixture `snapshots` gives them, ``destination`` a path where nothing is."""

    def test_it_has_every_method(self, snapshots: ISnapshots) -> None:
        """Whoever is given one can call all of `ISnapshots`."""
        assert verifyObject(ISnapshots, snapshots)

    @pytest_twisted.ensureDeferred
    async def test_a_copy_is_for_its_owner_alone_and_overwrites_nothing(
        self, snapshots: ISnapshots, destination: Path
    ) -> None:
        """What is there may be somebody's."""
        await snapshots.snapshot(str(destination))
        assert destination.stat().st_mode & 0o777 == 0o600
        before = destination.read_bytes()
        with pytest.raises(StateUnusable):
            await snapshots.snapshot(str(destination))
        assert destination.read_bytes() == before
