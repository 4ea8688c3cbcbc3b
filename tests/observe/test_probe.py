"""Clients at the level of argv (no Attic or Cachix server is here), and what a probe makes of their answers."""

import os
from dataclasses import dataclass, field

import pytest
from tests.observe import faults
from tests.observe.many_paths import caches, hash_of, path_of

from kingpost.base.errors import CannotLookError, UsageError
from kingpost.base.process import Completed
from kingpost.cache.fetch import Access
from kingpost.observe import probe as probe_module
from kingpost.observe.audit_crew import Job
from kingpost.observe.probe import Probe, Request
from kingpost.observe.probe_payload import MEDIUM, SMALL, SYNTHETIC, Payload, Profile
from kingpost.observe.probe_push import AtticPush, CachixPush, NixCopy

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJhIjoxfQ.c2lnbmF0dXJl"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put an imitated client on PATH; it records argv, environment, configuration and standard input."""

    def put(name, code=0, says="done"):
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(
            f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/argv\nenv > {tmp_path}/env\ncat > {tmp_path}/stdin\n"
            f'[ -z "$XDG_CONFIG_HOME" ] || cp $XDG_CONFIG_HOME/attic/config.toml {tmp_path}/ 2>/dev/null\n'
            f"stat -c %a $XDG_CONFIG_HOME/attic/config.toml > {tmp_path}/mode 2>/dev/null\n"
            f"echo '{says}' >&2\nexit {code}\n"
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")

    put.saw = lambda name: (tmp_path / name).read_text()
    return put


def test_attic_pushes_with_a_configuration_of_its_own_and_no_token_in_argv(program, tmp_path):
    program("attic")
    (tmp_path / "token").write_text(TOKEN)
    done = AtticPush("http://127.0.0.1:8080/main", tmp_path / "token").push(["/nix/store/a", "/nix/store/b"])
    assert done.returncode == 0
    assert program.saw("argv").split() == ["push", "probe:main", "/nix/store/a", "/nix/store/b"]
    config = program.saw("config.toml")
    assert 'endpoint = "http://127.0.0.1:8080/"' in config
    assert f'token-file = "{tmp_path}/token"' in config
    assert program.saw("mode").strip() == "600"
    for seen in ("argv", "env", "config.toml", "stdin"):
        assert TOKEN not in program.saw(seen)
    with pytest.raises(UsageError, match="names no cache of an Attic server"):
        AtticPush("http://127.0.0.1:8080/").push(["/nix/store/a"])


def test_cachix_gets_its_token_through_the_environment(program):
    program("cachix")
    CachixPush("https://mine.cachix.org", "mine", TOKEN).push(["/nix/store/a"])
    assert program.saw("argv").split() == ["push", "mine"]
    assert program.saw("stdin") == "/nix/store/a\n"
    assert f"CACHIX_AUTH_TOKEN={TOKEN}" in program.saw("env")
    assert TOKEN not in repr(CachixPush("https://mine.cachix.org", "mine", TOKEN))


def test_nix_copy(program, tmp_path):
    program("nix")
    NixCopy("s3://b?endpoint=h", tmp_path / "netrc").push(["/nix/store/a"])
    assert program.saw("argv").split() == [
        *("--extra-experimental-features", "nix-command", "copy"),
        *("--option", "netrc-file", str(tmp_path / "netrc"), "--to", "s3://b?endpoint=h", "/nix/store/a"),
    ]
    assert NixCopy("file:///c?compression=none").read_url == "file:///c"
    assert NixCopy("s3://b?endpoint=h").read_url == "s3://b?endpoint=h"


def test_a_client_that_is_not_installed(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    for client in (AtticPush("http://h/c"), CachixPush("https://c", "c"), NixCopy("file:///c")):
        with pytest.raises(CannotLookError, match="is not on PATH"):
            client.push(["/nix/store/a"])


@pytest.mark.parametrize(
    ("profile", "sizes", "lacks"),
    [
        (SYNTHETIC, [100], ""),
        (SMALL, [100] * 5 + [70000], ""),
        (SMALL, [100] * 6, "0 of at least 1 paths above the chunking threshold"),
        (SMALL, [100], ("1 of at least 6 paths; 0 of at least 1 paths above the chunking threshold; "
                       "1 of at least 3 paths below it")),
        (MEDIUM, [100] * 32 + [65536] * 4, ""),
        (MEDIUM, [100] * 33 + [65536] * 3, "3 of at least 4 paths above the chunking threshold"),
        (MEDIUM, [70000] * 36, "0 of at least 12 paths below it"),
        (Profile("hosts", 2, 0, 0), [1, 2], ""),
    ],
)  # fmt: skip
def test_a_payload_must_have_the_profiles_shape(profile, sizes, lacks):
    payload = Payload(("r",), {f"/nix/store/{n}": size for n, size in enumerate(sizes)}, "x", generated=False)
    assert payload.shortfall(profile, 65536) == lacks


def test_only_more_than_one_path_is_representative():
    assert [profile.representative for profile in (SYNTHETIC, SMALL, MEDIUM)] == [False, True, True]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://attic:8080/main", "main"),
        ("https://homelab.cachix.org", "homelab.cachix.org"),
        ("file:///srv/nix/cache/", "cache"),
        ("s3://attic?endpoint=127.0.0.1:9000&scheme=http", "attic"),
        ("ssh://root@node1", "node1"),
        ("file:///srv/a b", "a-b"),
    ],
)
def test_the_phrase_names_the_cache(url, name):
    assert probe_module.named(url) == name


