import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.storefix.caches import STORE, Signer, store_path

from kingpost.storefix.errors import ContentError, UntrustedError
from kingpost.storefix.interface import PathInfo, Wanted
from kingpost.storefix.sources import hashes, trust

PATH = store_path(1)
HASH = "sha256:" + "ab" * 32


def signed(signer, info):
    text = trust.fingerprint(info).decode()
    return PathInfo(**{**vars(info), "sigs": (*info.sigs, signer.sign(text))})


def info(**fields):
    return PathInfo(
        **{"path": PATH, "nar_hash": HASH, "nar_size": 100, "references": (PATH, store_path(2)), **fields}
    )


def verdict(answer, wanted_hash="", keys=None, *, require_sigs=True):
    try:
        trust.check(answer, Wanted(PATH, wanted_hash), keys or {}, require_sigs=require_sigs, where="here")
    except UntrustedError as error:
        return str(error)
    return "ok"


def test_the_fingerprint_is_that_of_nix():
    digest = hashes.to_nix32(bytes.fromhex("ab" * 32))
    assert trust.fingerprint(info()).decode() == f"1;{PATH};sha256:{digest};100;{PATH},{store_path(2)}"


def test_a_signature_by_a_trusted_key():
    signer = Signer()
    assert verdict(signed(signer, info()), keys=signer.trusted) == "ok"


def test_one_of_several_signatures_is_enough():
    other, signer = Signer("other-1"), Signer()
    assert verdict(signed(signer, signed(other, info())), keys=signer.trusted) == "ok"


@pytest.mark.parametrize(
    "change",
    [
        {"path": store_path(3)},
        {"nar_hash": "sha256:" + "ac" * 32},
        {"nar_size": 101},
        {"references": (PATH,)},
        {"references": (PATH, store_path(2), store_path(3))},
        {"sigs": ()},
        {"sigs": ("test-1:",)},
        {"sigs": ("test-1:%%%", "nonsense", "")},
    ],
)
def test_a_signature_covers_everything_that_is_registered(change):
    signer = Signer()
    answer = PathInfo(**{**vars(signed(signer, info())), **change})
    assert "is not signed by a trusted key" in verdict(answer, keys=signer.trusted)


def test_another_key_of_the_same_name_is_not_trusted():
    forged = Signer("x")
    forged.name = "test-1"
    said = verdict(signed(forged, info()), keys=Signer().trusted)
    assert "signed by test-1; trusted-public-keys: test-1" in said


def test_the_hash_of_our_own_database_needs_no_signature():
    assert verdict(info(), HASH) == "ok"
    said = verdict(info(), "sha256:" + "00" * 32)
    assert f"its hash is {HASH}, while this store's database says sha256:00" in said


def test_without_required_signatures_everything_goes():
    assert verdict(info(), require_sigs=False) == "ok"


def test_a_key_that_is_no_key_trusts_nothing():
    assert "not signed" in verdict(signed(Signer(), info()), keys={"test-1": "not base64!"})


def fixed(tmp_path, ca, name="thing", references=()):
    """Give an info whose path is computed from its content address, as Nix would."""
    answer = PathInfo(f"{STORE}/{'0' * 32}-{name}", HASH, 1, tuple(references), ca=ca)
    read = trust._method(ca)
    assert read is not None
    method, algorithm, digest = read
    if method == "text":
        path = trust._store_path(":".join(["text", *sorted(references)]), digest, STORE, name)
    elif method == "nar" and algorithm == "sha256":
        path = trust._store_path(":".join(["source", *sorted(references)]), digest, STORE, name)
    else:
        prefix = "r:" if method == "nar" else ""
        inner = hashlib.sha256(f"fixed:out:{prefix}{algorithm}:{digest.hex()}:".encode()).digest()
        path = trust._store_path("output:out", inner, STORE, name)
    return PathInfo(**{**vars(answer), "path": path})


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
def test_a_flat_content_address(tmp_path, algorithm):
    file = tmp_path / "out"
    file.write_bytes(b"contents")
    digest = hashlib.new(algorithm, b"contents").digest()
    answer = fixed(tmp_path, f"fixed:{algorithm}:{hashes.to_nix32(digest)}")
    assert trust.content_addressed(answer)
    assert verdict(answer) == "ok"
    trust.check_content(answer, file)
    file.write_bytes(b"other")
    with pytest.raises(ContentError, match="do not meet the content address"):
        trust.check_content(answer, file)
    file.unlink()
    file.symlink_to("/etc/passwd")
    with pytest.raises(ContentError, match="single file"):
        trust.check_content(answer, file)


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_recursive_content_address(tmp_path, algorithm):
    from kingpost.storefix.nar import dump

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_bytes(b"contents")
    hasher = hashlib.new(algorithm)
    dump(str(tmp_path / "out").encode(), hasher.update)
    answer = fixed(tmp_path, f"fixed:r:{algorithm}:{hashes.to_nix32(hasher.digest())}")
    assert verdict(answer) == "ok"
    trust.check_content(answer, tmp_path / "out")
    (tmp_path / "out" / "more").touch()
    with pytest.raises(ContentError):
        trust.check_content(answer, tmp_path / "out")


def test_a_content_address_that_does_not_give_the_path_proves_nothing():
    digest = hashes.to_nix32(hashlib.sha256(b"evil").digest())
    for ca in (f"fixed:sha256:{digest}", f"fixed:r:sha256:{digest}", f"text:sha256:{digest}"):
        assert "not signed" in verdict(info(ca=ca))
    for ca in (
        "text:md5:" + "0" * 26,
        "fixed:git:sha1:" + "0" * 32,
        "fixed:",
        "nonsense",
        "fixed:r:blake3:00",
    ):
        assert "not signed" in verdict(info(ca=ca))
        assert not trust.content_addressed(info(ca=ca))


@given(
    before=st.binary(max_size=50),
    chunks=st.lists(st.sampled_from([b"0" * 31, b"x" * 32, b"0", b"/nix/store/" + b"x" * 32]), max_size=8),
    step=st.integers(1, 60),
)
def test_hashing_modulo_itself_does_not_depend_on_the_blocks(before, chunks, step):
    """What `HashModuloSink` of Nix does, on the whole data at once, is the peer."""
    part = b"x" * 32
    data = before + b"".join(chunks)
    places, zeroed = [], data
    while (at := zeroed.find(part)) >= 0:
        places.append(at)
        zeroed = zeroed[:at] + bytes(32) + zeroed[at + 32 :]
    expected = zeroed + b"".join(b"|%d" % place for place in places)
    got = bytearray()

    def dump(_path, write):
        for begin in range(0, len(data), step):
            write(data[begin : begin + step])

    original, trust.dump = trust.dump, dump
    try:
        text = trust._hash_modulo("anywhere", part, got.extend)
    finally:
        trust.dump = original
    assert bytes(got) + text == expected


def test_base64_of_a_real_key_is_32_bytes():
    assert len(base64.b64decode(Signer().trusted["test-1"])) == 32
