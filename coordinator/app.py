"""The composition root: the one place that names implementations."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import grpc
import grpc.aio
from grpc_health.v1 import health
from sqlalchemy import Engine

from coordinator import identity, passes, rotation, serving
from coordinator.api.bell import Bell
from coordinator.api.edge import Edge, Rules
from coordinator.api.gate import Gate
from coordinator.api.host import HostServicer
from coordinator.api.keys import Keys
from coordinator.api.limits import Limits
from coordinator.api.metrics import Metrics
from coordinator.api.uses import Uses
from coordinator.domain.account import Role
from coordinator.doors import Door
from coordinator.loops import repeat
from coordinator.services import accounts, audit, vault
from coordinator.services.mint import Mint
from coordinator.services.restoration import Aftermath, aftermath
from coordinator.settings import TEMPLATE, Settings, SettingsError, config_path, split_address
from coordinator.shift import Shift
from coordinator.store.database import Database
from coordinator.store.migrate import upgrade
from coordinator.store.ports import Transaction
from coordinator.store.seat import Seat
from coordinator.strangers import LOOK_EVERY_MS, Strangers
from ledger.chart import ADJUSTMENTS, FEE, ISSUANCE, PAYOUTS, SUSPENSE
from ledger.engine import make_engine
from runtime import notify, private
from runtime.clock import Clock, SystemClock
from runtime.ids import new_key, new_uuid
from runtime.page import Page
from runtime.tracing import OFF, Tracer

_LOG = logging.getLogger(__name__)
OPERATOR_TOKEN_MS = 365 * 86_400_000
SEAT_WAIT_MS = 10_000
# In what time agents come back: for each of them, and at most. Those who are to move have a stream meanwhile
# and need not hurry, but must do it in less time than they wait for a welcome.
STOP_SPREAD_MS, MOVE_SPREAD_MS = (2, 10_000), (5, 20_000)
SPREAD_MS_MIN = 1_000
EXIT_SEAT_LOST = 1
# How long streams and calls live on: after a plain stop; when agents have been asked to move, beyond the time
# that they have for it; and when they have.
STOP_MS, LEAVE_MS, LAST_WORDS_MS = 1_000, 30_000, 200
# For a door to be closed indeed; and for the handshakes of the last agents that move.
CLOSE_MS, SETTLE_MS = 100, 500


def open_database(settings: Settings) -> Engine:
    engine = make_engine(settings.database_url)
    upgrade(engine)
    return engine


def initialise(settings: Settings) -> Path:
    """Settings, authority, keys, database and operator; where the operator's token was written.

    The database comes first: where it can't be had, or has a market already, nothing else is made.
    """
    directory, clock = settings.data_dir, SystemClock()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    identity.must_be_none(directory)
    database = Database(open_database(settings), lambda _: None)
    try:
        if database.read(lambda tx: tx.account_named(accounts.OPERATOR_NAME)).result() is not None:
            raise SettingsError(
                f"the database has a market already, but {directory} does not have its keys:"
                " restore them from a backup"
            )
        identity.create(directory, clock.wall_ms(), settings.ca_key_source)
        private.write(directory / "token.key", new_key())
        vault.kept(settings.secrets_key_source)
        config = config_path(directory)
        if not config.exists():
            config.write_text(TEMPLATE, encoding="utf-8")
        mint = _mint(directory)
        token = database.write(lambda tx: _first_operator(tx, mint, clock.wall_ms())).result()
    finally:
        database.close()
    path = directory / "operator.token"
    private.write(path, f"{token}\n".encode())
    return path


def run_audit(settings: Settings) -> tuple[list[str], int, list[Aftermath]]:
    """Violations, transfers looked at, and what has become of what was live at each restoration."""
    _must_exist(settings)
    database = Database(open_database(settings), lambda _: None)
    try:
        return database.read(lambda tx: (*audit.run(tx), aftermath(tx))).result()
    finally:
        database.close()


def _must_exist(settings: Settings) -> None:
    """Else an empty database would be made, and an audit would find it in order."""
    if not (settings.data_dir / "ca.pem").exists():
        raise SettingsError(
            f"{settings.data_dir}: no coordinator was made here; see: usance-coordinator init"
        )


async def serve(settings: Settings, *, take_over: bool = False) -> int:
    """Until SIGTERM or SIGINT, or until another takes over; the program's exit status."""
    _must_exist(settings)
    # Secrets of jobs pass through our memory; a core would keep them.
    private.keep_out_of_dumps()
    loop, clock, stop = asyncio.get_running_loop(), SystemClock(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    bell, engine = Bell(loop), make_engine(settings.database_url)
    seat = Seat(settings.data_dir, settings.database_url)
    shift = Shift(settings.data_dir, seat, partial(upgrade, engine), stop)
    database, traces = Database(engine, bell.ring), serving.tracer_of(settings)
    try:
        if not (await shift.take_seat(0 if take_over else SEAT_WAIT_MS) or take_over or stop.is_set()):
            raise SettingsError(
                f"another coordinator keeps this market ({seat.holder()}):"
                " stop it, or relieve it with --take-over"
            )
        await _serve(settings, clock, bell, database, shift, traces)
    finally:
        await asyncio.to_thread(database.close)
        await asyncio.to_thread(traces.close)
        shift.leave()
    return EXIT_SEAT_LOST if shift.is_lost else 0


async def _serve(
    settings: Settings, clock: Clock, bell: Bell, database: Database, shift: Shift, traces: Tracer = OFF
) -> None:
    # Where they are printed by a command, it may take its time.
    load = partial(identity.load, settings.data_dir, clock.wall_ms(), settings.ca_key_source)
    who, keys = (
        await asyncio.to_thread(load),
        await asyncio.to_thread(vault.kept, settings.secrets_key_source),
    )
    metrics, opened = Metrics(), asyncio.Event()
    strangers = Strangers(settings.address_strangers_max)
    uses, limits = Uses(), Limits(serving.allowance_of(settings), clock, strangers.shown)
    gate = serving.gate_of(
        limits,
        Keys(database, clock, bell, serving.provider_of(settings, database, clock)),
        *(database, uses, metrics, clock, opened, traces),
    )
    market, hosts = _doors(settings, who, gate)
    if shift.has_seat:
        market.must_be_free()
        hosts.must_be_free()
        market.bind()
    hosts.bind()
    edge = Edge(
        store=database,
        clock=clock,
        bell=bell,
        mint=_mint(settings.data_dir),
        vault=keys,
        rules=Rules(
            beat_interval_ms=settings.beat_interval_ms,
            reconnect_window_ms=settings.reconnect_window_ms,
            fee_ppm=settings.fee_ppm,
            job_output_bytes_max=settings.job_output_mib_max << 20,
            market_address=settings.market_public or market.address,
            hosts_address=settings.hosts_public or hosts.address,
        ),
    )
    issuer = serving.issuer_of(edge, who, settings.host_certificate_days)
    host_servicer, healthy = HostServicer(edge, issuer), health.aio.HealthServicer()
    serving.figures_of(metrics, database, host_servicer, who, clock, traces)
    page = Page(metrics.page)
    register = partial(
        serving.register,
        edge,
        serving.signing_of(settings, limits, edge.mint, clock),
        *(issuer, host_servicer, healthy),
    )
    try:
        await hosts.open(register)
        if not await shift.begin(partial(market.open, register)):
            return
        if not market.is_open:
            await market.open(register)
        rotation.note_sealing(settings, keys)
        # Nothing is written before: who calls waits, and the one before us has left.
        database.keeper = dispatcher = passes.dispatcher_of(edge, metrics.note_aside)
        edge.sight.index = lambda: dispatcher.market.index if dispatcher.is_ready else None
        opened.set()
        await _show(page, settings.metrics)
        _LOG.info("serves the market at %s and hosts at %s", market.address, hosts.address)
        # For whoever started us: from now on we answer, and at these addresses.
        print(f"ready market={market.address} hosts={hosts.address}", file=sys.stderr, flush=True)  # noqa: T201 - a promise, not a log
        notify.tell("READY=1", f"STATUS=market at {market.address}, hosts at {hosts.address}")
        loops = [
            asyncio.create_task(passes.schedule(edge, dispatcher)),
            asyncio.create_task(passes.reap_lost(edge, metrics.note_aside)),
            asyncio.create_task(passes.seal(edge)),
            asyncio.create_task(passes.drop_output(edge, settings.output_days_kept)),
            asyncio.create_task(passes.keep_up(edge, metrics, uses)),
            asyncio.create_task(passes.sample(edge, metrics)),
            asyncio.create_task(passes.count_jobs(edge, limits)),
            asyncio.create_task(passes.count_output(edge, limits)),
            asyncio.create_task(_watch(strangers, {market.port, hosts.port}, clock)),
            asyncio.create_task(passes.look_round(edge, metrics, settings)),
            asyncio.create_task(shift.keep()),
            asyncio.create_task(notify.keep_telling(edge.clock)),
        ]
        if not await _until_relieved(shift, host_servicer, hosts, register):
            _LOG.info("stops: agents are asked to come back")
            notify.tell("STOPPING=1")
            await healthy.enter_graceful_shutdown()
            host_servicer.drain(_spread_ms(host_servicer, STOP_SPREAD_MS))
            await gate.close()
            await asyncio.gather(market.close(STOP_MS), hosts.close(STOP_MS))
        closing = asyncio.create_task(market.close(LAST_WORDS_MS))
        for task in loops:
            task.cancel()
        await page.close()
        used = uses.take()
        await edge.write(lambda tx: tx.save_token_uses(used))
        # What comes now is told to come again. The next one waits for the seat, and everybody for it.
        await asyncio.to_thread(database.close)
        shift.leave()
        await closing
    finally:
        await asyncio.gather(market.close(0), hosts.close(0), page.close())


async def _until_relieved(
    shift: Shift, host_servicer: HostServicer, hosts: Door, register: Callable[[grpc.aio.Server], None]
) -> bool:
    """Serve until all agents have moved to the next coordinator; False: asked to stop."""
    while (peer := await shift.next_one()) is not None:
        spread_ms = _spread_ms(host_servicer, MOVE_SPREAD_MS)
        _LOG.info("hands over: agents are asked to move within %d ms", spread_ms)
        # Their streams go on until we end.
        leaving = asyncio.create_task(hosts.close(spread_ms + LEAVE_MS))
        await asyncio.sleep(CLOSE_MS / 1_000)
        host_servicer.drain(spread_ms)
        if await shift.make_way(peer, spread_ms + SETTLE_MS):
            _LOG.info("hands over: commits what was begun, and leaves")
            return True
        _LOG.warning("the next coordinator is gone; goes on serving")
        await hosts.open(register)
        del leaving
    return False


def _spread_ms(host_servicer: HostServicer, pace_ms: tuple[int, int]) -> int:
    each_ms, most_ms = pace_ms
    return min(max(SPREAD_MS_MIN, host_servicer.connected * each_ms), most_ms)


async def _show(page: Page, address: str) -> None:
    if address:
        await page.try_start(*split_address("metrics", address))


async def _watch(strangers: Strangers, ports: set[int], clock: Clock) -> None:
    """In a thread: there may be thousands."""

    async def look() -> None:
        await asyncio.to_thread(strangers.look, ports)

    await repeat("looking at strangers", look, partial(clock.sleep_ms, LOOK_EVERY_MS))


def _doors(settings: Settings, who: identity.Identity, gate: Gate) -> tuple[Door, Door]:
    """The market's address over TLS, the hosts' over mutual TLS."""
    pair = [(who.server_key_pem, who.server_pem)]
    people = grpc.ssl_server_credentials(pair)
    agents = grpc.ssl_server_credentials(pair, who.authority_pem, require_client_auth=True)
    bounds = serving.bounds_of(settings)
    return (
        Door("market", settings.market, people, [gate], bounds),
        Door("hosts", settings.hosts, agents, [gate], bounds),
    )


def _mint(directory: Path) -> Mint:
    return Mint(key=private.read(directory / "token.key"))


def _first_operator(tx: Transaction, mint: Mint, now_ms: int) -> str:
    """The account that makes all others; it is the caller of its own making."""
    tx.open_accounts([ISSUANCE, PAYOUTS, ADJUSTMENTS, SUSPENSE, FEE], now_ms)
    request_id = str(new_uuid())
    account = accounts.create_account(
        tx, "init", request_id, accounts.OPERATOR_NAME, frozenset({Role.OPERATOR}), now_ms
    )
    return accounts.create_token(
        tx, mint, account.id, request_id, accounts.OPERATOR_NAME, OPERATOR_TOKEN_MS, now_ms
    ).token
