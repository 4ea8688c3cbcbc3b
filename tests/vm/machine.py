"""A virtual machine with the methods of the NixOS test driver, emulated by QEMU without KVM.

The methods mean what they mean in nixpkgs' nixos/lib/test-driver (src/test_driver/machine/__init__.py), so that one
script runs on both: the scripts of checks/ are that. What a script here cannot do is not there at all.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import shlex
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.vm.initrd import appended
from tests.vm.vlan import Vlan

PATIENCE = 900
"""Seconds that upstream's methods wait by default."""
BOOT = 900
ANNOUNCEMENT = b"Spawning backdoor root shell..."


class RequestedAssertionFailed(Exception):  # noqa: N818 - upstream's name
    """What a script demanded of a machine is not so."""


class MachineError(Exception):
    """The machine itself is not as a script can expect it: it does not boot, or its shell is gone."""


def retry(attempt: Callable[[bool], bool], timeout_seconds: int = PATIENCE) -> None:
    """Call `attempt` once a second until it gives True; its argument tells the last try."""
    start = time.monotonic()
    while time.monotonic() - start < timeout_seconds:
        if attempt(False):
            return
        time.sleep(1)
    elapsed = time.monotonic() - start
    if not attempt(True):
        raise RequestedAssertionFailed(
            f"action timed out after {elapsed:.2f} seconds (timeout={timeout_seconds})"
        )


