"""Tokens, spending caps, prices, and the operator's view of the whole, as screens. Pure."""

from collections.abc import Sequence

from cli.books import Act, GpuClaim, Health, ModelPrice, OwnedHost, SpendingCap, TokenFacts
from cli.model import Offer
from cli.people import Host, LoginSession, Subject
from cli.render import Part, amount, duration, gpu_name, in_credits, percent, plural, safe, table, words
from cli.screens import facts, moment

_NOTHING = "-"
# More would push what matters off the screen.
CONSIDERED_MAX = 5


def tokens_screen(tokens: Sequence[TokenFacts], now_ms: int) -> list[Part]:
    if not tokens:
        return ["no tokens"]
    rows = [
        (
            token.token_id,
            safe(token.label) or _NOTHING,
            moment(token.created_at_ms),
            moment(token.expires_at_ms),
            safe(" ".join(token.scopes)) or "everything",
            moment(token.last_used_at_ms) if token.last_used_at_ms else "never",
            _token_state(token, now_ms),
        )
        for token in tokens
    ]
    return table(("TOKEN", "LABEL", "MADE", "GOOD UNTIL", "OPENS", "LAST USED", "STATE"), rows)


def _token_state(token: TokenFacts, now_ms: int) -> str:
    if token.revoked_at_ms:
        return f"revoked {moment(token.revoked_at_ms)}"
    if token.expires_at_ms <= now_ms:
        return "expired"
    return "good, and the one you use" if token.current else "good"


def sessions_screen(sessions: Sequence[LoginSession], now_ms: int) -> list[Part]:
    if not sessions:
        return ["no sessions"]
    rows = [
        (
            session.session_id,
            safe(session.label) or _NOTHING,
            safe(session.address) or _NOTHING,
            moment(session.created_at_ms),
            moment(session.refreshed_at_ms),
            moment(session.expires_at_ms),
            _session_state(session, now_ms),
        )
        for session in sessions
    ]
    return table(("SESSION", "MACHINE", "FROM", "OPENED", "RENEWED", "GOOD UNTIL", "STATE"), rows)


def _session_state(session: LoginSession, now_ms: int) -> str:
    if session.revoked_at_ms:
        return f"ended {moment(session.revoked_at_ms)}"
    if session.expires_at_ms <= now_ms:
        return "over"
    return "good, and the one you use" if session.current else "good"


def subjects_screen(subjects: Sequence[Subject]) -> list[Part]:
    if not subjects:
        return ["no subjects of an identity provider are bound"]
    rows = [
        (safe(one.subject), safe(one.account_name), moment(one.bound_at_ms), safe(one.issuer))
        for one in subjects
    ]
    return table(("SUBJECT", "ACCOUNT", "SINCE", "ISSUER"), rows)


def acts_screen(acts: Sequence[Act]) -> list[Part]:
    if not acts:
        return ["nothing was done"]
    rows = [
        (
            moment(act.happened_at_ms),
            safe(act.who) or _NOTHING,
            safe(act.address) or _NOTHING,
            safe(act.rpc),
            safe(act.result),
            safe(act.request),
            safe(act.request_id),
        )
        for act in acts
    ]
    return table(("WHEN", "WHO", "FROM", "WHAT", "RESULT", "WITH", "REQUEST"), rows)


def cap_screen(cap: SpendingCap) -> list[str]:
    used = f"{in_credits(cap.used_micro)} by jobs taken in since {moment(cap.month_began_at_ms)}"
    if not cap.month_micro:
        return facts([("cap", "none; set one with: usance budget --cap CREDITS"), ("used", used)])
    used_percent = cap.used_micro * 100 // cap.month_micro
    warns = " (passed)" if used_percent >= cap.alert_percent else ""
    return facts(
        [
            ("cap", f"{in_credits(cap.month_micro)} for the jobs of one month of UTC"),
            ("used", f"{used}, {used_percent} %"),
            ("left", f"{in_credits(max(0, cap.month_micro - cap.used_micro))} until the month ends"),
            ("ends", moment(cap.month_ends_at_ms)),
            ("alert", f"from {cap.alert_percent} % on{warns}"),
        ]
    )


