"""The client's choices are the contract's."""

import pytest

from cli import books, model
from usance.v1 import books_pb2, market_pb2, types_pb2


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (model.RefusalCode, types_pb2.RefusalCode, "REFUSAL_CODE_"),
        (model.Isolation, types_pb2.Isolation, "ISOLATION_"),
        (model.Cause, types_pb2.Cause, "CAUSE_"),
        (model.JobState, types_pb2.JobState, "JOB_STATE_"),
        (model.AttemptState, types_pb2.AttemptState, "ATTEMPT_STATE_"),
        (model.EndReason, types_pb2.EndReason, "END_REASON_"),
        (model.HostState, types_pb2.HostState, "HOST_STATE_"),
        (model.Role, types_pb2.Role, "ROLE_"),
        (model.EventKind, market_pb2.EventKind, "EVENT_KIND_"),
        (books.Purse, books_pb2.Purse, "PURSE_"),
        (model.LogStream, types_pb2.LogStream, "LOG_STREAM_"),
    ],
)
def test_choices_are_equal(ours, theirs, prefix):
    assert [f"{prefix}{choice}" for choice in ours] == list(theirs.keys())
