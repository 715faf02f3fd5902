"""Values to rows and back.  Pure, but for the sealing of what is secret.

Documents are read leniently, a missing field taking its default, so that a
row written before a field existed can still be read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from ploinky.leader_interfaces import ISecretBox
from ploinky.source_values import GitCredential, Repository
from ploinky.values import (
    Deployment,
    DeploymentKey,
    DeployRequest,
    Principal,
    Release,
    ReleaseState,
    Role,
)

Row = Mapping[Any, Any]


def deployment_to_row(deployment: Deployment) -> dict[str, Any]:
    """Give the columns of `deployments`."""
    row = attrs.asdict(deployment, recurse=False)
    del row["key"]
    return row | attrs.asdict(deployment.key)


def deployment_from_row(row: Row) -> Deployment:
    """Read what `deployment_to_row` gave."""
    columns = dict(row)
    key = DeploymentKey(columns.pop("domain"), columns.pop("path"))
    return Deployment(key=key, **columns)


def release_to_row(release: Release, box: ISecretBox) -> dict[str, Any]:
    """Give the columns of `releases`; both environments sealed for this very row."""
    where = release_purpose(release.deployment, release.number)
    return {
        "deployment": release.deployment,
        "number": release.number,
        "state": release.state.value,
        "commit_id": release.commit,
        "image": release.image,
        "request": _request_to_document(release.request),
        "request_environment_sealed": _seal(
            release.request.environment, box, f"{where}/request-environment"
        ),
        "settings": dict(release.settings),
        "environment_sealed": _seal(release.environment, box, f"{where}/environment"),
        "error": dict(release.error) if release.error is not None else None,
        "created_at": release.created_at,
    }


def release_from_row(row: Row, box: ISecretBox) -> Release:
    """Read what `release_to_row` gave.

    Raises:
        StateUnusable: It was sealed by another key.
    """
    where = release_purpose(row["deployment"], row["number"])
    asked_environment = _unseal(
        row["request_environment_sealed"], box, f"{where}/request-environment"
    )
    return Release(
        deployment=row["deployment"],
        number=row["number"],
        state=ReleaseState(row["state"]),
        request=_request_from_document(row["request"], asked_environment),
        commit=row["commit_id"],
        image=row["image"],
        settings=row["settings"],
        environment=_unseal(row["environment_sealed"], box, f"{where}/environment"),
        created_at=row["created_at"],
        error=row["error"],
    )


def repository_to_row(repository: Repository, box: ISecretBox) -> dict[str, Any]:
    """Give the columns of `repositories`; the credential sealed for this very row."""
    credential = repository.credential
    row = attrs.asdict(repository, recurse=False)
    del row["credential"]
    row["credential_sealed"] = (
        _seal(attrs.asdict(credential), box, repository_purpose(repository.name))
        if credential is not None
        else None
    )
    return row


def repository_from_row(row: Row, box: ISecretBox) -> Repository:
    """Read what `repository_to_row` gave.

    Raises:
        StateUnusable: It was sealed by another key.
    """
    columns = dict(row)
    sealed = columns.pop("credential_sealed")
    credential = None
    if sealed is not None:
        credential = GitCredential(**_unseal(sealed, box, repository_purpose(columns["name"])))
    return Repository(credential=credential, **columns)


def principal_to_row(principal: Principal) -> dict[str, Any]:
    """Give the columns of ``principals``."""
    row = attrs.asdict(principal, recurse=False)
    return row | {
        "role": principal.role.value if principal.role else "",
        "scope": list(principal.scope),
        "parent": principal.parent or None,
    }


def principal_from_row(row: Row) -> Principal:
    """Read what `principal_to_row` gave."""
    columns = dict(row)
    del columns["last_used_at"]
    columns |= {"role": Role(row["role"]), "scope": tuple(row["scope"])}
    return Principal(**columns | {"parent": row["parent"] or ""})


def _request_to_document(request: DeployRequest) -> dict[str, Any]:
    document = attrs.asdict(request, recurse=False)
    del document["environment"]
    return document | {"key": attrs.asdict(request.key), "settings": dict(request.settings)}


def _request_from_document(document: Row, environment: Mapping[str, str]) -> DeployRequest:
    known = {attribute.name for attribute in attrs.fields(DeployRequest)}
    fields = {name: value for name, value in document.items() if name in known}
    fields["key"] = DeploymentKey(**document["key"])
    fields["secrets"] = tuple(document.get("secrets", ()))
    return DeployRequest(environment=environment, **fields)


def release_purpose(deployment: str, number: int) -> str:
    """Say what the secrets of a release are sealed for, up to their name."""
    return f"release/{deployment}/{number}"


def repository_purpose(name: str) -> str:
    """Say what the credential of a repository is sealed for."""
    return f"repository/{name}"


def hook_purpose(deployment: str) -> str:
    """Say what the secret of a webhook is sealed for."""
    return f"hook/{deployment}"


def _seal(document: Mapping[str, Any], box: ISecretBox, purpose: str) -> bytes:
    return box.seal(json.dumps(dict(document)).encode(), purpose)


def _unseal(sealed: bytes, box: ISecretBox, purpose: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(box.unseal(sealed, purpose))
    return document
