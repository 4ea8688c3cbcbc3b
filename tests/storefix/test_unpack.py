"""The parser and the unpacker: what is good comes out byte for byte, what is bad is refused and reaches nothing."""

import hashlib
import io
import os
import stat
import tracemalloc

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.storefix.nar_text import directory, entry, nar, regular, symlink, text, tokens

from kingpost.storefix.errors import ContentError
from kingpost.storefix.nar import digest
from kingpost.storefix.sources import nar_parser
from kingpost.storefix.sources.unpack import unpack


@pytest.fixture(autouse=True)
def flushed(monkeypatch):
    """Note what is flushed instead of waiting for the disk."""
    seen = []
    monkeypatch.setattr(os, "fsync", lambda fd: seen.append(os.readlink(f"/proc/self/fd/{fd}")))
    return seen


def sha(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def restore(data, into, **options):
    given = {"nar_hash": sha(data), "nar_size": len(data), **options}
    unpack(io.BytesIO(data).read, into, **given)


names = st.binary(min_size=1, max_size=12).filter(
    lambda name: name not in (b".", b"..") and not set(name) & set(b"/\0")
)
files = st.builds(lambda data, mode: (data, mode), st.binary(max_size=40), st.booleans())
targets = st.binary(min_size=1, max_size=30).filter(lambda target: 0 not in target)
trees = st.recursive(
    files | targets, lambda children: st.dictionaries(names, children, max_size=4), max_leaves=12
)


def node(tree):
    if isinstance(tree, dict):
        return directory(*((name, node(tree[name])) for name in sorted(tree)))
    return regular(tree[0], executable=tree[1]) if isinstance(tree, tuple) else symlink(tree)


def seen(path):
    """Give the tree at a path, with what Nix would have set checked on the way."""
    status = os.lstat(path)
    assert status.st_mtime_ns == 1_000_000_000
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path)
    if stat.S_ISDIR(status.st_mode):
        assert stat.S_IMODE(status.st_mode) == 0o555
        return {name: seen(os.path.join(path, name)) for name in os.listdir(path)}
    assert stat.S_IMODE(status.st_mode) in (0o444, 0o555)
    with open(path, "rb") as file:
        return file.read(), stat.S_IMODE(status.st_mode) == 0o555


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(tree=trees, step=st.integers(1, 400))
@example(tree={}, step=1)
@example(tree={b"\xff\xfe": (b"x" * 9, True)}, step=3)
def test_any_tree_comes_out_as_it_went_in(tmp_path_factory, tree, step):
    into = tmp_path_factory.mktemp("tree") / "out"
    data = nar(node(tree))
    stream = io.BytesIO(data)
    came = []
    unpack(
        lambda size: stream.read(min(size, step)),
        into,
        nar_hash=sha(data),
        nar_size=len(data),
        advance=came.append,
    )
    assert seen(os.fsencode(into)) == tree
    assert sum(came) == len(data)
    assert digest(into).nar_hash == sha(data)


def test_every_file_and_directory_is_flushed_before_it_counts(tmp_path, flushed):
    tree = {b"a": {b"b": (b"x", False), b"c": {}}, b"d": (b"y", True), b"e": b"d"}
    restore(nar(node(tree)), tmp_path / "out")
    expected = [tmp_path / "out" / name for name in ("a/b", "a/c", "a", "d")]
    assert sorted(flushed[:-2]) == sorted(map(str, expected))
    assert flushed[-2:] == [str(tmp_path / "out"), str(tmp_path)], "the name itself last"


hello = regular()
MALFORMED = {
    "empty": b"",
    "no magic": text("nix-archive-2") + hello,
    "name .": nar(directory((".", hello))),
    "name ..": nar(directory(("..", hello))),
    "empty name": nar(directory(("", hello))),
    "name with slash": nar(directory(("x/y", hello))),
    "absolute name": nar(directory(("/etc/passwd", hello))),
    "name with NUL": nar(directory((b"f\0o", hello))),
    "name too long": nar(directory(("n" * 256, hello))),
    "name after node": nar(
        tokens("(", "type", "directory", "entry", "(", "node") + hello + tokens("name", "foo", ")", ")")
    ),
    "names out of order": nar(directory(("b", hello), ("a", hello))),
    "the same name twice": nar(directory(("a", symlink("/etc")), ("a", hello))),
    "executable after contents": nar(
        tokens("(", "type", "regular", "contents", "hello\n", "executable", "", ")")
    ),
    "executable with a value": nar(
        tokens("(", "type", "regular", "executable", "yes", "contents", "hello\n", ")")
    ),
    "another tag instead of contents": nar(tokens("(", "type", "regular", "AAAAAAAA", ")")),
    "contents without an end": nar(tokens("(", "type", "regular", "contents", "hello\n")),
    "padding that is not zero": nar(
        tokens("(", "type", "regular", "contents") + text("x", padding=b"\1") + tokens(")")
    ),
    "contents cut off": nar(tokens("(", "type", "regular", "contents")) + b"\xff" * 8 + b"x",
    "padding cut off": nar(tokens("(", "type", "regular", "contents") + text("x")[:12]),
    "no type": nar(tokens("(", ")")),
    "unknown type": nar(tokens("(", "type", "device", ")")),
    "symlink without target": nar(tokens("(", "type", "symlink", ")")),
    "symlink to nothing": nar(symlink("")),
    "symlink with NUL": nar(symlink(b"a\0b")),
    "symlink too long": nar(symlink("t" * 4096)),
    "entry without an end": nar(tokens("(", "type", "directory") + entry("a", hello)[:-16] + tokens(")")),
    "something behind the end": nar(hello) + b"\0" * 8,
    "two archives": nar(hello) * 2,
    "a huge string": text("nix-archive-1") + tokens("(", "type") + b"\xff" * 8,
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_canonical_nar_is_refused(tmp_path, data):
    with pytest.raises(ContentError):
        restore(data, tmp_path / "out", nar_size=0)
    assert set(os.listdir(tmp_path)) <= {"out"}


def test_one_byte_and_zero_padding_is_fine(tmp_path):
    restore(nar(regular(b"x")), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"x"


def test_the_deepest_tree_that_is_allowed(tmp_path):
    tree = hello
    for _ in range(nar_parser.MAX_DEPTH):
        tree = directory(("d", tree))
    restore(nar(tree), tmp_path / "out")
    assert digest(tmp_path / "out").nar_hash == sha(nar(tree))
    with pytest.raises(ContentError, match="nests more than 256 directories"):
        restore(nar(directory(("d", tree))), tmp_path / "deeper")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nar_hash": sha(b"")}, "hash is sha256:"),
        ({"nar_size": 1}, "longer than the 1 bytes promised"),
        ({"nar_size": 1 << 20}, "instead of 1048576"),
    ],
)
def test_another_hash_or_size_is_refused(tmp_path, options, message):
    with pytest.raises(ContentError, match=message):
        restore(nar(hello), tmp_path / "out", **options)


