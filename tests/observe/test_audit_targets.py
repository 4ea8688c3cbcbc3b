"""Which paths: in any form and any listing, samples, shards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.observe.many_paths import hash_of

from kingpost.base.errors import UsageError
from kingpost.observe import audit_targets as targets
from kingpost.observe.audit import Target

H1, H2 = hash_of(1), hash_of(2)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        (f"/nix/store/{H1}-a", Target(H1, f"/nix/store/{H1}-a")),
        (f"/tmp/s/{H1}-a/", Target(H1, f"/tmp/s/{H1}-a")),
        (H1, Target(H1)),
        (f"{H1}.narinfo", Target(H1)),
    ],
)
def test_a_path_in_any_form(text, target):
    assert targets.parse_target(text) == target


def test_a_link_to_a_store_path_means_that_path(tmp_path):
    path = "/nix/store/8iv5j0f2difw6wg9vwj9r2raacb08fkv-nixos-system"
    (tmp_path / "current-system").symlink_to(path)
    (tmp_path / "result").symlink_to("current-system")
    (tmp_path / "elsewhere").symlink_to("/etc")
    for name in ("current-system", "result"):
        assert targets.parse_target(str(tmp_path / name)) == targets.parse_target(path)
    with pytest.raises(UsageError, match="neither a store path"):
        targets.parse_target(str(tmp_path / "elsewhere"))


@pytest.mark.parametrize("text", ["", "hello", H1[:-1], f"{H1}-a", f"/nix/store/{H1}", "result"])
def test_what_is_no_path(text):
    with pytest.raises(UsageError):
        targets.parse_target(text)


@pytest.mark.parametrize(
    "line",
    [
        f"/nix/store/{H1}-a",
        H1,
        f"{H1}.narinfo",
        f"2026-05-06 12:00:00       512 {H1}.narinfo",
        f'"attic","{H1}.narinfo","512","2026-05-06T12:00:00.000Z"',
        f"./cache/{H1}.narinfo",
        f"      512 {H1}.narinfo",
        f'{{"path":"/nix/store/{H1}-a","narSize":1}}',
    ],
)
def test_a_path_in_any_listing(line):
    (found,) = targets.from_listing(["# header", line, "2026 512 nar/" + "0" * 52 + ".nar.zst", line])
    assert found.hash_part == H1


def test_a_listing_knows_a_name_when_it_has_one():
    found = targets.from_listing([H1, f"/nix/store/{H1}-a", H1, f"{H2}-b"])
    assert found == [Target(H1, f"/nix/store/{H1}-a"), Target(H2, f"/nix/store/{H2}-b")]


@given(st.text(max_size=200))
def test_any_text_is_a_listing(text):
    for target in targets.from_listing(text.splitlines()):
        assert targets.parse_target(target.hash_part)


MANY = [Target(hash_of(n)) for n in range(1000)]


@given(st.integers(1, 12))
def test_shards_are_a_partition_whatever_the_order(total):
    parts = [targets.take_shard(MANY, index, total) for index in range(1, total + 1)]
    assert sorted(t for part in parts for t in map(hash, part)) == sorted(map(hash, MANY))
    assert [set(targets.take_shard(reversed(MANY), i + 1, total)) for i in range(total)] == list(
        map(set, parts)
    )
    assert all(len(part) > 400 / total for part in parts)


@pytest.mark.parametrize(
    ("how", "number"), [("100", 100), ("5%", 50), ("0.1%", 1), ("100%", 1000), ("5000", 1000)]
)
def test_samples(how, number):
    drawn = targets.sample(MANY, how, "2026-05-06")
    assert len(drawn) == number
    assert set(drawn) <= set(MANY)
    assert set(drawn) == set(targets.sample(MANY[::-1], how, "2026-05-06"))
    assert number == 1000 or set(drawn) != set(targets.sample(MANY, how, "2026-05-07"))


@pytest.mark.parametrize("how", ["", "0", "-1", "1.5", "0%", "101%", "x", "5 %", "%"])
def test_what_is_no_sample(how):
    with pytest.raises(UsageError):
        targets.sample(MANY, how, "s")


@pytest.mark.parametrize(
    ("environment", "given", "shard"),
    [
        ({}, "", (1, 1)),
        ({}, "2/8", (2, 8)),
        ({"CI_NODE_INDEX": "3", "CI_NODE_TOTAL": "5"}, "", (3, 5)),
        ({"CI_NODE_TOTAL": "1"}, "", (1, 1)),
        ({"JOB_COMPLETION_INDEX": "0", "KINGPOST_SHARDS": "4"}, "", (1, 4)),
        ({"JOB_COMPLETION_INDEX": "3", "KINGPOST_SHARDS": "4"}, "", (4, 4)),
        ({"CI_NODE_INDEX": "3", "CI_NODE_TOTAL": "5"}, "1/1", (1, 1)),
    ],
)
def test_which_shard(environment, given, shard):
    assert targets.shard_of(environment, given) == shard


@pytest.mark.parametrize(
    ("environment", "given"),
    [
        ({}, "0/3"), ({}, "4/3"), ({}, "1"), ({}, "a/b"), ({}, "1/"),
        ({"CI_NODE_INDEX": "x", "CI_NODE_TOTAL": "5"}, ""),
        ({"JOB_COMPLETION_INDEX": "3"}, ""),
        ({"JOB_COMPLETION_INDEX": "4", "KINGPOST_SHARDS": "4"}, ""),
    ],
)  # fmt: skip
def test_what_is_no_shard(environment, given):
    with pytest.raises(UsageError):
        targets.shard_of(environment, given)
