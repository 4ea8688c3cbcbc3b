from datetime import date

import pytest

from .checking import codes, found

SHARED = '[buckets.store]\nholds = ["cache", "iac-state"]\n\n'


def waiver(code="KP-BUCKET-SHARED", on="buckets.store", expires="2027-01-31"):
    table = f'[waivers.w]\ncode = "{code}"\non = "{on}"\nexpires = {expires}\n'
    return table + 'reason = "moves in winter"\nowner = "ops"\n'


@pytest.mark.parametrize("on", ["buckets.store", "buckets.store.holds", "buckets"])
def test_a_waiver_permits_what_it_is_on(on):
    assert codes(SHARED + waiver(on=on)) == []


@pytest.mark.parametrize("on", ["buckets.other", "buckets.stor", "attic.home"])
def test_a_waiver_permits_nothing_else(on):
    assert codes(SHARED + waiver(on=on)) == ["KP-BUCKET-SHARED", "KP-WAIVER-UNNEEDED"]


def test_a_waiver_holds_on_its_last_day_and_not_after():
    text = SHARED + waiver(expires="2027-01-31")
    assert codes(text, today=date(2027, 1, 31)) == []
    assert codes(text, today=date(2027, 2, 1)) == ["KP-BUCKET-SHARED", "KP-WAIVER-EXPIRED"]


def test_an_expired_waiver_that_is_not_needed_is_still_to_be_removed():
    assert codes(waiver(expires="2020-01-01")) == ["KP-WAIVER-EXPIRED"]


def test_what_cannot_work_cannot_be_waived():
    text = '[runners.blog]\nvolumes = ["/nix:/nix"]\n\n' + waiver("KP-MOUNT-NIX-WHOLE", "runners.blog")
    assert codes(text) == ["KP-MOUNT-NIX-WHOLE", "KP-WAIVER-CODE"]


def test_a_misspelt_code():
    (problem,) = found(waiver("KP-BUCKET-SHARD"))
    assert problem.path == ("waivers", "w", "code")
    assert "KP-BUCKET-SHARED" in problem.fix


def test_while_names_are_wrong_nobody_is_told_to_remove_a_waiver():
    text = SHARED.replace("iac-state", "backup") + waiver() + '\n[runners.blog]\nhost = "nowhere"'
    assert codes(text) == ["KP-REF-UNKNOWN"]
