"""manifest.json: which files kingpost wrote, so that it knows what it may replace and remove."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from kingpost.base.errors import InvalidInputError
from kingpost.render.confined import is_confined

if TYPE_CHECKING:
    from collections.abc import Mapping

MANIFEST: Final = "manifest.json"
SCHEMA: Final = "kingpost.manifest/1"


def digest(content: bytes) -> str:
    """Give the SHA-256 of a content in hex."""
    return sha256(content).hexdigest()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a tree was rendered from, and what is in it.

    Attributes:
        topology: Digest of the topology; empty in a tree that has no manifest.
        version: kingpost's.
        files: SHA-256 of every file but the manifest, by path.
        inputs: Digest of all that decides what is rendered (see `site.inputs_of`); empty when the tree is of
            several. It only saves work: two manifests that differ in it alone are equal.

    """

    topology: str = ""
    version: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    inputs: str = field(default="", compare=False)

    def render(self) -> bytes:
        """Give the file's content: JSON with sorted keys, the same for the same tree."""
        head = {
            "schema": SCHEMA,
            "kingpost": self.version,
            "topology": self.topology,
            "inputs": self.inputs,
            "files": {},
        }
        document = json.dumps(head, indent=2)
        if self.files:  # json's own indentation is slow, and a fleet has many files
            entries = json.dumps(dict(self.files), sort_keys=True, separators=(",\n    ", ": "))
            document = document.removesuffix("{}\n}") + "{\n    " + entries[1:-1] + "\n  }\n}"
        return f"{document}\n".encode()


def parse(content: bytes | None, where: str) -> Manifest:
    """Read a manifest; a tree without one has an empty one.

    Raises:
        InvalidInputError: It cannot be read, or names files outside of the tree.

    """
    if content is None:
        return Manifest()
    try:
        return _parse(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(
            f"the manifest cannot be read: {error or 'it is incomplete'}",
            where=where,
            why="it says which files kingpost wrote; without it every file counts as edited by hand",
            fix="resolve a merge conflict in it or restore it from version control;"
            " or delete it and pass --force, which writes everything anew and removes nothing",
        ) from error


def _parse(content: bytes) -> Manifest:
    document: Any = json.loads(content)
    files = document["files"]
    if document["schema"] != SCHEMA:
        raise ValueError(f"its schema is {document['schema']!r}, not {SCHEMA!r}")
    if not all(isinstance(value, str) for value in files.values()):
        raise ValueError("its digests are no texts")
    if outside := [path for path in files if not is_confined(path) or path == MANIFEST]:
        raise ValueError(f"it lists {outside[0]!r}, which kingpost never writes")
    inputs = str(document.get("inputs", ""))
    return Manifest(str(document["topology"]), str(document["kingpost"]), dict(files), inputs)
