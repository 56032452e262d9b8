# ruff: noqa: N802, ARG002 -- gRPC names its methods so, and calls them so
"""The RPCs of an account's tokens and books: parse, call the service, render. Nothing is decided here."""

import re

from coordinator.api import convert_books as render
from coordinator.api import validate
from coordinator.api.edge import Edge
from coordinator.api.gate import Context, bearer, caller, token_of
from coordinator.api.pages import fill
from coordinator.api.people import LIFETIME_MS_MAX, LIFETIME_MS_MIN
from coordinator.domain.account import Account
from coordinator.domain.cap import ALERT_PERCENT_DEFAULT, SpendingCap, month_of
from coordinator.domain.job import BUDGET_MICRO_MAX
from coordinator.domain.prices import model_prices
from coordinator.domain.refusal import invalid
from coordinator.services import books, caps, tokens
from coordinator.services.books import Purse
from usance.v1 import books_pb2 as b
from usance.v1 import books_pb2_grpc

LABEL_BYTES_MAX = 64
PRICES_MAX = 500
_TOKEN_PAGE = re.compile(r"([0-9]{1,15})\.(tok_[0-9a-f]{16})", re.ASCII)


class TokenServicer(books_pb2_grpc.TokenServiceServicer):
    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def CreateOwnToken(
        self, request: b.CreateOwnTokenRequest, context: Context
    ) -> b.CreateOwnTokenResponse:
        owner, request_id = bearer(), validate.request_id(request.request_id)
        scopes = validate.scopes(request.scopes)
        label = validate.line("label", request.label, LABEL_BYTES_MAX)
        lifetime_ms = request.lifetime_ms and validate.whole(
            "lifetime_ms", request.lifetime_ms, LIFETIME_MS_MIN, LIFETIME_MS_MAX
        )
        wish = tokens.Wish(label=label, lifetime_ms=lifetime_ms, scopes=scopes)
        now_ms = self._edge.clock.wall_ms()
        made = await self._edge.write(
            lambda tx: tokens.create_own(tx, self._edge.mint, owner, request_id, wish, now_ms)
        )
        return b.CreateOwnTokenResponse(token=made.token, expires_at_ms=made.expires_ms)

    async def ListTokens(self, request: b.ListTokensRequest, context: Context) -> b.ListTokensResponse:
        who, size = caller(), validate.page_size(request.page_size)
        name = request.account_name and validate.account_name("account_name", request.account_name)
        before = _before(request.page_token)
        good_at_ms = None if request.all else self._edge.clock.wall_ms()
        page = await self._edge.read(lambda tx: tokens.page(tx, who, name, good_at_ms, before, size + 1))
        last = page[size - 1] if len(page) > size else None
        return b.ListTokensResponse(
            tokens=[render.token_to(token, token_of(context)) for token in page[:size]],
            next_page_token=f"{last.created_ms}.{last.id}" if last else "",
        )

    async def RevokeToken(self, request: b.RevokeTokenRequest, context: Context) -> b.RevokeTokenResponse:
        who, request_id = caller(), validate.request_id(request.request_id)
        name = request.account_name and validate.account_name("account_name", request.account_name)
        token_id, now_ms = validate.name("token_id", request.token_id), self._edge.clock.wall_ms()
        token = await self._edge.write(lambda tx: tokens.revoke(tx, who, name, request_id, token_id, now_ms))
        return b.RevokeTokenResponse(token=render.token_to(token, token_of(context)))


class BooksServicer(books_pb2_grpc.BooksServiceServicer):
    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def GetStatement(self, request: b.GetStatementRequest, context: Context) -> b.GetStatementResponse:
        account, size = caller(), validate.page_size(request.page_size)
        purse = purse_from(request.purse, Purse.WALLET)
        period, after = (
            validate.period(request.since_ms, request.until_ms),
            validate.after(request.page_token),
        )
        page = await self._edge.read(lambda tx: books.statement(tx, account, purse, period, after, size))
        return render.statement_to(page)

    async def ListCosts(self, request: b.ListCostsRequest, context: Context) -> b.ListCostsResponse:
        account, size = caller(), validate.page_size(request.page_size)
        period = validate.period(request.since_ms, request.until_ms)
        before = validate.page_token(request.page_token)
        found = await self._edge.read(lambda tx: books.costs(tx, account, period, before, size + 1))
        jobs = fill(map(render.cost_to, found[:size]))
        more = jobs[-1].job_id if len(found) > len(jobs) else ""
        return b.ListCostsResponse(jobs=jobs, next_page_token=more)

    async def ListEarnings(self, request: b.ListEarningsRequest, context: Context) -> b.ListEarningsResponse:
        seller, size = caller(), validate.page_size(request.page_size)
        period = validate.period(request.since_ms, request.until_ms)
        before = validate.page_token(request.page_token)
        found = await self._edge.read(lambda tx: books.earnings(tx, seller.id, period, before, size + 1))
        attempts = fill(map(render.earning_to, found[:size]))
        more = attempts[-1].attempt_id if len(found) > len(attempts) else ""
        return b.ListEarningsResponse(attempts=attempts, next_page_token=more)

    async def GetSpendingCap(
        self, request: b.GetSpendingCapRequest, context: Context
    ) -> b.GetSpendingCapResponse:
        account = caller()
        cap = await self._edge.read(lambda tx: tx.caps([account.id]).get(account.id))
        return b.GetSpendingCapResponse(cap=await self._standing(account, cap))

    async def SetSpendingCap(
        self, request: b.SetSpendingCapRequest, context: Context
    ) -> b.SetSpendingCapResponse:
        account, request_id = caller(), validate.request_id(request.request_id)
        month_micro = validate.whole("month_micro", request.month_micro, 0, BUDGET_MICRO_MAX)
        percent = validate.whole("alert_percent", request.alert_percent, 0, 100) or ALERT_PERCENT_DEFAULT
        wanted = SpendingCap(month_micro=month_micro, alert_percent=percent) if month_micro else None
        now_ms = self._edge.clock.wall_ms()
        cap = await self._edge.write(lambda tx: caps.set_cap(tx, account, request_id, wanted, now_ms))
        return b.SetSpendingCapResponse(cap=await self._standing(account, cap))

    async def _standing(self, account: Account, cap: SpendingCap | None) -> b.SpendingCap:
        month = month_of(self._edge.clock.wall_ms())
        used = await self._edge.read(lambda tx: caps.used_micro(tx, account.id, month))
        return render.cap_to(cap, used, month)

    async def ListPrices(self, request: b.ListPricesRequest, context: Context) -> b.ListPricesResponse:
        prices = await self._edge.read(lambda tx: model_prices(tx.rooms()))
        return b.ListPricesResponse(prices=map(render.price_to, prices[:PRICES_MAX]))


def purse_from(value: int, default: Purse) -> Purse:
    match value:
        case b.PURSE_UNSPECIFIED:
            return default
        case b.PURSE_WALLET:
            return Purse.WALLET
        case b.PURSE_EARNINGS:
            return Purse.EARNINGS
        case _:
            raise invalid("purse", "PURSE_WALLET or PURSE_EARNINGS")


def _before(page_token: str) -> tuple[int, str] | None:
    if not page_token:
        return None
    found = _TOKEN_PAGE.fullmatch(page_token)
    if found is None:
        raise validate.wrong_page()
    return int(found.group(1)), found.group(2)
