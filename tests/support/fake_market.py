# ruff: noqa: N802 -- gRPC names its methods so
"""A market for the command line's tests: real gRPC over real TLS, and behind it a script instead of hosts.

It runs on threads (grpc.server), because grpc.aio wants one event loop in a process and the client has it.
"""

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from runtime.channel import SERVER_NAME
from tests.support.certificates import make_certificates
from tests.support.fake_books import FakeBooks, FakeOperations, FakeTokens
from tests.support.fake_job import FEE_PPM, HOST_ID, HOUR_PRICE_MICRO, FakeJob, Script
from usance.v1 import books_pb2, books_pb2_grpc, market_pb2_grpc, types_pb2
from usance.v1 import market_pb2 as pb

TOKEN = "usat_good"
_Item = TypeVar("_Item")


class FakeMarket:
    """Started by `running_fake_market`. Tests set `script`, `faults` and `cuts`, and read `requests`."""

    def __init__(self, folder: Path) -> None:
        self.script = Script()
        # RPC name -> how many of the next calls fail with UNAVAILABLE.
        self.faults: dict[str, int] = {}
        # RPC name -> after how many items each of the next streams is cut.
        self.cuts: dict[str, list[int]] = {}
        self.requests: list[tuple[str, object]] = []
        self.jobs: list[FakeJob] = []
        self.submitted: dict[str, FakeJob] = {}
        self.offers = [
            pb.Offer(
                host_id=HOST_ID,
                gpu_model="RTX 4090",
                gpu_count_free=2,
                vram_bytes=24 * 10**9,
                simulated=True,
                gpu_hour_price_micro=HOUR_PRICE_MICRO,
                isolation=types_pb2.ISOLATION_CONTAINER,
                executor="Docker Engine 28.5.2",
            )
        ]
        self.host_state = types_pb2.HOST_STATE_ONLINE
        self.cap = books_pb2.SpendingCap(used_micro=41_000_000)
        self.notices: list[str] = []
        self.sum_micro = 0
        self.changed = threading.Condition()
        certificates = make_certificates(SERVER_NAME)
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(certificates.authority_pem)
        self._server = grpc.server(ThreadPoolExecutor(16))
        market_pb2_grpc.add_MarketServiceServicer_to_server(_Buyer(self), self._server)
        market_pb2_grpc.add_AccountServiceServicer_to_server(_Account(self), self._server)
        market_pb2_grpc.add_SellerServiceServicer_to_server(_Seller(self), self._server)
        market_pb2_grpc.add_AdminServiceServicer_to_server(_Admin(self), self._server)
        books_pb2_grpc.add_TokenServiceServicer_to_server(FakeTokens(self), self._server)
        books_pb2_grpc.add_BooksServiceServicer_to_server(FakeBooks(self), self._server)
        books_pb2_grpc.add_OperationsServiceServicer_to_server(FakeOperations(self), self._server)
        credentials = grpc.ssl_server_credentials([(certificates.key_pem, certificates.certificate_pem)])
        port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.target = f"127.0.0.1:{port}"
        self._server.start()

    def stop(self) -> None:
        with self.changed:
            self.changed.notify_all()
        self._server.stop(0).wait()

    @property
    def environment(self) -> dict[str, str]:
        return {"USANCE_SERVER": self.target, "USANCE_TOKEN": TOKEN, "USANCE_CA": str(self.ca)}

    def names(self) -> list[str]:
        return [name for name, _ in self.requests]

    def enter(self, name: str, request: object, context: grpc.ServicerContext) -> None:
        self.requests.append((name, request))
        if self.faults.get(name, 0) > 0:
            self.faults[name] -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "the line is cut")
        if dict(context.invocation_metadata()).get("authorization") != f"Bearer {TOKEN}":
            refuse(context, code_pb2.UNAUTHENTICATED, "UNAUTHENTICATED", "the token is unknown")

    def refuse(self, context: grpc.ServicerContext, status: int, reason: str, sentence: str) -> None:
        refuse(context, status, reason, sentence)

    def host(self) -> pb.Host:
        return pb.Host(host_id=HOST_ID, hostname="box\x1b[2Jevil", state=self.host_state, offers=self.offers)

    def change_host(
        self,
        name: str,
        state: types_pb2.HostState.ValueType,
        request: pb.PauseHostRequest | pb.ResumeHostRequest | pb.ReclaimHostRequest,
        context: grpc.ServicerContext,
    ) -> None:
        uuid.UUID(request.request_id)
        self.enter(name, request, context)
        if request.host_id != HOST_ID:
            refuse(context, code_pb2.NOT_FOUND, "NOT_FOUND", f"no host {request.host_id}")
        self.host_state = state

    def find(self, job_id: str, context: grpc.ServicerContext) -> FakeJob:
        for job in self.jobs:
            if job.id == job_id:
                return job
        refuse(context, code_pb2.NOT_FOUND, "NOT_FOUND", f"no job {job_id}")
        raise AssertionError("refuse raises")


