"""Runs the iterator that a streaming handler returned, no faster than its items are taken.

An iterator enters, its items leave.  Part of the handlers' process.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any, AsyncIterator, Callable, Iterator, Optional

# So much may be on its way before the iterator is asked for more, in bytes.
AHEAD_BYTES = 65536

# Sends an item and tells how many bytes it is.
Send = Callable[[Any], int]


def is_stream(value: object) -> bool:
    """Tell whether what a handler returned is to be iterated: iterators are, lists are not."""
    return hasattr(value, "__next__")


def is_async_stream(value: object) -> bool:
    """Tell the same of asynchronous ones."""
    return hasattr(value, "__aiter__")


class Streaming:
    """One iterator at work, in a thread of its own or in an event loop."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._ahead = 0
        self._moved = threading.Condition()
        self._is_over = False
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._room: Optional[asyncio.Event] = None

    def run(self, items: Iterator[Any]) -> None:
        """Iterate to the end, or until `stop`."""
        try:
            for item in items:
                if self._is_over:
                    break
                size = self._send(item)
                with self._moved:
                    self._ahead += size
                    self._moved.wait_for(self._may_go_on)
        finally:
            close = getattr(items, "close", None)
            if close:
                close()

    async def run_async(self, items: AsyncIterator[Any]) -> None:
        """Iterate to the end, or until cancelled."""
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        iterator = items.__aiter__()
        try:
            async for item in iterator:
                size = self._send(item)
                with self._moved:
                    self._ahead += size
                while not self._may_go_on():
                    self._room.clear()
                    if not self._may_go_on():
                        await self._room.wait()
        finally:
            close = getattr(iterator, "aclose", None)
            if close:
                await close()

    def taken(self, size: int) -> None:
        """Go on, where it waited for that; from any thread."""
        with self._moved:
            self._ahead -= size
            self._wake()

    def stop(self) -> None:
        """End early; from any thread.  A plain iterator notices at its next item."""
        with self._moved:
            self._is_over = True
            self._wake()

    def _wake(self) -> None:
        self._moved.notify_all()
        if self._loop is not None and self._room is not None:
            self._loop.call_soon_threadsafe(self._room.set)

    def _may_go_on(self) -> bool:
        return self._ahead < AHEAD_BYTES or self._is_over
