"""Saved bills come back as they were, and what is none is told where."""

import json
from dataclasses import replace

import pytest

from cli.model import BillRefund, EndReason
from cli.render import document
from cli.saved import read_bill
from tests.unit.cli.test_verify import _WHOLE, _credited


def bill():
    plain = _credited(_WHOLE)
    refund = BillRefund(transfer_id="t", amount_micro=1, reason="kind", refunded_at_ms=1)
    attempt = replace(plain.attempts[0], end_reason=EndReason.HOST_LOST)
    return replace(plain, refunds=(refund,), refunded_micro=1, attempts=(attempt,))


def test_a_bill_comes_back_as_it_was():
    assert read_bill(document(bill=bill(), verdict=None)) == bill()


def test_what_a_newer_version_adds_is_passed_over():
    content = json.loads(document(bill=bill()))
    content["bill"]["colour"] = "red"
    for unknown in ("STRUCK_BY_LIGHTNING", 5):
        content["bill"]["attempts"][0]["end_reason"] = unknown
        assert read_bill(json.dumps(content)).attempts[0].end_reason is EndReason.UNSPECIFIED


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("charged_micro",), "5", "bill.charged_micro is no int"),
        (("charged_micro",), True, "bill.charged_micro is no int"),
        (("charged_micro",), 2**64, "bill.charged_micro is no int"),
        (("final",), 1, "bill.final is no bool"),
        (("attempts",), {}, "bill.attempts is no list"),
        (("attempts", 0), 5, "bill.attempts[0] is no object"),
        (("attempts", 0, "lines", 0, "record", "digest"), "zz", "digest is not hexadecimal"),
        (("attempts", 0, "lines", 0, "record", "gpus"), [None], "gpus[0] is no object"),
    ],
)
def test_what_is_no_bill_is_told_where(path, value, sentence):
    content = json.loads(document(bill=bill()))
    place = content["bill"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=sentence.replace("[", r"\[").replace(".", r"\.")):
        read_bill(json.dumps(content))
