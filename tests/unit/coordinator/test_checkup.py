"""What is wrong with a coordinator is found, and its remedy is named."""

from dataclasses import replace

import pytest

from coordinator.domain.checkup import (
    AuthorityFacts,
    DatabaseFacts,
    DoorFacts,
    Facts,
    MachineFacts,
    SecretFacts,
    examine,
)
from runtime.findings import Verdict, worst

GOOD, DOUBT, BAD = Verdict.GOOD, Verdict.DOUBT, Verdict.BAD
DOOR = DoorFacts(name="hosts", address="0.0.0.0:7411", public="market.example.org:7411")
DATABASE = DatabaseFacts(url="sqlite:////d/usance.db", revision="0010", wanted="0010")
MACHINE = MachineFacts(folder="/d", folder_mode=0o700, free_bytes=100 << 30, clock_synchronized=True)
WELL = Facts(
    settings_path="/d/coordinator.toml",
    metrics="127.0.0.1:7412",
    machine=MACHINE,
    secrets=(SecretFacts(name="/d/ca.key", mode=0o600),),
    authority=AuthorityFacts(days_left=3_000),
    database=DATABASE,
    holder="process 7",
    doors=(replace(DOOR, name="market"), DOOR),
    backup_hours=3,
)
CASES = {
    "settings": (replace(WELL, settings_error="a\nb"), BAD, "a; b", "mend the lines"),
    "folder": (replace(WELL, machine=replace(MACHINE, folder_mode=0o755)), BAD, "others", "chmod 700 /d"),
    "disk": (replace(WELL, machine=replace(MACHINE, free_bytes=1 << 20)), BAD, "1 MiB", "free at least"),
    "clock": (replace(WELL, machine=replace(MACHINE, clock_synchronized=False)), DOUBT, "nothing", "ntp"),
    "none": (replace(WELL, authority=None), BAD, "none was made in /d", "usance-coordinator init"),
    "key gone": (replace(WELL, secrets=(SecretFacts(name="k", mode=None),)), BAD, "not there", "restore"),
    "key open": (replace(WELL, secrets=(SecretFacts(name="k", mode=0o640),)), BAD, "others", "chmod 600 k"),
    "authority": (replace(WELL, authority=AuthorityFacts(error="odd")), BAD, "odd", "restore ca.pem"),
    "over": (replace(WELL, authority=AuthorityFacts(days_left=-1)), BAD, "over", "rotate-ca begin"),
    "late": (replace(WELL, authority=AuthorityFacts(days_left=89)), DOUBT, "89 days", "rotate-ca begin"),
    "rotating": (
        replace(WELL, authority=AuthorityFacts(days_left=9, is_rotating=True)),
        DOUBT,
        "both are trusted",
        "rotate-ca finish",
    ),
    "database": (replace(WELL, database=replace(DATABASE, error="refused")), BAD, "refused", "does it run"),
    "empty": (replace(WELL, database=replace(DATABASE, revision=None)), BAD, "is empty", "restore"),
    "older": (replace(WELL, database=replace(DATABASE, revision="0009")), DOUBT, "0009", "migrates it"),
    "newer": (
        replace(WELL, database=replace(DATABASE, revision="0099", is_known=False)),
        BAD,
        "newer than this program's",
        "install the version that made it",
    ),
    "backup": (replace(WELL, backup_hours=27), DOUBT, "27 hours", "usance-coordinator backup"),
    "nobody": (replace(WELL, holder=""), DOUBT, "none runs", "systemctl start"),
    "silent": (replace(WELL, doors=(replace(DOOR, error="no answer"),)), BAD, "no answer", "log"),
    "taken": (replace(WELL, holder="", doors=(replace(DOOR, error="in use"),)), BAD, "in use", "end what"),
    "nameless": (replace(WELL, doors=(replace(DOOR, public=""),)), BAD, "told to connect", "hosts_public ="),
    "loopback": (
        replace(WELL, doors=(replace(DOOR, address="127.0.0.1:7411", public=""),)),
        DOUBT,
        "nobody but this machine",
        'hosts = "0.0.0.0:PORT"',
    ),
    "figures": (replace(WELL, metrics="10.0.0.1:9"), DOUBT, "whoever reaches", "packet filter"),
}


def test_a_coordinator_that_is_well_has_nothing_but_good_checks():
    findings = examine(WELL)
    assert worst(findings) is GOOD
    assert not any(one.remedy for one in findings)
    assert len({one.check for one in findings}) == len(findings) == 11


def test_what_nobody_could_tell_is_no_finding():
    unknown = MachineFacts(folder="/d")
    facts = replace(WELL, machine=unknown, backup_hours=None, metrics="")
    assert {one.check for one in examine(WELL)} - {one.check for one in examine(facts)} == {
        "disk",
        "clock",
        "backup",
        "figures",
    }


@pytest.mark.parametrize("name", CASES)
def test_one_thing_that_is_wrong_is_found_by_itself(name):
    facts, verdict, words, remedy = CASES[name]
    findings = examine(facts)
    assert worst(findings) is verdict
    (told,) = [one for one in findings if one.verdict is verdict]
    assert words in told.found
    assert remedy in told.remedy
