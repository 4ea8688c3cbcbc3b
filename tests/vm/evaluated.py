"""What the modules of a check evaluate to, with real Nix, as the files of a Debian guest."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.vm.real_programs import MOUNTED, real

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STAND_IN = ROOT / "tests" / "real" / "nixos-stand-in"
LIB = Path(os.environ.get("NIXPKGS_LIB", STAND_IN / "lib.nix"))
SCRIPTS = "/opt/kingpost/scripts"
"""Where the guest has the scripts that are in the Nix store of a NixOS machine."""

OWN = "/opt/kingpost/"
"""Where the guest has the programs that Debian does not have: ours, real ones of this machine, or stand-ins."""

NIXOS_CACHE = "https://cache.nixos.org/"

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
        for package in self.packages(node, files):
            files |= programs(package)
        if self.real(node):
            files |= _MOUNT
        return files

    def packages(self, node: str, files: Files | None = None) -> list[str]:
        """Give the packages that Debian does not have and a machine's units or its users run."""
        given = files or {**guest_files(self.nodes[node], sorted(self.nodes)), **self.scripts}
        text = b"".join(content for _, content in given.values())
        found = {name.decode() for name in re.findall(rb"/opt/kingpost/([a-z0-9-]+)/(?:bin|libexec)/", text)}
        return sorted(found | ({"rclone"} if "garage" in found else set()))

    def real(self, node: str) -> list[str]:
        """Give those of them that are real programs of this machine (see `real_programs`)."""
        return [package for package in self.packages(node) if real(package)]

    def stand_ins(self) -> list[str]:
        """Give what stands in for a real program on any machine, or is missing."""
        return sorted(
            {package for node in self.nodes for package in self.packages(node) if not real(package)}
            - {"kingpost", "store-fix"}
        )


