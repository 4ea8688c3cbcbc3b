"""Plain files read by the programs they are for, and the writer on real file systems, under real kills."""

import base64
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml as pyyaml
from tests.real.conftest import require_root

from kingpost.base.errors import KingpostError
from kingpost.render import journal
from kingpost.render.gitlab_ci import functions, pipeline_yaml
from kingpost.render.nix_conf import nix_conf, runs_nix, settings
from kingpost.render.tree import Tree, plan, write
from kingpost.topology.loader import load
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

ROOT = Path(__file__).parents[2]
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjaSJ9.c2VjcmV0"
SYSTEM = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True).stdout.strip() + "-linux"


def example(name: str, version: str) -> Platform:
    """Give an example whose hosts all run one version of Nix."""
    topology = load(ROOT / "examples" / name / "topology.toml").topology
    hosts = {key: host.model_copy(update={"nix": version}) for key, host in topology.hosts.items()}
    return Platform(topology.model_copy(update={"hosts": hosts}))


def shown(nix, conf: str, folder: Path) -> tuple[dict, str]:
    """Give the settings that Nix reads from a nix.conf, and what it complains about."""
    folder.mkdir()
    (folder / "nix.conf").write_text(conf)
    command = ["nix", "show-config"] if nix.version == "2.8" else ["nix", "config", "show"]
    done = nix.run(*command, "--json", env={"NIX_CONF_DIR": str(folder)})
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("name", ["homelab", "flywheel", "minimal"])
def test_nix_reads_every_setting_as_it_was_meant(nix, tmp_path, name):
    made = example(name, nix.version)
    contexts = [context for context in made.contexts.values() if runs_nix(context)]
    for number, context in enumerate(contexts):
        found, complaints = shown(nix, nix_conf(made, context), tmp_path / str(number))
        assert "unknown setting" not in complaints
        for setting, value in settings(made, context).items():
            read = found[setting]["value"]
            if setting == "experimental-features":
                # 2.8 gives numbers here; that the command ran at all shows that they are on
                assert nix.version == "2.8" or set(read) >= set(value)
            elif setting == "substituters":
                assert [url.rstrip("/") for url in read] == [url.rstrip("/") for url in value]
            else:
                assert read == value, setting


class Cache(http.server.BaseHTTPRequestHandler):
    """A binary cache that notes the Authorization of each request."""

    seen: list[str | None]
    store: str

    def do_GET(self):
        self.seen.append(self.headers.get("Authorization"))
        body = f"StoreDir: {self.store}\n".encode() if self.path.endswith("nix-cache-info") else b""
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def cache(folder: Path):
    class Handler(Cache):
        store = str(folder)
        seen: list[str | None] = []  # noqa: RUF012 - one class for each server

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1], Handler.seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def job(build: list[str]) -> dict:
    made = Platform(
        Topology.model_validate(
            {
                "site": {"name": "s", "substituters": []},
                "hosts": {"box": {"memory": "8GiB", "docker": {}}},
                "attic": {"home": {"host": "box", "port": 8080, "caches": {"main": {}}}},
                "runners": {"r": {"executor": "docker", "host": "box", "image": "i"}},
                "pipelines": {
                    "p": {
                        "runner": "r",
                        "build": build,
                        "push": [
                            {
                                "cache": "attic:home/main",
                                "policy": "required",
                                "token": {"variable": "ATTIC_TOKEN"},
                            }
                        ],
                    }
                },
            }
        )
    )
    return pyyaml.safe_load(pipeline_yaml(made, "p"))["p"]


def run_job(nix, project: Path, lines: list[str], conf: str) -> subprocess.CompletedProcess[str]:
    """Run script lines as a runner would, with real Nix on PATH."""
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", "\n".join(lines)],
        cwd=project, check=False, capture_output=True, text=True, timeout=300,
        env={**nix.env, "CI_JOB_ID": "1", "CI_PROJECT_DIR": str(project), "ATTIC_TOKEN": TOKEN, "NIX_CONFIG": conf},
    )  # fmt: skip


def test_nix_sends_the_token_of_the_jobs_netrc(nix, tmp_path):
    with cache(nix.store) as (port, seen):
        lines = [
            functions(),
            "kingpost_begin no-push ATTIC_TOKEN",
            "kingpost_netrc 127.0.0.1 variable ATTIC_TOKEN",
            f"nix store ping --store http://127.0.0.1:{port}/main",
        ]
        done = run_job(nix, tmp_path, lines, "experimental-features = nix-command flakes")
    assert done.returncode == 0, done.stderr
    expected = "Basic " + base64.b64encode(f"kingpost:{TOKEN}".encode()).decode()
    assert set(seen) == {expected}
    assert TOKEN not in done.stdout + done.stderr
    assert not list((nix.root / "tmp").glob("kingpost-*"))


FLAKE = """
{
  outputs = { self }: {
    dependency = derivation {
      name = "dependency"; system = "SYSTEM"; builder = "/bin/sh"; args = [ "-c" "echo 1 > $out" ];
    };
    default = derivation {
      name = "top"; system = "SYSTEM"; builder = "/bin/sh"; args = [ "-c" "echo ${self.dependency} > $out" ];
    };
    broken = derivation {
      name = "broken"; system = "SYSTEM"; builder = "/bin/sh"; args = [ "-c" "echo no; exit 1" ];
    };
  };
}
"""
ATTIC = """#!/bin/sh
printf '%s\\n' "$@" >"$HOME/attic.calls"
for path in "$@"; do case $path in "$NIX_STORE_DIR"/*) test -e "$path" || exit 1 ;; esac; done
"""


