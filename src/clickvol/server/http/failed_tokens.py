"""Addresses that send wrong tokens wait longer and longer; how many are remembered is bounded."""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

# Chosen: a user mistypes a few times; whoever guesses has one try a minute.
_NUM_FREE = 5
_MAX_WAIT_SECONDS = 60.0
_FORGET_SECONDS = 3600.0
_MAX_ADDRESSES = 4096

# What one customer of a provider has.
_IPV6_PREFIX = 64


class FailedTokens:
    """Who has to wait before the next token is read; the clock counts seconds.

    While an address waits, its tokens are not compared at all, so that many guesses at once learn nothing more.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_network: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_network)

    def seconds_to_wait(self, address: str) -> int:
        """Return in how many whole seconds an address may try again; 0: now."""
        count, failed_at = self._by_network.get(_network_of(address), (0, 0.0))
        wait = min(2.0 ** (count - _NUM_FREE), _MAX_WAIT_SECONDS) if count >= _NUM_FREE else 0.0
        return max(0, math.ceil(failed_at + wait - self._clock()))

    def note(self, address: str) -> None:
        """Remember a wrong token; the address that failed longest ago is forgotten beyond 4,096."""
        network, now = _network_of(address), self._clock()
        count, failed_at = self._by_network.pop(network, (0, now))
        self._by_network[network] = (count + 1 if now - failed_at < _FORGET_SECONDS else 1, now)
        if len(self._by_network) > _MAX_ADDRESSES:
            self._by_network.popitem(last=False)


def _network_of(address: str) -> str:
    """Return an IPv4 address as it is, the network of an IPv6 one."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv4Address):
        return str(known)
    return str(known.ipv4_mapped or ipaddress.IPv6Network((int(known), _IPV6_PREFIX), strict=False))
