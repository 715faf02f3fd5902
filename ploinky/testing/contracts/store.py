"""What anyone may rely on who is given a store.

Subclass a mixin in a test module, with fixtures that give the store (and, for
keys, the clock it reads).
"""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import attrs
import pytest
import pytest_twisted
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from ploinky.errors import Conflict, NotFound
from ploinky.interfaces import IDeploymentStore, IKeyStore, IMetricsStore, IRepositoryStore
from ploinky.measures import CountBatch, KeptCounts, Label, Point, Sums
from ploinky.values import (
    Deployment,
    DeploymentKey,
    DeployRequest,
    GitCredential,
    Principal,
    Release,
    ReleaseState,
    Repository,
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
    async def test_there_is_one_first_key(self, key_store: IKeyStore) -> None:
        """Of two that claim to be the first, one is kept; a session is not a key."""
        await key_store.add_principal(SESSION)
        assert await key_store.add_first_key(ADMIN)
        second = attrs.evolve(ADMIN, id="Mallory", token_hash="f" * 64)
        assert not await key_store.add_first_key(second)
        assert set(await key_store.principals()) == {ADMIN, SESSION}


HELLO = Label("d1", "hello", 200)
THROWS = Label("d1", "throws", 500, "agent")
OTHER = Label("d2", "hello", 200)
ONE = Sums(1, 250_000, 10, 20, 5, {7: 1})
TWO = Sums(2, 500_000, 20, 40, 10, {7: 1, 110: 1})
NOON = 1_700_049_600.0


class MetricsStoreContract:
    """Needs the fixture ``metrics_store``."""

    def test_is_a_metrics_store(self, metrics_store: IMetricsStore) -> None:
        """It provides the whole of `IMetricsStore`."""
        assert verifyObject(IMetricsStore, metrics_store)

    @pytest_twisted.ensureDeferred
    async def test_nothing_was_counted_at_first(self, metrics_store: IMetricsStore) -> None:
        """No totals, no numbers, no points."""
        assert await metrics_store.kept() == KeptCounts({}, {})
        assert await metrics_store.points(10, 0) == []

    @pytest_twisted.ensureDeferred
    async def test_batches_add_up(self, metrics_store: IMetricsStore) -> None:
        """In the totals for ever, in each series by its stretch of time."""
        await metrics_store.add(CountBatch(NOON + 1, {HELLO: ONE, THROWS: TWO}, {"w-1": 1}))
        await metrics_store.add(CountBatch(NOON + 9.5, {HELLO: TWO}, {"w-1": 2, "w-2": 1}))
        await metrics_store.add(CountBatch(NOON + 61, {HELLO: ONE, OTHER: ONE}, {"w-2": 5}))
        three = Sums(3, 750_000, 30, 60, 15, {7: 2, 110: 1})
        four = Sums(4, 1_000_000, 40, 80, 20, {7: 3, 110: 1})
        kept = await metrics_store.kept()
        assert kept.totals == {HELLO: four, THROWS: TWO, OTHER: ONE}
        assert kept.numbers == {"w-1": 2, "w-2": 5}
        noon = int(NOON)
        for resolution, later in ((10, noon + 60), (60, noon + 60)):
            points = await metrics_store.points(resolution, noon)
            assert sorted(points, key=lambda each: (each.time, each.label.command)) == [
                Point(noon, HELLO, three),
                Point(noon, THROWS, TWO),
                *(Point(later, label, ONE) for label in (HELLO, OTHER)),
            ]
        hour = {each.label: each.sums for each in await metrics_store.points(3600, noon)}
        assert hour == kept.totals
        assert {p.time for p in await metrics_store.points(10, noon + 1)} == {noon + 60}

    @pytest_twisted.ensureDeferred
    async def test_old_points_go_and_totals_stay(self, metrics_store: IMetricsStore) -> None:
        """Each resolution at its own age; silent reporters are forgotten."""
        await metrics_store.add(CountBatch(NOON, {HELLO: ONE}, {"w-1": 1}))
        await metrics_store.add(CountBatch(NOON + 7200, {HELLO: ONE}, {"w-2": 1}))
        await metrics_store.prune({10: NOON + 1, 60: NOON + 7261}, NOON + 1)
        assert [point.time for point in await metrics_store.points(10, 0)] == [int(NOON) + 7200]
        assert await metrics_store.points(60, 0) == []
        assert len(await metrics_store.points(3600, 0)) == 2
        kept = await metrics_store.kept()
        assert kept.totals[HELLO].count == 2
        assert kept.numbers == {"w-2": 1}

    @pytest_twisted.ensureDeferred
    async def test_removed_deployments_stay_in_the_totals(
        self, metrics_store: IMetricsStore
    ) -> None:
        """Together, by how their calls ended; the total never goes down."""
        await metrics_store.add(CountBatch(NOON, {HELLO: ONE, THROWS: TWO, OTHER: ONE}, {}))
        gone = {Label("", "", 200): ONE, Label("", "", 500, "agent"): TWO}
        assert await metrics_store.forget_all_but(["d2"]) == {OTHER: ONE, **gone}
        assert (await metrics_store.kept()).totals == {OTHER: ONE, **gone}
        twice = await metrics_store.forget_all_but([])
        assert twice[Label("", "", 200)] == ONE.plus(ONE)
        assert (await metrics_store.kept()).totals == twice
