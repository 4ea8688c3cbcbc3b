"""What the modules of a check evaluate to, with real Nix, as the files of a Debian guest."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STAND_IN = ROOT / "tests" / "real" / "nixos-stand-in"
LIB = Path(os.environ.get("NIXPKGS_LIB", STAND_IN / "lib.nix"))
SCRIPTS = "/opt/kingpost/scripts"
"""Where the guest has the scripts that are in the Nix store of a NixOS machine."""

Files = dict[str, tuple[int, bytes]]


@dataclass(frozen=True)
class Check:
    """A check of checks/, evaluated.

    Attributes:
        name: The test's name.
        script: Its Python, which runs with the machines as names.
        nodes: What each machine's configuration became.
        scripts: Every script that the units run, by its path in a guest without the leading /.

    """

    name: str
    script: str
    nodes: dict[str, Any]
    scripts: Files

    def files(self, node: str) -> Files:
        """Give what is in a machine's root before its systemd starts."""
        files = {**guest_files(self.nodes[node], sorted(self.nodes)), **self.scripts}
        text = b"".join(content for _, content in files.values())
        for package in sorted(set(re.findall(rb"/opt/kingpost/([a-z-]+)/(?:bin|libexec)/", text))):
            files |= programs(package.decode())
        return files


def evaluate(nix, check: Path) -> Check:
    """Evaluate a file of checks/ with a real Nix (tests/real/conftest.py).

    KINGPOST_MODULES names other modules than those of this tree: ones that were broken on purpose (mutations.md).
    """
    modules = Path(os.environ.get("KINGPOST_MODULES", ROOT / "modules"))
    expression = (
        f"import {HERE}/nixos/evaluate.nix"
        f" {{ check = {check}; modules = {modules}; standIn = {STAND_IN}; lib = {LIB}; }}"
    )
    out = Path(nix.run("nix-build", "--no-out-link", "-E", expression).stdout.strip())
    closure = nix.run("nix-store", "--query", "--requisites", out).stdout.split()
    store = f"{nix.store}/"

    def moved(text: str) -> str:
        return text.replace(store, f"{SCRIPTS}/")

    scripts = {
        moved(path).lstrip("/"): (Path(path).stat().st_mode & 0o777, moved(Path(path).read_text()).encode())
        for path in closure
        if path != str(out)
    }
    found = json.loads(moved(out.read_text()))
    return Check(found["name"], found["testScript"], found["nodes"], scripts)


def guest_files(node: dict[str, Any], names: list[str]) -> Files:
    """Give the files of one machine: its units, its programs' settings, its addresses."""
    name = node["hostName"]
    files: dict[str, str] = {
        "etc/hostname": f"{name}\n",
        "etc/hosts": "127.0.0.1 localhost\n"
        + "".join(f"192.168.1.{index} {other}\n" for index, other in enumerate(names, 1)),
        "etc/machine-id": f"{names.index(name) + 1:032x}\n",
        "etc/nix/nix.conf": _nix_conf(node["nix"]),
        "etc/tmpfiles.d/00-nixos.conf": "".join(f"{rule}\n" for rule in node["tmpfiles"]),
        "etc/systemd/network/10-vlan.link": "[Match]\nDriver=virtio_net\n\n[Link]\nName=eth1\n",
        "etc/systemd/system/vlan.service": _VLAN.format(index=names.index(name) + 1),
    }
    links: dict[str, str] = {"etc/systemd/system/multi-user.target.wants/vlan.service": "../vlan.service"}
    files |= {f"etc/{path}": text for path, text in node["etc"].items()}
    for kind, units in _kinds(node):
        for unit, options in units.items():
            file, text = _unit(unit, kind, options)
            files[file] = text
            links |= _links(f"{unit}.{kind}", options)
    if node["docker"]["enable"]:
        files["etc/docker/daemon.json"] = json.dumps(node["docker"]["settings"])
        links["etc/systemd/system/multi-user.target.wants/docker.service"] = (
            "/lib/systemd/system/docker.service"
        )
    if node["oomd"]:
        links["etc/systemd/system/multi-user.target.wants/systemd-oomd.service"] = (
            "/lib/systemd/system/systemd-oomd.service"
        )
    if node["firewall"]["enable"]:
        files["etc/systemd/system/firewall.service"] = _FIREWALL
        files["opt/kingpost/firewall"] = _firewall(node["firewall"]["interfaces"])
        links["etc/systemd/system/multi-user.target.wants/firewall.service"] = "../firewall.service"
    made: Files = {path: (0o644, text.encode()) for path, text in files.items()}
    made |= {path: (0o120777, target.encode()) for path, target in links.items()}
    return made


