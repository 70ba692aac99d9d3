"""Which addresses clients may make this service connect to: public ones, and what an operator trusts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Self

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Where IPv6 reaches IPv4 through a translator, IPv4 addresses are written under this prefix (RFC 6052).
TRANSLATED = ip_network("64:ff9b::/96")
# All that is given out for global unicast (RFC 4291); the rest is local, multicast or not in use.
GLOBAL_UNICAST = ip_network("2000::/3")
REFUSED = (
    ip_network("192.0.0.0/24"),  # Protocol assignments, among them metadata services.
    ip_network("2002::/16"),  # 6to4: carries an IPv4 address, which may be a private one.
    ip_network("3fff::/20"),  # Documentation (RFC 9637).
    ip_network("192.88.99.0/24"),  # 6to4 relays, no longer in use (RFC 7526).
    ip_network("168.63.129.16/32"),  # The metadata service of Azure's machines, on a public address.
)


def is_public(address: Address) -> bool:
    """Whether an address is one that everybody can reach: not private, local, multicast or reserved."""
    address = plain(address)
    if any(address in network for network in REFUSED):
        return False
    if isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def plain(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, where it stands for one."""
    if isinstance(address, IPv4Address):
        return address
    if address in TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address


@dataclass(frozen=True)
class Trusted:
    """Hosts and networks that an operator lets clients reach although they are not public."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, entries: Sequence[str]) -> Self:
        """Read names (``images.lan``), addresses and networks (``10.1.0.0/16``); raise ``ValueError``."""
        hosts, networks = set(), []
        for entry in entries:
            try:
                networks.append(ip_network(entry))
            except ValueError:
                hosts.add(_host(entry))
        return cls(frozenset(hosts), tuple(networks))

    def host(self, host: str) -> bool:
        """Whether a host is trusted by its name, whatever address it has."""
        return host.lower().rstrip(".") in self.hosts

    def address(self, address: Address) -> bool:
        """Whether an address is in a trusted network."""
        return any(plain(address) in network or address in network for network in self.networks)


def _host(entry: str) -> str:
    """Return a host name as it is compared; raise ``ValueError`` for what is none."""
    host = entry.lower().rstrip(".")
    if not host or any(character in "/:@*? " for character in host):
        raise ValueError(f"{entry!r} is neither a host name nor an address or network such as 10.1.0.0/16")
    return host


def parse_address(text: str) -> Address:
    """Return the address of a socket's name, which may carry an interface (``fe80::1%eth0``)."""
    return ip_address(text.partition("%")[0])
