"""The agent's small pure parts: tokens, settings, image references, pull progress, GPU tallies, prices."""

import base64
import json
from itertools import chain
from pathlib import Path

import pytest

from agent import settings
from agent.domain import pull, token
from agent.domain.attempt import EndReason, Isolation, Network
from agent.domain.gpu import GpuInfo, GpuSample, GpuTally
from agent.domain.host import Hello, HostFacts, Terms, prices_of
from agent.domain.hours import SaleWindow
from agent.link.convert import hello_request
from agent.settings import ExecutorKind, Settings, SettingsError
from usance.v1 import types_pb2


def make_token(**fields: object) -> str:
    encoded = base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")
    return token.PREFIX + encoded


WHOLE = {"market": "m:1", "hosts": "h:2", "authority": "PEM", "secret": "s3cret"}


class TestToken:
    def test_a_whole_one(self):
        found = token.parse(make_token(**WHOLE) + "\n")
        assert (found.market, found.hosts, found.authority_pem, found.secret) == (
            "m:1",
            "h:2",
            "PEM",
            "s3cret",
        )

    def test_its_secret_is_not_shown(self):
        assert "s3cret" not in repr(token.parse(make_token(**WHOLE)))

    @pytest.mark.parametrize(
        ("text", "word"),
        [
            ("", "begins with"),
            ("usance_market_abc", "begins with"),
            (token.PREFIX + "%%%", "damaged"),
            (token.PREFIX + "abc", "damaged"),
            (make_token(**WHOLE)[:-20], "damaged"),
            (token.PREFIX + base64.urlsafe_b64encode(b"[]").decode(), "something else"),
            (make_token(**{**WHOLE, "secret": ""}), "lacks secret"),
            (make_token(market="m:1"), "lacks hosts, authority, secret"),
            (make_token(**{**WHOLE, "hosts": 5}), "lacks hosts"),
        ],
    )
    def test_a_bad_one_is_named_and_not_repeated(self, text, word):
        with pytest.raises(token.TokenError, match=word) as caught:
            token.parse(text)
        assert "s3cret" not in str(caught.value)