@dataclass
class Liar:
    """A client that says what it is told to, and pushes nothing."""

    returncode: int = 0
    stderr: str = ""
    name: str = "attic push"
    left_out: tuple = ()
    pushed: list = field(default_factory=list)

    def push(self, roots):
        self.pushed.append(roots)
        return Completed(("attic",), self.returncode, "", self.stderr)


PATHS = {f"/nix/store/{letter * 32}-p": 100 for letter in "abcdf"}


@pytest.fixture
def probe(tmp_path, monkeypatch):
    """Run a probe against an empty file:// cache, with a payload that needs no Nix."""
    made = Payload(tuple(PATHS), PATHS, "one made-up path", generated=True)
    monkeypatch.setattr(probe_module, "generated", lambda profile, threshold: made)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "nix-cache-info").write_text("StoreDir: /nix/store\n")

    def run(client, **options):
        job = Job(f"file://{tmp_path}/cache", Access(), attempts=1)
        recorded = []
        found = Probe(Request(SYNTHETIC, client, job, secrets=[TOKEN], **options), recorded.extend).run(
            sleep=lambda seconds: None
        )
        assert recorded == found
        return found

    return run


def codes_of(found):
    return [v.code.removeprefix("KP-PROBE-") for v in found if "-PROBE-" in v.code]


def test_a_client_that_takes_a_login_page_for_success(probe):
    """Attic's client takes any 2xx as success (client/src/api/mod.rs)."""
    found = probe(Liar(stderr="✅ p\n✅ All done! (5 pushed)"))
    assert codes_of(found) == ["PART-OK", "PART-OK", "PART-OK", "READ-BACK", "PART-OK"]
    assert sum(v.code == "KP-CACHE-NARINFO-MISSING" for v in found) == 5


def test_what_a_failed_push_says_is_kept_without_the_token(probe):
    said = (
        f"❌ mdxyb7p8m5sfqhcks25pvs25k90prmis-source: InternalServerError: The server…\ntoken {TOKEN}\nfine"
    )
    found = probe(Liar(returncode=1, stderr=said))
    assert codes_of(found) == ["PART-OK", "PART-OK", "PUSH", "PART-OK", "NOT-TRIED"]
    push = next(v for v in found if v.code == "KP-PROBE-PUSH")
    assert any("mdxyb7p8m5sfqhcks25pvs25k90prmis-source" in line for line in push.evidence["said"])
    assert TOKEN not in str([v.as_dict() for v in found])


def test_unsound_storage_stops_before_anything_is_pushed(probe):
    from kingpost.observe import bucket_codes

    client = Liar()
    broken = bucket_codes.INDEX_DIVERGENCE.verdict("bucket attic", "diverged")
    found = probe(client, storage=lambda: [broken])
    assert codes_of(found) == ["PRE", *["NOT-TRIED"] * 4]
    assert client.pushed == []


def test_a_storage_that_fails_with_the_push_is_seen_after_it(probe):
    from kingpost.observe import bucket_codes

    states = [
        bucket_codes.COHERENT.verdict("bucket attic", "fine"),
        bucket_codes.INDEX_DIVERGENCE.verdict("bucket attic", "diverged"),
    ]
    found = probe(Liar(returncode=1), storage=lambda: [states.pop(0)])
    assert codes_of(found) == ["PART-OK", "PART-OK", "PUSH", "POST", "NOT-TRIED"]
    assert states == []


def test_what_came_by_a_redirect_is_counted(monkeypatch):
    """Only reading back shows which NARs are one chunk."""
    files = caches({1: [], 2: [], 3: []})
    made = Payload((path_of(1),), {path_of(n): 100_000 for n in (1, 2, 3)}, "a closure", generated=True)
    monkeypatch.setattr(probe_module, "generated", lambda profile, threshold: made)
    with faults.serve({"nix-cache-info": files["nix-cache-info"]}) as server, faults.serve(files) as storage:

        class Pusher(Liar):
            read_url = server.url

            def push(self, roots):
                server.files = files
                nar = f"nar/{hash_of(2)}.nar.zst"
                server.faults[nar] = faults.redirect(f"{storage.url}/{nar}")
                return super().push(roots)

        job = Job(server.url, Access(), attempts=1)
        shape = Profile("own", paths=3, above=3, below=0)
        found = Probe(Request(shape, Pusher(), job), lambda _: None).run(sleep=lambda _: None)
    assert found[-1].code == "KP-PROBE-PASSED-GENERATED"
    assert found[-1].evidence["redirected"] == 1
    assert any(v.summary.endswith("; 1 by a redirect to the storage, 2 without") for v in found)
