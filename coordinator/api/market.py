"""The buyer's RPCs: parse, call the service, render. Nothing is decided here."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from itertools import islice

from coordinator.api import acting, confidential, validate
from coordinator.api import convert_market as render
from coordinator.api.bell import wait
from coordinator.api.convert_bill import bill_to
from coordinator.api.edge import Edge
from coordinator.api.gate import Context, caller, place
from coordinator.api.pages import fill
from coordinator.domain.account import Account
from coordinator.domain.event import Event, EventKind
from coordinator.domain.index import Index
from coordinator.domain.job import BUDGET_MICRO_MAX, RUN_MS_MAX, LogChunk
from coordinator.domain.metering import Line
from coordinator.domain.refusal import Refusal, invalid
from coordinator.domain.states import JobState
from coordinator.services import jobs, offers, reading
from coordinator.services.hosts import OFFERS_TOPIC
from coordinator.services.submit import Order, submits
from coordinator.store.ports import Transaction
from usance.v1 import market_pb2 as m
from usance.v1 import market_pb2_grpc
from usance.v1 import types_pb2 as t

LOOK_AGAIN_MS = 2_000
EVENTS_A_LOOK = 200
CHUNKS_A_LOOK = 16
BILL_LINES_A_PAGE = 2_000
OFFERS_WATCHED_MAX = 500

# By attempt and record number.
Lines = Mapping[tuple[str, int], tuple[Line, str]]


class MarketServicer(market_pb2_grpc.MarketServiceServicer):
    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def ListOffers(self, request: m.ListOffersRequest, context: Context) -> m.ListOffersResponse:  # noqa: N802, ARG002
        size, first = validate.page_size(request.page_size), validate.page_start(request.page_token)
        wanted, now_ms = validate.offer_filter(request), self._edge.clock.wall_ms()
        buyer = caller()

        def look(index: Index) -> tuple[list[m.Offer], bool]:
            found = list(islice(offers.offers(index, buyer, wanted), first, first + size + 1))
            page = fill(render.offer_to(shelf, now_ms) for shelf in found[:size])
            return page, len(found) > len(page)

        page, is_cut = await self._edge.look(look)
        more = str(first + len(page)) if is_cut else ""
        return m.ListOffersResponse(offers=page, next_page_token=more)

    async def WatchOffers(  # noqa: N802
        self,
        request: m.WatchOffersRequest,
        context: Context,  # noqa: ARG002
    ) -> AsyncIterator[m.WatchOffersResponse]:
        buyer, wanted = caller(), validate.offer_filter(request.filter)
        told: list[m.Offer] | None = None
        with self._edge.bell.listen(OFFERS_TOPIC) as rung:
            while True:
                rung.clear()
                now_ms = self._edge.clock.wall_ms()
                found = await self._edge.look(_offers(buyer, wanted, now_ms))
                if found != told:
                    told = found
                    yield m.WatchOffersResponse(offers=found)
                await wait(rung, LOOK_AGAIN_MS)

    async def QuoteJob(self, request: m.QuoteJobRequest, context: Context) -> m.QuoteJobResponse:  # noqa: N802, ARG002
        buyer, spec = caller(), validate.spec(request.spec)
        now_ms = self._edge.clock.wall_ms()
        quote = await self._edge.look(lambda index: offers.quote(index, buyer, spec))
        return render.quote_to(quote, spec, self._edge.rules.fee_ppm, now_ms)

    async def SubmitJob(self, request: m.SubmitJobRequest, context: Context) -> m.SubmitJobResponse:  # noqa: N802, ARG002
        buyer, spec = caller(), validate.spec(request.spec)
        sealed = None
        if request.HasField("confidential"):
            spec = confidential.described(spec, request.confidential)
            sealed = confidential.seal(self._edge.vault, request.confidential, buyer.id)
        order = Order(
            buyer=buyer,
            request_id=validate.request_id(request.request_id),
            spec=spec,
            now_ms=self._edge.clock.wall_ms(),
            sealed=sealed,
            act=acting.keep(),
            traceparent=place(),
        )
        view = await self._edge.gather(submits, order)
        if isinstance(view, Refusal):
            raise view
        return m.SubmitJobResponse(job=render.job_to(view), notices=view.notices)

    async def GetJob(self, request: m.GetJobRequest, context: Context) -> m.GetJobResponse:  # noqa: N802, ARG002
        buyer = caller()
        job_id = validate.name("job_id", request.job_id)
        view = await self._edge.read(lambda tx: jobs.view(tx, buyer, job_id))
        if view.job.state is JobState.QUEUED:
            waiting = view
            view = await self._edge.look(lambda index: jobs.with_reasons(waiting, index))
        job = render.job_to(view)
        for attempt in job.attempts:
            self._edge.figures.fill(attempt)
        return m.GetJobResponse(job=job)

    async def ListJobs(self, request: m.ListJobsRequest, context: Context) -> m.ListJobsResponse:  # noqa: N802, ARG002
        buyer, size = caller(), validate.page_size(request.page_size)
        before = validate.page_token(request.page_token)
        views = await self._edge.read(
            lambda tx: jobs.page(tx, buyer, live_only=request.live_only, before_id=before, limit=size + 1)
        )
        page = fill(map(render.job_to, views[:size]))
        more = page[-1].job_id if len(views) > len(page) else ""
        return m.ListJobsResponse(jobs=page, next_page_token=more)

    async def CancelJob(self, request: m.CancelJobRequest, context: Context) -> m.CancelJobResponse:  # noqa: N802, ARG002
        buyer, request_id = caller(), validate.request_id(request.request_id)
        job_id, now = validate.name("job_id", request.job_id), self._edge.now()
        view = await self._edge.write(lambda tx: jobs.cancel(tx, buyer, request_id, job_id, now))
        return m.CancelJobResponse(job=render.job_to(view))

    async def ExtendJob(self, request: m.ExtendJobRequest, context: Context) -> m.ExtendJobResponse:  # noqa: N802, ARG002
        buyer, request_id = caller(), validate.request_id(request.request_id)
        job_id = validate.name("job_id", request.job_id)
        budget = validate.whole("budget_micro_more", request.budget_micro_more, 0, BUDGET_MICRO_MAX)
        run_ms = validate.whole("run_ms_more", request.run_ms_more, 0, RUN_MS_MAX)
        if not budget and not run_ms:
            raise invalid("budget_micro_more", "more money or more time; both are 0")
        now_ms = self._edge.clock.wall_ms()
        view = await self._edge.write(
            lambda tx: jobs.extend(tx, buyer, request_id, job_id, budget, run_ms, now_ms)
        )
        return m.ExtendJobResponse(job=render.job_to(view))

    async def GetBill(self, request: m.GetBillRequest, context: Context) -> m.GetBillResponse:  # noqa: N802, ARG002
        buyer, job_id = caller(), validate.name("job_id", request.job_id)
        after = validate.bill_place(request.page_token)
        view = await self._edge.read(lambda tx: reading.bill(tx, buyer, job_id, after, BILL_LINES_A_PAGE))
        bill, last = bill_to(view)
        more = "" if last is None else f"{last.epoch}.{last.number}"
        return m.GetBillResponse(bill=bill, next_page_token=more)

    async def WatchJob(  # noqa: N802
        self,
        request: m.WatchJobRequest,
        context: Context,  # noqa: ARG002
    ) -> AsyncIterator[m.WatchJobResponse]:
        buyer, after = caller(), request.event_number_after
        job_id = validate.name("job_id", request.job_id)
        with self._edge.bell.listen(job_id) as rung:
            while True:
                rung.clear()
                events, lines, over = await self._edge.read(_events(buyer, job_id, after))
                for event in events:
                    after = event.number
                    yield m.WatchJobResponse(event=render.event_to(event, lines))
                    if event.what.kind is EventKind.ENDED:
                        return
                if not events and (over or request.until_now):
                    return  # who wants the rest asks again from the last event on
                if not events:
                    await wait(rung, LOOK_AGAIN_MS)

    async def ReadLogs(  # noqa: N802
        self,
        request: m.ReadLogsRequest,
        context: Context,  # noqa: ARG002
    ) -> AsyncIterator[m.ReadLogsResponse]:
        buyer, job_id = caller(), validate.name("job_id", request.job_id)
        attempt_id = request.attempt_id and validate.name("attempt_id", request.attempt_id)
        offset = validate.whole("offset", request.offset, 0, 2**62)
        tail = validate.whole("tail_bytes", request.tail_bytes, 0, 2**62)
        since_ms = validate.whole("since_ms", request.since_ms, 0, 2**62)
        if tail and since_ms:
            raise invalid("since_ms", "this or tail_bytes, not both")
        if since_ms and not attempt_id:
            begin_ms = self._edge.clock.wall_ms() - since_ms
            attempt_id, offset = await self._edge.read(
                lambda tx: reading.log_since(tx, buyer, job_id, begin_ms)
            )
        if tail and not attempt_id:
            attempt_id, offset = await self._edge.read(lambda tx: reading.log_tail(tx, buyer, job_id, tail))
        with self._edge.bell.listen(job_id) as rung:
            while True:
                rung.clear()
                page = await self._edge.read(_log_page(buyer, job_id, attempt_id, offset))
                for chunk in page.chunks:
                    attempt_id, offset = page.attempt_id, chunk.offset + len(chunk.data)
                    yield _chunk(attempt_id, chunk)
                if page.chunks:
                    continue
                if page.next_attempt_id:
                    attempt_id, offset = page.next_attempt_id, 0
                elif page.finished or not request.follow:
                    yield _end(page, offset)
                    return
                else:
                    await wait(rung, LOOK_AGAIN_MS)


def _offers(buyer: Account, wanted: offers.OfferFilter, now_ms: int) -> Callable[[Index], list[m.Offer]]:
    """As many as may be watched, and as fit into a message."""
    return lambda index: fill(
        render.offer_to(shelf, now_ms)
        for shelf in islice(offers.offers(index, buyer, wanted), OFFERS_WATCHED_MAX)
    )


def _events(
    buyer: Account, job_id: str, after: int
) -> Callable[[Transaction], tuple[Sequence[Event], Lines, bool]]:
    """A page of a job's events, the bill lines that they tell of, and whether no more will come."""

    def look(tx: Transaction) -> tuple[Sequence[Event], Lines, bool]:
        events, over = reading.events(tx, buyer, job_id, after, EVENTS_A_LOOK)
        billed = [e.what for e in events if e.what.bill_line_number is not None]
        numbers = [what.bill_line_number or 0 for what in billed]
        attempts = sorted({what.attempt_id for what in billed})
        found = tx.lines_of(attempts, min(numbers), max(numbers)) if billed else {}
        lines = {(key, line[0].record.number): line for key, of in found.items() for line in of}
        return events, lines, over

    return look


def _log_page(
    buyer: Account, job_id: str, attempt_id: str, offset: int
) -> Callable[[Transaction], reading.LogPage]:
    return lambda tx: reading.log_page(tx, buyer, job_id, attempt_id, offset, CHUNKS_A_LOOK)


def _chunk(attempt_id: str, chunk: LogChunk) -> m.ReadLogsResponse:
    message = t.LogChunk(offset=chunk.offset, stream=t.LogStream.ValueType(chunk.stream), data=chunk.data)
    return m.ReadLogsResponse(
        chunk=m.AttemptLog(attempt_id=attempt_id, chunk=message, stored_at_ms=chunk.stored_ms)
    )


def _end(page: reading.LogPage, offset: int) -> m.ReadLogsResponse:
    end = m.LogEnd(
        attempt_id=page.attempt_id,
        complete=page.complete,
        totals=None if page.totals is None else render.totals_to(page.totals),
        offset=offset,
    )
    return m.ReadLogsResponse(end=end)
