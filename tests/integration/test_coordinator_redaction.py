"""What is secret is told to whom it is for, and is nowhere else.

Secrets of every kind are planted, used rightly and wrongly, and then looked for: in all that was logged down
to the last detail, SQL with its parameters included, in what everybody is shown and refused with, in figures,
and in the database and every other file of the coordinator's but those that are to hold them.
"""

import asyncio
import base64
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from coordinator.settings import Settings, split_address
from runtime.channel import open_channel
from runtime.ids import new_uuid
from runtime.logs import _JsonFormatter, _PlainFormatter
from tests.rig.parts import free_port
from tests.support.running_coordinator import Person, Running, job_spec
from tests.support.scripted_agent import enrol
from tests.support.scripts import Play, all_of, read_logs
from tests.support.signing_in import PASSWORD, accept, cheap, invitation, login, login_stub
from usance.v1 import books_pb2 as b
from usance.v1 import host_pb2 as h
from usance.v1 import host_pb2_grpc
from usance.v1 import login_pb2 as g
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t

SECRET, LOGIN = b"canary-of-a-job-\xff", "canary-of-a-registry"
WRONG_TOKEN, WRONG_SECRET = "usance_tok_canary-that-is-none", "usance_sec_canary-that-is-none"
WRONG_PASSWORD = "canary that is no password"
# Files that hold a secret because they are for it.
KEYS = {"ca.key", "token.key", "secrets.key", "operator.token"}


@pytest.fixture
def template(template: Settings) -> Settings:
    return cheap(replace(template, metrics=f"127.0.0.1:{free_port()}"))


def spellings(secret: bytes) -> list[bytes]:
    """As a careless program might write it."""
    plain = [
        secret,
        secret.hex().encode(),
        base64.b64encode(secret)[:-4],
        base64.urlsafe_b64encode(secret)[:-4],
    ]
    return [*plain, repr(secret)[2:-1].encode()]


async def refused(call: Any) -> str:
    """Everything that a refusal tells."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return f"{caught.value!r} {caught.value.trailing_metadata()!r}"


async def mistaken(market: Running, used: str, authority_pem: bytes) -> list[str]:
    """Secrets in requests that are wrong, and secrets that are."""
    buyer, csr = market.buyer, b"no request"
    bad_name = t.Confidential(secrets=[t.Secret(name="a/b", value=SECRET)])
    bad_user = t.Confidential(registry=t.RegistryCredential(username="a:b", password=LOGIN))
    told = []
    for confidential in (bad_name, bad_user):
        request = m.SubmitJobRequest(request_id=str(new_uuid()), spec=job_spec(), confidential=confidential)
        told.append(await refused(buyer.ask(buyer.market.SubmitJob, request)))
    told.append(await refused(Person(market.channel, WRONG_TOKEN).wallet()))
    guess = g.LoginRequest(request_id=str(new_uuid()), account_name="buyer", password=WRONG_PASSWORD)
    told.append(await refused(login_stub(market).Login(guess, timeout=30)))
    told.append(await refused(enrol(market.settings.market, authority_pem, WRONG_SECRET)))
    told.append(await refused(enrol(market.settings.market, authority_pem, used)))
    async with open_channel(market.settings.market, authority_pem) as channel:
        enrolment = host_pb2_grpc.EnrolmentServiceStub(channel)
        told.append(
            await refused(enrolment.Enroll(h.EnrollRequest(token_secret=used, csr_pem=csr), timeout=30))
        )
    return told


async def shown(market: Running, job_id: str) -> list[str]:
    """What everybody is shown."""
    buyer, seller, operator = market.buyer, market.seller, market.operator
    answers = [
        await buyer.job(job_id),
        await buyer.bill(job_id),
        await buyer.ask(buyer.market.ListJobs, m.ListJobsRequest()),
        await buyer.ask(buyer.tokens.ListTokens, b.ListTokensRequest()),
        await seller.ask(seller.sells.ListHosts, m.ListHostsRequest()),
        await operator.ask(operator.operations.ListAllHosts, b.ListAllHostsRequest()),
        await operator.ask(operator.operations.ListActs, b.ListActsRequest()),
        await operator.ask(operator.operations.GetHealth, b.GetHealthRequest()),
        await operator.ask(operator.admin.ListAccounts, m.ListAccountsRequest()),
        *(await buyer.events(job_id)),
        *(await all_of(read_logs(market, job_id))),
    ]
    host, port = split_address("", market.settings.metrics)
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    figures = (await reader.read()).decode()
    writer.close()
    assert "usance_rpcs_total" in figures
    return [*map(repr, answers), figures]


def kept(folder: Path) -> dict[str, bytes]:
    """Files of the coordinator's that nobody should find a secret in."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in KEYS)
    return {path.name: path.read_bytes() for path in files}