@pytest.fixture
def project(nix, tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "flake.nix").write_text(FLAKE.replace("SYSTEM", SYSTEM))
    stubs = tmp_path / "bin"
    stubs.mkdir()
    (stubs / "attic").write_text(ATTIC)
    (stubs / "attic").chmod(0o755)
    nix.env["PATH"] = f"{stubs}:{nix.env['PATH']}"
    return folder


def test_a_job_builds_with_real_nix_and_pushes_what_was_built(nix, project):
    described = job(["path:.#default", "path:.#dependency"])
    lines = [*described["before_script"], *described["script"]]
    done = run_job(nix, project, lines, str(described["variables"]["NIX_CONFIG"]))
    assert done.returncode == 0, done.stderr
    words = (nix.root / "home" / "attic.calls").read_text().split()
    assert words[:4] == ["push", "--jobs", "2", "kingpost:main"]
    assert [Path(path).name[33:] for path in words[4:]] == ["top", "dependency"]
    closure = (project / "kingpost-report" / "closure.txt").read_text().split()
    assert {Path(path).name[33:] for path in closure} == {"top", "dependency"}
    assert not list((nix.root / "tmp").glob("kingpost-*"))


def test_a_job_whose_build_fails_pushes_nothing(nix, project):
    described = job(["path:.#broken"])
    done = run_job(
        nix,
        project,
        [*described["before_script"], *described["script"]],
        str(described["variables"]["NIX_CONFIG"]),
    )
    assert done.returncode == 1
    assert "broken" in done.stderr
    assert not (nix.root / "home" / "attic.calls").exists()


# --- the writer ---------------------------------------------------------------------------------------------


def tree(number: int, files: int = 40) -> Tree:
    text = f"generation {number}\n" * 200
    return Tree({f"hosts/h{n % 7}/{n}.txt": text for n in range(files)}, str(number), "1")


def contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text()
        for path in root.rglob("*")
        if path.is_file() and journal.FOLDER not in path.parts
    }


def complete(root: Path, of: Tree) -> bool:
    found = contents(root)
    found.pop("manifest.json", None)
    return found == of.files


@contextmanager
def mounted(folder: Path, options: str):
    require_root()
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("options", ["size=640k", "size=4m,nr_inodes=70"])
def test_a_full_disk_leaves_the_old_tree(tmp_path, options):
    with mounted(tmp_path / "disk", options) as disk:
        root = disk / "generated"
        write(root, tree(1))
        failures = 0
        for ballast in range(8, 200, 8):
            filler = disk / "filler"
            if "inodes" in options:
                filler.mkdir()
                fill_inodes(filler, leave=ballast // 4)
            else:
                fill_bytes(filler, leave=ballast * 1024)
            error = failure_of(root, tree(ballast, files=44))
            if error:
                failures += 1
                assert "No space left on device" in error
                assert complete(root, tree(1)) or (root / journal.JOURNAL).exists()
                assert (root / journal.JOURNAL).exists() or not (root / journal.FOLDER).exists()
            if filler.is_dir():
                shutil.rmtree(filler)
            else:
                filler.unlink()
            write(root, tree(1))
            assert complete(root, tree(1))
        assert failures > 3


def failure_of(root: Path, wanted: Tree) -> str:
    try:
        write(root, wanted)
    except KingpostError as error:
        return str(error)
    return ""


def fill_inodes(folder: Path, leave: int) -> None:
    free = os.statvfs(folder).f_favail
    for number in range(max(0, free - leave)):
        (folder / str(number)).touch()


def fill_bytes(path: Path, leave: int) -> None:
    free = os.statvfs(path.parent)
    size = free.f_bavail * free.f_frsize - leave
    path.write_bytes(b"x" * max(0, size))


def test_a_read_only_disk_is_explained(tmp_path):
    with mounted(tmp_path / "disk", "size=1m") as disk:
        write(disk / "generated", tree(1))
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert not write(disk / "generated", tree(1)).stale
        with pytest.raises(KingpostError, match="Read-only file system"):
            write(disk / "generated", tree(2))
        with pytest.raises(KingpostError, match="Read-only file system"):
            write(disk / "other", tree(2))


def test_another_file_system_inside_is_refused_before_anything_changes(tmp_path):
    root = tmp_path / "generated"
    write(root, Tree({"a": "1\n"}, "", ""))
    with mounted(root / "hosts", "size=1m"):
        with pytest.raises(KingpostError, match="hosts is another file system"):
            write(root, Tree({"a": "2\n", "hosts/x": "1\n"}, "", ""))
        assert (root / "a").read_text() == "1\n"


WRITER = """
import sys
from pathlib import Path
from kingpost.render.tree import write
sys.path.insert(0, sys.argv[1])
from tests.real.test_render_plain import tree
write(Path(sys.argv[2]), tree(int(sys.argv[3]), files=400))
"""


def test_killed_at_any_moment_every_file_is_whole_and_the_next_run_finishes(tmp_path):
    root = tmp_path / "generated"
    write(root, tree(0, files=400))
    start = time.monotonic()
    run_writer(root, 1).wait()
    whole = time.monotonic() - start
    killed = 0
    for number in range(2, 14):
        child = run_writer(root, number)
        time.sleep(whole * (0.5 + number / 26))
        child.send_signal(signal.SIGKILL)
        killed += child.wait() == -signal.SIGKILL
        for path, text in contents(root).items():
            if path != "manifest.json":
                assert text in {tree(n, 1).files["hosts/h0/0.txt"] for n in (number - 1, number)}, path
        write(root, tree(number, files=400))
        assert complete(root, tree(number, files=400))
        assert not plan(root, tree(number, files=400)).stale
    assert killed > 3


def run_writer(root: Path, number: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(ROOT), str(root), str(number)])
