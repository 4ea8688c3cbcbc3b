"""Servers on loopback whose TLS is right, or wrong in one way each; their authority is made by the test."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = dt.timedelta(days=1)
KINDS = ("good", "self-signed", "unknown-authority", "expired", "not-yet", "other-name", "refused", "plain")


class Authority:
    """An authority of one's own; `bundle` is its certificate, as a file of PEM."""

    def __init__(self, folder, name="a test's authority"):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = self._build(self._name, self._name, self._key.public_key(), -DAY, DAY).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.bundle = folder / "authority.pem"
        self.bundle.write_bytes(
            made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )

    @staticmethod
    def _build(subject, issuer, key, begins, ends):
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
        )

    def issue(self, file, names, *, begins=-DAY, ends=DAY, self_signed=False):
        """Write a certificate with its key for DNS names and addresses; gives the file."""
        import ipaddress

        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        issuer = subject if self_signed else self._name
        alternatives = [
            x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
            for name in names
        ]
        built = self._build(subject, issuer, key.public_key(), begins, ends).add_extension(
            x509.SubjectAlternativeName(alternatives), critical=False
        )
        made = built.sign(key if self_signed else self._key, hashes.SHA256())
        path = self.folder / file
        path.write_bytes(
            made.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return path


class Cache(BaseHTTPRequestHandler):
    """As much of a public binary cache as a probe asks for first."""

    def do_GET(self):
        body = b"StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 41\n"
        self.send_response(200 if self.path.endswith("/nix-cache-info") else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Refusing(threading.Thread):
    """Accepts connections and answers each ClientHello with a fatal alert: handshake_failure."""

    ALERT = b"\x15\x03\x03\x00\x02\x02\x28"

    def __init__(self, bind):
        super().__init__(daemon=True)
        self.socket = socket.create_server((bind, 0))
        self.server_port = self.socket.getsockname()[1]

    def run(self):
        while True:
            try:
                near, _ = self.socket.accept()
            except OSError:
                return
            with near:
                near.settimeout(2)
                try:
                    near.recv(4096)
                    near.sendall(self.ALERT)
                except OSError:
                    continue

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


@contextmanager
def tls_server(authority, kind, bind="127.0.0.1"):
    """Serve a cache; gives its port."""
    if kind == "refused":
        refusing = Refusing(bind)
        refusing.start()
        try:
            yield refusing.server_port
        finally:
            refusing.close()
        return

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            pass  # clients hang up on a certificate that they do not like

    server = Server((bind, 0), Cache)
    if kind != "plain":
        names = ["cache.example"] if kind == "other-name" else [bind, "localhost"]
        times = {
            "expired": {"begins": -2 * DAY, "ends": -DAY / 24},
            "not-yet": {"begins": DAY, "ends": 2 * DAY},
        }.get(kind, {})
        issuer = (
            Authority(authority.folder / "other", "another authority")
            if kind == "unknown-authority"
            else authority
        )
        pem = issuer.issue(f"{kind}.pem", names, self_signed=kind == "self-signed", **times)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
