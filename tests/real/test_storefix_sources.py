"""The sources of the store repair beside real Nix: its dumps, caches, signatures, sessions and builds."""

import io
import json
import os
import subprocess
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import HealthCheck, given, settings
from tests.real import sshd as sshd_module
from tests.real.conftest import require
from tests.storefix.test_unpack import MALFORMED, sha, trees

from kingpost.storefix.errors import SourceError, UnreachableError, UntrustedError
from kingpost.storefix.interface import PathInfo, Settings, Wanted
from kingpost.storefix.locate import locate
from kingpost.storefix.nar import digest, dump
from kingpost.storefix.sources import open_rebuilder, open_sources, ssh_peer
from kingpost.storefix.sources.unpack import unpack

BUILD = """
  let build = name: script: derivation {
        inherit name; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" script ];
        PATH = "/usr/bin:/bin";
      };
  in rec {
    base = build "base" "mkdir $out; echo base > $out/text; printf '#!/bin/sh\\n' > $out/run; chmod +x $out/run";
    middle = build "middle" "mkdir -p $out/deep/er; ln -s ${base}/text $out/link; echo $out > $out/deep/er/self";
    top = build "top" "echo ${middle} ${base} > $out; head -c 300000 /dev/urandom | od -x >> $out";
  }
"""


def build(nix, attribute="top"):
    expression = nix.root / "build.nix"
    expression.write_text(BUILD)
    out = nix.run("nix-build", expression, "-A", attribute, "--no-out-link", "--no-substitute")
    return out.stdout.strip()


def closure(nix, path):
    return nix.run("nix-store", "--query", "--requisites", path).stdout.split()


def hash_of(nix, path):
    return nix.run("nix-store", "--query", "--hash", path).stdout.strip()


def the_store(nix):
    return locate(environment=nix.env)


def as_database(nix, path):
    """Give the hash of a path as the database has it."""
    import sqlite3

    with sqlite3.connect(f"file:{nix.state}/db/db.sqlite?mode=ro", uri=True) as connection:
        row = connection.execute(
            "select hash, narSize, deriver, ca from ValidPaths where path = ?", (path,)
        ).fetchone()
    connection.close()
    return row


@pytest.fixture
def serve():
    """Serve a directory on loopback."""
    servers = []

    def start(directory):
        class Quiet(SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory)))
        server.daemon_threads = True
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def key(nix):
    nix.run("nix-store", "--generate-binary-cache-key", "real-1", nix.root / "secret", nix.root / "public")
    name, _, text = (nix.root / "public").read_text().partition(":")
    return {name: text}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(tree=trees)
def test_nar_byte_for_byte(nix_new, tmp_path_factory, tree):
    base = tmp_path_factory.mktemp("tree")
    from tests.storefix.test_unpack import nar, node

    ours = nar(node(tree))
    unpack(io.BytesIO(ours).read, base / "ours", nar_hash=sha(ours), nar_size=len(ours))
    nix_store = str(nix_new.bin / "nix-store")
    theirs = subprocess.run(
        [nix_store, "--dump", base / "ours"], env=nix_new.env, capture_output=True, check=True
    )
    assert theirs.stdout == ours
    subprocess.run([nix_store, "--restore", base / "theirs"], env=nix_new.env, input=ours, check=True)
    got = bytearray()
    dump(os.fsencode(base / "theirs"), got.extend)
    assert bytes(got) == ours


def test_what_nix_refuses_we_refuse_and_more(nix):
    """Nix of either version takes some archives that are not canonical; we take none that Nix refuses."""
    taken = set()
    for name, data in MALFORMED.items():
        into = nix.root / "tmp" / "restored"
        done = subprocess.run(
            [nix.bin / "nix-store", "--restore", into],
            env=nix.env,
            input=data,
            capture_output=True,
            check=False,
        )
        if done.returncode == 0:
            taken.add(name)
        subprocess.run(["rm", "-rf", into], check=True)
    # Bytes behind the end are the caller's business in Nix; the rest is 2.8 being lax.
    assert {"something behind the end", "two archives"} <= taken
    if nix.version != "2.8":
        assert taken == {"something behind the end", "two archives"}


@pytest.mark.parametrize("compression", ["zstd", "xz", "bzip2", "none", "br", "gzip"])
def test_a_signed_cache_of_real_nix(nix, key, serve, tmp_path, compression):
    top = build(nix)
    cache = tmp_path / "cache"
    nix.run(
        "nix", "copy", "--to", f"file://{cache}?compression={compression}&secret-key={nix.root}/secret", top
    )
    paths = closure(nix, top)
    (source,) = open_sources(the_store(nix), Settings(substituters=(serve(cache),), trusted_public_keys=key))
    answers = source.query([Wanted(path) for path in paths])
    for number, path in enumerate(paths):
        info = answers[path]
        nar_hash, size, deriver, _ = as_database(nix, path)
        assert (info.nar_hash, info.nar_size, info.deriver) == (nar_hash, size, deriver or "")
        assert list(info.references) == sorted(
            nix.run("nix-store", "--query", "--references", path).stdout.split()
        )
        source.fetch(info, tmp_path / str(number), lambda _: None)
        assert digest(tmp_path / str(number)).nar_hash == nar_hash
    (stranger,) = open_sources(the_store(nix), Settings(substituters=(str(cache),), trusted_public_keys={}))
    assert isinstance(stranger.query([Wanted(top)])[top], UntrustedError)


