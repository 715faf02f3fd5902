"""Where code comes from: repositories, what is in them, and what opens them.

Values like those in `ploinky.values`.
"""

from __future__ import annotations

from attrs import field, frozen


@frozen
class GitCredential:
    """What opens one repository; never printed.

    Attributes:
        username: For `token`; most hosts ignore it.
        token: Password or access token for https; ``""`` where there is none.
        ssh_key: A private key in OpenSSH's format; ``""`` where there is none.
        known_hosts: Lines of `known_hosts` that the server's key must match;
            ``""``: the first key seen is trusted and kept.
    """

    username: str = field(default="git", repr=False)
    token: str = field(default="", repr=False)
    ssh_key: str = field(default="", repr=False)
    known_hosts: str = field(default="", repr=False)


@frozen
class GitSource:
    """A repository and a place in its history.

    Attributes:
        url: As the user gave it, without a credential in it.
        ref: Branch, tag or commit id; ``""``: the remote's default branch.
        any_file_url: Whether file URLs outside the allowed roots may be read (admins only).
    """

    url: str
    ref: str = ""
    credential: GitCredential | None = field(default=None, repr=False)
    any_file_url: bool = False


@frozen
class AgentListing:
    """One agent found in a repository.

    Attributes:
        path: Directory in the repository; ``""`` for its root.
        about: One line from its manifest.
        problem: Why its manifest cannot be used; ``""`` if it can.
    """

    name: str
    path: str
    about: str = ""
    problem: str = ""


@frozen
class Repository:
    """A registered repository.

    Attributes:
        credential: Kept encrypted at rest; never leaves through the API.
    """

    name: str
    url: str
    branch: str = ""
    credential: GitCredential | None = field(default=None, repr=False)
    created_at: float = 0.0
