"""Nix's settings in effect, for root and for the user that shell jobs run as, against the declared ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from kingpost.observe import drift_codes as codes
from kingpost.observe.looking import Question, answer_to
from kingpost.render.nix_settings import RESILIENCE, known_to
from kingpost.topology.model import NIXOS_CACHE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.base.verdict import Verdict
    from kingpost.observe.drift_items import Visit
    from kingpost.render.nix_hosts import OnHost

_KEPT: Final = (
    "substituters", "trusted-substituters", "trusted-public-keys", "trusted-users", "netrc-file", *RESILIENCE,
    "filetransfer-retry-attempts",
)  # fmt: skip
#: Only these lines leave the host: `access-tokens` is among the others. Nix before 2.20 says show-config.
_SHOW: Final = (
    "x='--extra-experimental-features nix-command'; "
    "{ nix $x config show 2>/dev/null || nix $x show-config; } | "
    f"grep -E '^({'|'.join(_KEPT)}) ='"
)
_FILE: Final = f"grep -E '^ *(extra-)?({'|'.join(_KEPT)}) *=' /etc/nix/nix.conf"
_ALIASES: Final = {"download-attempts": "filetransfer-retry-attempts"}


def questions(visit: Visit) -> Iterator[Question]:
    """Ask for the settings in effect, the file that they come from, and the version."""
    yield Question("nix version", "nix --version")
    yield Question("nix root", _SHOW)
    yield Question("nix file", _FILE)
    if user := _job_user(visit.on):
        yield Question("nix user", _SHOW, user)


def judge(visit: Visit) -> Iterator[Verdict]:
    """Compare them."""
    on = visit.on
    yield from _version(visit)
    root = _settings(visit, "nix root")
    if root is None:
        yield visit.not_asked("nix settings of root", f"nix: {answer_to(visit.answers, 'nix root').why}")
        return
    file = _settings(visit, "nix file") or {}
    yield _substituters(visit, "root", root, file)
    yield from _keys(visit, "root", root)
    for name, value in known_to(on.host.nix, RESILIENCE).items():
        seen = root.get(name, root.get(_ALIASES.get(name, "")))
        item = f"nix setting {name}"
        if seen is None:
            yield visit.not_asked(item, "this Nix does not know the setting")
        else:
            yield visit.compared(codes.NIX_SETTING, item, _text(value), seen)
    if user := _job_user(on):
        own = _settings(visit, "nix user")
        if own is None:
            yield visit.not_asked(
                f"nix settings of {user}", f"nix: {answer_to(visit.answers, 'nix user').why}"
            )
        else:
            yield _user(visit, user, own, root)


def _job_user(on: OnHost) -> str | None:
    users = [runner.user for runner in on.runners.values() if runner.executor == "shell"]
    return users[0] if users else None


def _settings(visit: Visit, question: str) -> dict[str, str] | None:
    """Give settings by name; None when there was no answer."""
    answer = answer_to(visit.answers, question)
    if answer.code:
        return None
    pairs = (line.partition("=") for line in answer.text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _version(visit: Visit) -> Iterator[Verdict]:
    answer = answer_to(visit.answers, "nix version")
    found = re.search(r"(\d+\.\d+)\.?\d*", answer.text)
    if answer.code or not found:
        yield visit.not_asked("nix version", f"nix: {answer.why}")
        return
    declared = ".".join(visit.on.host.nix.split(".")[:2])
    yield visit.compared(codes.NIX_VERSION, "nix version", declared, found[1])


def _urls(text: str) -> list[str]:
    return list(dict.fromkeys(url.rstrip("/") for url in text.split()))


def _declared(on: OnHost) -> list[str]:
    return _urls(" ".join(use.url for use in on.reads if use.url))


def _substituters(visit: Visit, who: str, seen: dict[str, str], file: dict[str, str]) -> Verdict:
    item = f"nix substituters of {who}"
    declared, actual = _declared(visit.on), _urls(seen.get("substituters", ""))
    if set(declared) == set(actual):
        return visit.same(item, declared)
    in_file = _urls(f"{file.get('substituters', '')} {file.get('extra-substituters', '')}")
    remedy = None
    if set(in_file) == set(declared):
        remedy = f"/etc/nix/nix.conf is right: {who}'s own ~/.config/nix/nix.conf or NIX_CONFIG overrides it"
    return visit.differs(codes.SUBSTITUTERS, item, declared, actual, remedy=remedy)


def _keys(visit: Visit, who: str, seen: dict[str, str]) -> Iterator[Verdict]:
    on, item = visit.on, f"nix trusted keys of {who}"
    declared = {use.public_key for use in (*on.reads, *on.jobs_read) if use.public_key}
    actual = set(seen.get("trusted-public-keys", "").split())
    retired = _retired(on) - declared
    for key in sorted(actual & retired):
        yield codes.RETIRED_KEY.verdict(
            visit.subject(item),
            f"{key} is retired, and still trusted",
            {"declared": "retired", "operational": key},
        )
    # NixOS itself always adds its own cache's key.
    extra, missing = actual - declared - retired - {NIXOS_CACHE.public_key}, declared - actual
    if extra or missing:
        yield visit.differs(codes.KEYS, item, sorted(declared), sorted(actual))
    else:
        yield visit.same(item, sorted(declared))


def _retired(on: OnHost) -> set[str]:
    topology = on.platform.topology
    caches: list[Any] = [cache for attic in topology.attic.values() for cache in attic.caches.values()]
    caches += [*topology.cachix.values(), *topology.all_substituters.values()]
    return {key for cache in caches for key in cache.retired_keys}


def _user(visit: Visit, user: str, seen: dict[str, str], root: dict[str, str]) -> Verdict:
    """Judge what an unprivileged user asks for: the daemon takes only what it knows (Nix's `trusted-users`)."""
    item = f"nix substituters of {user}"
    declared, actual = _declared(visit.on), _urls(seen.get("substituters", ""))
    extra = [url for url in actual if url not in declared]
    if not extra and set(actual) == set(declared):
        return visit.same(item, declared)
    known = {*_urls(root.get("substituters", "")), *_urls(root.get("trusted-substituters", ""))}
    trusted = user in root.get("trusted-users", "").split() or "*" in root.get("trusted-users", "").split()
    if extra and not trusted and any(url not in known for url in extra):
        return visit.differs(codes.NIX_IGNORED, item, declared, actual)
    remedy = (
        f"{user}'s ~/.config/nix/nix.conf or NIX_CONFIG decides: `attic use` and `cachix use` write there"
    )
    return visit.differs(codes.SUBSTITUTERS, item, declared, actual, remedy=remedy)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
