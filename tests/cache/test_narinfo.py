"""Hashes, store paths, narinfos and their signatures, against vectors that real Nix made."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cache.nars import HASH, SOAK, Promise, nar

from kingpost.base.errors import InvalidInputError
from kingpost.cache import hashes
from kingpost.cache.narinfo import NarInfoError, parse_narinfo
from kingpost.cache.signatures import Trust, trusted_keys
from kingpost.cache.storepath import (
    StorePath,
    from_content_address,
    is_hash_part,
    parse_base,
    parse_path,
)

EMPTY32 = "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"
HELLO = Promise(nar=nar(b"hello"), body=nar(b"hello"))


def test_every_form_of_a_hash_is_the_same_hash():
    digest = hashlib.sha256(b"").digest()
    forms = [
        f"sha256:{EMPTY32}",
        f"sha256:{digest.hex()}",
        f"sha256:{base64.b64encode(digest).decode()}",
        f"sha256-{base64.b64encode(digest).decode()}",
    ]
    assert {hashes.parse(form) for form in forms} == {hashes.Hash("sha256", digest)}
    assert str(hashes.parse(forms[1])) == forms[0]
    assert hashes.parse(forms[0]).sri() == forms[3]


@given(st.binary(max_size=70))
def test_base_32_goes_back_and_forth(data):
    assert hashes.from_nix32(hashes.nix32(data)) == data


@pytest.mark.parametrize(
    "text",
    ["", "sha256", "sha256:", "sha256:xyz", "sha257:" + EMPTY32, f"sha256:{EMPTY32[:-1]}e", f"sha256:{EMPTY32}0",
     f"sha256-{EMPTY32}", "sha256:" + "z" * 52, "md5:" + "0" * 64],
)  # fmt: skip
def test_what_is_no_hash(text):
    with pytest.raises(ValueError):
        hashes.parse(text)


@given(st.text(max_size=80))
def test_any_text_is_a_hash_or_a_value_error(text):
    for candidate in (text, f"sha256:{text}", f"sha512-{text}"):
        try:
            hashes.parse(candidate)
        except ValueError:
            continue


def test_store_paths():
    path = parse_path(f"/tmp/s/store/{HASH}-runner-dashboard-0.1.0")
    assert (path.hash_part, path.name, path.store) == (HASH, "runner-dashboard-0.1.0", "/tmp/s/store")
    assert str(path) == f"/tmp/s/store/{HASH}-runner-dashboard-0.1.0"
    assert is_hash_part(HASH)
    assert not is_hash_part(HASH.replace("8", "e"))
    for bad in (
        HASH,
        f"{HASH}-",
        f"{HASH}-a/b",
        f"{HASH}-é",
        f"{HASH}-..",
        f"{HASH}-{'x' * 212}",
        f"{HASH}_a",
    ):
        with pytest.raises(ValueError):
            parse_base(bad)
    with pytest.raises(ValueError):
        parse_path(f"store/{HASH}-a")


STORE = "/tmp/kpv/store"


# Made by Nix 2.34 in that store: nix-store --add, --add-fixed [--recursive], and builtins.toFile.
@pytest.mark.parametrize(
    ("base", "address", "references"),
    [
        (
            "6gr6zjwbqlarkbafwjwgmrglpy23j19s-f",
            "fixed:r:sha256:0sg9f58l1jj88w6pdrfdpj5x9b1zrwszk84j81zvby36q9whhhqa",
            [],
        ),
        ("calpy3bksr1865309v4z9b6b7b8h612d-f", "fixed:sha1:9m1skbnr5i43n3yypvda5s65vhfwdx5a", []),
        ("cgvp72hx9y5y29lp5ggd4ni7mi515w8x-f", "fixed:r:sha1:x5zjnshbjrrhpg88n2da87884cmn2i2i", []),
        (
            "ilnglayw56mwn222bg7l4a5hd47wrrq0-a",
            "text:sha256:094qif9n4cq4fdg459qzbhg1c6wywawwaaivx0k0x8xhbyx4vwic",
            [],
        ),
        (
            "s09a44awh6v5z8rrf5nrmyjcc233hkdk-f",
            "fixed:sha256:094qif9n4cq4fdg459qzbhg1c6wywawwaaivx0k0x8xhbyx4vwic",
            [],
        ),
        (
            "yf3av041xrcnh0gklldmli2davrxp1lk-b",
            "text:sha256:1v47vxd3rc9s3x9a9kfvycd218g33i4cci13ayg1wnkxx23lhjm1",
            ["ilnglayw56mwn222bg7l4a5hd47wrrq0-a"],
        ),
    ],
)
def test_a_content_address_leads_to_the_path_that_nix_gave_it(base, address, references):
    path = parse_base(base, STORE)
    full = [f"{STORE}/{reference}" for reference in references]
    assert from_content_address(address, path.name, full, STORE) == path
    assert from_content_address(address, path.name, full) != path
    assert from_content_address(address, "other", full, STORE) != path
    promise = Promise(path=str(path), references=" ".join(references), nar=nar(b""), extra=f"CA: {address}\n")
    keys = trusted_keys([f"k:{base64.b64encode(bytes(31) + b'x').decode()}"])
    assert keys.judge(parse_narinfo(promise.text())) is Trust.CONTENT_ADDRESSED
    forged = promise.but(path=f"{path}x")
    assert keys.judge(parse_narinfo(forged.text())) is Trust.UNSIGNED


@pytest.mark.parametrize(
    "address", ["", "text", "fixed:sha256:zz", "magic:sha256:" + EMPTY32, "text:md5:" + "0" * 32]
)
def test_a_content_address_of_an_unknown_form_leads_nowhere(address):
    assert from_content_address(address, "f", []) is None


def test_a_narinfo_is_read_whole():
    info = parse_narinfo(
        HELLO.but(
            references=f"{HASH}-hello 0c1p5z4kda11zqg6lbnwwkwpymjwkrqf-glibc-2.40",
            extra="Deriver: 1krrsbq84z7hqnq9qm6p3pzzqjx2h7ka-hello.drv\nSystem: x86_64-linux\n"
            "Sig: k-1:aaaa\nSig: k-2:bbbb\nCA: text:sha256:x\nUnknown: is ignored\n",
        ).text()
    )
    assert info.path == StorePath(HASH, "hello")
    assert [r.name for r in info.references] == ["hello", "glibc-2.40"]
    assert info.signatures == ("k-1:aaaa", "k-2:bbbb")
    assert info.deriver.endswith("hello.drv")
    assert info.content_address == "text:sha256:x"
    assert info.file_size == info.nar_size == len(nar(b"hello"))
    assert info.file_hash == info.nar_hash


def test_attics_narinfo_has_no_file_lines_and_a_missing_compression_is_bzip2():
    info = parse_narinfo(HELLO.but(file=False, compression=None).text())
    assert (info.file_hash, info.file_size, info.compression) == (None, None, "bzip2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("<html><body>Sign in</body></html>\n", "line 1 has no colon"),
        ('{"code":404}\n', "it has no StorePath"),
        (HELLO.text()[:-1], "cut off"),
        (HELLO.text() + "URL: x\n", "URL a second time"),
        (HELLO.text().replace("NarSize: ", "NarSize: -"), "NarSize is no size"),
        (HELLO.text().replace("NarSize: ", "NarSize: 99999999999999999999"), "NarSize is no size"),
        (HELLO.text().replace("NarSize: ", "NarSize: \u0661"), "NarSize is no size"),
        (HELLO.but(path="/nix/store/short").text(), "no base name"),
        (HELLO.but(references="glibc").text(), "no base name"),
        (HELLO.text().replace("NarHash: sha256:", "NarHash: md5:"), "no md5 hash"),
    ],
)  # fmt: skip
def test_what_is_no_narinfo(text, message):
    with pytest.raises(NarInfoError, match=message):
        parse_narinfo(text)


@settings(max_examples=100 * SOAK)
@given(st.one_of(st.binary(max_size=400), st.text(max_size=400)))
def test_any_bytes_are_a_narinfo_or_an_error(data):
    try:
        parse_narinfo(data)
    except NarInfoError:
        return


@settings(max_examples=100 * SOAK)
@given(st.integers(0, 400), st.binary(max_size=4))
def test_a_damaged_narinfo_is_read_or_refused(at, patch):
    text = HELLO.text().encode()
    damaged = text[: at % len(text)] + patch + text[at % len(text) + len(patch) :]
    try:
        info = parse_narinfo(damaged)
    except NarInfoError:
        return
    assert info.nar_size > 0


@pytest.fixture(scope="module")
def key():
    return Ed25519PrivateKey.generate()


def public(key, name="main"):
    return f"{name}:{base64.b64encode(key.public_key().public_bytes_raw()).decode()}"


def signed(key, promise, name="main"):
    info = parse_narinfo(promise.text())
    signature = base64.b64encode(key.sign(info.fingerprint().encode())).decode()
    return parse_narinfo(promise.text() + f"Sig: {name}:{signature}\n")


def test_signatures(key):
    keys = trusted_keys([public(key)])
    info = signed(key, HELLO.but(references=f"{HASH}-hello"))
    assert keys.judge(info) is Trust.SIGNED
    assert trusted_keys([]).judge(info) is Trust.NOT_CHECKED
    assert keys.judge(parse_narinfo(HELLO.text())) is Trust.UNSIGNED
    assert keys.judge(signed(key, HELLO, "other")) is Trust.OTHER_KEY
    assert keys.judge(signed(Ed25519PrivateKey.generate(), HELLO)) is Trust.INVALID
    for extra in ("Sig: main:AAAA\n", "Sig: main:\n", "Sig: main:!!\n", "Sig: main\n"):
        assert keys.judge(parse_narinfo(HELLO.but(extra=extra).text())) is Trust.INVALID
    assert keys.judge(parse_narinfo(HELLO.but(extra="Sig: \n").text())) is Trust.OTHER_KEY


@pytest.mark.parametrize(
    "change", [{"nar": nar(b"evil!")}, {"references": ""}, {"path": f"/nix/store/{HASH}-evil"}]
)
def test_a_signature_covers_path_hash_size_and_references(key, change):
    good = HELLO.but(references=f"{HASH}-hello")
    info = signed(key, good)
    forged = parse_narinfo(good.but(**change).text() + f"Sig: {info.signatures[0]}\n")
    assert trusted_keys([public(key)]).judge(forged) is Trust.INVALID


def test_what_is_no_key(key):
    secret = base64.b64encode(bytes(64)).decode()
    for text in ("", "main", "main:!!", "main:AAAA", f":{public(key)[5:]}", f"main:{secret}"):
        with pytest.raises(InvalidInputError) as caught:
            trusted_keys([text])
        assert secret not in str(caught.value)
