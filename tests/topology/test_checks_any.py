"""Whatever the loader accepts: the checks answer, and never raise; what they accept can be derived."""

import json
from copy import deepcopy

import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kingpost.topology.checks import CHECKS, run_checks
from kingpost.topology.checks.example import laid_over
from kingpost.topology.loader import load
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform
from kingpost.topology.problems import locate_all

from .checking import TODAY

TEXTS = sorted(
    {check.example.bad for check in CHECKS.values()} | {check.example.good for check in CHECKS.values()}
)


def merged(one, other):
    both = deepcopy(one)
    for key, value in other.items():
        have = both.get(key)
        both[key] = merged(have, value) if isinstance(value, dict) and isinstance(have, dict) else value
    return both


def places(value, path=()):
    """Give the path of every table, list element and value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def broken(data, path, how):
    """Take away a value, or put a name there that nobody declared."""
    data = deepcopy(data)
    at = data
    for key in path[:-1]:
        at = at[key]
    if how == "remove":
        del at[path[-1]]
    elif isinstance(at[path[-1]], str):
        at[path[-1]] = how
    return data


@st.composite
def descriptions(draw):
    """Give several wrong and right examples laid over each other, and then one thing broken."""
    data = {}
    for text in draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4)):
        data = merged(data, laid_over(text))
    path = draw(st.sampled_from(sorted(places(data), key=str)))
    return broken(
        data, path, draw(st.sampled_from(["remove", "nobody", "127.0.0.1", "attic:home/main", "keep"]))
    )


@settings(max_examples=300, deadline=None)
@given(descriptions())
def test_checks_never_raise(data):
    try:
        topology = Topology.model_validate(data)
    except ValidationError:
        return
    problems = run_checks(topology, Platform(topology), today=TODAY)
    assert problems == run_checks(topology, Platform(topology), today=TODAY)
    for problem in problems:
        assert problem.code in CHECKS
        assert problem.message
        assert problem.fix
        at = data
        for key in problem.path[:-1]:  # the last may be what is missing
            assert isinstance(at, (dict, list))
            at = at[key] if isinstance(at, list) or key in at else {}
    if not problems:
        derive_everything(topology)


def derive_everything(topology):
    """Ask for all that renderers ask for: an accepted topology has it."""
    platform = Platform(topology)
    for need in platform.needs:
        assert platform.route(need.context, need.dialer, need.service).url
    for context in platform.contexts.values():
        if context.kind in {"host", "docker", "shell"}:
            assert all(use.url and use.public_key for use in platform.cache_uses(context.id))
    for name in topology.pipelines:
        assert all(push.route.url for push in platform.pushes(name) if push.push.policy != "off")
    for name in topology.hosts:
        platform.firewall(name)
    for name in topology.attic:
        platform.allowed_hosts(name)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(TEXTS), st.sampled_from(TEXTS))
def test_problems_have_places_in_the_file(tmp_path_factory, one, other):
    file = tmp_path_factory.mktemp("places") / "topology.toml"
    file.write_text(tomlkit.dumps(merged(laid_over(one), laid_over(other))))
    loaded = load(file)
    problems = run_checks(loaded.topology, Platform(loaded.topology), today=TODAY)
    lines = file.read_text().splitlines()
    for located in locate_all(problems, loaded.locator):
        assert 0 < located.where.line <= len(lines)
        key = next((part for part in reversed(located.problem.path) if isinstance(part, str)), None)
        table = [part for part in located.problem.path if isinstance(part, str)]
        assert any(part in lines[located.where.line - 1] for part in [key, *table])
        json.dumps(located.as_dict())


def fleet(size):
    """Give a platform of many hosts, each with a runner, a pipeline, a cache and limits of its own."""
    data = laid_over("")
    data["limits"] = {}
    data["networks"]["tailnet"]["cidr"] = "10.0.0.0/8"
    data["hosts"]["node1"]["addresses"]["tailnet"] = "10.255.0.1"
    data["hosts"]["laptop"]["addresses"]["tailnet"] = "10.255.0.2"
    for number in range(size):
        name = f"host{number}"
        data["hosts"][name] = {
            "memory": "16GiB",
            "addresses": {"tailnet": f"10.0.{number // 250}.{number % 250 + 1}"},
            "substituters": [f"attic:{name}/main-{number}", "main", "nixos"],
        }
        key = f"main-{number}:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
        caches = {f"main-{number}": {"public": True, "public_key": key}}
        data["attic"][name] = {"host": name, "port": 8083, "secret": "attic", "caches": caches}
        data["runners"][name] = {
            "executor": "shell",
            "host": name,
            "token": "runner",
            "memory_per_job": "1GiB",
        }
        data["limits"][name] = {"host": name, "unit": "atticd.service", "memory_max": "1GiB"}
        data["pipelines"][name] = {
            "runner": name,
            "build": [".#x"],
            "push": [{"cache": f"{name}/main-{number}", "policy": "required", "token": {"variable": "T"}}],
        }
    return Topology.model_validate(data)


def test_a_fleet_without_problems():
    topology = fleet(120)
    assert run_checks(topology, Platform(topology), today=TODAY) == []
    derive_everything(topology)
