"""The shell of the rendered jobs, run as a runner runs it, with programs that stand in for nix, attic and cachix."""

import os
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml as pyyaml

from kingpost.render.audits import render_audits
from kingpost.render.gitlab_ci import functions, pipeline_yaml
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

SHELLS = [shell for shell in (["bash"], ["dash"], ["busybox", "sh"]) if shutil.which(shell[0])]
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjaSJ9.c2VjcmV0"
CACHIX_TOKEN = "cachix-eyJhbGciOiJIUzI1NiJ9.x"

STUB = """\
#!/bin/sh
name=${0##*/}
{ printf '%s' "$name"; for word in "$@"; do printf ' <%s>' "$word"; done; printf '\\n'; } >>"$STUB_LOG/calls"
env >"$STUB_LOG/$name.env"
cat /proc/$$/cmdline | tr '\\0' ' ' >>"$STUB_LOG/argv"
"""
NIX = (
    STUB
    + """\
out=
while [ $# -gt 0 ]; do
  case $1 in --out-link) out=$2; shift ;; esac
  spec=$1
  shift
done
case $spec in *broken*) echo "error: build of $spec failed" >&2; exit 1 ;; esac
case $spec in *slow*) echo "warning: disabling binary cache 'http://c' for 60 seconds" >&2 ;; esac
ln -s "/nix/store/00000000000000000000000000000000-${out##*/}" "$out"
"""
)
NIX_STORE = (
    STUB
    + """\
shift 2
for path in "$@"; do echo "$path"; echo "$path-dependency"; done
"""
)
ATTIC = (
    STUB
    + """\
cp "$XDG_CONFIG_HOME/attic/config.toml" "$STUB_LOG/attic.toml" 2>/dev/null
stat -c %a "$XDG_CONFIG_HOME/attic/config.toml" >"$STUB_LOG/attic.mode" 2>/dev/null
[ ! -e "$STUB_LOG/attic-hangs" ] || exec sleep 30
[ ! -e "$STUB_LOG/attic-fails" ]
"""
)
KINGPOST = (
    STUB
    + """\
while [ $# -gt 0 ]; do
  case $1 in --token-file) cp "$2" "$STUB_LOG/audit-token" ;; esac
  shift
done
echo '{"schema": "kingpost.report/1"}'
[ ! -e "$STUB_LOG/audit-fails" ]
"""
)
CACHIX = (
    STUB
    + """\
cat >"$STUB_LOG/cachix.stdin"
[ ! -e "$STUB_LOG/cachix-fails" ]
"""
)


def platform(build=(".#default",), pushes=None, public=True, **pipeline) -> Platform:
    if pushes is None:
        pushes = [
            {"cache": "cachix:cx", "policy": "required", "token": {"variable": "CACHIX_TOKEN"}},
            {"cache": "attic:home/main", "policy": "best-effort", "token": {"variable": "ATTIC_TOKEN"}},
        ]
    return Platform(
        Topology.model_validate(
            {
                "site": {"name": "s", "substituters": ["attic:home/main", "substituter:nixos"]},
                "hosts": {"box": {"memory": "8GiB", "docker": {}}},
                "attic": {"home": {"host": "box", "port": 8080, "caches": {"main": {"public": public}}}},
                "cachix": {"cx": {}},
                "runners": {
                    "r": {"executor": "docker", "host": "box", "image": "img", "server": {"tags": ["nix"]}}
                },
                "pipelines": {"p": {"runner": "r", "build": list(build), "push": pushes, **pipeline}},
                "secrets": {
                    "raw": {"provider": "path", "path": "/nowhere", "format": "raw"},
                    "env": {"provider": "path", "path": "/nowhere", "variables": ["ATTIC_TOKEN"]},
                },
            }
        )
    )


def job_of(made: Platform) -> dict:
    return pyyaml.safe_load(pipeline_yaml(made, "p"))["p"]


@dataclass
class Ran:
    code: int
    output: str
    log: Path
    project: Path
    temporary: Path

    def calls(self, program: str) -> list[str]:
        path = self.log / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.split(" ")[0] == program]

    @property
    def report(self) -> str:
        return (self.project / "kingpost-report" / "push.txt").read_text()

    def assert_no_token(self):
        for text in (self.output, self.report, *self._files("argv"), *self._files("calls")):
            assert TOKEN not in text
            assert CACHIX_TOKEN not in text

    def _files(self, name):
        return [(self.log / name).read_text()] if (self.log / name).exists() else []


