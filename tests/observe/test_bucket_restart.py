"""The plan of a restart, at the level of argv: no cluster is here to restart."""

import json

import pytest
from tests.observe.test_bucket import NO_BUCKET, Fake

from kingpost.base.errors import CannotLookError
from kingpost.base.ledger import Ledger
from kingpost.base.process import CommandError
from kingpost.observe.bucket import State
from kingpost.observe.bucket_evidence import Server
from kingpost.observe.bucket_place import Workload
from kingpost.observe.executors.local import Here
from kingpost.observe.executors.ssh import Ssh
from kingpost.repair import bucket as repair

DEPLOYMENT = Server(Workload("nix-cache", "deployment/attic-rustfs", context="honey"))


def test_the_commands_and_the_phrase_name_the_target():
    plan = repair.Restart(DEPLOYMENT, "attic", timeout=300)
    kubectl = ["kubectl", "--context", "honey", "--namespace", "nix-cache"]
    assert plan.commands == [
        [*kubectl, "rollout", "restart", "deployment/attic-rustfs"],
        [*kubectl, "rollout", "status", "deployment/attic-rustfs", "--timeout=300s"],
    ]
    assert plan.phrase == "restart-nix-cache-deployment-attic-rustfs"
    assert repair.Restart(Server(Here(), "rustfs.service"), "attic").commands == [
        ["systemctl", "restart", "rustfs.service"]
    ]
    remote = repair.Restart(Server(Ssh("honey"), "rustfs.service"), "attic")
    assert remote.commands[0][-1] == "systemctl restart rustfs.service"
    assert remote.phrase == "restart-rustfs.service-on-honey"
    assert "recovers, it fixes nothing" in plan.in_words()[-1]


@pytest.mark.parametrize("state", [*State, None])
def test_only_a_diverged_index_is_restarted_unless_somebody_answers_for_it(state):
    refused = repair.refusal(state, [])
    assert (refused is None) == (state is State.INDEX_DIVERGENCE)
    assert state is None or repair.refusal(state, [state]) is None


class Recovering(Fake):
    """It refuses connections, then misses the bucket, then has it."""

    def __init__(self):
        super().__init__()
        self.looks = 0

    def buckets(self):
        self.looks += 1
        if self.looks == 1:
            raise CannotLookError("connection refused")
        self._errors = NO_BUCKET if self.looks == 2 else {}
        return [] if self.looks == 2 else ["attic"]


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    script = tmp_path / "kubectl"
    script.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return script


def test_recovery_is_waited_for_and_proven(kubectl, tmp_path):
    waits = []
    s3 = Recovering()
    (verdict,) = repair.apply(repair.Restart(DEPLOYMENT, "attic"), s3, [], "sha256:a", sleep=waits.append)
    assert (verdict.code, s3.looks, len(waits)) == ("KP-BUCKET-RECOVERED", 3, 2)
    assert [line.split()[4:6] for line in (tmp_path / "calls").read_text().splitlines()] == [
        ["rollout", "restart"],
        ["rollout", "status"],
    ]
    kubectl.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(CommandError):
        repair.apply(repair.Restart(DEPLOYMENT, "attic"), s3, [], "sha256:a")


def test_recurrences_are_counted_per_image_from_before_the_restart(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    plan = repair.Restart(DEPLOYMENT, "attic")
    for image in ("sha256:a", "sha256:a", "sha256:b"):
        # A run that is killed right after this was a restart all the same.
        ledger.add(ledger.start("bucket restart"), [repair.begun(plan, "bucket attic at u", image)])
    assert len(repair.recurrences(ledger, "bucket attic at u", "sha256:a")) == 2
    assert len(repair.recurrences(ledger, "bucket attic at u", "sha256:b")) == 1
    assert repair.recurrences(ledger, "bucket other at u", "sha256:a") == []
    assert repair.recurrence("s", "sha256:c", []) == []
    (verdict,) = repair.recurrence("s", "sha256:a", ["2026-01-01", "2026-02-01"])
    assert verdict.evidence["count"] == 3
    assert "restart 3 with image sha256:a" in verdict.summary
    assert json.dumps(verdict.as_dict())
    ledger.close()
