"""Everything that can go wrong, as one shallow tree.

The branches of deploys, sources and engines are in `ploinky.deploy_errors`.
Nothing enters; what leaves are exceptions that carry a ``code`` (part of the
public contract), an HTTP ``status`` and a message that names the cause and,
where there is one, the next step.  This module knows nothing of HTTP framing:
the mapping to an answer happens at the gateway's and the API's edge.

::

    PloinkyError
    +-- CallFailed                 a request to an agent could not be answered
    |   +-- BadRequest, BadJson, BadCommand, BodyTooLarge, RequestTimeout,
    |   |   MethodNotAllowed, NoSuchRoute, TooManyRequests,
    |   |   HeadTooLarge, TargetTooLong, ExpectationFailed,
    |   |   NoSuchFile, PreconditionFailed, RangeNotSatisfiable,
    |   |   InsufficientStorage, UploadFailed
    |   +-- Unauthenticated, Forbidden
    |   +-- AgentUnreachable (AgentLeft), AgentBroken (AgentCutShort), TaskTimeout
    |   +-- IdempotencyKeyReused, Interrupted, TaskExpired, TaskPending, ResultGone
    |   +-- Overloaded, NoHealthyInstance, Draining, LeaderAway   (all with retry_after_seconds)
    +-- RequestRefused             a management request cannot be carried out
    |   +-- ValidationFailed, NotFound, Conflict
    |   +-- ManifestInvalid, EnvironmentMissing, AgentAmbiguous, AgentNotFound
    +-- DeployFailed               a release did not come up; ``step`` says where
    |   +-- SourceFailed, ImageFailed, InstallFailed, StartFailed, ProbeFailed
    +-- SourceError                Git would not give what was asked for
    |   +-- UrlRefused, RepositoryUnreachable, RefNotFound, SourceTooLarge
    +-- EngineError                the container engine refused or is away
    |   +-- EngineUnavailable, ImageUnavailable
    +-- ServerError                this server cannot start or go on
        +-- SettingsInvalid, AlreadyRunning, PortInUse, WorkerCouldNotBoot
        +-- StateUnusable, BackupInvalid, InternalError
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

CLIENT = "client"
"""The request itself: malformed, not allowed, too slow, or its sender left."""
GATEWAY = "gateway"
"""This server: it stops, or failed."""
QUEUE = "queue"
"""No place became free: every instance is at its ``concurrency``."""
INSTANCE = "instance"
"""No instance is healthy, or the chosen one could not be reached or went away."""
AGENT = "agent"
"""The agent's own code."""
TIMEOUT = "timeout"
"""It took longer than it may."""
MEMORY = "memory"
"""The instance was ended for its memory limit."""
PARTS = (
    *(CLIENT, GATEWAY, QUEUE, INSTANCE, AGENT, TIMEOUT, MEMORY),
    *("source", "image", "install", "start", "probe"),
)
"""What can have failed: ``failedAt`` in errors' ``details``, access lines and metrics.  Those of the
second line are steps of a deploy."""


class PloinkyError(Exception):
    """The root: a message for people, a code for programs.

    Attributes:
        failed_at: One of `PARTS`.
        message: One or two sentences; the cause, then what to do about it.
        details: JSON-serialisable extras, or None.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500
    failed_at: str = GATEWAY

    def __init__(self, message: str, *, details: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


# --- calls ------------------------------------------------------------------


class CallFailed(PloinkyError):
    """A request to an agent could not be answered with the agent's own words.

    Attributes:
        got_nothing: No byte of the request has reached the instance that was chosen: it cannot
            run twice where another one gets it.
    """

    status = 502

    def __init__(
        self,
        message: str,
        *,
        details: Any = None,
        retry_after_seconds: int | None = None,
        got_nothing: bool = False,
    ) -> None:
        super().__init__(message, details=details)
        self.retry_after_seconds = retry_after_seconds
        self.got_nothing = got_nothing


class BadRequest(CallFailed):
    """The bytes are not HTTP, or not HTTP that can be read in one way only."""

    code = "BAD_REQUEST"
    status = 400
    failed_at = CLIENT


class BadJson(CallFailed):
    """The body is not JSON, or not a task."""

    code = "BAD_JSON"
    status = 400
    failed_at = CLIENT


class BadCommand(CallFailed):
    """The command's name does not match ``[A-Za-z0-9_][A-Za-z0-9_.-]*``."""

    code = "BAD_COMMAND"
    status = 400
    failed_at = CLIENT


