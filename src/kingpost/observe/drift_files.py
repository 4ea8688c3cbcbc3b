"""Rendered files: those here against the topology, and a host's atticd.toml and runner config against them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kingpost.observe import drift_codes as codes
from kingpost.observe.looking import Question, answer_to, words
from kingpost.render.attic_settings import attic_settings
from kingpost.render.manifest import MANIFEST, digest, parse
from kingpost.render.runner_config import runner_toml
from kingpost.render.secret_files import ATTICD

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kingpost.base.verdict import Verdict
    from kingpost.observe.drift_items import Visit

RUNNER_CONFIG: Final = "/var/lib/gitlab-runner/.gitlab-runner/config.toml"
"""Where the rendered unit fills the tokens in: `$HOME/.gitlab-runner` of the stock module's state directory."""

_CONFIG: Final = Path(__file__).parent / "inside" / "config.sh"
_KEYS: Final = (
    "concurrent", "check_interval", "shutdown_timeout", "id", "name", "url", "executor", "limit", "shell", "image",
    "privileged", "network_mode", "volumes", "extra_hosts", "memory", "memory_swap", "cpus", "oom_kill_disable",
    "oom_score_adjust", "FF_NETWORK_PER_BUILD",
)  # fmt: skip
#: The file that the running process was started with, and the one that its unit names now.
_ATTICD: Final = f"""
now=$(systemctl show {ATTICD} --property=ExecStart --value | sed -n 's/.* -f \\([^ ;]*\\).*/\\1/p')
pid=$(systemctl show {ATTICD} --property=MainPID --value)
[ -n "$now" ] || {{ echo 'its unit names no file' >&2; exit 1; }}
echo "# unit $now"
if [ "$pid" -gt 0 ]; then
  echo "# process $(tr '\\0' '\\n' <"/proc/$pid/cmdline" | sed -n '/^-f$/{{n;p;}}')"
fi
sed -E 's#://[^@/" ]*@#://***@#' "$now" | grep -Eiv '^[^=]*(secret|password|access_key)[^=]*='
"""


def tree(platform_files: Mapping[str, str], root: Path) -> Iterator[Verdict]:
    """Compare the generated tree here with what the topology renders to.

    Args:
        platform_files: What would be rendered, by path.
        root: The tree.

    """
    content = (root / MANIFEST).read_bytes() if (root / MANIFEST).is_file() else None
    manifest = parse(content, str(root / MANIFEST))
    wrong = []
    for path in sorted({*platform_files, *manifest.files}):
        wanted = digest(platform_files[path].encode()) if path in platform_files else None
        seen = digest((root / path).read_bytes()) if (root / path).is_file() else None
        if seen == wanted:
            continue
        edited = seen is not None and seen != manifest.files.get(path)
        state = "missing" if seen is None else "edited by hand" if edited else "older than the topology"
        wrong.append(f"{path}: {state}")
    evidence = {"declared": manifest.topology or None, "operational": wrong}
    if wrong:
        shown = "; ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        yield codes.TREE.verdict(str(root), shown, evidence)
    else:
        yield codes.SAME.verdict(str(root), f"{len(platform_files)} files, as declared", evidence)


def questions(visit: Visit) -> Iterator[Question]:
    """Ask for the configuration that atticd and gitlab-runner really read."""
    if visit.on.attic:
        yield Question("atticd.toml", _ATTICD)
    if visit.on.runners:
        script = _CONFIG.read_text(encoding="utf-8")
        yield Question("config.toml", f"set -- {words((RUNNER_CONFIG, '|'.join(_KEYS)))}\n{script}")


def judge(visit: Visit) -> Iterator[Verdict]:
    """Compare them, key by key."""
    for name in visit.on.attic:
        yield from _atticd(visit, name)
    if visit.on.runners:
        yield from _runner(visit)


def _document(text: str) -> dict[str, Any] | str:
    """Give TOML as a value, or why it is none."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return f"it cannot be read as TOML: {error}"


def _atticd(visit: Visit, name: str) -> Iterator[Verdict]:
    answer = answer_to(visit.answers, "atticd.toml")
    document = _document(answer.text) if answer.code == 0 else answer.why
    if isinstance(document, str):
        yield visit.not_asked("atticd.toml", document)
        return
    files = dict(re.findall(r"^# (unit|process) (\S+)$", answer.text, re.MULTILINE))
    if len(files) == 2 and files["unit"] != files["process"]:
        yield visit.differs(codes.UNIT_STALE, f"{ATTICD} configuration", files["unit"], files["process"])
    settings = attic_settings(visit.on.platform, name)
    if "url" not in settings.get("database", {"url": ""}):
        settings.pop("database")
    yield from _keys(visit, "atticd.toml", flat(settings), flat(document))


def _runner(visit: Visit) -> Iterator[Verdict]:
    answer = answer_to(visit.answers, "config.toml")
    if answer.code == 3:
        yield visit.differs(codes.FILE_MISSING, "config.toml", RUNNER_CONFIG, None)
        return
    document = _document(answer.text) if answer.code == 0 else answer.why
    if isinstance(document, str):
        yield visit.not_asked("config.toml", document)
        return
    declared = tomllib.loads(runner_toml(visit.on.platform, list(visit.on.runners)))
    live = {runner.get("name"): runner for runner in document.pop("runners", [])}
    wanted = {runner["name"]: runner for runner in declared.pop("runners")}
    yield from _keys(visit, "config.toml", flat(declared), flat(document))
    for name, runner in wanted.items():
        runner.pop("token")
        if "environment" in runner:
            runner["environment"] = [entry.partition("=")[0] for entry in runner["environment"]]
        if name not in live:
            yield visit.differs(codes.FILE, f"config.toml runner {name}", "a runner", None)
        else:
            yield from _keys(visit, f"config.toml runner {name}", flat(runner), flat(live[name]))
    if extra := sorted(str(name) for name in live if name not in wanted):
        yield visit.differs(codes.FILE, "config.toml runners", sorted(wanted), sorted([*wanted, *extra]))


def _keys(visit: Visit, file: str, declared: dict[str, Any], seen: dict[str, Any]) -> Iterator[Verdict]:
    """Compare the declared keys; one verdict when all are the same."""
    wrong = False
    for key, value in declared.items():
        if seen.get(key) == value or (value in (False, 0) and key not in seen):
            continue
        wrong = True
        yield visit.differs(codes.FILE, f"{file} {key}", value, seen.get(key))
    if not wrong:
        yield codes.SAME.verdict(visit.subject(file), f"{len(declared)} keys, as declared", {})


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give nested tables as dotted keys."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def runner_ids(visit: Visit) -> dict[str, int]:
    """Give GitLab's ids of the runners in a host's live config.toml, by name."""
    document = _document(answer_to(visit.answers, "config.toml").text)
    runners = document.get("runners", []) if isinstance(document, dict) else []
    return {runner["name"]: runner["id"] for runner in runners if "id" in runner and "name" in runner}


def system_id(visit: Visit) -> str:
    """Give the system id of a host's gitlab-runner; empty when it is not known."""
    found = re.search(r"^# system-id (\S+)$", answer_to(visit.answers, "config.toml").text, re.MULTILINE)
    return found[1] if found else ""
