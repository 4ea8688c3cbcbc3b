"""Real Nix evaluates every module of modules/: on, off and misused. test_modules_start.py runs what units start."""

from __future__ import annotations

import re

from tests.real.evaluation import LIB, ROOT, STAND_IN
from tests.real.modules import (
    MODULES,
    NAMES,
    check_complaints,
    evaluate,
    failing,
    host,
    package,
    runner,
    store_fix_package,
)
from tools import modules_reference


def test_every_module_sets_nothing_while_it_is_off(nix):
    bare = f'import {STAND_IN}/evaluate.nix {{ module = {{ system.stateVersion = "26.05"; }}; lib = {LIB}; }}'
    members = " ".join(f'"{name}" = {host(name, "")};' for name in NAMES)
    found = nix.eval_json(f"{{ bare = {bare}; {members} }}")
    for name in NAMES:
        assert found[name] == found["bare"], name


def test_modules_that_a_host_imports_twice_count_once(nix):
    """Its own flake may import what the rendered tree brings too, from another folder."""
    copy = nix.root / "copy"
    (copy / "lib").mkdir(parents=True)
    for file in MODULES.rglob("*.*"):
        (copy / file.relative_to(MODULES)).write_bytes(file.read_bytes())
    members = " ".join(f'"{name}" = {host(name, f"imports = [ {copy}/{name}.nix ];")};' for name in NAMES)
    found = nix.eval_json(f"{{ {members} }}")
    for name in NAMES:
        assert found[name]["system"]["stateVersion"] == "26.05"


# store-fix


def test_store_fix_looks_before_the_daemon_and_only_reports(nix, tmp_path):
    says = "kingpost.storeFix.enable = true;"
    found = evaluate(nix, "store-fix", {"on": says}, store_fix_package(tmp_path))["on"]
    scan = found["systemd"]["services"]["kingpost-store-scan"]
    assert "nix-daemon.service" in scan["before"]
    assert "kingpost-store-fix.service" in scan["after"]
    assert scan["wantedBy"] == ["multi-user.target"]
    command = scan["serviceConfig"]["ExecStart"]
    assert command.startswith("/bin/sh /var/lib/kingpost/store-fix --at-boot --repair none ")
    assert str(nix.store) not in command
    assert scan["serviceConfig"]["TimeoutStartSec"] == "5min"
    assert failing(found["assertions"]) == []


def test_store_fix_takes_the_package_of_kingposts_flake(nix):
    says = (
        "kingpost.storeFix.enable = true; _module.args.kingpost.store-fix = FLAKES;"
        " environment.systemPackages = [ config.kingpost.storeFix.package ];"
    )
    says = says.replace("FLAKES", package("of-the-flake"))
    found = evaluate(nix, "store-fix", {"on": says}, select=".environment.systemPackages")
    assert found["on"][0].endswith("-of-the-flake")


def test_store_fix_says_what_is_wrong(nix, tmp_path):
    on = "kingpost.storeFix.enable = true;"
    cases = {
        "package": (f"{on} kingpost.storeFix.package = null;", "kingpost.nixosModules.store-fix"),
        "directory": (f'{on} kingpost.storeFix.directory = "/nix/var/kept";', "such as /var/lib/kingpost"),
        "blank": (f'{on} kingpost.storeFix.directory = "/var/lib/a b";', "use letters, digits"),
        "textfile": (f'{on} kingpost.storeFix.textfile = "/tmp/a";', "end its name with .prom"),
    }
    check_complaints(nix, "store-fix", cases, store_fix_package(tmp_path))


# gitlab-runner


def test_the_runner_waits_for_the_network_and_comes_back(nix):
    more = 'memoryMax = "8G"; memoryHigh = 6442450944;'
    found = evaluate(nix, "gitlab-runner", {"on": runner(more=more)})["on"]
    unit = found["systemd"]["services"]["gitlab-runner"]
    assert "network-online.target" in unit["after"]
    assert "network-online.target" in unit["wants"]
    assert unit["unitConfig"]["StartLimitIntervalSec"] == 0
    service = unit["serviceConfig"]
    assert (service["Restart"], service["RestartSec"]) == ("always", 15)
    assert (service["MemoryMax"], service["MemoryHigh"]) == ("8G", 6442450944)
    assert service["DynamicUser"] is True
    assert service["ExecReload"][1].endswith("/bin/kill -HUP $MAINPID")
    assert unit["reloadIfChanged"] is True
    assert found["services"]["gitlab-runner"]["gracefulTermination"] is True
    assert failing(found["assertions"]) == []


