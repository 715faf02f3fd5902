"""Errors to answers: the one place where what went wrong becomes HTTP.

Its form is that of `ploinky.routing.problem`.  An error that nobody foresaw says no more than that,
and its request id, under which the log has it.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WrongMethod

from ploinky.api.answers import Answer, as_json
from ploinky.deploy_errors import DeployFailed
from ploinky.errors import (
    Draining,
    InternalError,
    MethodNotAllowed,
    NotFound,
    PloinkyError,
)
from ploinky.routing.problem import document_of, fields_of


def foreseen(failure: Failure, place: str, log: Logger, request_id: str) -> PloinkyError:
    """Give the error to answer with; one that is not ours is logged here.

    Args:
        place: Method and path, for messages.
    """
    error = failure.value
    if isinstance(error, PloinkyError):
        if error.status >= 500:
            log.warn("{place}: {code}: {said}", place=place, code=error.code, said=error.message)
        return error
    if isinstance(error, WrongMethod):
        allow = sorted({*(error.valid_methods or ()), "OPTIONS"})
        return MethodNotAllowed(f"{place} is not possible; use {', '.join(allow)}", allow=allow)
    if isinstance(error, HTTPException):
        return NotFound(f"there is nothing at {place}")
    if isinstance(error, CancelledError):  # not by the client, whose leaving ends no change
        return Draining(
            "it was cut short, as this server is shutting down; see how it stands, and repeat it",
            retry_after_seconds=5,
        )
    log.failure("{place} broke", failure, place=place, request_id=request_id)
    return InternalError(f"an error inside the server; its log has it under {request_id}")


def answer(error: PloinkyError, request_id: str) -> Answer:
    """Give status, fields and body for an error."""
    document = document_of(error, request_id)
    details = error.details
    if isinstance(error, DeployFailed):
        more = details if isinstance(details, dict) else {}
        said = {"step": error.step, "failedAt": error.failed_at, "output": error.output}
        details = {**more, **said}
    if details is not None:
        document["details"] = details
    return as_json(document, status=error.status, fields=fields_of(error))
