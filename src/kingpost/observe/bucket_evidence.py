"""Evidence of a storage server, taken before anything is done to it: what its maintainers ask for.

Log lines of the time in question, the version, the image by its digest, the disks. Everything is redacted
before it is written, and written for its owner alone. A part that cannot be had is named, never left out silently.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kingpost.base.errors import CannotLookError, KingpostError, UsageError
from kingpost.base.files import write_atomically
from kingpost.base.process import run
from kingpost.observe import bucket_codes as codes
from kingpost.observe.bucket_place import Workload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kingpost.base.verdict import Verdict
    from kingpost.observe.bucket_disk import Directory
    from kingpost.observe.executors.interface import Executor

#: A name that is that of a secret, its `=` or `:`, perhaps a scheme, and the value.
_SECRETS: Final = re.compile(
    r"""((?:authorization|x-amz-(?:security-token|signature|credential)|signature|credential
        |[a-z_]*(?:secret|password|passwd|token|access_?key)[a-z_]*)"?\s*[=:]\s*"?)
        (?:aws4-hmac-sha256\ |bearer\ |basic\ )?[^\s"&,;]+""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Server:
    """The process that serves a bucket: a systemd unit on a host, or a workload in a cluster.

    Attributes:
        place: Where commands for it run.
        unit: systemd's name of it; empty for a workload.
        program: The program in a workload's image, asked for its version.

    """

    place: Executor
    unit: str = ""
    program: str = "rustfs"

    def __str__(self) -> str:
        return f"{self.unit} on {self.place.describe()}" if self.unit else self.place.describe()


@dataclass(slots=True)
class Evidence:
    """What was collected: texts by file name, what is missing, and what identifies the build of the server.

    `image` is the digest of the image that runs, or the program's path in the Nix store.
    """

    image: str = ""
    texts: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def collect(server: Server, directories: Sequence[Directory], since: float) -> Evidence:
    """Ask the server's host or cluster for evidence. Nothing here changes anything.

    Args:
        server: The server.
        directories: Its data directories.
        since: Seconds of log, back from now.

    """
    found = Evidence()
    asked = _of_workload(server, since) if isinstance(server.place, Workload) else _of_unit(server, since)
    for name, argv in [*asked, *_of_disks(directories)]:
        try:
            done = run(argv, timeout=120, check=False)
        except CannotLookError as error:
            found.missing[name] = error.what
            continue
        if done.returncode:
            found.missing[name] = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        if done.stdout:
            found.texts[name] = done.stdout
    if isinstance(server.place, Workload):
        _summarise_pods(found)
    else:
        _summarise_unit(found)
    return found


def _of_workload(server: Server, since: float) -> Iterator[tuple[str, list[str]]]:
    pod = server.place
    assert isinstance(pod, Workload)  # noqa: S101 - `collect` chose this branch by it
    container = ["--container", pod.container] if pod.container else ["--all-containers"]
    window = f"--since={max(1, int(since))}s"
    yield "server.log", pod.kubectl("logs", pod.workload, window, "--timestamps", *container)
    previous = pod.kubectl("logs", pod.workload, "--previous", "--tail=200", *container)
    yield "server.previous.log", previous
    yield "version.txt", pod.argv([server.program, "--version"])
    # Whole objects hold environment variables, and so perhaps secrets: `_summarise_pods` keeps what it names.
    yield "workload.json", pod.kubectl("get", pod.workload, "--output", "json")
    yield "pods.json", pod.kubectl("get", "pods", "--output", "json")
    yield "events.txt", pod.kubectl("get", "events", "--sort-by=.lastTimestamp")


def _of_unit(server: Server, since: float) -> Iterator[tuple[str, list[str]]]:
    place = server.place
    window = f"--since=-{max(1, int(since))}s"
    yield (
        "server.log",
        place.argv(["journalctl", "--no-pager", "--output=short-iso-precise", window, "--unit", server.unit]),
    )
    properties = (
        "--property=ExecStart,MainPID,NRestarts,ActiveState,SubState,ActiveEnterTimestamp,MemoryCurrent"
    )
    yield "unit.txt", place.argv(["systemctl", "show", "--no-pager", properties, server.unit])


def _of_disks(directories: Sequence[Directory]) -> Iterator[tuple[str, list[str]]]:
    for number, directory in enumerate(directories, 1):
        yield f"disk{number}.txt", directory.place.argv(["df", "-P", "-k", directory.path])
        yield f"disk{number}.inodes.txt", directory.place.argv(["df", "-P", "-i", directory.path])


def _summarise_pods(found: Evidence) -> None:
    workload, pods = (_json(found.texts.pop(name, "")) for name in ("workload.json", "pods.json"))
    selector = workload.get("spec", {}).get("selector", {}).get("matchLabels", {})
    kept: list[dict[str, Any]] = []
    for pod in pods.get("items", []):
        labels = pod.get("metadata", {}).get("labels", {})
        if selector and not selector.items() <= labels.items():
            continue
        kept.append(
            {
                "name": pod.get("metadata", {}).get("name"),
                "node": pod.get("spec", {}).get("nodeName"),
                "phase": pod.get("status", {}).get("phase"),
                "started": pod.get("status", {}).get("startTime"),
                "claims": [
                    volume["persistentVolumeClaim"].get("claimName")
                    for volume in pod.get("spec", {}).get("volumes", [])
                    if "persistentVolumeClaim" in volume
                ],
                "containers": [
                    {key: status.get(key) for key in ("name", "image", "imageID", "restartCount", "ready")}
                    for status in pod.get("status", {}).get("containerStatuses", [])
                ],
            }
        )
    replicas = {"replicas": workload.get("spec", {}).get("replicas")}
    found.texts["pods.json"] = json.dumps({**replicas, "pods": kept}, indent=1)
    digests = [status["imageID"] for pod in kept for status in pod["containers"] if status["imageID"]]
    found.image = digests[0].rsplit("@", 1)[-1] if digests else ""
    if not found.image:
        found.missing.setdefault("image", "no pod of the workload shows an image digest")


def _summarise_unit(found: Evidence) -> None:
    match = re.search(r"ExecStart=.*?path=(\S+)", found.texts.get("unit.txt", ""))
    found.image = match[1] if match else ""
    if not found.image:
        found.missing.setdefault("image", "systemd does not know the program of the unit")


def _json(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text) if text else {}
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def redacted(text: str, secrets: Sequence[str] = ()) -> str:
    """Give text without the secrets given, and without values that look like some."""
    for secret in secrets:
        text = text.replace(secret, "[secret]")
    return _SECRETS.sub(r"\1[secret]", text)


def default_directory(bucket: str) -> Path:
    """Give a fresh directory for evidence below `$XDG_STATE_HOME/kingpost/evidence`."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "kingpost" / "evidence" / f"{bucket}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def keep(
    directory: Path, evidence: Evidence, views: Sequence[Verdict], secrets: Sequence[str], subject: str
) -> list[Verdict]:
    """Write evidence and the verdicts taken with it, redacted, mode 0600 in a directory of mode 0700.

    Raises:
        UsageError: It holds evidence already.
        KingpostError: The directory cannot be written. Nothing may be restarted then.

    """
    if (directory / "views.json").exists():
        raise UsageError(
            "the directory holds evidence already",
            where=str(directory),
            why="evidence is never overwritten: it may be all that is left of an earlier failure",
            fix="name another one with --evidence",
        )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise KingpostError(
            f"the directory for evidence cannot be made: {error.strerror}",
            where=str(directory),
            fix="name another one with --evidence",
        ) from error
    texts = {**evidence.texts, "views.json": json.dumps([view.as_dict() for view in views], indent=1)}
    texts["missing.json"] = json.dumps(evidence.missing, indent=1)
    for name, text in texts.items():
        write_atomically(directory / name, redacted(text, secrets), mode=0o600)
    found = [
        codes.EVIDENCE_MISSING.verdict(subject, f"{name}: {redacted(why, secrets)}")
        for name, why in evidence.missing.items()
        # A container that never crashed has no previous log: that is no gap.
        if name != "server.previous.log"
    ]
    said = f"{len(texts)} files in {directory}"
    return [
        codes.EVIDENCE.verdict(subject, said, {"directory": str(directory), "image": evidence.image}),
        *found,
    ]