@pytest.fixture(params=SHELLS, ids=[shell[0] for shell in SHELLS])
def run(request, tmp_path):
    """Run a job as gitlab-runner's shell does: before_script and script in one `set -e` shell, from a pipe."""
    stubs, log, project, temporary = (tmp_path / name for name in ("bin", "log", "project", "tmp"))
    for folder in (stubs, log, project, temporary):
        folder.mkdir()
    for name, text in {
        "nix": NIX,
        "nix-store": NIX_STORE,
        "attic": ATTIC,
        "cachix": CACHIX,
        "kingpost": KINGPOST,
    }.items():
        (stubs / name).write_text(text)
        (stubs / name).chmod(0o755)

    def go(made: Platform | dict, *, trace=False, broken=(), **environment) -> Ran:
        for name in broken:
            (log / name).touch()
        job = made if isinstance(made, dict) else job_of(made)
        lines = ["if set -o | grep pipefail >/dev/null; then set -o pipefail; fi", "set -o errexit"]
        lines += ["set -o xtrace"] if trace else []
        lines += [*job["before_script"], *job["script"]]
        script = "\n".join(lines)
        env = {
            "PATH": f"{stubs}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "TMPDIR": str(temporary),
            "STUB_LOG": str(log),
            "CI_JOB_ID": "7",
            "CI_PROJECT_DIR": str(project),
            **{name: str(value) for name, value in job["variables"].items()},
            "ATTIC_TOKEN": TOKEN,
            "CACHIX_TOKEN": CACHIX_TOKEN,
            **environment,
        }
        env = {name: value for name, value in env.items() if value is not None}
        done = subprocess.run(
            [*request.param], input=f": | eval {quoted(script)}\nexit $?\n", env=env, cwd=project,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout + done.stderr, log, project, temporary)

    return go


def quoted(script: str) -> str:
    return "'" + script.replace("'", "'\\''") + "'"


def test_builds_and_pushes_the_whole_closure(run):
    ran = run(platform(build=[".#a", ".#b c"]))
    assert ran.code == 0, ran.output
    assert [call.split(" <--> ")[1] for call in ran.calls("nix")] == ["<.#a>", "<.#b c>"]
    paths = [f"/nix/store/00000000000000000000000000000000-result-{n}" for n in (1, 2)]
    assert (ran.log / "cachix.stdin").read_text().split() == [
        path for one in paths for path in (one, f"{one}-dependency")
    ]
    (push,) = ran.calls("attic")
    assert push == "attic <push> <--jobs> <2> <kingpost:main> " + " ".join(f"<{path}>" for path in paths)
    assert (ran.log / "attic.toml").read_text() == (
        f'[servers.kingpost]\nendpoint = "http://172.17.0.1:8080/"\ntoken = "{TOKEN}"\n'
    )
    assert (ran.log / "attic.mode").read_text() == "600\n"
    assert f"CACHIX_AUTH_TOKEN={CACHIX_TOKEN}\n" in (ran.log / "cachix.env").read_text()
    assert ran.report == "kingpost: cachix:cx: pushed\nkingpost: attic:home/main: pushed\n"
    ran.assert_no_token()


def test_leaves_nothing_behind(run):
    ran = run(platform())
    assert list(ran.temporary.iterdir()) == []


@pytest.mark.parametrize("trace", [False, True])
def test_no_token_is_printed_even_when_traced(run, trace):
    ran = run(platform(public=False), trace=trace)
    assert ran.code == 0, ran.output
    ran.assert_no_token()
    assert ("+ kingpost_build" in ran.output) == trace
    assert ("+ kingpost_end" in ran.output) == trace  # tracing goes on after each push


def test_a_required_push_that_fails_fails_the_job(run):
    ran = run(platform(), broken=["cachix-fails"])
    assert ran.code == 1
    assert "cachix:cx: push FAILED" in ran.report
    assert ran.calls("attic") == []
    ran.assert_no_token()


