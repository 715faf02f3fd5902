"""Durable tasks: taken from workers, shown to callers, and managed.

Three doors: ``POST /internal/tasks`` for this server's own workers, ``/_ploinky/tasks/<id>`` for
whoever made a call, and `tasks` of the management API for those who look after deployments.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import msgspec

from ploinky.api.answers import Answer, as_json
from ploinky.api.documents import moment
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.requests import Call, ManagementRequest
from ploinky.errors import (
    CallFailed,
    Forbidden,
    NotFound,
    ResultGone,
    TaskPending,
    Unauthenticated,
    ValidationFailed,
)
from ploinky.routing.durable import SUBMISSIONS
from ploinky.security.roles import is_confined, reaches
from ploinky.task_values import (
    Submission,
    Task,
    TaskQuery,
    TaskState,
)
from ploinky.values import (
    NOBODY,
    Principal,
    Role,
)

MOST_PER_PAGE = 500
LONGEST_WAIT_SECONDS = 300.0

_PLACE = "/_ploinky/tasks"


class TaskRoutes:
    """What may be done with durable tasks."""

    def __init__(self, collaborators: Collaborators) -> None:
        self._its = collaborators

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        home = f"{API}/tasks"
        return [
            Endpoint("tasks.submit", "POST", SUBMISSIONS, self._submit),
            Endpoint("tasks.own", "GET", f"{_PLACE}/<task>", self._own),
            Endpoint("tasks.cancel-own", "DELETE", f"{_PLACE}/<task>", self._cancel_own),
            Endpoint("tasks.list", "GET", home, self._list),
            Endpoint("tasks.dead", "GET", f"{home}/dead", self._dead),
            Endpoint("tasks.show", "GET", f"{home}/<task>", self._show),
            Endpoint("tasks.cancel", "POST", f"{home}/<task>/cancel", self._cancel),
            Endpoint("tasks.retry", "POST", f"{home}/<task>/retry", self._retry),
        ]

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

    async def _finished(self, task: Task, seconds: float) -> Task:
        if task.over:
            return task
        finished: Task = await self._its.tasks.finished(task.id, seconds)
        return finished

    # --- callers --------------------------------------------------------------

    async def _own(self, call: Call) -> Answer:
        task = await self._of_caller(call)
        wait = call.query("wait")
        if wait and not task.over:
            seconds = float(call.count("wait", 0, int(LONGEST_WAIT_SECONDS)))
            task = await self._finished(task, seconds)
        return _document(task)

    async def _cancel_own(self, call: Call) -> Answer:
        task = await self._of_caller(call)
        return _document(await self._its.tasks.cancel(task.id))

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
        return await self._page(call, dead=False)

    async def _dead(self, call: Call) -> Answer:
        return await self._page(call, dead=True)

    async def _page(self, call: Call, dead: bool) -> Answer:
        page = call.count("page", 1, 1_000_000)
        per_page = call.count("perPage", 50, MOST_PER_PAGE)
        query = TaskQuery(
            states=_states(call.query("status")),
            domain=call.query("domain").lower(),
            path=_path(call.query("path")),
            scope=call.principal.scope if is_confined(call.principal) else (),
            dead=dead,
            page=page,
            per_page=per_page,
        )
        found = await self._its.task_store.tasks(query)
        return as_json(
            {
                "tasks": [_facts(task) for task in found.tasks],
                "total": found.total,
                "page": page,
                "perPage": per_page,
            }
        )

    async def _show(self, call: Call) -> Answer:
        return _document(await self._in_scope(call))

    async def _cancel(self, call: Call) -> Answer:
        task = await self._in_scope(call)
        work = self._its.tasks.cancel(task.id)
        return _document(await self._its.operations.begin(call.operation(task.id), work))

    async def _retry(self, call: Call) -> Answer:
        task = await self._in_scope(call)
        work = self._its.tasks.retry(task.id)
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
    href = f"{_PLACE}/{task.id}"
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
    return Answer(task.outcome, "application/json", task.status, tuple(fields))


def _refused(error: CallFailed, request_id: str) -> Answer:
    """Refuse in the form of a call's error, which is not that of the management API."""
    document: dict[str, Any] = {"error": True, "code": error.code, "message": error.message}
    if error.details is not None:
        document["details"] = error.details
    fields: tuple[tuple[str, str], ...] = ()
    if error.retry_after_seconds is not None:
        fields = (("Retry-After", str(error.retry_after_seconds)),)
    return as_json(document | {"requestId": request_id}, error.status, fields)


def _facts(task: Task) -> dict[str, Any]:
    return {
        "taskId": task.id,
        "status": task.state.value,
        "attempts": task.attempts,
        "domain": task.key.domain,
        "path": task.key.path,
        "command": task.command,
        "user": task.user,
        "requestId": task.request_id,
        "createdAt": moment(task.created_at),
        "startedAt": moment(task.started_at),
        "finishedAt": moment(task.finished_at),
        **({"httpStatus": task.status} if task.status else {}),
    }


def _document(task: Task) -> Answer:
    """Show a task with what came of it, whose JSON is passed on as it is."""
    document: dict[str, Any] = _facts(task)
    if task.outcome:
        name = "result" if task.state is TaskState.SUCCEEDED else "error"
        document[name] = msgspec.Raw(task.outcome)
    return Answer(msgspec.json.encode(document) + b"\n", "application/json")


def _states(raw_states: str) -> frozenset[TaskState]:
    try:
        return frozenset(TaskState(one.strip()) for one in raw_states.split(",") if one.strip())
    except ValueError:
        known = ", ".join(state.value for state in TaskState)
        raise ValidationFailed({"status": f"expected some of {known}"}) from None


def _path(raw_path: str) -> str:
    return "/" + raw_path.strip("/") if raw_path else ""
