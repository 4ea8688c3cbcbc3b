"""What a probe publishes: profiles, the closures that they take, and made-up ones of the same shape."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kingpost.base.errors import CannotLookError, KingpostError
from kingpost.base.process import CommandError, find_program, run

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Attic's usual nar-size-threshold. A NAR below is one chunk (and a redirect to S3), one above is cut where its
#: contents say, into pieces of at most max-size: below that it may be one chunk all the same.
CHUNKING_THRESHOLD: Final = 64 * 1024
#: In the name of every made-up path.
MADE_UP: Final = "-kingpost-probe"
_FLAKES: Final = ("--extra-experimental-features", "nix-command flakes")
_TIMEOUT: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Profile:
    """How large a closure must be for a pass to mean something.

    Attributes:
        name: As on the command line and in the confirmation.
        paths: At least so many store paths.
        above: At least so many with a NAR above the chunking threshold. Attic may still store one as a single chunk;
            how many were redirected to the storage, and so were one, the report says after reading back.
        below: At least so many with one below it.

    """

    name: str
    paths: int
    above: int
    below: int

    @property
    def representative(self) -> bool:
        """Tell whether a pass says something about real closures."""
        return self.paths > 1


SYNTHETIC: Final = Profile("synthetic", paths=1, above=0, below=1)
SMALL: Final = Profile("small", paths=6, above=1, below=3)
MEDIUM: Final = Profile("medium", paths=36, above=4, below=12)
PROFILES: Final = {profile.name: profile for profile in (SYNTHETIC, SMALL, MEDIUM)}


@dataclass(frozen=True, slots=True)
class Payload:
    """What is to be pushed.

    Attributes:
        roots: Paths to hand to the client; it takes their closure.
        sizes: NAR size in bytes of every path of the closure.
        origin: What it is, in words.
        generated: Made up by the probe.

    """

    roots: tuple[str, ...]
    sizes: dict[str, int]
    origin: str
    generated: bool

    def counts(self, threshold: int) -> dict[str, int]:
        """Give how many paths there are, above and below the chunking threshold."""
        above = sum(size >= threshold for size in self.sizes.values())
        return {
            "paths": len(self.sizes),
            "above_threshold": above,
            "below_threshold": len(self.sizes) - above,
        }

    def shortfall(self, profile: Profile, threshold: int) -> str:
        """Tell in words what the closure lacks for a profile, or ""."""
        counts = self.counts(threshold)
        lacks = [
            f"{have} of at least {need} {what}"
            for have, need, what in (
                (counts["paths"], profile.paths, "paths"),
                (counts["above_threshold"], profile.above, "paths above the chunking threshold"),
                (counts["below_threshold"], profile.below, "paths below it"),
            )
            if have < need
        ]
        return "; ".join(lacks)


class BuildError(KingpostError):
    """The payload cannot be had; `command` shows how to try by hand."""

    def __init__(self, what: str, why: str, command: str) -> None:
        super().__init__(what, why=why, fix=f"try by hand: {command}")
        self.command = command


def generated(profile: Profile, threshold: int) -> Payload:
    """Make a closure of the profile's shape that no cache has: its contents hold a fresh random number.

    Only `builtins.toFile` is used: nothing is built, so no builder, sandbox or substituter is needed.
    """
    above = profile.above + (1 if profile.above else 0)
    leaves = max(profile.paths - 1, 0)
    expression = _EXPRESSION % {
        "nonce": secrets.token_hex(16),
        "leaves": leaves,
        "above": above,
        # 128 hexadecimal digits a block. The large NARs are above Attic's usual max-size of four thresholds, so
        # that each is surely more than one chunk; the others are tiny.
        "large": threshold * 9 // 2 // 128,
    }
    argv = ["nix-instantiate", "--eval", "--read-write-mode", "--strict", "--expr", expression]
    find_program("nix-instantiate", fix="run this where Nix is installed")
    try:
        done = run(argv, timeout=_TIMEOUT)
    except CommandError as error:
        raise BuildError(
            "the made-up payload cannot be added to the Nix store", error.why, argv[0]
        ) from error
    root = done.stdout.strip().strip('"')
    kind = "one made-up path" if profile.paths == 1 else "a made-up closure"
    return Payload((root,), sizes([root]), kind, generated=True)


# Hashes are as good as random: they neither compress much nor deduplicate.
_EXPRESSION: Final = """
let
  block = seed: n:
    builtins.concatStringsSep "" (builtins.genList (i: builtins.hashString "sha512" "${seed} ${toString i}") n);
  leaf = i: builtins.toFile "kingpost-probe-${toString i}"
    (block "%(nonce)s ${toString i}" (if i < %(above)d then %(large)d * (1 + i * 3 / 10) else 1 + i));
in
builtins.toFile "kingpost-probe"
  (builtins.concatStringsSep "\\n" ([ "%(nonce)s" ] ++ map (i: "${leaf i}") (builtins.genList (i: i) %(leaves)d)))
"""


def built(references: Sequence[str]) -> Payload:
    """Build installables (flake outputs, store paths) and give what they are, with their closure.

    Raises:
        BuildError: One cannot be built, or is not in the store.

    """
    find_program("nix", fix="run this where Nix is installed")
    roots: list[str] = []
    for reference in references:
        if reference.startswith("/") and "#" not in reference and "-" in reference.rpartition("/")[2]:
            roots.append(reference)
            continue
        argv = ["nix", *_FLAKES, "build", "--no-link", "--print-out-paths", reference]
        try:
            roots += run(argv, timeout=_TIMEOUT).stdout.split()
        except CommandError as error:
            why = error.completed.stderr.strip()[-1000:]
            raise BuildError(f"{reference} cannot be built", why, " ".join(argv)) from error
    return Payload(tuple(roots), sizes(roots), ", ".join(references), generated=False)


def joined(one: Payload, other: Payload) -> Payload:
    """Give both as one payload; the words and the kind are those of the first."""
    return Payload(one.roots + other.roots, {**one.sizes, **other.sizes}, one.origin, one.generated)


def sizes(roots: Sequence[str]) -> dict[str, int]:
    """Give the NAR size of every path in a closure, as the local Nix knows it.

    Raises:
        BuildError: A path is not in the store.
        CannotLookError: Nix answers something else.

    """
    argv = ["nix-store", "--query", "--requisites", *roots]
    try:
        paths = run(argv, timeout=600).stdout.split()
        answers = run(["nix-store", "--query", "--size", *paths], timeout=600).stdout.split()
    except CommandError as error:
        raise BuildError("the payload is not whole in the Nix store", error.why, " ".join(argv)) from error
    if len(answers) != len(paths) or not all(answer.isdecimal() for answer in answers):
        raise CannotLookError("`nix-store --query --size` gave no size for some path")
    return {path: int(answer) for path, answer in zip(paths, answers, strict=True)}
