"""What must hold of a market's database at every moment, and when all is over.

Written from the promises, with queries and arithmetic of its own, for whoever puts a market to the test: the
simulation after every commit, the chaos of real processes every second and at its end.
"""

import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

HOUR_MS = 3_600_000
WORTHLESS_MS = 600_000
LIVE_JOBS = ("queued", "starting", "running")

Rows = list[dict[str, Any]]


class Promises:
    """`rows` asks the database, with `?` for values; `require` is told what holds and what does not."""

    def __init__(
        self, rows: Callable[..., Rows], require: Callable[[bool, str], None], deposit_micro: int
    ) -> None:
        self.rows = rows
        self.require = require
        self._deposit_micro = deposit_micro
        self._final: dict[str, tuple[Any, ...]] = {}

    def at_every_moment(self) -> None:
        self._money()
        self._gpus()
        self._epochs()
        self._jobs()
        self._paid_through()

    def _money(self) -> None:
        (total,) = self.rows("SELECT coalesce(sum(balance_micro), 0) AS micro FROM ledger_account")
        self.require(total["micro"] == 0, f"the accounts sum to {total}")
        below = self.rows(
            "SELECT code FROM ledger_account"
            " WHERE balance_micro < 0 AND code NOT IN ('issuance', 'adjustments')"
        )
        self.require(not below, f"below zero: {below}")
        for row in self.rows(
            "SELECT j.id, j.state, j.budget_micro, j.charged_micro, coalesce(a.balance_micro, 0) AS held"
            " FROM job j LEFT JOIN ledger_account a ON a.code = 'hold:' || j.id"
        ):
            due = row["budget_micro"] - row["charged_micro"] if row["state"] in LIVE_JOBS else 0
            self.require(
                row["held"] == due, f"{row['id']} is {row['state']} and holds {row['held']}, not {due}"
            )
            self.require(
                row["charged_micro"] <= row["budget_micro"], f"{row['id']} cost more than its budget"
            )

    def _gpus(self) -> None:
        seen: dict[str, str] = {}
        for row in self.rows("SELECT id, gpus FROM attempt WHERE state <> 'ended'"):
            for gpu in json.loads(row["gpus"]):
                other = seen.setdefault(gpu["uuid"], row["id"])
                self.require(other == row["id"], f"GPU {gpu['uuid']} is sold to {other} and {row['id']}")

    def _epochs(self) -> None:
        """Of a job's attempts only the newest may live, and no two have one epoch."""
        beside = self.rows(
            "SELECT a.id, a.epoch, b.id AS newer FROM attempt a JOIN attempt b ON b.job_id = a.job_id"
            " WHERE b.id <> a.id AND (b.epoch = a.epoch OR (b.epoch > a.epoch AND a.state <> 'ended'))"
        )
        self.require(not beside, f"attempts that live or speak beside newer ones: {beside}")

    def _jobs(self) -> None:
        for row in self.rows("SELECT id, state, cause, ended_ms, exit_code, charged_micro, detail FROM job"):
            if row["state"] in LIVE_JOBS:
                self.require(row["id"] not in self._final, f"{row['id']} had ended and is {row['state']}")
                continue
            end = tuple(row.values())
            was = self._final.setdefault(row["id"], end)
            self.require(was == end, f"{row['id']} ended as {was} and then as {end}")
            self.require(bool(row["cause"]) and bool(row["detail"]), f"{row['id']} ended without a cause")

    def _paid_through(self) -> None:
        """No host is told to let a run go on for longer than what is left of its job's money buys."""
        for row in self.rows(
            "SELECT a.id, a.paid_through_ms, a.run_ms_max, a.hour_price_micro AS price, a.billed_ms,"
            " j.budget_micro - j.charged_micro AS left_micro"
            " FROM attempt a JOIN job j ON j.id = a.job_id WHERE a.state <> 'ended'"
        ):
            bought_micro = row["left_micro"] + row["price"] * row["billed_ms"] // HOUR_MS
            through_ms = row["paid_through_ms"]
            self.require(
                row["price"] * through_ms // HOUR_MS <= bought_micro and through_ms <= row["run_ms_max"],
                f"{row['id']} may run through {through_ms} ms, and {row} is what was bought",
            )

    def _kept_after_credit(self, row: dict[str, Any], charge: int, fee: int) -> tuple[int, int]:
        """What of an attempt's charge and fee is not given back: by the published rule, all of it or all but
        the last ten minutes, when the host was at fault and the buyer had not asked for another at once."""
        if row["cause"] != "host" or row["end_reason"] == "replaced":
            due = (charge, fee)
        else:
            kept_ms = row["billed_ms"] - WORTHLESS_MS if row["billed_ms"] >= WORTHLESS_MS else 0
            kept = row["hour_price_micro"] * kept_ms // HOUR_MS
            due = (kept, kept * row["fee_ppm"] // 1_000_000)
        given = self.rows("SELECT * FROM credit WHERE attempt_id = ?", row["id"])
        back = (sum(c["earning_micro"] + c["fee_micro"] for c in given), sum(c["fee_micro"] for c in given))
        self.require(
            back == (charge - due[0], fee - due[1]),
            f"{row['id']}: {back} were given back of {(charge, fee)}, {due} were to be kept",
        )
        return due

    def at_the_end(self) -> None:
        """Every charge, computed again from its evidence; and what everybody has."""
        charged: dict[str, int] = defaultdict(int)
        earned: dict[str, int] = defaultdict(int)
        credited: dict[str, int] = defaultdict(int)
        fees = 0
        for row in self.rows("SELECT * FROM attempt"):
            charge = row["hour_price_micro"] * row["billed_ms"] // HOUR_MS
            fee = charge * row["fee_ppm"] // 1_000_000
            lines = self.rows("SELECT * FROM bill_line WHERE attempt_id = ? ORDER BY number", row["id"])
            self.require(
                sum(x["charge_micro"] for x in lines) == charge, f"{row['id']}'s bill is not {charge}"
            )
            self.require(sum(x["fee_micro"] for x in lines) == fee, f"{row['id']}'s fee is not {fee}")
            self.require(
                [x["number"] for x in lines] == list(range(1, len(lines) + 1)), f"{row['id']}: lines missing"
            )
            charged[row["job_id"]] += charge
            kept = self._kept_after_credit(row, charge, fee)
            credited[row["job_id"]] += charge - kept[0]
            earned[row["seller_account_id"]] += kept[0] - kept[1]
            fees += kept[1]
        spent: dict[str, int] = defaultdict(int)
        for row in self.rows("SELECT * FROM job"):
            due = charged[row["id"]]
            self.require(
                row["charged_micro"] == due, f"{row['id']} was charged {row['charged_micro']}, not {due}"
            )
            spent[row["account_id"]] += due - credited[row["id"]]
        balances = {row["code"]: row["balance_micro"] for row in self.rows("SELECT * FROM ledger_account")}
        for account_id, micro in earned.items():
            have = balances[f"earnings:{account_id}"]
            self.require(have == micro, f"{account_id} has earned {micro} and holds {have}")
        self.require(balances.get("fee", 0) == fees, f"fees are {balances.get('fee')}, not {fees}")
        for account_id, micro in spent.items():
            have = balances[f"wallet:{account_id}"]
            given = self._deposit_micro - micro
            live = any(
                r["account_id"] == account_id for r in self.rows("SELECT * FROM job WHERE ended_ms IS NULL")
            )
            self.require(live or have == given, f"{account_id} should have {given} left and has {have}")
