"""An account's tokens and books, one method for each RPC, with retries. Lists are fetched page by page."""

from collections.abc import AsyncIterator, Sequence

import grpc.aio

from cli.books import (
    Act,
    AttemptEarning,
    GpuClaim,
    Health,
    JobCost,
    ModelPrice,
    Movement,
    OwnedHost,
    Period,
    Purse,
    SpendingCap,
    Statement,
    TokenFacts,
)
from cli.client import convert_books as convert
from cli.client.calls import Caller
from cli.model import HostState
from cli.people import Token
from usance.v1 import books_pb2 as pb
from usance.v1 import books_pb2_grpc

PAGE_SIZE = 500


class Tokens:
    """Of the caller's own account, unless an operator names another."""

    def __init__(self, channel: grpc.aio.Channel, caller: Caller) -> None:
        self._stub = books_pb2_grpc.TokenServiceStub(channel)
        self._caller = caller

    async def create(
        self, label: str, lifetime_ms: int, request_id: str, scopes: Sequence[str] = ()
    ) -> Token:
        """Good no longer than the token that we use, and for no more; 0 for thirty days, or until then."""
        request = pb.CreateOwnTokenRequest(
            request_id=request_id, label=label, lifetime_ms=lifetime_ms, scopes=scopes
        )
        answer = await self._caller.call(self._stub.CreateOwnToken, request)
        return Token(token=answer.token, expires_at_ms=answer.expires_at_ms)

    async def list_all(self, *, account_name: str = "", also_bad: bool = False) -> list[TokenFacts]:
        """Newest first; `also_bad` adds those that have expired or were revoked."""
        tokens: list[TokenFacts] = []
        request = pb.ListTokensRequest(account_name=account_name, all=also_bad, page_size=PAGE_SIZE)
        while True:
            answer = await self._caller.call(self._stub.ListTokens, request)
            tokens += map(convert.token_of, answer.tokens)
            request.page_token = answer.next_page_token
            if not request.page_token:
                return tokens

    async def revoke(self, token_id: str, request_id: str, *, account_name: str = "") -> TokenFacts:
        request = pb.RevokeTokenRequest(request_id=request_id, account_name=account_name, token_id=token_id)
        answer = await self._caller.call(self._stub.RevokeToken, request)
        return convert.token_of(answer.token)


class Books:
    """What the caller has paid and earned."""

    def __init__(self, channel: grpc.aio.Channel, caller: Caller) -> None:
        self._stub = books_pb2_grpc.BooksServiceStub(channel)
        self._caller = caller

    async def statement(self, purse: Purse, period: Period) -> Statement:
        """All movements of the period, oldest first."""
        movements: list[Movement] = []
        opening_micro: int | None = None
        request = pb.GetStatementRequest(
            purse=convert.purse_to(purse),
            since_ms=period.since_ms,
            until_ms=period.until_ms,
            page_size=PAGE_SIZE,
        )
        while True:
            answer = await self._caller.call(self._stub.GetStatement, request)
            if opening_micro is None:
                opening_micro = answer.opening_micro
            movements += map(convert.movement_of, answer.movements)
            request.page_token = answer.next_page_token
            if not request.page_token:
                return Statement(
                    opening_micro=opening_micro,
                    closing_micro=answer.closing_micro,
                    movements=tuple(movements),
                )

    async def costs(self, period: Period) -> AsyncIterator[JobCost]:
        """Of the jobs taken in during the period, newest first; pages are fetched as they are needed."""
        request = pb.ListCostsRequest(since_ms=period.since_ms, until_ms=period.until_ms, page_size=PAGE_SIZE)
        while True:
            answer = await self._caller.call(self._stub.ListCosts, request)
            for job in answer.jobs:
                yield convert.cost_of(job)
            request.page_token = answer.next_page_token
            if not request.page_token:
                return

    async def earnings(self, period: Period) -> AsyncIterator[AttemptEarning]:
        """Of the attempts made during the period, newest first; pages are fetched as they are needed."""
        request = pb.ListEarningsRequest(
            since_ms=period.since_ms, until_ms=period.until_ms, page_size=PAGE_SIZE
        )
        while True:
            answer = await self._caller.call(self._stub.ListEarnings, request)
            for attempt in answer.attempts:
                yield convert.earning_of(attempt)
            request.page_token = answer.next_page_token
            if not request.page_token:
                return

    async def get_cap(self) -> SpendingCap:
        answer = await self._caller.call(self._stub.GetSpendingCap, pb.GetSpendingCapRequest())
        return convert.cap_of(answer.cap)

    async def set_cap(self, month_micro: int, alert_percent: int, request_id: str) -> SpendingCap:
        """0 takes the cap away; 0 percent is the market's own idea of when to warn."""
        request = pb.SetSpendingCapRequest(
            request_id=request_id, month_micro=month_micro, alert_percent=alert_percent
        )
        answer = await self._caller.call(self._stub.SetSpendingCap, request)
        return convert.cap_of(answer.cap)

    async def list_prices(self) -> list[ModelPrice]:
        answer = await self._caller.call(self._stub.ListPrices, pb.ListPricesRequest())
        return list(map(convert.price_of, answer.prices))


