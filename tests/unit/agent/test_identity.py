"""A machine's identity on its disk, and when its certificate is renewed."""

import json

import pytest

from agent.domain.certificate import HOUR_MS, MINUTE_MS, PPM, renew_at_ms, retry_ms
from agent.link.identity import Identity, load, save

DAY_MS = 24 * HOUR_MS
WHO = Identity(
    host_id="host_1",
    hosts="here:1",
    authority_pem=b"authority\n",
    certificate_pem=b"certificate\n",
    key_pem=b"key\n",
    begins_ms=5,
    ends_ms=9,
)


@pytest.mark.parametrize("chance_ppm", [0, 1, PPM // 2, PPM])
def test_a_certificate_is_renewed_between_a_half_and_two_thirds_of_its_life(chance_ppm):
    at_ms = renew_at_ms(1_000, 1_000 + 7 * DAY_MS, chance_ppm)
    assert 1_000 + 7 * DAY_MS // 2 <= at_ms <= 1_000 + 14 * DAY_MS // 3


def test_not_all_renew_at_the_same_moment():
    assert renew_at_ms(0, 7 * DAY_MS, PPM) - renew_at_ms(0, 7 * DAY_MS, 0) > DAY_MS


@pytest.mark.parametrize("left_ms", [-DAY_MS, 0, HOUR_MS, DAY_MS, 90 * DAY_MS])
@pytest.mark.parametrize("chance_ppm", [0, PPM])
def test_what_failed_is_tried_again_often_but_not_in_a_hurry(left_ms, chance_ppm):
    wait_ms = retry_ms(left_ms, chance_ppm)
    assert MINUTE_MS // 2 <= wait_ms <= max(left_ms // 10, MINUTE_MS)
    assert wait_ms <= 6 * HOUR_MS


def test_an_identity_is_one_file_that_only_its_owner_reads(tmp_path):
    assert load(tmp_path) is None
    save(tmp_path, WHO)
    assert load(tmp_path) == WHO
    assert [path.name for path in tmp_path.iterdir()] == ["identity.json"]
    assert (tmp_path / "identity.json").stat().st_mode & 0o777 == 0o600
    assert "key" not in repr(WHO).replace("key_pem", "")


def test_an_identity_of_before_is_found_in_its_files(tmp_path):
    (tmp_path / "identity.json").write_text(json.dumps({"host_id": "host_1", "hosts": "here:1"}))
    for name, content in (("authority", b"authority\n"), ("cert", b"certificate\n"), ("key", b"key\n")):
        (tmp_path / f"{name}.pem").write_bytes(content)
    found = load(tmp_path)
    assert found is not None
    assert (found.key_pem, found.certificate_pem, found.ends_ms) == (b"key\n", b"certificate\n", 0)
