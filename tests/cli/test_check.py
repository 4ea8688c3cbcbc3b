import json
import re
from pathlib import Path

import pytest

from kingpost.cli.main import main

ROOT = Path(__file__).parents[2]
HOMELAB = (ROOT / "examples/homelab/topology.toml").read_text()
JWT = "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiJleGFtcGxlIn0.c2lnbmF0dXJl"


@pytest.fixture
def check(tmp_path, capsys):
    """Run `kingpost check` on a text; give its exit code, its output, and (code, source line) of each problem."""

    def run(text, *options, name="topology.toml"):
        file = tmp_path / name
        file.write_text(text)
        exit_code = main(["check", str(file), *options])
        captured = capsys.readouterr()
        assert captured.err == ""
        found = re.findall(rf"^{re.escape(str(file))}:(\d+):(\d+): (KP-[A-Z-]+) ", captured.out, re.MULTILINE)
        lines = text.splitlines()
        return (
            exit_code,
            captured.out,
            [(code, lines[int(line) - 1][int(column) - 1 :]) for line, column, code in found],
        )

    return run


def test_a_clean_topology_says_what_was_checked(check):
    exit_code, output, problems = check(HOMELAB)
    assert (exit_code, problems) == (0, [])
    assert re.search(
        r"no problems \(2 hosts, \d+ contexts, \d+ services, \d+ routes, 2 pipelines, \d+ secrets; ", output
    )
    assert len(output.splitlines()) == 1


