"""The market's store on each database, migrated as in production, for whoever tests against one."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import Engine

from coordinator.domain.account import Account, Role
from coordinator.store.migrate import upgrade
from coordinator.store.transaction import SqlTransaction
from coordinator.store.unit import UnitTransaction
from ledger.chart import ADJUSTMENTS, FEE, ISSUANCE, PAYOUTS, SUSPENSE, earnings, wallet
from ledger.engine import make_engine
from ledger.entries import deposit
from runtime.ids import new_uuid
from tests.rig.postgres import Postgres
from tests.support.values import at, job, room

BUYER, SELLER = "acct_buyer", "acct_seller"
DIGEST = bytes(32)


@pytest.fixture(scope="session")
def migrated_on_postgres(postgres_server: Postgres) -> str:
    """The name of a database to be copied: to migrate takes several times as long."""
    postgres_server.create("migrated")
    engine = make_engine(postgres_server.url("migrated"))
    upgrade(engine)
    engine.dispose()
    return "migrated"


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def market_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """One database for all tests of a file: each rolls back what it did."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path_factory.mktemp('store') / 'usance.db'}"
        else:
            server, like = (
                request.getfixturevalue(name) for name in ("postgres_server", "migrated_on_postgres")
            )
            url = stack.enter_context(server.database(like))
        engine = make_engine(url)
        stack.callback(engine.dispose)
        upgrade(engine)
        yield engine


@pytest.fixture(params=[SqlTransaction, UnitTransaction], ids=["at-once", "held-back"])
def tx(market_engine: Engine, request: pytest.FixtureRequest) -> Iterator[SqlTransaction]:
    """A transaction on an empty market, one that writes at once or one that holds back."""
    with market_engine.connect() as connection, connection.begin() as whole:
        yield request.param(connection)
        whole.rollback()


@pytest.fixture
def market(tx: SqlTransaction) -> SqlTransaction:
    """A buyer with ten credits, a seller, a host of the seller's, and a queued job of the buyer's."""
    seed(tx)
    return tx


def seed(tx: SqlTransaction) -> None:
    tx.open_accounts([ISSUANCE, PAYOUTS, ADJUSTMENTS, SUSPENSE, FEE], 1)
    for account_id, role in ((BUYER, Role.BUYER), (SELLER, Role.SELLER)):
        name = account_id.removeprefix("acct_")
        tx.insert_account(Account(id=account_id, name=name, roles=frozenset({role})), 1)
        tx.open_accounts([wallet(account_id), earnings(account_id)], 1)
    tx.post([deposit(transfer_id=new_uuid(), account_id=BUYER, amount_micro=10_000_000, event_ms=1)], 1)
    tx.insert_enrolment_token(DIGEST, SELLER, 10**9)
    tx.insert_host("host_1", DIGEST, at(0))
    tx.save_hello("host_1", room().host.facts, room().host.terms)
    tx.own_gpus("host_1", [f"GPU-{number}" for number in range(1, 10)])
    tx.insert_job(job())
