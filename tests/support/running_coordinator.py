"""The real coordinator, served in this process over TLS, with a clock that the test moves."""

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio

from coordinator import app
from coordinator.api.bell import Bell
from coordinator.keeping import copies
from coordinator.keeping.manifest import DATABASE_NAME
from coordinator.keeping.restore import Options, mark_only
from coordinator.settings import Settings
from coordinator.shift import Shift
from coordinator.store.database import Database
from coordinator.store.seat import Seat
from runtime.channel import open_channel
from runtime.clock import SystemClock
from runtime.ids import new_uuid
from runtime.tracing import OFF, Tracer
from tests.rig.parts import free_port
from tests.support.scripted_agent import Identity, ScriptedAgent, enrol
from usance.v1 import books_pb2_grpc, login_pb2_grpc, market_pb2_grpc
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t

BEAT_MS, WINDOW_MS = 1_000, 60_000
FEE_PPM = 50_000
WAIT_S = 30.0
T = TypeVar("T")


class MovedClock:
    """Stands still until it is moved."""

    boot_id = "boot-of-coordinator"

    def __init__(self) -> None:
        self._ms = 1_000_000
        # Certificates are checked against the real time.
        self._wall_ahead_ms = SystemClock().wall_ms() - self._ms
        self._moved = asyncio.Event()

    def wall_ms(self) -> int:
        return self._ms + self._wall_ahead_ms

    def boot_ms(self) -> int:
        return self._ms

    async def sleep_ms(self, duration_ms: int) -> None:
        until_ms = self._ms + duration_ms
        while self._ms < until_ms:
            await self._moved.wait()

    def advance(self, duration_ms: int) -> None:
        self._ms += duration_ms
        self._moved.set()
        self._moved = asyncio.Event()

    def jump_wall(self, duration_ms: int) -> None:
        self._wall_ahead_ms += duration_ms

    def reboot(self) -> None:
        """Our own machine starts anew: boot time begins again, the wall clock goes on."""
        self.boot_id += "-next"
        self._wall_ahead_ms += self._ms - 5_000
        self._ms = 5_000


class Person:
    """An account holder with a token, and every RPC."""

    def __init__(self, channel: grpc.aio.Channel, token: str, name: str = "") -> None:
        self.name = name
        # For a coordinator that is just coming back.
        self.waits = True
        self.metadata = (("authorization", f"Bearer {token}"),)
        self.market: Any = market_pb2_grpc.MarketServiceStub(channel)
        self.account: Any = market_pb2_grpc.AccountServiceStub(channel)
        self.sells: Any = market_pb2_grpc.SellerServiceStub(channel)
        self.admin: Any = market_pb2_grpc.AdminServiceStub(channel)
        self.tokens: Any = books_pb2_grpc.TokenServiceStub(channel)
        self.books: Any = books_pb2_grpc.BooksServiceStub(channel)
        self.operations: Any = books_pb2_grpc.OperationsServiceStub(channel)
        self.login: Any = login_pb2_grpc.LoginServiceStub(channel)
        self.sessions: Any = login_pb2_grpc.SessionServiceStub(channel)
        self.people: Any = login_pb2_grpc.PeopleServiceStub(channel)

    async def ask(self, rpc: Any, request: Any) -> Any:
        return await rpc(request, metadata=self.metadata, timeout=WAIT_S, wait_for_ready=self.waits)

    def stream(self, rpc: Any, request: Any) -> Any:
        return rpc(request, metadata=self.metadata, timeout=WAIT_S, wait_for_ready=self.waits)

    async def submit(self, *, request_id: str = "", **changes: Any) -> m.Job:
        spec = job_spec(**changes)
        request = m.SubmitJobRequest(request_id=request_id or str(new_uuid()), spec=spec)
        answer: m.Job = (await self.ask(self.market.SubmitJob, request)).job
        return answer

    async def job(self, job_id: str) -> m.Job:
        answer: m.Job = (await self.ask(self.market.GetJob, m.GetJobRequest(job_id=job_id))).job
        return answer

    async def cancel(self, job_id: str) -> m.Job:
        request = m.CancelJobRequest(request_id=str(new_uuid()), job_id=job_id)
        answer: m.Job = (await self.ask(self.market.CancelJob, request)).job
        return answer

    async def bill(self, job_id: str) -> m.Bill:
        """All its pages as one."""
        request = m.GetBillRequest(job_id=job_id)
        answer = await self.ask(self.market.GetBill, request)
        whole: m.Bill = answer.bill
        while answer.next_page_token:
            request.page_token = answer.next_page_token
            answer = await self.ask(self.market.GetBill, request)
            for attempt, more in zip(whole.attempts, answer.bill.attempts, strict=True):
                attempt.lines.extend(more.lines)
                attempt.credits.extend(more.credits)
        return whole

    async def wallet(self) -> m.GetWalletResponse:
        answer: m.GetWalletResponse = await self.ask(self.account.GetWallet, m.GetWalletRequest())
        return answer

    async def events(self, job_id: str, after: int = 0) -> list[m.Event]:
        """All of an ended job."""
        request = m.WatchJobRequest(job_id=job_id, event_number_after=after)
        return [answer.event async for answer in self.stream(self.market.WatchJob, request)]

    async def events_until(self, job_id: str, kind: m.EventKind.ValueType) -> list[m.Event]:
        request, found = m.WatchJobRequest(job_id=job_id), list[m.Event]()
        call = self.stream(self.market.WatchJob, request)
        async for answer in call:
            found.append(answer.event)
            if answer.event.kind == kind:
                break
        call.cancel()
        return found

    async def ended(self, job_id: str) -> m.Job:
        await self.events(job_id)
        answer: m.Job = await self.job(job_id)
        return answer


