"""``POST hooks/<deployment id>``: a Git host says that something was pushed, and it is deployed.

Who sends proves it with the deployment's secret: GitHub and Gitea sign the body, GitLab sends the
secret itself.  A delivery that is repeated deploys the same again, which changes nothing.
Sources: GitHub, *Validating webhook deliveries*; GitLab, *Webhooks*; Gitea, *Webhooks*.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from attrs import frozen

from ploinky.api.answers import Answer, as_json
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.forms import parse_json
from ploinky.api.places import Places
from ploinky.api.requests import Call, ManagementRequest
from ploinky.api.shapes import KeyForm, Success
from ploinky.errors import (
    BadJson,
    BodyTooLarge,
    NotFound,
    TooManyRequests,
    Unauthenticated,
)
from ploinky.security.tokens import HOOK, mint
from ploinky.values import DeploymentView


@frozen(kw_only=True)
class HookMade(Success):
    """What to enter at the Git host; the secret is shown this once."""

    url: str
    secret: str


@frozen(kw_only=True)
class Pushed(Success):
    """Whether a deploy has begun; its outcome is the deployment's own."""

    deploying: bool
    reason: str = ""


class HookRoutes:
    """Syncs in the background: Git hosts wait for seconds only."""

    def __init__(self, collaborators: Collaborators) -> None:
        self._its = collaborators
        self._places = Places(collaborators)
        self._waiting: set[str] = set()

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        return [
            Endpoint(
                "deployments.hook",
                "POST",
                f"{API}/deployments/hook",
                self._make,
                takes=KeyForm,
                gives=HookMade,
                errors=(NotFound,),
            ),
            Endpoint(
                "hooks.push",
                "POST",
                f"{API}/hooks/<id>",
                self._push,
                gives=Pushed,
                statuses=(200, 202),
                errors=(Unauthenticated, NotFound, TooManyRequests, BadJson, BodyTooLarge),
                proves_itself=True,
            ),
        ]

    async def _make(self, call: Call) -> Answer:
        """Make a secret for pushes to a deployment's repository; an earlier one is void."""
        named = call.form(KeyForm)
        view = self._places.find(call.key(named.domain, named.path))
        secret = mint(HOOK, self._its.random_bytes)
        await self._its.operations.begin(
            call.operation(view.deployment.key),
            self._its.hooks.save_hook_secret(view.deployment.id, secret),
        )
        return as_json(HookMade(url=f"{API}/hooks/{view.deployment.id}", secret=secret))

    async def _push(self, call: Call) -> Answer:
        """Take a push from GitHub, GitLab or Gitea, and deploy it in the background."""
        body = call.request.whole_body()
        view = await self._proven(call, body)
        call.subjects.append(str(view.deployment.key))
        push = parse_json(_payload(call.request, body))
        if reason := await self._ignored(call, view, push):
            return as_json(Pushed(deploying=False, reason=reason))
        self._deploy(call, view)
        return as_json(Pushed(deploying=True), 202)

    async def _proven(self, call: Call, body: bytes) -> DeploymentView:
        """Give the deployment whose secret the sender knows.

        Raises:
            Unauthenticated: They do not; or there is no such deployment, which is not told.
            TooManyRequests: They have guessed too often.
        """
        self._its.throttle.attempt(call.peer.address)
        for view in self._its.deployments.deployments():
            if view.deployment.id == call.parts["id"]:
                secret = await self._its.hooks.hook_secret(view.deployment.id)
                if secret and _proves(call.request, body, secret):
                    self._its.throttle.succeeded(call.peer.address)
                    return view
        raise Unauthenticated(
            "this push does not prove that it knows the deployment's secret; make one with"
            " p-cli cloud deployments hook DOMAIN PATH, and enter it at the Git host"
        )

    async def _ignored(self, call: Call, view: DeploymentView, push: Any) -> str:
        """Say why a push is none of the deployment's business; ``""`` where it is."""
        event = _first(call.request, "X-GitHub-Event", "X-Gitea-Event", "X-Gitlab-Event").lower()
        if event and event not in ("push", "push hook", "tag push hook", "system hook"):
            return f"{event} is no push"
        if not isinstance(push, Mapping):
            return "it says nothing of what was pushed"
        release = await self._places.served(view.deployment.key)
        if release.commit and push.get("after") == release.commit:
            return f"{release.commit[:12]} serves already"
        branch, ref = release.request.branch or _default_branch(push), push.get("ref")
        if branch and isinstance(ref, str) and ref.partition("/")[2].partition("/")[2] != branch:
            return f"it was to {ref}, and {branch} is what is deployed"
        return ""

    def _deploy(self, call: Call, view: DeploymentView) -> None:
        """Sync, unless a sync that a push asked for has not begun yet: it will see this one too."""
        key = view.deployment.key
        if view.deployment.id in self._waiting:
            return
        self._waiting.add(view.deployment.id)

        def begun(line: str) -> None:
            self._waiting.discard(view.deployment.id)

        async def sync() -> None:
            try:
                release = await self._places.served(key)
                await self._its.deployments.deploy(release.request, begun)
            finally:
                self._waiting.discard(view.deployment.id)

        outcome = self._its.operations.begin(call.operation(key), sync())
        # The operation logs it, and the deployment's own `error` says why.
        outcome.addErrback(lambda failure: None)


def _proves(request: ManagementRequest, body: bytes, secret: str) -> bool:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    proofs: tuple[tuple[str, str, Callable[[str], str]], ...] = (
        ("X-Hub-Signature-256", f"sha256={digest}", str.lower),
        ("X-Gitea-Signature", digest, str.lower),
        ("X-Gitlab-Token", secret, str),
    )
    return any(
        hmac.compare_digest(plain(request.text_field(name)).encode(), expected.encode())
        for name, expected, plain in proofs
        if request.text_field(name)
    )


def _payload(request: ManagementRequest, body: bytes) -> bytes:
    """Give what was pushed as JSON: GitHub puts it into a form's field unless it is told otherwise."""
    kind = request.text_field("Content-Type").partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        fields = parse_qs(body.decode("utf-8", "replace"))
        return fields["payload"][-1].encode() if "payload" in fields else body
    return body


def _first(request: ManagementRequest, *names: str) -> str:
    return next((said for name in names if (said := request.text_field(name))), "")


def _default_branch(push: Mapping[str, Any]) -> str:
    """Give the branch that a repository's own default is, as far as the push says so."""
    for name in ("repository", "project"):
        about = push.get(name)
        if isinstance(about, Mapping) and isinstance(about.get("default_branch"), str):
            return str(about["default_branch"])
    return ""
