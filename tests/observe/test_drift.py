"""Each kind of item alone; tests/real/test_drift.py shows that real programs give such answers."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kingpost.observe import (
    drift_caches,
    drift_docker,
    drift_files,
    drift_firewall,
    drift_generations,
    drift_nix,
    drift_sockets,
    drift_units,
)
from kingpost.observe.drift_items import Visit
from kingpost.observe.executors.local import Here
from kingpost.observe.looking import Answer, Question, look, parse
from kingpost.render.nix_hosts import by_host
from kingpost.render.site import render_site
from kingpost.topology.caches import AtticCache
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

INSIDE = Path(drift_files.__file__).parent / "inside"
HOMELAB = Path(__file__).parents[2] / "examples" / "homelab" / "topology.toml"


@pytest.fixture(scope="module")
def homelab():
    return Platform(Topology.model_validate(tomllib.loads(HOMELAB.read_text())))


def visit(platform, host="node1", **answers):
    """Give a visit with answers by question; a text is an answer, a number a failure."""
    given_ = {
        name.replace("__", " "): Answer(value, "", "it failed")
        if isinstance(value, int)
        else Answer(0, value)
        for name, value in answers.items()
    }
    return Visit(by_host(platform)[host], answers=given_)


def named(verdicts, status="failed"):
    return {(v.subject.partition(": ")[2], v.code) for v in verdicts if str(v.status) == status}


class TestLooking:
    def test_answers_come_one_by_one_with_code_and_problem(self):
        questions = [
            Question("fine", "echo one; echo; echo two"),
            Question("bad", "echo half; echo why >&2; exit 4"),
            Question("none", "no-such-program-at-all"),
            Question('quote\'s $(id) "x"', 'printf %s "it\'s"'),
        ]
        answers = look(Here(), questions)
        assert answers["fine"] == Answer(0, "one\n\ntwo\n")
        assert (answers["bad"].code, answers["bad"].text, answers["bad"].problem) == (4, "half\n", "why")
        assert answers["none"].code == 127
        assert "no-such-program-at-all" in answers["none"].why
        assert answers['quote\'s $(id) "x"'].text == "it's"

    def test_a_question_cannot_read_the_script_that_asks(self):
        answers = look(Here(), [Question("greedy", "cat"), Question("next", "echo here")])
        assert answers["greedy"].text == ""
        assert answers["next"].text == "here\n"

    @given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
    def test_what_is_cut_off_is_no_answer(self, text):
        assert parse(f"kp begin a\n{text}", "kp") == {}

    def test_an_unknown_user_is_said(self):
        assert "no-such-user" in look(Here(), [Question("x", "id", "no-such-user")])["x"].why


def test_sockets_as_ss_prints_them():
    # `ss -Hltn` of iproute2 6.1, with a scoped, an IPv6 and a dual-stack socket.
    text = (
        "LISTEN 0      4096      127.0.0.1:8083       0.0.0.0:*\n"
        "LISTEN 0      128       127.0.0.53%lo:53     0.0.0.0:*\n"
        "LISTEN 0      511               *:443             *:*\n"
        "LISTEN 0      128            [::]:22            [::]:*\n"
    )
    assert drift_sockets.listening(text) == {8083: ["127.0.0.1"], 53: ["127.0.0.53"], 443: ["*"], 22: ["::"]}


SOCKETS = {
    "declared": ("0.0.0.0:8083", "KP-DRIFT-NONE"),
    "dual-stack": ("*:8083", "KP-DRIFT-NONE"),
    "narrow": ("127.0.0.1:8083", "KP-DRIFT-BIND-NARROW"),
    "other port": ("0.0.0.0:8084", "KP-DRIFT-NOT-LISTENING"),
}


@pytest.mark.parametrize("name", SOCKETS)
def test_a_listener_that_should_serve_every_caller(homelab, name):
    address, code = SOCKETS[name]
    [verdict] = drift_sockets.judge(visit(homelab, sockets=f"LISTEN 0 1 {address} 0.0.0.0:*\n"))
    assert verdict.code == code


def test_a_tunnels_end_is_no_wider_than_declared(homelab):
    [verdict] = drift_sockets.judge(visit(homelab, "thinkpad", sockets="LISTEN 0 1 0.0.0.0:8083 0.0.0.0:*\n"))
    assert verdict.code == "KP-DRIFT-BIND-WIDE"
    assert verdict.evidence == {"declared": "127.0.0.1:8083", "operational": ["0.0.0.0:8083"]}


def test_units_that_are_down_missing_or_older_than_their_files(homelab):
    # `systemctl show` of systemd 252, which prints a not-found unit's defaults and exits with 0.
    down = "LoadState=loaded\nActiveState=failed\nResult=oom-kill\nNeedDaemonReload=yes\nMainPID=0\n"
    down += "MemoryMax=infinity\nMemoryHigh=805306368\n"
    missing = "LoadState=not-found\nActiveState=inactive\nResult=success\nNeedDaemonReload=no\nMainPID=0\n"
    seen = {"unit atticd.service": Answer(0, down), "unit gitlab-runner.service": Answer(0, missing)}
    base = Visit(by_host(homelab)["node1"], answers=seen)
    verdicts = list(drift_units.judge(base))
    assert {
        ("atticd.service", "KP-DRIFT-UNIT-DOWN"),
        ("atticd.service files", "KP-DRIFT-UNIT-STALE"),
        ("atticd.service MemoryMax", "KP-DRIFT-UNIT"),
        ("gitlab-runner.service", "KP-DRIFT-UNIT-MISSING"),
    } == named(verdicts)
    assert ("atticd.service MemoryHigh", "KP-DRIFT-NONE") in named(verdicts, "ok")
    assert ("nix-daemon.service", "KP-DRIFT-NOT-ASKED") in named(verdicts, "skipped")
    assert any("oom-kill" in v.summary for v in verdicts)


def shape(tmp_path, content, *variables):
    file = tmp_path / "secret"
    file.write_bytes(content)
    done = subprocess.run(
        ["sh", "-s", "--", file, *variables],
        input=(INSIDE / "secret.sh").read_bytes(),
        capture_output=True,
        check=True,
    )
    facts = done.stdout.decode().splitlines()
    return {fact for fact in facts if not fact.startswith("access ")}


SHAPES = {
    b"glrt-abc": set(),
    b"glrt-abc\n": {"final-newline"},
    b"glrt-abc\n\n": {"final-newline", "several-newlines"},
    b"glrt-abc\r\n": {"final-newline", "carriage-returns"},
    b"one\ntwo": {"several-lines"},
    b"": {"empty"},
    b"\xef\xbb\xbfglrt-abc": {"byte-order-mark", "odd-characters"},
    b"glrt abc": {"odd-characters"},
    b"'glrt-abc'": {"odd-characters"},
    b"CI_SERVER_TOKEN=glrt-abc": {"assignments"},
    b"c29tZSBiYXNlNjQ=": set(),
}


@pytest.mark.parametrize("content", SHAPES, ids=repr)
def test_shapes_of_raw_secrets(tmp_path, content):
    assert shape(tmp_path, content) - {"other-lines"} == SHAPES[content]


ENVIRONMENTS = {
    b"A=1\nB=2\n": {"variable A", "variable B"},
    b"export A=1\n# B=2\n": {"variable A"},
    b"A='x'\nB=\"\"\n": {"variable A"},
    b"A=\nB=2": {"variable B"},
    b"A = 1\nB= 2\n": {"blanks A", "blanks B"},
    b"AB=1\n": set(),
}


@pytest.mark.parametrize("content", ENVIRONMENTS, ids=repr)
def test_variables_of_env_secrets(tmp_path, content):
    facts = shape(tmp_path, content, "A", "B")
    assert {f for f in facts if f.startswith(("variable", "blanks"))} == ENVIRONMENTS[content]


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=8, max_size=80).filter(lambda b: len(set(b)) > 5))
def test_no_part_of_a_secret_is_printed(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("s") / "secret"
    file.write_bytes(b"KINGPOSTSECRET" + content)
    script = (INSIDE / "secret.sh").read_bytes()
    done = subprocess.run(["sh", "-s", "--", file, "A"], input=script, capture_output=True, check=False)
    assert b"KINGPOSTSECRET" not in done.stdout + done.stderr


LIVE = """
concurrent = 4
[session_server]
  session_timeout = 1800
