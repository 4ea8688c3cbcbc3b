"""Every context's address works there; an address of another context fails there; the firewall is shut elsewhere."""

# ruff: noqa: ANN001, ANN201, D103, F821, S101 - machines are names that the driver gives; asserts test

import re

FETCH = (
    "import sys, urllib.request; "
    'print(urllib.request.urlopen(sys.argv[1] + "/nix-cache-info", timeout=5).read().decode())'
)


def fetch(url):
    return f"$(command -v python3) -c '{FETCH}' {url}"


def address(context):
    """Give the server's address from a context's rendered files: its client's, else that of its daemon's cache."""
    found = re.search(r"(?m)^(?:KINGPOST_URL_ATTIC_HOME=|substituters = )(http://[^/\s]+)", RENDERED[context])
    assert found, RENDERED[context]
    return found[1]


HOST, BRIDGE, HOSTNET, PEER = map(address, RENDERED)
assert len({HOST, BRIDGE, PEER}) == 3, "contexts of three network namespaces have an address each"

start_all()
box.wait_for_unit("docker.service")
laptop.wait_for_unit("multi-user.target")

with subtest("a secret of the wrong form is refused, with its file's name"):
    box.succeed("umask 077; echo ATTIC_SERVER_TOKEN_RS256_SECRET=x >/etc/atticd.env")
    box.execute("systemctl start atticd.service")
    said = box.wait_until_succeeds(
        "journalctl --no-pager -b -o cat -u atticd.service | grep -A3 kingpost:", timeout=120
    )
    assert "BASE64" in said, said
    box.succeed("systemctl stop atticd.service")

with subtest("the servers start with a good one"):
    for machine, port in ((box, 8080), (laptop, 8090)):
        machine.succeed(
            "umask 077; secret=$(head -c 32 /dev/urandom | base64 -w0);"
            " echo ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64=$secret >/etc/atticd.env",
            "systemctl start atticd.service",
        )
        machine.wait_for_open_port(port, "127.0.0.1")

box.succeed("tar -c --files-from /dev/null | docker import - scratch-image")
mounts = box.succeed(
    "for d in /nix/store /usr /bin /lib /lib64 /run/current-system/sw; do"
    " test ! -e $d || printf -- '-v %s:%s:ro ' \"$(readlink -f $d)\" $d; done"
).strip()


def container(network, url):
    return f"docker run --rm --network {network} {mounts} scratch-image {fetch(url)}"


with subtest("the host's own client uses loopback"):
    box.succeed(fetch(HOST))

with subtest("a container on the bridge uses the bridge's gateway, and has nobody on its loopback"):
    box.succeed(container("bridge", BRIDGE))
    box.fail(container("bridge", HOST) + " 2>&1")

with subtest("a container on the host's network uses loopback"):
    box.succeed(container("host", HOSTNET))

with subtest("another machine uses the address of the network between them"):
    box.succeed(f"ip -brief address show eth1 | grep -qF {PEER.split('/')[2].partition(':')[0]}")
    laptop.wait_until_succeeds(fetch(PEER), timeout=60)
    laptop.fail(fetch(HOST) + " 2>&1")
    laptop.fail(fetch(BRIDGE) + " 2>&1")

with subtest("what is not declared stays shut"):
    box.execute("(python3 -m http.server 8081 >/dev/null 2>&1 &) >&2")
    box.wait_for_open_port(8081, "127.0.0.1")
    laptop.fail(fetch(PEER.replace("8080", "8081")) + " 2>&1")
    box.fail(container("bridge", BRIDGE.replace("8080", "8081")) + " 2>&1")

with subtest("a server that only its own host calls listens for nobody else, firewall or not"):
    own = HOST.replace("8080", "8090")
    there = laptop.succeed("ip -4 -brief address show eth1").split()[2].partition("/")[0]
    laptop.succeed(fetch(own))
    laptop.succeed("iptables -I INPUT -j ACCEPT")
    laptop.succeed("(python3 -m http.server 8081 >/dev/null 2>&1 &) >&2")
    box.wait_for_open_port(8081, there)
    box.fail(fetch(f"http://{there}:8090") + " 2>&1")

with subtest("a cut cable is noticed, and its end too"):
    laptop.block()
    laptop.fail(fetch(PEER) + " 2>&1")
    laptop.unblock()
    laptop.wait_until_succeeds(fetch(PEER), timeout=60)
