"""The store's verbs of people who sign in, on SQLite and on PostgreSQL alike."""

from dataclasses import replace

from coordinator.domain.login import LoginSession
from coordinator.store.transaction import SqlTransaction
from tests.support import store_fixtures
from tests.support.store_fixtures import BUYER, SELLER

market_engine, tx, market = (store_fixtures.market_engine, store_fixtures.tx, store_fixtures.market)

SESSION = LoginSession(
    id="sess_1",
    account_id=BUYER,
    label="laptop",
    address="192.0.2.1",
    created_ms=100,
    refreshed_ms=100,
    expires_ms=1_000,
    request_id="r1",
)
ACCESS, REFRESH = b"a" * 32, b"r" * 32
ISSUER = "https://id.example.org"


def opened(market: SqlTransaction, session: LoginSession = SESSION, mark: bytes = b"") -> None:
    market.insert_session(session)
    market.insert_session_tokens(
        session.id, 1, mark + ACCESS[len(mark) :], 200, mark + REFRESH[len(mark) :], 100
    )


def test_a_password_is_saved_over_what_it_was_taken_for_alone(market: SqlTransaction) -> None:
    assert market.password_of(BUYER) is None
    assert not market.save_password(BUYER, "other", "first", 1)
    assert market.save_password(BUYER, None, "first", 2)
    assert not market.save_password(BUYER, None, "second", 3)
    assert market.save_password(BUYER, "first", "second", 4)
    assert market.password_of(BUYER) == "second"
    assert market.password_of(SELLER) is None
    assert market.save_password(BUYER, "second", None, 5)
    assert market.password_of(BUYER) is None


def test_an_invitation_is_good_once_and_the_last_one_alone(market: SqlTransaction) -> None:
    market.insert_invitation(b"1" * 32, BUYER, 100)
    market.insert_invitation(b"2" * 32, SELLER, 100)
    market.insert_invitation(b"3" * 32, BUYER, 100)
    assert market.invitation(b"1" * 32) is None
    other, mine = market.invitation(b"2" * 32), market.invitation(b"3" * 32)
    assert other is not None
    assert mine is not None
    assert (mine.account.id, mine.expires_ms, mine.is_used) == (BUYER, 100, False)
    assert not market.use_invitation(b"3" * 32, 100), "it is over"
    assert not market.use_invitation(b"4" * 32, 1), "it never was"
    assert market.use_invitation(b"3" * 32, 99)
    assert not market.use_invitation(b"3" * 32, 99), "it was used"
    assert market.invitation(b"3" * 32) == replace(mine, is_used=True)
    market.insert_invitation(b"5" * 32, BUYER, 100)
    assert market.invitation(b"3" * 32) is not None, "what was used is remembered"


def test_a_session_goes_from_one_pair_of_tokens_to_the_next(market: SqlTransaction) -> None:
    opened(market)
    assert market.session("sess_1") == SESSION
    assert market.session("sess_2") is None
    assert market.refreshes(REFRESH) == ("sess_1", 1)
    assert market.refreshes(b"x" * 32) is None
    assert not market.renew_session("sess_1", 2, "r2", 150), "it is at another"
    assert market.renew_session("sess_1", 1, "r2", 150)
    assert not market.renew_session("sess_1", 1, "r3", 151), "somebody was faster"
    assert market.session("sess_1") == replace(SESSION, generation=2, request_id="r2", refreshed_ms=150)
    market.insert_session_tokens("sess_1", 2, b"b" * 32, 300, b"s" * 32, 150)
    assert market.session_bearer(ACCESS, 199) is not None, "until it is over"
    market.insert_session_tokens("sess_1", 3, b"c" * 32, 400, b"t" * 32, 250)
    assert market.session_bearer(ACCESS, 199) is None, "what was over has gone"
    assert market.session_bearer(b"b" * 32, 299) is not None
    assert market.refreshes(REFRESH) == ("sess_1", 1), "what was used is remembered"