def job_spec(**changes: Any) -> t.JobSpec:
    plain = {
        "name": "train",
        "image": "python:3.12",
        "command": ["python"],
        "budget_micro": 1_000_000,
        "gpus": t.GpuRequest(count=1),
    }
    return t.JobSpec(**{**plain, **changes})


@dataclass
class Running:
    """A market with an operator, a seller called `seller` and a buyer called `buyer` with 10 credits."""

    settings: Settings
    clock: MovedClock
    channel: grpc.aio.Channel
    operator: Person
    authority_pem: bytes
    buyer: Person = field(init=False)
    seller: Person = field(init=False)
    agents: list[ScriptedAgent] = field(default_factory=list)
    serving: "asyncio.Task[None] | None" = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    database: Database | None = None
    shift: Shift = field(init=False)
    traces: Tracer = OFF

    async def account(self, name: str, *roles: t.Role.ValueType, deposit_micro: int = 0) -> Person:
        admin = self.operator.admin
        made = m.CreateAccountRequest(request_id=str(new_uuid()), name=name, roles=roles)
        await self.operator.ask(admin.CreateAccount, made)
        if deposit_micro:
            await self.deposit(name, deposit_micro)
        request = m.CreateTokenRequest(request_id=str(new_uuid()), account_name=name)
        token = (await self.operator.ask(admin.CreateToken, request)).token
        return Person(self.channel, token, name)

    async def deposit(self, name: str, amount_micro: int, request_id: str = "") -> m.DepositResponse:
        request = m.DepositRequest(
            request_id=request_id or str(new_uuid()),
            account_name=name,
            amount_micro=amount_micro,
            reason="test",
        )
        answer: m.DepositResponse = await self.operator.ask(self.operator.admin.Deposit, request)
        return answer

    async def secret(self) -> str:
        """The secret part of a fresh enrolment token."""
        request = m.CreateEnrolmentTokenRequest(request_id=str(new_uuid()))
        token = (await self.seller.ask(self.seller.sells.CreateEnrolmentToken, request)).token
        return content_of(token)["secret"]

    async def identity(self) -> Identity:
        return await enrol(self.settings.market, self.authority_pem, await self.secret())

    async def agent(self, **facts: Any) -> ScriptedAgent:
        """Enrolled and connected."""
        agent = ScriptedAgent(self.settings.hosts, await self.identity(), **facts)
        self.agents.append(agent)
        return await agent.connect()

    async def host_is(self, host_id: str, state: t.HostState.ValueType) -> None:
        async def look() -> bool:
            hosts = (await self.seller.ask(self.seller.sells.ListHosts, m.ListHostsRequest())).hosts
            return any(host.host_id == host_id and host.state == state for host in hosts)

        await eventually(look, f"host is {t.HostState.Name(state)}")

    async def serve(self) -> None:
        """Start, or start again after `halt`, on the same data and clock."""
        self.stop = asyncio.Event()
        bell = Bell(asyncio.get_running_loop())
        engine = app.open_database(self.settings)
        self.database = Database(engine, bell.ring)
        seat = Seat(self.settings.data_dir, self.settings.database_url)
        self.shift = Shift(self.settings.data_dir, seat, lambda: None, self.stop)
        assert await self.shift.take_seat(0)
        self.serving = asyncio.create_task(
            app._serve(self.settings, self.clock, bell, self.database, self.shift, self.traces)
        )
        await asyncio.wait_for(self.channel.channel_ready(), WAIT_S)

    async def halt(self) -> None:
        self.stop.set()
        assert self.serving is not None
        assert self.database is not None
        await self.serving
        await asyncio.to_thread(self.database.close)
        self.shift.leave()

    def backup(self, file: Path) -> None:
        """As `usance-coordinator backup` does, while we serve."""
        copies.copy(self.settings.data_dir / DATABASE_NAME, file, lambda *_: None)

    async def restore(self, file: Path) -> None:
        """All since then is gone; we serve again."""
        await self.halt()
        for beside in ("", "-wal", "-shm"):
            (self.settings.data_dir / f"{DATABASE_NAME}{beside}").unlink(missing_ok=True)
        shutil.copyfile(file, self.settings.data_dir / DATABASE_NAME)
        await asyncio.to_thread(mark_only, self.settings, Options(), self.clock.wall_ms())
        await self.serve()

    async def audit(self) -> None:
        """No promise is broken, and the books balance."""
        admin = self.operator.admin
        found = await self.operator.ask(admin.RunAudit, m.RunAuditRequest())
        assert list(found.violations) == []
        balance = await self.operator.ask(admin.GetTrialBalance, m.GetTrialBalanceRequest())
        assert balance.sum_micro == sum(line.balance_micro for line in balance.lines) == 0