@dataclass
class Machine:
    """One guest.

    Attributes:
        name: Its host name, and its name in scripts.
        image: Directory with disk.img, vmlinuz and initrd (see `build-image`).
        folder: What is this machine's own: its disk's changes, its sockets, its console's log.
        files: What is in the guest before its systemd starts: path without a leading / to (mode, content).
        vlan: The network of eth1.
        index: Its place among the machines of a test, from 1: its address is 192.168.1.<index>.
        programs: A disk that it may only read (see `real_programs`), or None.
        memory: In MiB.
        cores: One, as NixOS test machines have: with two emulated ones the kernel panicked at boot now and then (twice
            in some twenty boots under QEMU 7.2), where it patches code that the other one runs, or uses cmpxchg16b.
        log: Takes each line that tells what is being done.

    """

    name: str
    image: Path
    folder: Path
    files: dict[str, tuple[int, bytes]]
    vlan: Vlan
    index: int = 1
    programs: Path | None = None
    memory: int = 1024
    cores: int = 1
    qemu: Path = Path("/usr/bin")
    log: Callable[[str], None] = print
    process: subprocess.Popen[bytes] | None = None
    shell: socket.socket | None = field(default=None, repr=False)
    connected: bool = False
    boot_seconds: float = 0
    _qmp: socket.socket | None = field(default=None, repr=False)
    _received: bytes = b""

    # --- its power -----------------------------------------------------------------------------------

    def start(self, allow_reboot: bool = False) -> None:
        """Switch it on, without waiting for it to boot."""
        if self.process is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        disk = self.folder / "disk.qcow2"
        if not disk.exists():
            create = [self.qemu / "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw"]
            subprocess.run([*create, "-b", self.image / "disk.img", disk], check=True)
        (self.folder / "initrd").write_bytes(appended((self.image / "initrd").read_bytes(), self.files))
        listening = {}
        for kind in ("shell", "qmp"):
            path = self.folder / kind
            path.unlink(missing_ok=True)
            listening[kind] = socket.socket(socket.AF_UNIX)
            listening[kind].bind(str(path))
            listening[kind].listen(1)
            listening[kind].settimeout(60)
        self.log(f"{self.name}: switched on")
        with (self.folder / "console.log").open("ab") as console:
            self.process = subprocess.Popen(
                self._command(disk, allow_reboot),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        self._switched_on = time.monotonic()
        try:
            self.shell, _ = listening["shell"].accept()
            self._qmp, _ = listening["qmp"].accept()
        except TimeoutError:
            self.release()
            raise MachineError(f"{self.name}: QEMU does not start: {self.console()[-2000:]}") from None
        finally:
            for listener in listening.values():
                listener.close()
        self._qmp.settimeout(60)
        self._answer()
        self._monitor("qmp_capabilities")

    def _command(self, disk: Path, allow_reboot: bool) -> list[str]:
        own, hub = self.vlan.plug(self.name)
        mac = f"52:54:00:12:01:{self.index:02x}"
        command = [
            # It ends with whoever runs the test, however that ends.
            "setpriv --pdeathsig KILL",
            f"{self.qemu}/qemu-system-x86_64 -accel tcg,thread=multi -cpu max,-cx16 -smp {self.cores} -m {self.memory}",
            "-nodefaults -no-user-config -display none -serial stdio",
            f"-kernel {self.image}/vmlinuz -initrd {self.folder}/initrd",
            f"-drive if=virtio,format=qcow2,file={disk}",
            f"-drive if=virtio,format=raw,readonly=on,file={self.programs}" if self.programs else "",
            "-device virtio-rng-pci -device virtio-serial",
            f"-chardev socket,id=shell,path={self.folder}/shell -device virtconsole,chardev=shell",
            f"-chardev socket,id=qmp,path={self.folder}/qmp -mon chardev=qmp,mode=control",
            f"-netdev dgram,id=vlan1,local.type=unix,local.path={own},remote.type=unix,remote.path={hub}",
            f"-device virtio-net-pci,id=eth1,netdev=vlan1,mac={mac}",
            "" if allow_reboot else "-no-reboot",
        ]
        kernel = "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet systemd.show_status=false panic=1"
        # The only network is named as upstream names the first one between machines.
        return [*shlex.split(" ".join(command)), "-append", f"{kernel} ifname=eth1:{mac}"]

    def is_up(self) -> bool:
        """Tell whether it is on and its shell answers."""
        return self.process is not None and self.connected

    def crash(self) -> None:
        """Cut its power: what it has not written is lost."""
        if self.process is None:
            return
        self.log(f"{self.name}: power cut")
        # The answer may not come any more.
        with contextlib.suppress(OSError, ValueError):
            self._monitor("quit")
        self.wait_for_shutdown()

    def shutdown(self) -> None:
        """Shut it down in order, and wait until it is off."""
        if self.process is None:
            return
        self.connect()
        self._send("poweroff\n")
        self.wait_for_shutdown()

    def wait_for_shutdown(self) -> None:
        """Wait until it is off; does not begin it."""
        if self.process is None:
            return
        self.process.wait(timeout=PATIENCE)
        self._off()

    def release(self) -> None:
        """End it for good, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self._off()

    def _off(self) -> None:
        for end in (self.shell, self._qmp):
            if end is not None:
                end.close()
        self.process = self.shell = self._qmp = None
        self.connected = False
        self._received = b""

    def block(self) -> None:
        """Unplug the cable to the other machines."""
        self._monitor("set_link", name="eth1", up=False)

    def unblock(self) -> None:
        """Plug it in again."""
        self._monitor("set_link", name="eth1", up=True)

    def _monitor(self, command: str, **arguments) -> None:
        if self._qmp is None:
            raise MachineError(f"{self.name} is off: it cannot {command}")
        words = {"execute": command, "arguments": arguments}
        self._qmp.sendall(json.dumps(words).encode() + b"\n")
        while True:
            answer = self._answer()
            if "error" in answer:
                raise MachineError(f"{self.name}: QEMU refuses {command}: {answer['error']}")
            if "return" in answer:
                return

    def _answer(self) -> dict:
        line = b""
        while not line.endswith(b"\n"):
            got = self._qmp.recv(1)
            if not got:
                raise ConnectionResetError("QEMU is gone")
            line += got
        return json.loads(line)

    # --- its shell -----------------------------------------------------------------------------------

    def connect(self) -> None:
        """Wait for the root shell."""
        if self.connected:
            return
        self.start()
        self._until(ANNOUNCEMENT, BOOT)
        # The console may still emit what a terminal does at its start: only what comes after this counts.
        self._send("echo in''sync\n")
        self._until(b"insync\n", 60)
        self.connected = True
        self.boot_seconds = time.monotonic() - self._switched_on
        self.log(f"{self.name}: its shell answers after {self.boot_seconds:.0f} s")

    def _until(self, mark: bytes, seconds: float) -> bytes:
        """Give what the shell says up to and with `mark`."""
        end = time.monotonic() + seconds
        while mark not in self._received:
            remaining = end - time.monotonic()
            self.shell.settimeout(max(remaining, 0.01))
            try:
                got = self.shell.recv(1 << 16)
            except TimeoutError:
                got = None
            except ConnectionError:
                got = b""
            if got is None or remaining <= 0:
                raise MachineError(
                    f"{self.name}: no answer from its shell for {seconds:.0f} s\n{self.console()[-3000:]}"
                )
            if not got:
                raise self._gone()
            self._received += got
        said, _, self._received = self._received.partition(mark)
        return said + mark

    def _gone(self) -> MachineError:
        return MachineError(f"{self.name}: its shell is gone\n{self.console()[-3000:]}")

    def _send(self, text: str) -> None:
        self.shell.settimeout(PATIENCE)
        try:
            self.shell.sendall(text.encode())
        except ConnectionError:
            raise self._gone() from None

    def execute(
        self,
        command: str,
        check_return: bool = True,
        check_output: bool = True,
        timeout: int | None = PATIENCE,
    ) -> tuple[int, str]:
        """Run a command under `set -euo pipefail` and give (exit code, standard output).

        It ends when its standard output is closed by everything that holds it. Without `check_output` it gives
        (-2, "") at once, without `check_return` (-1, output). A command that takes longer than `timeout` ends
        with 124.
        """
        self.connect()
        limit = f"timeout {timeout} " if timeout is not None else ""
        words = shlex.quote(f"set -euo pipefail; {command}")
        self._send(f"{limit}bash -c {words} | (base64 -w 0; echo)\n")
        if not check_output:
            return -2, ""
        patience = 3600 if timeout is None else timeout + 60
        output = base64.b64decode(self._until(b"\n", patience)).decode(errors="replace")
        if not check_return:
            return -1, output
        self._send("echo ${PIPESTATUS[0]}\n")
        return int(self._until(b"\n", 60)), output

    def succeed(self, *commands: str, timeout: int | None = None) -> str:
        """Run commands that must exit with 0; give what they print."""
        output = ""
        for command in commands:
            status, printed = self.execute(command, timeout=timeout)
            if status != 0:
                self.log(f"{self.name}: output: {printed}")
                raise RequestedAssertionFailed(
                    f"command `{command}` failed (exit code {status})\n{printed[-3000:]}"
                )
            output += printed
        return output

    def fail(self, *commands: str, timeout: int | None = None) -> str:
        """Run commands that must not exit with 0; give what they print."""
        output = ""
        for command in commands:
            status, printed = self.execute(command, timeout=timeout)
            if status == 0:
                raise RequestedAssertionFailed(
                    f"command `{command}` unexpectedly succeeded\n{printed[-3000:]}"
                )
            output += printed
        return output

    def wait_until_succeeds(self, command: str, timeout: int = PATIENCE) -> str:
        """Repeat a command once a second until it exits with 0; give what it printed then."""
        output = ""

        def attempt(_last: bool) -> bool:
            nonlocal output
            status, output = self.execute(command, timeout=timeout)
            return status == 0

        self._patiently(f"`{command}` to succeed", attempt, timeout)
        return output

    def wait_until_fails(self, command: str, timeout: int = PATIENCE) -> str:
        """Repeat a command once a second until it does not exit with 0; give what it printed then."""
        output = ""

        def attempt(_last: bool) -> bool:
            nonlocal output
            status, output = self.execute(command, timeout=timeout)
            return status != 0

        self._patiently(f"`{command}` to fail", attempt, timeout)
        return output

    def _patiently(self, what: str, attempt: Callable[[bool], bool], timeout: int) -> None:
        self.log(f"{self.name}: waiting for {what}")
        try:
            retry(attempt, timeout)
        except RequestedAssertionFailed as error:
            raise RequestedAssertionFailed(f"{self.name}: waiting for {what}: {error}") from None

    def wait_for_file(self, filename: str, timeout: int = PATIENCE) -> None:
        """Wait until a file is there."""
        self._patiently(
            f"the file {filename}", lambda _: self.execute(f"test -e {filename}")[0] == 0, timeout
        )

    def wait_for_open_port(self, port: int, addr: str = "localhost", timeout: int = PATIENCE) -> None:
        """Wait until something listens on a TCP port."""
        self._patiently(
            f"port {port} on {addr}", lambda _: self.execute(f"nc -z {addr} {port}")[0] == 0, timeout
        )

    def wait_for_closed_port(self, port: int, addr: str = "localhost", timeout: int = PATIENCE) -> None:
        """Wait until nothing listens on a TCP port."""
        self._patiently(
            f"port {port} on {addr} to close", lambda _: self.execute(f"nc -z {addr} {port}")[0] != 0, timeout
        )

    def sleep(self, secs: int) -> None:
        """Let so many seconds pass in the guest, whose clock may be slower than the host's."""
        self.succeed(f"sleep {secs}")

    # --- its units -----------------------------------------------------------------------------------

    def systemctl(self, q: str) -> tuple[int, str]:
        """Run systemctl."""
        return self.execute(f"systemctl {q}")

    def get_unit_info(self, unit: str) -> dict[str, str]:
        """Give a unit's properties."""
        status, lines = self.systemctl(f'--no-pager show "{unit}"')
        if status != 0:
            raise RequestedAssertionFailed(
                f'retrieving systemctl info for unit "{unit}" failed with exit code {status}'
            )
        found = (re.match(r"^([^=]+)=(.*)$", line) for line in lines.split("\n"))
        return {match[1]: match[2] for match in found if match}

    def get_unit_property(self, unit: str, property: str) -> str:  # noqa: A002 - upstream's name
        """Give one property of a unit."""
        return self.get_unit_info(unit)[property]

    def wait_for_unit(self, unit: str, timeout: int = PATIENCE) -> None:
        """Wait until a unit is active; one that failed, or is inactive without a job, never will be."""

        def attempt(_last: bool) -> bool:
            state = self.get_unit_property(unit, "ActiveState")
            if state == "failed":
                raise RequestedAssertionFailed(f'unit "{unit}" reached state "{state}"{self._journal(unit)}')
            if state == "inactive":
                _, jobs = self.systemctl("list-jobs --full 2>&1")
                if "No jobs" in jobs and self.get_unit_property(unit, "ActiveState") == state:
                    raise RequestedAssertionFailed(
                        f'unit "{unit}" is inactive and there are no pending jobs{self._journal(unit)}'
                    )
            return state == "active"

        self._patiently(f"the unit {unit}", attempt, timeout)

    def _journal(self, unit: str) -> str:
        return "\n" + self.execute(f"journalctl --no-pager -b -n 20 -u {shlex.quote(unit)} || true")[1]

    def require_unit_state(self, unit: str, require_state: str = "active") -> None:
        """Demand the state that a unit is in."""
        state = self.get_unit_property(unit, "ActiveState")
        if state != require_state:
            raise RequestedAssertionFailed(
                f"Expected unit '{unit}' to to be in state '{require_state}' but it is in state '{state}'"
            )

    def start_job(self, jobname: str) -> tuple[int, str]:
        """Start a unit."""
        return self.systemctl(f"start {jobname}")

    def stop_job(self, jobname: str) -> tuple[int, str]:
        """Stop a unit."""
        return self.systemctl(f"stop {jobname}")

    # --- its files -----------------------------------------------------------------------------------

    def copy_from_host(self, source: str, target: str) -> None:
        """Copy a file or a folder into the guest, with its access rights, as root's."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            archive.add(source, arcname="it", filter=_as_root)
        text = base64.b64encode(packed.getvalue()).decode()
        self.succeed("rm -rf /tmp/.from-host && mkdir -p /tmp/.from-host")
        for start in range(0, len(text), 48_000):
            self.succeed(f"printf %s {text[start : start + 48_000]} >>/tmp/.from-host/packed")
        where = shlex.quote(target)
        self.succeed(
            "base64 -d /tmp/.from-host/packed | tar -xzf - -C /tmp/.from-host",
            f"mkdir -p $(dirname {where}) && cp -rp /tmp/.from-host/it {where} && rm -rf /tmp/.from-host",
        )

    def console(self) -> str:
        """Give what the guest wrote to its serial console in all its lives."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "console.log").read_text(errors="replace")
        return ""


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
