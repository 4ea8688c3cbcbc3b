"""Plans: what is preferred to what, what is left, and that a plan is what it was shown as."""

import json

import pytest
from tests.storefix.paper import NAMES, Paper, path_of

from kingpost.storefix import plan as plans
from kingpost.storefix.errors import UsageError
from kingpost.storefix.interface import PathInfo


@pytest.fixture
def paper(tmp_path):
    return Paper(tmp_path)


def planned(paper, *argv, source=True):
    code, said = paper.run("plan", "--json", *argv, source=source)
    document = json.loads(said)
    assert code == (1 if document["actions"] or document["left"] else 0)
    return document


def kinds(document):
    return {(action["kind"], action["subject"].rsplit("-", 1)[-1]) for action in document["actions"]}


def test_nothing_to_do(paper):
    assert planned(paper)["actions"] == []


def test_fetching_is_preferred_to_dropping(paper):
    paper.lose("e", "c")
    assert kinds(planned(paper)) == {("fetch", "e"), ("fetch", "c")}


def test_dropping_takes_what_depends_on_it(paper):
    paper.sql(("delete from Refs where referrer = (select id from ValidPaths where path = ?)", path_of("a")))
    (paper.state / "profiles/system").unlink()
    (paper.state / "profiles/system-1-link").unlink()
    paper.lose("c")
    document = planned(paper, source=False)
    assert kinds(document) == {("drop", "c"), ("drop", "b")}
    assert [action["subject"] for action in document["actions"]] == [path_of("b"), path_of("c")]
    assert document["left"] == []


def test_what_is_alive_is_left_and_says_how_to_go_on(paper):
    paper.lose("c")
    document = planned(paper, source=False)
    assert document["actions"] == []
    [left] = document["left"]
    assert left["subject"] == path_of("c")
    assert left["needed_by"][0].startswith("profile system")
    assert f"--allow-cut {path_of('c')}" in left["fix"]


def test_cutting_needs_the_name(paper):
    paper.lose("c")
    assert planned(paper, "--allow-cut", path_of("d"), source=False)["actions"] == []
    document = planned(paper, "--allow-cut", path_of("c"), source=False)
    [cut] = document["actions"]
    assert (cut["kind"], set(cut["others"])) == ("cut", {path_of("a"), path_of("b")})
    assert "incomplete afterwards" in cut["loses"]


def test_references_are_fetched_before_their_referrers(paper):
    paper.lose(*NAMES)
    order = [action["subject"].rsplit("-", 1)[-1] for action in planned(paper)["actions"]]
    assert sorted(order) == sorted(NAMES)
    assert order.index("d") < order.index("c") < order.index("b") < order.index("a")


def test_everything_that_can_be_had_is_had_and_the_rest_named(paper):
    # Dead and unknown to every source: dropped. Alive and known: fetched, in the same plan.
    paper.lose("f", "c")
    paper.sql(("update ValidPaths set path = ? where path = ?", path_of("g"), path_of("f")))
    assert kinds(planned(paper)) == {("fetch", "c"), ("drop", "g")}


def test_a_plan_survives_its_file_and_no_edit_does(tmp_path):
    info = PathInfo(path_of("a"), "sha256:" + "0" * 64, 7, (path_of("b"),), registered=5)
    action = plans.Action(
        plans.FETCH, path_of("a"), "why \udcff", ("current system",), info=info, registers=True
    )
    plan = plans.Plan(
        "/", "/nix/store", "/nix/var/nix", 5, "x", (action,), (plans.Left("a", "b", "c"),), {"s": "r"}
    )
    text = plans.to_json(plan)
    assert plans.from_json(text, "x") == plan
    for old, new in (("fetch", "drop"), ('"created": 5', '"created": 6'), ("/nix/store/", "/nix/stare/")):
        with pytest.raises(UsageError):
            plans.from_json(text.replace(old, new, 1), "x")
    for broken in ("", "[]", "{}", text[:-10], text.replace(plans.PLAN_SCHEMA, "other/9")):
        with pytest.raises(UsageError):
            plans.from_json(broken, "x")