def refuse(
    context: grpc.ServicerContext,
    status: int,
    reason: str,
    sentence: str,
    fault: tuple[str, str] | None = None,
) -> None:
    """End a call as the contract says that refusals look."""
    details = [error_details_pb2.ErrorInfo(domain="usance", reason=reason)]
    if fault is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=fault[0], description=fault[1])
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    context.abort_with_status(
        rpc_status.to_status(status_pb2.Status(code=status, message=sentence, details=packed))
    )


class _Buyer(market_pb2_grpc.MarketServiceServicer):
    def __init__(self, market: FakeMarket) -> None:
        self._market = market

    def ListOffers(self, request, context):
        self._market.enter("ListOffers", request, context)
        return pb.ListOffersResponse(offers=self._market.offers)

    def WatchOffers(self, request, context):
        self._market.enter("WatchOffers", request, context)
        told = None
        with self._market.changed:
            while context.is_active():
                if told != self._market.offers:
                    told = list(self._market.offers)
                    yield pb.WatchOffersResponse(offers=told)
                self._market.changed.wait(0.05)

    def QuoteJob(self, request, context):
        self._market.enter("QuoteJob", request, context)
        offer = self._market.offers[0] if self._market.offers else None
        limit = pb.LimitCount(limit="price cap 0.30", host_count=1, remedy="0.42 would do")
        return pb.QuoteJobResponse(
            offer=offer,
            hour_price_micro=HOUR_PRICE_MICRO,
            hold_micro=request.spec.budget_micro,
            run_ms_affordable=5_000,
            hosts_considered=2,
            limits=[limit],
            cheapest_change="" if offer else "pay 0.42 for a GPU-hour",
            fee_ppm=FEE_PPM,
        )

    def SubmitJob(self, request, context):
        uuid.UUID(request.request_id)
        known = self._market.submitted.get(request.request_id)
        if known is None:
            if request.spec.name == "too-dear":
                refuse(context, code_pb2.FAILED_PRECONDITION, "INSUFFICIENT_FUNDS", "the wallet holds 1.00")
            if request.spec.name == "bad":
                fault = ("spec.name", "1 to 64 characters")
                refuse(context, code_pb2.INVALID_ARGUMENT, "INVALID_FIELD", "a field is wrong", fault)
            known = FakeJob(len(self._market.jobs) + 1, request.spec, self._market.script)
            self._market.submitted[request.request_id] = known
            self._market.jobs.append(known)
        # After the job is taken in: a caller whose line is cut here must not make a second one.
        self._market.enter("SubmitJob", request, context)
        return pb.SubmitJobResponse(job=known.message(), notices=self._market.notices)

    def GetJob(self, request, context):
        self._market.enter("GetJob", request, context)
        return pb.GetJobResponse(job=self._market.find(request.job_id, context).message())

    def ListJobs(self, request, context):
        self._market.enter("ListJobs", request, context)
        begin = int(request.page_token or 0)
        newest = [job for job in self._market.jobs[::-1] if not (request.live_only and job.ended)]
        page = newest[begin : begin + request.page_size]
        more = begin + request.page_size < len(newest)
        return pb.ListJobsResponse(
            jobs=[job.message() for job in page],
            next_page_token=str(begin + request.page_size) if more else "",
        )

    def WatchJob(self, request, context):
        self._market.enter("WatchJob", request, context)
        job = self._market.find(request.job_id, context)
        fresh = (event for event in job.events() if event.number > request.event_number_after)
        for event in self._cut("WatchJob", fresh, context):
            yield pb.WatchJobResponse(event=event)
        if request.until_now and not job.ended:
            return
        self._wait_ended(job, context)
        yield pb.WatchJobResponse(event=job.last_event())

    def ReadLogs(self, request, context):
        self._market.enter("ReadLogs", request, context)
        job = self._market.find(request.job_id, context)
        begin = request.offset
        if request.tail_bytes and not request.attempt_id:
            begin = max(0, sum(len(data) for _, data in job.script.output) - request.tail_bytes)
        for piece in self._cut("ReadLogs", iter(job.pieces()), context):
            chunk = piece.chunk
            if chunk.offset + len(chunk.data) > begin:
                if request.tail_bytes and chunk.offset < begin:
                    chunk.data, chunk.offset = chunk.data[begin - chunk.offset :], begin
                yield pb.ReadLogsResponse(chunk=piece)
        if request.follow:
            self._wait_ended(job, context)
        yield pb.ReadLogsResponse(end=job.log_end())

    def CancelJob(self, request, context):
        self._market.enter("CancelJob", request, context)
        job = self._market.find(request.job_id, context)
        with self._market.changed:
            job.cancelled = True
            self._market.changed.notify_all()
        return pb.CancelJobResponse(job=job.message())

    def ExtendJob(self, request, context):
        uuid.UUID(request.request_id)
        self._market.enter("ExtendJob", request, context)
        job = self._market.find(request.job_id, context)
        if job.ended:
            refuse(context, code_pb2.FAILED_PRECONDITION, "JOB_ENDED", "the job has ended")
        job.spec.budget_micro += request.budget_micro_more
        job.spec.run_ms_max = (job.spec.run_ms_max or 86_400_000) + request.run_ms_more
        return pb.ExtendJobResponse(job=job.message())

    def GetBill(self, request, context):
        self._market.enter("GetBill", request, context)
        return pb.GetBillResponse(bill=self._market.find(request.job_id, context).bill())

    def _wait_ended(self, job: FakeJob, context: grpc.ServicerContext) -> None:
        with self._market.changed:
            while not job.ended and context.is_active():
                self._market.changed.wait(0.05)

    def _cut(self, name: str, items: Iterator[_Item], context: grpc.ServicerContext) -> Iterator[_Item]:
        cuts = self._market.cuts.get(name, [])
        left = cuts.pop(0) if cuts else None
        for item in items:
            if left == 0:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the line is cut")
            yield item
            left = None if left is None else left - 1


