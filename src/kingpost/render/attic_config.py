"""atticd.toml for servers outside of NixOS, and the configuration of Attic's client in every context."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from kingpost.render import layout
from kingpost.render.attic_settings import attic_settings, database_in_secret
from kingpost.render.comments import comment
from kingpost.render.nix_conf import runs_nix
from kingpost.render.pushing import pushes_from
from kingpost.render.secret_files import secret_path
from kingpost.render.toml_text import toml
from kingpost.topology.places import Dialer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kingpost.topology.places import Context
    from kingpost.topology.platform import Platform, PushRoute


def render_attic(platform: Platform) -> dict[str, str]:
    """Give every server's `atticd.toml` on a host, and every context's client configuration."""
    files = {
        layout.atticd_config(attic.host, name): atticd_toml(platform, name)
        for name, attic in platform.topology.attic.items()
        if attic.host
    }
    for context in platform.contexts.values():
        if runs_nix(context) and (text := client_toml(platform, context)):
            files[f"{layout.context_directory(context)}/attic.toml"] = text
    return files


def atticd_toml(platform: Platform, name: str) -> str:
    """Give the configuration of one server: `atticd --config FILE`. It holds no secret."""
    attic = platform.topology.attic[name]
    comments = [
        f"atticd {name}, rendered by kingpost: change the topology instead.",
        "Keys and credentials come from the environment: ATTIC_SERVER_TOKEN_…_BASE64, AWS_ACCESS_KEY_ID, …",
    ]
    if database_in_secret(attic):
        comments.append(
            "The database's URL is ATTIC_SERVER_DATABASE_URL there; [database] must exist all the same."
        )
    return toml(comments, attic_settings(platform, name))


def client_toml(platform: Platform, context: Context) -> str | None:
    """Give `~/.config/attic/config.toml` for a context; None where it has to do with no server.

    It holds no token. Where the topology says which file holds one, `token-file` names it; elsewhere
    `attic login` adds it.
    """
    pushes = pushes_from(platform, context.runner)
    servers = []
    for name in _servers(platform, context, pushes):
        url = platform.url(context.id, Dialer.CLIENT, f"attic:{name}")
        if url is not None:
            secret = token_secret(platform, pushes, name)
            path = secret_path(secret, platform.topology.secrets[secret]) if secret else None
            servers.append((name, f"{url}/", path))
    if not servers:
        return None
    said = f"Attic's client in {context.id}, rendered by kingpost: change the topology instead."
    return f"{comment(said)}\n{_client(tuple(servers))}"


@lru_cache(1024)  # most hosts dial the same servers at the same addresses
def _client(servers: tuple[tuple[str, str, str | None], ...]) -> str:
    """Give the client's settings for servers, each with its endpoint and the file of its token."""
    tables = {
        name: {"endpoint": endpoint, **({"token-file": path} if path else {})}
        for name, endpoint, path in servers
    }
    return toml([], {"default-server": servers[0][0], "servers": tables})


def _servers(platform: Platform, context: Context, pushes: Sequence[PushRoute]) -> list[str]:
    """Give the servers that a context has to do with: it reads from them, or pushes to them."""
    read = [use.ref.server for use in platform.cache_uses(context.id) if use.ref.kind == "attic"]
    pushed = [push.ref.server for push in pushes if push.ref.kind == "attic"]
    return list(dict.fromkeys([*pushed, *read]))


def token_secret(platform: Platform, pushes: Sequence[PushRoute], server: str) -> str | None:
    """Give the secret whose file is a context's token for a server, as one of its pushes declares it.

    Attic's client reads a bare token from `token-file`, so a secret of format `env` is none.
    """
    secrets = platform.topology.secrets
    for push in pushes:
        secret = push.push.token.secret
        if push.ref.service == f"attic:{server}" and secret in secrets and secrets[secret].format == "raw":
            return secret
    return None
