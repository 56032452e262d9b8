"""Who may do what, and that asking twice is asking once: the real coordinator, over real TLS."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from runtime.channel import client_options, open_channel
from runtime.ids import new_uuid
from tests.support.running_coordinator import Person, Running, content_of, job_spec
from tests.support.scripted_agent import ScriptedAgent, key_pem, signing_request
from tests.support.scripts import Play, all_of, goes_on, read_logs, refusal, started
from usance.v1 import host_pb2 as h
from usance.v1 import host_pb2_grpc
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t


async def refused(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal(caught.value)


def test_asking_again_is_asking_once(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        operator, buyer = market.operator, market.buyer
        admin = operator.admin
        ids = iter([str(new_uuid()) for _ in range(9)])
        # An account.
        make = m.CreateAccountRequest(request_id=next(ids), name="carol", roles=[t.ROLE_BUYER])
        accounts = [(await operator.ask(admin.CreateAccount, make)).account for _ in range(2)]
        assert accounts[0] == accounts[1]
        make.name = "dave"
        assert await refused(operator.ask(admin.CreateAccount, make)) == "REQUEST_ID_REUSED"
        # A deposit.
        deposit = m.DepositRequest(
            request_id=next(ids), account_name="carol", amount_micro=5_000_000, reason="cash"
        )
        wallets = [(await operator.ask(admin.Deposit, deposit)).wallet_micro for _ in range(2)]
        assert wallets == [5_000_000, 5_000_000]
        deposit.amount_micro += 1
        assert await refused(operator.ask(admin.Deposit, deposit)) == "REQUEST_ID_REUSED"
        # A token: the same again, and good.
        token = m.CreateTokenRequest(request_id=next(ids), account_name="carol")
        tokens = [await operator.ask(admin.CreateToken, token) for _ in range(2)]
        assert tokens[0] == tokens[1]
        carol = Person(market.channel, tokens[0].token)
        account = (await carol.ask(carol.account.GetSelf, m.GetSelfRequest())).account
        assert (account.name, account.wallet_micro) == ("carol", 5_000_000)
        token.lifetime_ms = 60_000
        assert await refused(operator.ask(admin.CreateToken, token)) == "REQUEST_ID_REUSED"
        # A job, many times at once.
        submit = m.SubmitJobRequest(request_id=next(ids), spec=job_spec(env={"A": "1", "B": "2"}))
        asked = [buyer.ask(buyer.market.SubmitJob, submit) for _ in range(20)]
        assert len({answer.job.job_id for answer in await asyncio.gather(*asked)}) == 1
        assert (await buyer.wallet()).held_micro == 1_000_000
        submit.spec.env["A"] = "2"
        assert await refused(buyer.ask(buyer.market.SubmitJob, submit)) == "REQUEST_ID_REUSED"
        # A cancel.
        job_id = (await buyer.ask(buyer.market.ListJobs, m.ListJobsRequest())).jobs[0].job_id
        cancel = m.CancelJobRequest(request_id=next(ids), job_id=job_id)
        states = [(await buyer.ask(buyer.market.CancelJob, cancel)).job.state for _ in range(2)]
        assert states == [t.JOB_STATE_CANCELLED] * 2
        # A secret for a machine.
        enrolment = m.CreateEnrolmentTokenRequest(request_id=next(ids))
        seller = market.seller
        secrets = [(await seller.ask(seller.sells.CreateEnrolmentToken, enrolment)).token for _ in range(2)]
        assert secrets[0] == secrets[1]

    play_on_both(script)


def test_a_job_exists_if_and_only_if_its_money_does(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        buyer = market.buyer
        await buyer.submit(budget_micro=10_000_000)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await buyer.submit(budget_micro=1)
        assert refusal(caught.value) == "INSUFFICIENT_FUNDS"
        jobs = (await buyer.ask(buyer.market.ListJobs, m.ListJobsRequest())).jobs
        assert [job.spec.budget_micro for job in jobs] == [10_000_000]
        await buyer.cancel(jobs[0].job_id)

    play_on_both(script)


def test_an_attempt_of_another_job_cannot_be_read_through_ones_own(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        _, run = await started(market, agent)
        other = await market.account("other", t.ROLE_BUYER, deposit_micro=2_000_000)
        job = await other.submit()
        request = m.ReadLogsRequest(job_id=job.job_id, attempt_id=run.wanted.attempt_id)
        assert await refused(all_of(other.stream(other.market.ReadLogs, request))) == "NOT_FOUND"

    play(script)


def test_without_a_good_token_nobody_gets_in(play: Play) -> None:
    async def script(market: Running) -> None:
        stranger = Person(market.channel, "usance_tok_" + "x" * 32)
        empty = Person(market.channel, "")
        bare = Person(market.channel, "")
        bare.metadata = ()  # type: ignore[assignment]
        basic = Person(market.channel, "")
        basic.metadata = (("authorization", "Basic eDp4"),)
        request = m.CreateTokenRequest(request_id=str(new_uuid()), account_name="buyer", lifetime_ms=60_000)
        token = (await market.operator.ask(market.operator.admin.CreateToken, request)).token
        short = Person(market.channel, token)
        assert (await short.wallet()).wallet_micro == 10_000_000
        market.clock.advance(60_000)
        for person in (stranger, empty, bare, basic, short):
            assert await refused(person.wallet()) == "UNAUTHENTICATED"
            assert await refused(person.events("job_1")) == "UNAUTHENTICATED"

    play(script)


def test_an_unknown_rpc_is_not_implemented(play: Play) -> None:
    async def script(market: Running) -> None:
        call: Any = market.channel.unary_unary("/usance.v1.AdminService/DropEverything")
        assert await refused(call(b"", metadata=market.operator.metadata)) == "UNIMPLEMENTED"

    play(script)


def test_agents_are_heard_on_their_own_port_alone(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        # On the market port nobody is a host, whatever certificate they bring.
        lost = ScriptedAgent(market.settings.market, agent.identity)
        with pytest.raises(AssertionError):
            await lost.connect()
        assert refusal(lost.error) == "UNAUTHENTICATED"
        await lost._channel.close()
        # On the host port a stranger does not get past the handshake.
        async with open_channel(market.settings.hosts, market.authority_pem) as channel:
            call: Any = host_pb2_grpc.HostServiceStub(channel).Synchronize(timeout=10)
            assert await refused(all_of(call)) == "UNAVAILABLE"

    play(script)


def test_a_certificate_of_another_authority_opens_nothing(play: Play) -> None:
    async def script(market: Running) -> None:
        from tests.support.pki import Authority

        key = ec.generate_private_key(ec.SECP256R1())
        forged = Authority().sign(signing_request(key), "host_forged")
        channel = open_channel(market.settings.hosts, market.authority_pem, key_pem(key), forged)
        async with channel:
            call: Any = host_pb2_grpc.HostServiceStub(channel).Synchronize(timeout=10)
            assert await refused(all_of(call)) == "UNAVAILABLE"

    play(script)


def test_plaintext_is_refused_on_both_ports(play: Play) -> None:
    async def script(market: Running) -> None:
        for address in (market.settings.market, market.settings.hosts):
            async with grpc.aio.insecure_channel(address, options=client_options()) as channel:
                person = Person(channel, "")
                person.metadata, person.waits = market.operator.metadata, False
                assert await refused(person.wallet()) == "UNAVAILABLE"

    play(script)


# Enrolment.


async def enroll(market: Running, secret: str, csr: bytes) -> h.EnrollResponse:
    async with open_channel(market.settings.market, market.authority_pem) as channel:
        request = h.EnrollRequest(token_secret=secret, csr_pem=csr)
        return await host_pb2_grpc.EnrolmentServiceStub(channel).Enroll(request, timeout=10)


def test_a_token_makes_one_host_of_one_key(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        secret = await market.secret()
        one, two = (signing_request(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))
        first = await enroll(market, secret, one)
        assert (await enroll(market, secret, one)).host_id == first.host_id, "the answer was lost, say"
        assert await refused(enroll(market, secret, two)) == "ENROLMENT_REFUSED"
        assert await refused(enroll(market, "usance_sec_" + "x" * 32, two)) == "ENROLMENT_REFUSED"
        hosts = (await market.seller.ask(market.seller.sells.ListHosts, m.ListHostsRequest())).hosts
        assert [host.host_id for host in hosts] == [first.host_id]

    play_on_both(script)


def test_a_token_is_good_for_an_hour(play: Play) -> None:
    async def script(market: Running) -> None:
        used, unused = await market.secret(), await market.secret()
        csr = signing_request(ec.generate_private_key(ec.SECP256R1()))
        await enroll(market, used, csr)
        market.clock.advance(3_600_000)
        assert await refused(enroll(market, used, csr)) == "ENROLMENT_REFUSED"
        assert await refused(enroll(market, unused, csr)) == "ENROLMENT_REFUSED"

    play(script)


def test_only_a_p256_key_becomes_a_host(play: Play) -> None:
    async def script(market: Running) -> None:
        secret = await market.secret()
        wrong = [
            b"",
            b"not a request",
            b"x" * 8_193,
            signing_request(ec.generate_private_key(ec.SECP384R1())),
            signing_request(ec.generate_private_key(ec.SECP256K1())),
            signing_request(rsa.generate_private_key(65_537, 2_048)),
        ]
        for csr in wrong:
            assert await refused(enroll(market, secret, csr)) == "INVALID_FIELD"
        good = signing_request(ec.generate_private_key(ec.SECP256R1()))
        assert (await enroll(market, secret, good)).host_id.startswith("host_")

    play(script)


def test_a_token_carries_all_that_a_machine_needs(play: Play) -> None:
    async def script(market: Running) -> None:
        request = m.CreateEnrolmentTokenRequest(request_id=str(new_uuid()))
        token = (await market.seller.ask(market.seller.sells.CreateEnrolmentToken, request)).token
        content = content_of(token)
        assert content.pop("secret").startswith("usance_sec_")
        assert content == {
            "market": market.settings.market,
            "hosts": market.settings.hosts,
            "authority": market.authority_pem.decode(),
        }

    play(script)


# Looking around.


def test_offers_quotes_and_pages(play: Play) -> None:
    async def script(market: Running) -> None:
        buyer = market.buyer
        agent = await market.agent(gpu_count=2)
        agent.facts.gpus.append(t.Gpu(uuid="GPU-h100", model="NVIDIA H100", vram_bytes=80 << 30))
        agent.terms.prices.append(h.GpuPrice(model="NVIDIA H100", gpu_hour_price_micro=9_000_000))
        await agent.hello()
        await agent.beat()
        offers = (await buyer.ask(buyer.market.ListOffers, m.ListOffersRequest())).offers
        assert [(o.gpu_count_free, o.gpu_hour_price_micro) for o in offers] == [
            (2, 3_600_000),
            (1, 9_000_000),
        ]
        filtered = m.ListOffersRequest(gpus=t.GpuRequest(model="h100"))
        assert len((await buyer.ask(buyer.market.ListOffers, filtered)).offers) == 1
        first = await buyer.ask(buyer.market.ListOffers, m.ListOffersRequest(page_size=1))
        rest = m.ListOffersRequest(page_size=1, page_token=first.next_page_token)
        second = await buyer.ask(buyer.market.ListOffers, rest)
        assert [*first.offers, *second.offers] == list(offers)
        assert second.next_page_token == ""
        for token in ("job_1", "-1"):
            wrong = m.ListOffersRequest(page_token=token)
            assert await refused(buyer.ask(buyer.market.ListOffers, wrong)) == "INVALID_FIELD"
        quote = await buyer.ask(buyer.market.QuoteJob, m.QuoteJobRequest(spec=job_spec()))
        assert (quote.offer.host_id, quote.hour_price_micro) == (agent.host_id, 3_600_000)
        assert (quote.hold_micro, quote.run_ms_affordable) == (1_000_000, 1_000_000)
        wide = job_spec(gpus=t.GpuRequest(count=5))
        why = await buyer.ask(buyer.market.QuoteJob, m.QuoteJobRequest(spec=wide))
        assert not why.HasField("offer")
        assert [(x.host_count, x.remedy) for x in why.limits] == [(1, "2 would do")]
        jobs = [(await buyer.submit(gpus=t.GpuRequest(count=5))).job_id for _ in range(3)]
        page = await buyer.ask(buyer.market.ListJobs, m.ListJobsRequest(page_size=2, live_only=True))
        following = m.ListJobsRequest(page_size=2, page_token=page.next_page_token)
        after = await buyer.ask(buyer.market.ListJobs, following)
        assert [job.job_id for job in (*page.jobs, *after.jobs)] == jobs[::-1]
        for job_id in jobs:
            await buyer.cancel(job_id)
        assert not (await buyer.ask(buyer.market.ListJobs, m.ListJobsRequest(live_only=True))).jobs
        admin = market.operator.admin
        people = await market.operator.ask(admin.ListAccounts, m.ListAccountsRequest(page_size=2))
        assert [a.name for a in people.accounts] == ["buyer", "operator"]
        more = m.ListAccountsRequest(page_token=people.next_page_token)
        people = await market.operator.ask(admin.ListAccounts, more)
        assert [a.name for a in people.accounts] == ["seller"]

    play(script)


def test_what_is_out_of_bounds_is_refused_and_nothing_is_half_done(play: Play) -> None:
    async def script(market: Running) -> None:
        operator, buyer, admin = market.operator, market.buyer, market.operator.admin
        wrong = [
            buyer.submit(budget_micro=0),
            buyer.submit(request_id="1"),
            buyer.job("JOB\0"),
            buyer.events(""),
            all_of(read_logs(market, "job_1", attempt_id="A B")),
            all_of(read_logs(market, "job_1", offset=-1)),
            operator.ask(
                admin.CreateAccount, m.CreateAccountRequest(request_id=str(new_uuid()), name="erin")
            ),
            operator.ask(
                admin.CreateAccount,
                m.CreateAccountRequest(request_id=str(new_uuid()), name="Erin", roles=[t.ROLE_BUYER]),
            ),
            market.deposit("buyer", 0),
            market.deposit("buyer", 2**53),
            operator.ask(
                admin.CreateToken,
                m.CreateTokenRequest(request_id=str(new_uuid()), account_name="buyer", lifetime_ms=59_999),
            ),
        ]
        assert [await refused(call) for call in wrong] == ["INVALID_FIELD"] * len(wrong)
        assert await refused(market.deposit("nobody", 1)) == "NOT_FOUND"
        taken = m.CreateAccountRequest(request_id=str(new_uuid()), name="buyer", roles=[t.ROLE_BUYER])
        assert await refused(operator.ask(admin.CreateAccount, taken)) == "NAME_TAKEN"
        assert (await buyer.wallet()).wallet_micro == 10_000_000

    play(script)


def test_without_isolation_only_for_whom_the_seller_trusts(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent(isolation=t.ISOLATION_PROCESS)
        job = await market.buyer.submit(isolation_min=t.ISOLATION_PROCESS)
        strict = await market.buyer.submit()
        agent.terms.trusted_accounts.append("buyer")
        await agent.hello()
        run = await agent.taken()
        await agent.beat(run.runs(0))
        await goes_on(market, agent, run, 1_000, by_ms=1_000)
        assert (await market.buyer.job(job.job_id)).state == t.JOB_STATE_RUNNING
        waiting = await market.buyer.job(strict.job_id)
        assert [limit.limit for limit in waiting.limits] == ["gives no container isolation"]

    play(script)
