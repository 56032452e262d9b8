"""Signing in, and what an account and the operator do with sessions: a method for each RPC, with retries."""

from collections.abc import Awaitable, Callable

import grpc.aio

from cli import people
from cli.client import convert_people as convert
from cli.client.calls import TRY_S, Caller
from cli.connection import SessionTokens
from runtime.clock import Clock
from usance.v1 import login_pb2 as pb
from usance.v1 import login_pb2_grpc

PAGE_SIZE = 500


class Login:
    """For whoever is not yet known."""

    def __init__(self, channel: grpc.aio.Channel, caller: Caller, clock: Clock) -> None:
        self._stub = login_pb2_grpc.LoginServiceStub(channel)
        self._caller, self._clock = caller, clock

    async def login(self, account_name: str, password: str, label: str, request_id: str) -> SessionTokens:
        request = pb.LoginRequest(
            request_id=request_id, account_name=account_name, password=password, label=label
        )
        answer = await self._caller.call(self._stub.Login, request)
        return convert.tokens_of(answer.secrets, self._clock.wall_ms())

    async def accept(
        self, invitation: str, new_password: str, label: str, request_id: str
    ) -> tuple[str, SessionTokens]:
        """The account's name, and the session."""
        request = pb.AcceptInvitationRequest(
            request_id=request_id, invitation=invitation, new_password=new_password, label=label
        )
        answer = await self._caller.call(self._stub.AcceptInvitation, request)
        return answer.account_name, convert.tokens_of(answer.secrets, self._clock.wall_ms())


def renewal(channel: grpc.aio.Channel, clock: Clock) -> Callable[[str, str], Awaitable[SessionTokens]]:
    """One try: whoever needs the token tries again as it does with its own call."""
    stub = login_pb2_grpc.LoginServiceStub(channel)

    async def renew(refresh_token: str, request_id: str) -> SessionTokens:
        request = pb.RefreshSessionRequest(request_id=request_id, refresh_token=refresh_token)
        answer = await stub.RefreshSession(request, timeout=TRY_S)
        return convert.tokens_of(answer.secrets, clock.wall_ms())

    return renew


class Sessions:
    """Of the caller's own account, unless an operator names another."""

    def __init__(self, channel: grpc.aio.Channel, caller: Caller) -> None:
        self._stub = login_pb2_grpc.SessionServiceStub(channel)
        self._caller = caller

    async def change_password(self, old: str, new: str, request_id: str) -> None:
        """Ends all sessions but the one that we use."""
        request = pb.ChangePasswordRequest(request_id=request_id, old_password=old, new_password=new)
        await self._caller.call(self._stub.ChangePassword, request)

    async def list_all(self, *, account_name: str = "", also_bad: bool = False) -> list[people.LoginSession]:
        """Newest first; `also_bad` adds those that have expired or were revoked."""
        request = pb.ListSessionsRequest(account_name=account_name, all=also_bad)
        answer = await self._caller.call(self._stub.ListSessions, request)
        return [convert.session_of(session) for session in answer.sessions]

    async def revoke(
        self, session_id: str, request_id: str, *, account_name: str = ""
    ) -> people.LoginSession:
        request = pb.RevokeSessionRequest(
            request_id=request_id, account_name=account_name, session_id=session_id
        )
        answer = await self._caller.call(self._stub.RevokeSession, request)
        return convert.session_of(answer.session)


class People:
    """The operator's."""

    def __init__(self, channel: grpc.aio.Channel, caller: Caller) -> None:
        self._stub = login_pb2_grpc.PeopleServiceStub(channel)
        self._caller = caller

    async def invite(
        self, account_name: str, lifetime_ms: int, request_id: str, *, reset: bool = False
    ) -> people.Token:
        request = pb.CreateInvitationRequest(
            request_id=request_id, account_name=account_name, lifetime_ms=lifetime_ms, reset=reset
        )
        answer = await self._caller.call(self._stub.CreateInvitation, request)
        return people.Token(token=answer.invitation, expires_at_ms=answer.expires_at_ms)

    async def bind_subject(self, account_name: str, subject: str, request_id: str) -> None:
        request = pb.BindSubjectRequest(request_id=request_id, account_name=account_name, subject=subject)
        await self._caller.call(self._stub.BindSubject, request)

    async def release_subject(self, subject: str, request_id: str) -> str:
        """Whose it was."""
        request = pb.ReleaseSubjectRequest(request_id=request_id, subject=subject)
        return (await self._caller.call(self._stub.ReleaseSubject, request)).account_name

    async def list_subjects(self) -> list[people.Subject]:
        found: list[people.Subject] = []
        request = pb.ListSubjectsRequest(page_size=PAGE_SIZE)
        while True:
            answer = await self._caller.call(self._stub.ListSubjects, request)
            found += map(convert.subject_of, answer.subjects)
            request.page_token = answer.next_page_token
            if not request.page_token:
                return found