def test_a_symlink_in_the_archive_is_never_written_through(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    data = nar(directory(("a", symlink(str(outside))), ("b", regular())))
    restore(data, tmp_path / "out")
    assert os.listdir(outside) == []
    # An entry below a name that is a symlink already can only come twice, which is refused.
    twice = nar(directory(("a", symlink(str(outside))), ("a", directory(("evil", regular())))))
    with pytest.raises(ContentError, match="not sorted"):
        restore(twice, tmp_path / "out2")
    assert os.listdir(outside) == []


@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "dangling"])
def test_nothing_that_is_there_already_is_touched(tmp_path, kind):
    into, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    {
        "file": lambda: into.write_text("mine"),
        "directory": into.mkdir,
        "symlink": lambda: into.symlink_to(outside),
        "dangling": lambda: into.symlink_to(tmp_path / "nowhere"),
    }[kind]()
    for data in (nar(regular()), nar(directory(("a", hello))), nar(symlink("x"))):
        with pytest.raises(FileExistsError):
            restore(data, into)
    assert os.listdir(outside) == []
    assert not (tmp_path / "nowhere").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=2000)
@given(data=st.data(), tree=trees)
def test_a_damaged_archive_ends_in_an_error_or_the_same_bytes(tmp_path_factory, data, tree):
    whole = nar(node(tree))
    at = data.draw(st.integers(0, len(whole)))
    damaged = data.draw(
        st.sampled_from(
            [
                whole[:at],
                whole[:at] + b"\xff" + whole[at + 1 :],
                whole[:at] + whole[at + 8 :],
                whole[:at] + whole[at : at + 16] * 2 + whole[at + 16 :],
                whole[:at] + bytes(8) + whole[at:],
            ]
        )
    )
    base = tmp_path_factory.mktemp("fuzz")
    before = set(os.listdir(base))
    try:
        unpack(io.BytesIO(damaged).read, base / "out", nar_hash=sha(damaged), nar_size=0)
    except ContentError:
        pass
    else:
        assert digest(base / "out").nar_hash == sha(damaged)
    assert set(os.listdir(base)) - before <= {"out"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=2000)
@given(
    words=st.lists(
        st.sampled_from(
            [
                b"(",
                b")",
                b"type",
                b"regular",
                b"contents",
                b"directory",
                b"entry",
                b"name",
                b"node",
                b"symlink",
                b"target",
                b"executable",
                b"",
                b"..",
                b"/",
                b"../../x",
                b"a",
            ]
        ),
        max_size=30,
    )
)
def test_any_words_of_the_format_end_and_stay_inside(tmp_path_factory, words):
    base = tmp_path_factory.mktemp("words")
    (base / "in").mkdir()
    with pytest.raises(ContentError):
        restore(nar(tokens(*words)), base / "in" / "out", nar_hash="sha256:none")
    assert os.listdir(base) == ["in"]
    assert set(os.listdir(base / "in")) <= {"out"}


def test_memory_stays_bounded_whatever_the_archive_promises(tmp_path):
    size = 64 << 20

    def stream():
        yield nar(tokens("(", "type", "regular", "contents")) + size.to_bytes(8, "little")
        for _ in range(size >> 16):
            yield bytes(1 << 16)
        yield tokens(")")

    blocks = stream()
    tracemalloc.start()
    try:
        with pytest.raises(ContentError, match="hash is"):
            unpack(lambda _: next(blocks, b""), tmp_path / "out", nar_hash="", nar_size=0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "out").stat().st_size == size
    assert peak < 4 << 20


def test_a_stream_that_stays_open_is_not_waited_for(tmp_path):
    data = nar(hello)
    blocks = iter([data])
    unpack(lambda _: next(blocks), tmp_path / "out", nar_hash=sha(data), nar_size=len(data), endless=True)
    assert (tmp_path / "out").read_text() == "hello\n"