class Unauthenticated(CallFailed):
    """No credential, or one that is not (or no longer) valid."""

    code = "UNAUTHENTICATED"
    status = 401
    failed_at = CLIENT


class Forbidden(CallFailed):
    """The principal is known and may not do this."""

    code = "FORBIDDEN"
    status = 403
    failed_at = CLIENT


class NoSuchRoute(CallFailed):
    """Nothing is deployed at this domain and path."""

    code = "NO_SUCH_ROUTE"
    status = 404
    failed_at = CLIENT


class NoSuchFile(CallFailed):
    """A static deployment has no such file, or none that it shows."""

    code = "NO_SUCH_FILE"
    status = 404
    failed_at = CLIENT


class MethodNotAllowed(CallFailed):
    """The target takes other methods; ``allow`` lists them."""

    code = "METHOD_NOT_ALLOWED"
    status = 405
    failed_at = CLIENT

    def __init__(self, message: str, *, allow: Sequence[str]) -> None:
        super().__init__(message)
        self.allow = tuple(allow)


class RequestTimeout(CallFailed):
    """The client took too long to send its request."""

    code = "REQUEST_TIMEOUT"
    status = 408
    failed_at = CLIENT


class PreconditionFailed(CallFailed):
    """It is not as ``If-Match`` or ``If-Unmodified-Since`` wants it: changed since it was seen."""

    code = "PRECONDITION_FAILED"
    status = 412
    failed_at = CLIENT


class BodyTooLarge(CallFailed):
    """The body is larger than the target takes."""

    code = "BODY_TOO_LARGE"
    status = 413
    failed_at = CLIENT


class TargetTooLong(CallFailed):
    """The request target is over 8 KiB."""

    code = "TARGET_TOO_LONG"
    status = 414
    failed_at = CLIENT


class RangeNotSatisfiable(CallFailed):
    """The file ends before the range that is wanted; ``size`` is its length in bytes."""

    code = "RANGE_NOT_SATISFIABLE"
    status = 416
    failed_at = CLIENT

    def __init__(self, message: str, *, size: int) -> None:
        super().__init__(message)
        self.size = size


class ExpectationFailed(CallFailed):
    """The client expects something other than ``100-continue``."""

    code = "EXPECTATION_FAILED"
    status = 417
    failed_at = CLIENT


class HeadTooLarge(CallFailed):
    """The request head is over 64 KiB or has over 100 fields."""

    code = "HEAD_TOO_LARGE"
    status = 431
    failed_at = CLIENT


class TooManyRequests(CallFailed):
    """The client's rate limit is used up."""

    code = "TOO_MANY_REQUESTS"
    status = 429
    failed_at = CLIENT


class AgentUnreachable(CallFailed):
    """No connection to the agent, or it closed before it answered."""

    code = "AGENT_UNREACHABLE"
    status = 502
    failed_at = INSTANCE


class AgentLeft(AgentUnreachable):
    """It had the call, and closed the connection without an answer: perhaps it died."""


class AgentBroken(CallFailed):
    """The agent answered something that is not HTTP, or not an answer."""

    code = "AGENT_BROKEN"
    status = 502
    failed_at = AGENT


class AgentCutShort(AgentBroken):
    """It closed the connection amid its answer: perhaps it died."""


class Overloaded(CallFailed):
    """Every instance is busy and the queue before them is full."""

    code = "OVERLOADED"
    status = 503
    failed_at = QUEUE


class NoHealthyInstance(CallFailed):
    """The deployment exists, and none of its instances can take a call now."""

    code = "NO_HEALTHY_INSTANCE"
    status = 503
    failed_at = INSTANCE


class Draining(CallFailed):
    """This server is shutting down and takes no new calls."""

    code = "DRAINING"
    status = 503


