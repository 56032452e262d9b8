"""A way to wait for changes that are nobody's in particular."""

import asyncio


class Signal:
    """Wakes everybody who waits for a change. Nobody can miss one between looking and waiting."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def next(self) -> asyncio.Future[None]:
        """Done at the next change after this call."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future

    def set(self) -> None:
        for future in list(self._waiting):
            if not future.done():
                future.set_result(None)
