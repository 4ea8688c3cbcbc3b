"""Everything that a topology renders to: one mapping from path to text."""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from kingpost import __version__
from kingpost.base.beside import beside
from kingpost.render import layout
from kingpost.render.attic_config import render_attic
from kingpost.render.audits import render_audits
from kingpost.render.environment import templates
from kingpost.render.gitlab_ci import render_pipelines
from kingpost.render.kubernetes import render_clusters
from kingpost.render.matrix import render_matrix
from kingpost.render.nix_conf import render_contexts
from kingpost.render.nix_files import render_nix
from kingpost.render.runner_config import render_runners
from kingpost.render.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kingpost.topology.loader import Loaded
    from kingpost.topology.platform import Platform

_LAYERS: Final = ("base", "topology", "render")
FLEET: Final = 50
"""From so many hosts on, a second process is worth its start."""

_Renderer: TypeAlias = "Callable[[Platform], dict[str, str]]"


_HERE: Final[tuple[_Renderer, ...]] = (
    render_attic,
    render_runners,
    render_contexts,
    render_pipelines,
    render_clusters,
    render_audits,
    render_matrix,
)
_BESIDE: Final[tuple[_Renderer, ...]] = (render_nix,)
"""What a second process renders of a fleet: about half of the work."""


def render_site(platform: Platform) -> dict[str, str]:
    """Give every rendered file but the manifest, by its path; the same for the same topology, byte for byte.

    Args:
        platform: Of a topology that passes its checks.

    """
    with beside(partial(_rendered, platform, _BESIDE), worth=len(platform.topology.hosts) >= FLEET) as others:
        return _rendered(platform, _HERE) | others()


def _rendered(platform: Platform, renderers: Iterable[_Renderer]) -> dict[str, str]:
    return {path: text for render in renderers for path, text in render(platform).items()}


def site_tree(loaded: Loaded, platform: Platform) -> Tree:
    """Give the whole tree, with what its manifest says about its origin."""
    return Tree(render_site(platform), loaded.digest, __version__, inputs_of(loaded))


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
