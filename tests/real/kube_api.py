"""A stand-in for a Kubernetes API server, for the real kubectl: objects, discovery, and exec over WebSocket.

Shapes after kubernetes.io's API reference; exec after staging/src/k8s.io/apimachinery/pkg/util/remotecommand
(`v5.channel.k8s.io`: the first byte of a message is its channel, 255 closes one). What is executed is executed for
real: by whoever the test says, for example in the network namespace of a pod.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import ssl
import struct
import subprocess
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

STDIN, STDOUT, STDERR, ERROR, CLOSE = 0, 1, 2, 3, 255
MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455
#: Resource: group's path, kind, whether it is in a namespace.
RESOURCES = {
    "pods": ("/api/v1", "Pod", True),
    "configmaps": ("/api/v1", "ConfigMap", True),
    "services": ("/api/v1", "Service", True),
    "resourcequotas": ("/api/v1", "ResourceQuota", True),
    "limitranges": ("/api/v1", "LimitRange", True),
    "persistentvolumeclaims": ("/api/v1", "PersistentVolumeClaim", True),
    "serviceaccounts": ("/api/v1", "ServiceAccount", True),
    "secrets": ("/api/v1", "Secret", True),
    "namespaces": ("/api/v1", "Namespace", False),
    "deployments": ("/apis/apps/v1", "Deployment", True),
    "jobs": ("/apis/batch/v1", "Job", True),
    "roles": ("/apis/rbac.authorization.k8s.io/v1", "Role", True),
    "rolebindings": ("/apis/rbac.authorization.k8s.io/v1", "RoleBinding", True),
}
SINCE = "2026-11-21T00:00:00Z"
BY_KIND = {kind: name for name, (_, kind, _) in RESOURCES.items()}


class Cluster:
    """What the server holds.

    Attributes:
        objects: By (resource, namespace, name).
        token: That a request must bear; None admits everybody.
        forbidden: Namespaces in which everything is refused.
        run: Gives the argument list that runs a command in a pod: (pod, container, command).
        stopped: Containers that do not run.
        configz: What every kubelet says of its configuration.
        execs: What was asked to be run: (path, query).

    """

    def __init__(self, objects=(), *, token=None, forbidden=(), run=None, stopped=(), configz=None):
        self.objects = {}
        self.token, self.forbidden, self.stopped = token, set(forbidden), set(stopped)
        self.run = run or (lambda _pod, _container, command: command)
        self.configz = configz
        self.execs = []
        for one in objects:
            self.put(one)
            if namespace := one["metadata"].get("namespace"):
                self.put({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": namespace}})

    def put(self, one):
        head = one["metadata"]
        self.objects[BY_KIND[one["kind"]], head.get("namespace", ""), head["name"]] = one

    def drop(self, kind, namespace, name):
        del self.objects[BY_KIND[kind], namespace, name]


def stored(manifest, *, ready=1):
    """Give an applied manifest as Kubernetes keeps it: its defaults, its own spelling of amounts, a status.

    Seen with a kube-apiserver 1.34 (tests/real/test_drift_clusters.py runs against one where it is told of one).
    """
    one = json.loads(json.dumps(manifest))
    one["metadata"] |= {"uid": "u", "creationTimestamp": "2026-11-21T00:00:00Z", "resourceVersion": "1"}
    if one["kind"] in {"Deployment", "Job"}:
        inside = one["spec"]["template"]["spec"]
        for container in (*inside.get("initContainers", ()), *inside["containers"]):
            container |= {"terminationMessagePath": "/dev/termination-log", "imagePullPolicy": "IfNotPresent"}
            for amounts in container.get("resources", {}).values():
                amounts |= {name: _canonical(amount) for name, amount in amounts.items()}
        inside |= {"dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler"}
        one["status"] = {"replicas": 1, **({"readyReplicas": ready} if ready else {})}
    if one["kind"] == "Service":
        one["spec"] |= {"clusterIP": "10.43.0.7", "sessionAffinity": "None"}
    return one


def _canonical(amount):
    size = amount.removesuffix("Mi")
    return f"{int(size) // 1024}Gi" if size != amount and int(size) % 1024 == 0 else amount


def free_port():
    """Give a port of loopback that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def pod(namespace, name, *containers, labels=None, phase="Running", **status):
    """Give a pod that runs."""
    names = containers or ("app",)
    return {
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}", "labels": labels or {}},
        "spec": {"containers": [{"name": one, "image": "x"} for one in names]},
        "status": {"phase": phase, "containerStatuses": [
            {"name": one, "restartCount": 0, "lastState": {}, "state": {"running": {"startedAt": SINCE}}}
            for one in names], **status},
    }  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def do_GET(self):
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        if self.cluster.token and self.headers.get("Authorization") != f"Bearer {self.cluster.token}":
            return self.refuse(401, "Unauthorized", "Unauthorized")
        words = parts.path.strip("/").split("/")
        if words[-1] == "exec":
            return self.exec(words[-4], words[-2], query)
        if (found := self.discovery(parts.path)) is not None:
            return self.give(found)
        return self.objects(parts.path, query)

    def do_POST(self):
        self.do_GET()

    def discovery(self, path):
        if path == "/version":
            return {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
        if path.endswith("/proxy/configz"):
            return self.cluster.configz
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        groups = sorted({group for group, _, _ in RESOURCES.values() if group.startswith("/apis/")})
        if path == "/apis":
            entries = []
            for group in groups:
                _, _, name, version = group.split("/")
                version = {"groupVersion": f"{name}/{version}", "version": version}
                entries.append({"name": name, "versions": [version], "preferredVersion": version})
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": entries}
        held = [
            {
                "name": name,
                "singularName": kind.lower(),
                "kind": kind,
                "namespaced": inside,
                "verbs": ["get", "list"],
            }
            for name, (group, kind, inside) in RESOURCES.items()
            if group == path
        ]
        if held:
            version = path.removeprefix("/apis/").removeprefix("/api/")
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": held}
        return None

    def objects(self, path, query):
        words = path.strip("/").split("/")
        words = words[2:] if words[0] == "api" else words[3:]
        namespace = ""
        if words[0] == "namespaces" and len(words) > 2:
            namespace, words = words[1], words[2:]
        if namespace in self.cluster.forbidden:
            what = f'User "test" cannot list resource "{words[0]}" in the namespace "{namespace}"'
            message = f"{words[0]} is forbidden: {what}"
            return self.refuse(403, "Forbidden", message)
        if words[0] not in RESOURCES:
            return self.refuse(404, "NotFound", "the server could not find the requested resource")
        if len(words) == 2:
            found = self.cluster.objects.get((words[0], namespace, words[1]))
            if found is None:
                return self.refuse(404, "NotFound", f'{words[0]} "{words[1]}" not found')
            return self.give(found)
        items = [
            one
            for (kind, where, _), one in self.cluster.objects.items()
            if kind == words[0] and (not namespace or where == namespace) and self.selected(one, query)
        ]
        kind = RESOURCES[words[0]][1]
        return self.give({"kind": f"{kind}List", "apiVersion": "v1", "metadata": {}, "items": items})

    @staticmethod
    def selected(one, query):
        fields = query.get("fieldSelector", [""])[0]
        if fields.startswith("status.phase=") and one["status"]["phase"] != fields.partition("=")[2]:
            return False
        pairs = [pair.partition("=") for pair in query.get("labelSelector", [""])[0].split(",") if pair]
        labels = one["metadata"].get("labels", {})
        return all(labels.get(key) == value for key, _, value in pairs)

    # --- exec ---------------------------------------------------------------------------------------------

    def exec(self, namespace, name, query):
        self.cluster.execs.append((self.path, query))
        found = self.cluster.objects.get(("pods", namespace, name))
        if found is None:
            return self.refuse(404, "NotFound", f'pods "{name}" not found')
        container = query.get("container", [found["spec"]["containers"][0]["name"]])[0]
        if container in self.cluster.stopped:
            # Of the kubelet, passed on.
            return self.refuse(
                500, "InternalError", f'unable to upgrade connection: container not found ("{container}")'
            )
        accept = base64.b64encode(hashlib.sha1((self.headers["Sec-WebSocket-Key"] + MAGIC).encode()).digest())
        self.send_response_only(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept.decode())
        self.send_header("Sec-WebSocket-Protocol", "v5.channel.k8s.io")
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        self.sending = threading.Lock()
        try:
            process = subprocess.Popen(
                self.cluster.run(name, container, query["command"]),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        except FileNotFoundError as error:
            why = f'OCI runtime exec failed: exec: "{error.filename}": executable file not found in $PATH'
            self.end(
                {"reason": "InternalError", "code": 500, "message": f"Internal error occurred: {why}"}
            )  # containerd
            return None
        threading.Thread(target=self.feed, args=(process,), daemon=True).start()
        pumps = [
            threading.Thread(target=self.pump, args=(process.stdout, STDOUT)),
            threading.Thread(target=self.pump, args=(process.stderr, STDERR)),
        ]
        for one in pumps:
            one.start()
        for one in pumps:
            one.join()
        failure = {}
        if code := process.wait():
            causes = [{"reason": "ExitCode", "message": str(code)}]
            failure = {"reason": "NonZeroExitCode", "message": "", "details": {"causes": causes}}
        self.end(failure)
        return None

    def end(self, failure):
        status = {"metadata": {}, **({"status": "Failure", **failure} if failure else {"status": "Success"})}
        self.send(ERROR, json.dumps(status).encode())
        with self.sending:
            self.wfile.write(b"\x88\x02\x03\xe8")  # close, 1000
        self.connection.shutdown(socket.SHUT_WR)

    def pump(self, stream, channel):
        with stream:
            while data := stream.read1(32768):
                self.send(channel, data)

    def send(self, channel, data):
        payload = bytes([channel]) + data
        size = len(payload)
        head = bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", size) if size < 65536 else None
        with self.sending:
            self.wfile.write(b"\x82" + head + payload)

    def feed(self, process):
        """Read what the client sends, until it closes."""
        with suppress(OSError, ValueError), process.stdin:
            while frame := self.frame():
                kind, payload = frame
                if kind == 9:  # ping
                    with self.sending:
                        self.wfile.write(bytes([0x8A, len(payload)]) + payload)
                elif kind == 8:
                    return
                elif payload[:1] == bytes([STDIN]):
                    try:
                        process.stdin.write(payload[1:])
                        process.stdin.flush()
                    except BrokenPipeError:
                        return
                elif payload[:2] == bytes([CLOSE, STDIN]):
                    process.stdin.close()

    def frame(self):
        head = self.rfile.read(2)
        if len(head) < 2:
            return None
        size = head[1] & 0x7F
        if size > 125:
            size = int.from_bytes(self.rfile.read(2 if size == 126 else 8), "big")
        mask = self.rfile.read(4)
        data = self.rfile.read(size)
        return head[0] & 0x0F, bytes(byte ^ mask[n % 4] for n, byte in enumerate(data))

    # --- answers --------------------------------------------------------------------------------------------

    def refuse(self, code, reason, message):
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                  "reason": reason, "code": code}  # fmt: skip
        self.give(status, code)

    def give(self, document, code=200):
        data = json.dumps(document).encode()
        self.send_response_only(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@contextmanager
def serving(cluster, authority):
    """Serve a cluster on loopback, by TLS (kubectl sends a token by nothing else); gives its URL."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            pass  # a client that goes away

    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"cluster": cluster}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue("api.pem", ["127.0.0.1"]))
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def kubectl_words(program, url, authority, home, token="none"):
    """Give the client's argument list: with a configuration of its own, and nothing of this machine."""
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "users": [{"name": "test", "user": {"token": token}}],
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": str(authority.bundle)}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }  # fmt: skip
    file = home / "kubeconfig"
    file.write_text(json.dumps(config))
    return (str(program), "--kubeconfig", str(file), "--cache-dir", str(home / "cache"))
