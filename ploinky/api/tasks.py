"""Durable tasks: taken from workers, shown to callers, and managed.

Three doors: ``POST /internal/tasks`` for this server's own workers, ``/_ploinky/tasks/<id>`` for
whoever made a call, and `tasks` of the management API for those who look after deployments.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import unquote

import msgspec
from attrs import frozen
from twisted.logger import Logger

from ploinky.api.answers import Answer, as_json
from ploinky.api.documents import moment
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.forms import plain
from ploinky.api.requests import Call, ManagementRequest
from ploinky.api.shapes import Domain, Page, PageQuery, Place, whole
from ploinky.errors import (
    CallFailed,
    Conflict,
    Forbidden,
    NotFound,
    ResultGone,
    StateUnusable,
    TaskPending,
    Unauthenticated,
    ValidationFailed,
)
from ploinky.routing.durable import SUBMISSIONS, TASKS
from ploinky.security.roles import is_confined, reaches
from ploinky.task_values import (
    Submission,
    Task,
    TaskQuery,
    TaskState,
)
from ploinky.tasks.outcomes import part_that_failed
from ploinky.values import (
    NOBODY,
    Principal,
    Role,
)

LONGEST_WAIT_SECONDS = 300

FAILED_AT = "X-Ploinky-Failed-At"


@frozen(kw_only=True)
class TaskFacts:
    """A durable task, without what was called and what came of it.

    Attributes:
        status: ``running``: handed to an instance, which has begun it or will.
        attempts: How often an instance began it.
        http_status: Of what came of it; there is none before.
    """

    task_id: str
    status: TaskState
    attempts: int
    domain: str
    path: str
    command: str
    user: str
    request_id: str
    created_at: str | None
    started_at: str | None
    finished_at: str | None
    http_status: int | None = None


@frozen(kw_only=True)
class TaskDocument(TaskFacts):
    """A durable task as it stands.

    Attributes:
        failed_at: Which part failed; there is none unless one did.
        result: What the agent answered; there is none unless it succeeded.
        error: Why it failed, as a caller would have been told.
    """

    failed_at: str | None = None
    result: Any = None
    error: Any = None


@frozen(kw_only=True)
class TaskList(Page):
    """A page of durable tasks, newest first."""

    tasks: list[TaskFacts]


@frozen
class TasksQuery(PageQuery):
    """Which tasks to list.

    Attributes:
        status: Some of queued, running, succeeded, failed, cancelled, with commas between.
    """

    status: str = ""
    domain: Domain = ""
    path: Place = ""


@frozen
class PatienceQuery:
    """How long to wait.

    Attributes:
        wait: Seconds in which the task may end before it is shown as it stands.
    """

    wait: Annotated[int, whole(0, LONGEST_WAIT_SECONDS)] = 0


class TaskRoutes:
    """What may be done with durable tasks."""

    _log = Logger()

    def __init__(self, collaborators: Collaborators) -> None:
        self._its = collaborators

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        home = f"{API}/tasks"
        own = f"{TASKS}/<task>"
        mine = (NotFound, Unauthenticated)
        return [
            Endpoint("tasks.submit", "POST", SUBMISSIONS, self._submit, internal=True),
            Endpoint(
                "tasks.own",
                "GET",
                own,
                self._own,
                queries=PatienceQuery,
                gives=TaskDocument,
                errors=mine,
            ),
            Endpoint(
                "tasks.cancel-own",
                "DELETE",
                own,
                self._cancel_own,
                gives=TaskDocument,
                errors=(*mine, Conflict),
            ),
            Endpoint("tasks.list", "GET", home, self._list, queries=TasksQuery, gives=TaskList),
            Endpoint(
                "tasks.dead", "GET", f"{home}/dead", self._dead, queries=TasksQuery, gives=TaskList
            ),
            Endpoint(
                "tasks.show",
                "GET",
                f"{home}/<task>",
                self._show,
                gives=TaskDocument,
                errors=(NotFound,),
            ),
            *(self._changing(verb) for verb in ("cancel", "retry")),
        ]

    def _changing(self, verb: str) -> Endpoint:
        return Endpoint(
            f"tasks.{verb}",
            "POST",
            f"{API}/tasks/<task>/{verb}",
            self._cancel if verb == "cancel" else self._retry,
            gives=TaskDocument,
            errors=(NotFound, Conflict),
        )

    # --- workers --------------------------------------------------------------

    async def _submit(self, call: Call) -> Answer:
        """Take a call that a worker has admitted; the answer is passed on to its caller."""
        request = call.request
        if not request.is_from_worker:
            raise NotFound(f"there is nothing at POST {SUBMISSIONS}")  # for anybody else
        try:
            task = await self._its.tasks.submit(_submission(request))
            task = await self._finished(task, float(request.text_field("X-Ploinky-Wait")))
            return _answered(task, request)
        except CallFailed as error:
            return _refused(error, request.request_id)
        except StateUnusable as error:  # its words have paths, and anybody may call
            self._log.error(
                "{request_id}: a durable task is refused: {why}",
                request_id=request.request_id,
                why=error.message,
            )
            known = StateUnusable("the task cannot be kept: this server's database cannot be used")
            return _refused(known, request.request_id)

    async def _finished(self, task: Task, seconds: float) -> Task:
        if task.over:
            return task
        finished: Task = await self._its.tasks.finished(task.id, seconds)
        return finished

    # --- callers --------------------------------------------------------------

    async def _own(self, call: Call) -> Answer:
        """Show a task to whoever called it, or to whoever cares for its deployment."""
        task = await self._of_caller(call)
        seconds = call.queries(PatienceQuery).wait
        return _document(await self._finished(task, float(seconds)) if seconds else task)

    async def _cancel_own(self, call: Call) -> Answer:
        """Cancel a task of one's own; a running handler is aborted."""
        return await self._change(call, await self._of_caller(call), self._its.tasks.cancel)

    async def _of_caller(self, call: Call) -> Task:
        """Find a task that the caller may see: one's own, or one in one's care.

        Who calls without saying who they are has nothing but the id to show, which cannot be
        guessed; so whoever knows it may see such a task.
        """
        task = await self._kept(call.parts["task"])
        principal = call.principal
        if task.anonymous or _made(principal, task) or _cares_for(principal, task):
            return task
        if principal == NOBODY:
            raise Unauthenticated("this task was called with a credential: send it again")
        raise Forbidden(f"the task {task.id} is not {principal.id}'s")

    # --- management -----------------------------------------------------------

    async def _list(self, call: Call) -> Answer:
        """List durable tasks, newest first."""
        return await self._page(call, dead=False)

    async def _dead(self, call: Call) -> Answer:
        """List dead letters: tasks that failed for no fault of their caller's."""
        return await self._page(call, dead=True)

    async def _page(self, call: Call, dead: bool) -> Answer:
        asked = call.queries(TasksQuery)
        query = TaskQuery(
            states=_states(asked.status),
            domain=asked.domain.lower(),
            path=_path(asked.path),
            scope=call.principal.scope if is_confined(call.principal) else (),
            dead=dead,
            page=asked.page,
            per_page=asked.per_page,
        )
        found = await self._its.task_store.tasks(query)
        shown = [facts(task) for task in found.tasks]
        return as_json({"tasks": shown, **plain(Page(**asked.at(found.total)))})

    async def _show(self, call: Call) -> Answer:
        """Give one durable task, with what came of it."""
        return _document(await self._in_scope(call))

    async def _cancel(self, call: Call) -> Answer:
        """Cancel a durable task; a running handler is aborted."""
        return await self._change(call, await self._in_scope(call), self._its.tasks.cancel)

    async def _retry(self, call: Call) -> Answer:
        """Queue a failed or cancelled task again."""
        return await self._change(call, await self._in_scope(call), self._its.tasks.retry)

    async def _change(
        self, call: Call, task: Task, change: Callable[[str], Coroutine[Any, Any, Task]]
    ) -> Answer:
        work = change(task.id)
        return _document(await self._its.operations.begin(call.operation(task.id), work))

    async def _in_scope(self, call: Call) -> Task:
        task = await self._kept(call.parts["task"])
        if not reaches(call.principal, task.key):
            raise Forbidden(f"{call.principal.id} has no say over {task.key}")
        return task

    async def _kept(self, name: str) -> Task:
        task = await self._its.task_store.task(name)
        if task is None:
            raise NotFound(f"there is no task {name[:100]}, or it is not kept any more")
        return task


