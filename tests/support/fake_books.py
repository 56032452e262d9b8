# ruff: noqa: N802 -- gRPC names its methods so
"""The fake market's tokens and books: enough of each for two pages."""

import uuid
from typing import TYPE_CHECKING

from google.rpc import code_pb2

from tests.support.fake_job import HOST_ID
from usance.v1 import books_pb2 as pb
from usance.v1 import books_pb2_grpc, types_pb2

if TYPE_CHECKING:
    from tests.support.fake_market import FakeMarket

NOV_2026_MS = 1_793_491_200_000
DAY_MS = 86_400_000

TOKENS = [
    pb.Token(token_id="tok_00000000000000aa", label="laptop", expires_at_ms=2**45, current=True),
    pb.Token(token_id="tok_00000000000000bb", label="\x1b[31mci", expires_at_ms=2**45),
]
MOVEMENTS = [
    pb.Movement(
        transfer_id=f"t{number}",
        kind=kind,
        delta_micro=delta,
        balance_micro=balance,
        job_id=job_id,
        reason=reason,
        posted_at_ms=NOV_2026_MS + number,
    )
    for number, kind, delta, balance, job_id, reason in (
        (1, "deposit", 5_000_000, 5_000_000, "", "cash, first"),
        (2, "hold", -2_000_000, 3_000_000, "job_1", ""),
        (3, "release", 500_000, 3_500_000, "job_1", ""),
    )
]
COSTS = [
    pb.JobCost(
        job_id=f"job_{number}",
        name="train",
        labels=labels,
        state=types_pb2.JOB_STATE_SUCCEEDED,
        submitted_at_ms=NOV_2026_MS + number * DAY_MS,
        charged_micro=charged,
        credited_micro=credited,
        refunded_micro=100_000 if credited else 0,
        billed_ms=60_000,
        held_micro=held,
    )
    for number, labels, charged, credited, held in (
        (3, {"team": "vision", "run": "9"}, 300_000, 0, 700_000),
        (2, {"team": "speech"}, 2_000_000, 500_000, 0),
        (1, {}, 1_000_000, 0, 0),
    )
]
EARNINGS = [
    pb.AttemptEarning(
        attempt_id=f"att_{number}",
        host_id=HOST_ID,
        gpu_model="RTX 4090",
        gpu_count=1,
        assigned_at_ms=NOV_2026_MS + number * DAY_MS,
        state=types_pb2.ATTEMPT_STATE_ENDED,
        end_reason=types_pb2.END_REASON_EXITED,
        cause=cause,
        billed_ms=60_000,
        charged_micro=1_000_000,
        fee_micro=50_000,
        returned_micro=returned,
    )
    for number, cause, returned in ((2, types_pb2.CAUSE_HOST, 950_000), (1, types_pb2.CAUSE_BUYER, 0))
]


ACT = pb.Act(
    act_id="act_1",
    happened_at_ms=NOV_2026_MS,
    who="acct_1",
    token_id="tok_0123456789abcdef",
    address="192.0.2.7",
    rpc="AdminService/Deposit",
    request="account_name=alice amount_micro=5",
    result="OK",
    request_id="rpc_1",
)


class FakeTokens(books_pb2_grpc.TokenServiceServicer):
    def __init__(self, market: "FakeMarket") -> None:
        self._market = market

    def CreateOwnToken(self, request, context):
        uuid.UUID(request.request_id)
        self._market.enter("CreateOwnToken", request, context)
        return pb.CreateOwnTokenResponse(token="usat_own", expires_at_ms=NOV_2026_MS)

    def ListTokens(self, request, context):
        self._market.enter("ListTokens", request, context)
        first = int(request.page_token or 0)
        return pb.ListTokensResponse(
            tokens=[TOKENS[first]], next_page_token=str(first + 1) if first + 1 < len(TOKENS) else ""
        )

    def RevokeToken(self, request, context):
        uuid.UUID(request.request_id)
        self._market.enter("RevokeToken", request, context)
        for token in TOKENS:
            if token.token_id == request.token_id:
                return pb.RevokeTokenResponse(token=token)
        self._market.refuse(context, code_pb2.NOT_FOUND, "NOT_FOUND", f"there is no {request.token_id}")
        raise AssertionError("refuse raises")


