"""Follow a packet through the loaded firewall rules as the kernel would: from iptables-save, or nft's JSON.

The packet is the first of a TCP connection, from an unknown sender, for this host. A rule with a match that is
not known here (a sender, a limit) applies to *some* packets: an accept then counts as open for some.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence


class Fate(IntEnum):
    """What becomes of such packets."""

    DROPPED = 0
    SOME = 1
    ACCEPTED = 2


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection: by which interface, to which TCP port."""

    interface: str
    port: int


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: does it apply (True, False, or None for some packets), and where it leads."""

    matches: tuple[tuple[str, str, bool], ...]
    target: str
    returns: bool = True


@dataclass(slots=True)
class Chains:
    """The chains of a filter table, with the policies of built-in ones."""

    rules: dict[str, list[Rule]]
    policies: dict[str, str]

    def fate(self, packet: Packet, chain: str = "INPUT") -> Fate:
        """Follow a packet from a built-in chain."""
        fate, some = self._follow(packet, chain, 0)
        if fate is None:
            fate = Fate.DROPPED if self.policies.get(chain) == "DROP" else Fate.ACCEPTED
        return max(fate, Fate.SOME) if some else fate

    def _follow(self, packet: Packet, chain: str, depth: int) -> tuple[Fate | None, bool]:
        """Give the fate of all packets that nothing special applies to, and whether some others are accepted."""
        some = False
        for rule in self.rules.get(chain, ()) if depth < 32 else ():
            applies = _applies(rule, packet)
            if applies is False:
                continue
            fate, inner = self._target(packet, rule.target, depth)
            some |= inner or (applies is None and fate is Fate.ACCEPTED)
            if applies is None:
                continue
            if rule.target == "RETURN":
                return None, some
            if fate is not None:
                return fate, some
            if not rule.returns:
                return None, some
        return None, some

    def _target(self, packet: Packet, target: str, depth: int) -> tuple[Fate | None, bool]:
        if target == "ACCEPT":
            return Fate.ACCEPTED, False
        if target in {"DROP", "REJECT"}:
            return Fate.DROPPED, False
        return self._follow(packet, target, depth + 1) if target in self.rules else (None, False)


def iptables(text: str) -> Chains:
    """Read `iptables-save -t filter`."""
    chains = Chains({}, {})
    for line in text.splitlines():
        if line.startswith(":"):
            name, policy, *_ = line[1:].split()
            chains.rules[name], chains.policies[name] = [], policy
        elif line.startswith("-A "):
            _, chain, *rest = shlex.split(line)
            chains.rules.setdefault(chain, []).append(_rule(rest))
    return chains


_SILENT: Final = frozenset(
    {"-m", "--match", "--comment", "--reject-with", "--log-prefix", "--log-level", "-t"}
)
_KNOWN: Final = {
    "-i": "interface", "--in-interface": "interface", "-p": "protocol", "--dport": "port", "--dports": "port",
    "--destination-port": "port", "--ctstate": "state", "--state": "state", "--tcp-flags": "flags",
    "--syn": "flags", "--pkt-type": "kind", "--dst-type": "destination",
}  # fmt: skip


def _rule(words: Sequence[str]) -> Rule:
    matches: list[tuple[str, str, bool]] = []
    target, returns, negated, position = "", True, False, 0
    while position < len(words):
        word = words[position]
        following = words[position + 1] if position + 1 < len(words) else ""
        position += 1
        if word == "!":
            negated = True
            continue
        if word in {"-j", "--jump", "-g", "--goto"}:
            target, returns = following, word in {"-j", "--jump"}
        elif word == "--tcp-flags":
            matches.append(("flags", f"{following} {words[position + 1]}", negated))
            position += 1
        elif word == "--syn":
            matches.append(("flags", "FIN,SYN,RST,ACK SYN", negated))
            negated = False
            continue
        elif word in _KNOWN:
            matches.append((_KNOWN[word], following, negated))
        elif word.startswith("-") and word not in _SILENT:
            matches.append(("unknown", word, negated))
            if following.startswith("-"):
                negated = False
                continue
        position += 1
        negated = False
    return Rule(tuple(matches), target, returns)


def _applies(rule: Rule, packet: Packet) -> bool | None:
    """Tell whether a rule applies to a packet; None for some."""
    some = False
    for kind, value, negated in rule.matches:
        matched = _matched(kind, value, packet)
        if matched is None:
            some = True
        elif matched is negated:
            return False
    return None if some else True


def _matched(kind: str, value: str, packet: Packet) -> bool | None:
    """Tell whether one match holds; None for what is not known here."""
    mask, _, wanted = value.partition(" ")
    known = {
        "interface": interface_matches(value, packet.interface),
        "protocol": value in {"tcp", "all", "6"},
        "port": any(_in_range(part, packet.port) for part in value.split(",")),
        "state": "NEW" in value.split(","),
        "flags": wanted == ("SYN" if "SYN" in mask.split(",") else "NONE"),
        "kind": value == "unicast",
        "destination": value == "LOCAL",
    }
    return known.get(kind)


def interface_matches(pattern: str, interface: str) -> bool:
    """Tell whether an interface is meant by a name, or by a prefix with `+` (iptables) or `*` (nftables)."""
    if pattern.endswith("+"):
        return interface.startswith(pattern[:-1])
    return fnmatchcase(interface, pattern)


def _in_range(part: str, port: int) -> bool:
    low, _, high = part.partition(":")
    return low.isdigit() and int(low) <= port <= int(high or low)


def nft_fates(document: dict[str, Any], packet: Packet, *, ignored: frozenset[tuple[str, str]]) -> list[Fate]:
    """Follow a packet through every base chain of the input hook in `nft -j list ruleset`; one fate for each.

    Args:
        document: As nft prints it.
        packet: The packet.
        ignored: Tables (family, name) to leave out: iptables' own, which iptables-save shows better.

    """
    rules: dict[tuple[str, str, str], list[list[Any]]] = {}
    bases: list[tuple[tuple[str, str, str], str]] = []
    for entry in document.get("nftables", []):
        if chain := entry.get("chain"):
            key = (chain["family"], chain["table"], chain["name"])
            rules.setdefault(key, [])
            if chain.get("hook") == "input":
                bases.append((key, chain.get("policy", "accept")))
        elif rule := entry.get("rule"):
            key = (rule["family"], rule["table"], rule["chain"])
            rules.setdefault(key, []).append(rule.get("expr", []))
    found = []
    for key, policy in bases:
        if key[0] not in {"ip", "inet"} or key[:2] in ignored:
            continue
        fate, some = _nft_follow(rules, key, packet, 0)
        if fate is None:
            fate = Fate.DROPPED if policy == "drop" else Fate.ACCEPTED
        found.append(max(fate, Fate.SOME) if some else fate)
    return found


def _nft_follow(
    rules: dict[tuple[str, str, str], list[list[Any]]], key: tuple[str, str, str], packet: Packet, depth: int
) -> tuple[Fate | None, bool]:
    some = False
    for expressions in rules.get(key, []) if depth < 32 else []:
        sure = True
        for expression in expressions:
            (kind, body), *_ = expression.items()
            if kind == "match":
                matched = _nft_match(body, packet)
                if matched is False:
                    break
                sure = sure and matched is True
                continue
            verdict = _nft_mapped(body, packet) if kind == "vmap" else (kind, body)
            if verdict is None:
                continue
            fate, inner, leaves = _nft_verdict(rules, key, verdict, packet, depth)
            some |= inner or (not sure and fate is Fate.ACCEPTED)
            if sure and (fate is not None or leaves):
                return fate, some
    return None, some


def _nft_verdict(
    rules: dict[tuple[str, str, str], list[list[Any]]],
    key: tuple[str, str, str],
    verdict: tuple[str, Any],
    packet: Packet,
    depth: int,
) -> tuple[Fate | None, bool, bool]:
    """Give (fate, whether some are accepted, whether the chain is left)."""
    kind, body = verdict
    if kind == "accept":
        return Fate.ACCEPTED, False, True
    if kind in {"drop", "reject"}:
        return Fate.DROPPED, False, True
    if kind in {"jump", "goto"}:
        fate, some = _nft_follow(rules, (*key[:2], body["target"]), packet, depth + 1)
        return fate, some, kind == "goto"
    return None, False, kind == "return"


def _nft_value(left: Any, packet: Packet) -> str | int | None:
    if "meta" in left:
        name = packet.interface
        values = {"iifname": name, "iif": name, "l4proto": "tcp", "nfproto": "ipv4", "pkttype": "unicast"}
        return values.get(left["meta"].get("key"))
    if "payload" in left and left["payload"].get("field") == "dport":
        return packet.port if left["payload"].get("protocol") in {"tcp", "th"} else -1
    if "payload" in left and left["payload"].get("field") == "protocol":
        return "tcp"
    if "ct" in left and left["ct"].get("key") == "state":
        return "new"
    return None


def _nft_match(body: dict[str, Any], packet: Packet) -> bool | None:
    value = _nft_value(body["left"], packet)
    if value is None:
        return None
    inside = _nft_in(body["right"], value)
    return not inside if body.get("op") == "!=" else inside


def _nft_in(right: Any, value: str | int) -> bool:
    if isinstance(right, list):
        return any(_nft_in(one, value) for one in right)
    if isinstance(right, dict):
        if "set" in right:
            return _nft_in(right["set"], value)
        if "range" in right:
            low, high = right["range"]
            return isinstance(value, int) and low <= value <= high
        return False
    if isinstance(right, str) and isinstance(value, str):
        return interface_matches(right, value)
    return bool(right == value)


def _nft_mapped(body: dict[str, Any], packet: Packet) -> tuple[str, Any] | None:
    """Give the verdict that a verdict map has for the packet."""
    value = _nft_value(body["key"], packet)
    if value is None or not isinstance(body.get("data"), dict):
        return None
    for key, verdict in body["data"].get("set", []):
        if _nft_in(key, value):
            (kind, inner), *_ = verdict.items()
            return kind, inner
    return None
