"""The metadata address answers nobody, as off the cloud: the first push takes seconds all the same."""

# ruff: noqa: ANN201, F821, S101, T201 - the machine is a name that the driver gives; lib/attic_on_garage.py comes first

import time

start_all()
machine.wait_for_unit("multi-user.target")

with subtest("whoever asks the metadata address waits for an answer that never comes"):
    machine.succeed("iptables -I OUTPUT -d 169.254.169.254 -j DROP")
    # Without a route the kernel would refuse at once, and nobody would wait.
    machine.succeed("ip route add 169.254.169.254 dev eth1")
    start = time.monotonic()
    machine.fail("curl --silent --max-time 3 http://169.254.169.254/")
    assert time.monotonic() - start > 2

with subtest("a bucket, and a server that keeps its bodies there"):
    start_attic()
    log_in()

with subtest("its unit says so to the SDK"):
    environment = machine.get_unit_info("atticd.service")["Environment"]
    assert "AWS_EC2_METADATA_DISABLED=true" in environment, environment


def first_push():
    """Give how many seconds the first push to a server that has just started takes."""
    machine.succeed("systemctl restart atticd.service")
    machine.wait_for_open_port(8080, "127.0.0.1")
    path = machine.succeed("head -c 100000 /dev/urandom >/root/body; nix-store --add /root/body").strip()
    start = time.monotonic()
    print(machine.succeed(f"attic push main {path} 2>&1", timeout=120))
    return time.monotonic() - start


with subtest("the first push takes seconds"):
    took = first_push()
    print(f"the first push took {took:.1f} s")
    # An emulated machine is slow; a wait for the metadata service would show below, by its packets.
    assert took < 30, f"the first push took {took:.0f} s"

with subtest("nobody asked the metadata address"):
    dropped = machine.succeed("iptables -nvxL OUTPUT | grep 169.254.169.254")
    asked = int(dropped.split()[0])
    assert asked <= 4, f"{asked} packets were sent to it, not only those of the try above:\n{dropped}"
