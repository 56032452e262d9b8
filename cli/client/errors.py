"""What a failed call means: the market's refusal, or a fault on the way that another try may mend."""

import grpc
import grpc.aio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from cli.errors import Broken, FieldFault, Refused, Unreachable, UsanceError
from cli.model import RefusalCode

_DOMAIN = "usance"
_CODES = {code.value: code for code in RefusalCode}

# Not in this set is what another try can't change. INTERNAL, UNKNOWN and CANCELLED without a refusal of
# ours are gRPC's own words for a connection that broke.
_TRANSPORT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
    }
)

# What time alone may change.
_PASSING = frozenset({RefusalCode.UNAVAILABLE, RefusalCode.RATE_LIMITED})

# A handshake that TLS itself refused, not one that was cut; and an authority that is no certificate.
_UNTRUSTED = ("SSL_ERROR_SSL", "security handshaker")


def explain(error: grpc.aio.AioRpcError, target: str) -> tuple[UsanceError, bool]:
    """The error as ours, and whether the call may be tried again."""
    refused = _refusal(error)
    if refused is not None:
        return refused, refused.refusal in _PASSING
    details = error.details() or error.code().name
    if any(mark in details for mark in _UNTRUSTED):
        return Unreachable(
            f"{target} did not prove to be the coordinator: its certificate is not from the authority in "
            "--ca, or it does not speak TLS"
        ), False
    sentence = details.splitlines()[0].rpartition("last error: UNKNOWN: ")[2]
    if error.code() in _TRANSPORT:
        return Unreachable(f"no answer from {target}: {sentence}"), True
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return Broken(f"{target} does not know this request; it may be an older version"), False
    return Broken(f"{target} answered {error.code().name}: {sentence}"), False


def _refusal(error: grpc.aio.AioRpcError) -> Refused | None:
    # Typed for the synchronous call; it reads only metadata, code and details, which ours has too.
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    if status is None:
        return None
    info, faults = error_details_pb2.ErrorInfo(), []
    for detail in status.details:
        bad = error_details_pb2.BadRequest()
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(bad.DESCRIPTOR):
            detail.Unpack(bad)
            faults += [
                FieldFault(field=violation.field, description=violation.description)
                for violation in bad.field_violations
            ]
    if info.domain != _DOMAIN:
        return None
    return Refused(_CODES.get(info.reason, RefusalCode.UNSPECIFIED), status.message, tuple(faults))
