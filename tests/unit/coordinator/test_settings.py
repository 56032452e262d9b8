"""What the operator sets, and what is said when it can't be."""

import tomllib

import pytest

from coordinator import settings
from coordinator.settings import CONFIG_NAME, TEMPLATE, Settings, SettingsError, load, split_address


def load_toml(tmp_path, text, **overrides):
    (tmp_path / CONFIG_NAME).write_text(text)
    return load(tmp_path, overrides)


def test_without_a_file_the_defaults_count(tmp_path):
    assert load(tmp_path, {}) == Settings(data_dir=tmp_path)


def test_the_command_line_counts_more_than_the_file(tmp_path):
    found = load_toml(tmp_path, "fee_ppm = 1\nbeat_interval_ms = 500", fee_ppm=2, beat_interval_ms=None)
    assert (found.fee_ppm, found.beat_interval_ms) == (2, 500)


def test_the_template_shows_every_setting_with_its_default(tmp_path):
    shown = "\n".join(
        line.removeprefix("#") for line in TEMPLATE.splitlines() if line.startswith("#") and " = " in line
    )
    found = tomllib.loads(shown)
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    examples = {"market_public", "hosts_public", "database", "metrics"}
    defaults = vars(Settings(data_dir=tmp_path))
    assert set(given) == set(defaults) - {"data_dir"}
    assert all(given[name] == defaults[name] for name in set(given) - examples)


