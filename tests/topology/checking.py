"""Run the checks on the examples' topology with something laid over it."""

from datetime import date

from kingpost.topology.checks import run_checks
from kingpost.topology.checks.example import laid_over
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

TODAY = date(2026, 11, 21)


def found(text, today=TODAY):
    """Give the problems of the examples' topology with a TOML text laid over it."""
    topology = Topology.model_validate(laid_over(text))
    return run_checks(topology, Platform(topology), today=today)


def codes(text, today=TODAY):
    """Give the codes of the problems, sorted, each once."""
    return sorted({problem.code for problem in found(text, today)})
