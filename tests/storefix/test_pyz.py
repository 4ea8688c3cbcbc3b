"""The one file: the same bytes every time, and it runs where nothing but a Python is."""

import ast
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.storefix.caches import Server, hexed, make_cache, make_nar, store_path

HERE = Path(__file__).parents[2]
STOREFIX = HERE / "src/kingpost/storefix"


def pythons():
    """Give every Python >= 3.9 of this machine: on PATH and those of pyenv."""
    names = [f"python3.{minor}" for minor in range(9, 20)]
    found = {os.path.realpath(path) for name in names if (path := shutil.which(name)) and "shims" not in path}
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found |= {os.path.realpath(path) for name in names for path in versions.glob(f"*/bin/{name}")}
    return sorted({*found, os.path.realpath(sys.executable)})


@pytest.fixture(scope="module")
def pyz(tmp_path_factory):
    out = tmp_path_factory.mktemp("pyz") / "kingpost-store-fix.pyz"
    subprocess.run([HERE / "tools/build-pyz", out], check=True)
    return out


@pytest.fixture
def root(tmp_path):
    """An empty store below a root, with a database as Nix makes it."""
    from kingpost.storefix.database import SCHEMA

    (tmp_path / "nix/store").mkdir(parents=True)
    db = tmp_path / "nix/var/nix/db"
    db.mkdir(parents=True)
    connection = sqlite3.connect(db / "db.sqlite")
    connection.executescript(SCHEMA)
    connection.close()
    (db / "schema").write_text("10")
    return tmp_path


@pytest.mark.parametrize("python", pythons(), ids=lambda path: Path(path).name)
def test_it_runs_isolated_in_an_empty_environment(pyz, root, python):
    def run(*words):
        argv = [python, "-W", "error", "-I", "-S", pyz, *words]
        return subprocess.run(argv, env={}, cwd="/", capture_output=True, text=True, check=False, timeout=60)

    done = run("scan", "--root", root, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["healthy"] is True
    lost = {store_path(number): make_nar(f"{number}\n") for number in (1, 2)}
    with sqlite3.connect(root / "nix/var/nix/db/db.sqlite") as connection:
        for path, nar in lost.items():
            row = (path, hexed(nar), 0, len(nar))
            connection.execute(
                "insert into ValidPaths (path, hash, registrationTime, narSize) values (?, ?, ?, ?)", row
            )
    connection.close()
    done = run("scan", "--root", root)
    assert done.returncode == 1, done.stderr
    assert all(path in done.stdout for path in lost)
    server = Server(make_cache({path: (nar, []) for path, nar in lost.items()}))
    try:
        done = run("repair", "--root", root, "--yes", "--offline", "--no-rebuild", "--from", server.url)
    finally:
        server.close()
    assert done.returncode == 0, done.stdout + done.stderr
    assert run("scan", "--root", root, "--contents").returncode == 0
    assert (root / store_path(1)[1:] / "text").read_text() == "1\n"


def test_an_old_python_is_told_so(pyz, tmp_path):
    main = zipfile.ZipFile(pyz).read("__main__.py").decode()
    (tmp_path / "main.py").write_text("import sys\nsys.version_info = (3, 8, 1)\n" + main)
    done = subprocess.run([sys.executable, tmp_path / "main.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is too old, 3.9 is needed" in done.stderr


def test_the_bytes_do_not_depend_on_who_builds_them(pyz, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(STOREFIX, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for path in copy.rglob("*"):
        os.utime(path, (5, 5))
        path.chmod(0o700)
    again = tmp_path / "again.pyz"
    subprocess.run(
        [sys.executable, "-I", "-S", copy / "bundle.py", again], check=True, env={"TZ": "Asia/Tokyo"}
    )
    assert again.read_bytes() == pyz.read_bytes()


def test_from_the_file_itself_it_sends_itself(pyz):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from kingpost_store_fix import bundle\n"
        "sys.stdout.buffer.write(bundle.build())"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program, pyz], capture_output=True, check=True)
    assert done.stdout == pyz.read_bytes()


def test_it_holds_nothing_but_its_folder(pyz):
    with zipfile.ZipFile(pyz) as zipped:
        assert zipped.testzip() is None
        names = {name for name in zipped.namelist() if name != "__main__.py"}
    sources = {f"kingpost_store_fix/{path.relative_to(STOREFIX)}" for path in STOREFIX.rglob("*.py")}
    assert names == sources


@pytest.mark.parametrize(
    "path", sorted(STOREFIX.rglob("*.py")), ids=lambda path: str(path.relative_to(STOREFIX))
)
def test_it_imports_the_standard_library_and_itself_only(path):
    for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 9))):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [node.module]
        elif isinstance(node, ast.ImportFrom):
            depth = len(path.relative_to(STOREFIX).parts)
            assert node.level <= depth, f"{path}:{node.lineno} leaves the folder"
        for module in modules:
            top = module.split(".")[0]
            assert top in sys.stdlib_module_names or top == "compression", f"{path}:{node.lineno} {module}"
