"""The network between machines: a hub of datagram sockets, so that nothing of it is on the host's network."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from pathlib import Path


class Vlan:
    """Hands each Ethernet frame that a machine sends to every other one; a machine may go and come back."""

    def __init__(self, folder: Path) -> None:
        """Make the network, with its sockets in `folder` (their paths must be shorter than 108 bytes)."""
        self.folder = folder
        self._ports: dict[str, tuple[socket.socket, Path]] = {}
        self._selector = selectors.DefaultSelector()
        self._wake, other = socket.socketpair()
        self._selector.register(other, selectors.EVENT_READ, None)
        self._other = other
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def plug(self, name: str) -> tuple[Path, Path]:
        """Give (the socket that the machine makes, the hub's end of the cable)."""
        own, hub = self.folder / f"{name}.nic", self.folder / f"{name}.hub"
        own.unlink(missing_ok=True)
        if name not in self._ports:
            hub.unlink(missing_ok=True)
            port = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            port.bind(str(hub))
            port.setblocking(False)
            self._ports[name] = (port, own)
            self._selector.register(port, selectors.EVENT_READ, name)
            self._wake.send(b".")
        return own, hub

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    if self._other.recv(1) == b"x":
                        return
                    continue
                # A frame that does not get through is lost, as on a cable.
                with contextlib.suppress(OSError):
                    frame = key.fileobj.recv(1 << 17)
                    for name, (_, machine) in list(self._ports.items()):
                        if name != key.data:
                            with contextlib.suppress(OSError):
                                self._ports[key.data][0].sendto(frame, str(machine))

    def close(self) -> None:
        """End the network."""
        self._wake.send(b"x")
        self._thread.join()
        for port, machine in self._ports.values():
            port.close()
            machine.unlink(missing_ok=True)
        self._wake.close()
        self._other.close()
        self._selector.close()
