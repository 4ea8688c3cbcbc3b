"""Who was killed for memory: logs, engines' states and control groups' counters, each mapped to its owner."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from kingpost.base.units import approximate_size, format_size
from kingpost.observe import pressure_codes as codes
from kingpost.observe.declared import unit_limits
from kingpost.observe.looking import KUBECONFIG, Question, answer_to, words
from kingpost.observe.oom_log import KEPT, kills
from kingpost.observe.pressure_owner import Owner, Running, owner_of, pod_owner

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kingpost.base.codes import Code
    from kingpost.base.verdict import Verdict
    from kingpost.observe.looking import Answer
    from kingpost.observe.oom_log import Kill
    from kingpost.render.nix_hosts import OnHost

#: Only these fields: a container's environment may hold tokens.
CONTAINERS: Final = (
    '{"id":{{json .Id}},"name":{{json .Name}},"oom":{{json .State.OOMKilled}},"exit":{{json .State.ExitCode}},'
    '"at":{{json .State.FinishedAt}},"memory":{{json .HostConfig.Memory}},'
    '"job":{{json (index .Config.Labels "com.gitlab.gitlab-runner.type")}}}'
)
#: One line per container: pod, uid, container, reasons of its last and its present end, restarts, limit.
PODS: Final = (
    '{range .items[*]}{.metadata.namespace}/{.metadata.name}{"\\t"}{.metadata.uid}'
    "{range .status.containerStatuses[*]}"
    '{"\\t"}{.name},{.lastState.terminated.reason},{.state.terminated.reason},{.restartCount}{end}{"\\n"}{end}'
)
_FIELDS: Final = "MESSAGE,_TRANSPORT,_SYSTEMD_UNIT,_HOSTNAME"


def questions(
    on: OnHost, docker: tuple[str, ...], kubectl: tuple[str, ...], since: int
) -> Iterator[Question]:
    """Ask for the logs since a time (seconds since 1970), and for what the engines know."""
    journal = (
        "journalctl", "--quiet", "--no-pager", "--output=json", f"--output-fields={_FIELDS}", f"--since=@{since}",
        "_TRANSPORT=kernel", "+", "_SYSTEMD_UNIT=systemd-oomd.service",
    )  # fmt: skip
    kept = f"grep -E {words((KEPT,))} || true"
    script = [
        f'if out=$({words(journal)} 2>/dev/null) && [ -n "$out" ]; then',
        f"  printf '%s\\n' \"$out\" | {{ {kept}; }}",
        "else",
        f"  {{ dmesg --time-format iso 2>/dev/null || dmesg; }} | {{ {kept}; }}",
        "fi",
    ]
    yield Question("oom log", "\n".join(script))
    if on.host.docker:
        client = words(docker)
        yield Question(
            "containers",
            f'ids=$({client} ps -aq) && {{ [ -z "$ids" ] || {client} inspect --format {words((CONTAINERS,))} $ids; }}',
        )
    if on.clusters:
        client = words((*kubectl, "--request-timeout=10s", "get", "pods", "-A", "-o", f"jsonpath={PODS}"))
        yield Question("pods", f"{KUBECONFIG}\n{client}")


def judge(on: OnHost, answers: Mapping[str, Answer]) -> Iterator[Verdict]:
    """Give one verdict for each owner that was killed, or one that none was."""
    running, ended = _running(answers)
    log = answer_to(answers, "oom log")
    found = kills(log.text.splitlines()) if not log.code else []
    if log.code:
        yield codes.NOT_ASKED.verdict(f"{on.name}: kernel log", f"journalctl and dmesg: {log.why}")
    verdicts = list(of_kills(on, found, running))
    named = {verdict.subject for verdict in verdicts}
    verdicts += [verdict for verdict in _ended(on, ended) if verdict.subject not in named]
    verdicts += [verdict for verdict in _pods(on, answers) if verdict.subject not in named]
    verdicts += _counted(on, answers, {verdict.subject for verdict in verdicts})
    if not verdicts and not log.code:
        verdicts.append(codes.NO_KILL.verdict(on.name, "no process was killed for memory"))
    yield from verdicts


def of_kills(on: OnHost, found: Iterable[Kill], running: Running) -> Iterator[Verdict]:
    """Give one verdict for each owner and kind of kill, the latest kill as its evidence."""
    grouped: dict[tuple[str, str], list[tuple[Owner, Kill]]] = {}
    for kill in found:
        owner = owner_of(on, kill.cgroup, running, kill.limit_bytes, kill.limited)
        code = _code(owner, kill)
        grouped.setdefault((owner.name, code.name), []).append((owner, kill))
    for pairs in grouped.values():
        owner, kill = pairs[-1]
        yield _killed(on, owner, kill, len(pairs))


def _code(owner: Owner, kill: Kill) -> Code:
    if kill.by == "systemd-oomd":
        return codes.OOMD
    if not kill.limited:
        return codes.HOST
    if owner.kind == "job":
        return codes.JOB
    return codes.POD if owner.kind == "pod" else codes.LIMIT


def _killed(on: OnHost, owner: Owner, kill: Kill, times: int) -> Verdict:
    code = _code(owner, kill)
    what = f"{kill.process} in {owner.name}" if kill.process else owner.name
    often = "" if times == 1 else f"{times} times, last "
    reason = {
        "KP-OOM-HOST": f"the host was out of memory; it held {approximate_size(kill.rss_bytes)}",
        "KP-OOM-OOMD": kill.why,
    }.get(code.name, _at_limit(kill))
    evidence: dict[str, Any] = {
        "by": kill.by, "at": kill.at, "times": times, "process": kill.process, "cgroup": kill.cgroup,
        "rss_bytes": kill.rss_bytes, "usage_bytes": kill.usage_bytes, "limit_bytes": kill.limit_bytes,
        "declared": owner.declared, "declared_bytes": owner.limit, "allowed_bytes": owner.allowed,
    }  # fmt: skip
    remedy = owner.advice() or None
    if owner.kind == "unit" and owner.limit is not None and 0 < kill.limit_bytes < owner.limit:
        bounds = f"{format_size(kill.limit_bytes)} was in effect, and {owner.declared} is {format_size(owner.limit)}"
        remedy = f"{bounds}: deploy first (`kingpost drift` says what differs)"
    if code is codes.HOST:
        remedy = None if owner.limit is not None else f"declare a limit for {owner.name}, which has none"
    return code.verdict(
        f"{on.name}: {owner.name}", f"{what} was killed {often}{kill.at}: {reason}", evidence, remedy=remedy
    )


def _at_limit(kill: Kill) -> str:
    if not kill.limit_bytes:
        return "its control group reached its limit"
    return f"{approximate_size(kill.usage_bytes)} of {approximate_size(kill.limit_bytes)} were in use"


def _running(answers: Mapping[str, Answer]) -> tuple[Running, list[dict[str, Any]]]:
    lines = answer_to(answers, "containers").text.splitlines()
    containers = [json.loads(line) for line in lines if line.startswith("{")]
    pods = {row[1]: row[0] for row in _pod_rows(answers)}
    ended = [one for one in containers if one["oom"] or (one["exit"] == 137 and one["job"])]
    return Running({one["id"]: one for one in containers}, pods), ended


def _ended(on: OnHost, ended: Iterable[dict[str, Any]]) -> Iterator[Verdict]:
    """Judge containers that the engine still knows, and whose kill the log has no more."""
    for one in ended:
        if not one["oom"]:
            continue  # 137 alone is a cancelled job
        owner = owner_of(on, f"/docker/{one['id']}", Running({one["id"]: one}, {}))
        code = codes.JOB if owner.kind == "job" else codes.LIMIT
        evidence = {
            "by": "kernel", "at": one["at"], "exit_code": one["exit"], "limit_bytes": one["memory"],
            "declared": owner.declared, "declared_bytes": owner.limit, "allowed_bytes": owner.allowed,
        }  # fmt: skip
        summary = f"{owner.name} ended with exit code {one['exit']} {one['at']}: Docker says OOMKilled"
        yield code.verdict(f"{on.name}: {owner.name}", summary, evidence, remedy=owner.advice() or None)


def _pod_rows(answers: Mapping[str, Answer]) -> list[list[str]]:
    rows = (line.split("\t") for line in answer_to(answers, "pods").text.splitlines())
    return [row for row in rows if len(row) >= 2]


def _pods(on: OnHost, answers: Mapping[str, Answer]) -> Iterator[Verdict]:
    if on.clusters and answer_to(answers, "pods").code:
        yield codes.NOT_ASKED.verdict(f"{on.name}: pods", f"kubectl: {answer_to(answers, 'pods').why}")
    for pod, _uid, *containers in _pod_rows(answers):
        for text in containers:
            name, last, now, restarts = (*text.split(","), "", "", "", "")[:4]
            if "OOMKilled" not in {last, now}:
                continue
            owner = pod_owner(on, pod)
            code = codes.JOB if owner.kind == "job" else codes.POD
            evidence = {
                "container": name, "restarts": restarts, "declared": owner.declared,
                "declared_bytes": owner.limit, "allowed_bytes": owner.allowed,
            }  # fmt: skip
            summary = f"container {name} of {pod} was OOMKilled; it was restarted {restarts} times"
            yield code.verdict(f"{on.name}: {pod}", summary, evidence, remedy=owner.advice() or None)


def _counted(on: OnHost, answers: Mapping[str, Answer], named: set[str]) -> Iterator[Verdict]:
    for unit in unit_limits(on):
        rows = dict(
            line.split("=", 1)
            for line in answer_to(answers, f"memory {unit}").text.splitlines()
            if "=" in line
        )
        count = int(rows.get("oom_kill", "0") or 0)
        subject = f"{on.name}: {unit}"
        if count and subject not in named:
            yield codes.COUNTED.verdict(
                subject, f"its control group counts {count} kills", {"oom_kill": count}
            )