class _Account(market_pb2_grpc.AccountServiceServicer):
    def __init__(self, market: FakeMarket) -> None:
        self._market = market

    def GetSelf(self, request, context):
        self._market.enter("GetSelf", request, context)
        account = pb.Account(account_id="acc_1", name="ann", roles=[types_pb2.ROLE_BUYER])
        return pb.GetSelfResponse(account=account)

    def GetWallet(self, request, context):
        self._market.enter("GetWallet", request, context)
        return pb.GetWalletResponse(wallet_micro=5_250_000, held_micro=1, earnings_micro=0)


class _Seller(market_pb2_grpc.SellerServiceServicer):
    def __init__(self, market: FakeMarket) -> None:
        self._market = market

    def CreateEnrolmentToken(self, request, context):
        self._market.enter("CreateEnrolmentToken", request, context)
        return pb.CreateEnrolmentTokenResponse(token="usen_x", expires_at_ms=1_700_000_000_000)

    def ListHosts(self, request, context):
        self._market.enter("ListHosts", request, context)
        return pb.ListHostsResponse(hosts=[self._market.host()])

    def PauseHost(self, request, context):
        self._market.change_host("PauseHost", types_pb2.HOST_STATE_PAUSED, request, context)
        return pb.PauseHostResponse(host=self._market.host())

    def ResumeHost(self, request, context):
        self._market.change_host("ResumeHost", types_pb2.HOST_STATE_ONLINE, request, context)
        return pb.ResumeHostResponse(host=self._market.host())

    def ReclaimHost(self, request, context):
        self._market.change_host("ReclaimHost", types_pb2.HOST_STATE_DRAINING, request, context)
        return pb.ReclaimHostResponse(host=self._market.host())


class _Admin(market_pb2_grpc.AdminServiceServicer):
    def __init__(self, market: FakeMarket) -> None:
        self._market = market

    def CreateAccount(self, request, context):
        self._market.enter("CreateAccount", request, context)
        return pb.CreateAccountResponse(
            account=pb.Account(account_id="acc_2", name=request.name, roles=request.roles)
        )

    def ListAccounts(self, request, context):
        self._market.enter("ListAccounts", request, context)
        return pb.ListAccountsResponse(
            accounts=[
                pb.Account(account_id="acc_1", name="ann", roles=[types_pb2.ROLE_BUYER], wallet_micro=7)
            ]
        )

    def CreateToken(self, request, context):
        self._market.enter("CreateToken", request, context)
        return pb.CreateTokenResponse(token="usat_new", expires_at_ms=1_700_000_000_000)

    def Deposit(self, request, context):
        self._market.enter("Deposit", request, context)
        return pb.DepositResponse(wallet_micro=request.amount_micro)

    def GetTrialBalance(self, request, context):
        self._market.enter("GetTrialBalance", request, context)
        lines = [
            pb.TrialBalanceLine(ledger_account="issuance", balance_micro=-7_000_000),
            pb.TrialBalanceLine(ledger_account="wallet ann", balance_micro=7_000_000),
        ]
        return pb.GetTrialBalanceResponse(lines=lines)

    def QuarantineHost(self, request, context):
        self._market.change_host("QuarantineHost", types_pb2.HOST_STATE_QUARANTINED, request, context)
        return pb.QuarantineHostResponse(host=self._market.host())

    def RevokeHost(self, request, context):
        self._market.change_host("RevokeHost", types_pb2.HOST_STATE_QUARANTINED, request, context)
        return pb.RevokeHostResponse(host=self._market.host())

    def UnquarantineHost(self, request, context):
        self._market.change_host("UnquarantineHost", types_pb2.HOST_STATE_ONLINE, request, context)
        return pb.UnquarantineHostResponse(host=self._market.host())

    def RunAudit(self, request, context):
        self._market.enter("RunAudit", request, context)
        return pb.RunAuditResponse(violations=[], transfers_checked=3)
