"""A tree that was rendered from the same inputs, and that nobody touched, need not be rendered again."""

from __future__ import annotations

import json

import pytest

from kingpost.base import beside
from kingpost.render import journal
from kingpost.render import tree as module
from kingpost.render.tree import Tree, plan, unchanged, write

FILES = {"a": "1\n", "hosts/x/b": "2\n"}


def tree(inputs="i1", **files):
    return Tree(files or FILES, "topology", "1.0", inputs)


@pytest.fixture(autouse=True, params=[1, 2])
def processes(request, monkeypatch):
    monkeypatch.setattr(beside, "_processors", lambda: request.param)
    monkeypatch.setattr(module, "_MANY", 1)


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "out", tree())
    return tmp_path / "out"


def test_an_untouched_tree_of_the_same_inputs_has_nothing_to_do(root):
    found = unchanged(root, "i1")
    assert (found.changes, found.unchanged, found.stale) == ((), 2, False)
    assert found == plan(root, tree())


def test_other_inputs_are_rendered(root):
    assert unchanged(root, "i2") is None


@pytest.mark.parametrize("name", ["a", "hosts/x/b", "manifest.json"])
def test_what_somebody_touched_is_rendered(root, name):
    (root / name).write_text("{}")
    assert unchanged(root, "i1") is None
    (root / name).unlink()
    assert unchanged(root, "i1") is None
    (root / name).mkdir()
    assert unchanged(root, "i1") is None


def test_a_killed_write_is_finished_first(root):
    (root / journal.FOLDER).mkdir()
    (root / journal.JOURNAL).write_text("{}")
    assert unchanged(root, "i1") is None


def test_without_a_tree_everything_is_rendered(tmp_path):
    assert unchanged(tmp_path / "none", "i1") is None
    (tmp_path / "empty").mkdir()
    assert unchanged(tmp_path / "empty", "") is None


def test_a_tree_of_several_inputs_is_nobodys(root):
    write(root, tree("i2", a="new\n", **{"hosts/x/b": "new\n"}), lambda path: path == "a")
    assert unchanged(root, "i1") is None
    assert unchanged(root, "i2") is None
    assert json.loads((root / "manifest.json").read_text())["inputs"] == ""


def test_inputs_alone_make_no_tree_stale_and_are_not_written(root):
    before = (root / "manifest.json").read_bytes()
    assert not plan(root, tree("i2")).stale
    assert not write(root, tree("i2")).stale
    assert (root / "manifest.json").read_bytes() == before


def test_inputs_are_the_order_of_the_topology_and_the_code_too(tmp_path, monkeypatch):
    from kingpost.render import site
    from kingpost.topology.loader import load

    texts = {
        "one.toml": 'site.name = "s"\n[hosts.a]\nmemory = "1GiB"\n[hosts.b]\nmemory = "1GiB"\n',
        "two.toml": '# same\nsite.name = "s"\n[hosts.a]\nmemory = "1GiB"\n[hosts.b]\nmemory = "1GiB"\n',
        "other.toml": 'site.name = "s"\n[hosts.b]\nmemory = "1GiB"\n[hosts.a]\nmemory = "1GiB"\n',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    one, two, other = (site.inputs_of(load(tmp_path / name)) for name in texts)
    assert one == two != other
    (tmp_path / "templates").mkdir()
    monkeypatch.setattr(site, "templates", lambda: tmp_path / "templates")
    assert site.inputs_of(load(tmp_path / "one.toml")) != one
