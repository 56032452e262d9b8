"""Keeps this machine's certificate good: in time, for a new key, without the stream noticing."""

import asyncio
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio

from agent.domain.certificate import HOUR_MS, PPM, renew_at_ms, retry_ms
from agent.link.client import describe, random_ms
from agent.link.identity import Identity, save
from runtime.channel import open_channel
from runtime.clock import Clock
from usance.v1 import host_pb2, host_pb2_grpc

log = logging.getLogger(__name__)

_WAIT_S = 20


class Papers:
    """This machine's identity as it is now: the next connection is opened with it; those there are go on."""

    def __init__(self, state_dir: Path, identity: Identity, clock: Clock) -> None:
        self._state_dir = state_dir
        self._clock = clock
        self.identity = identity

    def open_channel(self) -> grpc.aio.Channel:
        who = self.identity
        return open_channel(who.hosts, who.authority_pem, who.key_pem, who.certificate_pem)

    async def keep_good(self) -> None:
        """For ever."""
        while True:
            await self._sleep_until(self._renew_at_ms())
            while not await self._renewed():
                await self._clock.sleep_ms(self._retry_ms())

    async def renew(self) -> None:
        """Raises what went wrong; then nothing has changed."""
        key_pem, csr_pem = await _fresh_key()
        channel = self.open_channel()
        try:
            response = await host_pb2_grpc.HostServiceStub(channel).RenewCertificate(
                host_pb2.RenewCertificateRequest(csr_pem=csr_pem), timeout=_WAIT_S
            )
        finally:
            await channel.close()
        renewed = replace(
            self.identity,
            key_pem=key_pem,
            certificate_pem=response.certificate_pem,
            authority_pem=response.authority_pem,
            begins_ms=self._clock.wall_ms(),
            ends_ms=response.expires_at_ms,
        )
        await asyncio.to_thread(save, self._state_dir, renewed)
        self.identity = renewed

    async def _renewed(self) -> bool:
        try:
            await self.renew()
        except (grpc.aio.AioRpcError, OSError, ValueError) as error:
            log.warning("the certificate could not be renewed: %s; it will be tried again", describe(error))
            return False
        log.info("the certificate was renewed, for a new key")
        return True

    def _renew_at_ms(self) -> int:
        who, chance_ppm = self.identity, random_ms(0, PPM)
        if not who.ends_ms:
            # Enrolled by a coordinator that did not say: soon, so that we know.
            return self._clock.wall_ms() + random_ms(0, HOUR_MS)
        return renew_at_ms(who.begins_ms, who.ends_ms, chance_ppm)

    def _retry_ms(self) -> int:
        left_ms = self.identity.ends_ms - self._clock.wall_ms()
        if not self.identity.ends_ms:
            left_ms = sys.maxsize
        elif left_ms <= 0:
            log.error(
                "the certificate of this host has expired and opens nothing any more; with a fresh token of"
                " its seller: usance-agent enroll TOKEN"
            )
        return retry_ms(left_ms, random_ms(0, PPM))

    async def _sleep_until(self, at_ms: int) -> None:
        """By the wall clock, which may be set meanwhile."""
        while (left_ms := at_ms - self._clock.wall_ms()) > 0:
            await self._clock.sleep_ms(min(left_ms, HOUR_MS))


async def _fresh_key() -> tuple[bytes, bytes]:
    """A key and the request for its certificate, from a process of their own: what makes them is large, and
    is needed once in days."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent.link.keys", stdout=asyncio.subprocess.PIPE
    )
    said, _ = await child.communicate()
    if child.returncode != 0:
        raise OSError("no key could be made")
    fields = json.loads(said)
    return fields["key_pem"].encode(), fields["csr_pem"].encode()
