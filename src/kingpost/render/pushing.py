"""Which pipelines run on which runner, what they push from there, and which secrets they read."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from kingpost.topology.platform import Platform, PushRoute

_PIPELINES: WeakKeyDictionary[Platform, dict[str, list[str]]] = WeakKeyDictionary()


def pipelines_on(platform: Platform, runner: str | None) -> list[str]:
    """Give the pipelines that run on a runner, in the topology's order."""
    found = _PIPELINES.get(platform)
    if found is None:
        found = _PIPELINES[platform] = {}
        for name, pipeline in platform.topology.pipelines.items():
            found.setdefault(pipeline.runner, []).append(name)
    return found.get(runner or "", [])


def pushes_from(platform: Platform, runner: str | None) -> list[PushRoute]:
    """Give every push of a runner's pipelines that is not `off`."""
    return [
        push
        for name in pipelines_on(platform, runner)
        for push in platform.pushes(name)
        if push.push.policy != "off"
    ]


def job_secrets(platform: Platform, runner: str) -> list[str]:
    """Give the secrets whose files a runner's jobs read: tokens of its pushes and audits, each once."""
    pushes = (push.push.token.secret for push in pushes_from(platform, runner))
    audits = (audit.token for audit in platform.topology.audits.values() if audit.runner == runner)
    names = dict.fromkeys([*pushes, *audits])
    return [name for name in names if name is not None and name in platform.topology.secrets]
