"""Keys and sessions: given out, known everywhere at once, and taken back."""

from __future__ import annotations

import os
import re

import attrs
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from ploinky.errors import Conflict, Forbidden, NotFound, StateUnusable, Unauthenticated
from ploinky.interfaces import IAuthenticator
from ploinky.security import authenticator
from ploinky.security.admission import Admission
from ploinky.security.keyring import Keyring, WantedKey
from ploinky.security.published import PublishedKeys
from ploinky.security.tokens import API_KEY, mint, token_hash
from ploinky.store_interfaces import IKeyStore
from ploinky.testing.api import RecordedWorkers
from ploinky.testing.store import MemoryKeyStore
from ploinky.values import Principal, Role

DEPLOYER = Principal(
    id="ci", role=Role.DEPLOYER, token_hash=token_hash("pk_ci"), scope=("a.example",)
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock) -> MemoryKeyStore:
    return MemoryKeyStore(clock)


@pytest.fixture
def workers() -> RecordedWorkers:
    return RecordedWorkers()


@pytest.fixture
def keys(clock, store, workers) -> PublishedKeys:
    return PublishedKeys(clock, store, workers)


@pytest.fixture
def admission(clock, keys) -> Admission:
    return Admission(clock, keys, os.urandom)


def test_tokens_say_what_they_are_and_cannot_be_guessed():
    """The kind, then 256 bits in characters that fit into URLs and headers."""
    tokens = {mint(API_KEY, os.urandom) for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(r"pk_[A-Za-z0-9_-]{43}", token) for token in tokens)


@pytest_twisted.ensureDeferred
async def test_the_first_key_is_an_admins_and_there_is_one(admission, keys):
    """A second `init` says that it was done already, and changes nothing."""
    assert not await admission.initialized()
    key = await admission.initialize()
    assert await admission.initialized()
    expected = Principal(id="Admin", role=Role.ADMIN, token_hash=token_hash(key))
    with pytest.raises(Conflict, match=r"^Already initialized$"):
        await admission.initialize()
    assert await keys.principals() == [expected]


@pytest_twisted.ensureDeferred
async def test_a_session_does_what_its_key_does(admission, keys):
    """Same id, role and scope; it ends after twelve hours."""
    await keys.add_principal(DEPLOYER)
    token, session = await admission.login("pk_ci")
    assert re.fullmatch(r"ps_[A-Za-z0-9_-]{43}", token)
    assert session == attrs.evolve(
        DEPLOYER,
        token_hash=token_hash(token),
        session=True,
        expires_at=43_200,
        parent=DEPLOYER.token_hash,
    )


@pytest_twisted.ensureDeferred
async def test_a_session_ends_with_its_key(clock, admission, keys):
    """A key that expires in an hour does not live on as a session."""
    await keys.add_principal(attrs.evolve(DEPLOYER, expires_at=3600.0))
    _, session = await admission.login("pk_ci")
    assert session.expires_at == 3600.0
    clock.advance(3600)
    with pytest.raises(Unauthenticated):
        await admission.login("pk_ci")


@pytest.mark.parametrize("wrong", ["", "pk_other", "ps_x", token_hash("pk_ci"), "\udcff"])
@pytest_twisted.ensureDeferred
async def test_what_is_not_a_key_does_not_log_in(admission, keys, wrong):
    """Nor does its hash, should it ever be seen."""
    await keys.add_principal(DEPLOYER)
    with pytest.raises(Unauthenticated, match="API key"):
        await admission.login(wrong)


@pytest_twisted.ensureDeferred
async def test_a_session_does_not_renew_itself(admission, keys):
    """Logging in takes a key; with a session one could stay for ever."""
    await keys.add_principal(DEPLOYER)
    token, _ = await admission.login("pk_ci")
    with pytest.raises(Unauthenticated):
        await admission.login(token)


@pytest_twisted.ensureDeferred
async def test_logging_out_ends_the_session_alone(admission, keys):
    """The key and other sessions stay, also where a key is what is logged out."""
    await keys.add_principal(DEPLOYER)
    first, _ = await admission.login("pk_ci")
    second, _ = await admission.login("pk_ci")
    for token in (first, first, "pk_ci", "unknown"):
        await admission.logout(token)
    known = {principal.token_hash for principal in await keys.principals()}
    assert known == {token_hash("pk_ci"), token_hash(second)}


@pytest_twisted.ensureDeferred
async def test_workers_know_each_change_before_it_is_told(admission, keys, workers):
    """First key, login, logout: whoever is answered can go to any worker."""
    key = await admission.initialize()
    assert [p.token_hash for p in workers.principals] == [token_hash(key)]
    token, session = await admission.login(key)
    assert session in workers.principals
    await admission.logout(token)
    assert [p.token_hash for p in workers.principals] == [token_hash(key)]


