"""Engines that are killed between any two calls for a task's files.

The engine is the real one; what lies in ``faults/`` is loaded into it by the interpreter's
own means, and kills it after the n-th call.  For each n: the task is not lost, its handler
has run at most once, and all that was left is cleared away in the end.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from ploinky.tasks.queue_directory import QueueDirectory
from tests.agentcore.running import Agent, FileCall, Watched, faults

PLACES = ("tasks", "results", "errors", "locks", "tmp")
VICTIM = "victim"

#: Appends to the file named by its first parameter.
HANDLERS = {
    "node": (
        "run.js",
        "module.exports = ([f]) => require('fs').appendFileSync(f, 'ran ') || 'done';",
    ),
    "python": (
        "run.py",
        "def handle(params, context):\n"
        "    with open(params[0], 'a') as file:\n"
        "        file.write('ran ')\n"
        "    return 'done'\n",
    ),
    "dash": ("run.sh", 'printf "ran " >>"$1"; echo done\n'),
}


@attrs.define
class Scene:
    """An agent of an engine that will be killed, and what is known of it."""

    agent: Agent
    ran: Path
    log: Path

    def queue(self, name: str, *, seconds_left: float = 60) -> FileCall:
        """Queue a task, or put another in its place."""
        deadline = int((time.time() + seconds_left) * 1000)
        params = [str(self.ran if name == VICTIM else self.ran.with_name("others"))]
        task = {"id": name, "command": "run", "params": params, "deadline": deadline}
        return FileCall(self.agent.queue, name, json.dumps(task).encode())

    def left(self, place: str) -> list[str]:
        return sorted(os.listdir(self.agent.queue / place))

    @property
    def runs(self) -> int:
        return self.ran.read_text().count("ran") if self.ran.exists() else 0

    def restart(self) -> None:
        """Start another engine in the same queue, without the fault."""
        (self.agent.queue / "ready").unlink()
        self.agent.change_environment(FAULT_TASK="", NODE_OPTIONS="", PYTHONPATH="")
        self.agent.change_environment(PATH=os.environ["PATH"])
        self.agent.start()


@pytest.fixture(params=list(HANDLERS))
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def scene(make: Callable[..., Agent], tmp_path: Path, engine: str) -> Callable[[int], Scene]:
    """Makes an agent that is killed after so many calls."""

    def build(kill_after: int) -> Scene:
        place = tmp_path / str(kill_after)
        place.mkdir()
        about = {
            "FAULT_TASK": VICTIM,
            "FAULT_AFTER": str(kill_after),
            "FAULT_LOG": str(place / "log"),
        }
        agent = make(engine, None, **about, **faults(engine, place))
        name, text = HANDLERS[engine]
        agent.write(f"handlers/{name}", text)
        return Scene(agent, place / "ran", place / "log")

    return build


def calls_for_a_task(scene: Scene, *, warm: bool) -> list[str]:
    """Let it run to its end, and give the calls that it took."""
    scene.agent.start()
    if warm:
        scene.queue("warm").answer()
    call = scene.queue(VICTIM)
    assert call.answer().body == "done"
    gone(scene, "tasks", "locks")
    scene.agent.tell_to_stop()
    scene.agent.wait()
    calls = scene.log.read_text().split()
    unlock = "rmdir" if "rmdir" in calls else "unlink"
    return calls[: calls.index(unlock) + 1]


def gone(scene: Scene, *places: str) -> None:
    watched = Watched(*(scene.agent.queue / place for place in places))
    watched.until(lambda: not any(VICTIM in scene.left(place) for place in places))


def killed(scene: Scene, *, warm: bool) -> Scene:
    """Queue the task, and wait for the engine's death."""
    scene.agent.start()
    if warm:
        scene.queue("warm").answer()
    scene.queue(VICTIM)
    scene.agent.wait()
    return scene


@pytest.mark.parametrize("warm", [False, True], ids=["first", "later"])
def test_a_killed_engine_loses_no_task_and_runs_none_twice(
    scene: Callable[[int], Scene], warm: bool
) -> None:
    """Whichever of its calls was the last; `later` ones write over the file of one before."""
    calls = calls_for_a_task(scene(0), warm=warm)
    assert not (warm and {"file", "writeFile"} & set(calls)), "it makes new files"
    scenes = [killed(scene(number), warm=warm) for number in range(1, len(calls) + 1)]
    for number, one in enumerate(scenes, 1):
        where = f"killed after {calls[:number]}"
        answered = VICTIM in one.left("results")
        assert answered or VICTIM in one.left("tasks"), where
        one.restart()
        assert one.queue("next").answer().body == "done", where
        assert one.runs <= 1, where
        if not answered:
            assert VICTIM in one.left("locks"), where
            # The time until its deadline passes.
            one.queue(VICTIM, seconds_left=-60)
    for number, one in enumerate(scenes, 1):
        where = f"killed after {calls[:number]}"
        gone(one, "tasks")
        answer = FileCall(one.agent.queue, VICTIM, None).answer()
        assert answer.body == "done" or answer.code == "TASK_TIMEOUT", where
        assert one.runs <= 1, where
        one.agent.tell_to_stop()
        one.agent.wait()
        directory = QueueDirectory(str(one.agent.queue))
        directory.sweep(time.time() + 60)
        directory.close()
        assert [one.left(place) for place in PLACES] == [[]] * len(PLACES), where
