"""Counts down, one number a second; each leaves as it comes."""

import asyncio


async def handle(params, context):
    left, seconds = [*params, *[3, 1][len(params) :]]
    while left >= 0:
        yield {"left": left}
        left -= 1
        if left >= 0:
            await asyncio.sleep(seconds)