class TestSettings:
    def test_defaults(self):
        assert settings.parse("") == Settings()

    def test_everything(self):
        found = settings.parse(
            'state_dir = "/srv/u"\nexecutor = "process"\nallow_process_executor = true\n'
            'trusted_accounts = ["ann"]\nregion = "eu-1"\nrun_seconds_max = 60\nrecord_seconds = 5\n'
            'reclaim_notice_seconds = 300\nhours = ["sun 23:00-01:00"]\nimages_allowed = ["team/*"]\n'
            'images_denied = ["team/bad"]\ndownload_mbps = 900\nupload_mbps = 40\n'
            "disk_reserve_gb = 3\nimage_gb_max = 7\nlocal_images = true\n"
            'network = "allow_list"\nnetwork_destinations = ["example.org:443"]\n'
            'network_pool = "10.9.0.0/20"\ndns_servers = ["8.8.8.8"]\n'
            '[labels]\nrack = "b7"\n"net.gbit" = "10"\n'
            '[prices]\n"RTX" = "0.5"\n"*" = 2\n[simulated_gpus]\ncount = 2\nmodel = "SIMULATED X"\n'
        )
        assert found.state_dir == Path("/srv/u")
        assert found.executor is ExecutorKind.PROCESS
        assert found.reclaim_notice_seconds == 300
        assert found.hours == (SaleWindow(start_minute=6 * 1_440 + 1_380, end_minute=60),)
        assert (found.images_allowed, found.images_denied) == (("team/*",), ("team/bad",))
        assert (found.download_mbps, found.upload_mbps) == (900, 40)
        assert found.labels == {"rack": "b7", "net.gbit": "10"}
        assert (found.network, found.network_destinations) == (Network.ALLOW_LIST, ("example.org:443",))
        assert (found.disk_reserve_gb, found.image_gb_max, found.local_images) == (3, 7, True)
        assert (str(found.network_pool), found.dns_servers) == ("10.9.0.0/20", ("8.8.8.8",))
        assert found.prices_micro == {"RTX": 500_000, "*": 2_000_000}
        assert (found.simulated_gpus.count, found.simulated_gpus.model) == (2, "SIMULATED X")
        settings.check(found)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("executor = ", ["not TOML"]),
            ('executor = "podman"', ["executor", "docker"]),
            ("record_seconds = 61", ["record_seconds", "from 1 to 60"]),
            ("record_seconds = true", ["record_seconds"]),
            ('state_dir = "here"', ["state_dir", "absolute"]),
            ('docker_host = "tcp://1.2.3.4"', ["docker_host", "unix"]),
            ('region = "EU"', ["region", "a-z"]),
            ('trusted_accounts = "ann"', ["trusted_accounts", "list"]),
            ("colour = 1\nsize = 2", ["colour: there is no such setting", "size: there is no such setting"]),
            ("simulated_gpus = 4", ["simulated_gpus", "table"]),
            ("reclaim_notice_seconds = 86401", ["reclaim_notice_seconds", "from 0 to 86400"]),
            ('hours = ["mon 9-5"]', ["hours", "'mon 9-5' is not like"]),
            (f"hours = {['00:00-01:00'] * 10}", ["hours", "at most 64 stretches, not 70"]),
            ('images_allowed = ["a b"]', ["images_allowed", "'a b'"]),
            (f"images_denied = {['a'] * 33}", ["images_denied", "at most 32"]),
            ("upload_mbps = -1", ["upload_mbps", "from 0"]),
            ('network = "lan"', ["network", "allow_list, internet"]),
            ('network_destinations = ["a:b"]', ["network_destinations", "with or without a port"]),
            ('network_pool = "10.0.0.0/29"', ["network_pool", "at least a /28"]),
            ('network_pool = "93.184.215.0/24"', ["network_pool", "private"]),
            ('network_pool = "10.0.0.1/16"', ["network_pool", "must be a network"]),
            ('dns_servers = ["192.168.1.1"]', ["dns_servers", "public"]),
            ('dns_servers = ["example.org"]', ["dns_servers", "public"]),
            ('labels = ["a"]', ["labels", "table"]),
            ('[labels]\nRack = "b7"', ['labels."Rack"', "a-z"]),
            ("[labels]\nrack = 7", ['labels."rack"', "in quotes"]),
            (f'[labels]\nrack = "{129 * "x"}"', ['labels."rack"', "at most 128 bytes"]),
            ('[labels]\nrack = "a\\tb"', ['labels."rack"', "printable"]),
            ("[labels]\n" + "".join(f'n{n} = ""\n' for n in range(33)), ["labels", "at most 32"]),
            ("[simulated_gpus]\ncount = 65", ["simulated_gpus.count", "from 0 to 64"]),
            ('[simulated_gpus]\nmodel = "Any GPU"', ["simulated_gpus.model", "SIMULATED"]),
            ('[prices]\n"*" = 0.5', ["prices", "in quotes"]),
            ('[prices]\n"*" = "0"', ["prices", "above 0"]),
            ('[prices]\n"*" = "0.0000001"', ["six decimals"]),
            ('[prices]\n"*" = "NaN"', ["prices"]),
            ('[prices]\n"*" = "-1"', ["prices"]),
        ],
    )
    def test_every_fault_is_named_with_what_would_be_right(self, text, words):
        with pytest.raises(SettingsError) as caught:
            settings.parse(text)
        assert [word for word in words if word not in str(caught.value)] == []

    def test_all_faults_at_once_and_the_files_name(self, tmp_path):
        path = tmp_path / "agent.toml"
        path.write_text(
            '# mine\nexecutor = "podman"\nrecord_second = 0\n[prices]\n"A B" = 0.5\n[labels]\nX = ""\n'
        )
        with pytest.raises(SettingsError) as caught:
            settings.load(path)
        assert [line.split(": ")[:3] for line in str(caught.value).splitlines()] == [
            [str(path), "line 2", "executor"],
            [str(path), "line 7", 'labels."X"'],
            [str(path), "line 5", 'prices."A B"'],
            [str(path), "line 3", "record_second"],
        ]
        assert "did you mean record_seconds?" in str(caught.value)

    def test_a_file_that_is_not_there_is_named(self, tmp_path):
        with pytest.raises(SettingsError, match=r"none\.toml can't be read"):
            settings.load(tmp_path / "none.toml")

    def test_no_isolation_must_be_allowed_in_so_many_words(self):
        with pytest.raises(SettingsError, match="allow_process_executor"):
            settings.check(settings.parse('executor = "process"\n[prices]\n"*" = "1"'))

    def test_something_must_be_for_sale(self):
        with pytest.raises(SettingsError, match="no price"):
            settings.check(settings.parse(""))


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("tiny", ("tiny", "latest")),
        ("tiny:1", ("tiny", "1")),
        ("host:5000/a/tiny", ("host:5000/a/tiny", "latest")),
        ("host:5000/a/tiny:2", ("host:5000/a/tiny", "2")),
        ("host:5000/tiny@sha256:abc", ("host:5000/tiny", "sha256:abc")),
    ],
)
def test_references_fall_apart_rightly(image, parts):
    assert pull.split_reference(image) == parts


