import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.storefix.errors import ContentError
from kingpost.storefix.sources import narinfo

HASH = "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"
PART = "0123456789abcdfghijklmnpqrsvwxyz"
GOOD = (
    f"StorePath: /nix/store/{PART}-hello-2.12\n"
    f"URL: nar/{HASH}.nar.xz\n"
    "Compression: xz\n"
    f"FileHash: sha256:{HASH}\n"
    "FileSize: 50184\n"
    f"NarHash: sha256:{HASH}\n"
    "NarSize: 226560\n"
    f"References: {PART}-hello-2.12 {PART[::-1]}-glibc-2.38\n"
    f"Deriver: {PART}-hello-2.12.drv\n"
    "Sig: cache.example.org-1:AAAA\n"
    "Sig: other-1:BBBB\n"
)


def test_a_narinfo():
    found = narinfo.parse(GOOD, "/nix/store")
    assert found.info.path == f"/nix/store/{PART}-hello-2.12"
    assert found.info.nar_hash.startswith("sha256:e3b0c442")
    assert found.info.nar_size == 226560
    assert found.info.references == (
        f"/nix/store/{PART}-hello-2.12",
        f"/nix/store/{PART[::-1]}-glibc-2.38",
    )
    assert found.info.deriver == f"/nix/store/{PART}-hello-2.12.drv"
    assert found.info.sigs == ("cache.example.org-1:AAAA", "other-1:BBBB")
    assert (found.url, found.compression, found.file_size) == (f"nar/{HASH}.nar.xz", "xz", 50184)


def test_what_may_be_left_out():
    lines = [line for line in GOOD.splitlines(keepends=True) if line.split(":")[0] in narinfo._REQUIRED]
    found = narinfo.parse("".join(lines), "/nix/store")
    assert (found.compression, found.file_size, found.info.references, found.info.deriver) == (
        "bzip2",
        0,
        (),
        "",
    )
    unknown = "".join([*lines, "References: \nDeriver: unknown-deriver\nX-New: thing\n"])
    assert narinfo.parse(unknown, "/nix/store").info == found.info


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("StorePath: ", "Path: ", "has no StorePath"),
        ("NarHash: sha256:", "NarHash: sha255:", "NarHash cannot be read"),
        ("NarSize: 226560", "NarSize: 0", "the NAR is empty"),
        ("NarSize: 226560", "NarSize: many", "NarSize is no number"),
        ("NarSize: 226560", "NarSize: -1", "NarSize is no number"),
        ("/nix/store/", "/gnu/store/", "is for the store '/gnu/store'"),
        (f"{PART}-hello-2.12\n", "../../etc/passwd\n", "store"),
        (f"References: {PART}", "References: ../x", "no name of a store path"),
        ("URL: nar/", "URL: x\nURL: nar/", "says URL twice"),
        ("Sig: other-1:BBBB\n", "Sig: other-1:BB", "cut off"),
        ("Compression: xz", "Compression xz", "line 3"),
    ],
)
def test_what_is_wrong_is_said(old, new, message):
    assert old in GOOD
    with pytest.raises(ContentError, match=message):
        narinfo.parse(GOOD.replace(old, new), "/nix/store")


@pytest.mark.parametrize("text", ["", "<html><body>Not found</body></html>\n", "404\n"])
def test_a_page_instead_of_a_narinfo(text):
    with pytest.raises(ContentError):
        narinfo.parse(text, "/nix/store")


@given(text=st.text(max_size=200), at=st.integers(0, len(GOOD)))
def test_any_text_is_read_or_refused(text, at):
    for given_text in (text, GOOD[:at], GOOD[:at] + text + GOOD[at:]):
        try:
            found = narinfo.parse(given_text, "/nix/store")
        except ContentError:
            continue
        assert found.info.path.startswith("/nix/store/")
