"""What a running agent takes over from changed settings, and what it says to systemd and at its window."""

import asyncio
import socket
from dataclasses import fields, replace

import pytest

from agent import desk, prices, window
from agent.domain.gpu import GpuInfo
from agent.domain.health import HEALTHY, Condition, GpuHealth
from agent.domain.host import is_offered, kept_back
from agent.gpu import power
from agent.reload import SAID, Current
from agent.settings import Settings, SettingsError
from runtime import notify

BEFORE = Settings(region="here", record_seconds=10)
LOST = GpuHealth(condition=Condition.LOST, reason="gone")


def current(after: Settings) -> tuple[Current, list[str]]:
    told: list[str] = []
    made = Current(BEFORE, lambda: after)
    made.tell(lambda: told.append("changed"))
    made.read_again()
    return made, told


def test_what_is_only_said_is_said_anew():
    made, told = current(replace(BEFORE, region="there", prices_micro={"*": 1}))
    assert (made.settings.region, made.settings.prices_micro, told) == ("there", {"*": 1}, ["changed"])


def test_what_is_built_in_waits_for_a_start(caplog):
    made, told = current(replace(BEFORE, record_seconds=5))
    assert (made.settings, told) == (BEFORE, [])
    assert "record_seconds: only from the next start on" in caplog.text


def test_wrong_settings_change_nothing(caplog):
    def wrong() -> Settings:
        raise SettingsError("line 3: region: no")

    made = Current(BEFORE, wrong)
    made.read_again()
    assert made.settings == BEFORE
    assert "line 3: region: no" in caplog.text


def test_everything_that_may_change_is_a_setting():
    assert {field.name for field in fields(Settings)} >= SAID


def test_prices_of_the_machine_win_and_nought_is_not_for_sale(tmp_path):
    assert prices.load(tmp_path) == {}
    prices.save(tmp_path, {"A": 7, "B": 0})
    assert prices.over({"*": 1, "B": 2}, prices.load(tmp_path)) == {"*": 1, "A": 7, "B": 0}


def test_a_price_is_shown_as_it_holds(tmp_path):
    prices.save(tmp_path, {"A": 700_000, "B": 0})
    settings = Settings(state_dir=tmp_path, prices_micro={"*": 500_000, "A": 700_000, "B": 0})
    told = {model: desk.price_line(settings, model) for model in ("A", "B", "C")}
    assert told["A"] == "0.70 an hour  A"
    assert told["B"].startswith('not for sale  B; for 0.45 an hour it would be by: usance-agent price "B"')
    assert told["C"] == "0.50 an hour  C, as every model not named"
    assert desk.price_lines(settings) == [
        "0.50 an hour  *  (settings)",
        "0.70 an hour  A",
        "not for sale  B",
    ]


def test_a_gpu_that_was_not_chosen_gets_no_new_job():
    whole = GpuInfo(uuid="GPU-1", model="m", vram_bytes=1, simulated=False, compute_capability="")
    part = replace(whole, uuid="MIG-1", board_uuid="GPU-1")
    assert [is_offered(gpu, ()) for gpu in (whole, part)] == [True, True]
    assert [is_offered(gpu, ("GPU-1",)) for gpu in (whole, part)] == [True, True]
    assert [is_offered(gpu, ("MIG-1",)) for gpu in (whole, part)] == [False, True]
    assert kept_back(HEALTHY, offered=True) == HEALTHY
    assert kept_back(HEALTHY, offered=False).condition is Condition.DEGRADED
    assert kept_back(LOST, offered=False) == LOST


def test_systemd_is_told_where_it_listens(tmp_path, monkeypatch):
    notify.tell("READY=1")  # nobody listens: nothing happens
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0usance-test-notify")
        monkeypatch.setenv("NOTIFY_SOCKET", "@usance-test-notify")
        notify.tell("READY=1", "STATUS=well")
        assert systemd.recv(100) == b"READY=1\nSTATUS=well"
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify.tell("WATCHDOG=1")


@pytest.mark.parametrize(
    ("usec", "pid", "expected"), [("60000000", "", 60_000), ("", "", None), ("60000000", "1", None)]
)
def test_the_watchdog_is_minded_where_it_is_ours(monkeypatch, usec, pid, expected):
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    assert notify.watchdog_ms() == expected


def test_a_window_that_nobody_keeps_shows_nothing(tmp_path):
    assert window.ask(tmp_path) is None


def test_a_power_cap_is_asked_of_the_drivers_own_program(tmp_path, monkeypatch, caplog):
    program = tmp_path / "nvidia-smi"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ntest "$2" != GPU-2 || {{ echo no; exit 1; }}\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(power, "PROGRAM", str(program))
    asyncio.run(power.cap(["GPU-1", "GPU-2"], 250))
    assert (tmp_path / "asked").read_text() == "-i GPU-1 -pl 250\n-i GPU-2 -pl 250\n"
    assert "GPU GPU-2 is not held to 250 W: no" in caplog.text
