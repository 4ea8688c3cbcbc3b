"""The structure validator agrees with a plain reading of the format, however a NAR is cut or damaged."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.cache.nars import SOAK, book_says, nar, node, trees, validate, word

from kingpost.cache.nar import HEADROOM, MAX_DEPTH, NarError, NarValidator


@given(trees, st.integers(1, 600))
def test_every_nar_is_one_in_pieces_of_any_size(tree, size):
    data = nar(tree)
    validate(data, size)
    assert book_says(data)


def test_counts():
    tree = {b"a": b"12345", b"b": ("x", b""), b"c": ("->", b"a"), b"d": {b"e": {}, b"f": bytes(9000)}}
    counts = validate(nar(tree)).counts
    assert (counts.files, counts.executables, counts.symlinks, counts.directories) == (3, 1, 1, 3)


@settings(max_examples=300 * SOAK)
@given(trees, st.data(), st.integers(1, 300))
def test_a_damaged_nar_is_judged_as_the_book_does(tree, data, size):
    good = bytearray(nar(tree))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(good) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "delete", "zero"])):
            case "flip":
                good[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del good[max(1, at) :]
            case "insert":
                good[at:at] = data.draw(st.binary(min_size=1, max_size=16))
            case "delete":
                del good[at : at + 8]
            case "zero":
                good[at : at + 8] = bytes(8)
        good = good or bytearray(b"x")
    try:
        validate(bytes(good), size)
        accepted = True
    except NarError:
        accepted = False
    assert accepted == book_says(bytes(good))


@given(st.binary(max_size=300), st.integers(1, 64))
@example(b"", 1)
def test_any_bytes_are_judged_without_a_crash(data, size):
    with pytest.raises(NarError):
        validate(data, size)


@given(trees, st.integers(1, 200))
def test_a_prefix_is_never_a_nar(tree, cut):
    data = nar(tree)
    with pytest.raises(NarError):
        validate(data[: -min(cut, len(data))])


@given(trees, st.binary(min_size=1, max_size=20))
def test_nothing_may_follow(tree, more):
    with pytest.raises(NarError, match="more follows"):
        validate(nar(tree) + more)


def entry(name, child=b""):
    return word(b"entry") + word(b"(") + word(b"name") + word(name) + word(b"node") + node(child) + word(b")")


def directory(*entries):
    return (
        word(b"nix-archive-1")
        + word(b"(")
        + word(b"type")
        + word(b"directory")
        + b"".join(entries)
        + word(b")")
    )


@pytest.mark.parametrize("name", [b".", b"..", b"a/b", b"a\0b", b"", b"x" * 4097])
def test_names_that_lead_elsewhere(name):
    with pytest.raises(NarError, match="name"):
        validate(directory(entry(name)))


def test_names_in_order_and_once():
    validate(directory(entry(b"a"), entry(b"b")))
    for pair in ((b"b", b"a"), (b"a", b"a")):
        with pytest.raises(NarError, match="out of order"):
            validate(directory(*map(entry, pair)))


def test_the_order_starts_anew_in_a_directory_and_goes_on_after_it():
    validate(directory(entry(b"m", {b"a": b""}), entry(b"n")))
    with pytest.raises(NarError, match="out of order"):
        validate(directory(entry(b"m", {b"z": b""}), entry(b"b")))


def test_padding_must_be_zero():
    data = nar(b"123")
    assert data.count(b"123\0\0\0\0\0") == 1
    with pytest.raises(NarError, match="zero padding"):
        validate(data.replace(b"123\0\0\0\0\0", b"123\0\0\0\0\x01"))


@pytest.mark.parametrize("size", [2**62, 2**64 - 1])
def test_a_length_without_its_bytes_costs_nothing(size):
    head = word(b"nix-archive-1") + word(b"(") + word(b"type") + word(b"regular") + word(b"contents")
    tracemalloc.start()
    with pytest.raises(NarError, match="ends at byte"):
        validate(head + size.to_bytes(8, "little") + b"abc")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_bottomless_directory_is_refused():
    opened = (
        word(b"entry") + word(b"(") + word(b"name") + word(b"a") + word(b"node") + word(b"(") + word(b"type")
    )
    data = word(b"nix-archive-1") + word(b"(") + word(b"type") + word(b"directory")
    with pytest.raises(NarError, match="nested deeper"):
        validate(data + (opened + word(b"directory")) * (MAX_DEPTH + 10))


def test_errors_name_the_byte():
    with pytest.raises(NarError, match="at byte 0 of the NAR there is no `nix-archive-1`"):
        validate(b"<html><head><title>Not found</title></head><body>nothing</body></html>" * 3)
    data = nar({b"a": b"x" * 5000, b"b": b"y"})
    broken = data.index(word(b"entry"), 300)
    with pytest.raises(NarError, match=f"at byte {broken} "):
        validate(data[:broken] + word(b"entri") + data[broken + 16 :], 512)


def test_what_is_kept_fits_the_headroom():
    longest = nar({b"n" * 4096: ("->", b"t" * 4096)})
    for size in (1, 7, 4096, HEADROOM):
        validate(longest, size)
    assert NarValidator().feed(bytearray(8), 0) == 0