@pytest_twisted.ensureDeferred
async def test_after_a_restart_keys_hold_and_workers_are_told(clock, store, workers):
    """Expired ones are not told."""
    await store.add_principal(DEPLOYER)
    await store.add_principal(attrs.evolve(DEPLOYER, id="x", token_hash="x", expires_at=5.0))
    clock.advance(6)
    keys = PublishedKeys(clock, store, workers)
    await keys.load()
    assert verifyObject(IKeyStore, keys)
    assert await keys.principals() == [DEPLOYER]
    assert workers.principals == (DEPLOYER,)


class _SlowWorkers(RecordedWorkers):
    """Acknowledges when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Deferred[None]] = []

    async def publish_principals(self, principals):
        self.waiting.append(Deferred())
        await self.waiting[-1]
        return await super().publish_principals(principals)


@pytest_twisted.ensureDeferred
async def test_what_workers_hear_last_is_the_newest(clock, store):
    """Two changes at once never leave them with the older of two lists."""
    workers = _SlowWorkers()
    keys = PublishedKeys(clock, store, workers)
    adding = Deferred.fromCoroutine(keys.add_principal(DEPLOYER))
    removing = Deferred.fromCoroutine(keys.remove_principal(DEPLOYER.token_hash))
    assert len(workers.waiting) == 1
    assert not removing.called
    workers.waiting[0].callback(None)
    await adding
    workers.waiting[1].callback(None)
    await removing
    assert workers.principals == ()


class _BrokenStore(MemoryKeyStore):
    async def remove_principal(self, token_hash):
        raise StateUnusable("disk full")


@pytest_twisted.ensureDeferred
async def test_a_revoked_key_is_refused_even_if_the_disk_is_full(clock, workers):
    """The error is told, and the key does not work on."""
    keys = PublishedKeys(clock, _BrokenStore(clock), workers)
    await keys.add_principal(DEPLOYER)
    with pytest.raises(StateUnusable):
        await keys.remove_principal(DEPLOYER.token_hash)
    assert await keys.principals() == []


@pytest_twisted.ensureDeferred
async def test_the_authenticator_knows_keys_and_sessions(clock, keys, admission):
    """By token, while they are valid, and never by their hash."""
    assert await authenticator.available(clock) == ""
    known = await authenticator.create(clock, None, keys)
    assert verifyObject(IAuthenticator, known)
    await keys.add_principal(DEPLOYER)
    token, session = await admission.login("pk_ci")
    assert await known.authenticate("pk_ci") == DEPLOYER
    assert await known.authenticate(token) == session
    assert await known.authenticate(DEPLOYER.token_hash) is None
    clock.advance(43_200)
    assert await known.authenticate(token) is None


@pytest_twisted.ensureDeferred
async def test_a_login_that_comes_with_the_removal_of_its_key_lets_nobody_in(clock, store, keys):
    """Whichever of the two is first: afterwards there is no session."""
    await keys.add_principal(DEPLOYER)
    session = attrs.evolve(
        DEPLOYER, token_hash="s", session=True, expires_at=50.0, parent=DEPLOYER.token_hash
    )
    workers = _SlowWorkers()
    racing = PublishedKeys(clock, store, workers)
    loading = Deferred.fromCoroutine(racing.load())
    workers.waiting.pop().callback(None)
    await loading
    adding = Deferred.fromCoroutine(racing.add_principal(session))
    removing = Deferred.fromCoroutine(racing.remove_principal(DEPLOYER.token_hash))
    while not removing.called:
        workers.waiting.pop(0).callback(None)
    await adding
    await removing
    assert await racing.principals() == await store.principals() == []
    assert workers.principals == ()


@pytest_twisted.ensureDeferred
async def test_the_last_use_is_written_down_now_and_then(keys, store):
    """One write for many uses; what is not written down yet is told as well."""
    await keys.add_principal(DEPLOYER)
    for moment in (1.0, 2.0, 3.0):
        await keys.used({DEPLOYER.token_hash: moment})
    assert await store.last_used() == {}
    assert await keys.last_used() == {DEPLOYER.token_hash: 3.0}
    await keys.flush()
    assert await store.last_used() == {DEPLOYER.token_hash: 3.0}


@pytest.mark.parametrize("session", [False, True])
@pytest_twisted.ensureDeferred
async def test_whoever_a_plugin_lets_in_has_no_hand_in_our_keys(clock, keys, session):
    """They have no key that one of theirs could end with; an admin is an admin."""
    await keys.add_principal(DEPLOYER)
    keyring = Keyring(clock, keys, os.urandom)
    stranger = Principal("oidc", Role.DEPLOYER, session=session)
    assert await keyring.keys(stranger) == await keyring.sessions(stranger) == []
    with pytest.raises(NotFound):
        await keyring.find_removable(stranger, "ci", False)
    with pytest.raises(Forbidden):
        await keyring.make(stranger, WantedKey("mine", Role.CALLER))
    admin = Principal("oidc", Role.ADMIN, session=session)
    _, made = await keyring.make(admin, WantedKey("theirs", Role.CALLER))
    assert made.parent == ""