async def eventually(look: Callable[[], Awaitable[bool]], what: str) -> None:
    """Ask again and again; for what no stream tells."""
    try:
        async with asyncio.timeout(WAIT_S):
            while not await look():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"waited in vain until {what}") from None


def content_of(token: str) -> dict[str, str]:
    """What an enrolment token carries."""
    raw = token.removeprefix("usance_enroll_")
    content = json.loads(base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4)))
    assert isinstance(content, dict)
    return content


def prepare(folder: Path, database: str = "") -> Settings:
    """What `usance-coordinator init` makes."""
    settings = Settings(
        data_dir=folder,
        database=database,
        beat_interval_ms=BEAT_MS,
        reconnect_window_ms=WINDOW_MS,
        fee_ppm=FEE_PPM,
    )
    app.initialise(settings)
    return settings


@asynccontextmanager
async def running(settings: Settings, traces: Tracer = OFF) -> AsyncIterator[Running]:
    """Serve, do what the test does, audit, and stop."""
    market, hosts, metrics = (f"127.0.0.1:{free_port()}" for _ in range(3))
    settings = replace(settings, market=market, hosts=hosts, metrics=metrics)
    authority_pem = (settings.data_dir / "ca.pem").read_bytes()
    token = (settings.data_dir / "operator.token").read_text().strip()
    channel = open_channel(settings.market, authority_pem)
    made = Running(settings, MovedClock(), channel, Person(channel, token, "operator"), authority_pem)
    made.traces = traces
    try:
        await made.serve()
        made.seller = await made.account("seller", t.ROLE_SELLER)
        made.buyer = await made.account("buyer", t.ROLE_BUYER, deposit_micro=10_000_000)
        yield made
        await made.audit()
    finally:
        for agent in made.agents:
            if not agent.is_over:
                await agent.leave()
        await made.halt()
        await channel.close()


def copy_of(template: Settings, folder: Path) -> Settings:
    """The same fresh coordinator in another folder, without the work of making it."""
    shutil.copytree(template.data_dir, folder)
    return replace(template, data_dir=folder)