def test_a_host_may_differ_from_the_runners_defaults(nix):
    own = "systemd.services.gitlab-runner.serviceConfig = { RestartSec = 60; MemoryMax = 5; };"
    cases = {
        "own": runner(more="memoryMax = 7;") + own,
        "user": runner(more='user = "ci";') + 'users.users.ci.home = "/home/ci";',
    }
    found = evaluate(nix, "gitlab-runner", cases)
    service = found["own"]["systemd"]["services"]["gitlab-runner"]["serviceConfig"]
    assert (service["RestartSec"], service["MemoryMax"]) == (60, 5)
    unit = found["user"]["systemd"]["services"]["gitlab-runner"]
    assert unit["serviceConfig"]["User"] == "ci"
    assert unit["serviceConfig"]["DynamicUser"] is False
    assert unit["environment"]["HOME"] == "/home/ci"


def test_the_runner_says_what_is_wrong(nix):
    other = 'runners.other = { token.file = "/t"; settings'
    cases = {
        "stock": (runner() + "services.gitlab-runner.services.old = { };", "would do nothing"),
        "user": (runner(more='user = "ci";'), "add users.users.ci"),
        "none": ("kingpost.gitlabRunner.enable = true;", "declare one in kingpost.gitlabRunner.runners"),
        "store": (runner(file="/nix/store/abc-token"), "config.age.secrets.runner.path"),
        "token": (runner(more=f'{other}.token = "x"; }};'), "name that in token.file"),
        "nix": (
            runner(more=f'{other} = {{ executor = "docker"; docker.volumes = [ "/nix:/nix:ro" ]; }}; }};'),
            "set hostNix = true",
        ),
        "shell": (runner(more=f'{other}.executor = "shell"; hostNix = true; }};'), "so take it out"),
    }
    check_complaints(nix, "gitlab-runner", cases)


# limits


def limits(text: str) -> str:
    return f"kingpost.limits = {{ {text} }};"


def test_limits_bound_units_of_every_kind_and_containers(nix):
    text = limits(
        """
        units = {
          "nix-daemon.service" = { slice = "builders.slice"; oomScore = 250; };
          "builders.slice" = { memoryHigh = "5G"; memoryMax = 6442450944; swapMax = 0; oomd = "kill"; };
          "sshd.service".oomScore = -900;
          "web.1@x.socket".cpuWeight = 50;
        };
        containers.web = { memoryMax = 1073741824; swapMax = 1073741824; cpuWeight = 50; oomScore = 5; };
        """
    )
    unset = text + "systemd.services.nix-daemon.serviceConfig.OOMScoreAdjust = 9;"
    found = evaluate(nix, "limits", {"on": text, "theirs": unset})
    on = found["on"]
    services, slices = on["systemd"]["services"], on["systemd"]["slices"]
    assert services["nix-daemon"]["serviceConfig"] == {"OOMScoreAdjust": 250, "Slice": "builders.slice"}
    assert services["sshd"]["serviceConfig"] == {"OOMScoreAdjust": -900}
    assert slices["builders"]["sliceConfig"] == {
        "MemoryHigh": "5G",
        "MemoryMax": 6442450944,
        "MemorySwapMax": 0,
        "ManagedOOMMemoryPressure": "kill",
    }
    assert on["systemd"]["sockets"]["web.1@x"]["socketConfig"] == {"CPUWeight": 50}
    assert on["virtualisation"]["oci-containers"]["containers"]["web"]["extraOptions"] == [
        "--memory=1073741824",
        "--memory-swap=2147483648",
        "--oom-score-adj=5",
        "--cpu-shares=512",
    ]
    assert failing(on["assertions"]) == []
    theirs = found["theirs"]["systemd"]["services"]["nix-daemon"]["serviceConfig"]
    assert theirs["OOMScoreAdjust"] == 250  # what is said here wins over a unit's own module


def test_limits_say_what_is_wrong(nix):
    cases = {
        "unit": ("units.atticd = { };", "such as atticd.service"),
        "kind": ('units."a.timer".memoryMax = 1;', "name a service, slice"),
        "score": ('units."a.slice".oomScore = 5;', "the services in it"),
        "nested": ('units."a.slice".slice = "b.slice";', "the services that belong in it"),
        "slice": ('units."a.service".slice = "b";', "end its name with .slice"),
        "high": ('units."a.service" = { memoryHigh = 2; memoryMax = 1; };', "lower memoryHigh"),
        "min": ('units."a.service" = { memoryMin = 2; memoryMax = 1; };', "lower memoryMin"),
    }
    told = {name: (limits(text), phrase) for name, (text, phrase) in cases.items()}
    check_complaints(nix, "limits", told)


