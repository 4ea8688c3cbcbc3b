"""A bucket goes and narinfos stay, so only an audit of the bodies tells; all is good when the bucket is back."""

# ruff: noqa: ANN001, ANN201, D103, F821, S101, T201 - as in lib/attic_on_garage.py, which comes first

METRICS = "/var/lib/node-exporter/kingpost-cache-audit-main.prom"

start_all()
machine.wait_for_unit("multi-user.target")

with subtest("a cache with a path of one chunk, and one of many"):
    start_attic()
    log_in()
    # The small one is a redirect to the bucket, the large one comes through atticd.
    machine.succeed(
        "head -c 20000 /dev/urandom | base64 >/root/small; head -c 600000 /dev/urandom | base64 >/root/large",
        "cat >/root/pair.nix <<'EOF'\n"
        "builtins.toFile \"pair\" ''\n"
        '${builtins.toFile "small" (builtins.readFile ./small)}\n'
        "${builtins.toFile \"large\" (builtins.readFile ./large)}''\nEOF\n"
        "ln -sfn $(nix-instantiate --eval --read-write-mode /root/pair.nix | tr -d '\"') /var/lib/pushed",
    )
    paths = machine.succeed("nix-store --query --requisites /var/lib/pushed").split()
    assert len(paths) == 3, paths
    status, said = machine.execute("attic push main $(readlink /var/lib/pushed) 2>&1")
    print(
        said, "" if status == 0 else machine.succeed("journalctl --no-pager -b -o cat -u atticd | tail -20")
    )
    assert status == 0, said


def audit():
    """Run the timer's unit; gives (whether it is good, what it said)."""
    since = machine.succeed("date +%s").strip()
    status, _ = machine.execute("systemctl start kingpost-cache-audit-main.service")
    said = machine.succeed(
        f"journalctl --no-pager -o cat --since=@{since} -u kingpost-cache-audit-main.service"
    )
    print(said)
    exit_code = machine.succeed(f"grep '^kingpost_exit_code' {METRICS}").split()[-1]
    assert (status == 0) is (exit_code == "0"), (status, exit_code)
    return status == 0, said


def narinfo(path):
    name = path.removeprefix("/nix/store/").partition("-")[0]
    return machine.succeed(
        "curl --silent --output /dev/null --write-out '%{http_code}' -u x:$(cat /etc/attic-token)"
        f" http://127.0.0.1:8080/main/{name}.narinfo"
    )


with subtest("an audit finds it good"):
    good, said = audit()
    assert good, said

with subtest("the bucket goes behind atticd's back, and every narinfo is still there"):
    machine.succeed("garage bucket alias attic kept", "garage bucket unalias attic")
    for path in paths:
        assert narinfo(path) == "200", path

with subtest("the audit says so, by the name of each path"):
    good, said = audit()
    assert not good
    # The redirect leads to no bucket; what atticd puts together itself begins with 200 and ends with nothing.
    assert "KP-CACHE-REDIRECT-MISSING" in said
    assert "NoSuchBucket" in said
    assert "KP-CACHE-BODY-EMPTY" in said
    for path in paths:
        assert path.removeprefix("/nix/store/").partition("-")[0] in said, path
    machine.succeed("systemctl is-failed --quiet kingpost-cache-audit-main.service")
    print(machine.succeed(f"grep -v '^#' {METRICS}"))

with subtest("the bucket is back, and so are the bodies"):
    machine.succeed("garage bucket alias kept attic")
    good, said = audit()
    assert good, said
