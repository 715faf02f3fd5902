"""Why a release did not come up: branches of the tree that `ploinky.errors` draws."""

from __future__ import annotations

from typing import Any, ClassVar

from ploinky.errors import PloinkyError


class DeployFailed(PloinkyError):
    """A release did not come up; what served before still serves.

    Attributes:
        step: ``source``, ``image``, ``install``, ``start`` or ``probe``.
        output: The last lines that the failed step printed, or ``""``.
        failed_at: The step, unless more is known: `MEMORY`, `AGENT`, `TIMEOUT`.
    """

    code = "DEPLOY_FAILED"
    status = 422
    step: ClassVar[str] = "deploy"

    def __init__(
        self, message: str, *, output: str = "", details: Any = None, failed_at: str = ""
    ) -> None:
        super().__init__(message, details=details)
        self.output = output
        self.failed_at = failed_at or self.step


class SourceFailed(DeployFailed):
    """The code could not be fetched or checked out."""

    code = "SOURCE_FAILED"
    step = "source"


class ImageFailed(DeployFailed):
    """The image is absent and could not be pulled."""

    code = "IMAGE_FAILED"
    step = "image"


class InstallFailed(DeployFailed):
    """``install`` (or ``update``) exited non-zero or ran out of time."""

    code = "INSTALL_FAILED"
    step = "install"


class StartFailed(DeployFailed):
    """The engine would not create or start the instance."""

    code = "START_FAILED"
    step = "start"


class ProbeFailed(DeployFailed):
    """The instance started and never became ready."""

    code = "PROBE_FAILED"
    step = "probe"


class SourceError(PloinkyError):
    """Git would not give what was asked for."""

    code = "SOURCE_ERROR"
    status = 422
    failed_at = "source"


class UrlRefused(SourceError):
    """The repository URL is of a kind, or points to a place, that is not allowed."""

    code = "URL_REFUSED"
    status = 400


class RepositoryUnreachable(SourceError):
    """The repository could not be reached, read or authenticated to."""

    code = "REPOSITORY_UNREACHABLE"


class RefNotFound(SourceError):
    """The repository has no such branch, tag, commit or sub-directory."""

    code = "REF_NOT_FOUND"


class SourceTooLarge(SourceError):
    """The repository or checkout is over the size limit."""

    code = "SOURCE_TOO_LARGE"


class EngineError(PloinkyError):
    """The container engine refused a request; the message has its own words."""

    code = "ENGINE_ERROR"
    status = 502


class EngineUnavailable(EngineError):
    """The engine does not answer."""

    code = "ENGINE_UNAVAILABLE"
    status = 503


class ImageUnavailable(EngineError):
    """The image is not here and the engine could not pull it."""

    code = "IMAGE_UNAVAILABLE"
