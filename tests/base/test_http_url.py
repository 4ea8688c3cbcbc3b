import pytest

from kingpost.base.errors import UsageError
from kingpost.base.http import require_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("https://cache.example.org", "https://cache.example.org"),
        ("http://[::1]:80/x//", "http://[::1]:80/x"),
    ],
)
def test_urls(text, url):
    assert require_url(text, "--server") == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "ftp://x",
        "http://",
        "http://[::1",
        "http://a b",
        "http://h:99999",
        "http://h:x",
        "http://h\n",
        "http:h",
    ],
)
def test_no_urls(text):
    with pytest.raises(UsageError, match=r"--server .* is no URL"):
        require_url(text, "--server")
