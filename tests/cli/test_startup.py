"""A command starts fast because it imports only what it runs. What is imported is tested, not how long it takes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kingpost.cli.registry import COMMANDS

HEAVY = {
    "boto3",
    "cryptography",
    "httpx",
    "jinja2",
    "jwt",
    "pydantic",
    "rich",
    "sqlite_utils",
    "tomlkit",
    "typer",
}
# typer imports pydantic itself, since some version, when it is there.
COMMAND_LINE = {"typer", "rich", "pydantic"}


def imported(*argv):
    """Run kingpost in a process of its own and give the heavy modules that it imported."""
    code = (
        "import sys\n"
        "from kingpost.cli.main import main\n"
        "code = main(sys.argv[1:])\n"
        "print(code, *sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True, timeout=60
    )
    code, *modules = done.stderr.splitlines()[-1].split()
    return int(code), HEAVY & set(modules)


def test_the_version_imports_nothing_heavy():
    assert imported("--version") == (0, set())


def test_a_misspelt_command_imports_nothing_heavy():
    assert imported("generat") == (2, set())


@pytest.mark.parametrize("name", [name for name, entry in COMMANDS.items() if not entry.passthrough])
def test_the_help_of_a_command_imports_no_library_but_the_command_lines(name):
    code, heavy = imported(name, "--help")
    assert code == 0
    assert heavy <= COMMAND_LINE


def test_check_needs_neither_templates_nor_network(tmp_path):
    topology = tmp_path / "topology.toml"
    topology.write_text('site.name = "s"\n[hosts.a]\nmemory = "1GiB"\n')
    code, heavy = imported("check", str(topology))
    assert code == 0
    assert heavy <= COMMAND_LINE
