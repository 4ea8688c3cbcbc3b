from __future__ import annotations

import json

import pytest

from kingpost.base.errors import InvalidInputError
from kingpost.topology.loader import load
from kingpost.topology.problems import InvalidTopologyError

MINIMAL = '[site]\nname = "x"\n'


def write(tmp_path, text, name="topology.toml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def problems(tmp_path, text, name="topology.toml"):
    with pytest.raises(InvalidTopologyError) as error:
        load(write(tmp_path, text, name))
    return [
        (p.problem.code, p.where.line, p.where.column, p.problem.message, p.problem.fix)
        for p in error.value.located
    ]


def test_every_problem_at_once_in_the_order_of_the_file(tmp_path):
    text = """\
[site]
name = "x"
prefr = []
[hosts.a]
memory = "lots"
addresses = { lan = "1.2.3" }
docker = { pools = [ { base = "10.0.0.0/8", sze = 3 } ] }
[attic.home]
port = 80833
storage.kind = "bucket"
database = { kind = "postgress" }
[runners.r]
executor = "dcoker"
"""
    found = problems(tmp_path, text)
    assert [(code, line, column) for code, line, column, *_ in found] == [
        ("KP-TOPO-UNKNOWN-KEY", 3, 1),
        ("KP-TOPO-VALUE", 5, 1),
        ("KP-TOPO-VALUE", 6, 15),
        ("KP-TOPO-UNKNOWN-KEY", 7, 45),
        ("KP-TOPO-VALUE", 9, 1),
        ("KP-TOPO-MISSING", 10, 1),
        ("KP-TOPO-KIND", 11, 1),
        ("KP-TOPO-VALUE", 13, 1),
    ]
    assert found[0][4] == "did you mean `prefer`?"
    assert found[3][4] == "did you mean `size`?"
    assert "did you mean 'docker'?" in found[7][3]


def test_a_missing_kind_says_which_there_are(tmp_path):
    ((code, *_, message, _),) = problems(
        tmp_path, MINIMAL + '[attic.a]\nport = 1\nstorage = { path = "/x" }\n'
    )
    assert code == "KP-TOPO-KIND"
    assert "'local', 'bucket'" in message


def test_a_number_in_quotes_is_no_number(tmp_path):
    text = MINIMAL + '[runners.r]\nexecutor = "shell"\nconcurrency = "2"\n'
    ((code, line, *_),) = problems(tmp_path, text)
    assert (code, line) == ("KP-TOPO-VALUE", 5)


def test_an_unknown_key_far_from_all_others_lists_what_there_is(tmp_path):
    ((_, _, _, message, fix),) = problems(tmp_path, MINIMAL + "[tunnels.t]\nhost='a'\nlisten='127.0.0.1:1'\n"
                                          "service='x'\nzzz=1\n")  # fmt: skip
    assert message == "`zzz` is no key of tunnels.t"
    assert "listen" in fix


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ('[site\nname = "x"\n', ":1:", "no TOML"),
        ('[site]\nname = "x"\nname = "y"\n', "topology.toml", "no TOML"),
        ("[site]\nname = 'x'\n[site]\n", "topology.toml", "no TOML"),
    ],
)
def test_broken_toml_says_where(tmp_path, text, where, says):
    with pytest.raises(InvalidInputError) as error:
        load(write(tmp_path, text))
    assert where in str(error.value)
    assert says in str(error.value)


def test_broken_json_says_where(tmp_path):
    with pytest.raises(InvalidInputError) as error:
        load(write(tmp_path, '{"site": {"name": "x",}}', "t.json"))
    assert "t.json:1:" in str(error.value)


def test_json_has_positions_too(tmp_path):
    text = json.dumps({"site": {"name": "x", "prefr": []}}, indent=1)
    ((code, line, column, *_),) = problems(tmp_path, text, "t.json")
    assert (code, line, column) == ("KP-TOPO-UNKNOWN-KEY", 4, 3)


