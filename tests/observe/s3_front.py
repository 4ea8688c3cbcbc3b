"""A front before a real S3 server that loses sight of buckets, and fails requests, on demand.

What RustFS did in the incident: buckets vanish from ListBuckets and every request for them answers NoSuchBucket,
while their directories stay on the disk. Here a bucket is hidden while `hidden/<bucket>` exists, so that another
process (an imitated systemctl or kubectl) can end it by deleting the file.
"""

from __future__ import annotations

import http.client
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

NO_SUCH_BUCKET = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>NoSuchBucket</Code>'
    "<Message>The specified bucket does not exist</Message></Error>"
)
INTERNAL = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>InternalError</Code><Message>broken</Message></Error>'
)

KEPT = {"content-type", "etag", "last-modified", "accept-ranges", "content-range"}


class Front:
    """What the front does: `fail(method, path, query)` gives a status to answer with, or None."""

    def __init__(self, upstream: str, hidden):
        self.upstream = urlsplit(upstream).netloc
        self.hidden = hidden
        self.fail = lambda method, path, query: None
        self.after = lambda method, path: None
        self.log: list[str] = []
        self.url = ""

    def hides(self, bucket: str) -> bool:
        return bool(bucket) and (self.hidden / bucket).exists()

    def forward(self, method, path, headers, body):
        connection = http.client.HTTPConnection(self.upstream, timeout=30)
        try:
            connection.request(method, path, body, {k: v for k, v in headers if k.lower() != "connection"})
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if method == "GET" and urlsplit(path).path == "/":
            for name in self.hidden.iterdir():
                pattern = rb"<Bucket>(?:(?!</Bucket>).)*<Name>%s</Name>.*?</Bucket>" % name.name.encode()
                data = re.sub(pattern, b"", data, flags=re.DOTALL)
        return answer.status, dict(answer.getheaders()), data


@contextmanager
def serve(front: Front):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            size = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(size) if size else b""
            parts = urlsplit(self.path)
            front.log.append(f"{self.command} {self.path}")
            bucket = parts.path.strip("/").split("/")[0]
            if status := front.fail(self.command, parts.path, parts.query):
                return self.reply(status, INTERNAL.encode())
            if front.hides(bucket):
                return self.reply(404, NO_SUCH_BUCKET.encode())
            status, headers, data = front.forward(self.command, self.path, self.headers.items(), body)
            length = headers.get("Content-Length") if self.command == "HEAD" else None
            kept = {name: value for name, value in headers.items() if name.lower() in KEPT}
            self.reply(status, data, kept, length=length)
            front.after(self.command, parts.path)
            return None

        def reply(self, status, data, headers=None, length=None):
            self.send_response_only(status)
            for name, value in (headers or {"Content-Type": "application/xml"}).items():
                self.send_header(name, value)
            if status not in (204, 304):
                self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815 - http.server's names

        def log_message(self, *args):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    front.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield front
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
