"""A program that turns one stream into another, fed by a thread, so that neither side waits for the other."""

from __future__ import annotations

import subprocess
import tempfile
import threading
from contextlib import suppress
from typing import List, Optional

from ..errors import ContentError, StoreFixError
from .nar_parser import BLOCK, Read


class Pipe:
    """Runs a filter such as `zstd -dc`.

    Args:
        argv: The program.
        source: What it reads.

    """

    def __init__(self, argv: List[str], source: Read) -> None:
        self._source = source
        self._fault: Optional[BaseException] = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0
        )
        self._feeder = threading.Thread(target=self._feed, daemon=True)
        self._feeder.start()

    def _feed(self) -> None:
        stdin = self._process.stdin
        if stdin is None:
            raise AssertionError("it was asked for")
        try:
            for block in iter(lambda: self._source(BLOCK), b""):
                view = memoryview(block)
                while view:
                    view = view[stdin.write(view) or 0 :]
        except BrokenPipeError:
            pass  # the program has given up and says why
        except (OSError, StoreFixError) as error:
            self._fault = error
        finally:
            with suppress(OSError):
                stdin.close()

    def read(self, size: int) -> bytes:
        """Give at least one byte, or none at the end.

        Raises:
            ContentError: The program failed; says what it wrote.
            StoreFixError, OSError: The source failed.

        """
        stdout = self._process.stdout
        if stdout is None:
            raise AssertionError("it was asked for")
        block = stdout.read(size)
        if not block:
            self._feeder.join()
            if self._fault is not None:
                raise self._fault
            if self._process.wait():
                self._errors.seek(0)
                said = self._errors.read(2000).decode("utf-8", "replace").strip()
                last = said.splitlines()[-1] if said else ""
                raise ContentError("the compressed data is damaged", why=last)
        return block or b""

    def close(self) -> None:
        """End the program. The thread ends with its source."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()