[[runners]]
  name = "blog"
  url = "https://gitlab.com"
  id = 42
  token = "glrt-secret-1"
  token_obtained_at = 2026-06-01T00:00:00Z
  executor = "docker"
  environment = ["NIX_REMOTE=daemon", "PASS=a=b\\"c=secret-2", "X=]"]
  [runners.cache.s3]
    SecretKey = "secret-3"
  [runners.docker]
    image = "i:1"
    volumes = [
      "/a:/b",
      "/cache",
    ]
    environment = [
      "Y=secret-4"
    ]
"""


def test_a_runners_config_leaves_its_host_without_secrets(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text(LIVE)
    (tmp_path / ".runner_system_id").write_text("s_0123456789ab")
    keys = "|".join(drift_files._KEYS)
    script = (INSIDE / "config.sh").read_bytes()
    text = subprocess.run(
        ["sh", "-s", "--", file, keys], input=script, capture_output=True, check=True
    ).stdout.decode()
    assert "secret" not in text.replace("SecretKey", "")
    document = tomllib.loads(text)
    [runner] = document["runners"]
    assert (document["concurrent"], runner["id"], runner["docker"]["volumes"]) == (4, 42, ["/a:/b", "/cache"])
    assert runner["environment"] == ["NIX_REMOTE", "PASS", "X"]
    assert runner["docker"]["environment"] == ["Y"]
    assert text.endswith("# system-id s_0123456789ab\n")


def test_a_live_config_with_a_stranger_and_a_changed_runner(homelab):
    live = '\nconcurrent = 1\n[[runners]]\nname = "blog"\nurl = "https://gitlab.com"\nexecutor = "shell"\nlimit = 1\n'
    live += '[[runners]]\nname = "old"\n'
    verdicts = list(drift_files.judge(visit(homelab, **{"config.toml": live, "atticd.toml": 1})))
    found = named(verdicts)
    assert ("config.toml runner blog executor", "KP-DRIFT-FILE") in found
    assert ("config.toml runner blog docker.volumes", "KP-DRIFT-FILE") in found
    assert ("config.toml runners", "KP-DRIFT-FILE") in found
    assert named(verdicts, "skipped") == {("atticd.toml", "KP-DRIFT-NOT-ASKED")}


def test_a_generated_tree_that_was_edited_cut_or_outlived(homelab, tmp_path):
    files = dict(list(render_site(homelab).items())[:6])
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    [fine] = drift_files.tree(files, tmp_path)
    assert fine.code == "KP-DRIFT-NONE"
    first, second, *_ = files
    (tmp_path / first).write_text("mine")
    (tmp_path / second).unlink()
    [wrong] = drift_files.tree(files, tmp_path)
    assert wrong.evidence["operational"] == sorted([f"{first}: edited by hand", f"{second}: missing"])


SHOWN = (
    "substituters = https://homelab.cachix.org http://127.0.0.1:8083/blog-cache https://cache.nixos.org/\n"
    "trusted-public-keys = homelab.cachix.org-1:PRqA+J2rzFHsJzyNVpzgHzuIYkuc9pdfyeGSdmLgEf8="
    " blog-cache:gzjQ4yfeNWMwOoc8iibgKJMMdo7wSkSUlIFzf7yhsro="
    " cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=\n"
    "fallback = true\nconnect-timeout = 5\nstalled-download-timeout = 90\n"
    "filetransfer-retry-attempts = 3\nfsync-store-paths = true\n"
)


def nix(platform, shown, file=""):
    answers = {"nix version": "nix (Nix) 2.31.2", "nix root": shown, "nix file": file}
    return list(drift_nix.judge(visit(platform, **answers)))


def test_nix_as_declared_in_the_words_of_its_newer_versions(homelab):
    assert {str(v.status) for v in nix(homelab, SHOWN)} == {"ok"}


def test_a_setting_that_a_users_file_overrides_is_told_from_one_that_was_not_deployed(homelab):
    changed = SHOWN.replace("http://127.0.0.1:8083/blog-cache", "http://localhost:8083/blog-cache")
    [mine] = [v for v in nix(homelab, changed, SHOWN) if str(v.status) == "failed"]
    assert "/etc/nix/nix.conf is right" in mine.remedy
    [not_deployed] = [v for v in nix(homelab, changed, changed) if str(v.status) == "failed"]
    assert "/etc/nix/nix.conf is right" not in not_deployed.remedy


def test_a_default_of_ours_may_be_overridden(homelab):
    [verdict] = [
        v for v in nix(homelab, SHOWN.replace("fallback = true", "fallback = false")) if str(v.status) != "ok"
    ]
    assert (verdict.code, str(verdict.status)) == ("KP-DRIFT-NIX-SETTING", "expected")


def test_no_line_with_a_token_is_asked_for():
    assert "access-tokens" not in drift_nix._KEPT


def test_generations_of_a_cut_off_switch(homelab):
    text = "running /nix/store/a\nnewest /nix/store/b\nkernel /k1\nbooted /k0\n"
    text += "there system-1-link /nix/store/a\ngone system-2-link /nix/store/b\n"
    verdicts = list(drift_generations.judge(visit(homelab, generations=text)))
    assert named(verdicts) == {
        ("running generation", "KP-DRIFT-GENERATION-OLD"),
        ("generation system-2-link", "KP-DRIFT-GENERATION-GONE"),
    }
    assert named(verdicts, "expected") == {("kernel", "KP-DRIFT-REBOOT")}


def bridge(subnet="172.17.0.0/16", gateway="172.17.0.1", name="bridge"):
    """Give one network as `docker network inspect` of Docker 20.10 prints it, shortened."""
    return {"Name": name, "IPAM": {"Driver": "default", "Config": [{"Subnet": subnet, "Gateway": gateway}]}}


def docker(platform, networks, pools, jobs=()):
    answers = {
        "docker networks": json.dumps(networks),
        "docker pools": json.dumps(pools),
        "docker jobs": "".join(json.dumps(job) + "\n" for job in jobs),
    }
    return list(drift_docker.judge(visit(platform, **answers)))


POOLS = [{"Base": "172.20.0.0/14", "Size": 24}]


def test_a_network_that_is_older_than_the_pools(homelab):
    networks = [bridge(), bridge("192.168.32.0/20", "192.168.32.1", "build-7")]
    assert named(docker(homelab, networks, POOLS)) == {("docker network build-7", "KP-DRIFT-DOCKER-POOLS")}


def test_another_gateway_and_dockers_own_pools(homelab):
    found = named(docker(homelab, [bridge("172.18.0.0/16", "172.18.0.1")], None))
    assert found == {
        ("docker bridge gateway", "KP-DRIFT-DOCKER-GATEWAY"),
        ("docker address pools", "KP-DRIFT-DOCKER-POOLS"),
    }


def test_a_job_whose_store_is_writable_and_whose_socket_is_not(homelab):
    def bind(source, *, writable):
        return {"Type": "bind", "Source": source, "Destination": source, "RW": writable}

    mounts = [bind("/nix/store", writable=True), bind("/nix/var/nix/db", writable=False)]
    mounts += [
        bind("/nix/var/nix/daemon-socket", writable=False),
        {"Type": "volume", "Destination": "/cache"},
    ]
    job = {"name": "/runner-x-build", "image": "i", "mounts": mounts, "memory": 0}
    found = [v for v in docker(homelab, [bridge()], POOLS, [job]) if str(v.status) == "failed"]
    assert [v.code for v in found] == ["KP-DRIFT-JOB-NIX", "KP-DRIFT-JOB-VOLUMES", "KP-DRIFT-CONTAINER"]
    assert "writable" in found[0].summary
    assert "read-only" in found[0].summary


def test_no_firewall_is_open_everywhere_but_where_only_loopback_listens(homelab):
    links = "1: lo: <UP>\n2: eth0: <UP>\n3: docker0: <UP>\n9: veth1@if2: <UP>\n"
    empty = visit(homelab, interfaces=links, iptables="*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n", nft=127)
    [verdict] = drift_firewall.judge(empty)
    assert (verdict.code, verdict.evidence["operational"]) == ("KP-DRIFT-FIREWALL-WIDE", ["docker0", "eth0"])
    unread = visit(homelab, interfaces=links, iptables=1, nft=127)
    [verdict] = drift_firewall.judge(unread)
    assert verdict.code == "KP-DRIFT-NOT-ASKED"


def asked(status, **body):
    return {"requests": {"config": {"status": status, "body": json.dumps(body)}}}


CACHES = {
    "missing": (asked(404, error="NoSuchCache"), {"KP-CACHE-MISSING"}),
    "private or missing": (asked(401, error="Unauthorized"), {"KP-DRIFT-NOT-ASKED"}),
    "down": ({"connect": {"error": "refused", "text": "refused"}}, {"KP-DRIFT-NOT-ASKED"}),
    "no server": ({"requests": {"config": {"status": 200, "body": "<html>"}}}, {"KP-DRIFT-NOT-ASKED"}),
    "reset retention": (
        asked(200, is_public=True, priority=41, retention_period="Global",
              upstream_cache_key_names=["cache.nixos.org-1"]),
        {"KP-DRIFT-CACHE-SETTING", "KP-DRIFT-NONE"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CACHES)
def test_caches_as_their_server_tells_them(name):
    answer, codes = CACHES[name]
    cache = AtticCache(public=True, retention="30d")
    assert {v.code for v in drift_caches.compare("attic:a/b", cache, answer)} == codes


def test_a_raw_signing_secret_still_has_to_reach_the_process(homelab):
    on = by_host(homelab)["node1"]
    _, listed = drift_units._wanted(on, "home")
    assert listed == ["ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
    text = HOMELAB.read_text().replace('source = "secrets/atticd.env.age"', 'format = "raw"')
    text = text.replace('  "ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64",\n', "")
    raw = Platform(Topology.model_validate(tomllib.loads(text)))
    assert "ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64" in drift_units._wanted(by_host(raw)["node1"], "home")[1]


TAILSCALE = """*filter
:INPUT ACCEPT [0:0]
:nixos-fw - [0:0]
:ts-input - [0:0]
-A INPUT -j ts-input
-A INPUT -j nixos-fw
-A nixos-fw -p tcp -m tcp --dport 8083 -i docker0 -j ACCEPT
-A nixos-fw -j DROP
-A ts-input -s 100.105.10.61/32 -i lo -j ACCEPT
-A ts-input -s 100.64.0.0/10 ! -i tailscale0 -j DROP
-A ts-input -i tailscale0 -j ACCEPT
COMMIT
"""


def test_what_tailscaled_opens_by_itself_is_expected_and_nothing_else(homelab):
    links = "2: eth0: <UP>\n3: docker0: <UP>\n4: tailscale0: <UP>\n"
    [verdict] = drift_firewall.judge(visit(homelab, interfaces=links, iptables=TAILSCALE, nft=127))
    assert (verdict.code, str(verdict.status)) == ("KP-DRIFT-FIREWALL-TAILNET", "expected")
    wider = TAILSCALE.replace("-A nixos-fw -j DROP", "-A nixos-fw -p tcp -m tcp --dport 8083 -j ACCEPT")
    found = {v.code for v in drift_firewall.judge(visit(homelab, interfaces=links, iptables=wider, nft=127))}
    assert found == {"KP-DRIFT-FIREWALL-TAILNET", "KP-DRIFT-FIREWALL-WIDE"}
