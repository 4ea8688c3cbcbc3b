"""Cut the power in the middle of a copy: the look at boot fails visibly, a repair brings everything back."""

# ruff: noqa: F821, PT018, S101, T201 - machines are names that the driver gives; asserts test

# What is copied: 40 paths that need each other in a row, of half a megabyte each.
CHAIN = """
mkdir -p /var/parts && cd /var/parts
for i in $(seq 40); do head -c 400000 /dev/urandom | base64 >$i; done
cat >chain.nix <<'EOF'
let
  parts = builtins.genList (i: toString (i + 1)) 40;
  link = before: part: builtins.toFile "part-${part}" (builtins.readFile (./. + "/${part}") + "after ${before}");
in
builtins.foldl' link "nothing" parts
EOF
nix-instantiate --eval --strict --read-write-mode chain.nix | tr -d '"' >/var/parts/top
top=$(cat /var/parts/top)
nix-store --query --requisites "$top" >/var/parts/all
test "$(wc -l </var/parts/all)" = 40
nix copy --to 'file:///var/cache/parts?compression=none' "$top"
nix-store --delete $(tac /var/parts/all) >/dev/null
sync
"""

# It ends when half of the paths are registered, and the database is on the disk: what the power cut finds is what
# the kernel has not written of them.
CUT = """
nix copy --no-check-sigs --from file:///var/cache/parts $(cat /var/parts/top) >/dev/null 2>&1 &
until [ "$(nix-store --check-validity --print-invalid $(cat /var/parts/all) 2>/dev/null | wc -l)" -le 25 ]; do :; done
sync /nix/var/nix/db/db.sqlite-wal /nix/var/nix/db/db.sqlite 2>/dev/null || true
"""

SCANNED = (
    "test -e /var/lib/kingpost/store-scan.json && ! systemctl is-active --quiet kingpost-store-scan.service"
)
METRICS = "/var/lib/kingpost/store.prom"

start_all()
machine.wait_for_unit("multi-user.target")

with subtest("a healthy store is found healthy, before the daemon starts"):
    machine.wait_for_unit("kingpost-store-fix.service")
    machine.wait_until_succeeds(SCANNED)
    machine.succeed("systemctl show -p Result kingpost-store-scan.service | grep -qx Result=success")
    machine.succeed("systemctl show -p Before kingpost-store-scan.service | grep -qw nix-daemon.service")
    machine.succeed(f"grep -q '^kingpost_exit_code.* 0$' {METRICS}")

with subtest("the repair is outside the store too, and what runs it is no garbage"):
    machine.succeed("/var/lib/kingpost/store-fix --help >/dev/null")
    machine.succeed("test -e /nix/var/nix/gcroots/kingpost-store-fix/libexec/kingpost-store-fix.pyz")

with subtest("a power cut in the middle of a copy"):
    machine.succeed(CHAIN)
    machine.succeed(CUT)
    machine.crash()

with subtest("the store is looked at again at boot, and nothing is repaired unasked"):
    machine.start()
    machine.wait_for_unit("multi-user.target")
    machine.wait_until_succeeds(SCANNED, timeout=300)
    print(machine.succeed("journalctl --no-pager -b -o cat -u kingpost-store-scan.service | head -8"))
    # It reads the contents of what was registered last, which is what a power cut leaves empty.
    machine.succeed("systemctl is-failed --quiet kingpost-store-scan.service")
    machine.succeed(f"grep -q '^kingpost_exit_code.* 1$' {METRICS}")
    status, verified = machine.execute("nix-store --verify --check-contents 2>&1")
    assert status != 0 and "was modified" in verified, verified
    print(f"{verified.count('was modified')} registered paths are not what they were")

with subtest("a scan of the contents finds every one of them"):
    status, found = machine.execute("/var/lib/kingpost/store-fix scan --contents --quiet --full")
    assert status == 1, found
    for line in verified.splitlines():
        if "was modified" in line:
            path = line.split("'")[1]
            assert path.removeprefix("/nix/store/") in found, f"{path} is not in:\n{found}"

with subtest("a repair brings all of them back from the cache"):
    machine.succeed("systemctl stop nix-daemon.socket nix-daemon.service")
    repair = (
        "/var/lib/kingpost/store-fix repair --contents --quiet --yes --no-check-sigs --from /var/cache/parts"
    )
    print(machine.succeed(f"{repair} 2>&1")[-2000:])
    machine.succeed("/var/lib/kingpost/store-fix scan --contents --quiet")
    machine.succeed("systemctl start nix-daemon.socket")
    machine.succeed("nix-store --verify --check-contents 2>&1")

with subtest("the copy goes through, and a rebuild works"):
    machine.succeed("nix copy --no-check-sigs --from file:///var/cache/parts $(cat /var/parts/top)")
    machine.succeed(
        "cat >/root/last.nix <<'EOF'\n"
        '{ top }: derivation { name = "last"; system = builtins.currentSystem; builder = "/bin/sh";\n'
        '  args = [ "-c" "read x <${builtins.storePath top}; echo $x >$out" ]; }\nEOF\n'
        "test -s $(nix-build --no-out-link /root/last.nix --argstr top $(cat /var/parts/top))"
    )
    machine.succeed("nix-store --verify --check-contents")

with subtest("the next boot finds it healthy"):
    machine.shutdown()
    machine.start()
    machine.wait_for_unit("multi-user.target")
    machine.wait_until_succeeds(f"grep -q '^kingpost_exit_code.* 0$' {METRICS}", timeout=300)
    machine.fail("systemctl is-failed --quiet kingpost-store-scan.service")
