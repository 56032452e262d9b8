"""Every text of every request, found in the descriptors: bounded, and nothing in it but text.

What a stranger says is shown to others: in terminals, logs, JSON. So one layer at the edge looks at it, and
here is the proof that it looks at all of it: each field of a good request is made to hold what it must not.
"""

from collections.abc import Iterator
from typing import Any

import grpc.aio
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from coordinator.api.access import ACCESS, Access
from runtime.channel import open_channel
from runtime.ids import new_uuid
from tests.fuzz.attack import METHODS, MODULES
from tests.support.running_coordinator import Person, Running, job_spec
from tests.support.scripted_agent import MODEL, ScriptedAgent, signing_request
from tests.support.scripts import Play, refusal
from tests.support.signing_in import PASSWORD, cheap, invitation
from usance.v1 import host_pb2 as h
from usance.v1 import host_pb2_grpc
from usance.v1 import types_pb2 as t

Path = tuple[str, ...]
KEY, VALUE = "<key>", "<value>"
# The longest that any text may be is 64 KiB, the command and the environment.
TOO_LONG = "a" * 70_000
ESCAPE, NUL = "a\x1b]0;owned\x07", "a\0"
# What is given to a program as it is: all but NUL. Nobody shows it but through `safe`.
RAW = {("spec", "command"), ("spec", "env", VALUE)}
# Turned into its digest at once, and neither kept nor shown: it may hold any character.
PASSWORDS = ("password", "old_password", "new_password")
DIGESTED = {(name,) for name in ("token_secret", "invitation", "refresh_token", *PASSWORDS)}
# Not read at all.
UNREAD = {("filter", "page_token")}
CSR = signing_request(ec.generate_private_key(ec.SECP256R1()))
GPU = t.Gpu(uuid="GPU-1", model=MODEL, vram_bytes=1 << 30)
HELLO = h.Hello(
    boot_id="boot-1",
    facts=h.HostFacts(cpu_count=8, isolation=t.ISOLATION_CONTAINER, gpus=[GPU]),
    terms=h.Terms(prices=[h.GpuPrice(model=MODEL, gpu_hour_price_micro=1)]),
)


@pytest.fixture
def template(template: Any) -> Any:
    """Who tries so many bad tokens would be slowed down."""
    return cheap(template, bad_tokens_burst=10_000)


def texts(described: Any, path: Path = ()) -> Iterator[Path]:
    """Where in a message of this kind texts are."""
    for field in described.fields:
        if field.type == field.TYPE_STRING:
            yield (*path, field.name)
        elif field.type == field.TYPE_MESSAGE and field.message_type.GetOptions().map_entry:
            yield (*path, field.name, KEY)
            yield (*path, field.name, VALUE)
        elif field.type == field.TYPE_MESSAGE:
            yield from texts(field.message_type, (*path, field.name))


def put(message: Any, path: Path, text: str) -> None:
    """The text at that place; of a list in its first item, which is made where there is none."""
    field, rest = message.DESCRIPTOR.fields_by_name[path[0]], path[1:]
    inside = getattr(message, path[0])
    if rest in {(KEY,), (VALUE,)}:
        inside["a" if rest == (VALUE,) else text] = text if rest == (VALUE,) else "a"
    elif field.is_repeated and rest:
        put(inside[0] if inside else inside.add(), rest, text)
    elif field.is_repeated:
        del inside[:]
        inside.append(text)
    elif rest:
        inside.SetInParent()
        put(inside, rest, text)
    else:
        setattr(message, path[0], text)


def good(method: Any, known: dict[str, Any]) -> Any:
    """A request in which all that has to be right is right."""
    message = getattr(MODULES[method.input_type.file.name], method.input_type.name)()
    fields = method.input_type.fields_by_name
    for name in fields.keys() & known.keys():
        setattr(message, name, known[name])
    if "request_id" in fields:
        message.request_id = str(new_uuid())
    if "spec" in fields:
        message.spec.CopyFrom(job_spec(network=t.NETWORK_ALLOW_LIST, network_destinations=["example.org"]))
    if "confidential" in fields:
        message.confidential.registry.username, message.confidential.registry.password = "u", "p"
        message.confidential.secrets.add(name="A", value=b"x")
    if "csr_pem" in fields:
        message.csr_pem = CSR
    if "roles" in fields:
        message.roles.append(t.ROLE_BUYER)
    if isinstance(message, h.SynchronizeRequest):
        report = h.AttemptReport(attempt_id="att_1", epoch=1, state=t.ATTEMPT_STATE_RUNNING)
        report.figures.gpus.add(gpu_uuid="GPU-1")
        message.beat.attempts.append(report)
    return message


