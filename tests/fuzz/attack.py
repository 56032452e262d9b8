"""So many requests through the real server, by somebody who may do everything and by an enrolled host."""

import asyncio
import gc
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

import grpc
import grpc.aio
import psutil

from coordinator.api.access import ACCESS, Access
from runtime.channel import MESSAGE_BYTES_MAX, open_channel
from tests.fuzz.mutate import Pool
from tests.support.running_coordinator import Running, job_spec
from tests.support.scripted_agent import MODEL
from tests.support.scripts import refusal
from tests.support.signing_in import PASSWORD, accept, invitation
from usance.v1 import books_pb2, host_pb2, login_pb2, market_pb2
from usance.v1 import host_pb2 as h
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t

AT_ONCE = 24
# What no request may be answered with, whatever it holds.
BROKEN = {"INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED", "UNAVAILABLE", "UNIMPLEMENTED", "DATA_LOSS"}
# For a stream that has nothing to say, and a call that hangs.
LISTEN_S, HANGS_S = 0.02, 60.0
MODULES = {file.DESCRIPTOR.name: file for file in (market_pb2, books_pb2, login_pb2, host_pb2)}
METHODS = [
    (f"/{service.full_name}/{method.name}", method)
    for file in MODULES.values()
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


@dataclass
class Found:
    requests: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    rss_mb_early: float = 0.0
    rss_mb_late: float = 0.0
    tasks_before: int = 0
    tasks_after: int = 0


class Attack:
    def __init__(self, market: Running, seed: int, token: str) -> None:
        self._market = market
        self._dice = Random(seed)
        self._pool = Pool(self._dice)
        self._metadata = (("authorization", f"Bearer {token}"),)
        self.found = Found()

    async def run(self, count: int) -> Found:
        market, found = self._market, self.found
        agent = await market.agent()
        await agent.beat()
        job = await market.buyer.submit()
        self._pool.words |= _words(job.job_id, agent.host_id, [gpu.uuid for gpu in agent.facts.gpus])
        session = await accept(market, await invitation(market, "buyer"))
        self._pool.words |= {
            "invitation": [await invitation(market, "seller"), "usance_inv_" + "x" * 32],
            "refresh_token": [session.refresh_token, session.access_token],
            "session_id": [session.session_id, "sess_never"],
        }
        who = agent.identity
        self._hosts = open_channel(market.settings.hosts, who.authority_pem, who.key_pem, who.certificate_pem)
        found.tasks_before = len(asyncio.all_tasks())
        try:
            while found.requests < count:
                await asyncio.gather(*(self._one() for _ in range(AT_ONCE)))
                market.clock.advance(self._dice.choice([0, 1, 50]))
                if not found.rss_mb_early and found.requests >= count // 3:
                    found.rss_mb_early = _rss_mb()
            found.rss_mb_late = _rss_mb()
            # Cancelled streams end when the server hears of it.
            for _ in range(500):
                found.tasks_after = len(asyncio.all_tasks())
                if found.tasks_after <= found.tasks_before:
                    break
                await asyncio.sleep(0.01)
        finally:
            await self._hosts.close()
        return found

    async def _one(self) -> None:
        name, method = self._dice.choice(METHODS)
        channel = self._hosts if ACCESS[name].access is Access.HOST else self._market.channel
        request = self._request(method)
        self.found.requests += 1
        try:
            async with asyncio.timeout(HANGS_S):
                answer = await self._ask(channel, name, method, request)
        except TimeoutError:
            answer = "DEADLINE_EXCEEDED"
        self.found.answers[answer] += 1
        if answer in BROKEN:
            self.found.broken.append(f"{name}: {answer}: {request!r}")

    def _request(self, method: Any) -> bytes:
        kind = getattr(MODULES[method.input_type.file.name], method.input_type.name)
        message = kind()
        way = self._dice.random()
        if way < 0.3:
            self._pool.fill(message, self._dice.random())
        else:
            self._nearly_right(message)
            for _ in range(self._dice.choice([0, 1, 1, 2, 3])):
                self._pool.bend(message)
        if way > 0.95:
            return self._pool.bent_bytes(message)[: MESSAGE_BYTES_MAX - 1]
        raw = bytes(message.SerializeToString())
        # What is longer does not leave our own channel.
        return raw if len(raw) < MESSAGE_BYTES_MAX else b""

    def _nearly_right(self, message: Any) -> None:
        """What the words that we know make of it."""
        for of in message.DESCRIPTOR.fields:
            words = self._pool.words.get(of.name)
            if words and not of.is_repeated:
                setattr(message, of.name, self._dice.choice(words))
            elif of.name == "spec":
                message.spec.CopyFrom(job_spec(budget_micro=self._dice.choice([1, 1_000, 10**6])))
        if isinstance(message, h.SynchronizeRequest):
            getattr(message, self._dice.choice(["hello", "beat", "usage", "logs"])).SetInParent()

    async def _ask(self, channel: Any, name: str, method: Any, request: bytes) -> str:
        try:
            if method.client_streaming:
                return await self._talk(channel, name, request)
            if method.server_streaming:
                call: Any = channel.unary_stream(name)(request, metadata=self._metadata)
                return await _listen(call)
            await channel.unary_unary(name)(request, metadata=self._metadata, timeout=HANGS_S)
        except grpc.aio.AioRpcError as error:
            return refusal(error)
        return "OK"

    async def _talk(self, channel: Any, name: str, request: bytes) -> str:
        """A hello that is good, mostly, then what is to be tried."""
        call: Any = channel.stream_stream(name)()
        facts = h.HostFacts(
            cpu_count=8,
            isolation=t.ISOLATION_CONTAINER,
            gpus=[t.Gpu(uuid="GPU-fuzz", model=MODEL, vram_bytes=1 << 30)],
        )
        hello = h.Hello(boot_id="boot-1", instance="run-1", facts=facts, terms=h.Terms())
        if self._dice.random() < 0.3:
            self._pool.bend(hello)
        try:
            await call.write(h.SynchronizeRequest(hello=hello).SerializeToString())
            await call.write(request)
        except asyncio.InvalidStateError:
            pass  # it was refused already; reading says how
        return await _listen(call)


async def _listen(call: Any) -> str:
    """Some of what it says, or how it is refused."""
    try:
        async with asyncio.timeout(LISTEN_S):
            while await call.read() is not grpc.aio.EOF:
                pass
        return str((await call.code()).name)
    except TimeoutError:
        return "OK"
    except asyncio.CancelledError:
        return "OK"
    finally:
        call.cancel()


def _words(job_id: str, host_id: str, gpus: list[str]) -> dict[str, list[Any]]:
    ids = [f"6f8b6b0e-7c55-4d0a-9f3f-{number:012x}" for number in range(400)]
    return {
        "request_id": ids,
        "job_id": [job_id, "job_never"],
        "host_id": ["host_never"],
        "account_name": ["all", "buyer", "seller", "nobody"],
        "name": ["train", "all"],
        "image": ["python:3.12", "a/b@sha256:" + "0" * 64],
        "attempt_id": ["att_never", ""],
        "gpu_uuid": [*gpus, "GPU-never"],
        "reason": ["because"],
        "amount_micro": [1, 10**6, 2**53 - 1],
        "budget_micro": [1, 10**6],
        "scopes": ["jobs:read", "admin:*"],
        "token_id": ["tok_0123456789abcdef"],
        "page_token": ["", "1", "job_1", "1.1", "act_1", "1.tok_0123456789abcdef"],
        "boot_id": ["boot-1"],
        "epoch": [1],
        "role": list(t.Role.values()),
        "labels": ["a", "rack"],
        "network_destinations": ["example.org:443", "10.0.0.0/8"],
        "password": [PASSWORD, "x"],
        "old_password": [PASSWORD],
        "new_password": [PASSWORD, "another password"],
        "subject": ["somebody", "auth0|1"],
        "token_secret": ["usance_sec_" + "x" * 32],
    }


def _rss_mb() -> float:
    gc.collect()
    return float(psutil.Process().memory_info().rss) / 1e6


async def attack(market: Running, seed: int, count: int) -> Found:
    """By an account that may do everything but operate: what it moves must still add up in the end."""
    person = await market.account("all", t.ROLE_BUYER, t.ROLE_SELLER, t.ROLE_OPERATOR, deposit_micro=10**9)
    await market.operator.ask(market.operator.admin.GetTrialBalance, m.GetTrialBalanceRequest())
    token = str(person.metadata[0][1]).removeprefix("Bearer ")
    return await Attack(market, seed, token).run(count)
