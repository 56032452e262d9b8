"""Messages of `usance.v1` about people, hosts and books, from and to the values of `cli.people`."""

from cli.client.convert import choice, numbers, offer_of
from cli.connection import SessionTokens
from cli.model import HostState, Role
from cli.people import Account, Host, LoginSession, Subject, TrialBalance, TrialBalanceLine
from usance.v1 import login_pb2, market_pb2, types_pb2

HOST_STATES = numbers(HostState, "HOST_STATE_", dict(types_pb2.HostState.items()))
_ROLES = numbers(Role, "ROLE_", dict(types_pb2.Role.items()))


def role_to(role: Role) -> types_pb2.Role.ValueType:
    return types_pb2.Role.Value(f"ROLE_{role}")


def account_of(message: market_pb2.Account) -> Account:
    return Account(
        account_id=message.account_id,
        name=message.name,
        roles=tuple(choice(Role, _ROLES, role) for role in message.roles),
        wallet_micro=message.wallet_micro,
        held_micro=message.held_micro,
        earnings_micro=message.earnings_micro,
    )


def tokens_of(message: login_pb2.SessionSecrets, now_ms: int) -> SessionTokens:
    return SessionTokens(
        access_token=message.access_token,
        good_until_ms=now_ms + message.access_lifetime_ms,
        refresh_token=message.refresh_token,
    )


def session_of(message: login_pb2.LoginSession) -> LoginSession:
    return LoginSession(
        session_id=message.session_id,
        label=message.label,
        address=message.address,
        created_at_ms=message.created_at_ms,
        refreshed_at_ms=message.refreshed_at_ms,
        expires_at_ms=message.expires_at_ms,
        revoked_at_ms=message.revoked_at_ms,
        current=message.current,
    )


def subject_of(message: login_pb2.Subject) -> Subject:
    return Subject(
        subject=message.subject,
        account_name=message.account_name,
        issuer=message.issuer,
        bound_at_ms=message.bound_at_ms,
    )


def host_of(message: market_pb2.Host) -> Host:
    return Host(
        host_id=message.host_id,
        hostname=message.hostname,
        state=choice(HostState, HOST_STATES, message.state),
        reason=message.reason,
        since_at_ms=message.since_at_ms,
        offers=tuple(map(offer_of, message.offers)),
        notices=tuple(message.notices),
    )


def trial_balance_of(message: market_pb2.GetTrialBalanceResponse) -> TrialBalance:
    return TrialBalance(
        lines=tuple(
            TrialBalanceLine(ledger_account=line.ledger_account, balance_micro=line.balance_micro)
            for line in message.lines
        ),
        sum_micro=message.sum_micro,
    )
