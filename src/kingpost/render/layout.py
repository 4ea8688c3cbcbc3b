"""Where each rendered file lies, relative to the root of the tree, and the names that files share."""

from __future__ import annotations

from typing import Final

FILL_SECRETS: Final = "lib/fill-secrets.sh"
"""Shell script that fills a template's placeholders from secret files when a unit starts."""


def host_directory(host: str) -> str:
    """Give the folder of a host's NixOS modules."""
    return f"hosts/{host}"


def runner_config(host: str) -> str:
    """Give the gitlab-runner `config.toml` of a host, with a placeholder where each token belongs."""
    return f"{host_directory(host)}/gitlab-runner.toml"


def token_placeholder(runner: str) -> str:
    """Give what stands in `config.toml` for a runner's token until the unit starts."""
    return f"@TOKEN:{runner}@"
