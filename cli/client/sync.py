"""The market for programs without an event loop: all that a buyer does with `Market`, each call waited for.

All connections of a process share one event loop in a thread of its own, so that this works wherever it is
called from, also where a loop runs already (a notebook).
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from cli import books, model, people
from cli.client.books import Books, Tokens
from cli.client.calls import Patience
from cli.client.market import Market, open_market
from cli.connection import Connection
from runtime.ids import new_uuid

_Result = TypeVar("_Result")
_Item = TypeVar("_Item")
_END = object()


class _Background:
    """An event loop in a thread that ends with the process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="usance", daemon=True).start()

    def wait(self, work: Coroutine[Any, Any, _Result], limit_ms: int = 0) -> _Result:
        """Raises TimeoutError when it is not done within the limit; 0 is none. Whoever leaves, ends it."""
        future = asyncio.run_coroutine_threadsafe(_limited(work, limit_ms), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


async def _limited(work: Coroutine[Any, Any, _Result], limit_ms: int) -> _Result:
    async with asyncio.timeout(limit_ms / 1_000 if limit_ms else None):
        return await work


_lock = threading.Lock()
_shared: list[_Background] = []


def _background() -> _Background:
    with _lock:
        if not _shared:
            _shared.append(_Background())
        return _shared[0]


class _Waiting:
    """What asks for something on the background's loop and waits for it."""

    def __init__(self, background: _Background) -> None:
        self._background = background

    def _each(self, items: AsyncIterator[_Item]) -> Iterator[_Item]:
        """One at a time, as they are asked for; whoever stops early ends the call behind them."""
        try:
            while True:
                item = self._background.wait(_next(items))
                if item is _END:
                    return
                yield item  # type: ignore[misc]
        finally:
            self._background.wait(_close(items))


class SyncTokens(_Waiting):
    """The tokens of the caller's own account."""

    def __init__(self, tokens: Tokens, background: _Background) -> None:
        super().__init__(background)
        self._tokens = tokens

    def create(self, label: str = "", lifetime_ms: int = 0, request_id: str = "") -> people.Token:
        """Good no longer than the token that we use; 0 for thirty days, or as long as that."""
        return self._background.wait(self._tokens.create(label, lifetime_ms, request_id or str(new_uuid())))

    def list_all(self, *, also_bad: bool = False) -> list[books.TokenFacts]:
        """Newest first; `also_bad` adds those that have expired or were revoked."""
        return self._background.wait(self._tokens.list_all(also_bad=also_bad))

    def revoke(self, token_id: str, request_id: str = "") -> books.TokenFacts:
        return self._background.wait(self._tokens.revoke(token_id, request_id or str(new_uuid())))


class SyncBooks(_Waiting):
    """What the caller has paid and earned."""

    def __init__(self, whole: Books, background: _Background) -> None:
        super().__init__(background)
        self._books = whole

    def statement(self, purse: books.Purse, period: books.Period) -> books.Statement:
        """All movements of the period, oldest first."""
        return self._background.wait(self._books.statement(purse, period))

    def costs(self, period: books.Period) -> Iterator[books.JobCost]:
        """Of the jobs taken in during the period, newest first."""
        return self._each(self._books.costs(period))

    def earnings(self, period: books.Period) -> Iterator[books.AttemptEarning]:
        """Of the attempts made during the period, newest first."""
        return self._each(self._books.earnings(period))

    def get_cap(self) -> books.SpendingCap:
        return self._background.wait(self._books.get_cap())

    def set_cap(self, month_micro: int, alert_percent: int = 0, request_id: str = "") -> books.SpendingCap:
        """0 takes the cap away; 0 percent is the market's own idea of when to warn."""
        return self._background.wait(
            self._books.set_cap(month_micro, alert_percent, request_id or str(new_uuid()))
        )

    def list_prices(self) -> list[books.ModelPrice]:
        return self._background.wait(self._books.list_prices())


class SyncMarket(_Waiting):
    """Made by `open_sync_market`. A `request_id` left out is made afresh: one intention for each call.

    Calls are repeated by themselves while the line is bad; to repeat one yourself, across a crash of your
    own program, give it a request_id that you have kept.
    """

    def __init__(self, market: Market, background: _Background) -> None:
        super().__init__(background)
        self._market = market
        self.tokens = SyncTokens(market.tokens, background)
        self.books = SyncBooks(market.books, background)

    def get_self(self) -> people.Account:
        return self._background.wait(self._market.get_self())

    def get_wallet(self) -> people.Wallet:
        return self._background.wait(self._market.get_wallet())

    def list_offers(self, wanted: model.OfferFilter) -> list[model.Offer]:
        return self._background.wait(self._market.list_offers(wanted))

    def watch_offers(self, wanted: model.OfferFilter) -> Iterator[list[model.Offer]]:
        """All offers, now and again whenever they change; it never ends by itself."""
        return self._each(self._market.watch_offers(wanted))

    def quote_job(self, spec: model.JobSpec) -> model.Quote:
        return self._background.wait(self._market.quote_job(spec))

    def submit_job(self, spec: model.JobSpec, request_id: str = "") -> model.Job:
        return self._background.wait(self._market.submit_job(spec, request_id or str(new_uuid())))

    def get_job(self, job_id: str) -> model.Job:
        return self._background.wait(self._market.get_job(job_id))

    def list_jobs(self, *, live_only: bool = False) -> Iterator[model.Job]:
        """Newest first; pages are fetched as they are needed."""
        return self._each(self._market.list_jobs(live_only=live_only))

    def wait_job(self, job_id: str, *, limit_ms: int = 0) -> model.Job:
        """When it has ended; raises TimeoutError when that takes longer. The job goes on all the same."""
        return self._background.wait(self._market.wait_job(job_id), limit_ms)

    def watch_job(
        self, job_id: str, *, number_after: int = 0, until_now: bool = False
    ) -> Iterator[model.Event]:
        """Each event as it happens, up to the job's last, or to now."""
        return self._each(self._market.watch_job(job_id, number_after=number_after, until_now=until_now))

    def read_logs(
        self, job_id: str, *, follow: bool, tail_bytes: int = 0, since_ms: int = 0
    ) -> Iterator[model.LogPiece | model.LogEnd]:
        """Every byte once and in order; then the end."""
        return self._each(
            self._market.read_logs(job_id, follow=follow, tail_bytes=tail_bytes, since_ms=since_ms)
        )

    def stdout_of(self, job_id: str) -> bytes:
        return self._background.wait(self._market.stdout_of(job_id))

    def cancel_job(self, job_id: str, request_id: str = "") -> model.Job:
        return self._background.wait(self._market.cancel_job(job_id, request_id or str(new_uuid())))

    def extend_job(
        self, job_id: str, *, budget_micro_more: int = 0, run_ms_more: int = 0, request_id: str = ""
    ) -> model.Job:
        return self._background.wait(
            self._market.extend_job(job_id, budget_micro_more, run_ms_more, request_id or str(new_uuid()))
        )

    def get_bill(self, job_id: str) -> model.Bill:
        return self._background.wait(self._market.get_bill(job_id))


async def _next(items: AsyncIterator[_Item]) -> _Item | object:
    return await anext(items, _END)


async def _close(items: AsyncIterator[object]) -> None:
    close = getattr(items, "aclose", None)
    if close is not None:
        await close()


@contextmanager
def open_sync_market(connection: Connection, *, patience: Patience | None = None) -> Iterator[SyncMarket]:
    """A market for the length of a block. Nothing is sent before the first call."""
    background = _background()
    whole = open_market(connection, patience=patience)
    market = background.wait(_enter(whole.__aenter__()))
    try:
        yield SyncMarket(market, background)
    finally:
        background.wait(_enter(whole.__aexit__(None, None, None)))


async def _enter(step: Any) -> Any:  # noqa: ANN401 - the context manager's own two steps
    return await step
