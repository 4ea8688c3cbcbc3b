"""nix.conf and environment of every context, as plain files: for machines and images that are not NixOS.

A context whose processes have a store of their own gets a whole nix.conf, with caches at the addresses that
they themselves dial. Where the host's daemon does the work, its nix.conf decides: of a client whose user is not
trusted it takes little but a choice among the caches that it knows itself (NixOS/nix src/libstore/daemon.cc), so
only that is there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from kingpost.base.errors import KingpostError
from kingpost.render import layout
from kingpost.render.comments import comment
from kingpost.render.netrc import netrc_lines
from kingpost.render.nix_settings import RESILIENCE, known_to
from kingpost.render.secret_files import secret_path
from kingpost.topology.places import Dialer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kingpost.topology.places import Context
    from kingpost.topology.platform import Platform

_WORD: Final = re.compile(r"[^\s#\x00-\x1f\x7f]+")

OLDEST: Final = "2.4"
"""What an image's or a stranger's Nix is taken for: the first with flakes. Later settings are left out."""

_FEATURES: Final = {"experimental-features": ["nix-command", "flakes"]}


def render_contexts(platform: Platform) -> dict[str, str]:
    """Give every context's `nix.conf` and `env`."""
    services = _called(platform)
    files = {}
    for context in platform.contexts.values():
        if not runs_nix(context):
            continue
        folder = layout.context_directory(context)
        files[f"{folder}/nix.conf"] = nix_conf(platform, context)
        files[f"{folder}/env"] = env(platform, context, services.get(context.id, []))
    return files


def runs_nix(context: Context) -> bool:
    """Tell whether a context's processes build or substitute: servers and audits in a cluster do not."""
    return context.kind != "service" and not (context.kind == "pod" and context.runner is None)


def has_own_settings(context: Context) -> bool:
    """Tell whether a context's own nix.conf decides where it substitutes from."""
    return context.own_store or context.kind in {"host", "peer"}


def nix_conf(platform: Platform, context: Context) -> str:
    """Give a context's nix.conf."""
    if has_own_settings(context):
        head = [f"Nix in {context.id}, rendered by kingpost: change the topology instead."]
    else:
        head = [
            f"Nix's client in {context.id}, rendered by kingpost: change the topology instead.",
            f"Its settings are the business of {context.host}'s daemon: see contexts/host/nix.conf.",
        ]
    head += _passwords(platform, context)
    return "\n".join([*map(comment, head), "", settings_text(settings(platform, context))])


def _passwords(platform: Platform, context: Context) -> Iterator[str]:
    """Say which passwords the host's daemon needs for private caches; on NixOS a unit puts them in place."""
    if context.kind == "host" and context.host:
        for line in netrc_lines(platform, context.host, platform.cache_uses(context.id)):
            path = secret_path(line.secret, platform.topology.secrets[line.secret])
            yield f"In /etc/nix/netrc: machine {line.machine} password, and what {path} holds"


def settings(platform: Platform, context: Context, *, fallback: bool = True) -> dict[str, Any]:
    """Give a context's settings, only those that its Nix knows.

    Args:
        platform: The platform.
        context: Whose.
        fallback: Whether to build what a broken cache cannot give.

    """
    uses = [use for use in platform.cache_uses(context.id) if use.url]
    urls = list(dict.fromkeys(str(use.url) for use in uses))
    if not has_own_settings(context):
        runner = platform.topology.runners.get(context.runner or "")
        chosen = {"substituters": urls} if runner and runner.substituters is not None else {}
        return {**_FEATURES, **chosen, "fallback": fallback}
    version = platform.topology.hosts[context.host].nix if context.kind == "host" and context.host else OLDEST
    return {
        **_FEATURES,
        "substituters": urls,
        "trusted-public-keys": list(dict.fromkeys(use.public_key for use in uses if use.public_key)),
        **known_to(version, {**RESILIENCE, "fallback": fallback}),
    }


def settings_text(values: Mapping[str, Any]) -> str:
    """Write settings in nix.conf's syntax, which has no quotes: what it cannot say is refused."""
    return "".join(f"{name} = {_value(value)}\n" for name, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return " ".join(map(_word, value))
    return _word(str(value))


def _word(text: str) -> str:
    if not _WORD.fullmatch(text):
        raise KingpostError(
            f"nix.conf cannot hold {text!r}",
            why="blanks separate values there, and # begins a comment",
            fix="take such characters out of the topology",
        )
    return text


def env(platform: Platform, context: Context, services: list[str]) -> str:
    """Give a context's environment: lines NAME=value, for systemd, docker and a shell alike.

    Args:
        platform: The platform.
        context: Whose.
        services: References of what its client dials.

    """
    values = {"KINGPOST_CONTEXT": context.id}
    if context.kind in {"docker", "pod"} and not context.own_store:
        values["NIX_REMOTE"] = "daemon"
    for service in services:
        url = platform.url(context.id, Dialer.CLIENT, service)
        if url:
            values[_variable(f"KINGPOST_URL_{service}", values)] = url
    head = f"# Environment of {context.id}, rendered by kingpost: change the topology instead.\n"
    return head + "".join(f"{name}={value}\n" for name, value in values.items())


def _variable(text: str, taken: Mapping[str, str]) -> str:
    name = re.sub(r"[^A-Z0-9]", "_", text.upper())
    return name if name not in taken else _variable(f"{text}_2", taken)


def _called(platform: Platform) -> dict[str, list[str]]:
    """Give what each context's client dials, each service once."""
    found: dict[str, dict[str, None]] = {}
    for need in platform.needs:
        if need.dialer is Dialer.CLIENT:
            found.setdefault(need.context, {})[need.service] = None
    return {context: list(services) for context, services in found.items()}
