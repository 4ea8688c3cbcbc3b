"""The servers of a cluster: Attic, and the S3 servers of its buckets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kingpost.render.attic_config import atticd_toml
from kingpost.render.attic_settings import attic_environment, database_in_secret
from kingpost.render.kubernetes_objects import (
    IMAGES,
    OTHER_IMAGE,
    TMP,
    USER,
    Sheet,
    claim,
    config_map,
    config_map_volume,
    container_security,
    deployment,
    from_secret,
    literal,
    manifest_file,
    name_of,
    resources,
    secret_comments,
    service,
)
from kingpost.render.toml_text import toml
from kingpost.topology.caches import BucketStorage, LocalStorage, Sqlite

if TYPE_CHECKING:
    from kingpost.render.kubernetes_objects import Manifest
    from kingpost.topology.caches import Attic, Bucket, BucketListener
    from kingpost.topology.platform import Platform


def render_servers(platform: Platform) -> dict[str, Sheet]:
    """Give the manifests of every server in a cluster."""
    topology = platform.topology
    files = {}
    for name, attic in topology.attic.items():
        if attic.cluster in topology.clusters:
            path = manifest_file(str(attic.cluster), attic.namespace, f"attic-{name}")
            files[path] = _attic(platform, name, attic, str(attic.cluster))
    for name, bucket in topology.buckets.items():
        listener = bucket.listener
        if listener and listener.cluster in topology.clusters:
            path = manifest_file(str(listener.cluster), listener.namespace, f"bucket-{name}")
            files[path] = _bucket(platform, name, bucket, listener)
    return files


def _attic(platform: Platform, key: str, attic: Attic, cluster: str) -> Sheet:
    name, namespace = name_of(attic.service or key), attic.namespace
    config = atticd_toml(platform, key)
    secrets = [attic.secret]
    if isinstance(attic.storage, BucketStorage):
        secrets.append(platform.topology.buckets[attic.storage.bucket].credentials)
    container: Manifest = {
        "name": "atticd",
        "image": IMAGES["attic"],
        "args": ["--config", "/etc/atticd/server.toml", "--mode", "monolithic"],
        "ports": [{"name": "http", "containerPort": attic.port, "protocol": "TCP"}],
        "env": [
            {"name": n, "value": v} for n, v in {"HOME": TMP, **attic_environment(platform, key)}.items()
        ],
        "envFrom": [{"secretRef": {"name": name_of(one)}} for one in dict.fromkeys(filter(None, secrets))],
        "resources": resources(platform, cluster, namespace, attic.service or key),
        # Not HTTP: Attic answers 400 to a Host that is not allowed, and `/` proves nothing about its database.
        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 10},
        "livenessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 30, "failureThreshold": 5},
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/atticd", "readOnly": True},
            {"name": "tmp", "mountPath": TMP},
        ],
    }
    volumes: list[Manifest] = [
        config_map_volume("config", name),
        {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
    ]
    documents = [config_map(name, namespace, "attic", {"server.toml": config})]
    if folders := _state_folders(attic):
        container["volumeMounts"] += [
            {"name": "state", "mountPath": folder, "subPath": folder.strip("/").replace("/", "-")}
            for folder in folders
        ]
        volumes.append({"name": "state", "persistentVolumeClaim": {"claimName": name}})
        documents.append(claim(name, namespace, "attic", "20Gi"))
    documents += [
        deployment(name, namespace, "attic", container, volumes, user=USER, config=config),
        service(name, namespace, "attic", attic.port, attic.node_port),
    ]
    comments = [
        f"Attic server {key}, rendered by kingpost: change the topology instead.",
        *secret_comments(platform, namespace, *secrets),
        *(
            ["Its database's URL is ATTIC_SERVER_DATABASE_URL in that secret."]
            if database_in_secret(attic)
            else []
        ),
        OTHER_IMAGE,
    ]
    return Sheet(tuple(comments), tuple(documents))


def _state_folders(attic: Attic) -> list[str]:
    """Give the folders that an Attic server keeps state in: none with a bucket and PostgreSQL."""
    folders = [attic.storage.path] if isinstance(attic.storage, LocalStorage) else []
    if isinstance(attic.database, Sqlite):
        folders.append(attic.database.path.rpartition("/")[0] or "/data")
    return [
        one
        for one in dict.fromkeys(folders)
        if not any(f"{one}/".startswith(f"{other}/") and other != one for other in folders)
    ]


def _bucket(platform: Platform, key: str, bucket: Bucket, listener: BucketListener) -> Sheet:
    name, namespace = name_of(listener.service or key), listener.namespace
    data = bucket.data_dir or "/data"
    settings, arguments, config = _server(bucket, listener.port, data)
    container: Manifest = {
        "name": bucket.provider,
        "image": IMAGES.get(bucket.provider, IMAGES["rustfs"]),
        **({"args": [literal(one) for one in arguments]} if arguments else {}),
        "ports": [{"name": "http", "containerPort": listener.port, "protocol": "TCP"}],
        "env": [*({"name": n, "value": literal(v)} for n, v in settings.items()), *_keys(bucket)],
        "resources": resources(platform, str(listener.cluster), namespace, listener.service or key),
        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 10},
        "livenessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 30, "failureThreshold": 5},
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "data", "mountPath": data},
            {"name": "tmp", "mountPath": TMP},
        ],
    }
    volumes: list[Manifest] = [
        {"name": "data", "persistentVolumeClaim": {"claimName": name}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
    ]
    documents = [claim(name, namespace, bucket.provider, "50Gi")]
    if config:
        container["volumeMounts"].append({"name": "config", "mountPath": "/etc/bucket", "readOnly": True})
        volumes.append(config_map_volume("config", name))
        documents.append(config_map(name, namespace, bucket.provider, {"config.toml": config}))
    documents += [
        deployment(name, namespace, bucket.provider, container, volumes, user=USER, config=config),
        service(name, namespace, bucket.provider, listener.port, listener.node_port),
    ]
    comments = [
        f"S3 server {key} ({bucket.provider}), rendered by kingpost: change the topology instead.",
        *secret_comments(platform, namespace, bucket.credentials),
        OTHER_IMAGE,
    ]
    return Sheet(tuple(comments), tuple(documents))


def _server(bucket: Bucket, port: int, data: str) -> tuple[dict[str, str], list[str], str]:
    """Give a provider's environment, arguments and configuration file."""
    if bucket.provider == "minio":
        return {"HOME": TMP}, ["server", "--address", f":{port}", data], ""
    if bucket.provider == "garage":
        config = {
            "metadata_dir": f"{data}/meta",
            "data_dir": f"{data}/data",
            "db_engine": "sqlite",
            "replication_factor": 1,
            "rpc_bind_addr": "127.0.0.1:3901",
            "s3_api": {"api_bind_addr": f"0.0.0.0:{port}", "s3_region": bucket.signing_region},
        }
        return {"GARAGE_CONFIG_FILE": "/etc/bucket/config.toml"}, [], toml(["Garage"], config)
    rustfs = {
        "RUSTFS_VOLUMES": data,
        "RUSTFS_ADDRESS": f":{port}",
        "RUSTFS_CONSOLE_ENABLE": "false",
        "RUSTFS_OBS_LOG_DIRECTORY": "",  # to stdout; the image's default is a folder
    }
    return rustfs, [], ""


def _keys(bucket: Bucket) -> list[Manifest]:
    """Give the root credentials by the names that each server reads them under."""
    names = {
        "minio": {"MINIO_ROOT_USER": "AWS_ACCESS_KEY_ID", "MINIO_ROOT_PASSWORD": "AWS_SECRET_ACCESS_KEY"},
        "garage": {"GARAGE_RPC_SECRET": "GARAGE_RPC_SECRET"},
    }.get(
        bucket.provider,
        {"RUSTFS_ACCESS_KEY": "AWS_ACCESS_KEY_ID", "RUSTFS_SECRET_KEY": "AWS_SECRET_ACCESS_KEY"},
    )
    if not bucket.credentials:
        return []
    return [from_secret(variable, bucket.credentials, key) for variable, key in names.items()]
