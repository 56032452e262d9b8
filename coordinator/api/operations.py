# ruff: noqa: N802, ARG002 -- gRPC names its methods so, and calls them so
"""The RPCs by which the operator pays out and looks after the whole."""

from collections.abc import Sequence
from importlib.metadata import version

from coordinator.api import convert_books as render
from coordinator.api import validate
from coordinator.api.books import purse_from
from coordinator.api.edge import Edge
from coordinator.api.gate import Context, caller
from coordinator.api.pages import fill
from coordinator.domain.host import HostRoom, HostState
from coordinator.domain.refusal import invalid
from coordinator.services import acts, gpus, operations
from coordinator.services.books import TIME_MS_MAX, Purse
from coordinator.store.ports import Transaction
from usance.v1 import books_pb2 as b
from usance.v1 import books_pb2_grpc
from usance.v1 import types_pb2 as t

_HOST_STATES: dict[int, HostState | None] = {t.HOST_STATE_UNSPECIFIED: None} | {
    t.HostState.Value(f"HOST_STATE_{state.name}"): state for state in HostState
}


class OperationsServicer(books_pb2_grpc.OperationsServiceServicer):
    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._started_ms = edge.clock.wall_ms()

    async def Withdraw(self, request: b.WithdrawRequest, context: Context) -> b.WithdrawResponse:
        operator, request_id = caller(), validate.request_id(request.request_id)
        payout = operations.Payout(
            account_name=validate.account_name("account_name", request.account_name),
            purse=purse_from(request.purse, Purse.EARNINGS),
            amount_micro=validate.amount("amount_micro", request.amount_micro),
            reason=validate.line("reason", request.reason, 256, empty=False),
        )
        now_ms = self._edge.clock.wall_ms()
        balance_micro = await self._edge.write(
            lambda tx: operations.pay_out(tx, operator.id, request_id, payout, now_ms)
        )
        return b.WithdrawResponse(balance_micro=balance_micro)

    async def RefundJob(self, request: b.RefundJobRequest, context: Context) -> b.RefundJobResponse:
        operator, request_id = caller(), validate.request_id(request.request_id)
        job_id = validate.name("job_id", request.job_id)
        amount = validate.amount("amount_micro", request.amount_micro)
        reason = validate.line("reason", request.reason, 256, empty=False)
        now_ms = self._edge.clock.wall_ms()
        refunded_micro, cost_micro = await self._edge.write(
            lambda tx: operations.refund(tx, operator.id, request_id, job_id, amount, reason, now_ms)
        )
        return b.RefundJobResponse(refunded_micro=refunded_micro, cost_micro=cost_micro)

    async def ListAllHosts(self, request: b.ListAllHostsRequest, context: Context) -> b.ListAllHostsResponse:
        if request.state not in _HOST_STATES:
            raise invalid("state", "one of the states of types.proto")
        state, size = _HOST_STATES[request.state], validate.page_size(request.page_size)
        after, now_ms = validate.page_token(request.page_token), self._edge.clock.wall_ms()

        def look(tx: Transaction) -> tuple[Sequence[HostRoom], dict[str, list[str]]]:
            rooms = operations.all_hosts(tx, state, after, size + 1)
            return rooms, gpus.notices(tx, [room.host.id for room in rooms], now_ms)

        found, notices = await self._edge.read(look)
        hosts = fill(render.owned_host_to(room, now_ms) for room in found[:size])
        for owned in hosts:
            owned.host.notices.extend(notices[owned.host.host_id])
        more = hosts[-1].host.host_id if len(found) > len(hosts) else ""
        return b.ListAllHostsResponse(hosts=hosts, next_page_token=more)

    async def ListGpuClaims(
        self, request: b.ListGpuClaimsRequest, context: Context
    ) -> b.ListGpuClaimsResponse:
        found = await self._edge.read(gpus.claims)
        return b.ListGpuClaimsResponse(claims=map(render.claim_to, found))

    async def ReleaseGpu(self, request: b.ReleaseGpuRequest, context: Context) -> b.ReleaseGpuResponse:
        operator, request_id = caller(), validate.request_id(request.request_id)
        uuid = validate.line("gpu_uuid", request.gpu_uuid, 128, empty=False)
        reason = validate.line("reason", request.reason, 256, empty=False)
        now_ms = self._edge.clock.wall_ms()
        host_id = await self._edge.write(
            lambda tx: gpus.release(tx, operator, request_id, uuid, reason, now_ms)
        )
        return b.ReleaseGpuResponse(host_id=host_id)

    async def ListActs(self, request: b.ListActsRequest, context: Context) -> b.ListActsResponse:
        size, before = validate.page_size(request.page_size), validate.page_token(request.page_token)
        name = request.account_name and validate.account_name("account_name", request.account_name)
        since_ms = validate.whole("since_ms", request.since_ms, 0, TIME_MS_MAX)
        found = await self._edge.read(lambda tx: acts.page(tx, name, since_ms, before, size + 1))
        page = fill(map(render.act_to, found[:size]))
        more = page[-1].act_id if len(found) > len(page) else ""
        return b.ListActsResponse(acts=page, next_page_token=more)

    async def GetHealth(self, request: b.GetHealthRequest, context: Context) -> b.GetHealthResponse:
        health = await self._edge.read(operations.health)
        return render.health_to(health, self._started_ms, version("usance"))
