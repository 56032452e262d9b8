"""A market made ready for a benchmark, accounts, hosts and running jobs; and its coordinator."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from coordinator import app, identity
from coordinator.domain.account import Role
from coordinator.domain.host import Gpu, HostState, Isolation
from coordinator.domain.job import RUN_MS_MAX, Attempt, GpuRequest, Job, JobSpec
from coordinator.domain.metering import Meter, Stamp
from coordinator.domain.states import AttemptState, JobState
from coordinator.services import accounts
from coordinator.services.mint import Mint
from coordinator.settings import CONFIG_NAME, Settings
from coordinator.store.database import Database
from coordinator.store.ports import Transaction
from ledger.entries import deposit, hold
from runtime.clock import SystemClock
from runtime.ids import derived_uuid, new_id
from tests.rig.parts import free_port, spawn, stop, wait_until

MODEL = "NVIDIA H100"
VRAM_BYTES = 80 << 30
GPUS_PER_HOST = 8
HOUR_PRICE_MICRO = 3_600_000_000
BUDGET_MICRO = 10**12
BOOT_ID = "6b2f0000-0000-4000-8000-000000000001"
# What a running job is taken to have been seen for, so that every record of the benchmark is payable.
WITNESSED_MS = 86_400_000
_READY = re.compile(r"^ready market=(\S+) hosts=(\S+)$", re.MULTILINE)
_START_S = 60.0
_BATCH = 1_000


@dataclass(kw_only=True)
class Ground:
    """`prepare`, then `start` and `stop` as often as you like."""

    folder: Path
    # A PostgreSQL URL; without one SQLite in the folder.
    database: str = ""
    process: "subprocess.Popen[bytes] | None" = None
    beat_interval_ms: int = 60_000
    reconnect_window_ms: int = 600_000
    market: str = field(init=False)
    hosts: str = field(init=False)
    seller_id: str = field(init=False)
    buyer_id: str = field(init=False)
    buyer_token: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.market = f"127.0.0.1:{free_port()}"
        self.hosts = f"127.0.0.1:{free_port()}"

    @property
    def data(self) -> Path:
        return self.folder / "coordinator"

    @property
    def settings(self) -> Settings:
        return Settings(data_dir=self.data, database=self.database)

    def prepare(self, host_count: int, jobs_per_host: int = 0) -> None:
        """A market with hosts that were enrolled, and jobs that run on them."""
        app.initialise(self.settings)
        # All agents come from one address, and at once.
        with (self.data / CONFIG_NAME).open("a", encoding="utf-8") as config:
            config.write("address_strangers_max = 1000000\n")
        clock = SystemClock()
        now = Stamp(boot_id=clock.boot_id, boot_ms=clock.boot_ms(), wall_ms=clock.wall_ms())
        names = [new_id("host") for _ in range(host_count)]
        store = Database(app.open_database(self.settings), lambda _: None)
        try:
            self.seller_id = store.write(lambda tx: _account(tx, "seller", Role.SELLER, now)).result()
            self.buyer_id = store.write(lambda tx: _account(tx, "buyer", Role.BUYER, now)).result()
            store.write(lambda tx: _hosts(tx, self.seller_id, names, now)).result()
            budgets_micro = BUDGET_MICRO * (host_count * jobs_per_host + 1)
            store.write(lambda tx: _fund(tx, self.buyer_id, budgets_micro, now)).result()
            self.buyer_token = store.write(lambda tx: self._token(tx, now)).result()
            attempts = {name: [f"att_{name}_{i}" for i in range(jobs_per_host)] for name in names}
            for start in range(0, host_count, max(1, _BATCH // max(1, jobs_per_host))):
                part = names[start : start + max(1, _BATCH // max(1, jobs_per_host))]
                made = {name: attempts[name] for name in part}
                store.write(lambda tx, made=made: self._jobs(tx, made, now)).result()  # type: ignore[misc]
        finally:
            store.close()
        self._certify(names, attempts, clock.wall_ms())

    def _token(self, tx: Transaction, now: Stamp) -> str:
        mint = Mint(key=(self.data / "token.key").read_bytes())
        request_id = str(derived_uuid("token"))
        return accounts.create_token(
            tx, mint, "benchmark", request_id, "buyer", accounts.TOKEN_MS_DEFAULT, now.wall_ms
        ).token

    def _jobs(self, tx: Transaction, attempts: dict[str, list[str]], now: Stamp) -> None:
        """Jobs that have run for a while already, paid far ahead."""
        pairs = [(host, attempt) for host, of in attempts.items() for attempt in of]
        for outcome in tx.post(
            [
                hold(
                    transfer_id=derived_uuid("hold", attempt),
                    account_id=self.buyer_id,
                    job_id=f"job_{attempt}",
                    amount_micro=BUDGET_MICRO,
                    event_ms=now.wall_ms,
                )
                for _, attempt in pairs
            ],
            now.wall_ms,
        ):
            assert outcome.ok, outcome
        for host, attempt in pairs:
            tx.insert_job(_job(f"job_{attempt}", self.buyer_id, now))
            made = _attempt(attempt, host, self.seller_id, now)
            tx.own_gpus(host, [gpu.uuid for gpu in made.gpus])
            assert tx.insert_attempt(made)

    def _certify(self, names: list[str], attempts: dict[str, list[str]], now_ms: int) -> None:
        """What the simulated agents need. They share a key: it is the handshakes that are to be real."""
        who, key = identity.load(self.data, now_ms), ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "benchmark")])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        fleet = {
            "authority_pem": who.authority_pem.decode(),
            "key_pem": pem,
            "agents": [
                {
                    "host_id": name,
                    "certificate_pem": who.issue_host(csr, name, now_ms).pem.decode(),
                    "attempts": attempts[name],
                }
                for name in names
            ],
        }
        (self.folder / "fleet.json").write_text(json.dumps(fleet), encoding="utf-8")
        (self.folder / "server.json").write_text(
            json.dumps(
                {
                    "authority_pem": who.authority_pem.decode(),
                    "key_pem": who.server_key_pem.decode(),
                    "certificate_pem": who.server_pem.decode(),
                }
            ),
            encoding="utf-8",
        )

    @property
    def log(self) -> Path:
        return self.folder / "coordinator.log"

    def spawn(self, *flags: str) -> "subprocess.Popen[bytes]":
        """A coordinator that may not be ready yet."""
        argv = [sys.executable, "-m", "coordinator", "run", "--data-dir", str(self.data), *flags]
        argv += ["--market", self.market, "--hosts", self.hosts]
        argv += ["--beat-interval-ms", str(self.beat_interval_ms)]
        argv += ["--reconnect-window-ms", str(self.reconnect_window_ms)]
        argv += ["--database", self.database] if self.database else []
        return spawn(argv, log=self.log)

    def start(self, *flags: str) -> int:
        """The coordinator, ready; its process id."""
        log = self.log
        before = len(_READY.findall(log.read_text())) if log.exists() else 0
        process = self.spawn(*flags)
        self.process = process

        def ready() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"the coordinator ended at once:\n{log.read_text()[-4_000:]}")
            return len(_READY.findall(log.read_text())) > before

        wait_until(ready, "the coordinator is ready", deadline_s=_START_S)
        return process.pid

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process)
            self.process = None


def _account(tx: Transaction, name: str, role: Role, now: Stamp) -> str:
    return accounts.create_account(
        tx, "benchmark", str(derived_uuid("account", name)), name, frozenset({role}), now.wall_ms
    ).id


def _fund(tx: Transaction, account_id: str, amount_micro: int, now: Stamp) -> None:
    """In parts: one transfer has a limit."""
    part_micro = 10**15
    parts = [part_micro] * (amount_micro // part_micro) + [amount_micro % part_micro]
    transfers = [
        deposit(
            transfer_id=derived_uuid("deposit", number),
            account_id=account_id,
            amount_micro=micro,
            event_ms=now.wall_ms,
            reason="a benchmark's",
        )
        for number, micro in enumerate(parts)
        if micro
    ]
    for outcome in tx.post(transfers, now.wall_ms):
        assert outcome.ok, outcome


def _hosts(tx: Transaction, seller_id: str, names: list[str], now: Stamp) -> None:
    digest = b"b" * 32
    tx.insert_enrolment_token(digest, seller_id, now.wall_ms + 1)
    for name in names:
        tx.insert_host(name, digest, now)
        # As after a crash of the coordinator: expected back. A lost host would have no jobs.
        tx.save_link(name, HostState.LOST, HostState.SUSPECT, "silent", now.wall_ms)


def _job(job_id: str, buyer_id: str, now: Stamp) -> Job:
    return Job(
        id=job_id,
        account_id=buyer_id,
        account_name="buyer",
        spec=JobSpec(
            name="a benchmark's",
            image="example.org/image@sha256:" + "0" * 64,
            command=("train",),
            gpus=GpuRequest(count=1),
            budget_micro=BUDGET_MICRO,
            run_ms_max=RUN_MS_MAX,
        ),
        state=JobState.RUNNING,
        cause=None,
        detail="the command runs",
        submitted_ms=now.wall_ms,
        queued_ms=now.wall_ms,
        ended_ms=0,
        charged_micro=0,
        retries_used=0,
        exit_code=None,
    )


def _attempt(attempt_id: str, host_id: str, seller_id: str, now: Stamp) -> Attempt:
    gpu = Gpu(uuid=gpu_uuid(attempt_id), model=MODEL, vram_bytes=VRAM_BYTES, simulated=True)
    return Attempt(
        id=attempt_id,
        job_id=f"job_{attempt_id}",
        epoch=1,
        host_id=host_id,
        seller_account_id=seller_id,
        isolation=Isolation.CONTAINER,
        gpus=(gpu,),
        state=AttemptState.RUNNING,
        detail="runs",
        paid_through_ms=WITNESSED_MS,
        meter=Meter(
            attempt_id=attempt_id,
            epoch=1,
            hour_price_micro=HOUR_PRICE_MICRO,
            fee_ppm=50_000,
            run_ms_affordable=RUN_MS_MAX,
            run_ms_max=RUN_MS_MAX,
            gpu_uuids=frozenset({gpu.uuid}),
            assigned=replace(now, boot_ms=now.boot_ms - WITNESSED_MS),
            container_id=attempt_id,
            host_boot_id=BOOT_ID,
            sighted=now,
            witnessed_ms=WITNESSED_MS,
        ),
    )


def gpu_uuid(attempt_id: str) -> str:
    return f"GPU-{attempt_id}"
