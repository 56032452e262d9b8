"""A refusal to its gRPC status: one total table, and details a program can read."""

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from coordinator.domain.refusal import Refusal, RefusalCode

DOMAIN = "usance"

STATUS: dict[RefusalCode, grpc.StatusCode] = {
    RefusalCode.INVALID_FIELD: grpc.StatusCode.INVALID_ARGUMENT,
    RefusalCode.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    RefusalCode.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    RefusalCode.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    RefusalCode.REQUEST_ID_REUSED: grpc.StatusCode.ALREADY_EXISTS,
    RefusalCode.INSUFFICIENT_FUNDS: grpc.StatusCode.FAILED_PRECONDITION,
    RefusalCode.JOB_ENDED: grpc.StatusCode.FAILED_PRECONDITION,
    RefusalCode.ENROLMENT_REFUSED: grpc.StatusCode.PERMISSION_DENIED,
    RefusalCode.NAME_TAKEN: grpc.StatusCode.ALREADY_EXISTS,
    RefusalCode.SUPERSEDED: grpc.StatusCode.ABORTED,
    RefusalCode.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    RefusalCode.INTERNAL: grpc.StatusCode.INTERNAL,
    RefusalCode.SPENDING_CAP: grpc.StatusCode.FAILED_PRECONDITION,
    RefusalCode.RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def to_status(refusal: Refusal) -> grpc.Status:
    details = [_packed(ErrorInfo(reason=str(refusal.code), domain=DOMAIN))]
    if refusal.field:
        violation = BadRequest.FieldViolation(
            field=refusal.field, description=refusal.remedy or refusal.sentence
        )
        details.append(_packed(BadRequest(field_violations=[violation])))
    if refusal.retry_ms:
        delay = Duration()
        delay.FromMilliseconds(refusal.retry_ms)
        details.append(_packed(RetryInfo(retry_delay=delay)))
    status = Status(code=STATUS[refusal.code].value[0], message=refusal.sentence, details=details)
    return rpc_status.to_status(status)


def _packed(message: ErrorInfo | BadRequest | RetryInfo) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
