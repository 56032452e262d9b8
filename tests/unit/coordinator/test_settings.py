"""What the operator sets, and what is said when it can't be."""

import tomllib

import pytest

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
    given = tomllib.loads(shown)
    examples = {"market_public", "hosts_public", "database", "metrics"}
    defaults = vars(Settings(data_dir=tmp_path))
    assert set(given) == set(defaults) - {"data_dir"}
    assert all(given[name] == defaults[name] for name in set(given) - examples)


def test_the_template_itself_changes_nothing(tmp_path):
    assert load_toml(tmp_path, TEMPLATE) == Settings(data_dir=tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fee_pmm = 1", "there is no setting 'fee_pmm'"),
        ("fee_ppm = '1'", "fee_ppm must be a whole number"),
        ("log_json = 1", "log_json must be true or false"),
        ("fee_ppm = true", "fee_ppm must be a whole number"),
        ("fee_ppm = 1000001", "fee_ppm: between 0 and 1000000"),
        ("fee_ppm = -1", "fee_ppm: between 0 and 1000000"),
        ("beat_interval_ms = 499", "beat_interval_ms: between 500 and 60000"),
        ("beat_interval_ms = 60001", "beat_interval_ms: between 500 and 60000"),
        ("beat_interval_ms = 1000\nreconnect_window_ms = 2999", "reconnect_window_ms: at least three times"),
        ("market = '7410'", "market: an address as host:port"),
        ("hosts = ':7410'", "hosts: an address as host:port"),
        ("hosts = 'a:b'", "hosts: an address as host:port"),
        ("market = '0.0.0.0:40000'", "market: a port up to 32767"),
        ("market_public = 'example.org'", "market_public: an address as host:port"),
        ("= 1", "coordinator.toml"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, text, words):
    with pytest.raises(SettingsError, match=words):
        load_toml(tmp_path, text)


def test_the_database_is_a_file_beside_unless_named(tmp_path):
    assert load(tmp_path, {}).database_url == f"sqlite:///{tmp_path}/usance.db"
    assert load(tmp_path, {"database": "postgresql+psycopg://x"}).database_url == "postgresql+psycopg://x"


def test_an_address_of_ipv6_keeps_its_colons():
    assert split_address("market", "[::1]:7410") == ("[::1]", 7410)
