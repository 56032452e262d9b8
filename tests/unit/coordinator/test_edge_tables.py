"""Tables at the edge, each held to the contract's own descriptors: who may call what, and how no is said."""

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from coordinator.api.access import ACCESS, Access, allows
from coordinator.api.status import STATUS, to_status
from coordinator.domain.account import Role
from coordinator.domain.refusal import Refusal, RefusalCode, invalid, not_found
from usance.v1 import books_pb2, host_pb2, login_pb2, market_pb2


def methods() -> set[str]:
    return {
        f"/{service.full_name}/{method.name}"
        for file in (market_pb2, books_pb2, login_pb2, host_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def test_every_rpc_of_the_contract_says_who_may_call_it_and_no_other_is_named():
    ours = {method for method in ACCESS if method.startswith("/usance.")}
    assert ours == methods()
    assert {rule.access for method, rule in ACCESS.items() if method not in ours} == {Access.ANYBODY}, (
        "gRPC's own"
    )


@pytest.mark.parametrize(
    ("service", "access"),
    [
        ("MarketService", Access.BUYER),
        ("AccountService", Access.ACCOUNT),
        ("TokenService", Access.ACCOUNT),
        ("BooksService", Access.ACCOUNT),
        ("OperationsService", Access.OPERATOR),
        ("SellerService", Access.SELLER),
        ("AdminService", Access.OPERATOR),
        ("EnrolmentService", Access.ANYBODY),
        ("LoginService", Access.ANYBODY),
        ("SessionService", Access.ACCOUNT),
        ("PeopleService", Access.OPERATOR),
        ("HostService", Access.HOST),
    ],
)
def test_all_rpcs_of_a_service_are_for_the_same_callers(service, access):
    """As the contract's comments say."""
    assert {
        rule.access for method, rule in ACCESS.items() if method.startswith(f"/usance.v1.{service}/")
    } == {access}


@pytest.mark.parametrize("access", Access)
@pytest.mark.parametrize("role", Role)
def test_a_role_opens_its_own_doors_alone(access, role):
    expected = access in {Access.ANYBODY, Access.ACCOUNT} or str(access) == str(role)
    assert allows(access, frozenset({role})) is expected


def test_several_roles_open_the_doors_of_each():
    assert all(allows(Access(str(role)), frozenset(Role)) for role in Role)


# The gRPC status beside each code in types.proto.
EXPECTED = {
    "INVALID_FIELD": "INVALID_ARGUMENT",
    "UNAUTHENTICATED": "UNAUTHENTICATED",
    "FORBIDDEN": "PERMISSION_DENIED",
    "NOT_FOUND": "NOT_FOUND",
    "REQUEST_ID_REUSED": "ALREADY_EXISTS",
    "INSUFFICIENT_FUNDS": "FAILED_PRECONDITION",
    "JOB_ENDED": "FAILED_PRECONDITION",
    "ENROLMENT_REFUSED": "PERMISSION_DENIED",
    "NAME_TAKEN": "ALREADY_EXISTS",
    "SUPERSEDED": "ABORTED",
    "UNAVAILABLE": "UNAVAILABLE",
    "INTERNAL": "INTERNAL",
    "SPENDING_CAP": "FAILED_PRECONDITION",
    "RATE_LIMITED": "RESOURCE_EXHAUSTED",
}


def test_every_refusal_has_its_status():
    assert set(STATUS) == set(RefusalCode)
    assert {str(code): status.name for code, status in STATUS.items()} == EXPECTED


@pytest.mark.parametrize("code", RefusalCode)
def test_a_refusal_can_be_read_by_a_program(code):
    sent = to_status(Refusal(code, "a sentence", field="spec.name", remedy="another name"))
    assert (sent.code, sent.details) == (STATUS[code], "a sentence")
    status = Status.FromString(dict(sent.trailing_metadata)["grpc-status-details-bin"])
    info, bad = ErrorInfo(), BadRequest()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (str(code), "usance")
    assert status.details[1].Unpack(bad)
    assert [(v.field, v.description) for v in bad.field_violations] == [("spec.name", "another name")]


def test_where_no_field_is_at_fault_none_is_named():
    sent = to_status(not_found("job", "job_1"))
    status = Status.FromString(dict(sent.trailing_metadata)["grpc-status-details-bin"])
    assert len(status.details) == 1
    assert sent.code is grpc.StatusCode.NOT_FOUND


def test_an_invalid_field_is_named_in_the_sentence_too():
    refusal = invalid("spec.name", "shorter")
    assert (refusal.code, refusal.sentence) == (RefusalCode.INVALID_FIELD, "spec.name: shorter")
