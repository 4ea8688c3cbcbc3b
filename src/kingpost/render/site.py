"""Everything that a topology renders to: one mapping from path to text."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kingpost import __version__
from kingpost.base.beside import beside
from kingpost.render import layout
from kingpost.render.audits import render_audits
from kingpost.render.gitlab_ci import render_pipelines
from kingpost.render.kubernetes import render_clusters
from kingpost.render.matrix import render_matrix
from kingpost.render.nix_conf import render_contexts
from kingpost.render.runner_config import render_runners
from kingpost.render.sources import templates
from kingpost.render.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kingpost.topology.loader import Loaded
    from kingpost.topology.platform import Platform

_LAYERS: Final = ("base", "topology", "render")
FLEET: Final = 50
"""From so many hosts on, a second process is worth its start."""


def render_site(platform: Platform) -> dict[str, str]:
    """Give every rendered file but the manifest, by its path; the same for the same topology, byte for byte.

    Args:
        platform: Of a topology that passes its checks.

    """
    with rendering(platform) as rendered:
        return rendered()


@contextmanager
def rendering(platform: Platform) -> Iterator[Callable[[], dict[str, str]]]:
    """Begin to render a fleet on a second processor, for a `with` block that checks it meanwhile.

    Gives a function that waits for every file, as `render_site` gives them; to be called, at most once, when the
    topology has passed its checks.
    """
    with beside(partial(_through_templates, platform), worth=len(platform.topology.hosts) >= FLEET) as others:
        yield lambda: {**_by_construction(platform), **others()}


def _through_templates(platform: Platform) -> dict[str, str]:
    """Give a second process's share: as much work as the checks and the rest are.

    What it imports, Jinja2 before all, only that process waits for.
    """
    from kingpost.render.attic_config import render_attic  # noqa: PLC0415 - as the docstring says
    from kingpost.render.nix_files import render_nix  # noqa: PLC0415 - likewise

    return {**render_attic(platform), **render_nix(platform)}


def _by_construction(platform: Platform) -> dict[str, str]:
    return {
        **render_runners(platform),
        **render_contexts(platform),
        **render_pipelines(platform),
        **render_clusters(platform),
        **render_audits(platform),
        **render_matrix(platform),
    }


def site_tree(loaded: Loaded, files: dict[str, str], inputs: str) -> Tree:
    """Give the whole tree, with what its manifest says about its origin; `inputs` as `inputs_of` gives it."""
    return Tree(files, loaded.digest, __version__, inputs)


def inputs_of(loaded: Loaded) -> str:
    """Give the digest of all that decides what is rendered: the topology as written, and kingpost's own code."""
    inputs = sha256(loaded.value.encode())
    package = Path(__file__).parents[1]
    for folder in (*(package / layer for layer in _LAYERS), templates()):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                inputs.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return inputs.hexdigest()


def scope_of(platform: Platform, hosts: tuple[str, ...]) -> Callable[[str], bool]:
    """Give which files are these hosts' or everybody's: all but the folders of other hosts, declared or not."""
    clusters = [name for name, cluster in platform.topology.clusters.items() if cluster.host in hosts]
    return lambda path: not layout.is_elsewhere(path, hosts, clusters)
