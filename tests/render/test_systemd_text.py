from __future__ import annotations

import pytest

from kingpost.render import systemd_text


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("/var/lib/x", '"/var/lib/x"'),
        ("/a b/100%", '"/a b/100%%"'),
        ('/say "no"', '"/say \\"no\\""'),
        ("/back\\slash", '"/back\\\\slash"'),
        ("/it's", '"/it\'s"'),
    ],
)
def test_one_word(text, word):
    assert systemd_text.word(text) == word


def test_a_line_keeps_its_blanks():
    assert systemd_text.plain("identity:/a b/100%n") == "identity:/a b/100%%n"
