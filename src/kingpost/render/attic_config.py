"""atticd.toml for servers outside of NixOS, and the configuration of Attic's client in every context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kingpost.render import layout
from kingpost.render.attic_settings import attic_settings, database_in_secret
from kingpost.render.nix_conf import runs_nix
from kingpost.render.pushing import pushes_from
from kingpost.render.secret_files import secret_path
from kingpost.render.toml_text import toml
from kingpost.topology.places import Dialer

if TYPE_CHECKING:
    from kingpost.topology.places import Context
    from kingpost.topology.platform import Platform


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
    servers: dict[str, dict[str, Any]] = {}
    for name in _servers(platform, context):
        route = platform.route(context.id, Dialer.CLIENT, f"attic:{name}")
        if route.url is None:
            continue
        servers[name] = {"endpoint": f"{route.url}/"}
        if secret := token_secret(platform, context, name):
            servers[name]["token-file"] = secret_path(secret, platform.topology.secrets[secret])
    if not servers:
        return None
    comments = [f"Attic's client in {context.id}, rendered by kingpost: change the topology instead."]
    return toml(comments, {"default-server": next(iter(servers)), "servers": servers})


def _servers(platform: Platform, context: Context) -> list[str]:
    """Give the servers that a context has to do with: it reads from them, or pushes to them."""
    read = [use.ref.server for use in platform.cache_uses(context.id) if use.ref.kind == "attic"]
    pushed = [push.ref.server for push in pushes_from(platform, context.runner) if push.ref.kind == "attic"]
    return list(dict.fromkeys([*pushed, *read]))


def token_secret(platform: Platform, context: Context, server: str) -> str | None:
    """Give the secret whose file is a context's token for a server, as a push from there declares it.

    Attic's client reads a bare token from `token-file`, so a secret of format `env` is none.
    """
    secrets = platform.topology.secrets
    for push in pushes_from(platform, context.runner):
        secret = push.push.token.secret
        if push.ref.service == f"attic:{server}" and secret in secrets and secrets[secret].format == "raw":
            return secret
    return None