class LeaderAway(CallFailed):
    """The leader, which alone manages, cannot be reached; calls of deployments go on."""

    code = "LEADER_AWAY"
    status = 503


class TaskTimeout(CallFailed):
    """The task ran past its deadline and was aborted."""

    code = "TASK_TIMEOUT"
    status = 504
    failed_at = TIMEOUT


class InsufficientStorage(CallFailed):
    """There is no room on this server's disk for what is uploaded."""

    code = "INSUFFICIENT_STORAGE"
    status = 507


class UploadFailed(CallFailed):
    """What is uploaded cannot be written to this server's disk; its log says more."""

    code = "UPLOAD_FAILED"
    status = 500


class IdempotencyKeyReused(CallFailed):
    """Another call was made under this key."""

    code = "IDEMPOTENCY_KEY_REUSED"
    status = 422
    failed_at = CLIENT


class Interrupted(CallFailed):
    """The instance ended while it ran the task: whether that took effect is not known."""

    code = "INTERRUPTED"
    status = 502
    failed_at = INSTANCE


class TaskExpired(CallFailed):
    """A durable task waited too long to begin."""

    code = "TASK_EXPIRED"
    status = 504
    failed_at = QUEUE


class TaskPending(CallFailed):
    """A durable task is not done in the time in which its caller waits; it goes on."""

    code = "TASK_PENDING"
    status = 504
    failed_at = TIMEOUT


class ResultGone(CallFailed):
    """The task is over, and what came of it is not kept any more."""

    code = "RESULT_GONE"
    status = 410
    failed_at = CLIENT


# --- management requests ----------------------------------------------------


class RequestRefused(PloinkyError):
    """A management request that cannot be carried out as it is."""

    status = 400
    failed_at = CLIENT


class ValidationFailed(RequestRefused):
    """One or more fields do not fit; ``details`` has ``{field: problem}``."""

    code = "VALIDATION_FAILED"
    status = 400

    def __init__(self, problems: Mapping[str, str]) -> None:
        said = "; ".join(f"{field}: {problem}" for field, problem in problems.items())
        super().__init__(said, details=dict(problems))
        self.problems = dict(problems)


class NotFound(RequestRefused):
    """There is no such deployment, domain, repository or key."""

    code = "NOT_FOUND"
    status = 404


class Conflict(RequestRefused):
    """The name or path is taken, or the thing is in another state."""

    code = "CONFLICT"
    status = 409


class ManifestInvalid(RequestRefused):
    """``manifest.json`` is not JSON (line and column) or a field is of a wrong type."""

    code = "MANIFEST_INVALID"
    status = 422


class EnvironmentMissing(RequestRefused):
    """Variables that the manifest requires were not set by the deployment."""

    code = "ENV_MISSING"
    status = 422


class AgentAmbiguous(RequestRefused):
    """More than one registered repository has an agent of this name."""

    code = "AGENT_AMBIGUOUS"
    status = 409


class AgentNotFound(RequestRefused):
    """No registered repository has an agent of this name."""

    code = "AGENT_NOT_FOUND"
    status = 404


# --- this server ------------------------------------------------------------


class ServerError(PloinkyError):
    """This server cannot start or go on."""


class InternalError(ServerError):
    """Something that nobody foresaw; the cause is in the server's log alone."""


class SettingsInvalid(ServerError):
    """Every setting that does not fit, with its source, one a line."""

    code = "SETTINGS_INVALID"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems), details=list(problems))
        self.problems = tuple(problems)


class AlreadyRunning(ServerError):
    """Another server runs on this data directory."""

    code = "ALREADY_RUNNING"


class PortInUse(ServerError):
    """Another program listens on the public port."""

    code = "PORT_IN_USE"


class WorkerCouldNotBoot(ServerError):
    """A worker stopped before it could serve; starting it again would not help."""

    code = "WORKER_COULD_NOT_BOOT"


class StateUnusable(ServerError):
    """The database cannot be read or written: damaged, full, too new, or sealed by another key."""

    code = "STATE_UNUSABLE"


class BackupInvalid(ServerError):
    """What is to be restored is no backup of ours, damaged, of a newer form, or asks for harm."""

    code = "BACKUP_INVALID"
    status = 400