# atticd


ATTIC = 'kingpost.atticd = { enable = true; environmentFile = "/run/agenix/atticd"; MORE };'
S3 = (
    'settings.storage = { type = "s3"; region = "auto"; bucket = "b"; endpoint = "https://s3.example.org"; };'
)


def attic(more: str = "", base: str = ATTIC) -> str:
    return base.replace("MORE", more)


def test_attic_is_reached_where_its_callers_are_and_nowhere_else(nix):
    more = 'address = "172.17.0.1"; port = 8083; openOn = [ "docker0" ]; after = [ "docker.service" ];'
    found = evaluate(nix, "atticd", {"bridge": attic(more), "default": attic()})
    bridge, default = found["bridge"], found["default"]
    assert bridge["services"]["atticd"]["settings"]["listen"] == "172.17.0.1:8083"
    assert bridge["networking"]["firewall"]["interfaces"] == {"docker0": {"allowedTCPPorts": [8083]}}
    unit = bridge["systemd"]["services"]["atticd"]
    assert "docker.service" in unit["after"]
    assert "docker.service" in unit["wants"]
    assert default["services"]["atticd"]["settings"]["listen"] == "127.0.0.1:8080"
    assert default["networking"]["firewall"]["interfaces"] == {}
    assert default["systemd"]["services"]["atticd"]["environment"] == {}
    assert default["services"]["atticd"]["environmentFile"] == "/run/agenix/atticd"
    assert failing(bridge["assertions"]) == failing(default["assertions"]) == []