def evaluate(nix, check: Path) -> Check:
    """Evaluate a file of checks/ with a real Nix (tests/real/conftest.py).

    KINGPOST_MODULES names other modules than those of this tree: ones that were broken on purpose (mutations.md).
    """
    modules = Path(os.environ.get("KINGPOST_MODULES", ROOT / "modules"))
    with tempfile.TemporaryDirectory() as folder:
        # What is rendered imports the modules that are beside the checks.
        beside = Path(folder)
        shutil.copytree(check.parent, beside / "checks", symlinks=True)
        (beside / "examples").symlink_to(ROOT / "examples")
        (beside / "modules").symlink_to(modules.resolve())
        expression = (
            f"import {HERE}/nixos/evaluate.nix {{ check = {beside}/checks/{check.name};"
            f" modules = {modules}; standIn = {STAND_IN}; lib = {LIB}; }}"
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
    if node["users"]:
        files["etc/sysusers.d/nixos.conf"] = "".join(
            f'u {user} - "" {home} /bin/bash\n' for user, home in sorted(node["users"].items())
        )
        homes = " ".join(f"{user}:{home}" for user, home in node["users"].items())
        files["etc/systemd/system/users.service"] = _USERS.format(homes=homes)
        links["etc/systemd/system/sysinit.target.wants/users.service"] = "../users.service"
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
    for package in node["packages"]:
        path, name = package["path"], package["name"]
        if path.startswith(f"{SCRIPTS}/"):
            links[f"usr/local/bin/{name}"] = path
        elif path.startswith(OWN):
            here = programs(path.removeprefix(OWN))
            commands = [file for file in here if "/bin/" in file]
            links |= {f"usr/local/bin/{file.rpartition('/')[2]}": f"/{file}" for file in commands}
    if node["oomd"]:
        links["etc/systemd/system/multi-user.target.wants/systemd-oomd.service"] = (
            "/lib/systemd/system/systemd-oomd.service"
        )
    if node["firewall"]["enable"]:
        files["etc/systemd/system/firewall.service"] = _FIREWALL
        files["opt/kingpost/firewall"] = _firewall(node["firewall"])
        links["etc/systemd/system/multi-user.target.wants/firewall.service"] = "../firewall.service"
    made: Files = {path: (0o644, text.encode()) for path, text in files.items()}
    made |= {path: (0o120777, target.encode()) for path, target in links.items()}
    return made


def programs(package: str) -> Files:
    """Give the files of a package that Debian does not have: ours, or what stands in for a server."""
    if package == "store-fix":
        return _store_fix()
    if package == "kingpost":
        return _kingpost()
    if there := real(package):
        links = {f"opt/kingpost/{package}/bin/{name}": f"/{MOUNTED}/{package}/bin/{name}" for name in there}
        return {link: (0o120777, target.encode()) for link, target in links.items()}
    stand_in = HERE / "guest-programs" / package
    if not stand_in.is_dir():
        return {}
    (program,) = stand_in.iterdir()
    return {f"opt/kingpost/{package}/bin/{program.name}": (0o755, program.read_bytes())}


def _kingpost() -> Files:
    """Give kingpost itself, as it is in this tree; Debian has what it needs (see `build-image`)."""
    base = "opt/kingpost/kingpost"
    folders = {"lib": ROOT / "src", "lib/kingpost/templates": ROOT / "templates"}
    files: Files = {
        f"{base}/{place}/{path.relative_to(folder)}": (0o444, path.read_bytes())
        for place, folder in folders.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    code = f"import sys; sys.path.insert(0, '/{base}/lib'); from kingpost.cli.main import console; console()"
    wrapper = f'#!/bin/sh\nexec /usr/bin/python3 -c "{code}" "$@"\n'
    return files | {f"{base}/bin/kingpost": (0o555, wrapper.encode())}


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

_USERS = """\
[Unit]
Description=Users and their homes
DefaultDependencies=no
After=local-fs.target
Before=systemd-tmpfiles-setup.service sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=systemd-sysusers /etc/sysusers.d/nixos.conf
ExecStart=/bin/sh -c 'for one in {homes}; do install -d -m 0700 -o "$${{one%%:*}}" "$${{one#*:}}"; done'
"""

# The disk with the real programs of the machine that runs the tests (see `real_programs`).
_MOUNT_UNIT = MOUNTED.replace("-", r"\x2d").replace("/", "-") + ".mount"
_MOUNT: Files = {
    f"etc/systemd/system/{_MOUNT_UNIT}": (
        0o644,
        f"[Mount]\nWhat=/dev/vdb\nWhere=/{MOUNTED}\nType=ext4\nOptions=ro\n".encode(),
    ),
    # A machine whose processor is emulated beside others may find its disk only after the usual 90 s.
    "etc/systemd/system/dev-vdb.device.d/patience.conf": (0o644, b"[Unit]\nJobRunningTimeoutSec=infinity\n"),
    f"etc/systemd/system/local-fs.target.wants/{_MOUNT_UNIT}": (0o120777, f"../{_MOUNT_UNIT}".encode()),
}

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


def _firewall(firewall: dict[str, Any]) -> str:
    lines = [
        "iptables -w -N nixos-fw",
        "iptables -w -A nixos-fw -i lo -j ACCEPT",
        "iptables -w -A nixos-fw -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
        "iptables -w -A nixos-fw -p icmp -j ACCEPT",
    ]
    lines += [
        f"iptables -w -A nixos-fw -p tcp --dport {port} -j ACCEPT" for port in firewall["allowedTCPPorts"]
    ]
    lines += [
        f"iptables -w -A nixos-fw -i {name} -p tcp --dport {port} -j ACCEPT"
        for name, opened in firewall["interfaces"].items()
        for port in opened["allowedTCPPorts"]
    ]
    return "\n".join([*lines, "iptables -w -A nixos-fw -j DROP", "iptables -w -A INPUT -j nixos-fw", ""])


def _nix_conf(settings: dict[str, Any]) -> str:
    """Give nix.conf as NixOS writes it; a cache that only the default names is left out: no machine reaches it."""
    inside = {key: value for key, value in settings.items() if value != []}
    if settings["substituters"] == [NIXOS_CACHE]:
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
