"""What memory and disk can be found to be."""

from __future__ import annotations

from typing import Final

from kingpost.base.codes import Code
from kingpost.base.verdict import Status

NO_KILL: Final = Code(
    "KP-OOM-NONE", Status.OK, "nothing was killed",
    "Neither the kernel nor systemd-oomd killed anything for memory in the time that was looked at.",
)  # fmt: skip
LIMIT: Final = Code(
    "KP-OOM-LIMIT", Status.FAILED, "killed at its own limit",
    "The kernel killed a process because its unit or container reached its memory limit.",
    cause="The limit is too small for what it does, or it leaks.",
    told_apart="`constraint=CONSTRAINT_MEMCG` in the kernel's log: the host itself had memory left.",
    remedy="raise its limit as far as the budget allows, or let it do less at once",
)  # fmt: skip
HOST: Final = Code(
    "KP-OOM-HOST", Status.FAILED, "the host ran out of memory",
    "The kernel killed a process because the whole host had no memory left; the victim is not always the culprit.",
    cause="What runs without a limit, or limits that add up to more than the host has.",
    told_apart="`constraint=CONSTRAINT_NONE`; a kill at a limit is KP-OOM-LIMIT.",
    remedy="give everything large a limit, so that the one at fault is killed, and not its neighbour",
)  # fmt: skip
OOMD: Final = Code(
    "KP-OOM-OOMD", Status.FAILED, "killed by systemd-oomd",
    "systemd-oomd killed a whole control group, for pressure or for swap, before the kernel had to.",
    cause="ManagedOOMMemoryPressure=kill on it or on a slice above it.",
    told_apart="The kernel's own kills name a process; systemd-oomd names a control group.",
    remedy="raise MemoryHigh of what was killed within the budget, or let less run at once",
)  # fmt: skip
JOB: Final = Code(
    "KP-OOM-JOB", Status.FAILED, "a CI job was killed",
    "A job's container or pod was killed for memory: exit code 137 in the job's log, and no other reason.",
    cause="The job needs more than `memory_per_job`.",
    told_apart="137 without OOMKilled is a cancelled job, or a `docker kill`.",
    remedy="raise memory_per_job within the budget, or lower the runner's concurrency or Nix's max-jobs",
)  # fmt: skip
POD: Final = Code(
    "KP-OOM-POD", Status.FAILED, "a pod's container was killed",
    "Kubernetes gives OOMKilled as the reason for a container's end.",
    cause="It reached its memory limit, or the LimitRange's default where it has none of its own.",
    told_apart="KP-OOM-JOB: it was a CI job's pod. Exit code 137 without OOMKilled is a SIGKILL by somebody else.",
    remedy="raise the container's limit within the cluster's budget",
)  # fmt: skip
COUNTED: Final = Code(
    "KP-OOM-COUNTED", Status.FAILED, "kills that the log no longer has",
    "The control group counts kills for memory that no log line in the time looked at explains.",
    cause="The log was rotated, or the kills are older than what was asked for.",
    told_apart="The control group's counter begins with the unit's start: what it counts is no older than that.",
    remedy="look further back with --since",
)  # fmt: skip
MEMORY: Final = Code(
    "KP-MEMORY-OK", Status.OK, "within its limit", "What a unit uses, its peak, and its limit."
)
NEAR: Final = Code(
    "KP-MEMORY-NEAR", Status.EXPECTED, "its peak reached its limit",
    "A unit's peak is within a tenth of its limit. Page cache counts, and gives way without harm.",
    cause="What it does needs that much, or the kernel keeps its files in memory because nobody else wants it.",
    told_apart="KP-OOM-LIMIT: it did not only reach the limit, it was killed there.",
    remedy="nothing, until it is killed or slow; then raise MemoryHigh and MemoryMax within the budget",
)  # fmt: skip
EVICTION: Final = Code(
    "KP-MEMORY-EVICTION", Status.FAILED, "the kubelet evicts pods for memory",
    "Less memory is available on the host than the kubelet's threshold.",
    cause="Pods without a limit, or limits and what else runs on the host that add up to more than it has.",
    told_apart="An evicted pod has the reason Evicted, a killed one OOMKilled: KP-OOM-POD.",
    remedy="`kubectl describe node`: what requests and limits add up to; give every pod a limit, lower concurrency",
)  # fmt: skip
UNLIMITED: Final = Code(
    "KP-BUDGET-UNLIMITED", Status.FAILED, "declared limited, and it is not",
    "The budget counts on a unit's limit, and systemd has none in effect.",
    cause="The host was not deployed, or another module or drop-in sets infinity.",
    told_apart="KP-DRIFT-UNIT: a limit is in effect, and it is another one.",
    remedy="`kingpost drift` says which properties differ; deploy",
)  # fmt: skip
BUDGET: Final = Code(
    "KP-BUDGET-OK", Status.OK, "the budget holds", "Declared limits, those in effect, and what the host has."
)
OVER: Final = Code(
    "KP-BUDGET-OVER", Status.FAILED, "more is promised than there is",
    "The limits in effect, with the reserve, add up to more than the host's memory.",
    cause="A limit was raised on the host, or the host has less memory than declared.",
    told_apart="`kingpost check` adds up what is declared; this adds up what is in effect: only the host differs.",
    remedy="lower limits or concurrency until `kingpost check` and this agree",
)  # fmt: skip
SMALLER: Final = Code(
    "KP-BUDGET-HOST", Status.FAILED, "the host is smaller than declared",
    "The host has less memory or swap than the topology says.",
    cause="The machine was made smaller, or the topology was written for another one.",
    told_apart="Up to 6 % less memory is what firmware and kernel keep for themselves, and is not counted.",
    remedy="declare what it has; `kingpost check` then says what does not fit any more",
)  # fmt: skip
CALM: Final = Code(
    "KP-PSI-OK",
    Status.OK,
    "no pressure",
    "Tasks hardly wait for memory or disks (Linux's pressure stall information).",
)
STALLED: Final = Code(
    "KP-PSI-HIGH", Status.FAILED, "tasks wait for memory or disks",
    "For a good part of the last minute everything that could run waited.",
    cause="Memory: reclaim and swap, shortly before kills. io: a disk that is too slow for what runs.",
    told_apart="`full` is the share of time in which nobody got on; `some` alone is normal under load.",
    remedy="see which unit is near its limit, and let less run at once",
)  # fmt: skip
DISK: Final = Code(
    "KP-DISK-OK",
    Status.OK,
    "space is left",
    "Free space and inodes of a mount, and the threshold that comes next.",
)
LOW: Final = Code(
    "KP-DISK-LOW", Status.FAILED, "a disk is below its threshold",
    "A mount has less free space than something on it needs.",
    cause="The Nix store, images and volumes, logs, or build directories.",
    told_apart="The threshold is named: Nix's min-free collects garbage, the kubelet's evicts pods and deletes images.",
    remedy="`nix-collect-garbage --delete-older-than 14d`, `docker system prune`, `journalctl --vacuum-size=1G`",
)  # fmt: skip
INODES: Final = Code(
    "KP-DISK-INODES", Status.FAILED, "a disk runs out of inodes",
    "Few inodes are left: no new file can be made although there is space.",
    cause="Many small files: a Nix store, node_modules, git objects.",
    told_apart="`df -i` against `df`: writes fail with `No space left on device` although space is left.",
    remedy="collect garbage; `nix-store --optimise` saves inodes too",
)  # fmt: skip
DEAD: Final = Code(
    "KP-DISK-DEAD",
    Status.OK,
    "what could be freed",
    "Store paths that nothing refers to, or Docker's unused data.",
)
NOT_ASKED: Final = Code(
    "KP-PRESSURE-NOT-ASKED",
    Status.SKIPPED,
    "could not be looked at",
    "The host gave no answer to this question.",
)
