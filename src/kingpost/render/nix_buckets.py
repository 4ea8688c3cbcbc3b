"""The S3 server of a host's own buckets, where the topology has NixOS run it: Garage or MinIO.

Options: nixpkgs nixos/modules/services/web-servers/garage.nix and minio.nix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kingpost.render import nix_text
from kingpost.render.environment import render
from kingpost.render.nix_services import FILL, secret_file, units_before_bind
from kingpost.topology.paths import ANY

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from kingpost.render.nix_hosts import OnHost
    from kingpost.topology.caches import Bucket

_STATE: Final = {"garage": "/var/lib/garage", "minio": "/var/lib/minio"}
"""The state directory of each service, where its data are unless the topology says otherwise."""
_MINIO_KEYS: Final = {"MINIO_ROOT_USER": "AWS_ACCESS_KEY_ID", "MINIO_ROOT_PASSWORD": "AWS_SECRET_ACCESS_KEY"}


def bucket_server(on: OnHost) -> str | None:
    """Give `bucket.nix`; None where NixOS runs no S3 server. All managed buckets of a host are in one server."""
    for name, bucket in on.buckets.items():
        bind = _bind(on)
        port = bucket.listener.port if bucket.listener else 0
        values: dict[str, Any] = {
            "provider": bucket.provider,
            "buckets": [one.bucket or key for key, one in on.buckets.items()],
            "after": units_before_bind(on, bind),
            "secret": secret_file(on, bucket.credentials) if bucket.credentials in on.secrets else None,
        }
        address = f"{bind}:{port}"
        made = _garage(bucket, address) if bucket.provider == "garage" else _minio(name, bucket, address)
        return render("nix/bucket.nix.j2", **values, **made)
    return None


def _bind(on: OnHost) -> IPv4Address:
    """Give the one address of the server: that of its only bucket, or of several when they agree."""
    binds = {on.platform.listeners[f"bucket:{name}"].bind for name in on.buckets}
    return binds.pop() if len(binds) == 1 else ANY


def _garage(bucket: Bucket, address: str) -> dict[str, Any]:
    data = bucket.data_dir or _STATE["garage"]
    settings = {
        "metadata_dir": f"{data}/meta",
        "data_dir": f"{data}/data",
        "db_engine": "sqlite",
        "replication_factor": 1,
        "rpc_bind_addr": "127.0.0.1:3901",
        "s3_api": {"api_bind_addr": address, "s3_region": bucket.signing_region},
    }
    inside = data == _STATE["garage"] or data.startswith(f"{_STATE['garage']}/")
    return {"settings": settings, "folder": None if inside else data}


def _minio(name: str, bucket: Bucket, address: str) -> dict[str, Any]:
    lines = "".join(f"{variable}=@{name}:{key}@\n" for variable, key in _MINIO_KEYS.items())
    return {
        "options": {
            "listenAddress": address,
            "consoleAddress": "127.0.0.1:9001",
            "browser": False,
            "dataDir": [bucket.data_dir or f"{_STATE['minio']}/data"],
            "region": bucket.signing_region,
            "rootCredentialsFile": "/run/kingpost-minio/keys",
        },
        "lines": lines,
        "keys": [(f"@{name}:{key}@", f"env:{key}") for key in _MINIO_KEYS.values()],
        "fill": nix_text.path(FILL.text),
    }
