"""What serves and stores: buckets, Attic servers and their caches, Cachix, other substituters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kingpost.topology.hosts import Placement
from kingpost.topology.types import (
    AbsolutePath,
    BucketName,
    CacheName,
    Calendar,
    Duration,
    Flag,
    Model,
    Name,
    PublicKey,
    Size,
    Url,
    Whole,
)

BucketUse = Literal["cache", "iac-state", "registry", "backup"]


class BucketListener(Placement):
    """Where a self-hosted bucket's S3 server listens."""

    managed: Flag = Field(default=False, description="NixOS runs it: services.garage or services.minio")


class BucketCheck(Model):
    """A comparison of what a bucket's S3 server shows with what is on its disk, by a host's timer."""

    host: Name = Field(description="which looks; of a self-hosted bucket the one that has its disk")
    schedule: Calendar = Field(default="daily", description="as systemd.time(7) writes it")
    scratch_probe: Flag = Field(default=False, description="also make, use and delete a bucket of its own")


class Bucket(Model):
    """An S3 bucket. `endpoint` is for storage that somebody else runs, `listener` for your own."""

    provider: Literal["r2", "rustfs", "minio", "garage", "aws", "other"]
    bucket: BucketName | None = Field(default=None, description="default: this entry's key")
    endpoint: Url | None = None
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] | None = Field(
        default=None, description="signed into every request; R2: auto, Garage: its own"
    )
    addressing: Literal["path", "virtual"] = "path"
    listener: BucketListener | None = None
    credentials: Name | None = Field(default=None, description="secret with AWS_ACCESS_KEY_ID and its twin")
    holds: tuple[BucketUse, ...] = ("cache",)
    data_dir: AbsolutePath | None = Field(default=None, description="where a self-hosted one keeps its disks")
    check: BucketCheck | None = Field(default=None, description="look at it by the clock")

    @property
    def signing_region(self) -> str:
        """Give the region that requests are signed for."""
        return self.region or {"r2": "auto", "garage": "garage"}.get(self.provider, "us-east-1")


class Sqlite(Model):
    """Attic's database in a file on its own host."""

    kind: Literal["sqlite"] = "sqlite"
    path: AbsolutePath = "/var/lib/atticd/server.db"


class Postgres(Model):
    """Attic's database in PostgreSQL: on the same host through its socket (`local`), or elsewhere.

    The password, if one is needed, stays in the secret: the URL with it goes into
    ATTIC_SERVER_DATABASE_URL there.
    """

    kind: Literal["postgres"]
    local: Flag = True
    name: Name = "atticd"
    url_in_secret: Flag = Field(default=False, description="ATTIC_SERVER_DATABASE_URL is in the secret")


class LocalStorage(Model):
    """Chunks in a directory of the server's host."""

    kind: Literal["local"] = "local"
    path: AbsolutePath = "/var/lib/atticd/storage"


class BucketStorage(Model):
    """Chunks in an S3 bucket. Single-chunk NARs are redirected there: every puller must reach it."""

    kind: Literal["bucket"]
    bucket: Name


class Chunking(Model):
    """Attic's content-defined chunking, in bytes. A NAR below the threshold is one chunk."""

    nar_size_threshold: Size = 65536
    min_size: Size = 16384
    avg_size: Size = 65536
    max_size: Size = 262144


class Compression(Model):
    """How Attic compresses chunks."""

    type: Literal["none", "brotli", "zstd", "xz"] = "zstd"
    level: Whole = 8


class AtticCache(Model):
    """A logical cache of an Attic server."""

    public: Flag = False
    priority: Whole = 41
    retention: Duration | None = Field(default=None, description="default: the server's")
    upstream_keys: tuple[str, ...] = Field(
        default=("cache.nixos.org-1",), description="names of keys whose paths are not pushed"
    )
    public_key: PublicKey | None = Field(default=None, description="as `attic cache info` shows it")
    retired_keys: tuple[PublicKey, ...] = Field(default=(), description="must not be trusted any more")


class Token(Model):
    """A token pattern, as `atticadm make-token` takes them; Attic never merges two patterns."""

    pull: tuple[str, ...] = ()
    push: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()
    create_cache: tuple[str, ...] = ()
    configure_cache: tuple[str, ...] = ()
    configure_cache_retention: tuple[str, ...] = ()
    destroy_cache: tuple[str, ...] = ()
    secret: Name | None = Field(default=None, description="the secret that holds it")
    validity: Duration = 3600.0


class Attic(Placement):
    """An Attic server (atticd)."""

    database: Annotated[Sqlite | Postgres, Field(discriminator="kind")] = Sqlite()
    storage: Annotated[LocalStorage | BucketStorage, Field(discriminator="kind")] = LocalStorage()
    secret: Name | None = Field(default=None, description="env file with the JWT secret and S3 credentials")
    algorithm: Literal["hs256", "rs256"] = "hs256"
    caches: dict[CacheName, AtticCache] = {}
    chunking: Chunking = Chunking()
    compression: Compression = Compression()
    gc_interval: Duration = 43200.0
    default_retention: Duration = 0.0
    max_nar_info_size: Size = 1048576
    api_endpoint: Url | None = Field(
        default=None, description="only when one name works for every pusher; must end in /"
    )
    public_url: Url | None = Field(default=None, description="through a reverse proxy, for everyone")
    allowed_hosts: tuple[str, ...] = Field(default=(), description="beyond the computed ones")
    settings: dict[str, str | int | float | bool] = Field(
        default={}, description="more top-level keys of atticd.toml"
    )
    tokens: dict[Name, Token] = {}


class Cachix(Model):
    """A cache at cachix.org, or at its own domain."""

    url: Url | None = Field(default=None, description="default: https://NAME.cachix.org")
    name: Name | None = Field(default=None, description="as cachix knows it; default: this entry's key")
    public_key: PublicKey | None = None
    retired_keys: tuple[PublicKey, ...] = ()
    priority: Whole = 41
    public: Flag = True


class Substituter(Model):
    """Any other binary cache."""

    url: Url
    public_key: PublicKey | None = None
    retired_keys: tuple[PublicKey, ...] = ()
    priority: Whole = 40


class Gitlab(Model):
    """A GitLab instance."""

    url: Url = "https://gitlab.com"
