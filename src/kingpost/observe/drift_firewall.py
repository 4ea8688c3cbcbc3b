"""The firewall: is each computed opening there, and nothing wider for our ports?"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from kingpost.observe import drift_codes as codes
from kingpost.observe.looking import Question, answer_to
from kingpost.observe.packet_filter import Fate, Packet, interface_matches, iptables, nft_fates
from kingpost.topology.paths import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kingpost.base.verdict import Verdict
    from kingpost.observe.drift_items import Visit

#: Tables that iptables itself makes where it runs on nftables.
_OF_IPTABLES: Final = frozenset({("ip", name) for name in ("filter", "nat", "mangle", "raw", "security")})
_VIRTUAL: Final = ("veth", "lo")


def questions(visit: Visit) -> Iterator[Question]:
    """Ask for the loaded rules and the interfaces, where something listens for others."""
    if visit.on.platform.listeners_on(visit.on.name):
        yield Question("interfaces", "ip -o link show")
        yield Question("iptables", "iptables-save -t filter")
        yield Question("nft", "nft -j list ruleset")


def judge(visit: Visit) -> Iterator[Verdict]:
    """Follow a packet to each of our ports, by every interface."""
    on = visit.on
    if not on.platform.listeners_on(on.name):
        return
    fate = _rules(visit)
    if fate is None:
        why = answer_to(visit.answers, "iptables").why
        yield visit.not_asked("firewall", f"neither iptables-save nor nft gave its rules: {why}")
        return
    openings = on.platform.firewall(on.name)
    real = interfaces(answer_to(visit.answers, "interfaces").text)
    # A listener on loopback only is out of reach whatever the firewall says.
    ports = {one.port for one in on.platform.listeners_on(on.name) if one.bind != LOOPBACK}
    ports |= {port for found in openings.values() for port in found}
    for port in sorted(ports):
        yield from _port(visit, port, openings, real, fate)


def _port(
    visit: Visit,
    port: int,
    openings: dict[str, tuple[int, ...]],
    real: list[str],
    fate: Callable[[Packet], Fate],
) -> Iterator[Verdict]:
    declared = sorted(name for name, open_ports in openings.items() if port in open_ports)
    item = f"firewall port {port}"
    shut = [
        name for name in declared if fate(Packet(name.replace("+", "000000000000"), port)) is Fate.DROPPED
    ]
    wide = [
        name
        for name in real
        if not any(interface_matches(pattern, name) for pattern in declared)
        and fate(Packet(name, port)) is not Fate.DROPPED
    ]
    seen = sorted({name for name in declared if name not in shut} | set(wide))
    if shut:
        yield visit.differs(codes.FIREWALL_SHUT, f"{item} open on", declared, seen)
    tailnet = [name for name in wide if opened_by_tailscale(answer_to(visit.answers, "iptables").text, name)]
    if tailnet:
        yield visit.differs(codes.FIREWALL_TAILNET, f"{item} open on", declared, seen)
    if wide != tailnet:
        yield visit.differs(codes.FIREWALL_WIDE, f"{item} open on", declared, seen)
    if not shut and not wide:
        yield visit.same(f"{item} open on", declared)


def _rules(visit: Visit) -> Callable[[Packet], Fate] | None:
    """Give how a packet fares: it must pass every table; None when no rules could be read."""
    saved, listed = answer_to(visit.answers, "iptables"), answer_to(visit.answers, "nft")
    chains = iptables(saved.text) if saved.code == 0 else None
    try:
        document = json.loads(listed.text) if listed.code == 0 else None
    except ValueError:
        document = None
    if chains is None and document is None:
        return None
    ignored = _OF_IPTABLES if chains is not None else frozenset()

    def fate(packet: Packet) -> Fate:
        found = [chains.fate(packet)] if chains is not None else []
        found += nft_fates(document, packet, ignored=ignored) if document is not None else []
        return min(found, default=Fate.ACCEPTED)

    return fate


def interfaces(text: str) -> list[str]:
    """Read `ip -o link show`: what packets from elsewhere can come in by."""
    names = re.findall(r"^\d+: ([^:@\s]+)", text, re.MULTILINE)
    return [name for name in names if not name.startswith(_VIRTUAL)]


def opened_by_tailscale(saved: str, interface: str) -> bool:
    """Tell whether tailscaled accepts all that comes in by its interface (tailscale util/linuxfw, AddBase)."""
    return f"-A ts-input -i {interface} -j ACCEPT" in saved.splitlines()
