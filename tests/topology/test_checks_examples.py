"""Every check's example, as docs/checks.md shows it: the wrong one gives just its code, the right one is clean."""

import json
import re
from pathlib import Path

import pytest

from kingpost.base.errors import InvalidInputError
from kingpost.topology.checks import CHECKS, run_checks
from kingpost.topology.checks.example import BASE, laid_over
from kingpost.topology.checks.reference import THEMES, markdown
from kingpost.topology.checks.shape import SHAPES, UNREADABLE
from kingpost.topology.loader import load
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform
from kingpost.topology.problems import InvalidTopologyError

ROOT = Path(__file__).parents[2]


def problems(example):
    topology = Topology.model_validate(laid_over(example))
    return run_checks(topology, Platform(topology))


def test_the_examples_share_a_topology_without_problems():
    assert problems("") == []


@pytest.mark.parametrize("code", CHECKS)
def test_wrong_example(code):
    example = CHECKS[code].example
    found = problems(example.bad)
    assert {problem.code for problem in found} == {code} | example.also
    assert (code, example.at) in {(problem.code, problem.path) for problem in found}
    for problem in found:
        assert problem.message
        assert not problem.message.endswith(".")
        assert problem.why
        assert problem.fix


@pytest.mark.parametrize("code", CHECKS)
def test_right_example(code):
    assert problems(CHECKS[code].example.good) == []


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.code)
def test_shape_examples(shape, tmp_path):
    # JSON, for laying examples over each other leaves no TOML text; positions have tests of their own.
    file = tmp_path / "topology.json"
    file.write_text(json.dumps(laid_over(shape.bad)))
    with pytest.raises(InvalidTopologyError) as caught:
        load(file)
    assert [(item.problem.code, item.problem.path) for item in caught.value.located] == [
        (shape.code, shape.at)
    ]
    assert problems(shape.good) == []


def test_an_unreadable_file(tmp_path):
    file = tmp_path / "topology.toml"
    file.write_text(UNREADABLE.bad)
    with pytest.raises(InvalidInputError, match="no TOML"):
        load(file)
    assert problems(UNREADABLE.good) == []


def test_the_loader_gives_no_code_without_a_section():
    text = (ROOT / "src/kingpost/topology/loader.py").read_text()
    assert set(re.findall(r'"(KP-[A-Z-]+)"', text)) == {shape.code for shape in SHAPES}


def test_docs_are_current():
    assert (ROOT / "docs/checks.md").read_text() == markdown(), (
        "run: python -m kingpost.topology.checks > docs/checks.md"
    )


def test_docs_have_a_section_for_every_code():
    headings = re.findall(r"^### (KP-[A-Z0-9-]+)$", markdown(), re.MULTILINE)
    assert sorted(headings) == sorted([*CHECKS, *(shape.code for shape in (UNREADABLE, *SHAPES))])
    assert {check.find.__module__.rpartition(".")[2] for check in CHECKS.values()} == set(THEMES)
    assert BASE in markdown()


@pytest.mark.parametrize("name", ["minimal", "homelab", "flywheel"])
def test_the_examples_folder_is_clean(name):
    loaded = load(ROOT / "examples" / name / "topology.toml")
    assert run_checks(loaded.topology, Platform(loaded.topology)) == []
