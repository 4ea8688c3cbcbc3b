import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.storefix.sources import hashes

# `nix-hash --type sha256 --to-base32/--to-base16/--to-sri` of the empty string, from the Nix manual's own examples.
EMPTY_HEX = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
EMPTY_32 = "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"


def test_the_empty_string_in_every_spelling():
    digest = bytes.fromhex(EMPTY_HEX)
    text = base64.b64encode(digest).decode()
    assert hashes.to_nix32(digest) == EMPTY_32
    for spelling in (f"sha256:{EMPTY_HEX}", f"sha256:{EMPTY_32}", f"sha256:{text}", f"sha256-{text}"):
        assert hashes.nar_hash(spelling) == f"sha256:{EMPTY_HEX}"


@given(algorithm=st.sampled_from(sorted(hashes.SIZES)), data=st.binary(max_size=20))
def test_what_is_written_is_read(algorithm, data):
    digest = hashlib.new(algorithm, data).digest()
    text = hashes.to_nix32(digest)
    assert hashes.from_nix32(text, len(digest)) == digest
    assert hashes.parse(f"{algorithm}:{text}") == (algorithm, digest)
    assert hashes.parse(f"{algorithm}:{digest.hex()}") == (algorithm, digest)
    assert hashes.parse(f"{algorithm}-{base64.b64encode(digest).decode()}") == (algorithm, digest)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:zz",
        "sha257:" + EMPTY_HEX,
        "sha256:" + EMPTY_HEX[:-1],
        "sha256:" + EMPTY_HEX[:-1] + "g",
        "sha256:" + "e" * 52,
        "sha256:z" + EMPTY_32[1:],
        "sha256-" + EMPTY_HEX,
        "sha256:é" + EMPTY_32[1:],
        "md5:d41d8cd98f00b204e9800998ecf8427e",
    ],
)
def test_what_is_no_nar_hash_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        hashes.nar_hash(text)


@given(text=st.text(max_size=80))
def test_any_text_is_a_hash_or_a_value_error(text):
    try:
        algorithm, digest = hashes.parse(text)
    except ValueError:
        return
    assert len(digest) == hashes.SIZES[algorithm]
