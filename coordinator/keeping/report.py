"""What was kept, what came back, and what nobody can know any more: told to the operator."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

from coordinator.keeping.backup import Made
from coordinator.keeping.restore import Came
from coordinator.services.restoration import Aftermath

VIOLATIONS_SHOWN = 20


def of_backup(made: Made) -> str:
    manifest = made.manifest
    size = sum(part.bytes for part in manifest.parts.values())
    keys = (
        f"{made.keys_file}: the keys that prove who this coordinator is and open jobs' secrets;"
        " keep it elsewhere"
        if made.keys_file
        else "the keys were left out: without them every machine has to be enrolled anew"
    )
    return "\n".join(
        [
            f"{made.file}: {size:,} bytes, as of {moment(manifest.made_ms)}, schema {manifest.revision}",
            f"  checked: integrity, {manifest.transfers:,} transfers, {len(made.violations)} violations",
            f"  ledger: {manifest.transfers:,} transfers, hash {manifest.head or 'of nothing'}",
            keys,
            *_violations(made.violations),
        ]
    )


def of_restore(came: Came, data_dir: Path) -> str:
    made, running = came.restored, came.restored.attempts
    lines = [
        "Restored "
        + (
            "by other means; marked as such."
            if came.manifest is None
            else f"from a backup of {moment(came.manifest.made_ms)} by usance {came.manifest.program}"
            f" (schema {came.manifest.revision}, now {came.revision})."
        ),
        f"checked: {made.transfer_seq:,} transfers, {len(came.violations)} violations",
        *_violations(came.violations),
        f"It knows what happened up to {moment(made.known_ms)}. Of the {made.unknown_ms // 1000:,} s since"
        " then it knows nothing:",
        f"  jobs    {made.jobs} had not ended: {running} had a host, and go on where it still has them;"
        f" {came.jobs_waiting} waited, and will run, whether or not they have",
        f"  hosts   {came.hosts} are known; a machine that was enrolled since has to be enrolled anew",
        f"  people  {came.accounts} accounts; sessions are over, and tokens made since are not known; "
        + (
            f"{came.tokens_revoked} of before were revoked, and {data_dir / 'operator.token'} is a new one"
            if came.tokens_revoked
            else "those revoked since are good again (--revoke-tokens ends all)"
        ),
        "  trust   a host that was revoked since is let in again: usance admin revoke-host",
        "  money   what was paid in or out since is not in the books; a request that is repeated under its"
        " request id is done once",
        f"  ledger  goes on after transfer {made.transfer_seq}, seal {made.seal_hash.hex() or 'none'};"
        " seals of later transfers that somebody kept are of a history that is gone",
        f"  events  go on at {made.event_number + made.events_left_out + 1}",
    ]
    if came.kept:
        lines.append(f"Left as they were: {', '.join(came.kept)}")
    if came.put_aside is not None:
        lines.append(f"The database that was there: {came.put_aside}")
    lines.append("Start the coordinator; `usance-coordinator audit` says what becomes of them.")
    return "\n".join(lines)


def of_aftermath(all_of: Sequence[Aftermath]) -> list[str]:
    """After an audit."""
    lines = []
    for found in all_of:
        made = found.restored
        lines += [
            f"restored {moment(made.restored_ms)} ({made.number}): knows nothing of the"
            f" {made.unknown_ms // 1000:,} s from {moment(made.known_ms)} on",
            f"  of {made.attempts} attempts that were live: {found.went_on} went on,"
            f" {found.ended_unknown} ended nobody knows how, {found.awaited} not heard of yet;"
            f" {_seconds(found.unbilled_ms)} of them recorded but not witnessed, and unbilled",
            f"  {len(found.strangers)} that hosts held and nobody knew were told to end:"
            f" {_seconds(found.stranger_ms)} unbilled"
            + "".join(
                f"\n    {one.attempt_id} of {one.host_id}: {_seconds(one.run_ms)}" for one in found.strangers
            ),
        ]
    return lines


def moment(time_ms: int) -> str:
    if not time_ms:
        return "the beginning"
    return f"{dt.datetime.fromtimestamp(time_ms / 1_000, dt.UTC):%Y-%m-%d %H:%M:%S}Z"


def _seconds(time_ms: int) -> str:
    return f"{time_ms // 1000}.{time_ms % 1000:03} s"


def _violations(found: Sequence[str]) -> list[str]:
    more = len(found) - VIOLATIONS_SHOWN
    return [
        *(f"VIOLATED: {one}" for one in found[:VIOLATIONS_SHOWN]),
        *([f"and {more} more"] if more > 0 else []),
    ]
