"""Where each rendered file lies, relative to the root of the tree, and the names that files share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kingpost.topology.places import Context

_HOSTS: Final = "hosts/"
_CLUSTERS: Final = "clusters/"
MODULES: Final = "modules"
"""Folder of kingpost's own NixOS modules, as far as the hosts need them: byte for byte as kingpost has them."""

FILL_SECRETS: Final = f"{MODULES}/fill-secrets.sh"
"""Shell script that fills a template's placeholders from secret files when a unit starts."""


def host_directory(host: str) -> str:
    """Give the folder of a host's NixOS modules."""
    return f"{_HOSTS}{host}"


def runner_config(host: str) -> str:
    """Give the gitlab-runner `config.toml` of a host, with a placeholder where each token belongs."""
    return f"{host_directory(host)}/gitlab-runner.toml"


def token_placeholder(runner: str) -> str:
    """Give what stands in `config.toml` for a runner's token until the unit starts."""
    return f"@TOKEN:{runner}@"


def cluster_directory(cluster: str) -> str:
    """Give the folder of a cluster's manifests: `kubectl apply --recursive --filename` takes it."""
    return f"{_CLUSTERS}{cluster}"


def atticd_config(host: str, attic: str) -> str:
    """Give the `atticd.toml` of a server on a host."""
    return f"{host_directory(host)}/atticd-{attic}.toml"


def context_directory(context: Context) -> str:
    """Give the folder of what a context's processes read: below its host, or `peers/` for other machines."""
    place, _, name = context.id.partition(":")[2].partition("/")
    if context.host is None:
        return f"peers/{place}"
    # A pod's place is its cluster: its host may have several.
    inside = [context.kind, *([place] if context.kind == "pod" else []), *([name] if name else [])]
    return f"{host_directory(context.host)}/contexts/{'/'.join(inside)}"


def pipeline_file(pipeline: str) -> str:
    """Give a pipeline's file, for `include:` in a .gitlab-ci.yml."""
    return f"ci/pipelines/{pipeline}.gitlab-ci.yml"


def audit_file(audit: str) -> str:
    """Give the file of a declared audit that runs as a GitLab job."""
    return f"ci/audits/{audit}.gitlab-ci.yml"


MATRIX: Final = "matrix.md"
"""Who reaches what at which address."""


def is_elsewhere(path: str, hosts: Iterable[str], clusters: Iterable[str]) -> bool:
    """Tell whether a file is in a folder of another host or cluster than these."""
    own = (
        *(f"{host_directory(host)}/" for host in hosts),
        *(f"{cluster_directory(name)}/" for name in clusters),
    )
    return path.startswith((_HOSTS, _CLUSTERS)) and not path.startswith(own)
