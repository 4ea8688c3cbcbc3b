"""Every target over its corpus, which holds what it began with and what fuzzing found, and over what is near it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.fuzz.targets import COMPRESS, NAR, SIGNED, TARGETS, found_ok, plainly, read, seeds, sign

from kingpost.cache.compression import KNOWN

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name):
    inputs = sorted((CORPUS / name).iterdir())
    assert len(inputs) >= 4
    for file in inputs:
        TARGETS[name](file.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_near_the_corpus(name):
    draw = random.Random(name)
    for file in sorted((CORPUS / name).iterdir()):
        whole = file.read_bytes()
        for _ in range(40):
            data = bytearray(whole)
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            TARGETS[name](bytes(data[: draw.choice([len(data), draw.randrange(3, len(data) + 1)])]))


def test_the_corpus_has_what_it_began_with():
    for name, files in seeds().items():
        for file, data in files.items():
            kept = (CORPUS / name / file).read_bytes()
            assert len(kept) > 2
            if name != "compression":
                assert kept == data or name == "pipeline", (
                    f"{name}/{file} is not what the target makes of it now"
                )


@pytest.mark.parametrize("kind", KNOWN)
def test_the_targets_can_fail(kind):
    """What they compare is there at all: the good one is good, and all ways of reading agree on it."""
    body = COMPRESS[kind](NAR)
    assert plainly(kind, body) == read(kind, body, 7, 11) == NAR
    from tests.cache.nars import Promise

    text = Promise(nar=NAR, body=body, compression=kind).text() + f"Sig: key:{sign(SIGNED)}\n"
    assert found_ok(text.encode(), body)
    assert not found_ok(text.encode(), body[:-1])
    assert not found_ok(text.replace("Sig: key:", "Sig: key:A").encode(), body)
