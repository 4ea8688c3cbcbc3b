"""Which paths to audit: named, listed, a closure, a flake's output; a sample of them, a shard of them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kingpost.base import process
from kingpost.base.errors import CannotLookError, UsageError
from kingpost.cache.hashes import ALPHABET
from kingpost.cache.storepath import is_hash_part, parse_path
from kingpost.observe.audit import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# A store path, or a hash part that stands alone or is a narinfo's name, anywhere in a line of a listing.
_IN_LINE: Final = re.compile(
    rf"(?P<store>/[^\s\"',]*/)?(?<![0-9a-z])(?P<hash>[{ALPHABET}]{{32}})(?:-(?P<name>[0-9a-zA-Z+\-._?=]+)|\.narinfo|(?![0-9a-zA-Z-]))"
)

_FLAKE_OUTPUTS: Final = (
    "d: if d ? outputs then map (o: (builtins.getAttr o d).outPath) d.outputs else [ d.outPath ]"
)


def parse_target(text: str) -> Target:
    """Read a store path, a link to one such as /run/current-system, a hash part or a narinfo's file name.

    Raises:
        UsageError: It is none of these.

    """
    if is_hash_part(text.removesuffix(".narinfo")):
        return Target(text.removesuffix(".narinfo"))
    try:
        link = Path(text)
        path = parse_path(os.path.realpath(link) if link.is_symlink() else text.rstrip("/"))
    except ValueError as error:
        raise UsageError(
            f"{text[:200]!r} is neither a store path nor the 32 letters of one",
            fix="write /nix/store/HASH-NAME, a link to it, or HASH",
        ) from error
    return Target(path.hash_part, str(path))


def from_listing(lines: Iterable[str]) -> list[Target]:
    """Read paths from text: one a line, `aws s3 ls`, an S3 inventory, `find`, or JSON of `nix path-info`.

    Lines without a hash part (NAR files, headers) are passed over; each path is taken once.
    """
    found: dict[str, Target] = {}
    for line in lines:
        for match in _IN_LINE.finditer(line):
            hash_part, name = match["hash"], match["name"]
            path = f"{match['store'] or '/nix/store/'}{hash_part}-{name}" if name else ""
            if name and name.endswith(".narinfo"):
                path = ""
            if path or hash_part not in found:
                found[hash_part] = Target(hash_part, path)
    return list(found.values())


def local_closure(path: str) -> list[Target] | None:
    """Ask the local Nix for a path's closure; None when it does not have the path (or there is no Nix)."""
    if shutil.which("nix-store") is None:
        return None
    done = process.run(["nix-store", "--query", "--requisites", path], check=False, timeout=600)
    return [parse_target(line) for line in done.stdout.split()] if done.returncode == 0 else None


def flake_outputs(reference: str) -> list[Target]:
    """Give the store paths of a flake's output, evaluated and not built.

    Raises:
        CannotLookError: It cannot be evaluated.

    """
    argv = ["nix", "--extra-experimental-features", "nix-command flakes", "eval", "--json", reference]
    nix = process.find_program("nix", fix="install Nix, or give the store path itself")
    done = process.run([nix, *argv[1:], "--apply", _FLAKE_OUTPUTS], check=False, timeout=1800)
    if done.returncode:
        raise CannotLookError(
            "the flake's output cannot be evaluated",
            where=reference,
            why=" ".join(done.stderr.split()[-60:]),
            fix="check it with `nix eval`, or give the store path itself",
        )
    return [parse_target(path) for path in json.loads(done.stdout)]


def sample(targets: Sequence[Target], how: str, seed: str) -> list[Target]:
    """Draw paths: `100`, or `5%` (rounded up).

    The draw depends on nothing but the seed and the paths' hashes, so that all shards of a run draw the same.

    Raises:
        UsageError: It is no number and no percentage.

    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", how, re.ASCII)
    amount = float(match[1]) if match else 0.0
    percent = match is not None and bool(match[2])
    if not 0 < amount <= (100 if percent else 1e9) or (not percent and amount != int(amount)):
        raise UsageError(f"--sample {how} is no sample", fix="write a number such as 100, or 5%")
    wanted = math.ceil(len(targets) * amount / 100) if percent else int(amount)
    drawn = sorted(targets, key=lambda target: _rank(seed, target.hash_part))[:wanted]
    chosen = {target.hash_part for target in drawn}
    return [target for target in targets if target.hash_part in chosen]


def _rank(seed: str, hash_part: str) -> bytes:
    return hashlib.sha256(f"{seed}:{hash_part}".encode()).digest()


def today() -> str:
    """Give the default seed: another sample each day, the same for all shards of a day."""
    return datetime.now(UTC).date().isoformat()


def shard_of(environment: Mapping[str, str], given: str = "") -> tuple[int, int]:
    """Tell which part of the paths is ours: (1, 1) for all, (2, 8) for the second of eight.

    Taken from `given` (`2/8`), else from GitLab's `parallel:` (CI_NODE_INDEX counts from 1), else from a
    Kubernetes Indexed Job (JOB_COMPLETION_INDEX counts from 0; the Job has to say the total itself, in
    KINGPOST_SHARDS).

    Raises:
        UsageError: It is incomplete or makes no sense.

    """
    if given:
        index, slash, total = given.partition("/")
        return _shard(index, total if slash else "", f"--shard {given}")
    if total := environment.get("CI_NODE_TOTAL", ""):
        return _shard(environment.get("CI_NODE_INDEX", "1"), total, "CI_NODE_INDEX/CI_NODE_TOTAL")
    if index := environment.get("JOB_COMPLETION_INDEX", ""):
        total = environment.get("KINGPOST_SHARDS", "")
        if not total:
            raise UsageError(
                "JOB_COMPLETION_INDEX is set, and how many there are is not known",
                fix="set KINGPOST_SHARDS to the Job's completions, or give --shard 1/1 to audit everything here",
            )
        return _shard(str(int(index) + 1) if index.isdecimal() else index, total, "JOB_COMPLETION_INDEX")
    return 1, 1


def _shard(index: str, total: str, where: str) -> tuple[int, int]:
    if not (index.isdecimal() and total.isdecimal()) or not 1 <= int(index) <= int(total):
        raise UsageError(f"{where} names no shard", fix="write --shard 2/8 for the second of eight")
    return int(index), int(total)


def take_shard(targets: Iterable[Target], index: int, total: int) -> list[Target]:
    """Give the paths of one shard: by hash, so that the order of a listing does not matter."""
    return [t for t in targets if int.from_bytes(_rank("shard", t.hash_part)[:8], "big") % total == index - 1]