def test_the_template_itself_changes_nothing(tmp_path):
    assert load_toml(tmp_path, TEMPLATE) == Settings(data_dir=tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fee_pmm = 1", "line 1: fee_pmm: there is no such setting; did you mean fee_ppm?"),
        ("\n\nfee_ppm = '1'", "line 3: fee_ppm: must be a whole number from 0 to 1000000, not '1'"),
        ("log_json = 1", "line 1: log_json: must be true or false"),
        ("fee_ppm = true", "fee_ppm: must be a whole number"),
        ("fee_ppm = 1000001", "fee_ppm: must be a whole number from 0 to 1000000"),
        ("fee_ppm = -1", "fee_ppm: must be a whole number from 0 to 1000000"),
        ("account_streams_max = 0", "account_streams_max: must be a whole number from 1 to 1000000"),
        ("beat_interval_ms = 499", "beat_interval_ms: must be a whole number from 500 to 60000"),
        ("beat_interval_ms = 60001", "beat_interval_ms: must be a whole number from 500 to 60000"),
        (
            "beat_interval_ms = 1000\nreconnect_window_ms = 2999",
            "line 2: reconnect_window_ms: at least three times",
        ),
        ("market = '7410'", "line 1: market: an address as host:port"),
        ("market = ''", "market: an address as host:port"),
        ("hosts = ':7410'", "hosts: an address as host:port"),
        ("hosts = 'a:b'", "hosts: an address as host:port"),
        ("market = '0.0.0.0:40000'", "market: a port up to 32767"),
        ("market_public = 'example.org'", "market_public: an address as host:port"),
        ("= 1", "not TOML"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, text, words):
    with pytest.raises(SettingsError, match=words):
        load_toml(tmp_path, text)


def test_every_fault_is_told_with_where_it_came_from(tmp_path):
    (tmp_path / CONFIG_NAME).write_text("fee_ppm = 1\nhosts = 'x'\n")
    environment = {"USANCE_COORDINATOR_BEAT_INTERVAL_MS": "soon", "USANCE_COORDINATOR_LOG_JSON": "yes"}
    with pytest.raises(SettingsError) as raised:
        load(tmp_path, {"fee_ppm": -1}, environment)
    path = tmp_path / CONFIG_NAME
    assert sorted(str(raised.value).splitlines()) == [
        "--fee-ppm: must be a whole number from 0 to 1000000, not -1",
        f"{path}: line 2: hosts: an address as host:port, not 'x'",
        "USANCE_COORDINATOR_BEAT_INTERVAL_MS: must be a whole number from 500 to 60000, not 'soon'",
        "USANCE_COORDINATOR_LOG_JSON: must be true or false, not 'yes'",
    ]


def test_the_environment_counts_more_than_the_file_and_less_than_the_command_line(tmp_path):
    (tmp_path / CONFIG_NAME).write_text("fee_ppm = 1\nbeat_interval_ms = 1000\n")
    environment = {
        "USANCE_COORDINATOR_FEE_PPM": "2",
        "USANCE_COORDINATOR_DATABASE": "postgresql+psycopg://a:b@c/d",
        "USANCE_COORDINATOR_LOG_JSON": "true",
        "USANCE_COORDINATOR_DATA_DIR": "/elsewhere",
    }
    found = load(tmp_path, {"beat_interval_ms": 2_000}, environment)
    assert (found.fee_ppm, found.beat_interval_ms, found.log_json) == (2, 2_000, True)
    assert found.database == "postgresql+psycopg://a:b@c/d"
    assert found.data_dir == tmp_path


def test_only_the_usual_folder_has_its_settings_elsewhere(tmp_path, monkeypatch):
    system = tmp_path / "etc.toml"
    system.write_text("fee_ppm = 7\n")
    monkeypatch.setattr(settings, "SYSTEM_CONFIG", system)
    other = tmp_path / "other"
    other.mkdir()
    assert load(other, {}).fee_ppm == Settings(data_dir=other).fee_ppm
    monkeypatch.setattr(settings, "DEFAULT_DATA_DIR", other)
    assert load(other, {}).fee_ppm == 7
    (other / CONFIG_NAME).write_text("fee_ppm = 8\n")
    assert load(other, {}).fee_ppm == 8


PROVIDER = "oidc_issuer = 'https://id.example.org'\noidc_audience = 'usance'\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("oidc_issuer = 'https://id.example.org'", "oidc_audience: whom the tokens of oidc_issuer are for"),
        (PROVIDER.replace("https", "http"), "oidc_issuer: an https address"),
        (PROVIDER + "oidc_jwks_url = 'file:///keys'", "oidc_jwks_url: an https address"),
        (PROVIDER + "oidc_algorithms = 'RS256 HS256'", "oidc_algorithms: of ES256"),
        (PROVIDER + "oidc_algorithms = 'none'", "oidc_algorithms: of ES256"),
        (PROVIDER + "oidc_algorithms = ''", "oidc_algorithms: of ES256"),
        (PROVIDER + "oidc_ca = '/nowhere.pem'", "oidc_ca: there is no file /nowhere.pem"),
        (PROVIDER + "oidc_scope_map = 'staff=jobs:all'", "oidc_scope_map: 'jobs:all' is no scope"),
        (PROVIDER + "oidc_new_accounts = 'operator'", "oidc_new_accounts: buyer, seller or both"),
        (PROVIDER + "oidc_leeway_seconds = 301", "oidc_leeway_seconds"),
        ("password_memory_mib = 0", "password_memory_mib"),
        ("login_wait_seconds_max = 86401", "login_wait_seconds_max"),
        ("session_days = 366", "session_days"),
    ],
)
def test_what_would_let_in_whom_nobody_meant_is_no_setting(tmp_path, text, words):
    with pytest.raises(SettingsError, match=words):
        load_toml(tmp_path, text)
    assert load_toml(tmp_path, PROVIDER).oidc_audience == "usance"


def test_the_database_is_a_file_beside_unless_named(tmp_path):
    assert load(tmp_path, {}).database_url == f"sqlite:///{tmp_path}/usance.db"
    assert load(tmp_path, {"database": "postgresql+psycopg://x"}).database_url == "postgresql+psycopg://x"


def test_an_address_of_ipv6_keeps_its_colons():
    assert split_address("market", "[::1]:7410") == ("[::1]", 7410)
