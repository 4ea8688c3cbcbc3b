import pytest

from kingpost.base.errors import InvalidInputError, UsageError
from kingpost.cache import token_file

ONE, TWO = "eyJhbGciOiJIUzI1NiJ9.eyJhIjoxfQ.c2ln", "eyJhbGciOiJIUzI1NiJ9.eyJhIjoyfQ.c2ln"


@pytest.mark.parametrize(
    "text",
    [
        ONE,
        ONE + "\n",
        f"ATTIC_TOKEN='{ONE}'\n",
        f"machine cache.example.org\nlogin x\npassword {ONE}\n",
        f'[servers.x]\nendpoint = "http://x/"\ntoken = "{ONE}"\n',
        f"{ONE} {ONE}",
    ],
)
def test_a_token_is_found_in_whatever_holds_it(tmp_path, text):
    (tmp_path / "f").write_text(text)
    assert token_file.read_token(str(tmp_path / "f")) == ONE


def test_several_tokens_need_a_machine(tmp_path):
    path = tmp_path / "netrc"
    path.write_text(f"machine a password {ONE}\nmachine b login x password {TWO}\n")
    with pytest.raises(InvalidInputError, match="2 different tokens") as caught:
        token_file.read_token(str(path))
    assert ONE not in str(caught.value)
    assert token_file.read_token(str(path), "a") == ONE
    assert token_file.read_token(str(path), "b") == TWO
    with pytest.raises(InvalidInputError, match="no token for machine c"):
        token_file.read_token(str(path), "c")


def test_a_token_is_written_for_its_owner_alone(tmp_path):
    path = tmp_path / "token"
    path.write_text("old")
    path.chmod(0o644)
    token_file.write_token(path, ONE)
    assert (path.read_text(), path.stat().st_mode & 0o777) == (ONE, 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_but_a_file_is_written_to(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path):
        with pytest.raises(UsageError, match="no regular file"):
            token_file.write_token(place, ONE)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "machine h login kingpost password T\n"),
        ("machine a password 1", "machine a password 1\nmachine h login kingpost password T\n"),
        ("machine h\n password old\nmachine a\n password 1\n",
         "machine a\n password 1\nmachine h login kingpost password T\n"),
        ("# mine\nmachine h password old\ndefault login d password e\n",
         "# mine\nmachine h login kingpost password T\ndefault login d password e\n"),
        ("machine h.example.org password 1\n",
         "machine h.example.org password 1\nmachine h login kingpost password T\n"),
    ],
)  # fmt: skip
def test_a_netrc_keeps_its_other_entries(tmp_path, before, after):
    import netrc

    path = tmp_path / "netrc"
    path.write_text(before)
    token_file.write_netrc(path, "h", "T")
    assert path.read_text() == after
    assert path.stat().st_mode & 0o777 == 0o600
    assert netrc.netrc(str(path)).authenticators("h") == ("kingpost", "", "T")
    token_file.write_netrc(path, "h", "T")
    assert path.read_text() == after


def test_what_a_netrc_cannot_take(tmp_path):
    for host in ("http://h", "h:8080", "a b", ""):
        with pytest.raises(UsageError, match="no host name"):
            token_file.write_netrc(tmp_path / "netrc", host, "T")
    (tmp_path / "netrc").write_text("machine a password 1\nmacdef init\ncd /\n\n")
    with pytest.raises(UsageError, match="macdef"):
        token_file.write_netrc(tmp_path / "netrc", "h", "T")