def _made(principal: Principal, task: Task) -> bool:
    return principal.role is not None and principal.id == task.user


def _cares_for(principal: Principal, task: Task) -> bool:
    return principal.role in (Role.ADMIN, Role.DEPLOYER) and reaches(principal, task.key)


def _submission(request: ManagementRequest) -> Submission:
    return Submission(
        task=request.text_field("X-Ploinky-Task"),
        deployment=request.text_field("X-Ploinky-Deployment"),
        command=request.text_field("X-Ploinky-Command"),
        params=request.whole_body(),
        user=unquote(request.text_field("X-Ploinky-User")),
        anonymous=bool(request.text_field("X-Ploinky-Anonymous")),
        request_id=request.request_id,
        key=request.text_field("X-Ploinky-Key"),
    )


def _answered(task: Task, request: ManagementRequest) -> Answer:
    """Answer as the agent did, or say where the answer will be."""
    fields = [("X-Ploinky-Command", task.command)]
    preference = request.text_field("X-Ploinky-Preference")
    if preference:
        fields.append(("Preference-Applied", preference))
    at_once = not float(request.text_field("X-Ploinky-Wait"))
    href = f"{TASKS}/{task.id}"
    if not task.over or (at_once and request.text_field("X-Ploinky-Async")):
        if not request.text_field("X-Ploinky-Async"):
            raise TaskPending(
                "the task is not done yet and goes on; repeat the call with the same"
                f" Idempotency-Key, or see {href}",
                details={"taskId": task.id, "href": href},
            )
        document = {"taskId": task.id, "status": task.state.value, "href": href}
        return as_json(document, 202, (*fields, ("Location", href)))
    if task.state is TaskState.CANCELLED:
        raise ResultGone("the task was cancelled")
    if not task.outcome:
        raise ResultGone("the call was answered once; its result is not kept any more")
    if part := part_that_failed(task):
        fields.append((FAILED_AT, part))
    return Answer(task.outcome, "application/json", task.status, tuple(fields))


