"""A platform in network namespaces: what a topology declares, made of real veths, bridges, iptables and Docker.

Each host is a namespace with the interfaces that the topology names. Each network is a bridge in a namespace of
its own that the hosts on it are plugged into. Docker hosts run a real dockerd (own data root, own socket) with
the declared `bip`. Clusters are imitated at the level that matters to a socket: pods behind the CNI bridge,
masqueraded, with kube-proxy's DNAT for cluster IPs and node ports. Firewalls are NixOS's: loopback, established
connections and the computed openings are accepted, the rest is dropped. Listeners are real servers bound to the
computed address that answer only the Host headers they are configured to accept, as atticd does.

Everything is named after this process and gone when the world is closed.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from kingpost.topology.places import ClusterSocket, Context, Dialer, HostSocket, Namespace

if TYPE_CHECKING:
    from kingpost.topology.platform import Platform

COUNTER = itertools.count()

SERVER = """
import http.server, json, sys
name, bind, port, allowed = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        host = self.headers.get("Host", "")
        body = (name if not allowed or host in allowed else "Bad Host " + host).encode()
        self.send_response(200 if body == name.encode() else 400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer.allow_reuse_address = True
http.server.ThreadingHTTPServer((bind, port), Handler).serve_forever()
"""

FORWARD = """
import socket, sys, threading
listen, target = sys.argv[1].split(":"), sys.argv[2].split(":")
fd = int(sys.argv[3])  # /run/netns/... of the far end: an ssh tunnel's other half
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
server = socket.create_server((listen[0], int(listen[1])))
def pump(a, b):
    while data := a.recv(65536): b.sendall(data)
    b.shutdown(socket.SHUT_WR)
def serve(near):
    assert libc.setns(fd, 0x40000000) == 0  # this thread now dials from the far end's namespace
    far = socket.create_connection((target[0], int(target[1])), 3)
    threading.Thread(target=pump, args=(far, near), daemon=True).start()
    pump(near, far)
while True:
    near, _ = server.accept()
    threading.Thread(target=serve, args=(near,), daemon=True).start()
"""


@dataclass(frozen=True)
class Answer:
    """What a dialer got: the body of a 200, or why not."""

    body: str
    error: str


def sh(*argv, check=True, timeout=60, **options):
    done = subprocess.run(
        [str(a) for a in argv], capture_output=True, text=True, check=False, timeout=timeout, **options
    )
    assert not check or done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"
    return done


class World:
    """A running platform.

    Args:
        platform: What to build.
        servers: Instead of the plain server, run attic_like.py with this configuration, by service.
        binds: Bind a service to another address than the computed one.
        open_ports: Firewall openings instead of the computed ones, by host.
        tailscaled: Whether the hosts on a tailnet have tailscaled's own rules.

    """

    def __init__(
        self, platform: Platform, *, servers=None, binds=None, open_ports=None, tailscaled=True
    ) -> None:
        self.platform = platform
        self.servers = servers or {}
        self.binds = binds or {}
        self.open_ports = open_ports or {}
        self.tailscaled = tailscaled
        self.topology = platform.topology
        self.prefix = f"kp{os.getpid() % 100000}x{next(COUNTER)}"
        self._stack = ExitStack()
        self._links = itertools.count(1)
        self._dockers: dict[str, Path] = {}
        self._pods: dict[str, str] = {}
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="kp-world-")))

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_exc) -> None:
        self._stack.close()

    # --- building -----------------------------------------------------------------------------------------

    def _build(self) -> None:
        for host in self.topology.hosts:
            self._namespace(f"h-{host}")
        self._build_networks()
        for host, declared in self.topology.hosts.items():
            if declared.docker:
                self._start_docker(host)
        for cluster in self.topology.clusters:
            self._build_cluster(cluster)
        for host in self.topology.hosts:
            self._firewall(host)
        self._start_servers()
        self._start_tunnels()

    def netns(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def enter(self, name: str) -> list[str]:
        """Give the argv prefix that runs a command in a namespace; mounts stay as they are."""
        return ["nsenter", f"--net=/run/netns/{self.netns(name)}", "--"]

    def _namespace(self, name: str) -> None:
        sh("ip", "netns", "add", self.netns(name))
        self._stack.callback(sh, "ip", "netns", "del", self.netns(name), check=False)
        sh(*self.enter(name), "ip", "link", "set", "lo", "up")

    def _plug(self, name: str, interface: str, address: str, switch: str, bridge: str) -> None:
        """Join a namespace to a bridge in another one."""
        end = f"{self.prefix[-6:]}v{next(self._links)}"
        sh("ip", "link", "add", end, "netns", self.netns(switch), "type", "veth",
           "peer", "name", interface, "netns", self.netns(name))  # fmt: skip
        sh(*self.enter(switch), "ip", "link", "set", end, "master", bridge, "up")
        sh(*self.enter(name), "ip", "addr", "add", address, "dev", interface)
        sh(*self.enter(name), "ip", "link", "set", interface, "up")

    def _build_networks(self) -> None:
        for name, network in self.topology.networks.items():
            switch = f"n-{name}"
            self._namespace(switch)
            sh(*self.enter(switch), "ip", "link", "add", "br0", "type", "bridge")
            sh(*self.enter(switch), "ip", "link", "set", "br0", "up")
            prefix = network.cidr.prefixlen if network.cidr else 16
            for host, declared in self.topology.hosts.items():
                if address := declared.addresses.get(name):
                    interface = address.interface or network.default_interface
                    self._plug(f"h-{host}", interface, f"{address.ip}/{prefix}", switch, "br0")
            if f"peer:{name}" in self.platform.contexts:
                anyone = next(
                    h.addresses[name].ip for h in self.topology.hosts.values() if name in h.addresses
                )
                self._namespace(f"p-{name}")
                self._plug(f"p-{name}", "eth0", f"{anyone + 77}/{prefix}", switch, "br0")

    def _start_docker(self, host: str) -> None:
        docker = self.topology.hosts[host].docker
        root = self.directory / f"docker-{host}"
        root.mkdir()
        pools = [{"base": str(pool.base), "size": pool.size} for pool in docker.pools]
        (root / "daemon.json").write_text(
            json.dumps({"bip": str(docker.bip), "default-address-pools": pools})
        )
        socket = root / "docker.sock"
        self._dockers[host] = socket
        # Where / is a private mount, as in a container, dockerd also binds its data root over itself
        # (moby daemon/daemon_linux.go, setupDaemonRootPropagation).
        mounts = f"{root}/data/* {root}/exec/* {root}/data"
        self._stack.callback(sh, "sh", "-c", f"umount -l {mounts} 2>/dev/null || true")
        self._spawn(
            f"h-{host}", "dockerd", "--data-root", root / "data", "--exec-root", root / "exec",
            "-H", f"unix://{socket}", "--pidfile", root / "pid", "--config-file", root / "daemon.json",
            log=root / "log", stop_timeout=30,
        )  # fmt: skip
        for _ in range(120):
            if sh("docker", "-H", f"unix://{socket}", "version", check=False).returncode == 0:
                break
            time.sleep(0.25)
        else:
            raise AssertionError((root / "log").read_text()[-3000:])
        sh("sh", "-c", f"tar -C {self._image()} -c . | docker -H unix://{socket} import - dialler:kp")

    def _image(self) -> Path:
        """Make a root with a shell and curl: the host's own, with the libraries that it is linked to.

        Debian's static busybox cannot do it: its wget crashes in glibc's name service.
        """
        image = self.directory / "image"
        if image.exists():
            return image
        (image / "bin").mkdir(parents=True)
        (image / "etc").mkdir()
        (image / "etc" / "nsswitch.conf").write_text("hosts: files\n")
        sh("cp", shutil.which("busybox"), image / "bin" / "sh")
        sh("cp", shutil.which("curl"), image / "bin" / "curl")
        for word in sh("ldd", shutil.which("curl")).stdout.split():
            if word.startswith("/"):
                (image / word[1:]).parent.mkdir(parents=True, exist_ok=True)
                sh("cp", "-L", word, image / word[1:])
        return image

    def _build_cluster(self, name: str) -> None:
        """Imitate a CNI bridge with one pod, masquerading, and kube-proxy's DNAT."""
        cluster = self.topology.clusters[name]
        node, pod = f"h-{cluster.host}", f"pod-{name}"
        gateway = cluster.pod_network.network_address + 1
        prefix = cluster.pod_network.prefixlen
        self._namespace(pod)
        sh(*self.enter(node), "ip", "link", "add", cluster.interface, "type", "bridge")
        sh(*self.enter(node), "ip", "addr", "add", f"{gateway}/{prefix}", "dev", cluster.interface)
        sh(*self.enter(node), "ip", "link", "set", cluster.interface, "up")
        self._plug(pod, "eth0", f"{gateway + 1}/{prefix}", node, cluster.interface)
        sh(*self.enter(pod), "ip", "route", "add", "default", "via", gateway)
        sh(*self.enter(node), "sysctl", "-qw", "net.ipv4.ip_forward=1")
        rules = [
            f"-t nat -A POSTROUTING -s {cluster.pod_network} ! -o {cluster.interface} -j MASQUERADE",
            f"-I FORWARD -i {cluster.interface} -j ACCEPT",
            f"-I FORWARD -o {cluster.interface} -j ACCEPT",
        ]
        names = []
        for number, service in enumerate(self.platform.services.values()):
            location = service.location
            if not isinstance(location, ClusterSocket) or location.cluster != name:
                continue
            # The server's pod, the Service's cluster IP, and the node port.
            server, address = f"{pod}-{number}", gateway + 10 + number
            self._namespace(server)
            self._plug(server, "eth0", f"{address}/{prefix}", node, cluster.interface)
            sh(*self.enter(server), "ip", "route", "add", "default", "via", gateway)
            self._pods[service.ref] = server
            cluster_ip = cluster.service_network.network_address + 10 + number
            names.append(f"{cluster_ip} {location.service}.{location.namespace}.svc.{cluster.domain}")
            rules += [
                (
                    f"-t nat -A PREROUTING -d {cluster_ip} -p tcp --dport {location.port}"
                    f" -j DNAT --to {address}:{location.port}"
                ),
                f"-t nat -A POSTROUTING -s {cluster.pod_network} -d {address} -j MASQUERADE",
            ]
            if location.node_port:
                for chain in ("PREROUTING", "OUTPUT"):
                    rules.append(
                        f"-t nat -A {chain} -m addrtype --dst-type LOCAL -p tcp --dport {location.node_port}"
                        f" -j DNAT --to {address}:{location.port}"
                    )
        for rule in rules:
            sh(*self.enter(node), "iptables", "-w", *rule.split())
        (self.directory / f"hosts-{name}").write_text("127.0.0.1 localhost\n" + "\n".join(names) + "\n")

    def _firewall(self, host: str) -> None:
        """Lay down what NixOS's firewall module would (nixos/modules/services/networking/firewall-iptables.nix)."""
        rules = [
            "-N nixos-fw",
            "-A nixos-fw -i lo -j ACCEPT",
            "-A nixos-fw -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
            *(
                f"-A nixos-fw -p tcp --dport {port} -i {interface} -j ACCEPT"
                for interface, ports in self.open_ports.get(host, self.platform.firewall(host)).items()
                for port in ports
            ),
            "-A nixos-fw -p tcp --syn -j DROP",
            "-A INPUT -j nixos-fw",
            *self._tailscaled(host),
        ]
        for rule in rules:
            sh(*self.enter(f"h-{host}"), "iptables", "-w", *rule.split())

    def _tailscaled(self, host: str) -> list[str]:
        """Give tailscaled's own rules (tailscale util/linuxfw): its chain comes first and accepts its interface."""
        interfaces = [
            address.interface or self.topology.networks[name].default_interface
            for name, address in self.topology.hosts[host].addresses.items()
            if self.topology.networks[name].kind == "tailnet"
        ]
        if not (interfaces and self.tailscaled):
            return []
        return [
            "-N ts-input",
            *(f"-A ts-input -i {name} -j ACCEPT" for name in interfaces),
            "-I INPUT -j ts-input",
        ]

    def _start_servers(self) -> None:
        for service in self.platform.services.values():
            allowed = list(self.platform.allowed_hosts(service.name)) if service.kind == "attic" else []
            if isinstance(service.location, HostSocket):
                listener = self.platform.listeners[service.ref]
                bind = self.binds.get(service.ref, str(listener.bind))
                self._serve(f"h-{listener.host}", service.ref, bind, listener.port, allowed)
            elif isinstance(service.location, ClusterSocket):
                self._serve(self._pods[service.ref], service.ref, "0.0.0.0", service.location.port, allowed)

    def _serve(self, namespace: str, ref: str, bind: str, port: int, allowed: list[str]) -> None:
        if ref in self.servers:
            config = {"allowed": allowed, **self.servers[ref], "bind": bind, "port": port}
            self._spawn(namespace, "python3", Path(__file__).with_name("attic_like.py"), json.dumps(config))
        else:
            self._spawn(namespace, "python3", "-c", SERVER, ref, bind, port, json.dumps(allowed))
        target = "127.0.0.1" if bind == "0.0.0.0" else bind
        for _ in range(100):
            probe = sh(*self.enter(namespace), "python3", "-c",
                       f"import socket; socket.create_connection(('{target}', {port}), 1)", check=False)  # fmt: skip
            if probe.returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError(f"{ref} does not listen on {bind}:{port}")

    def _start_tunnels(self) -> None:
        """Forward like `ssh -L`: listen in one namespace, dial in the other."""
        for tunnel in self.topology.tunnels.values():
            service = self.platform.find_service(tunnel.service)
            listener = self.platform.listeners[service.ref]
            far = "127.0.0.1" if str(listener.bind) == "0.0.0.0" else str(listener.bind)
            netns = os.open(f"/run/netns/{self.netns(f'h-{listener.host}')}", os.O_RDONLY)
            self._stack.callback(os.close, netns)
            listen = f"{tunnel.listen[0]}:{tunnel.listen[1]}"
            self._spawn(f"h-{tunnel.host}", "python3", "-c", FORWARD, listen, f"{far}:{listener.port}", netns,
                        pass_fds=[netns])  # fmt: skip
        time.sleep(0.5)

    def _spawn(self, namespace: str, *argv, log: Path | None = None, stop_timeout=5, pass_fds=()) -> None:
        with (log or Path(os.devnull)).open("w") as output:
            process = subprocess.Popen(
                [*self.enter(namespace), *map(str, argv)], stdout=output, stderr=output, pass_fds=pass_fds
            )

        def stop() -> None:
            process.terminate()
            try:
                process.wait(stop_timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

        self._stack.callback(stop)

    # --- dialling -----------------------------------------------------------------------------------------

    def dial(self, context: Context, dialer: Dialer, url: str, timeout: int = 2) -> Answer:
        """Fetch a URL as this dialer, from its namespace: with a real container where it is one."""
        return self.dial_from(context.namespace(dialer), url, timeout)

    def dial_from(self, namespace: Namespace, url: str, timeout: int = 2) -> Answer:
        if namespace.kind in {"bridge", "per-build"}:
            return self._dial_from_container(namespace, url, timeout)
        name = {"host": "h", "peer": "p", "pod": "pod"}[namespace.kind] + f"-{namespace.owner}"
        command = curl(url, timeout)
        if namespace.kind == "pod":
            hosts = self.directory / f"hosts-{namespace.owner}"
            bind = f"mount --bind {hosts} /etc/hosts && exec " + " ".join(f"'{word}'" for word in command)
            command = ["unshare", "-m", "sh", "-c", bind]
        done = sh(*self.enter(name), *command, check=False)
        return Answer(done.stdout, "" if done.returncode == 0 else done.stderr.strip())

    def _dial_from_container(self, namespace: Namespace, url: str, timeout: int) -> Answer:
        docker = ["docker", "-H", f"unix://{self._dockers[namespace.owner]}"]
        network = ["--network", "bridge"]
        if namespace.kind == "per-build":
            # As gitlab-runner does with FF_NETWORK_PER_BUILD, and `extra_hosts` as kingpost renders it.
            name = f"build-{next(self._links)}"
            sh(*docker, "network", "create", name)
            network = ["--network", name, "--add-host", "host.docker.internal:host-gateway"]
        try:
            done = sh(*docker, "run", "--rm", *network, "dialler:kp", *curl(url, timeout), check=False)
        finally:
            if namespace.kind == "per-build":
                sh(*docker, "network", "rm", name)
        return Answer(done.stdout, "" if done.returncode == 0 else done.stderr.strip())

    def docker(self, host: str) -> tuple[str, ...]:
        """Give the docker client's arguments for a host's engine."""
        return ("docker", "-H", f"unix://{self._dockers[host]}")

    def is_ours(self, ref: str) -> bool:
        """Tell whether a service runs in this world (others are on the internet, which it has not)."""
        return isinstance(self.platform.services[ref].location, (HostSocket, ClusterSocket))


def curl(url: str, timeout: int) -> list[str]:
    return ["curl", "-sS", "-f", "-m", str(timeout), "--noproxy", "*", url]
