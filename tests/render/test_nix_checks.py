"""What a host looks at by itself: as it is declared, with only what was declared, and the scripts that it needs."""

from __future__ import annotations

from kingpost.render.nix_files import render_nix
from kingpost.topology.checks.example import laid_over
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

NOTHING = {"bucket-check.nix", "cache-audit.nix", "store-fix.nix"}


def rendered(text: str) -> dict[str, str]:
    return render_nix(Platform(Topology.model_validate(laid_over(text))))


def test_nothing_is_watched_unasked():
    files = rendered("")
    assert not {path for path in files if path.rpartition("/")[2] in NOTHING}


def test_a_stores_repair_is_kept_and_only_reports_unless_asked():
    files = rendered("[hosts.node1]\nstore_fix = {}")
    text = files["hosts/node1/store-fix.nix"]
    assert 'repair = "none";' in text
    assert "textfile" not in text
    assert {"modules/store-fix.nix", "modules/store-fix.sh", "modules/store-scan.py"} <= set(files)
    assert "hosts/laptop/store-fix.nix" not in files
    assert "./store-fix.nix" in files["hosts/node1/default.nix"]
    text = rendered('[hosts.node1]\nstore_fix = { repair = "safe" }\nmetrics = "/m/"')[
        "hosts/node1/store-fix.nix"
    ]
    assert 'repair = "safe";' in text
    assert 'textfile = "/m/kingpost-store.prom";' in text


def test_an_audit_dials_the_cache_as_its_host_does_and_leaves_out_what_is_not_pushed():
    files = rendered("""
[audits.night]
cache = "main"
host = "laptop"
sample = "5%"
token = "push"
schedule = "Mon 04:00"
[attic.home]
serve = ["tailnet"]
""")
    text = files["hosts/laptop/cache-audit.nix"]
    assert 'url = "http://100.64.0.1:8083/main";' in text
    assert 'closures = [ "/run/current-system" ];' in text
    assert '"--upstream"\n          "https://cache.nixos.org"' in text
    assert 'onCalendar = "Mon 04:00";' in text
    assert "tokenFile = config.age.secrets.push.path;" in text
    assert "memoryMax = 268435456;" in text
    assert "push = {" in files["hosts/laptop/secrets.nix"]
    assert {"modules/cache-audit.nix", "modules/lib/timed-check.nix", "modules/lib/timed-check.sh"} <= set(
        files
    )


def test_a_bucket_is_compared_with_the_disk_of_its_host_and_one_elsewhere_is_only_asked():
    own = rendered("""
[buckets.own]
provider = "minio"
data_dir = "/srv/minio"
credentials = "attic"
listener = { host = "node1", port = 9000 }
check = { host = "node1", scratch_probe = true }
""")["hosts/node1/bucket-check.nix"]
    assert 'endpoint = "http://127.0.0.1:9000";' in own
    assert 'disks = [ "/srv/minio" ];' in own
    assert 'provider = "minio";' in own
    assert "scratchProbe = true;" in own
    assert "credentialsFile = config.age.secrets.attic.path;" in own
    assert (
        "disks"
        not in rendered("""
[buckets.own]
provider = "garage"
data_dir = "/srv/garage"
credentials = "attic"
listener = { host = "node1", port = 9000 }
check = { host = "node1" }
""")["hosts/node1/bucket-check.nix"]
    ), "Garage keeps no folder for a bucket: the check would find a phantom"
    elsewhere = rendered('[buckets.store]\ncheck = { host = "laptop" }')["hosts/laptop/bucket-check.nix"]
    assert "disks" not in elsewhere
    assert "provider" not in elsewhere
    assert "config" not in elsewhere.partition("imports")[0].partition("{")[2]