def test_attic_does_not_ask_for_metadata_where_there_is_none(nix):
    cases = {
        "r2": attic(S3 + 'region = "auto";'),
        "ec2": attic(S3 + 'region = "eu-west-1"; metadata = true; checksums = null;'),
    }
    found = evaluate(nix, "atticd", cases, select=".systemd.services.atticd.environment")
    assert found["r2"] == {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REGION": "auto",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
    assert found["ec2"] == {"AWS_REGION": "eu-west-1"}


def test_attic_starts_after_its_database_and_may_write_where_it_must(nix):
    cases = {
        "here": attic('database = "attic2"; memoryHigh = "768M"; memoryMax = 5;'),
        "secret": attic('databaseInSecret = true; writablePaths = [ "/a b/100%" "/q\\"\\\\" ];'),
        "old": attic('database = "a"; postgresqlUnit = "postgresql.service";'),
    }
    found = evaluate(nix, "atticd", cases)
    here, secret = found["here"], found["secret"]
    assert here["services"]["atticd"]["user"] == here["services"]["atticd"]["group"] == "attic2"
    url = here["services"]["atticd"]["settings"]["database"]["url"]
    assert url == "postgresql:///attic2?host=/run/postgresql&user=attic2"
    assert here["services"]["postgresql"]["ensureUsers"] == [{"name": "attic2", "ensureDBOwnership": True}]
    unit = here["systemd"]["services"]["atticd"]
    assert "postgresql.target" in unit["after"]
    assert unit["requires"] == ["postgresql.target"]
    assert (unit["serviceConfig"]["MemoryHigh"], unit["serviceConfig"]["MemoryMax"]) == ("768M", 5)
    assert found["old"]["systemd"]["services"]["atticd"]["requires"] == ["postgresql.service"]
    assert secret["services"]["atticd"]["settings"]["database"] == {}
    paths = secret["systemd"]["services"]["atticd"]["serviceConfig"]["ReadWritePaths"]
    assert paths == ['"/a b/100%%"', '"/q\\"\\\\"']


def test_attics_secret_may_be_a_credential(nix):
    base = 'kingpost.atticd = { enable = true; secretFile = "/run/100%/s"; MORE };'
    found = evaluate(nix, "atticd", {"on": attic('credentialsFile = "/run/b";', base)})["on"]
    service = found["systemd"]["services"]["atticd"]["serviceConfig"]
    assert service["LoadCredential"] == "secret:/run/100%%/s"
    assert service["EnvironmentFile"] == ["-/run/kingpost-atticd/secret.env", "/run/b"]
    assert service["RuntimeDirectory"] == "kingpost-atticd"
    assert failing(found["assertions"]) == []


def test_attic_says_what_is_wrong(nix):
    none = "kingpost.atticd.enable = true;"
    shut = "networking.firewall.enable = false;"
    cases = {
        "none": (none, "set one of environmentFile and secretFile"),
        "both": (attic('secretFile = "/s";'), "set one of environmentFile and secretFile"),
        "store": (attic('credentialsFile = "/nix/store/x-s";'), "config.age.secrets.atticd.path"),
        "open": (attic('address = "0.0.0.0";') + shut, "leave networking.firewall.enable on"),
        "firewall": (attic('openOn = [ "eth0" ];') + shut, "leave networking.firewall.enable on"),
        "listen": (attic('settings.listen = "0.0.0.0:1";'), "set kingpost.atticd.address and port"),
        "databases": (attic('database = "a"; databaseInSecret = true;'), "take one of them out"),
    }
    check_complaints(nix, "atticd", cases)


# tunnels


def tunnel(more: str = "", name: str = "cache") -> str:
    ends = 'listen = "127.0.0.1:9000"; to = "127.0.0.1:8080"; login = "me@100.64.0.1";'
    return f'kingpost.tunnels."{name}" = lib.mkMerge [ {{ {ends} }} {{ {more} }} ];'


def test_a_tunnel_asks_whether_the_other_end_is_there_and_comes_back(nix):
    more = 'identity = "/run/100%"; after = [ "tailscaled.service" ]; hostKey = "ssh-ed25519 AAAA"; keepalive = 5;'
    found = evaluate(nix, "tunnels", {"plain": tunnel(), "more": tunnel(more)}, select=".systemd.services")
    plain, full = found["plain"]["kingpost-tunnel-cache"], found["more"]["kingpost-tunnel-cache"]
    assert "-L 127.0.0.1:9000:127.0.0.1:8080 me@100.64.0.1" in plain["script"]
    assert "ServerAliveInterval=15" in plain["script"]
    assert "StrictHostKeyChecking=accept-new" in plain["script"]
    assert plain["serviceConfig"]["Restart"] == "always"
    assert plain["unitConfig"]["StartLimitIntervalSec"] == 0
    assert "LoadCredential" not in plain["serviceConfig"]
    assert full["serviceConfig"]["LoadCredential"] == "identity:/run/100%%"
    assert full["serviceConfig"]["DynamicUser"] is True
    assert full["after"] == ["network-online.target", "tailscaled.service"]
    assert "StrictHostKeyChecking=yes" in full["script"]
    assert "ServerAliveInterval=5" in full["script"]


def test_tunnels_say_what_is_wrong(nix):
    def force(option):
        return tunnel(f"{option.split(' ')[0]} = lib.mkForce {option.split(' ', 2)[2]};")

    cases = {
        "name": (tunnel(name="a b"), "use letters, digits"),
        "listen": (force('listen = "9000"'), "such as 127.0.0.1:9000"),
        "to": (force('to = "somewhere"'), "as the other end reaches it"),
        "login": (force('login = "-oProxyCommand=x"'), "write user@host"),
        "identity": (tunnel('identity = "/nix/store/x-key";'), "path of a secret as a string"),
    }
    check_complaints(nix, "tunnels", cases)


# cache-audit and bucket-check


KINGPOST = f"{{ kingpost = {package('kingpost')}; }}"


def plain(script: str) -> str:
    """Give a script with the package's place left out."""
    return re.sub(r"[^ ]*-kingpost/bin/kingpost", "KINGPOST", script)


def audit(more: str = "", name: str = "main", base: str = 'closures = [ "/run/current-system" ];') -> str:
    return f'kingpost.cacheAudit.caches."{name}" = {{ url = "http://127.0.0.1:8080/main"; {base} {more} }};'


def bucket(more: str = "", name: str = "attic", endpoint: str = "http://127.0.0.1:9000") -> str:
    return f'kingpost.bucketCheck.buckets."{name}" = {{ endpoint = "{endpoint}"; {more} }};'


def test_an_audit_runs_by_the_clock_with_its_token(nix):
    says = audit(
        'keys = [ "main:AA=" ]; sample = "5%"; verifiedSince = "7d"; bandwidth = "20MB"; tokenFile = "/run/100%";'
        ' onCalendar = "hourly"; onFailure = [ "notify@%n.service" ]; arguments = [ "--upstream" "https://x y" ];'
    )
    says += 'kingpost.cacheAudit = { metricsDirectory = "/var/lib/metrics"; ledger = "/l/e.sqlite"; };'
    found = evaluate(nix, "cache-audit", {"on": says}, KINGPOST)["on"]
    unit = found["systemd"]["services"]["kingpost-cache-audit-main"]
    words = (
        "kingpost-cache-audit-main /var/lib/metrics /l/e.sqlite KINGPOST cache audit"
        " http://127.0.0.1:8080/main --closure /run/current-system --key 'main:AA=' --sample 5%"
        " --verified-since 7d --bandwidth 20MB --upstream 'https://x y'"
        ' --token-file "$CREDENTIALS_DIRECTORY/token"'
    )
    assert words in plain(unit["script"])
    assert unit["serviceConfig"]["LoadCredential"] == ["token:/run/100%%"]
    assert unit["serviceConfig"]["Type"] == "oneshot"
    assert unit["onFailure"] == ["notify@%n.service"]
    assert unit["restartIfChanged"] is False
    assert unit["wantedBy"] == []
    timer = found["systemd"]["timers"]["kingpost-cache-audit-main"]
    assert timer["wantedBy"] == ["timers.target"]
    assert timer["timerConfig"] == {"OnCalendar": "hourly", "RandomizedDelaySec": "10min", "Persistent": True}
    assert failing(found["assertions"]) == []


def test_a_bucket_is_compared_by_the_clock_with_its_credentials(nix):
    says = bucket(
        'bucket = "b"; region = "auto"; disks = [ "/d" "ssh:h:/d" ]; provider = "minio"; server = "minio.service";'
        ' scratchProbe = true; credentialsFile = "/run/key";'
    )
    found = evaluate(nix, "bucket-check", {"on": says, "open": bucket()}, KINGPOST)
    unit = found["on"]["systemd"]["services"]["kingpost-bucket-check-attic"]
    words = (
        "KINGPOST bucket rca b --endpoint http://127.0.0.1:9000 --region auto --disk"
        " /d --disk ssh:h:/d --provider minio --server minio.service --scratch-probe"
        ' --credentials "$CREDENTIALS_DIRECTORY/bucket"'
    )
    assert words in plain(unit["script"])
    assert unit["serviceConfig"]["LoadCredential"] == ["bucket:/run/key"]
    script = found["open"]["systemd"]["services"]["kingpost-bucket-check-attic"]["script"]
    assert "rca attic --endpoint http://127.0.0.1:9000 --anonymous" in script
    assert "kingpost-bucket-check-attic" in found["on"]["systemd"]["timers"]
    assert failing(found["on"]["assertions"]) == failing(found["open"]["assertions"]) == []


def test_audits_say_what_is_wrong(nix):
    cases = {
        "package": (audit() + "kingpost.cacheAudit.package = null;", "kingpost.nixosModules.cache-audit"),
        "name": (audit(name="a/b"), "use letters"),
        "nothing": (audit(base=""), "everything = true"),
        "store": (audit('tokenFile = "/nix/store/x";'), "path of a secret as a string"),
    }
    check_complaints(nix, "cache-audit", cases, KINGPOST)


def test_comparisons_say_what_is_wrong(nix):
    cases = {
        "package": (bucket() + "kingpost.bucketCheck.package = null;", "kingpost.nixosModules.bucket-check"),
        "name": (bucket(name="a b"), "use letters"),
        "endpoint": (bucket(endpoint="s3.example.org"), "URL without the bucket"),
        "scratch": (bucket("scratchProbe = true;"), "needs credentialsFile"),
        "store": (bucket('credentialsFile = "/nix/store/x";'), "path of a secret as a string"),
    }
    check_complaints(nix, "bucket-check", cases, KINGPOST)


# docs/modules.md


def test_the_page_of_options_is_current(nix):
    """`python -m tools.modules_reference > docs/modules.md` writes it."""
    page = modules_reference.page(nix.eval_json(modules_reference.expression()))
    assert page == (ROOT / "docs" / "modules.md").read_text()


def test_every_option_is_described(nix):
    options = nix.eval_json(modules_reference.expression())
    assert sorted(options) == NAMES
    for module in NAMES:
        for option in options[module]:
            assert option["description"].strip().endswith((".", ":")), option["name"]
