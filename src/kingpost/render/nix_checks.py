"""What a host looks at by itself, as NixOS modules: its store at boot, caches and buckets by the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kingpost.base.errors import InvalidInputError
from kingpost.render import nix_text
from kingpost.render.environment import render
from kingpost.render.nix_services import secret_file
from kingpost.topology.guards import CHECK_MEMORY
from kingpost.topology.names import resolve_cache
from kingpost.topology.places import Dialer

if TYPE_CHECKING:
    from kingpost.render.nix_hosts import OnHost
    from kingpost.topology.caches import Bucket
    from kingpost.topology.guards import Audit


def store_fix(on: OnHost) -> str | None:
    """Give `store-fix.nix`; None where the store's repair is not asked for."""
    declared = on.host.store_fix
    if declared is None:
        return None
    options: dict[str, Any] = {"enable": True, "repair": declared.repair}
    if on.host.metrics:
        options["textfile"] = f"{on.host.metrics.rstrip('/')}/kingpost-store.prom"
    return render("nix/store-fix.nix.j2", module=nix_text.own_module("store-fix"), options=options)


def cache_audit(on: OnHost) -> str | None:
    """Give `cache-audit.nix`; None where no audit has a timer."""
    audits = {name: _audit(on, name, audit) for name, audit in on.audits.items()}
    return _timed(on, "cache-audit", "cacheAudit", "caches", audits)


def _audit(on: OnHost, name: str, audit: Audit) -> dict[str, Any]:
    platform = on.platform
    ref = resolve_cache(platform.topology, audit.cache)
    use = platform.cache_use(f"host:{on.name}", Dialer.CLIENT, ref)
    if use.url is None:
        raise InvalidInputError(
            f"the audit {name} does not reach {ref}", where=f"audits.{name}", fix="run `kingpost check`"
        )
    upstreams = platform.upstreams(f"host:{on.name}", ref)
    given = {
        "url": use.url,
        "closures": list(audit.closures),
        "keys": [use.public_key] if use.public_key else None,
        "sample": audit.sample,
        "arguments": [word for url in upstreams for word in ("--upstream", url)] or None,
        "tokenFile": secret_file(on, audit.token) if audit.token in on.secrets else None,
        "onCalendar": audit.schedule,
        "memoryMax": CHECK_MEMORY,
    }
    return {key: value for key, value in given.items() if value is not None}


def bucket_check(on: OnHost) -> str | None:
    """Give `bucket-check.nix`; None where no bucket is looked at by a timer."""
    checks = {name: _bucket(on, name, bucket) for name, bucket in on.checked.items()}
    return _timed(on, "bucket-check", "bucketCheck", "buckets", checks)


def _bucket(on: OnHost, name: str, bucket: Bucket) -> dict[str, Any]:
    assert bucket.check is not None  # noqa: S101 - it is one of on.checked
    endpoint = on.platform.route(f"host:{on.name}", Dialer.CLIENT, f"bucket:{name}").url
    if endpoint is None:
        raise InvalidInputError(
            f"the check of the bucket {name} does not reach it",
            where=f"buckets.{name}.check",
            fix="run `kingpost check`",
        )
    given = {
        "bucket": bucket.bucket,
        "endpoint": endpoint,
        "region": bucket.signing_region,
        "disks": _disks(bucket),
        "provider": bucket.provider if bucket.listener else None,
        "scratchProbe": bucket.check.scratch_probe or None,
        "credentialsFile": secret_file(on, bucket.credentials) if bucket.credentials in on.secrets else None,
        "onCalendar": bucket.check.schedule,
        "memoryMax": CHECK_MEMORY,
    }
    return {key: value for key, value in given.items() if value is not None}


def _disks(bucket: Bucket) -> list[str] | None:
    """Give the directories to look into; None where no bucket is to be seen: Garage keeps blocks by their hash."""
    seen = bucket.listener and bucket.data_dir and bucket.provider != "garage"
    return [str(bucket.data_dir)] if seen else None


def _timed(
    on: OnHost, module: str, option: str, members: str, declared: dict[str, dict[str, Any]]
) -> str | None:
    """Give the module of checks that timers run; None without any."""
    if not declared:
        return None
    options: dict[str, Any] = {"metricsDirectory": on.host.metrics} if on.host.metrics else {}
    files = (one.get("tokenFile") or one.get("credentialsFile") for one in declared.values())
    return render(
        "nix/timed-checks.nix.j2",
        module=nix_text.own_module(module),
        option=option,
        options=options | {members: declared},
        uses_config=any(file and file.text.startswith("config.") for file in files),
    )
