"""The market as an object: one method for each RPC, with retries, in the values of `cli.model`."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc.aio

from cli import model, people
from cli.client import convert, convert_people
from cli.client.books import Books, Operations, Tokens
from cli.client.calls import Caller, Patience
from cli.client.convert_confidential import confidential_to
from cli.client.credential import Credential
from cli.client.login import Login, People, Sessions, renewal
from cli.connection import Connection
from cli.errors import Broken, UsanceError
from cli.model import LogEnd, LogPiece
from runtime.channel import open_channel
from runtime.clock import Clock, SystemClock
from runtime.tracing import OFF, Tracer
from usance.v1 import market_pb2 as pb
from usance.v1 import market_pb2_grpc

PAGE_SIZE = 500
# A job that is billed each second moves on between the pages of its bill; some day they fall together.
BILL_TRIES = 5


class Market:
    """Made by `open_market`. Every `request_id` is a UUID that the caller makes once per intention."""

    def __init__(self, channel: grpc.aio.Channel, caller: Caller, clock: Clock) -> None:
        self._buyer = market_pb2_grpc.MarketServiceStub(channel)
        self._account = market_pb2_grpc.AccountServiceStub(channel)
        self._seller = market_pb2_grpc.SellerServiceStub(channel)
        self._admin = market_pb2_grpc.AdminServiceStub(channel)
        self._caller = caller
        self.tokens = Tokens(channel, caller)
        self.books = Books(channel, caller)
        self.operations = Operations(channel, caller)
        self.login = Login(channel, caller, clock)
        self.sessions = Sessions(channel, caller)
        self.people = People(channel, caller)

    async def get_self(self) -> people.Account:
        answer = await self._caller.call(self._account.GetSelf, pb.GetSelfRequest())
        return convert_people.account_of(answer.account)

    async def get_wallet(self) -> people.Wallet:
        answer = await self._caller.call(self._account.GetWallet, pb.GetWalletRequest())
        return people.Wallet(
            wallet_micro=answer.wallet_micro,
            held_micro=answer.held_micro,
            earnings_micro=answer.earnings_micro,
        )

    async def list_offers(self, wanted: model.OfferFilter) -> list[model.Offer]:
        """All pages, in the order wanted."""
        offers: list[model.Offer] = []
        request = convert.offer_filter_to(wanted, PAGE_SIZE)
        while True:
            answer = await self._caller.call(self._buyer.ListOffers, request)
            offers += map(convert.offer_of, answer.offers)
            request.page_token = answer.next_page_token
            if not request.page_token:
                return offers

    async def watch_offers(self, wanted: model.OfferFilter) -> AsyncIterator[list[model.Offer]]:
        """All offers, now and again whenever they change; it never ends by itself."""
        request = pb.WatchOffersRequest(filter=convert.offer_filter_to(wanted, 0))
        async for answer in self._caller.stream(self._buyer.WatchOffers, lambda: request, lambda _: False):
            yield [convert.offer_of(offer) for offer in answer.offers]

    async def quote_job(self, spec: model.JobSpec) -> model.Quote:
        answer = await self._caller.call(self._buyer.QuoteJob, pb.QuoteJobRequest(spec=convert.spec_to(spec)))
        return convert.quote_of(answer)

    async def submit_job(self, spec: model.JobSpec, request_id: str) -> model.Job:
        request = pb.SubmitJobRequest(
            request_id=request_id,
            spec=convert.spec_to(spec),
            confidential=confidential_to(spec.confidential),
        )
        answer = await self._caller.call(self._buyer.SubmitJob, request)
        return replace(convert.job_of(answer.job), notices=tuple(answer.notices))

    async def get_job(self, job_id: str) -> model.Job:
        answer = await self._caller.call(self._buyer.GetJob, pb.GetJobRequest(job_id=job_id))
        return convert.job_of(answer.job)

    async def list_jobs(self, *, live_only: bool = False, page_size: int = 100) -> AsyncIterator[model.Job]:
        """Newest first; pages are fetched as they are needed."""
        page_token = ""
        while True:
            request = pb.ListJobsRequest(live_only=live_only, page_size=page_size, page_token=page_token)
            answer = await self._caller.call(self._buyer.ListJobs, request)
            for job in answer.jobs:
                yield convert.job_of(job)
            page_token = answer.next_page_token
            if not page_token:
                return

    async def watch_job(
        self, job_id: str, *, number_after: int = 0, until_now: bool = False
    ) -> AsyncIterator[model.Event]:
        """Every event once, across any number of dropped connections: up to the job's last, or to now."""
        seen = number_after

        def request() -> pb.WatchJobRequest:
            return pb.WatchJobRequest(job_id=job_id, event_number_after=seen, until_now=until_now)

        def is_last(answer: pb.WatchJobResponse) -> bool:
            return answer.event.kind == pb.EVENT_KIND_ENDED

        async for answer in self._caller.stream(self._buyer.WatchJob, request, is_last, may_end=until_now):
            if answer.event.number > seen:
                seen = answer.event.number
                yield convert.event_of(answer.event)

    async def wait_job(self, job_id: str) -> model.Job:
        """When it has ended, as it stands then."""
        async for _ in self.watch_job(job_id):
            pass
        return await self.get_job(job_id)

    async def read_logs(
        self, job_id: str, *, follow: bool, tail_bytes: int = 0, since_ms: int = 0
    ) -> AsyncIterator[LogPiece | LogEnd]:
        """Every byte once and in order, across any number of dropped connections; then the end."""
        attempt_id, offset = "", 0

        def request() -> pb.ReadLogsRequest:
            return pb.ReadLogsRequest(
                job_id=job_id,
                attempt_id=attempt_id,
                offset=offset,
                follow=follow,
                tail_bytes=tail_bytes,
                since_ms=since_ms,
            )

        def is_last(answer: pb.ReadLogsResponse) -> bool:
            return answer.WhichOneof("item") == "end"

        async for answer in self._caller.stream(self._buyer.ReadLogs, request, is_last):
            if is_last(answer):
                yield convert.log_end_of(answer.end)
                continue
            piece = convert.log_piece_of(answer.chunk)
            if piece.attempt_id != attempt_id:
                # What begins late begins where it begins; after that, nothing may lack.
                from_start = bool(attempt_id) or not (tail_bytes or since_ms)
                attempt_id, offset = piece.attempt_id, 0 if from_start else piece.offset
            if piece.offset > offset:
                raise Broken(f"output of {attempt_id} lacks bytes {offset} to {piece.offset}")
            fresh = piece.data[offset - piece.offset :]
            if fresh:
                offset += len(fresh)
                yield replace(piece, offset=offset - len(fresh), data=fresh)

    async def stdout_of(self, job_id: str) -> bytes:
        """What the last attempt has written to its stdout so far; all of it when the job has ended.

        Whole in memory: for results, not for a gigabyte.
        """
        found, attempt_id = bytearray(), ""
        async for item in self.read_logs(job_id, follow=False):
            if isinstance(item, LogPiece):
                if item.attempt_id != attempt_id:
                    attempt_id = item.attempt_id
                    found.clear()
                if item.stream is model.LogStream.STDOUT:
                    found += item.data
        return bytes(found)

    async def cancel_job(self, job_id: str, request_id: str) -> model.Job:
        request = pb.CancelJobRequest(request_id=request_id, job_id=job_id)
        answer = await self._caller.call(self._buyer.CancelJob, request)
        return convert.job_of(answer.job)

    async def extend_job(
        self, job_id: str, budget_micro_more: int, run_ms_more: int, request_id: str
    ) -> model.Job:
        request = pb.ExtendJobRequest(
            request_id=request_id,
            job_id=job_id,
            budget_micro_more=budget_micro_more,
            run_ms_more=run_ms_more,
        )
        answer = await self._caller.call(self._buyer.ExtendJob, request)
        return convert.job_of(answer.job)

    async def get_bill(self, job_id: str) -> model.Bill:
        """All pages as one. While the job goes on, what they say of it may grow between two of them."""
        pages: list[model.Bill] = []
        for _ in range(BILL_TRIES):
            pages = [page async for page in self._bill_pages(job_id)]
            if all(page.charged_micro == pages[0].charged_micro for page in pages):
                break
        return convert.joined_bill(pages)

    async def _bill_pages(self, job_id: str) -> AsyncIterator[model.Bill]:
        request = pb.GetBillRequest(job_id=job_id)
        while True:
            answer = await self._caller.call(self._buyer.GetBill, request)
            yield convert.bill_of(answer.bill)
            request.page_token = answer.next_page_token
            if not request.page_token:
                return

    async def create_enrolment_token(self, request_id: str) -> people.Token:
        request = pb.CreateEnrolmentTokenRequest(request_id=request_id)
        answer = await self._caller.call(self._seller.CreateEnrolmentToken, request)
        return people.Token(token=answer.token, expires_at_ms=answer.expires_at_ms)

    async def list_hosts(self) -> list[people.Host]:
        hosts: list[people.Host] = []
        request = pb.ListHostsRequest(page_size=PAGE_SIZE)
        while True:
            answer = await self._caller.call(self._seller.ListHosts, request)
            hosts += map(convert_people.host_of, answer.hosts)
            request.page_token = answer.next_page_token
            if not request.page_token:
                return hosts

    async def pause_host(self, host_id: str, request_id: str) -> people.Host:
        request = pb.PauseHostRequest(request_id=request_id, host_id=host_id)
        return convert_people.host_of((await self._caller.call(self._seller.PauseHost, request)).host)

    async def resume_host(self, host_id: str, request_id: str) -> people.Host:
        request = pb.ResumeHostRequest(request_id=request_id, host_id=host_id)
        return convert_people.host_of((await self._caller.call(self._seller.ResumeHost, request)).host)

    async def reclaim_host(self, host_id: str, request_id: str) -> people.Host:
        request = pb.ReclaimHostRequest(request_id=request_id, host_id=host_id)
        return convert_people.host_of((await self._caller.call(self._seller.ReclaimHost, request)).host)

    async def quarantine_host(self, host_id: str, reason: str, request_id: str) -> people.Host:
        request = pb.QuarantineHostRequest(request_id=request_id, host_id=host_id, reason=reason)
        return convert_people.host_of((await self._caller.call(self._admin.QuarantineHost, request)).host)

    async def revoke_host(self, host_id: str, reason: str, request_id: str) -> people.Host:
        """Refused for ever, from now on."""
        request = pb.RevokeHostRequest(request_id=request_id, host_id=host_id, reason=reason)
        return convert_people.host_of((await self._caller.call(self._admin.RevokeHost, request)).host)

    async def unquarantine_host(self, host_id: str, request_id: str) -> people.Host:
        request = pb.UnquarantineHostRequest(request_id=request_id, host_id=host_id)
        return convert_people.host_of((await self._caller.call(self._admin.UnquarantineHost, request)).host)

    async def create_account(
        self, name: str, roles: tuple[model.Role, ...], request_id: str
    ) -> people.Account:
        request = pb.CreateAccountRequest(
            request_id=request_id, name=name, roles=map(convert_people.role_to, roles)
        )
        answer = await self._caller.call(self._admin.CreateAccount, request)
        return convert_people.account_of(answer.account)

    async def list_accounts(self) -> list[people.Account]:
        accounts: list[people.Account] = []
        page_token = ""
        while True:
            request = pb.ListAccountsRequest(page_size=PAGE_SIZE, page_token=page_token)
            answer = await self._caller.call(self._admin.ListAccounts, request)
            accounts += map(convert_people.account_of, answer.accounts)
            page_token = answer.next_page_token
            if not page_token:
                return accounts

    async def create_token(
        self, account_name: str, lifetime_ms: int, request_id: str, scopes: Sequence[str] = ()
    ) -> people.Token:
        request = pb.CreateTokenRequest(
            request_id=request_id, account_name=account_name, lifetime_ms=lifetime_ms, scopes=scopes
        )
        answer = await self._caller.call(self._admin.CreateToken, request)
        return people.Token(token=answer.token, expires_at_ms=answer.expires_at_ms)

    async def deposit(self, account_name: str, amount_micro: int, reason: str, request_id: str) -> int:
        """The wallet afterwards."""
        request = pb.DepositRequest(
            request_id=request_id, account_name=account_name, amount_micro=amount_micro, reason=reason
        )
        answer = await self._caller.call(self._admin.Deposit, request)
        return answer.wallet_micro

    async def get_trial_balance(self) -> people.TrialBalance:
        answer = await self._caller.call(self._admin.GetTrialBalance, pb.GetTrialBalanceRequest())
        return convert_people.trial_balance_of(answer)

    async def run_audit(self) -> people.Audit:
        answer = await self._caller.call(self._admin.RunAudit, pb.RunAuditRequest())
        return people.Audit(violations=tuple(answer.violations), transfers_checked=answer.transfers_checked)


@asynccontextmanager
async def open_market(
    connection: Connection,
    *,
    patience: Patience | None = None,
    on_trouble: Callable[[UsanceError], None] = lambda _: None,
    request_id: str = "",
    traces: Tracer = OFF,
    part_of: str = "",
) -> AsyncIterator[Market]:
    """A market for the length of a block. Nothing is sent before the first call.

    Requests are told by `request_id` in everybody's logs; without one each has its own.
    """
    clock = SystemClock()
    async with open_channel(connection.target, connection.authority_pem) as channel:
        known = connection.token or connection.session
        credential = Credential(connection.token, connection.session, renewal(channel, clock), clock)
        caller = Caller(
            target=connection.target,
            credential=credential if known else None,
            clock=clock,
            patience=patience or Patience(),
            on_trouble=on_trouble,
            request_id=request_id,
            traces=traces,
            place=part_of,
        )
        yield Market(channel, caller, clock)