def programs(package: str) -> Files:
    """Give the files of a package that Debian does not have: ours, or what stands in for a server."""
    if package == "store-fix":
        return _store_fix()
    stand_in = HERE / "guest-programs" / package
    (program,) = stand_in.iterdir()
    return {f"opt/kingpost/{package}/bin/{program.name}": (0o755, program.read_bytes())}


def _store_fix() -> Files:
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "kingpost-store-fix.pyz"
        subprocess.run([ROOT / "tools" / "build-pyz", packed], check=True)
        content = packed.read_bytes()
    base = "opt/kingpost/store-fix"
    wrapper = f'#!/bin/sh\nexec /usr/bin/python3 -I /{base}/libexec/kingpost-store-fix.pyz "$@"\n'
    return {
        f"{base}/libexec/kingpost-store-fix.pyz": (0o555, content),
        f"{base}/bin/kingpost-store-fix": (0o555, wrapper.encode()),
        "usr/local/bin/kingpost-store-fix": (0o120777, f"/{base}/bin/kingpost-store-fix".encode()),
    }


_VLAN = """\
[Unit]
Description=Address on the network between the machines
DefaultDependencies=no
After=systemd-udev-settle.service sys-subsystem-net-devices-eth1.device
Wants=sys-subsystem-net-devices-eth1.device network-online.target
Before=network-online.target network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'ip link set eth1 up && ip address replace 192.168.1.{index}/24 dev eth1'
"""

# NixOS's firewall lets in what is on lo, what belongs to a connection, ICMP, and the ports that are declared.
_FIREWALL = """\
[Unit]
Description=Firewall
Before=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -e /opt/kingpost/firewall
"""


def _firewall(interfaces: dict[str, Any]) -> str:
    lines = [
        "iptables -w -N nixos-fw",
        "iptables -w -A nixos-fw -i lo -j ACCEPT",
        "iptables -w -A nixos-fw -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
        "iptables -w -A nixos-fw -p icmp -j ACCEPT",
    ]
    lines += [
        f"iptables -w -A nixos-fw -i {name} -p tcp --dport {port} -j ACCEPT"
        for name, opened in interfaces.items()
        for port in opened["allowedTCPPorts"]
    ]
    return "\n".join([*lines, "iptables -w -A nixos-fw -j DROP", "iptables -w -A INPUT -j nixos-fw", ""])


def _nix_conf(settings: dict[str, Any]) -> str:
    """Give nix.conf as NixOS writes it; the caches of the internet are left out: no machine here reaches them."""
    inside = {key: value for key, value in settings.items() if "substituters" not in key}
    inside["substituters"] = []
    lines = [f"{key} = {_nix_value(value)}" for key, value in inside.items()]
    return "\n".join([*lines, "build-users-group = nixbld", "sandbox = false", ""])


def _nix_value(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


_DEPENDENCIES = ("wants", "requires", "after", "before", "conflicts", "bindsTo", "partOf", "onFailure")


def _kinds(node: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    return (
        ("service", node["services"]),
        ("slice", node["slices"]),
        ("timer", node["timers"]),
        ("socket", node["sockets"]),
    )


def _unit(name: str, kind: str, options: dict[str, Any]) -> tuple[str, str]:
    """Give (path, text) of a unit; one without a command of its own changes a unit that Debian has.

    Directives are written as nixos/lib/systemd-lib.nix writes them.
    """
    section = {"Description": options["description"]} if options["description"] else {}
    section |= {f"{key[0].upper()}{key[1:]}": " ".join(options[key]) for key in _DEPENDENCIES if options[key]}
    own = dict(options.get(f"{kind}Config", {}))
    environment = [f"{key}={value}" for key, value in options["environment"].items() if value is not None]
    lines = ["[Unit]", *_directives(section), *_directives(options["unitConfig"]), "", f"[{kind.title()}]"]
    lines += [f'Environment="{pair}"' for pair in environment]
    lines += [*_directives(own), ""]
    exists = kind == "service" and "ExecStart" not in own
    path = f"etc/systemd/system/{name}.{kind}" + (".d/overrides.conf" if exists else "")
    return path, "\n".join(lines)


def _directives(values: dict[str, Any]) -> list[str]:
    lines = []
    for key, value in values.items():
        items = value if isinstance(value, list) else [value]
        lines += [f"{key}={_value(item)}" for item in items if item is not None]
    return lines


def _value(item: Any) -> str:
    return str(item).lower() if isinstance(item, bool) else str(item)


def _links(unit: str, options: dict[str, Any]) -> dict[str, str]:
    return {
        f"etc/systemd/system/{target}.{kind}/{unit}": f"../{unit}"
        for key, kind in (("wantedBy", "wants"), ("requiredBy", "requires"))
        for target in options[key]
    }
