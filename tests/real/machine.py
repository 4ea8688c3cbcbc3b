"""A machine of its own for a test: a real systemd as PID 1, files of its own, and a network that is given.

systemd runs in new mount, process, IPC and control-group namespaces; /etc, /run, /var/lib and /nix are overlays whose
changes go to a temporary directory. Nothing of the real machine is changed, and all of it ends with PID 1.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from kingpost.observe.executors.interface import Executor

GROUPS = Path("/sys/fs/cgroup")
# Version 1 has one hierarchy for each controller, version 2 a single one.
START = """
set -e
for top in /sys/fs/cgroup/*/ /sys/fs/cgroup/; do
  [ -e "$top/cgroup.procs" ] || continue
  mkdir -p "$top/$GROUP"
  if [ -e "$top/cpuset.cpus" ]; then
    cat "$top/cpuset.cpus" >"$top/$GROUP/cpuset.cpus"
    cat "$top/cpuset.mems" >"$top/$GROUP/cpuset.mems"
  fi
  echo $$ >"$top/$GROUP/cgroup.procs"
done
exec unshare --cgroup --pid --fork --kill-child sh -c "$INSIDE"
"""
INSIDE = """
set -e
mount --make-rprivate /
for top in /sys/fs/cgroup/*/ /sys/fs/cgroup/; do
  [ -d "$top/$GROUP" ] && mount --bind "$top/$GROUP" "$top"
done
mount -t proc proc /proc
for place in etc var/lib nix; do
  [ -d "/$place" ] || continue
  mkdir -p "$ROOT/$place" "$ROOT/.work/$place"
  mount -t overlay overlay -o "lowerdir=/$place,upperdir=$ROOT/$place,workdir=$ROOT/.work/$place" "/$place"
done
mkdir -p "$ROOT/run/systemd" "$ROOT/run/lock"
mount --bind "$ROOT/run" /run
mount -t tmpfs tmpfs /run/systemd
export container=docker
exec /lib/systemd/systemd --system --unit=kingpost-test.target --log-target=null
"""
PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"


@dataclass(frozen=True, slots=True)
class Inside(Executor):
    """The way into such a machine."""

    pid: int
    path: str

    def argv(self, command):
        return ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--cgroup", "--wd=/",
                "env", f"PATH={self.path}", *command]  # fmt: skip

    def describe(self):
        return f"the machine of process {self.pid}"


@dataclass
class Machine:
    """Start it with `with`; `files` go below its root before it starts.

    Attributes:
        root: An empty directory.
        netns: Argument list that enters a network; its own, unconnected one if empty.
        files: Text by absolute path below /etc, /run, /var/lib or /nix.
        users: Beside root: name and home.
        path: Directories before the usual PATH.

    """

    root: Path
    netns: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)
    path: str = ""
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self):
        lines = [
            f"{name}:x:{2000 + n}:{2000 + n}::{home}:/bin/sh\n"
            for n, (name, home) in enumerate(self.users.items())
        ]
        self.write("/etc/passwd", PASSWD + "".join(lines))
        groups = [f"{name}:x:{2000 + n}:\n" for n, name in enumerate(self.users)]
        self.write("/etc/group", "root:x:0:\n" + "".join(groups))
        self.write("/etc/systemd/system/kingpost-test.target", "[Unit]\nDefaultDependencies=no\n")
        for path, text in self.files.items():
            self.write(path, text)
        self._stack.callback(self._remove_groups)
        unshare = ["unshare", "--mount", "--ipc", "--uts"]
        network = self.netns or ["unshare", "--net"]
        process = subprocess.Popen(
            [*network, *unshare, "sh", "-c", START],
            env={**os.environ, "ROOT": str(self.root), "GROUP": self.group, "INSIDE": INSIDE},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._stack.callback(self._stop, process)
        try:
            self.pid = self._first_process(process)
            self._wait_until_up()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _wait_until_up(self):
        for _ in range(100):
            if self.run("systemctl", "is-system-running", check=False).stdout.strip() in {
                "running",
                "degraded",
            }:
                return
            time.sleep(0.1)
        raise AssertionError("systemd did not come up")

    def __exit__(self, *_exc):
        self._stack.close()

    @property
    def way(self):
        return Inside(self.pid, f"{self.path}:{os.environ['PATH']}" if self.path else os.environ["PATH"])

    def write(self, path, text, mode=0o644):
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())
        file.chmod(mode)

    def run(self, *command, check=True, stdin=""):
        done = subprocess.run(
            self.way.argv(list(command)), input=stdin, capture_output=True, text=True, check=False, timeout=60
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def _first_process(self, process):
        """Find PID 1 of the new namespace: the child of `unshare --fork`, once it is systemd."""
        for _ in range(100):
            if process.poll() is not None:
                raise AssertionError(process.stderr.read().decode())
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd":
                return int(children[0])
            time.sleep(0.1)
        raise AssertionError("systemd did not start")

    @property
    def group(self):
        """Its control group: what systemd makes is below it, and goes with it."""
        return f"kingpost-test-{os.getpid()}-{id(self)}"

    def _remove_groups(self):
        for top in (*GROUPS.glob("*/"), GROUPS):
            for folder, _, _ in os.walk(top / self.group, topdown=False):
                for _ in range(50):
                    try:
                        Path(folder).rmdir()
                        break
                    except FileNotFoundError:
                        break
                    except OSError:  # the last process is on its way out
                        time.sleep(0.1)

    def _stop(self, process):
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)  # --kill-child takes PID 1, and the kernel the rest
        process.wait(10)
        process.stderr.close()