@pytest.mark.parametrize("make", ["missing", "directory", "bytes", "nested", "list"])
def test_files_that_are_no_topology(tmp_path, make):
    path = tmp_path / "topology.toml"
    if make == "directory":
        path.mkdir()
    elif make == "bytes":
        path.write_bytes(b"\xff\xfe\x00")
    elif make == "nested":
        path = tmp_path / "t.json"
        path.write_text("[" * 100_000)
    elif make == "list":
        path = tmp_path / "t.json"
        path.write_text("[]")
    with pytest.raises(InvalidInputError) as error:
        load(path)
    assert path.name in str(error.value)


def test_the_digest_is_of_the_value_not_of_the_text(tmp_path):
    one = load(write(tmp_path, MINIMAL, "a.toml")).digest
    assert load(write(tmp_path, "# comment\n" + MINIMAL + "\n", "b.toml")).digest == one
    assert load(write(tmp_path, json.dumps({"site": {"name": "x"}}), "c.json")).digest == one
    assert load(write(tmp_path, MINIMAL.replace("x", "y"), "d.toml")).digest != one


def test_a_topology_survives_a_round_trip_through_json(tmp_path):
    from pathlib import Path

    for example in Path(__file__).parents[2].glob("examples/*/topology.toml"):
        loaded = load(example)
        again = load(write(tmp_path, json.dumps(_toml_values(example)), "t.json"))
        assert again.topology == loaded.topology
        assert again.digest == loaded.digest


def _toml_values(path):
    import tomllib

    return json.loads(json.dumps(tomllib.loads(path.read_text()), default=str))


@pytest.mark.parametrize(
    ("text", "said", "place"),
    [
        ('[site]\nname = "x\n', "a string is not closed on its line", ":2:10"),
        ('[hosts.a]\nmemory = "1GiB"\n\n[[hosts]]\nmemory = "1GiB"\n', 'Key "hosts" already exists', ":4:8"),
        ("[site]\nname = ", "", ":2:"),
    ],
)
def test_a_file_that_is_no_toml_says_where(tmp_path, text, said, place):
    path = tmp_path / "topology.toml"
    path.write_text(text)
    with pytest.raises(InvalidInputError) as caught:
        load(path)
    assert said in str(caught.value)
    assert place in str(caught.value)


def test_what_is_no_utf_8_says_where(tmp_path):
    path = tmp_path / "topology.toml"
    path.write_bytes(b'[site]\nname = "h\xe4"\n')
    with pytest.raises(InvalidInputError, match=r"topology\.toml:2:10.*byte 16 is 0xe4"):
        load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("docker = true", "hosts.a.docker: true is no table: write its keys"),
        ("docker = { bip = 17 }", "hosts.a.docker.bip: 17 is no address: write it in quotes"),
        ('addresses = { lan = "fe80::1" }', "'fe80::1' is no IPv4 address"),
        ('users = "ann"', "'ann' is no list: write ["),
        ('swap = ["1GiB"]', "hosts.a.swap"),
        ('ec2 = "yes"', "'yes' is no true or false"),
        ("ssh_user = { name = 1 }", "hosts.a.ssh_user"),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_in_words_of_toml(tmp_path, text, message):
    path = tmp_path / "topology.toml"
    path.write_text(f'[site]\nname = "x"\n[hosts.a]\nmemory = "1GiB"\n{text}\n')
    with pytest.raises(InvalidTopologyError) as caught:
        load(path)
    found = "\n".join(str(problem) for problem in caught.value.located)
    assert message in found
    assert "input should" not in found
    assert ":5:" in found


def test_a_missing_table_is_called_one(tmp_path):
    path = tmp_path / "topology.toml"
    path.write_text('[hosts.a]\nmemory = "1GiB"\n')
    with pytest.raises(InvalidTopologyError) as caught:
        load(path)
    assert "`site` is missing in the topology" in str(caught.value.located[0])
    assert "add `[site]`" in str(caught.value.located[0])