def mended(message: Any, path: Path) -> None:
    """What is needed around the place for it to be reached."""
    if isinstance(message, h.SynchronizeRequest):
        if path[0] == "hello":
            message.hello.CopyFrom(HELLO)
            if path[2:] == ("network_destinations",):
                message.hello.terms.network_max = t.NETWORK_ALLOW_LIST
        elif path[0] != "beat":
            message.usage.attempt_id = "att_1"
        if path[0] == "usages":
            message.usages.reports.add(attempt_id="att_1")


def named(error: grpc.aio.AioRpcError) -> str:
    """The field that the refusal names."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in Status.FromString(value).details:
                bad = BadRequest()
                if detail.Unpack(bad):
                    return str(bad.field_violations[0].field)
    return ""


async def said(channel: Any, person: Person, name: str, method: Any, request: bytes) -> tuple[str, str]:
    """What is answered, and of which field."""
    metadata = () if ACCESS[name].access is Access.HOST else person.metadata
    try:
        if method.client_streaming:
            call: Any = channel.stream_stream(name)(timeout=30)
            await call.write(h.SynchronizeRequest(hello=HELLO).SerializeToString())
            await call.write(request)
            while await call.read() is not grpc.aio.EOF:
                pass
        elif method.server_streaming:
            call = channel.unary_stream(name)(request, metadata=metadata, timeout=30)
            await call.read()
            call.cancel()
        else:
            await channel.unary_unary(name)(request, metadata=metadata, timeout=30)
    except grpc.aio.AioRpcError as error:
        return refusal(error), named(error)
    return "OK", ""


async def people(market: Running) -> tuple[Person, ScriptedAgent, dict[str, Any]]:
    """Who may do everything, a host, and what there is to name."""
    everybody = await market.account(
        "all", t.ROLE_BUYER, t.ROLE_SELLER, t.ROLE_OPERATOR, deposit_micro=1_000_000
    )
    job, agent = await everybody.submit(budget_micro=1_000), await market.agent()
    known: dict[str, Any] = {
        "job_id": job.job_id,
        "host_id": agent.host_id,
        "account_name": "all",
        "name": "somebody",
        "reason": "because",
        "token_id": "tok_0123456789abcdef",
        "gpu_uuid": "GPU-1",
        "amount_micro": 1,
        "budget_micro_more": 1,
        **dict.fromkeys(PASSWORDS, PASSWORD),
        "invitation": await invitation(market, "buyer"),
        "refresh_token": "usance_ref_" + "x" * 32,
        "session_id": "ses_0123456789abcdef",
        "subject": "somebody",
    }
    return everybody, agent, known


def test_every_text_of_every_request_is_looked_at(play: Play) -> None:
    async def script(market: Running) -> None:
        everybody, agent, known = await people(market)
        who, tried, wrong = agent.identity, 0, []
        async with open_channel(
            market.settings.hosts, who.authority_pem, who.key_pem, who.certificate_pem
        ) as hosts:
            for name, method in METHODS:
                channel = hosts if ACCESS[name].access is Access.HOST else market.channel
                for path in texts(method.input_type):
                    if path in UNREAD:
                        continue
                    for text in (NUL if path in RAW else ESCAPE, TOO_LONG):
                        request = good(method, known)
                        mended(request, path)
                        put(request, path, text)
                        code, field = await said(
                            channel, everybody, name, method, request.SerializeToString()
                        )
                        tried += 1
                        last = field.rsplit(".", 1)[-1]
                        if path in DIGESTED and (text == ESCAPE or code == "ENROLMENT_REFUSED"):
                            continue
                        if code != "INVALID_FIELD" or last not in path:
                            wrong.append((name, ".".join(path), text[:9], code, field))
        assert wrong == []
        assert tried > 200

    play(script)


def test_what_is_tried_there_is_good_but_for_the_text(play: Play) -> None:
    """Else a refusal would prove nothing."""

    async def script(market: Running) -> None:
        everybody, agent, known = await people(market)
        refused = {}
        for name, method in METHODS:
            if ACCESS[name].access is Access.HOST or name.endswith(("RevokeHost", "RefundJob")):
                continue
            code, field = await said(
                market.channel, everybody, name, method, good(method, known).SerializeToString()
            )
            if code == "INVALID_FIELD":
                refused[name] = field
        assert refused == {}
        who = agent.identity
        async with open_channel(
            market.settings.hosts, who.authority_pem, who.key_pem, who.certificate_pem
        ) as channel:
            call: Any = host_pb2_grpc.HostServiceStub(channel).Synchronize(timeout=30)
            await call.write(h.SynchronizeRequest(hello=HELLO))
            answer = await call.read()
            assert answer.HasField("welcome")
            call.cancel()

    play(script)
