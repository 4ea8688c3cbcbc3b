"""What keeps the platform within its bounds: secrets, limits, waivers."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Final, Literal

from pydantic import Field

from kingpost.topology.types import (
    AbsolutePath,
    Calendar,
    Mode,
    Model,
    Name,
    Size,
    Text,
    Unit,
    User,
    Variable,
)

CHECK_MEMORY: Final = 256 * 1024**2
"""Bytes that one run of an audit or of a bucket's check may take."""


class Secret(Model):
    """A file that holds a secret. kingpost knows its place and shape, never its value.

    `format`: `env` holds NAME=value lines, `raw` the bare value without a final newline.
    """

    provider: Literal["agenix", "sops-nix", "path"]
    hosts: tuple[Name, ...] = Field(default=(), description="that hold it; default: all that use it")
    source: Text = Field(default="", description="encrypted file, relative to the host flake")
    path: AbsolutePath | None = Field(default=None, description="default: where the provider puts it")
    owner: User = "root"
    group: User = "root"
    mode: Mode = "0400"
    format: Literal["env", "raw"] = "env"
    variables: tuple[Variable, ...] = Field(default=(), description="that an `env` file holds")


class Limit(Model):
    """Bounds of one systemd unit, container or pod."""

    host: Name | None = None
    cluster: Name | None = None
    unit: Unit | None = None
    container: Name | None = None
    pod: Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[a-z0-9.-]+$")] | None = Field(
        default=None, description="namespace/workload"
    )
    memory_max: Size | None = None
    memory_high: Size | None = None
    swap_max: Size | None = None
    oom_score: Annotated[int, Field(strict=True, ge=-1000, le=1000)] | None = None
    oomd: Literal["auto", "kill"] | None = Field(default=None, description="ManagedOOMMemoryPressure")
    cpu_weight: Annotated[int, Field(strict=True, ge=1, le=10000)] | None = None


class Waiver(Model):
    """Permission for one problem, for a while. It is itself a problem once it expired or is not needed."""

    code: Annotated[str, Field(pattern=r"^KP-[A-Z0-9-]+$")]
    on: str = Field(description="what it is about: a table of the topology, for example buckets.attic")
    reason: Annotated[str, Field(min_length=10)]
    owner: str
    expires: date


class Audit(Model):
    """A scheduled audit of a declared cache: by a host's timer, or spread over `shards` jobs or pods."""

    cache: str
    host: Name | None = Field(default=None, description="renders a timer on it")
    schedule: Calendar = Field(default="daily", description="of the timer, as systemd.time(7) writes it")
    closures: tuple[AbsolutePath, ...] = Field(
        default=("/run/current-system",), description="on a host: what is audited, with all that it needs"
    )
    runner: Name | None = Field(default=None, description="renders a `parallel:` job")
    cluster: Name | None = Field(default=None, description="renders an Indexed Job")
    namespace: Name = "default"
    shards: Annotated[int, Field(strict=True, ge=1, le=200)] = 1
    sample: Annotated[str, Field(pattern=r"^\d+%?$")] | None = None
    image: Annotated[str, Field(pattern=r"^[\w./:@-]+$")] | None = None
    token: Name | None = Field(default=None, description="secret with a token that may pull")
