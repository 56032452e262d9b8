# ruff: noqa: N802, ARG002 -- gRPC names its methods so, and calls them so
"""The RPCs of people who sign in: password or invitation to a session, its renewal, its end."""

from dataclasses import dataclass

from coordinator.api import acting, validate
from coordinator.api.edge import Edge
from coordinator.api.gate import Context, bearer, caller
from coordinator.api.hashing import Hashing
from coordinator.api.limits import Limits
from coordinator.api.slowing import Slowing
from coordinator.domain.account import Account
from coordinator.domain.login import PASSWORD_BYTES_MAX, LoginSession, password_fault
from coordinator.domain.oidc import SUBJECT_BYTES_MAX, is_subject
from coordinator.domain.refusal import Refusal, invalid
from coordinator.services import passwords, sessions, subjects
from coordinator.services.sessions import Issuing, Place, Secrets
from usance.v1 import login_pb2 as g
from usance.v1 import login_pb2_grpc

LABEL_BYTES_MAX, SECRET_CHARACTERS_MAX = 64, 128
INVITATION_MS_MIN, INVITATION_MS_MAX = 60_000, 30 * 86_400_000


@dataclass(frozen=True, kw_only=True)
class Signing:
    """What signing in needs beside the edge."""

    hashing: Hashing
    slowing: Slowing
    limits: Limits
    issuing: Issuing
    # The identity provider's; "" where there is none.
    issuer: str


class LoginServicer(login_pb2_grpc.LoginServiceServicer):
    def __init__(self, edge: Edge, signing: Signing) -> None:
        self._edge, self._signing = edge, signing

    async def Login(self, request: g.LoginRequest, context: Context) -> g.LoginResponse:
        request_id = validate.request_id(request.request_id)
        name = validate.account_name("account_name", request.account_name)
        place = _place(request.label, context)
        password, now_ms = _password("password", request.password), self._edge.clock.wall_ms()
        hashing, slowing = self._signing.hashing, self._signing.slowing
        slowing.look(place.address)
        known = await self._edge.read(lambda tx: passwords.known(tx, name, place.address, now_ms))
        tried = slowing.begin(name, place.address, at_home=known.at_home)
        try:
            is_right = await hashing.is_right(known.hash, password)
        except Refusal:
            slowing.not_tried(tried)
            raise
        if not is_right or known.account is None or known.hash is None:
            raise passwords.wrong()
        slowing.succeeded(tried)
        acting.by(known.account.id)
        fresh = await hashing.hash(password) if hashing.is_outdated(known.hash) else None
        secrets = await self._edge.write(
            lambda tx: passwords.login(tx, self._signing.issuing, known, fresh, request_id, place, now_ms)
        )
        return g.LoginResponse(secrets=self._secrets_to(secrets))

    async def AcceptInvitation(
        self, request: g.AcceptInvitationRequest, context: Context
    ) -> g.AcceptInvitationResponse:
        request_id, place = validate.request_id(request.request_id), _place(request.label, context)
        secret, password = _secret("invitation", request.invitation), request.new_password
        now_ms, limits = self._edge.clock.wall_ms(), self._signing.limits
        limits.try_token(place.address, secret)
        found = await self._edge.read(lambda tx: passwords.invited(tx, secret, request_id, now_ms))
        if isinstance(found, Refusal):
            limits.was_bad(place.address, secret)
            raise found
        account, is_again = found
        _must_be_fit(password, account)
        acting.by(account.id)
        hash_ = "" if is_again else await self._signing.hashing.hash(password)
        secrets = await self._edge.write(
            lambda tx: passwords.accept(
                tx, self._signing.issuing, account, secret, hash_, request_id, place, now_ms
            )
        )
        return g.AcceptInvitationResponse(secrets=self._secrets_to(secrets), account_name=account.name)

    async def RefreshSession(
        self, request: g.RefreshSessionRequest, context: Context
    ) -> g.RefreshSessionResponse:
        request_id = validate.request_id(request.request_id)
        token, address = _secret("refresh_token", request.refresh_token), _address(context)
        now_ms, limits = self._edge.clock.wall_ms(), self._signing.limits
        limits.try_token(address, token)
        renewed = await self._edge.write(
            lambda tx: sessions.renew(tx, self._signing.issuing, token, request_id, now_ms)
        )
        if isinstance(renewed, Refusal):
            limits.was_bad(address, token)
            raise renewed
        return g.RefreshSessionResponse(secrets=self._secrets_to(renewed))

    def _secrets_to(self, secrets: Secrets) -> g.SessionSecrets:
        left_ms = secrets.access_expires_ms - self._edge.clock.wall_ms()
        return g.SessionSecrets(
            session_id=secrets.session_id,
            access_token=secrets.access_token,
            access_expires_at_ms=secrets.access_expires_ms,
            access_lifetime_ms=max(0, left_ms),
            refresh_token=secrets.refresh_token,
            expires_at_ms=secrets.expires_ms,
        )


