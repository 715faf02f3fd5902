"""A deployment's life as a declared machine.

What the manager does to a deployment enters as inputs; what leaves is whether that makes sense now
(`Conflict` where it does not, with the next step), and what users see.  It waits for nothing: the
manager does the work between two inputs, one piece of work per deployment at a time.

What really happens to a deployment:

- Two deploys come at once: the second waits its turn and begins where the first one ended.
- It is removed while it is being deployed: `remove` comes at once, the deploy is cancelled and its
  `gave_up` arrives while removing; or it was past its switch, and `serves` does.
- Deploys, restarts and stops that were waiting when the removal was asked for find it removing.
- It is stopped while it is being deployed: the stop waits, then stops the new release.
- Its first release fails: it never served, is listed as failed and has no route.  It may be tried
  again or removed; there is nothing to stop, start or restart.
- A later release fails, or its deploy is cancelled, or the server stops meanwhile: what served
  before still serves; what was stopped before is still stopped.
- An instance dies while it is switching, or later: not the machine's business.  The route table
  leaves it out until it is healthy again; a deployment that serves without a healthy instance is
  seen as unhealthy.
- Stop comes twice, start comes twice, remove comes twice: the second finds nothing to do.
- Its removal cannot be put on record (the disk is full): it stands as before, and serves.
- The server was killed: recovery finds out which of the three states it rests in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, Protocol

from automat import TypeMachineBuilder, pep614

from ploinky.errors import Conflict
from ploinky.values import DeploymentKey, DeploymentState


class Life(Protocol):
    """Inputs.  Those that begin something tell whether there is anything to do."""

    def found_serving(self) -> None:
        """It has a release that should run: recovery, or a removal that failed."""

    def found_stopped(self) -> None:
        """It has a release and its owner stopped it: likewise."""

    def found_failed(self) -> None:
        """No release of it ever served: likewise."""

    def deploy(self) -> bool:
        """A new release is begun."""

    def restart(self) -> bool:
        """New instances of the same release are begun."""

    def stop(self) -> bool:
        """Its instances are about to go."""

    def start(self) -> bool:
        """Its instances are about to come back."""

    def remove(self) -> bool:
        """It is about to go for good."""

    def serves(self) -> None:
        """What was begun has been switched to."""

    def stopped(self) -> None:
        """What `stop` began is done."""

    def gave_up(self) -> None:
        """What was begun has failed or was cancelled, and is cleaned away."""

    def seen_as(self) -> DeploymentState:
        """What users see, `RUNNING` standing for ``UNHEALTHY`` as well."""


LifeFactory = Callable[[DeploymentKey], Life]


def life_machine() -> LifeFactory:
    """Declare the machine; give what makes one life of it."""
    machine = TypeMachineBuilder(Life, DeploymentKey)

    New = machine.state("New")
    Trying = machine.state("Trying")
    Failed = machine.state("Failed")
    Serving = machine.state("Serving")
    Replacing = machine.state("Replacing")
    Stopping = machine.state("Stopping")
    Stopped = machine.state("Stopped")
    Returning = machine.state("Returning")
    Removing = machine.state("Removing")

    for state in (New, Removing):
        state.upon(Life.found_serving).to(Serving).returns(None)
        state.upon(Life.found_stopped).to(Stopped).returns(None)
        state.upon(Life.found_failed).to(Failed).returns(None)

    New.upon(Life.deploy).to(Trying).returns(True)
    Failed.upon(Life.deploy).to(Trying).returns(True)
    Trying.upon(Life.serves).to(Serving).returns(None)
    Trying.upon(Life.gave_up).to(Failed).returns(None)

    Serving.upon(Life.deploy).to(Replacing).returns(True)
    Serving.upon(Life.restart).to(Replacing).returns(True)
    Serving.upon(Life.start).loop().returns(False)
    Serving.upon(Life.serves).loop().returns(None)
    Replacing.upon(Life.serves).to(Serving).returns(None)
    Replacing.upon(Life.gave_up).to(Serving).returns(None)

    Serving.upon(Life.stop).to(Stopping).returns(True)
    Stopping.upon(Life.stopped).to(Stopped).returns(None)
    Stopping.upon(Life.gave_up).to(Serving).returns(None)
    Stopped.upon(Life.stop).loop().returns(False)

    Stopped.upon(Life.start).to(Returning).returns(True)
    Stopped.upon(Life.deploy).to(Returning).returns(True)
    Returning.upon(Life.serves).to(Serving).returns(None)
    Returning.upon(Life.gave_up).to(Stopped).returns(None)

    for state in (New, Trying, Failed, Serving, Replacing, Stopping, Stopped, Returning):
        state.upon(Life.remove).to(Removing).returns(True)
    Removing.upon(Life.remove).loop().returns(False)
    for late in (Life.serves, Life.stopped, Life.gave_up):
        Removing.upon(late).loop().returns(None)

    def refuse(key: DeploymentKey, reason: str) -> NoReturn:
        raise Conflict(f"{key} {reason}")

    @pep614(Failed.upon(Life.restart).loop())
    @pep614(Failed.upon(Life.stop).loop())
    @pep614(Failed.upon(Life.start).loop())
    def never_served(life: Life, key: DeploymentKey) -> bool:
        refuse(key, "has never served: deploy it again, or remove it")

    @pep614(Stopped.upon(Life.restart).loop())
    def is_stopped(life: Life, key: DeploymentKey) -> bool:
        refuse(key, "is stopped: start it")

    @pep614(Removing.upon(Life.deploy).loop())
    @pep614(Removing.upon(Life.restart).loop())
    @pep614(Removing.upon(Life.stop).loop())
    @pep614(Removing.upon(Life.start).loop())
    def is_removed(life: Life, key: DeploymentKey) -> bool:
        refuse(key, "is being removed")

    for state, seen in (
        (New, DeploymentState.DEPLOYING),
        (Trying, DeploymentState.DEPLOYING),
        (Failed, DeploymentState.FAILED),
        (Serving, DeploymentState.RUNNING),
        (Replacing, DeploymentState.DEPLOYING),
        (Stopping, DeploymentState.STOPPED),
        (Stopped, DeploymentState.STOPPED),
        (Returning, DeploymentState.DEPLOYING),
        (Removing, DeploymentState.REMOVING),
    ):
        state.upon(Life.seen_as).loop().returns(seen)

    return machine.build()
