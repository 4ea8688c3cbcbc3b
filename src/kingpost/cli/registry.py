"""Every command, where it lives and its one-line help. A module is imported only when its command runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Entry:
    """A command.

    Attributes:
        module: Holds either `command`, a function for typer, or `app`, a group of commands.
        help: One line for `kingpost --help`.
        passthrough: The module has `main(argv) -> int` of its own, which gets all arguments as they are.

    """

    module: str
    help: str
    passthrough: bool = False


COMMANDS: Final[dict[str, Entry]] = {
    "init": Entry("kingpost.cli.init", "write a commented topology.toml to start from"),
    "check": Entry("kingpost.cli.check", "every problem of a topology at once, each with its place and fix"),
    "generate": Entry("kingpost.cli.generate", "render all files of a topology"),
    "explain": Entry("kingpost.cli.explain", "the address of a service from one context, and why"),
    "matrix": Entry("kingpost.cli.matrix", "who reaches what at which address"),
    "schema": Entry("kingpost.cli.schema", "the JSON Schema of a topology, for editors"),
    "cache": Entry("kingpost.cli.cache", "are the bodies of a binary cache there, and can one publish"),
    "doctor": Entry(
        "kingpost.cli.doctor", "try every route from inside its context, as its real client would"
    ),
    "drift": Entry("kingpost.cli.drift", "declared against operational state, item by item"),
    "pressure": Entry("kingpost.cli.pressure", "who was killed for memory, and what runs out next"),
    "trace": Entry("kingpost.cli.trace", "who really served each path of a Nix run"),
    "history": Entry("kingpost.cli.history", "since when is it broken, what was the last good"),
    "bucket": Entry(
        "kingpost.cli.bucket", "compare a bucket's API with its disk; restart its server with care"
    ),
    "token": Entry(
        "kingpost.cli.token", "mint, inspect, check, lint and rotate the tokens of an Attic server"
    ),
    "store-fix": Entry("kingpost.cli.store_fix", "bring a broken Nix store back", passthrough=True),
}
