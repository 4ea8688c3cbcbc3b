"""Start Garage and atticd on a machine, and log its client in: what comes first in the checks that need both."""

# ruff: noqa: ANN201, F821, S101, T201 - a part of scripts: the machine is a name that the driver gives

import re


def start_attic():
    """Make a bucket and a key, write atticd's environment, start it; gives nothing."""
    machine.wait_for_unit("garage.service")
    machine.wait_for_open_port(3900, "127.0.0.1")
    print(machine.succeed("journalctl --no-pager -b -o cat -u garage.service | head -3"))
    node = machine.succeed("garage node id -q").split("@")[0]
    machine.succeed(
        f"garage layout assign -z here -c 500M {node}",
        "garage layout apply --version 1",
        "garage bucket create attic",
    )
    key = machine.succeed("garage key create attic")
    machine.succeed("garage bucket allow --read --write attic --key attic")
    name = re.search(r"Key ID:\s+(\S+)", key)
    secret = re.search(r"Secret key:\s+(\S+)", key)
    assert name, "garage gives no key"
    assert secret, "garage gives no secret"
    machine.succeed(
        "umask 077; {"
        " echo ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64=$(head -c 32 /dev/urandom | base64 -w0);"
        f" echo AWS_ACCESS_KEY_ID={name[1]}; echo AWS_SECRET_ACCESS_KEY={secret[1]};"
        " } >/etc/atticd.env",
        "systemctl start atticd.service",
    )
    machine.wait_for_open_port(8080, "127.0.0.1")


def log_in():
    """Log the client in with a token in /etc/attic-token, and make the cache `main`."""
    token = machine.succeed(
        "atticd-atticadm make-token --sub test --validity 1d --create-cache main --pull main --push main"
    ).strip()
    machine.succeed(
        f"umask 077; printf %s '{token}' >/etc/attic-token",
        "attic login --set-default here http://127.0.0.1:8080 $(cat /etc/attic-token)",
        "attic cache create main",
    )