def test_progress_adds_up_layers():
    progress = pull.PullProgress()
    lines: list[dict[str, object]] = [
        {"status": "Pulling from a", "id": "1"},
        {"status": "Pulling fs layer", "id": "x", "progressDetail": {}},
        {"status": "Already exists", "id": "z", "progressDetail": {}},
        {"status": "Downloading", "id": "x", "progressDetail": {"current": 2_000_000, "total": 10_000_000}},
        {"status": "Downloading", "id": "y", "progressDetail": {"current": 1_000_000, "total": 5_000_000}},
        {"status": "Download complete", "id": "x", "progressDetail": {}},
        {"status": "Extracting", "id": "x", "progressDetail": {"current": 1, "total": 10_000_000}},
        {"status": "Pull complete", "id": "x", "progressDetail": {}},
    ]
    told = [progress.add(pull.event_of(line), 500 * number) for number, line in enumerate(lines)]
    assert told == [
        "pulling image",
        "pulling image, 0 of 1 layers",
        "pulling image, 1 of 2 layers",
        "pulling image, 2 of 10 MB, 1 of 2 layers",
        "pulling image, 3 of 15 MB, 6 MB/s, 1 of 2 layers",
        "pulling image, 11 of 15 MB, 11 MB/s, 1 of 2 layers",
        "pulling image, 11 of 15 MB, 7 MB/s, 1 of 2 layers",
        "pulling image, 11 of 15 MB, 5 MB/s, 2 of 2 layers",
    ]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("manifest for x:nope not found: manifest unknown", EndReason.IMAGE_UNAVAILABLE),
        ("pull access denied for x", EndReason.IMAGE_UNAVAILABLE),
        ("invalid reference format", EndReason.IMAGE_UNAVAILABLE),
        ("write /var/lib/x: no space left on device", EndReason.START_FAILED),
        ("dial tcp: connection refused", EndReason.START_FAILED),
    ],
)
def test_whose_fault_a_missing_image_is(message, reason):
    assert pull.why_no_image(message) is reason


def sample(uuid: str, percent: int | None = None, memory: int | None = None, energy: int | None = None):
    return GpuSample(uuid=uuid, utilization_percent=percent, memory_used_bytes=memory, energy_mj_total=energy)


class TestTally:
    def test_mean_peak_and_growth(self):
        tally = GpuTally(["b", "a"])
        tally.add([sample("a", 10, 5, 100), sample("b", 1), sample("stranger", 99)])
        tally.add([sample("a", 21, 9, 150), sample("b", 2)])
        second, first = tally.take()
        assert (first.gpu_uuid, first.utilization_percent, first.memory_used_bytes, first.energy_mj) == (
            *("a", 16, 9, 50),
        )
        assert (second.gpu_uuid, second.utilization_percent, second.energy_mj) == ("b", 2, None)

    def test_energy_is_counted_across_records_and_nothing_else_is(self):
        tally = GpuTally(["a"])
        tally.add([sample("a", 80, 7, 100)])
        assert tally.take()[0].energy_mj is None
        tally.add([sample("a", 20, 3, 160)])
        (use,) = tally.take()
        assert (use.utilization_percent, use.memory_used_bytes, use.energy_mj) == (20, 3, 60)
        (nothing,) = tally.take()
        assert (nothing.utilization_percent, nothing.memory_used_bytes, nothing.energy_mj) == (
            None,
            None,
            None,
        )

    def test_a_counter_that_began_anew_tells_nothing(self):
        tally = GpuTally(["a"])
        tally.add(chain([sample("a", energy=100)], [sample("a", energy=5)]))
        assert tally.take()[0].energy_mj is None


def test_what_has_no_price_is_not_for_sale():
    gpus = [
        GpuInfo(uuid=model, model=model, vram_bytes=1, simulated=False, compute_capability="")
        for model in ("x", "y", "y")
    ]
    assert prices_of(gpus, {"x": 1}) == {"x": 1}
    assert prices_of(gpus, {"x": 1, "*": 2, "z": 3}) == {"x": 1, "y": 2}
    # One that its seller took out of the market does not come back by the price of all the others.
    assert prices_of(gpus, {"x": 0, "*": 2}) == {"y": 2}


def test_all_that_the_seller_says_reaches_the_coordinator():
    facts = HostFacts(
        hostname="here",
        cpu_count=4,
        memory_bytes=5,
        disk_free_bytes=6,
        gpus=(),
        isolation=Isolation.PROCESS,
        executor="a fake",
        driver_version="550.54.15",
        cuda_version="12.4",
        region="eu-1",
        labels={"rack": "b7"},
        download_bps=5,
    )
    terms = Terms(
        gpu_hour_prices_micro={"RTX": 7},
        run_ms_max=8,
        trusted_accounts=("ann",),
        reclaim_notice_ms=9,
        network_max=Network.ALLOW_LIST,
        network_destinations=("example.org",),
        hours=(SaleWindow(start_minute=1, end_minute=2),),
        images_allowed=("a",),
        images_denied=("b",),
    )
    sent = hello_request(Hello(agent_version="1", boot_id="b", facts=facts, terms=terms)).hello
    assert (sent.facts.driver_version, sent.facts.cuda_version) == ("550.54.15", "12.4")
    assert (sent.facts.region, dict(sent.facts.labels)) == ("eu-1", {"rack": "b7"})
    assert (sent.terms.run_ms_max, sent.terms.reclaim_notice_ms) == (8, 9)
    assert [(price.model, price.gpu_hour_price_micro) for price in sent.terms.prices] == [("RTX", 7)]
    assert list(sent.terms.trusted_accounts) == ["ann"]
    assert (sent.facts.download_bps, sent.facts.HasField("upload_bps")) == (5, False)
    assert [(window.start_minute, window.end_minute) for window in sent.terms.hours] == [(1, 2)]
    assert (list(sent.terms.images_allowed), list(sent.terms.images_denied)) == (["a"], ["b"])
    assert sent.terms.network_max == types_pb2.NETWORK_ALLOW_LIST
    assert list(sent.terms.network_destinations) == ["example.org"]
