"""What nobody may see: sealed for its owner, within bounds, told only to who starts the job."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from coordinator.api import confidential
from coordinator.domain.host import Isolation
from coordinator.domain.job import Attempt, Job, JobSpec
from coordinator.domain.refusal import Refusal
from coordinator.domain.states import AttemptState
from coordinator.services.desired import Wanted, desired
from coordinator.services.submit import parts
from coordinator.services.vault import UnreadableError, Vault, fresh, kept
from coordinator.store.ports import Transaction
from runtime.private import Source
from tests.support.values import attempt, job, spec
from usance.v1 import types_pb2 as t

CANARY = b"canary-0d41"
WHOLE = t.Confidential(
    secrets=[t.Secret(name="TOKEN", value=CANARY)],
    registry=t.RegistryCredential(username="buyer", password=CANARY.decode()),
)


def test_a_box_opens_for_its_owner_alone_and_tells_nothing():
    vault = fresh()
    sealed, again = vault.seal(CANARY, "acct_a"), vault.seal(CANARY, "acct_a")
    assert vault.open(sealed.box, "acct_a") == CANARY
    assert sealed.box != again.box
    assert sealed.digest == again.digest != fresh().seal(CANARY, "acct_a").digest
    assert CANARY not in sealed.box
    changed = sealed.box[:-1] + bytes([sealed.box[-1] ^ 1])
    for box, owner in ((sealed.box, "acct_b"), (changed, "acct_a"), (sealed.box[:9], "acct_a"), (b"", "a")):
        with pytest.raises(UnreadableError):
            vault.open(box, owner)
    with pytest.raises(UnreadableError):
        fresh().open(sealed.box, "acct_a")
    assert "keys" not in repr(vault)


def test_keys_can_be_rotated(tmp_path: Path):
    path = tmp_path / "secrets.key"
    old = kept(Source(path=path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert kept(Source(path=path)).keys == old.keys
    box = old.seal(CANARY, "a").box
    path.write_text(f"{(b'n' * 32).hex()}\n{old.keys[0].hex()}\n")
    new = kept(Source(path=path))
    assert new.keys == (b"n" * 32, old.keys[0])
    assert new.open(box, "a") == CANARY
    assert Vault(keys=(b"n" * 32,)).open(new.seal(CANARY, "a").box, "a") == CANARY


@pytest.mark.parametrize(("content", "mode"), [("", 0o600), ("00ff\n", 0o600), ("no\n", 0o600), ("", 0o640)])
def test_a_file_that_holds_no_keys_or_that_others_read_is_refused(content, mode, tmp_path: Path):
    path = tmp_path / "secrets.key"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(ValueError, match=str(path)):
        kept(Source(path=path))


def described(**changes: object) -> JobSpec:
    return confidential.described(spec(), t.Confidential(**changes))  # type: ignore[arg-type]


def test_the_order_says_what_there_is_and_nothing_of_it():
    found = confidential.described(spec(), WHOLE)
    assert (found.secret_names, found.has_registry_credential) == (("TOKEN",), True)
    assert CANARY.decode() not in repr((found, parts(found)))
    assert found.is_confidential
    assert not confidential.described(spec(), t.Confidential()).is_confidential
    assert described(secrets=[t.Secret(name="a", value=b"x" * 32_768)]).is_confidential
    assert len(described(secrets=[t.Secret(name=f"a{n}", value=b"x") for n in range(32)]).secret_names) == 32


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("confidential.secrets", {"secrets": [t.Secret(name=f"a{n}", value=b"x") for n in range(33)]}),
        ("confidential.secrets", {"secrets": [t.Secret(name=n, value=b"x" * 16_385) for n in "ab"]}),
        ("confidential.secrets.value", {"secrets": [t.Secret(name="a", value=b"x" * 32_769)]}),
        ("confidential.secrets.value", {"secrets": [t.Secret(name="a")]}),
        ("confidential.secrets.name", {"secrets": [t.Secret(name="a", value=b"x")] * 2}),
        *(
            ("confidential.secrets.name", {"secrets": [t.Secret(name=name, value=b"x")]})
            for name in ("", ".", "..", ".a", "a/b", "a\n", "ä", "a" * 65)
        ),
        *(
            (f"confidential.registry.{field}", {"registry": t.RegistryCredential(username=u, password=p)})
            for field, u, p in (
                ("username", "", "p"),
                ("username", "a:b", "p"),
                ("username", "a" * 257, "p"),
                ("password", "u", ""),
                ("password", "u", "a\nb"),
                ("password", "u", "a" * 4_097),
            )
        ),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_its_field(field, changes):
    with pytest.raises(Refusal) as caught:
        described(**changes)
    assert caught.value.field == field


def test_without_containers_there_are_no_secrets():
    with pytest.raises(Refusal, match="isolation_min"):
        confidential.described(spec(isolation_min=Isolation.PROCESS), WHOLE)


def test_who_starts_the_job_is_told_and_nobody_whom_it_was_not_sealed_for():
    vault = fresh()
    sealed = confidential.seal(vault, WHOLE, "acct_a")
    assert sealed is not None
    found = confidential.described(spec(), WHOLE)
    wanted = Wanted(attempt=attempt(), spec=found, account_id="acct_a", sealed=sealed.box)
    said = confidential.wanted_to(wanted, vault)
    assert said is not None
    assert (said.confidential, said.is_confidential) == (WHOLE, True)
    later = confidential.wanted_to(Wanted(attempt=attempt(), spec=found, account_id="acct_a"), vault)
    assert later is not None
    assert (later.HasField("confidential"), later.is_confidential) == (False, True)
    assert confidential.wanted_to(wanted, fresh()) is None
    assert confidential.seal(vault, t.Confidential(), "acct_a") is None


class Stored:
    """As much of a transaction as `desired` asks for."""

    def __init__(self, *attempts: Attempt) -> None:
        self._attempts = attempts

    def attempts_on_hosts(self, host_ids: Sequence[str]) -> dict[str, list[Attempt]]:
        return {host_id: [one for one in self._attempts if one.host_id == host_id] for host_id in host_ids}

    def jobs(self, job_ids: Sequence[str]) -> dict[str, Job]:
        return {job_id: job(job_id, spec=spec(secret_names=("TOKEN",))) for job_id in job_ids}

    def sealed(self, job_ids: Sequence[str]) -> dict[str, bytes]:
        return dict.fromkeys(job_ids, b"box")


def test_only_the_host_of_the_current_attempt_is_told_and_only_until_it_runs():
    """The host of an earlier try still owes output: it holds an attempt of the same job."""
    earlier = attempt(id="att_0", host_id="host_0", epoch=1, state=AttemptState.ENDED)
    for state, box in (
        (AttemptState.ASSIGNED, b"box"),
        (AttemptState.PREPARING, b"box"),
        (AttemptState.RUNNING, None),
        (AttemptState.STOPPING, None),
    ):
        stored = Stored(earlier, attempt(epoch=2, state=state))
        told = desired(cast("Transaction", stored), ["host_0", "host_1", "host_2"])
        assert [[wanted.sealed for wanted in of] for of in told] == [[None], [box], []]