def test_a_best_effort_push_that_fails_is_reported_and_ends_in_a_warning(run):
    ran = run(platform(), broken=["attic-fails"])
    assert ran.code == 75
    assert "attic:home/main: push FAILED with exit code 1; it is best-effort" in ran.report
    assert ran.report.splitlines()[-1] in ran.output
    ran.assert_no_token()


def test_a_best_effort_push_that_hangs_does_not_hold_the_job(run):
    ran = run(platform(), broken=["attic-hangs"], KINGPOST_BEST_EFFORT_SECONDS="1")
    assert ran.code == 75
    assert "attic:home/main: push FAILED" in ran.report


def test_gitlab_shows_the_warning_and_goes_on():
    made = platform()
    assert job_of(made)["allow_failure"] == {"exit_codes": [75]}
    assert "allow_failure" not in job_of(platform(pushes=[]))


def test_a_failed_build_fails_the_job_and_pushes_nothing(run):
    ran = run(platform(build=[".#broken"]))
    assert ran.code == 1
    assert "build of .#broken failed" in ran.output
    assert ran.calls("attic") == ran.calls("cachix") == []


def test_a_cache_that_was_given_up_is_counted(run):
    ran = run(platform(build=[".#slow"]))
    assert ran.code == 0
    assert "a cache was given up 1 times while building .#slow" in ran.report
    assert "disabling binary cache" in ran.output