def test_what_is_secret_is_nowhere_but_with_whom_it_is_for(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    planted: dict[str, bytes] = {
        "a job's": SECRET,
        "a registry's": LOGIN.encode(),
        "a wrong token": WRONG_TOKEN.encode(),
        "a wrong enrolment": WRONG_SECRET.encode(),
        "a wrong password": WRONG_PASSWORD.encode(),
        "a password": PASSWORD.encode(),
    }
    told: list[str] = []
    found: dict[str, bytes] = {}

    async def script(market: Running) -> None:
        folder = market.settings.data_dir
        for person in (market.buyer, market.seller, market.operator):
            planted[f"{person.name}'s token"] = str(person.metadata[0][1]).removeprefix("Bearer ").encode()
        planted["an invitation"] = (invited := await invitation(market, "buyer")).encode()
        session = await accept(market, invited)
        again = await login(market, "buyer")
        for number, one in enumerate((session, again)):
            planted[f"access {number}"] = one.access_token.encode()
            planted[f"renewal {number}"] = one.refresh_token.encode()
        planted["an enrolment"] = (used := await market.secret()).encode()
        await enrol(market.settings.market, market.authority_pem, used)
        planted["the secrets' key"] = (folder / "secrets.key").read_bytes().strip()
        planted["the mint's key"] = (folder / "token.key").read_bytes()
        planted["the authority's key"] = (folder / "ca.key").read_bytes().splitlines()[1]
        confidential = t.Confidential(
            secrets=[t.Secret(name="TOKEN", value=SECRET)],
            registry=t.RegistryCredential(username="me", password=LOGIN),
        )
        request = m.SubmitJobRequest(
            request_id=str(new_uuid()), spec=job_spec(name="looked-for"), confidential=confidential
        )
        job = (await market.buyer.ask(market.buyer.market.SubmitJob, request)).job
        told.append(repr(job))
        found.update({f"{name} while it waits": content for name, content in kept(folder).items()})
        agent = await market.agent()
        run = await agent.taken()
        # Whom it is for has it.
        assert run.wanted.confidential == confidential
        await agent.beat(run.prepares())
        await agent.beat(run.runs(0))
        told.extend(await mistaken(market, used, market.authority_pem))
        run.record(1)
        await agent.usage(run, *run.records)
        await agent.logs(run, run.writes(b"what it says itself\n"))
        await agent.beat(run.ended())
        await market.buyer.ended(job.job_id)
        told.extend(await shown(market, job.job_id))
        found.update(kept(folder))

    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, "sqlalchemy.engine"):
        play(script)
    for formatter in (_JsonFormatter(), _PlainFormatter()):
        told.extend(formatter.format(record) for record in caplog.records)
    # Also what the database was given.
    assert any("INSERT INTO job_sealed" in record.getMessage() for record in caplog.records)
    assert any("looked-for" in line for line in told)
    assert any(b"looked-for" in content for content in found.values())
    haystack = {**found, "told": "\n".join(told).encode()}
    spoken = [
        (whose, where)
        for whose, secret in planted.items()
        for spelling in spellings(secret)
        for where, content in haystack.items()
        if spelling in content
    ]
    assert spoken == []