def test_a_plan_for_another_store_is_refused(paper, tmp_path):
    paper.lose("c")
    plan = tmp_path / "plan.json"
    assert paper.run("plan", "-o", plan)[0] == 1
    other = Paper(tmp_path / "other")
    code, said = other.run("apply", plan)
    assert code == 2
    assert "is for the store" in said


def test_apply_twice_changes_nothing(paper, tmp_path):
    paper.sql(("delete from ValidPaths where path = ?", path_of("a")), keys=True)
    plan = tmp_path / "plan.json"
    assert paper.run("plan", "-o", plan)[0] == 1
    assert paper.run("apply", plan)[0] == 0
    once = paper.dump()
    assert paper.run("apply", plan)[0] == 0
    assert paper.dump() == once
    paper.assert_sound()


def test_undo_moves_copies_back_only_where_nothing_is(paper):
    paper.rewrite("e", b"damaged")
    assert paper.run("repair", "--yes", "--contents")[0] == 0
    before = (paper.place("e") / "f").read_text()
    code, said = paper.run("undo")
    assert code == 0
    assert (paper.place("e") / "f").read_text() == before
    assert "0 copies were moved back" in said


def test_what_an_unregistered_root_needs_is_alive(paper):
    # The row of the current system is lost: the database alone would call all that it needs dead.
    (paper.state / "gcroots/d").unlink()
    paper.sql(("delete from ValidPaths where path = ?", path_of("a")), keys=True)
    paper.lose("c")
    document = planned(paper, source=False)
    assert "drop" not in {kind for kind, _ in kinds(document)}
    [left] = [left for left in document["left"] if left["subject"] == path_of("c")]
    assert left["needed_by"][0].startswith("profile system")


def test_what_a_lost_row_refers_to_is_not_forgotten_while_the_row_may_come_back(paper):
    """Without those references, what is needed only through the lost row would look dead, and be dropped."""
    (paper.state / "gcroots/d").unlink()
    paper.sql(("delete from ValidPaths where path = ?", path_of("c")))  # d is needed by it alone
    paper.lose("d")
    for _ in range(2):
        code, said = paper.run("repair", "--yes", source=False)
        assert code == 1
        assert "forget" not in said
        assert paper.rows("select count(*) from ValidPaths where path = ?", path_of("d")) == [(1,)]
    # Of rows that nothing needs the references are forgotten all the same.
    paper.sql(("insert into Refs values (777, 6)",))
    code, said = paper.run("repair", "--yes", source=False)
    assert "1 forget" in said
    assert paper.rows("select referrer from Refs where reference = 6 and referrer = 777") == []
    code, said = paper.run("repair", "--yes")
    assert code == 0, said
    paper.assert_sound()


def test_a_path_that_only_a_lost_row_refers_to_can_be_given_up(paper):
    (paper.state / "gcroots/d").unlink()
    paper.sql(("delete from ValidPaths where path = ?", path_of("c")))
    paper.lose("d")
    words = ["--allow-cut", path_of("d"), "--allow-cut", path_of("a"), "--allow-cut", path_of("b")]
    _, said = paper.run("repair", "--yes", *words, source=False)
    assert paper.rows("pragma foreign_key_check") == [], said
    assert paper.rows("select count(*) from ValidPaths where path = ?", path_of("d")) == [(0,)]


def test_a_lost_path_whose_size_in_the_database_is_wrong_too(paper):
    """The hash proves the bytes; a size that does not fit them must not keep them out."""
    sizes = paper.rows("select path, narSize from ValidPaths order by path")
    paper.sql(("update ValidPaths set narSize = 7 where path = ?", path_of("c")))
    paper.lose("c")
    code, said = paper.run("repair", "--yes")
    assert code == 0, said
    assert paper.rows("select path, narSize from ValidPaths order by path") == sizes
    paper.assert_sound()
