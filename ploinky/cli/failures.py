"""What a person is told when a command fails: one line, a hint, an exit status.

Exit statuses (contract, section 6): 0 ok, 1 error, 2 connection,
3 authentication, 4 container or deployment, 5 configuration.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import IO, Any

import click

from ploinky.cli.output import visible

ERROR, CONNECTION, AUTHENTICATION, DEPLOYMENT, CONFIGURATION = 1, 2, 3, 4, 5

_BY_CODE = {
    "LEADER_AWAY": CONNECTION,
    "VALIDATION_FAILED": CONFIGURATION,
    "SETTINGS_INVALID": CONFIGURATION,
    "MANIFEST_INVALID": CONFIGURATION,
    "ENV_MISSING": CONFIGURATION,
    "URL_REFUSED": CONFIGURATION,
    "AGENT_AMBIGUOUS": CONFIGURATION,
    "AGENT_NOT_FOUND": DEPLOYMENT,
    "SOURCE_ERROR": DEPLOYMENT,
    "REPOSITORY_UNREACHABLE": DEPLOYMENT,
    "REF_NOT_FOUND": DEPLOYMENT,
    "SOURCE_TOO_LARGE": DEPLOYMENT,
    "DEPLOY_FAILED": DEPLOYMENT,
    "SOURCE_FAILED": DEPLOYMENT,
    "IMAGE_FAILED": DEPLOYMENT,
    "INSTALL_FAILED": DEPLOYMENT,
    "START_FAILED": DEPLOYMENT,
    "PROBE_FAILED": DEPLOYMENT,
    "ENGINE_ERROR": DEPLOYMENT,
    "ENGINE_UNAVAILABLE": DEPLOYMENT,
    "IMAGE_UNAVAILABLE": DEPLOYMENT,
    "NO_HEALTHY_INSTANCE": DEPLOYMENT,
    "AGENT_UNREACHABLE": DEPLOYMENT,
    "AGENT_BROKEN": DEPLOYMENT,
}
_BY_STATUS = {401: AUTHENTICATION, 403: AUTHENTICATION}
_HINTS = {
    401: "log in with: p-cli cloud login <API_KEY>  (or set PLOINKY_API_KEY)",
    403: "this key's role or scope does not allow it; see: p-cli cloud status",
    404: "see what there is: p-cli cloud deployments, repo list, host list, keys list",
    409: "see how it stands: p-cli cloud deployments",
    412: "somebody else was faster; look again, then repeat it",
    429: "wait as long as it says; keys that are right are not slowed down",
    503: "see how the server is: p-cli cloud health",
}


class CommandFailed(click.ClickException):
    """Ends the command with a message, and a hint on what to do where there is one."""

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        exit_code: int = ERROR,
        output: str = "",
        code: str = "",
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_status = exit_code
        self.output = output
        self.code = code
        self.request_id = request_id

    def document(self) -> dict[str, Any]:
        """Give it for programs, in the form of the API's errors."""
        said = {
            "error": self.message,
            "message": self.message,
            "code": self.code,
            "exitStatus": self.exit_status,
            "hint": self.hint,
            "output": self.output,
            "requestId": self.request_id,
        }
        return {name: value for name, value in said.items() if value != ""}

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it on standard error."""
        message = visible(self.message) + (f" ({self.code})" if self.code else "")
        click.echo(f"{click.style('Error:', fg='red')} {message}", err=True, file=file)
        if self.output:
            for line in visible(self.output).rstrip().splitlines():
                click.echo(f"  | {line}", err=True, file=file)
        if self.hint:
            click.echo(f"{click.style('Hint:', fg='yellow')}  {self.hint}", err=True, file=file)


def is_debugging() -> bool:
    """Tell whether somebody wants to see more: ``DEBUG=1``."""
    return os.environ.get("DEBUG", "") not in ("", "0")


def debug(words: str) -> None:
    """Say something on standard error to whoever wants to see more."""
    if is_debugging():
        click.echo(f"debug: {words}", err=True)


def from_answer(status: int, body: Any) -> CommandFailed:
    """Turn an error answer of the server (API or gateway) into what a person is told."""
    if not isinstance(body, Mapping):
        return CommandFailed(
            f"the server answered {status} with something that is not its own error form",
            hint="is this a Ploinky server? see: p-cli cloud status",
            exit_code=CONNECTION,
        )
    code = str(body.get("code", ""))
    message = str(body.get("message") or body.get("error") or f"the server answered {status}")
    details = body.get("details")
    output = step = ""
    if isinstance(details, Mapping):
        output, step = str(details.get("output") or ""), str(details.get("step") or "")
    return CommandFailed(
        (f"[{step}] " if step else "") + message,
        hint="" if "p-cli " in message else _HINTS.get(status, ""),
        exit_code=_BY_STATUS.get(status) or _BY_CODE.get(code, ERROR),
        output=output,
        code=code,
        request_id=str(body.get("requestId", "")),
    )