class Operations:
    """What the operator does beside accounts and deposits."""

    def __init__(self, channel: grpc.aio.Channel, caller: Caller) -> None:
        self._stub = books_pb2_grpc.OperationsServiceStub(channel)
        self._caller = caller

    async def withdraw(
        self, account_name: str, purse: Purse, amount_micro: int, reason: str, request_id: str
    ) -> int:
        """What the purse holds afterwards."""
        request = pb.WithdrawRequest(
            request_id=request_id,
            account_name=account_name,
            purse=convert.purse_to(purse),
            amount_micro=amount_micro,
            reason=reason,
        )
        return (await self._caller.call(self._stub.Withdraw, request)).balance_micro

    async def refund(self, job_id: str, amount_micro: int, reason: str, request_id: str) -> tuple[int, int]:
        """What was given back of the job in all, and what it has cost still."""
        request = pb.RefundJobRequest(
            request_id=request_id, job_id=job_id, amount_micro=amount_micro, reason=reason
        )
        answer = await self._caller.call(self._stub.RefundJob, request)
        return answer.refunded_micro, answer.cost_micro

    async def list_gpu_claims(self) -> list[GpuClaim]:
        answer = await self._caller.call(self._stub.ListGpuClaims, pb.ListGpuClaimsRequest())
        return list(map(convert.gpu_claim_of, answer.claims))

    async def release_gpu(self, gpu_uuid: str, reason: str, request_id: str) -> str:
        """The host that it belongs to now; "" while nobody names it."""
        request = pb.ReleaseGpuRequest(request_id=request_id, gpu_uuid=gpu_uuid, reason=reason)
        return (await self._caller.call(self._stub.ReleaseGpu, request)).host_id

    async def list_hosts(self, state: HostState | None = None) -> list[OwnedHost]:
        hosts: list[OwnedHost] = []
        request = pb.ListAllHostsRequest(state=convert.host_state_to(state), page_size=PAGE_SIZE)
        while True:
            answer = await self._caller.call(self._stub.ListAllHosts, request)
            hosts += map(convert.owned_host_of, answer.hosts)
            request.page_token = answer.next_page_token
            if not request.page_token:
                return hosts

    async def list_acts(self, account_name: str, since_ms: int, limit: int) -> list[Act]:
        """Newest first; of everybody, where no account is named."""
        acts: list[Act] = []
        request = pb.ListActsRequest(account_name=account_name, since_ms=since_ms)
        while True:
            request.page_size = min(PAGE_SIZE, limit - len(acts))
            answer = await self._caller.call(self._stub.ListActs, request)
            acts += map(convert.act_of, answer.acts)
            request.page_token = answer.next_page_token
            if not request.page_token or len(acts) >= limit:
                return acts

    async def get_health(self) -> Health:
        return convert.health_of(await self._caller.call(self._stub.GetHealth, pb.GetHealthRequest()))