class FakeBooks(books_pb2_grpc.BooksServiceServicer):
    def __init__(self, market: "FakeMarket") -> None:
        self._market = market

    def GetStatement(self, request, context):
        self._market.enter("GetStatement", request, context)
        first = int(request.page_token or 0)
        page = MOVEMENTS[first : first + 2]
        return pb.GetStatementResponse(
            opening_micro=page[0].balance_micro - page[0].delta_micro,
            closing_micro=page[-1].balance_micro,
            movements=page,
            next_page_token=str(first + 2) if first + 2 < len(MOVEMENTS) else "",
        )

    def ListCosts(self, request, context):
        self._market.enter("ListCosts", request, context)
        first = int(request.page_token or 0)
        more = str(first + 2) if first + 2 < len(COSTS) else ""
        return pb.ListCostsResponse(jobs=COSTS[first : first + 2], next_page_token=more)

    def ListEarnings(self, request, context):
        self._market.enter("ListEarnings", request, context)
        first = int(request.page_token or 0)
        more = str(first + 1) if first + 1 < len(EARNINGS) else ""
        return pb.ListEarningsResponse(attempts=EARNINGS[first : first + 1], next_page_token=more)

    def GetSpendingCap(self, request, context):
        self._market.enter("GetSpendingCap", request, context)
        return pb.GetSpendingCapResponse(cap=self._market.cap)

    def SetSpendingCap(self, request, context):
        uuid.UUID(request.request_id)
        self._market.enter("SetSpendingCap", request, context)
        self._market.cap.month_micro = request.month_micro
        self._market.cap.alert_percent = request.alert_percent or 80
        return pb.SetSpendingCapResponse(cap=self._market.cap)

    def ListPrices(self, request, context):
        self._market.enter("ListPrices", request, context)
        return pb.ListPricesResponse(
            prices=[
                pb.ModelPrice(
                    gpu_model=model,
                    host_count=2,
                    gpu_count=5,
                    gpu_count_free=3,
                    gpu_hour_price_micro_min=400_000,
                    gpu_hour_price_micro_median=500_000,
                    gpu_hour_price_micro_max=900_000,
                )
                for model in ("A100", "RTX 4090")
            ]
        )


class FakeOperations(books_pb2_grpc.OperationsServiceServicer):
    def __init__(self, market: "FakeMarket") -> None:
        self._market = market

    def ListActs(self, request, context):
        self._market.enter("ListActs", request, context)
        return pb.ListActsResponse(acts=[ACT])

    def Withdraw(self, request, context):
        uuid.UUID(request.request_id)
        self._market.enter("Withdraw", request, context)
        return pb.WithdrawResponse(balance_micro=250_000)

    def RefundJob(self, request, context):
        uuid.UUID(request.request_id)
        self._market.enter("RefundJob", request, context)
        return pb.RefundJobResponse(refunded_micro=request.amount_micro + 1_000_000, cost_micro=250_000)

    def ListAllHosts(self, request, context):
        self._market.enter("ListAllHosts", request, context)
        host = pb.OwnedHost(host=self._market.host(), account_name="sam")
        return pb.ListAllHostsResponse(hosts=[host], next_page_token="" if request.page_token else "more")

    def ListGpuClaims(self, request, context):
        self._market.enter("ListGpuClaims", request, context)
        claim = pb.GpuClaim(gpu_uuid="GPU-1\x1b[2J", host_id="host_2", owner_host_id="host_1", since_at_ms=1)
        return pb.ListGpuClaimsResponse(claims=[claim])

    def ReleaseGpu(self, request, context):
        uuid.UUID(request.request_id)
        self._market.enter("ReleaseGpu", request, context)
        return pb.ReleaseGpuResponse(host_id="host_2" if request.gpu_uuid == "GPU-1" else "")

    def GetHealth(self, request, context):
        self._market.enter("GetHealth", request, context)
        return pb.GetHealthResponse(
            started_at_ms=NOV_2026_MS,
            version="0.1.0",
            database="sqlite",
            hosts=[pb.HostCount(state=types_pb2.HOST_STATE_ONLINE, count=3)],
            jobs=[pb.JobCount(state=types_pb2.JOB_STATE_QUEUED, count=2)],
            queued_since_at_ms=NOV_2026_MS,
            transfers=9,
            transfers_sealed=7,
            sum_micro=self._market.sum_micro,
        )
