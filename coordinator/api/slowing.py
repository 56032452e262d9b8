"""Who fails to sign in has to wait, longer each time: by account, and by the network that it comes from.

In memory, for those that come now. An account is never locked: whoever tries it from where it was signed in
before is counted apart from strangers, and sessions, tokens and invitations do not come this way.
"""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from coordinator.api.limits import REMEMBERED_MAX
from coordinator.domain.login import Failures, Slowness, failed, failures_wait_ms, pardoned
from coordinator.domain.refusal import Refusal, RefusalCode
from runtime.clock import Clock

# What one customer of a provider has of IPv6, at least.
_IPV6_PREFIX = 64


@dataclass(frozen=True, kw_only=True)
class Try:
    """One, under all the names that it counts for."""

    account: str
    network: str


class Slowing:
    def __init__(self, each_account: Slowness, each_network: Slowness, clock: Clock) -> None:
        self._clock = clock
        self._accounts = _Counted(each_account)
        self._networks = _Counted(each_network)

    def look(self, address: str) -> None:
        """Before anything is looked up. Raises a refusal that says when to try again."""
        wait_ms = self._networks.wait_ms(network_of(address), self._clock.boot_ms())
        _must_not_wait(wait_ms, "too many who came from your address could not sign in")

    def begin(self, account_name: str, address: str, *, at_home: bool) -> Try:
        """Counted as a failure until it is none: many at once are as many guesses."""
        now_ms, network = self._clock.boot_ms(), network_of(address)
        name = f"{account_name}@{network}" if at_home else account_name
        self.look(address)
        wait_ms = self._accounts.wait_ms(name, now_ms)
        _must_not_wait(wait_ms, "too often somebody could not sign in to this account")
        self._accounts.fail(name, now_ms)
        self._networks.fail(network, now_ms)
        return Try(account=name, network=network)

    def succeeded(self, tried: Try) -> None:
        """The account's guesses are forgotten; of the network's only this one, for others come from there."""
        self._accounts.forget(tried.account)
        self._networks.pardon(tried.network)

    def not_tried(self, tried: Try) -> None:
        self._accounts.pardon(tried.account)
        self._networks.pardon(tried.network)


class _Counted:
    """Whoever was not seen for longest is forgotten first."""

    def __init__(self, slowness: Slowness) -> None:
        self._slowness = slowness
        self._of: OrderedDict[str, Failures] = OrderedDict()

    def wait_ms(self, name: str, now_ms: int) -> int:
        return failures_wait_ms(self._of.get(name, Failures()), self._slowness, now_ms)

    def fail(self, name: str, now_ms: int) -> None:
        self._of[name] = failed(self._of.get(name, Failures()), self._slowness, now_ms)
        self._of.move_to_end(name)
        if len(self._of) > REMEMBERED_MAX:
            self._of.popitem(last=False)

    def pardon(self, name: str) -> None:
        if name in self._of:
            self._of[name] = pardoned(self._of[name])

    def forget(self, name: str) -> None:
        self._of.pop(name, None)


def network_of(address: str) -> str:
    """Of an IPv6 address its network, for who has one address of it has them all."""
    try:
        found = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))


def _must_not_wait(wait_ms: int, why: str) -> None:
    if wait_ms:
        seconds = -(-wait_ms // 1_000)
        raise Refusal(RefusalCode.RATE_LIMITED, f"{why}; try again in {seconds} s", retry_ms=wait_ms)
