"""A binary cache over a directory that has one fault, served on loopback: the rows of facts that Nix was seen with.

`Fault` names what is wrong; everything else is served as it lies on disk.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Fault(StrEnum):
    NONE = "none"
    REFUSED = "refused"  # nothing listens
    DENIED_401 = "401"  # everywhere
    DENIED_403 = "403"
    NO_CACHE_INFO = "nix-cache-info 404"
    OTHER_STORE = "other StoreDir"
    NARINFO_403 = "narinfo 403"
    NARINFO_HTML = "narinfo is HTML"
    HTML = "a page for everything"
    NARINFO_500 = "narinfo 500"
    BUSY_503 = "503"
    BUSY_429 = "429"
    CONNECT_HANGS = "connections are not accepted"
    UNSIGNED = "unsigned"  # served soundly: the client's settings make it a fault
    OTHER_KEY = "signed with a key that nobody trusts"
    NAR_EMPTY = "NAR empty, Content-Length 0"
    NAR_NOTHING = "NAR 0 bytes, full Content-Length"
    NAR_OTHER = "valid NAR of another path"
    NAR_CUT = "NAR half, full Content-Length"
    NAR_HALF = "NAR half, consistent length"
    NAR_CORRUPT = "NAR corrupt"
    NAR_500 = "NAR 500"
    NAR_404 = "NAR 404"
    NAR_403 = "NAR 403"
    NAR_HANGS = "NAR never answers"
    NAR_STALLS = "NAR stalls"
    HANGS = "never answers"


def make_handler(directory, fault, requests):  # noqa: C901 - one line per fault
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):  # noqa: C901 - one line per fault
            requests.append(self.path)
            name = self.path.lstrip("/")
            kind = "nar" if name.startswith("nar/") else "narinfo" if name.endswith(".narinfo") else "info"
            if fault is Fault.HANGS or (fault is Fault.NAR_HANGS and kind == "nar"):
                time.sleep(30)
                return None
            if fault is Fault.HTML:
                return self.send(200, b"<html>hello</html>")
            whole = {Fault.DENIED_401: 401, Fault.DENIED_403: 403, Fault.BUSY_503: 503, Fault.BUSY_429: 429}
            if fault in whole:
                return self.send(whole[fault], b"oops")
            if kind == "info" and fault is Fault.NO_CACHE_INFO:
                return self.send(404, b"")
            if kind == "info" and fault is Fault.OTHER_STORE:
                return self.send(200, b"StoreDir: /other/store\n")
            if kind == "narinfo" and fault is Fault.NARINFO_HTML:
                return self.send(200, b"<html>hello</html>")
            if kind == "narinfo" and fault in {Fault.NARINFO_403, Fault.NARINFO_500}:
                return self.send(403 if fault is Fault.NARINFO_403 else 500, b"oops")
            whole = {Fault.NAR_403: 403, Fault.NAR_404: 404, Fault.NAR_500: 500}
            if kind == "nar" and fault in whole:
                return self.send(whole[fault], b"oops")
            try:
                body = (directory / name).read_bytes()
            except (OSError, ValueError):
                return self.send(404, b"")
            if fault is Fault.NAR_OTHER and kind == "nar":
                body = next(
                    other for nar in sorted(directory.glob("nar/*")) if (other := nar.read_bytes()) != body
                )
            if fault is Fault.OTHER_KEY and kind == "narinfo":
                body += f"Sig: other-1:{'A' * 86}==\n".encode()
            return self.nar(body) if kind == "nar" else self.send(200, body)

        def nar(self, body):
            half = body[: len(body) // 2]
            if fault is Fault.NAR_EMPTY:
                return self.send(200, b"")
            if fault is Fault.NAR_HALF:
                return self.send(200, half)
            if fault is Fault.NAR_CORRUPT:
                return self.send(200, half + bytes(b ^ 0x55 for b in body[len(half) :]))
            if fault in {Fault.NAR_NOTHING, Fault.NAR_CUT, Fault.NAR_STALLS}:
                self.send(200, b"" if fault is Fault.NAR_NOTHING else half, length=len(body))
                if fault is Fault.NAR_STALLS:
                    time.sleep(30)
                self.close_connection = True
                return None
            return self.send(200, body)

        def send(self, status, body, length=None):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

        def log_message(self, *args):
            pass

    return Handler


@contextmanager
def bad_cache(directory, fault):
    """Serve a cache directory with a fault; gives (URL, list of requested paths)."""
    requests = []
    if fault is Fault.REFUSED:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{closed.getsockname()[1]}", requests
        return

    if fault is Fault.CONNECT_HANGS:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            waiting = [
                socket.socket() for _ in range(4)
            ]  # they fill the queue; who comes later gets no answer
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            yield f"http://127.0.0.1:{full.getsockname()[1]}", requests
            for one in waiting:
                one.close()
        return

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            pass  # the client hangs up on a fault

    server = Server(("127.0.0.1", 0), make_handler(directory, fault, requests))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()
