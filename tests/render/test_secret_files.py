from __future__ import annotations

import pytest

from kingpost.render.secret_files import RUNNER_TOKEN, secret_path, secrets_by_host, token_variable
from kingpost.topology.guards import Secret
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform


@pytest.mark.parametrize(
    ("declared", "path"),
    [
        ({"provider": "agenix"}, "/run/agenix/x"),
        ({"provider": "sops-nix"}, "/run/secrets/x"),
        ({"provider": "agenix", "path": "/etc/x"}, "/etc/x"),
        ({"provider": "path", "path": "/etc/y"}, "/etc/y"),
    ],
)
def test_where_a_secret_lies(declared, path):
    assert secret_path("x", Secret.model_validate(declared)) == path


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ((), "CI_SERVER_TOKEN"),
        (("CI_SERVER_URL", "CI_SERVER_TOKEN"), "CI_SERVER_TOKEN"),
        (("URL", "RUNNER_TOKEN"), "RUNNER_TOKEN"),
        (("ONLY",), "ONLY"),
    ],
)
def test_which_variable_holds_the_token(variables, expected):
    assert token_variable(Secret(provider="path", variables=variables), RUNNER_TOKEN) == expected


def test_a_host_holds_what_names_it_and_what_it_reads():
    topology = Topology.model_validate(
        {
            "site": {"name": "x"},
            "hosts": {"a": {"memory": "8GiB"}, "b": {"memory": "8GiB"}},
            "attic": {"home": {"host": "a", "port": 8080, "secret": "server"}},
            "runners": {"r": {"executor": "shell", "host": "b", "token": "runner"}},
            "secrets": {
                "server": {"provider": "agenix"},
                "runner": {"provider": "agenix"},
                "named": {"provider": "agenix", "hosts": ["b"]},
                "unused": {"provider": "agenix"},
            },
        }
    )
    found = secrets_by_host(Platform(topology), {})
    assert {name: use.units for name, use in found["a"].items()} == {"server": ["atticd.service"]}
    assert {name: use.units for name, use in found["b"].items()} == {
        "named": [],
        "runner": ["gitlab-runner.service"],
    }
