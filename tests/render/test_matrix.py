"""The matrix: a row for every dialer, and Markdown that stays a table."""

from kingpost.render import matrix
from kingpost.render.matrix import Row, markdown, matrix_md, rows
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform


def platform(hosts: int = 1) -> Platform:
    return Platform(
        Topology.model_validate(
            {
                "site": {"name": "s", "substituters": ["attic:home/main", "substituter:nixos"]},
                "networks": {"lan": {"kind": "lan"}},
                "hosts": {
                    f"h{n}": {"memory": "8GiB", "docker": {}, "addresses": {"lan": f"192.168.0.{n + 1}"}}
                    for n in range(hosts)
                },
                "attic": {"home": {"host": "h0", "port": 8080, "caches": {"main": {"public": True}}}},
                "runners": {"r": {"executor": "docker", "host": "h0", "image": "i", "nix": "host-daemon"}},
            }
        )
    )


def test_client_and_daemon_of_one_context_may_need_different_addresses():
    found = {(row.dialer, row.service): row for row in rows(platform()) if row.context == "docker:h0/r"}
    assert found["client", "attic:home"].url != found["daemon", "attic:home"].url
    assert found["daemon", "attic:home"].url == "http://127.0.0.1:8080"
    assert found["daemon", "attic:home"].needs == ("substitutes from attic:home/main",)
    assert ("daemon", "gitlab:gitlab.com") not in found


def test_needed_rows_are_those_with_a_need_in_the_contexts_order():
    made = platform(3)
    needed = list(rows(made, needed=True))
    assert needed
    assert all(row.needs for row in needed)
    order = list(made.contexts)
    positions = [order.index(row.context) for row in needed]
    assert positions == sorted(positions)
    everything = {(row.context, row.dialer, row.service) for row in rows(made) if row.needs}
    assert everything == {(row.context, row.dialer, row.service) for row in needed}


def test_a_large_platform_lists_only_what_it_dials(monkeypatch):
    made = platform(3)
    small = matrix_md(made)
    monkeypatch.setattr(matrix, "EVERYTHING", 1)
    large = matrix_md(made)
    assert "Only what the platform dials is here" in large
    assert "Only what the platform dials is here" not in small
    assert large.count("\n| ") < small.count("\n| ")


def test_a_cell_cannot_break_its_table():
    made = platform()
    row = Row("host:h0", "client", "attic:home", None, "none", "a | b", "c|d", ("x",))
    (line,) = [line for line in markdown([row], made) if line.startswith("| attic:home")]
    assert line.replace("\\|", "").count("|") == 6
