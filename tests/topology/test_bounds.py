"""What bounds which unit: said once, for what is rendered and for what is expected on the host."""

from __future__ import annotations

import pytest

from kingpost.topology.bounds import bounds_of, shell_memory, unit_bounds
from kingpost.topology.checks.example import laid_over
from kingpost.topology.guards import Limit
from kingpost.topology.model import Topology

GIB = 1024**3


@pytest.mark.parametrize(
    ("target", "missing"),
    [
        ({"unit": "a.service"}, set()),
        ({"unit": "a.slice"}, {"oom_score"}),
        ({"unit": "a.scope"}, {"oom_score"}),
        ({"container": "a"}, {"oomd"}),
    ],
)
def test_a_limit_bounds_what_its_kind_of_unit_can_have(target, missing):
    every = {"memory_max": "2GiB", "memory_high": "1GiB", "swap_max": "1MiB", "oom_score": 1, "oomd": "kill"}
    found = bounds_of(Limit.model_validate({"host": "h", **target, **every, "cpu_weight": 50}))
    assert found.keys() == {*every, "cpu_weight"} - missing
    assert found["memory_max"] == 2 * GIB


def topology(text: str) -> Topology:
    return Topology.model_validate(laid_over(text))


def test_shell_jobs_bound_their_runner_unless_it_is_limited_itself():
    jobs = '[runners.host]\nmemory_per_job = "1GiB"\nconcurrency = 3\n'
    limit = '[limits.runner]\nhost = "laptop"\nunit = "gitlab-runner.service"\n'
    assert shell_memory(topology(""), "laptop") is None
    assert shell_memory(topology(jobs), "laptop") == 3 * GIB
    assert shell_memory(topology(jobs), "node1") is None, "a docker job has a container of its own"
    assert unit_bounds(topology(jobs + limit + "cpu_weight = 50"), "laptop") == {
        "gitlab-runner.service": {"memory_max": 3 * GIB, "cpu_weight": 50}
    }
    assert unit_bounds(topology(jobs + limit + 'memory_max = "2GiB"'), "laptop") == {
        "gitlab-runner.service": {"memory_max": 2 * GIB}
    }


def test_k3s_is_bound_as_its_cluster():
    text = '[clusters.c]\nhost = "laptop"\nmemory_max = "4GiB"\n'
    assert unit_bounds(topology(text), "laptop") == {"k3s.service": {"memory_max": 4 * GIB}}
    assert unit_bounds(topology(text + 'distribution = "kubernetes"'), "laptop") == {}
