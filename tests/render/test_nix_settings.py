from __future__ import annotations

import pytest

from kingpost.render.nix_settings import RESILIENCE, SINCE, known_to


@pytest.mark.parametrize(
    ("version", "missing"),
    [
        ("2.8", {"fsync-store-paths", "narinfo-cache-meta-ttl"}),
        ("2.24.14", {"fsync-store-paths", "narinfo-cache-meta-ttl"}),
        ("2.25", {"narinfo-cache-meta-ttl"}),
        ("2.33.5", {"narinfo-cache-meta-ttl"}),
        ("2.34", set()),
        ("2.100", set()),
    ],
)
def test_a_version_gets_what_it_knows(version, missing):
    assert RESILIENCE.keys() - known_to(version, RESILIENCE).keys() == missing


def test_a_setting_of_unknown_age_is_an_error():
    with pytest.raises(KeyError, match="new-setting"):
        known_to("2.34", {"new-setting": 1})


def test_the_table_lists_every_setting_that_is_used():
    assert RESILIENCE.keys() <= SINCE.keys()
