"""A real S3 server for a test: `rclone serve s3` over a directory, whose directories are the disk's view."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.real.conftest import require

from kingpost.cache.s3 import S3, Credentials, Endpoint

KEY = Credentials("kingpostkingpost1234", "a-secret-key-only-for-tests")


@dataclass
class Served:
    """A running server: its URL, the directory that it serves, and its process."""

    url: str
    data: Path
    process: subprocess.Popen

    def s3(self, url=None):
        return S3(Endpoint(url or self.url, credentials=KEY), connect_timeout=2, read_timeout=10)

    def bucket(self, name):
        """Make a bucket as RustFS keeps it on the disk: its data and its metadata."""
        (self.data / name).mkdir()
        (self.data / ".rustfs.sys" / "buckets" / name).mkdir(parents=True)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


@contextmanager
def rclone_s3(data: Path, *, anonymous: bool = False, prefix: tuple[str, ...] = ()):
    """Run `rclone serve s3` on loopback, in the network that `prefix` enters, until the block ends."""
    data.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    auth = [] if anonymous else ["--auth-key", f"{KEY.access_key},{KEY.secret_key}"]
    process = subprocess.Popen(
        [
            *prefix,
            require("rclone") / "rclone",
            "serve",
            "s3",
            "--addr",
            f"127.0.0.1:{port}",
            *auth,
            str(data),
        ],
        env={**os.environ, "RCLONE_CONFIG": "/dev/null", "HOME": str(data.parent)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    served = Served(f"http://127.0.0.1:{port}", data, process)
    try:
        dial = f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)"
        deadline = time.monotonic() + 20
        while subprocess.run([*prefix, "python3", "-c", dial], capture_output=True, check=False).returncode:
            assert process.poll() is None, "rclone ended"
            assert time.monotonic() < deadline, "rclone does not listen"
            time.sleep(0.05)
        yield served
    finally:
        served.stop()
