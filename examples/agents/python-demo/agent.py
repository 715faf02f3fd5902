"""Every public function here is a command."""

import asyncio
import statistics


class NotNumbers(ValueError):
    """The caller sees `code`, `status` and `details` as they are here."""

    code = "NOT_NUMBERS"
    status = 422

    def __init__(self, params):
        super().__init__("All parameters must be numbers.")
        self.details = {"params": params}


def hello(params, context):
    """Greets whoever is named."""
    context.log.info("greeting", user=context.user)
    return {"message": f"Hello {params[0] if params else 'World'}"}


def mean(params, context):
    """Gives the mean of the parameters."""
    if not params or not all(isinstance(param, (int, float)) for param in params):
        raise NotNumbers(params)
    return {"mean": statistics.fmean(params), "count": len(params)}


async def wait(params, context):
    """Waits so many seconds; ends early when the caller goes away."""
    await asyncio.sleep(params[0])
    return {"waited": params[0]}
