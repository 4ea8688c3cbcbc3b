"""The metadata address answers nobody, as off the cloud: the first push takes seconds all the same."""

# ruff: noqa: F821, S101 - machines are names that the driver gives; asserts test

import re
import time

start_all()
machine.wait_for_unit("garage.service")
machine.wait_for_open_port(3901, "127.0.0.1")

with subtest("whoever asks the metadata address waits for an answer that never comes"):
    machine.succeed("iptables -I OUTPUT -d 169.254.169.254 -j DROP")

with subtest("a bucket, and a server that keeps its bodies there"):
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

with subtest("its unit says so to the SDK"):
    environment = machine.get_unit_info("atticd.service")["Environment"]
    assert "AWS_EC2_METADATA_DISABLED=true" in environment, environment

with subtest("the first push takes seconds"):
    token = machine.succeed(
        "atticd-atticadm make-token --sub test --validity 1d --create-cache main --pull main --push main"
    )
    machine.succeed(
        f"attic login --set-default here http://127.0.0.1:8080 {token.strip()}",
        "attic cache create main",
        "head -c 100000 /dev/urandom >/root/body",
    )
    path = machine.succeed("nix-store --add /root/body").strip()
    start = time.monotonic()
    machine.succeed(f"attic push main {path}", timeout=60)
    took = time.monotonic() - start
    assert took < 10, f"the first push took {took:.0f} s"