def _refused(error: CallFailed | StateUnusable, request_id: str) -> Answer:
    """Refuse in the form of a call's error, which is not that of the management API."""
    document: dict[str, Any] = {"error": True, "code": error.code, "message": error.message}
    document["details"] = {**(error.details or {}), "failedAt": error.failed_at}
    fields: tuple[tuple[str, str], ...] = ((FAILED_AT, error.failed_at),)
    if isinstance(error, CallFailed) and error.retry_after_seconds is not None:
        fields += (("Retry-After", str(error.retry_after_seconds)),)
    return as_json(document | {"requestId": request_id}, error.status, fields)


def facts(task: Task) -> dict[str, Any]:
    """Show a task without what was called and what came of it."""
    known = TaskFacts(
        task_id=task.id,
        status=task.state,
        attempts=task.attempts,
        domain=task.key.domain,
        path=task.key.path,
        command=task.command,
        user=task.user,
        request_id=task.request_id,
        created_at=moment(task.created_at),
        started_at=moment(task.started_at),
        finished_at=moment(task.finished_at),
        http_status=task.status,
    )
    shown: dict[str, Any] = plain(known)
    if not task.status:
        del shown["httpStatus"]
    return shown


def _document(task: Task) -> Answer:
    """Show a task with what came of it, whose JSON is passed on as it is."""
    document = facts(task)
    if task.outcome:
        name = "result" if task.state is TaskState.SUCCEEDED else "error"
        document[name] = msgspec.Raw(task.outcome)
    if part := part_that_failed(task):
        document["failedAt"] = part
    return Answer(msgspec.json.encode(document) + b"\n", "application/json")


def _states(raw_states: str) -> frozenset[TaskState]:
    try:
        return frozenset(TaskState(one.strip()) for one in raw_states.split(",") if one.strip())
    except ValueError:
        known = ", ".join(state.value for state in TaskState)
        raise ValidationFailed({"status": f"expected some of {known}"}) from None


def _path(raw_path: str) -> str:
    return "/" + raw_path.strip("/") if raw_path else ""
