"""Units: `systemctl show` against the declared bounds, and the running process's environment by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kingpost.base.units import format_size
from kingpost.observe import drift_codes as codes
from kingpost.observe.declared import unit_limits
from kingpost.observe.looking import Question, answer_to, words
from kingpost.render.attic_settings import attic_environment
from kingpost.render.secret_files import ATTICD
from kingpost.topology.bounds import RUNNER
from kingpost.topology.caches import BucketStorage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.base.verdict import Verdict
    from kingpost.observe.drift_items import Visit
    from kingpost.render.nix_hosts import OnHost

SIGNING: Final = "ATTIC_SERVER_TOKEN_"
"""What the name of each variable begins with that atticd takes a signing secret from."""

_STATE: Final = ("LoadState", "ActiveState", "Result", "NeedDaemonReload", "MainPID")


def questions(visit: Visit) -> Iterator[Question]:
    """Ask for every declared unit's properties, and for the servers' environments."""
    for unit, declared in _units(visit.on).items():
        properties = ",".join((*_STATE, *declared))
        yield Question(f"unit {unit}", words(("systemctl", "show", unit, f"--property={properties}")))
    for name in visit.on.attic:
        yield Question("environment", _environment(visit.on, name))


def judge(visit: Visit) -> Iterator[Verdict]:
    """Compare them."""
    served = _serving(visit.on)
    for unit, declared in _units(visit.on).items():
        answer = answer_to(visit.answers, f"unit {unit}")
        if answer.code or "LoadState=" not in answer.text:
            yield visit.not_asked(unit, f"systemctl: {answer.why}")
            continue
        seen = dict(line.split("=", 1) for line in answer.text.splitlines() if "=" in line)
        yield from _unit(visit, unit, declared, seen, serving=unit in served)
    for name in visit.on.attic:
        yield from _variables(visit, name)


def _units(on: OnHost) -> dict[str, dict[str, str]]:
    return {**{unit: {} for unit in _serving(on)}, **unit_limits(on)}


def _serving(on: OnHost) -> tuple[str, ...]:
    """Give the units that must be active."""
    return (
        *([ATTICD] if on.attic else []),
        *([RUNNER] if on.runners else []),
        *(f"kingpost-tunnel-{name}.service" for name in on.tunnels),
    )


def _unit(
    visit: Visit, unit: str, declared: dict[str, str], seen: dict[str, str], *, serving: bool
) -> Iterator[Verdict]:
    if seen["LoadState"] != "loaded":
        yield visit.differs(codes.UNIT_MISSING, unit, "a unit", seen["LoadState"])
        return
    if serving and seen["ActiveState"] != "active":
        state = f"{seen['ActiveState']} ({seen['Result']})"
        yield visit.differs(codes.UNIT_DOWN, unit, "active", state)
    elif serving:
        yield visit.same(unit, "active")
    if seen["NeedDaemonReload"] == "yes":
        yield visit.differs(codes.UNIT_STALE, f"{unit} files", "loaded", "changed on disk since")
    for name, value in declared.items():
        if name not in seen:
            yield visit.not_asked(f"{unit} {name}", "this systemd does not know the property")
            continue
        yield visit.compared(
            codes.UNIT, f"{unit} {name}", _readable(name, value), _readable(name, seen[name])
        )


def _readable(name: str, value: str) -> str:
    """Give bytes as an exact size: `1GiB`; anything else, `infinity` too, as it is."""
    return format_size(int(value)) if name.startswith("Memory") and value.isdigit() else value


def _wanted(on: OnHost, attic: str) -> tuple[dict[str, str], list[str]]:
    """Give (plain variables with their values, names of secret ones) of an atticd's process."""
    server = on.attic[attic]
    names = [server.secret]
    if isinstance(server.storage, BucketStorage):
        names.append(on.platform.topology.buckets[server.storage.bucket].credentials)
    secrets = on.platform.topology.secrets
    held = [variable for name in names if name in secrets for variable in secrets[str(name)].variables]
    if server.secret in secrets and not any(name.startswith(SIGNING) for name in held):
        # A `raw` secret, or one whose variables are not listed: its unit makes the variable from it.
        held.append(f"{SIGNING}{server.algorithm.upper()}_SECRET_BASE64")
    return attic_environment(on.platform, attic), list(dict.fromkeys(held))


def _environment(on: OnHost, attic: str) -> str:
    """Give the script that compares on the host: a value that is not the declared one never leaves it."""
    plain, secret = _wanted(on, attic)
    lines = [
        f"pid=$(systemctl show {ATTICD} --property=MainPID --value) || exit 1",
        '[ "$pid" -gt 0 ] || { echo "it does not run" >&2; exit 1; }',
        "held=$(tr '\\0' '\\n' <\"/proc/$pid/environ\") || exit 1",
        "[ -n \"$held\" ] || { echo 'its environment cannot be read' >&2; exit 1; }",
        'has() { printf "%s\\n" "$held" | grep "$@"; }',
    ]
    for name, value in plain.items():
        exact = words((f"{name}={value}",))
        lines.append(
            f"if has -qxF {exact}; then echo {name} same;"
            f" elif has -q '^{name}='; then echo {name} other; else echo {name} missing; fi"
        )
    lines += [
        f"if has -q '^{name}=.'; then echo {name} same; else echo {name} missing; fi" for name in secret
    ]
    return "\n".join(lines)


def _variables(visit: Visit, attic: str) -> Iterator[Verdict]:
    plain, secret = _wanted(visit.on, attic)
    answer = answer_to(visit.answers, "environment")
    if answer.code:
        yield visit.not_asked(f"{ATTICD} environment", answer.why)
        return
    found = dict(line.split(" ", 1) for line in answer.text.splitlines() if " " in line)
    for name in (*plain, *secret):
        item, state = f"{ATTICD} environment {name}", found.get(name, "missing")
        declared = plain.get(name, "a value")
        if state == "same":
            yield visit.same(item, declared)
        else:
            yield visit.differs(
                codes.ENVIRONMENT, item, declared, "another value" if state == "other" else None
            )