def prices_screen(prices: Sequence[ModelPrice], own: Sequence[Host]) -> list[Part]:
    """The market's prices, and beside them what one's own hosts ask."""
    if not prices:
        return ["nothing is offered now"]
    asked: dict[str, list[int]] = {}
    for host in own:
        for offer in host.offers:
            asked.setdefault(offer.gpu_model, []).append(offer.gpu_hour_price_micro)
    rows = [
        (
            gpu_name(price.gpu_model, simulated=price.simulated),
            str(price.host_count),
            f"{price.gpu_count_free} of {price.gpu_count}",
            amount(price.gpu_hour_price_micro_min),
            amount(price.gpu_hour_price_micro_median),
            amount(price.gpu_hour_price_micro_max),
            ", ".join(amount(micro) for micro in sorted(set(asked.get(price.gpu_model, [])))) or _NOTHING,
        )
        for price in prices
    ]
    return table(("GPU", "HOSTS", "FREE", "LOWEST", "MEDIAN", "HIGHEST (CREDITS/GPU-HOUR)", "YOURS"), rows)


def considered_screen(offers: Sequence[Offer], chosen: Offer | None) -> list[Part]:
    """The cheapest of the offers that fit, and which of them it would be."""
    if chosen is None or len(offers) < 2:
        return []
    shown = list(offers[:CONSIDERED_MAX])
    if all(offer.host_id != chosen.host_id for offer in shown):
        shown[-1] = chosen
    rows = [
        (
            "->" if offer.host_id == chosen.host_id and offer.gpu_model == chosen.gpu_model else "",
            offer.host_id,
            f"{offer.gpu_count_free} x {gpu_name(offer.gpu_model, simulated=offer.simulated)}",
            amount(offer.gpu_hour_price_micro),
            percent(offer.reliability_ppm),
        )
        for offer in shown
    ]
    more = len(offers) - len(shown)
    rest = [f"and {plural(more, 'offer')} more; see: usance offers"] if more else []
    return [*table(("", "CONSIDERED", "FREE", "CREDITS/GPU-HOUR", "RELIABLE"), rows), *rest, ""]


def all_hosts_screen(hosts: Sequence[OwnedHost]) -> list[Part]:
    if not hosts:
        return ["no hosts"]
    rows = [
        (
            owned.host.host_id,
            safe(owned.account_name),
            safe(owned.host.hostname) or _NOTHING,
            words(owned.host.state),
            moment(owned.host.since_at_ms),
            str(sum(offer.gpu_count_free for offer in owned.host.offers)),
            safe(owned.host.reason) or _NOTHING,
        )
        for owned in hosts
    ]
    notices = [f"{owned.host.host_id}: {safe(notice)}" for owned in hosts for notice in owned.host.notices]
    return [*table(("HOST", "SELLER", "NAME", "STATE", "SINCE", "GPUS FREE", "REASON"), rows), *notices]


def gpu_claims_screen(claims: Sequence[GpuClaim]) -> list[Part]:
    if not claims:
        return ["no GPU is claimed by two hosts"]
    rows = [
        (
            safe(claim.gpu_uuid),
            claim.owner_host_id,
            claim.host_id,
            "yes" if claim.same_seller else "no",
            moment(claim.since_at_ms),
        )
        for claim in claims
    ]
    return table(("GPU", "BELONGS TO", "CLAIMED BY", "SAME SELLER", "SINCE"), rows)


def health_screen(health: Health, now_ms: int) -> list[str]:
    waits_ms = now_ms - health.queued_since_at_ms
    return facts(
        [
            ("version", safe(health.version)),
            ("serves", f"since {moment(health.started_at_ms)}, on {safe(health.database)}"),
            ("hosts", ", ".join(f"{each.count} {words(each.state)}" for each in health.hosts) or "none"),
            ("jobs", ", ".join(f"{each.count} {words(each.state)}" for each in health.jobs) or "none live"),
            (
                "waits",
                f"the longest for {duration(max(0, waits_ms))}" if health.queued_since_at_ms else "none",
            ),
            (
                "ledger",
                f"{plural(health.transfers, 'transfer')}, sealed up to the {health.transfers_sealed}th, "
                f"balances sum to {amount(health.sum_micro)}",
            ),
        ]
    )
