"""A real sshd on loopback with keys and configuration of its own, gone when the test ends."""

import os
import shlex
import socket
import subprocess
import time
from contextlib import contextmanager


class Sshd:
    """A running sshd.

    Attributes:
        port: Where it listens on 127.0.0.1.
        options: The words that make `ssh` use its keys and nothing of this machine.
        log: What it wrote.

    """

    def __init__(self, folder, bin_directory, environment, before="true"):
        self.folder, self._before = folder, before
        self._bin = bin_directory
        for name in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name],
                check=True,
                capture_output=True,
            )
        (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        words = " ".join(f'"{name}={value}"' for name, value in environment.items())
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"
            f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPrintMotd no\nSetEnv {words}\n"
        )
        host_key = (folder / "host.pub").read_text().split()[:2]
        (folder / "known").write_text(f"[127.0.0.1]:{self.port} {' '.join(host_key)}\n")
        self.options = [
            *("-F", "none", "-i", str(folder / "user"), "-p", str(self.port)),
            *(
                "-o",
                f"UserKnownHostsFile={folder}/known",
                "-o",
                "IdentitiesOnly=yes",
                "-o",
                "IdentityAgent=none",
            ),
        ]
        self.log = folder / "log"
        self._process = None

    @property
    def nix_sshopts(self):
        return shlex.join(self.options)

    def start(self):
        argv = [self._bin / "sshd", "-D", "-e", "-f", self.folder / "sshd_config"]
        if os.geteuid() == 0:
            # sshd of root wants an empty /run/sshd: one of its own, for others may come and go beside it.
            script = f'mount -t tmpfs none /run && mkdir -m 755 /run/sshd && {self._before} && exec "$@"'
            argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *argv]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=log)
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def stop(self):
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


@contextmanager
def running(folder, bin_directory, environment, before="true"):
    """Run an sshd whose sessions have this environment, in mounts of its own that `before` may change (as root)."""
    folder.mkdir()
    server = Sshd(folder, bin_directory, environment, before)
    try:
        server.start()
        yield server
    finally:
        server.stop()
