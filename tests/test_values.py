"""Values: what is one place, and what is not a place at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ploinky.errors import ValidationFailed
from ploinky.source_values import GitCredential
from ploinky.values import COMMAND_NAME, Address, DeploymentKey, Principal


@pytest.mark.parametrize(
    ("domain", "path", "shown"),
    [
        ("localhost", "/demo", "localhost/demo"),
        ("LOCALHOST.", "demo/", "localhost/demo"),
        ("api.example.com", "/", "api.example.com/"),
        ("a-b.c_d", "/v1/users", "a-b.c_d/v1/users"),
    ],
)
def test_one_place_has_one_key(domain: str, path: str, shown: str) -> None:
    """However it is typed, a place is the same place."""
    assert str(DeploymentKey.of(domain, path)) == shown


@pytest.mark.parametrize(
    ("domain", "path", "fields"),
    [
        ("", "/x", {"domain"}),
        ("local host", "/x", {"domain"}),
        ("a..b", "/x", {"domain"}),
        ("example.com:80", "/x", {"domain"}),
        ("localhost", "/a/../b", {"path"}),
        ("localhost", "/a//b", {"path"}),
        ("localhost", "/a b", {"path"}),
        ("localhost", "/a%2fb", {"path"}),
        ("localhost", "/" + "a" * 1025, {"path"}),
        ("*", "/\n", {"domain"}),
        ("*", "/a?b", {"domain", "path"}),
    ],
)
def test_what_is_not_a_place_is_refused(domain: str, path: str, fields: set[str]) -> None:
    """Both halves' problems come at once."""
    with pytest.raises(ValidationFailed) as caught:
        DeploymentKey.of(domain, path)
    assert set(caught.value.problems) == fields


@given(st.text(), st.text())
def test_a_key_is_canonical_or_refused(domain: str, path: str) -> None:
    """A key that was accepted is accepted again, as itself."""
    try:
        key = DeploymentKey.of(domain, path)
    except ValidationFailed:
        return
    assert DeploymentKey.of(key.domain, key.path) == key


@pytest.mark.parametrize("text", ["unix:/run/x.sock", "tcp:127.0.0.1:80", "tcp:[::1]:80"])
def test_an_address_reads_as_it_is_written(text: str) -> None:
    """Text to value and back."""
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize("text", ["", "unix:", "tcp:x", "tcp:x:0", "tcp:x:65536", "http://x:1"])
def test_what_is_not_an_address_is_refused(text: str) -> None:
    """With a message that shows the forms there are."""
    with pytest.raises(ValueError, match="unix:PATH"):
        Address.parse(text)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "-x", "x\n", "a b", "é"])
def test_a_command_name_is_never_a_path(name: str) -> None:
    """Nothing that a file system or a shell would read as more than a name."""
    assert not COMMAND_NAME.match(name)


def test_secrets_are_not_printed() -> None:
    """A value that ends up in a log line does not take its secret along."""
    shown = repr(GitCredential(token="hunter2", ssh_key="hunter2"))
    assert "hunter2" not in shown + repr(Principal("a", None, token_hash="hunter2"))