# What a user would do to examples/homelab, each with the code, where it is shown, and words that help.
BREAKS = {
    "a misspelt key": (
        ('memory_per_job = "1536MiB"', 'memory_per_jobs = "1536MiB"'),
        [("KP-TOPO-UNKNOWN-KEY", "memory_per_jobs = ")],
        ["did you mean `memory_per_job`?"],
    ),
    "a misspelt host": (
        ('host = "thinkpad"\nlisten', 'host = "thinkpd"\nlisten'),
        [("KP-REF-UNKNOWN", 'host = "thinkpd"')],
        [
            'there is no host "thinkpd"',
            'did you mean "thinkpad"?',
            "routes, listeners and memory are checked when",
        ],
    ),
    "an address written by hand": (
        (
            'substituters = ["cachix:homelab", "attic:home/blog-cache", "substituter:nixos"]\n\n[pipelines.hosts]',
            (
                'substituters = ["substituter:mine"]\n\n[substituters.mine]\n'
                'url = "http://127.0.0.1:8083/blog-cache"\n'
                'public_key = "blog-cache:gzjQ4yfeNWMwOoc8iibgKJMMdo7wSkSUlIFzf7yhsro="\n\n[pipelines.hosts]'
            ),
        ),
        [("KP-ROUTE-BY-HAND", 'url = "http://127.0.0.1:8083/blog-cache"')],
        ["is attic:home on node1", 'write "attic:home/blog-cache"'],
    ),
    "loopback for both hosts": (
        (
            '[gitlab.com]\nurl = "https://gitlab.com"',
            '[gitlab.com]\nurl = "http://localhost:8080"',
        ),
        [("KP-ROUTE-LOOPBACK", 'url = "http://localhost:8080"')],
        ["docker:node1/blog", "shell:thinkpad/host-ci", "127.0.0.1 is whoever dials it"],
    ),
    "a bind that the container does not reach": (
        ("port = 8083\n", 'port = 8083\nbind = "127.0.0.1"\n'),
        [("KP-BIND-NARROW", 'bind = "127.0.0.1"')],
        ["docker:node1/blog (pipeline blog pushes to attic:home/blog-cache)", "remove `bind`"],
    ),
    "the write-up's mount": (
        ('nix = "host-daemon"', 'volumes = ["/nix:/nix:ro"]'),
        [("KP-MOUNT-NIX-WHOLE", '"/nix:/nix:ro"]')],
        ["command not found", '`nix = "host-daemon"`'],
    ),
    "a token in the clear": (
        ('token = "blog-runner"', f'token = "{JWT}"'),
        [("KP-REF-UNKNOWN", 'token = "eyJ'), ("KP-SECRET-VALUE", 'token = "eyJ')],
        ["holds a JSON Web Token", "revoke, rotate"],
    ),
    "a smaller machine": (
        ('memory = "8GiB"', 'memory = "4GiB"'),
        [("KP-MEM-HOST", 'memory = "4GiB"')],
        ["node1 has 4GiB of memory and promises 7680MiB", "cluster k3s 2GiB", "reserve 1GiB"],
    ),
    "tags where config.toml would have them": (
        ('server = { tags = ["nix-blog"], protected = true }', 'tags = ["nix-blog"]'),
        [("KP-RUNNER-SERVER", 'tags = ["nix-blog"]')],
        ["where only GitLab can set it", "server = {"],
    ),
    "a laptop that left the tailnet": (
        (
            'addresses = { tailnet = "100.105.10.62", lan = "192.168.1.20" }',
            'addresses = { lan = "192.168.1.20" }',
        ),
        [("KP-NET-DEPLOY", 'network = "tailnet" }'), ("KP-NET-TUNNEL", 'network = "tailnet"')],
        [
            "node1 is deployed from thinkpad, which is not on tailnet",
            "thinkpad does not reach node1 over tailnet",
        ],
    ),
    "half of the credentials": (
        ('  "AWS_SECRET_ACCESS_KEY",\n', ""),
        [("KP-SECRET-VARIABLES", "variables = [")],
        ["AWS_SECRET_ACCESS_KEY"],
    ),
    "a forgotten equals sign": (
        ("port = 8083", "port 8083"),
        [("KP-TOPO-FILE", "")],
        ["this is no TOML"],
    ),
    "a blog that deploys its own machine": (
        ('build = [".#ci", ".#site"]', 'build = [".#ci", ".#site"]\ndeploys = ["node1"]'),
        [("KP-DEPLOY-INTERRUPTIBLE", "deploys = "), ("KP-DEPLOY-SELF", '"node1"]')],
        ["its runner blog is on it", "`interruptible = false`"],
    ),
    "a push that nobody would miss": (
        ('cache = "cachix:homelab"\npolicy = "required"', 'cache = "cachix:homelab"\npolicy = "best-effort"'),
        [("KP-PUSH-BEST-EFFORT", "policy = ")],
        ["primary cache cachix:homelab", "because"],
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_broken_as_a_user_would(check, name):
    (right, wrong), expected, words = BREAKS[name]
    assert HOMELAB.count(right) >= 1
    exit_code, output, problems = check(HOMELAB.replace(right, wrong, 1))
    assert exit_code == 2
    assert [code for code, _ in problems] == [code for code, _ in expected]
    for (_, at), (_, start) in zip(problems, expected, strict=True):
        assert at.startswith(start)
    for word in words:
        assert word in output
    assert JWT not in output


def test_everything_at_once(check):
    text = HOMELAB
    for name in (
        "a smaller machine",
        "tags where config.toml would have them",
        "a push that nobody would miss",
    ):
        text = text.replace(*BREAKS[name][0], 1)
    exit_code, output, problems = check(text)
    assert exit_code == 2
    assert [code for code, _ in problems] == ["KP-MEM-HOST", "KP-RUNNER-SERVER", "KP-PUSH-BEST-EFFORT"]
    assert "3 problems; docs/checks.md" in output
    assert output.count("why: ") == output.count("fix: ") == 3


def test_json_of_problems(check):
    text = HOMELAB.replace("port = 8083\n", 'port = 8083\nbind = "127.0.0.1"\n')
    exit_code, output, _ = check(text, "--json")
    assert exit_code == 2
    document = json.loads(output)
    assert document["schema"] == "kingpost.check/1"
    (problem,) = document["problems"]
    documented = json.loads((ROOT / "docs/checks.md").read_text().split("```json\n")[1].split("```")[0])
    assert set(problem) == set(documented["problems"][0])
    assert set(document) == set(documented)
    assert problem["file"] == document["file"]
    assert problem["path"] == ["attic", "home", "bind"]
    line = text.splitlines()[problem["line"] - 1]
    assert line[problem["column"] - 1 :] == 'bind = "127.0.0.1"'


def test_json_of_nothing(check):
    exit_code, output, _ = check(HOMELAB, "--json")
    assert exit_code == 0
    assert json.loads(output)["problems"] == []


def test_json_of_no_toml(check):
    exit_code, output, _ = check("[hosts\n", "--json")
    assert exit_code == 2
    (problem,) = json.loads(output)["problems"]
    assert (problem["code"], problem["line"]) == ("KP-TOPO-FILE", 1)


def test_a_missing_file(tmp_path, capsys):
    assert main(["check", str(tmp_path / "none.toml")]) == 2
    output = capsys.readouterr().out
    assert "there is no such file" in output
    assert "kingpost init" in output


@pytest.mark.parametrize(
    "line",
    [
        f'owner = "{JWT}!"',
        f'mode = "{JWT}"',
        f'"{JWT}" = 1',
        f"owner {JWT}",
        f'format = "{JWT}"',
        f'path = "{JWT}"',
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(check, line):
    exit_code, output, _ = check(f'[site]\nname = "x"\n\n[secrets.s]\nprovider = "agenix"\n{line}\n')
    assert exit_code == 2
    assert JWT not in output
    assert "eyJ" not in output


def test_control_characters_do_not_reach_the_terminal(check):
    exit_code, output, _ = check('[site]\nname = "x"\nprimary = "\\u001b[2Jx"\n')
    assert exit_code == 2
    assert "\x1b" not in output