FORK = {"CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "2", "CI_MERGE_REQUEST_PROJECT_ID": "1"}


def test_a_fork_pushes_nothing_and_holds_no_token(run):
    ran = run(platform(public=False), **FORK)
    assert ran.code == 0, ran.output
    assert ran.calls("attic") == ran.calls("cachix") == []
    assert "skipped, nothing is pushed for a fork" in ran.report
    build = (ran.log / "nix.env").read_text()
    assert TOKEN not in build
    assert CACHIX_TOKEN not in build
    assert "netrc-file" not in build


def test_a_merge_request_of_the_project_itself_pushes(run):
    ran = run(platform(), CI_MERGE_REQUEST_SOURCE_PROJECT_ID="1", CI_MERGE_REQUEST_PROJECT_ID="1")
    assert len(ran.calls("attic")) == 1


def test_forks_push_where_the_topology_says_so(run):
    ran = run(platform(forks="push"), **FORK)
    assert len(ran.calls("attic")) == 1


def test_a_missing_token_fails_a_required_push_with_words(run):
    ran = run(platform(), CACHIX_TOKEN=None)
    assert ran.code == 1
    assert "there is no token: variable CACHIX_TOKEN is not set or empty" in ran.report
    assert ran.calls("cachix") == []


@pytest.mark.parametrize("token", [f"{TOKEN}\n\n", f"{TOKEN}\n"])
def test_line_ends_after_a_token_in_a_file_do_no_harm(run, tmp_path, token):
    (tmp_path / "token").write_text(token)
    ran = run(platform(), ATTIC_TOKEN=str(tmp_path / "token"))
    assert ran.code == 0, ran.output
    assert f'token = "{TOKEN}"\n' in (ran.log / "attic.toml").read_text()


@pytest.mark.parametrize("token", [f"{TOKEN}\r", f'{TOKEN}"', f"{TOKEN} x", "$(id)", "a\nb"])
def test_what_is_no_token_is_refused_with_words(run, token):
    ran = run(platform(), ATTIC_TOKEN=token)
    assert ran.code == 75
    assert "holds a character that no token has" in ran.report
    assert ran.calls("attic") == []
    assert TOKEN not in ran.output


@pytest.mark.parametrize(
    ("secret", "content"), [("raw", f"{TOKEN}\n"), ("env", f"OTHER=1\nATTIC_TOKEN={TOKEN}\n")]
)
def test_a_token_from_a_secrets_file(run, tmp_path, secret, content):
    made = platform(pushes=[{"cache": "attic:home/main", "policy": "required", "token": {"secret": secret}}])
    path = tmp_path / "secret's file"
    path.write_text(content)
    secrets = dict(made.topology.secrets)
    secrets[secret] = secrets[secret].model_copy(update={"path": str(path)})
    ran = run(Platform(made.topology.model_copy(update={"secrets": secrets})))
    assert ran.code == 0, ran.output
    assert f'token = "{TOKEN}"\n' in (ran.log / "attic.toml").read_text()
    ran.assert_no_token()


def test_a_users_login_is_used_as_it_is(run):
    ran = run(
        platform(pushes=[{"cache": "attic:home/main", "policy": "required", "token": {"login": "ann"}}])
    )
    assert ran.code == 0, ran.output
    assert ran.calls("attic")[0].startswith("attic <push> <--jobs> <2> <home:main> ")
    assert not (ran.log / "attic.toml").exists()


def test_a_private_cache_is_read_through_a_netrc_that_goes_with_the_job(run):
    ran = run(platform(public=False))
    assert ran.code == 0, ran.output
    env = (ran.log / "nix.env").read_text()
    assert f"netrc-file = {ran.temporary}/kingpost-job-7/netrc" in env
    assert "substituters = http://172.17.0.1:8080/main" in env
    assert list(ran.temporary.iterdir()) == []


def test_a_private_folder_that_somebody_else_made_is_not_used(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tmp" / "kingpost-job-7").symlink_to(tmp_path / "elsewhere")
    ran = run(platform())
    assert ran.code == 0, ran.output
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    "spec",
    [
        "$(touch hacked)",
        "`touch hacked`",
        "'; touch hacked; '",
        '"; touch hacked #',
        "a\ntouch hacked",
        "--help",
        "${HOME}",
    ],
)
def test_an_installable_is_never_read_as_shell(run, spec):
    ran = run(platform(build=[spec]))
    assert ran.code == 0, ran.output
    assert not (ran.project / "hacked").exists()
    assert f"<-->\x20<{spec}>\n" in (ran.log / "calls").read_text()


def test_jobs_are_interruptible_and_cancelled_by_newer_commits():
    found = pyyaml.safe_load(pipeline_yaml(platform(), "p"))
    assert found["workflow"] == {"auto_cancel": {"on_new_commit": "interruptible"}}
    assert found["p"]["interruptible"] is True
    assert found["p"]["tags"] == ["nix"]
    assert found["p"]["image"] == "img"


def test_no_job_uses_attic_use_or_swallows_a_failure():
    text = pipeline_yaml(platform(), "p")
    assert "attic use" not in text
    assert "|| true" not in text


def audit_job(**audit) -> dict:
    topology = platform().topology.model_dump(mode="python", by_alias=True, exclude_defaults=True)
    audits = {"night": {"cache": "attic:home/main", "runner": "r", **audit}}
    topology["site"]["name"] = "s"
    made = Platform(Topology.model_validate({**topology, "audits": audits}))
    return pyyaml.safe_load(render_audits(made)["ci/audits/night.gitlab-ci.yml"])["audit-night"]


def test_an_audit_reads_its_part_of_the_paths_that_were_pushed(run, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    job = audit_job(shards=4, sample="5%", token="raw")
    job["script"] = [words.replace("/nowhere", str(tmp_path / "token")) for words in job["script"]]
    ran = run(job, CI_NODE_INDEX="2", CI_NODE_TOTAL="4", KINGPOST_AUDIT_PATHS="list")
    assert ran.code == 0, ran.output
    assert job["parallel"] == 4
    (call,) = ran.calls("kingpost")
    assert call == (
        "kingpost <cache> <audit> <http://172.17.0.1:8080/main> <--sample> <5%> <--list> <list> "
        "<--junit> <kingpost-report/audit-2.xml> <--json> "
        f"<--token-file> <{ran.temporary}/kingpost-job-7/token>"
    )
    assert (ran.log / "audit-token").read_text() == TOKEN
    assert "kingpost.report/1" in (ran.project / "kingpost-report" / "audit-2.json").read_text()
    ran.assert_no_token()


def test_an_audit_that_finds_damage_fails_its_job(run):
    assert run(audit_job(), broken=["audit-fails"]).code == 1


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not here")
def test_shellcheck_finds_nothing():
    done = subprocess.run(
        ["shellcheck", "--shell=sh", "-"], input=functions(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_functions_leave_the_umask_alone(run):
    ran = run(platform())
    assert stat.S_IMODE((ran.project / "kingpost-report" / "push.txt").stat().st_mode) & 0o044
