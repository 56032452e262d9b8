"""The RPCs of account holders, sellers and the operator."""

import base64
import json
from collections.abc import Sequence

from coordinator.api import convert_market as render
from coordinator.api import validate
from coordinator.api.edge import Edge
from coordinator.api.gate import Context, caller
from coordinator.api.pages import AROUND_BYTES, PAGE_BYTES_MAX, fill
from coordinator.domain.account import ALL_SCOPES
from coordinator.domain.host import Hold, HostRoom
from coordinator.domain.refusal import invalid
from coordinator.services import accounts, audit, certificates, enrolment, gpus, hosts
from coordinator.store.ports import Transaction
from usance.v1 import market_pb2 as m
from usance.v1 import market_pb2_grpc

LIFETIME_MS_MIN, LIFETIME_MS_MAX = 60_000, 31_536_000_000
# It is told behind a word of ours.
REVOKED_REASON_BYTES_MAX = 240
ENROLMENT_PREFIX = "usance_enroll"


class AccountServicer(market_pb2_grpc.AccountServiceServicer):
    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def GetSelf(self, request: m.GetSelfRequest, context: Context) -> m.GetSelfResponse:  # noqa: N802, ARG002
        account = caller()
        balances = await self._edge.read(lambda tx: accounts.wallet(tx, account.id))
        return m.GetSelfResponse(account=render.account_to(account, balances))

    async def GetWallet(self, request: m.GetWalletRequest, context: Context) -> m.GetWalletResponse:  # noqa: N802, ARG002
        account = caller()
        balances = await self._edge.read(lambda tx: accounts.wallet(tx, account.id))
        return m.GetWalletResponse(
            wallet_micro=balances.wallet_micro,
            held_micro=balances.held_micro,
            earnings_micro=balances.earnings_micro,
        )


class SellerServicer(market_pb2_grpc.SellerServiceServicer):
    def __init__(self, edge: Edge, authority_pem: bytes) -> None:
        self._edge = edge
        self._authority_pem = authority_pem

    async def CreateEnrolmentToken(  # noqa: N802
        self,
        request: m.CreateEnrolmentTokenRequest,
        context: Context,  # noqa: ARG002
    ) -> m.CreateEnrolmentTokenResponse:
        seller, request_id = caller(), validate.request_id(request.request_id)
        now_ms = self._edge.clock.wall_ms()
        made = await self._edge.write(
            lambda tx: enrolment.create_secret(tx, self._edge.mint, seller, request_id, now_ms)
        )
        return m.CreateEnrolmentTokenResponse(token=self._token(made.token), expires_at_ms=made.expires_ms)

    def _token(self, secret: str) -> str:
        """The secret with all that is needed to bring it to us and to nobody else."""
        content = {
            "market": self._edge.rules.market_address,
            "hosts": self._edge.rules.hosts_address,
            "authority": self._authority_pem.decode(),
            "secret": secret,
        }
        raw = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
        return f"{ENROLMENT_PREFIX}_{raw}"

    async def ListHosts(self, request: m.ListHostsRequest, context: Context) -> m.ListHostsResponse:  # noqa: N802, ARG002
        seller, now_ms = caller(), self._edge.clock.wall_ms()
        size, after = validate.page_size(request.page_size), validate.page_token(request.page_token)

        def look(tx: Transaction) -> tuple[Sequence[HostRoom], dict[str, list[str]]]:
            rooms = hosts.of_seller(tx, seller.id, after, size + 1)
            return rooms, gpus.notices(tx, [room.host.id for room in rooms], now_ms)

        rooms, notices = await self._edge.read(look)
        page = fill(render.host_to(room.host, room, now_ms) for room in rooms[:size])
        for host in page:
            host.notices.extend(notices[host.host_id])
        more = page[-1].host_id if len(rooms) > len(page) else ""
        return m.ListHostsResponse(hosts=page, next_page_token=more)

    async def PauseHost(self, request: m.PauseHostRequest, context: Context) -> m.PauseHostResponse:  # noqa: N802, ARG002
        return m.PauseHostResponse(host=await self._hold(request, Hold.PAUSED))

    async def ResumeHost(self, request: m.ResumeHostRequest, context: Context) -> m.ResumeHostResponse:  # noqa: N802, ARG002
        return m.ResumeHostResponse(host=await self._hold(request, Hold.NONE))

    async def ReclaimHost(self, request: m.ReclaimHostRequest, context: Context) -> m.ReclaimHostResponse:  # noqa: N802, ARG002
        return m.ReclaimHostResponse(host=await self._hold(request, Hold.DRAINING))

    async def _hold(
        self, request: m.PauseHostRequest | m.ResumeHostRequest | m.ReclaimHostRequest, wish: Hold
    ) -> m.Host:
        seller, request_id = caller(), validate.request_id(request.request_id)
        host_id, now_ms = validate.name("host_id", request.host_id), self._edge.clock.wall_ms()
        room = await self._edge.write(
            lambda tx: hosts.seller_hold(tx, seller, request_id, host_id, wish, now_ms)
        )
        return render.host_to(room.host, room, now_ms)


