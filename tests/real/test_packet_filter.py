"""What kingpost reads from loaded rules is what the kernel does: real packets against each set of rules."""

from __future__ import annotations

import itertools
import json
import os
import subprocess

import pytest
from tests.real.conftest import require, require_root

from kingpost.observe.packet_filter import Fate, Packet, iptables, nft_fates

COUNTER = itertools.count()

NIXOS_IPTABLES = [
    "-N nixos-fw-accept", "-A nixos-fw-accept -j ACCEPT",
    "-N nixos-fw-refuse", "-A nixos-fw-refuse -j DROP",
    "-N nixos-fw-log-refuse",
    "-A nixos-fw-log-refuse -m pkttype ! --pkt-type unicast -j nixos-fw-refuse",
    "-A nixos-fw-log-refuse -j nixos-fw-refuse",
    "-N nixos-fw",
    "-A nixos-fw -i lo -j nixos-fw-accept",
    "-A nixos-fw -m conntrack --ctstate ESTABLISHED,RELATED -j nixos-fw-accept",
]  # fmt: skip
END = ["-A nixos-fw -j nixos-fw-log-refuse", "-A INPUT -j nixos-fw"]


def nixos(*rules):
    return [*NIXOS_IPTABLES, *rules, *END]


NFT = """
table inet nixos-fw {
  chain input {
    type filter hook input priority filter; policy POLICY;
    iifname { "lo" } accept
    ct state vmap { invalid : drop, established : accept, related : accept, new : jump input-allow }
  }
  chain input-allow {
    RULES
  }
}
"""


def nft(*rules, policy="drop"):
    return NFT.replace("POLICY", policy).replace("RULES", "\n".join(rules))


RULES = {
    "nothing loaded": [],
    "nixos, shut": nixos(),
    "nixos, open on the interface": nixos("-A nixos-fw -p tcp --dport 8083 -i in0 -j nixos-fw-accept"),
    "nixos, open on another": nixos("-A nixos-fw -p tcp --dport 8083 -i docker0 -j nixos-fw-accept"),
    "nixos, open by prefix": nixos("-A nixos-fw -p tcp --dport 8083 -i in+ -j nixos-fw-accept"),
    "nixos, open everywhere": nixos("-A nixos-fw -p tcp --dport 8083 -j nixos-fw-accept"),
    "nixos, a range": nixos("-A nixos-fw -p tcp --dport 8000:8100 -j nixos-fw-accept"),
    "nixos, trusted interface": nixos("-A nixos-fw -i in0 -j nixos-fw-accept"),
    "refused by tcp-reset": ["-A INPUT -p tcp -m tcp --dport 8083 -j REJECT --reject-with tcp-reset"],
    "all but one interface": ["-A INPUT ! -i in0 -p tcp --dport 8083 -j DROP"],
    "several ports": ["-A INPUT -p tcp -m multiport --dports 22,8083 -j DROP"],
    "only new ones dropped": ["-A INPUT -p tcp --syn -j DROP"],
    "returned before the drop": [
        "-N x", "-A x -p tcp --dport 8083 -j RETURN", "-A x -j DROP", "-A INPUT -j x",
    ],
    "goto leaves": ["-N x", "-A x -p udp -j DROP", "-A INPUT -g x", "-A INPUT -j DROP"],
    "nft, shut": nft(),
    "nft, open on the interface": nft('iifname "in0" tcp dport 8083 accept'),
    "nft, open on another": nft('iifname "docker0" tcp dport { 22, 8083 } accept'),
    "nft, a set": nft('iifname { "docker0", "in0" } tcp dport { 22, 8000-8100 } accept'),
    "nft, by prefix": nft('iifname "in*" tcp dport 8083 accept'),
    "nft, not this one": nft('iifname != "in0" accept'),
    "nft, open but for one": nft("tcp dport 8083 reject with tcp reset", policy="accept"),
    "nft, policy accept": nft(policy="accept"),
    "nft, port below 1024": nft("tcp dport 1-1023 accept"),
}  # fmt: skip


def sh(*argv, stdin="", check=True):
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=30)
    assert not check or done.returncode == 0, f"{argv}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def pair():
    """Two namespaces joined by a cable; the near one listens on 8083 and has interface in0."""
    require_root()
    require("netns")
    require("nft")
    prefix = f"kpf{os.getpid()}x{next(COUNTER)}"
    near, far = f"{prefix}a", f"{prefix}b"
    for name in (near, far):
        sh("ip", "netns", "add", name)
    server = None
    try:
        sh("ip", "link", "add", "in0", "netns", near, "type", "veth", "peer", "name", "out0", "netns", far)
        for name, interface, address in ((near, "in0", "10.99.7.1"), (far, "out0", "10.99.7.2")):
            sh("ip", "-n", name, "addr", "add", f"{address}/24", "dev", interface)
            sh("ip", "-n", name, "link", "set", interface, "up")
            sh("ip", "-n", name, "link", "set", "lo", "up")
        listen = "import socket\ns = socket.create_server(('', 8083))\nprint('up', flush=True)\n"
        listen += "while 1: s.accept()[0].close()"
        server = subprocess.Popen([*enter(near), "python3", "-c", listen], stdout=subprocess.PIPE)
        assert server.stdout.readline() == b"up\n"
        yield near, far
    finally:
        if server:
            server.kill()
            server.wait()
            server.stdout.close()
        for name in (near, far):
            sh("ip", "netns", "del", name, check=False)


def enter(name):
    return ["nsenter", f"--net=/run/netns/{name}", "--"]


@pytest.mark.parametrize("name", RULES)
def test_the_kernel_agrees(pair, name):
    near, far = pair
    rules = RULES[name]
    sh(*enter(near), "nft", "flush", "ruleset")
    if isinstance(rules, str):
        sh(*enter(near), "nft", "-f", "-", stdin=rules)
    for rule in rules if isinstance(rules, list) else []:
        sh(*enter(near), "iptables", "-w", *rule.split())
    connect = "import socket; socket.create_connection(('10.99.7.1', 8083), 0.4)"
    reached = sh(*enter(far), "python3", "-c", connect, check=False).returncode == 0
    packet = Packet("in0", 8083)
    fates = []
    if isinstance(rules, list):
        fates.append(iptables(sh(*enter(near), "iptables-save", "-t", "filter").stdout).fate(packet))
    ignored = frozenset({("ip", "filter")}) if isinstance(rules, list) else frozenset()
    document = json.loads(sh(*enter(near), "nft", "-j", "list", "ruleset").stdout)
    fates += nft_fates(document, packet, ignored=ignored)
    assert min(fates, default=Fate.ACCEPTED) is (Fate.ACCEPTED if reached else Fate.DROPPED)