def test_content_addressed_paths_need_no_signature(nix, serve, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("contents\n")
    flat = nix.run("nix-store", "--add-fixed", "sha256", folder / "file").stdout.strip()
    sha1 = nix.run("nix-store", "--add-fixed", "--recursive", "sha1", folder).stdout.strip()
    added = nix.run("nix-store", "--add", folder).stdout.strip()
    middle = build(nix, "middle")
    drv = nix.run("nix-store", "--query", "--deriver", middle).stdout.strip()
    said = nix.run("nix", "store", "make-content-addressed", "--json", middle).stdout
    rewritten = json.loads(said)["rewrites"][middle]
    paths = [flat, sha1, added, drv, rewritten]
    cache = tmp_path / "cache"
    url = f"file://{cache}?compression=none"
    nix.run("nix", "copy", "--to", url, *(path for path in [*paths, middle] if path != drv))
    nix.run("nix", "copy", "--derivation", "--to", url, drv)
    (source,) = open_sources(the_store(nix), Settings(substituters=(serve(cache),), trusted_public_keys={}))
    answers = source.query([Wanted(path) for path in [*paths, middle]])
    for number, path in enumerate(paths):
        assert as_database(nix, path)[3], f"{path} has a content address"
        assert not isinstance(answers[path], Exception), answers[path]
        source.fetch(answers[path], tmp_path / str(number), lambda _: None)
        assert digest(tmp_path / str(number)).nar_hash == as_database(nix, path)[0]
    assert isinstance(answers[middle], UntrustedError), "an input-addressed one does"


@pytest.fixture
def remote(nix, tmp_path):
    """A machine with this Nix, reached over ssh on loopback."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "nix-store").symlink_to(nix.bin / "nix-store")
    environment = {**nix.env, "PATH": f"{programs}:/usr/bin:/bin"}
    with sshd_module.running(tmp_path / "sshd", require("sshd"), environment) as server:
        yield server


@pytest.fixture
def by_ssh(remote, monkeypatch):
    monkeypatch.setenv("NIX_SSHOPTS", remote.nix_sshopts)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    opened = []

    def start(store, url="ssh://127.0.0.1", **options):
        given = Settings(substituters=(), **options)
        opened.extend(open_sources(store, given, [url]))
        return opened[-1]

    yield start
    for source in opened:
        source.close()


def test_a_peer_over_ssh(nix, by_ssh, tmp_path):
    top = build(nix)
    paths = closure(nix, top)
    missing = f"{nix.store}/{'0' * 32}-nothing"
    source = by_ssh(the_store(nix))
    answers = source.query([*(Wanted(path, as_database(nix, path)[0]) for path in paths), Wanted(missing)])
    assert set(answers) == set(paths)
    came = []
    for number, path in enumerate(paths):
        info = answers[path]
        assert (info.nar_hash, info.nar_size) == as_database(nix, path)[:2]
        source.fetch(info, tmp_path / str(number), came.append)
        assert digest(tmp_path / str(number)).nar_hash == info.nar_hash
    assert sum(came) == sum(info.nar_size for info in answers.values())
    # What our database does not know, nobody has signed.
    assert isinstance(source.query([Wanted(top)])[top], UntrustedError)
    lax = by_ssh(the_store(nix), require_sigs=False)
    assert lax.query([Wanted(top)])[top].path == top


def test_a_peer_whose_copy_is_damaged_or_gone_and_a_session_that_goes_on(nix, by_ssh, tmp_path):
    top = Path(build(nix))
    base = build(nix, "base")
    source = by_ssh(the_store(nix), require_sigs=False)
    answers = source.query([Wanted(str(top)), Wanted(base)])
    whole = top.read_bytes()
    top.chmod(0o644)
    for damage in (whole[:1000], whole + b"more", b"X" + whole[1:], b""):
        top.write_bytes(damage)
        with pytest.raises(SourceError, match=top.name) as caught:
            source.fetch(answers[str(top)], tmp_path / "out", lambda _: None)
        assert caught.value.where == "ssh://127.0.0.1"
        (tmp_path / "out").unlink(missing_ok=True)
        source.fetch(answers[base], tmp_path / "base", lambda _: None)
        subprocess.run(["rm", "-rf", tmp_path / "base"], check=True)
    top.unlink()
    with pytest.raises(UnreachableError, match="the session ended"):
        source.fetch(answers[str(top)], tmp_path / "out", lambda _: None)


def test_peers_that_cannot_be_asked(nix, remote, by_ssh, tmp_path):
    store = the_store(nix)
    wanted = [Wanted(f"{nix.store}/{'0' * 32}-x")]
    with pytest.raises(UnreachableError, match="the session ended") as caught:
        by_ssh(store, "ssh://127.0.0.1?remote-program=/nowhere/nix-store").query(wanted)
    assert "remote-program" in caught.value.fix
    with pytest.raises(UnreachableError) as caught:
        by_ssh(store, "ssh://nobody@127.0.0.1").query(wanted)
    assert "Permission denied" in caught.value.why
    assert "check that `ssh`" in caught.value.fix
    chatty = tmp_path / "programs" / "chatty"
    chatty.write_text("#!/bin/sh\necho Welcome to this machine\nexec nix-store --serve\n")
    chatty.chmod(0o755)
    with pytest.raises(UnreachableError, match="does not answer as"):
        by_ssh(store, f"ssh://127.0.0.1?remote-program={chatty}").query(wanted)
    remote.stop()
    with pytest.raises(UnreachableError) as caught:
        by_ssh(store).query(wanted)
    assert "refused" in caught.value.why


def test_a_peer_that_is_gone_is_not_dialled_for_every_path(tmp_path):
    dialled = tmp_path / "dialled"
    source = ssh_peer.SshPeer("ssh://gone", ["sh", "-c", f"echo >> {dialled}; exit 255"], {})
    info = PathInfo("/nix/store/x", "sha256:", 1)
    for _ in range(20):
        with pytest.raises(UnreachableError):
            source.fetch(info, tmp_path / "out", lambda _: None)
    assert len(dialled.read_text().splitlines()) == 3


def test_a_silent_peer_ends_in_bounded_time(monkeypatch):
    monkeypatch.setattr(ssh_peer, "PATIENCE", 0.5)
    monkeypatch.setattr(ssh_peer, "_AT_THE_CONSOLE", 0.5)
    source = ssh_peer.SshPeer("ssh://silent", ["sleep", "60"], {})
    with pytest.raises(UnreachableError, match="silent for"):
        source.query([Wanted("/nix/store/x")])


def test_another_disk(nix, tmp_path):
    """A store below a root, as `nix --store ROOT` makes it and as a mounted disk has it."""
    (tmp_path / "file").write_text("on the other disk\n")
    environment = {name: value for name, value in nix.env.items() if not name.startswith("NIX_")}
    environment |= {"NIX_CONF_DIR": nix.env["NIX_CONF_DIR"], "NIX_USER_CONF_FILES": "/dev/null"}
    for name in ("other", "mine"):
        (tmp_path / name / "nix/store").mkdir(parents=True)
        (tmp_path / name / "nix/var/nix").mkdir(parents=True)
    path = subprocess.run(
        [nix.bin / "nix-store", "--store", tmp_path / "other", "--add-fixed", "sha256", tmp_path / "file"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    mine = locate(str(tmp_path / "mine"))
    source = open_sources(mine, Settings(), [str(tmp_path / "other")])[0]
    info = source.query([Wanted(path), Wanted(f"/nix/store/{'0' * 32}-x")])[path]
    assert info.ca
    into = mine.real(path)
    source.fetch(info, into, lambda _: None)
    assert into.read_text() == "on the other disk\n"
    (tmp_path / "other" / path[1:]).unlink()
    assert source.query([Wanted(path)]) == {}, "a row without a path is no answer"


@pytest.fixture
def rebuilder(nix, monkeypatch):
    monkeypatch.setenv("PATH", nix.env["PATH"])
    for name in ("HOME", "TMPDIR", "NIX_USER_CONF_FILES", "NIX_PATH"):
        monkeypatch.setenv(name, nix.env[name])
    found = open_rebuilder(the_store(nix), Settings())
    assert nix.version in found.describe()
    return found


def test_a_lost_path_is_rebuilt_from_its_deriver(nix, rebuilder):
    build(nix)
    middle = build(nix, "middle")
    before, _, drv, _ = as_database(nix, middle)
    subprocess.run(["rm", "-rf", middle], check=True)
    assert rebuilder.obstacle(middle, drv) == ""
    rebuilder.rebuild(middle, drv)
    assert digest(middle).nar_hash == before == as_database(nix, middle)[0]


def test_what_stands_in_the_way_of_rebuilding(nix, rebuilder):
    middle = build(nix, "middle")
    drv = as_database(nix, middle)[2]
    assert "unknown" in rebuilder.obstacle(middle, "")
    assert "not built" in rebuilder.obstacle(drv, "")
    other = nix.root / "other.nix"
    other.write_text('derivation { name = "x"; system = "pdp11-linux"; builder = "/bin/sh"; }')
    foreign = nix.run("nix-instantiate", other).stdout.strip()
    assert "built on pdp11-linux" in rebuilder.obstacle(middle, foreign)
    written = Path(drv)
    written.chmod(0o644)
    written.write_text("")
    assert "damaged too" in rebuilder.obstacle(middle, drv)
    written.unlink()
    assert "missing too" in rebuilder.obstacle(middle, drv)
    subprocess.run(["rm", "-rf", middle], check=True)
    with pytest.raises(SourceError, match="could not be rebuilt") as caught:
        rebuilder.rebuild(middle, drv)
    assert caught.value.why