class AdminServicer(market_pb2_grpc.AdminServiceServicer):
    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def CreateAccount(  # noqa: N802
        self,
        request: m.CreateAccountRequest,
        context: Context,  # noqa: ARG002
    ) -> m.CreateAccountResponse:
        operator, request_id = caller(), validate.request_id(request.request_id)
        name = validate.account_name("name", request.name)
        roles = render.roles_from(request.roles)
        if not roles:
            raise invalid("roles", "at least one of ROLE_BUYER, ROLE_SELLER, ROLE_OPERATOR")
        now_ms = self._edge.clock.wall_ms()
        account = await self._edge.write(
            lambda tx: accounts.create_account(tx, operator.id, request_id, name, roles, now_ms)
        )
        balances = await self._edge.read(lambda tx: accounts.wallet(tx, account.id))
        return m.CreateAccountResponse(account=render.account_to(account, balances))

    async def ListAccounts(  # noqa: N802
        self,
        request: m.ListAccountsRequest,
        context: Context,  # noqa: ARG002
    ) -> m.ListAccountsResponse:
        size, after = validate.page_size(request.page_size), validate.page_token(request.page_token)
        page = await self._edge.read(lambda tx: accounts.accounts_page(tx, after, size + 1))
        more = page[size - 1][0].name if len(page) > size else ""
        return m.ListAccountsResponse(
            accounts=[render.account_to(*item) for item in page[:size]], next_page_token=more
        )

    async def CreateToken(self, request: m.CreateTokenRequest, context: Context) -> m.CreateTokenResponse:  # noqa: N802, ARG002
        operator, request_id = caller(), validate.request_id(request.request_id)
        name = validate.account_name("account_name", request.account_name)
        lifetime_ms = request.lifetime_ms and validate.whole(
            "lifetime_ms", request.lifetime_ms, LIFETIME_MS_MIN, LIFETIME_MS_MAX
        )
        scopes = validate.scopes(request.scopes)
        now_ms = self._edge.clock.wall_ms()
        made = await self._edge.write(
            lambda tx: accounts.create_token(
                tx, self._edge.mint, operator.id, request_id, name, lifetime_ms, now_ms, scopes or ALL_SCOPES
            )
        )
        return m.CreateTokenResponse(token=made.token, expires_at_ms=made.expires_ms)

    async def Deposit(self, request: m.DepositRequest, context: Context) -> m.DepositResponse:  # noqa: N802, ARG002
        operator, request_id = caller(), validate.request_id(request.request_id)
        name = validate.account_name("account_name", request.account_name)
        amount = validate.amount("amount_micro", request.amount_micro)
        reason = validate.line("reason", request.reason, 256, empty=False)
        now_ms = self._edge.clock.wall_ms()
        balances = await self._edge.write(
            lambda tx: accounts.credit(tx, operator.id, request_id, name, amount, reason, now_ms)
        )
        return m.DepositResponse(wallet_micro=balances.wallet_micro)

    async def GetTrialBalance(  # noqa: N802
        self,
        request: m.GetTrialBalanceRequest,  # noqa: ARG002
        context: Context,  # noqa: ARG002
    ) -> m.GetTrialBalanceResponse:
        lines = await self._edge.read(lambda tx: tx.trial_balance())
        return m.GetTrialBalanceResponse(
            lines=[m.TrialBalanceLine(ledger_account=code, balance_micro=micro) for code, micro in lines],
            sum_micro=sum(micro for _, micro in lines),
        )

    async def QuarantineHost(  # noqa: N802
        self,
        request: m.QuarantineHostRequest,
        context: Context,  # noqa: ARG002
    ) -> m.QuarantineHostResponse:
        reason = validate.line("reason", request.reason, 256, empty=False)
        host = await self._hold(request.request_id, request.host_id, Hold.QUARANTINED, reason)
        return m.QuarantineHostResponse(host=host)

    async def UnquarantineHost(  # noqa: N802
        self,
        request: m.UnquarantineHostRequest,
        context: Context,  # noqa: ARG002
    ) -> m.UnquarantineHostResponse:
        operator, request_id = caller(), validate.request_id(request.request_id)
        host_id, now_ms = validate.name("host_id", request.host_id), self._edge.clock.wall_ms()
        room = await self._edge.write(
            lambda tx: hosts.trust_again(tx, operator, request_id, hosts.existing(tx, host_id), now_ms)
        )
        return m.UnquarantineHostResponse(host=render.host_to(room.host, room, now_ms))

    async def RevokeHost(self, request: m.RevokeHostRequest, context: Context) -> m.RevokeHostResponse:  # noqa: N802, ARG002
        operator, request_id = caller(), validate.request_id(request.request_id)
        reason = validate.line("reason", request.reason, REVOKED_REASON_BYTES_MAX, empty=False)
        host_id, now = validate.name("host_id", request.host_id), self._edge.now()
        room = await self._edge.write(
            lambda tx: certificates.revoke(tx, operator, request_id, host_id, reason, now)
        )
        return m.RevokeHostResponse(host=render.host_to(room.host, room, now.wall_ms))

    async def _hold(self, request_id: str, host_id: str, wish: Hold, reason: str) -> m.Host:
        operator, request_id = caller(), validate.request_id(request_id)
        validate.name("host_id", host_id)
        now_ms = self._edge.clock.wall_ms()
        room = await self._edge.write(
            lambda tx: hosts.hold(tx, operator, request_id, hosts.existing(tx, host_id), wish, reason, now_ms)
        )
        return render.host_to(room.host, room, now_ms)

    async def RunAudit(self, request: m.RunAuditRequest, context: Context) -> m.RunAuditResponse:  # noqa: N802, ARG002
        violations, checked = await self._edge.read(audit.run)
        return m.RunAuditResponse(violations=_told(violations), transfers_checked=checked)


def _told(violations: Sequence[str]) -> list[str]:
    """As many as fit into a message, and how many do not."""
    told, room_bytes = list[str](), PAGE_BYTES_MAX
    for violation in violations:
        room_bytes -= len(violation.encode()) + AROUND_BYTES
        if room_bytes < 0:
            return [*told, f"and {len(violations) - len(told)} more; usance-coordinator audit tells them all"]
        told.append(violation)
    return told