class SessionServicer(login_pb2_grpc.SessionServiceServicer):
    def __init__(self, edge: Edge, signing: Signing) -> None:
        self._edge, self._signing = edge, signing

    async def ChangePassword(
        self, request: g.ChangePasswordRequest, context: Context
    ) -> g.ChangePasswordResponse:
        who, request_id = bearer(), validate.request_id(request.request_id)
        old, account = _password("old_password", request.old_password), who.account
        _must_be_fit(request.new_password, account)
        address, now_ms = _address(context), self._edge.clock.wall_ms()
        hashing, slowing = self._signing.hashing, self._signing.slowing
        before = after = ""
        if not await self._edge.read(lambda tx: passwords.is_asked_again(tx, account, request_id)):
            known = await self._edge.read(lambda tx: passwords.known(tx, account.name, address, now_ms))
            tried = slowing.begin(account.name, address, at_home=known.at_home)
            try:
                is_right = await hashing.is_right(known.hash, old)
            except Refusal:
                slowing.not_tried(tried)
                raise
            if not is_right or known.hash is None:
                raise passwords.old_is_wrong()
            slowing.succeeded(tried)
            before, after = known.hash, await hashing.hash(request.new_password)
        await self._edge.write(lambda tx: passwords.change(tx, who, request_id, before, after, now_ms))
        return g.ChangePasswordResponse()

    async def ListSessions(self, request: g.ListSessionsRequest, context: Context) -> g.ListSessionsResponse:
        who, used = caller(), bearer().token_id
        name = request.account_name and validate.account_name("account_name", request.account_name)
        good_at_ms = None if request.all else self._edge.clock.wall_ms()
        found = await self._edge.read(lambda tx: sessions.page(tx, who, name, good_at_ms))
        return g.ListSessionsResponse(sessions=[_session_to(session, used) for session in found])

    async def RevokeSession(
        self, request: g.RevokeSessionRequest, context: Context
    ) -> g.RevokeSessionResponse:
        who, used, request_id = caller(), bearer().token_id, validate.request_id(request.request_id)
        name = request.account_name and validate.account_name("account_name", request.account_name)
        session_id, now_ms = validate.name("session_id", request.session_id), self._edge.clock.wall_ms()
        ended = await self._edge.write(
            lambda tx: sessions.revoke(tx, who, name, request_id, session_id, now_ms)
        )
        return g.RevokeSessionResponse(session=_session_to(ended, used))


class PeopleServicer(login_pb2_grpc.PeopleServiceServicer):
    def __init__(self, edge: Edge, signing: Signing) -> None:
        self._edge, self._issuer = edge, signing.issuer

    async def CreateInvitation(
        self, request: g.CreateInvitationRequest, context: Context
    ) -> g.CreateInvitationResponse:
        operator, request_id = caller(), validate.request_id(request.request_id)
        name = validate.account_name("account_name", request.account_name)
        lifetime_ms = request.lifetime_ms and validate.whole(
            "lifetime_ms", request.lifetime_ms, INVITATION_MS_MIN, INVITATION_MS_MAX
        )
        wish = passwords.Invite(account_name=name, lifetime_ms=lifetime_ms, reset=request.reset)
        now_ms = self._edge.clock.wall_ms()
        made = await self._edge.write(
            lambda tx: passwords.invite(tx, self._edge.mint, operator, request_id, wish, now_ms)
        )
        return g.CreateInvitationResponse(invitation=made.token, expires_at_ms=made.expires_ms)

    async def BindSubject(self, request: g.BindSubjectRequest, context: Context) -> g.BindSubjectResponse:
        operator, request_id = caller(), validate.request_id(request.request_id)
        name = validate.account_name("account_name", request.account_name)
        who, now_ms = self._who(request.subject), self._edge.clock.wall_ms()
        await self._edge.write(lambda tx: subjects.bind(tx, operator, request_id, name, who, now_ms))
        return g.BindSubjectResponse()

    async def ReleaseSubject(
        self, request: g.ReleaseSubjectRequest, context: Context
    ) -> g.ReleaseSubjectResponse:
        operator, request_id = caller(), validate.request_id(request.request_id)
        who = self._who(request.subject)
        name = await self._edge.write(lambda tx: subjects.release(tx, operator, request_id, who))
        return g.ReleaseSubjectResponse(account_name=name)

    async def ListSubjects(self, request: g.ListSubjectsRequest, context: Context) -> g.ListSubjectsResponse:
        size, start = validate.page_size(request.page_size), validate.page_start(request.page_token)
        found = await self._edge.read(lambda tx: subjects.page(tx, start, size + 1))
        return g.ListSubjectsResponse(
            subjects=[
                g.Subject(
                    subject=one.subject,
                    account_name=one.account_name,
                    issuer=one.issuer,
                    bound_at_ms=one.bound_ms,
                )
                for one in found[:size]
            ],
            next_page_token=str(start + size) if len(found) > size else "",
        )

    def _who(self, subject: str) -> tuple[str, str]:
        if not is_subject(subject):
            raise invalid("subject", f"the claim sub: 1 to {SUBJECT_BYTES_MAX} bytes of printable text")
        return self._issuer, subject


def _session_to(session: LoginSession, used: str) -> g.LoginSession:
    return g.LoginSession(
        session_id=session.id,
        label=session.label,
        address=session.address,
        created_at_ms=session.created_ms,
        refreshed_at_ms=session.refreshed_ms,
        expires_at_ms=session.expires_ms,
        revoked_at_ms=session.revoked_ms,
        current=session.id == used,
    )


def _place(label: str, context: Context) -> Place:
    return Place(label=validate.line("label", label, LABEL_BYTES_MAX), address=_address(context))


def _address(context: Context) -> str:
    return acting.address_of(context.peer())


def _password(field: str, text: str) -> str:
    """One that may be right. What it is to be like is asked of new ones alone."""
    if not 1 <= len(text.encode()) <= PASSWORD_BYTES_MAX:
        raise invalid(field, f"1 to {PASSWORD_BYTES_MAX} bytes")
    return text


def _must_be_fit(password: str, account: Account) -> None:
    fault = password_fault(password, account.name)
    if fault:
        raise invalid("new_password", fault)


def _secret(field: str, text: str) -> str:
    if not text or len(text) > SECRET_CHARACTERS_MAX or not text.isascii():
        raise invalid(field, "a secret as the coordinator gave it")
    return text