def test_an_access_token_is_good_until_it_or_its_session_is_over(market: SqlTransaction) -> None:
    opened(market)
    found = market.session_bearer(ACCESS, 199)
    assert found is not None
    assert (found.account.id, found.token_id, found.expires_ms) == (BUYER, "sess_1", 1_000)
    assert market.session_bearer(ACCESS, 200) is None
    assert market.session_bearer(REFRESH, 150) is None
    assert market.bearer(ACCESS, 150) is None, "it is no token of the account's own"
    short = replace(SESSION, id="sess_2", expires_ms=150)
    opened(market, short, b"2")
    assert market.session_bearer(b"2" + ACCESS[1:], 149) is not None
    assert market.session_bearer(b"2" + ACCESS[1:], 150) is None


def test_an_ended_session_opens_nothing_and_its_tokens_are_forgotten(market: SqlTransaction) -> None:
    opened(market)
    opened(market, replace(SESSION, id="sess_2"), b"2")
    market.end_session("sess_1", 150)
    market.end_session("sess_1", 160)
    ended = market.session("sess_1")
    assert ended == replace(SESSION, revoked_ms=150), "ended once"
    assert market.session_bearer(ACCESS, 151) is None
    assert market.refreshes(REFRESH) is None
    assert not market.renew_session("sess_1", 1, "r2", 170)
    assert market.session_bearer(b"2" + ACCESS[1:], 151) is not None, "the other goes on"


def test_a_new_session_clears_away_what_the_account_s_old_ones_had(market: SqlTransaction) -> None:
    opened(market)
    opened(market, replace(SESSION, id="sess_2", account_id=SELLER), b"2")
    market.insert_session(replace(SESSION, id="sess_3", created_ms=999))
    assert market.refreshes(REFRESH) is not None, "it is good still"
    market.insert_session(replace(SESSION, id="sess_4", created_ms=1_000))
    assert market.refreshes(REFRESH) is None
    assert market.refreshes(b"2" + REFRESH[1:]) is not None, "that is somebody else's"


def test_sessions_are_listed_newest_first_and_tell_where_one_was(market: SqlTransaction) -> None:
    for number, account_id in ((1, BUYER), (2, BUYER), (3, SELLER)):
        market.insert_session(
            replace(
                SESSION,
                id=f"sess_{number}",
                account_id=account_id,
                address=f"192.0.2.{number}",
                refreshed_ms=100 * number,
                expires_ms=1_000 * number,
            )
        )
    assert [one.id for one in market.sessions_of(BUYER, None, 9)] == ["sess_2", "sess_1"]
    assert [one.id for one in market.sessions_of(BUYER, 1_000, 9)] == ["sess_2"]
    assert [one.id for one in market.sessions_of(BUYER, None, 1)] == ["sess_2"]
    market.end_session("sess_2", 500)
    assert market.sessions_of(BUYER, 1_000, 9) == []
    assert market.was_at(BUYER, "192.0.2.2", 200)
    assert not market.was_at(BUYER, "192.0.2.2", 201), "too long ago"
    assert not market.was_at(BUYER, "192.0.2.3", 0), "that was somebody else"


def test_a_subject_is_one_account_until_it_is_released(market: SqlTransaction) -> None:
    assert market.account_of_subject(ISSUER, "ann") is None
    assert market.bind_subject(ISSUER, "ann", BUYER, 5)
    assert not market.bind_subject(ISSUER, "ann", SELLER, 6)
    assert market.bind_subject("https://other.example.org", "ann", SELLER, 7)
    assert market.bind_subject(ISSUER, "bob", BUYER, 8)
    found = market.account_of_subject(ISSUER, "ann")
    assert found is not None
    assert found.id == BUYER
    listed = market.subjects(0, 9)
    assert [(one.subject, one.account_name, one.bound_ms) for one in listed] == [
        ("ann", "buyer", 5),
        ("bob", "buyer", 8),
        ("ann", "seller", 7),
    ]
    assert market.subjects(1, 1) == listed[1:2]
    market.release_subject(ISSUER, "ann")
    assert market.account_of_subject(ISSUER, "ann") is None
    assert len(market.subjects(0, 9)) == 2
