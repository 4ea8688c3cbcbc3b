"""When a kubelet evicts pods: its own word, else the defaults of the distribution."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kingpost.observe.cluster_facts import amount
from kingpost.observe.looking import KUBECONFIG, Question, answer_to, words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kingpost.observe.looking import Answer
    from kingpost.render.nix_hosts import OnHost

DEFAULTS: Final[dict[str, dict[str, str]]] = {
    "kubernetes": {
        "memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "5%", "imagefs.available": "15%",
    },
    "k3s": {"nodefs.available": "5%", "imagefs.available": "5%"},
}  # fmt: skip
"""kubernetes: pkg/kubelet/eviction/defaults_linux.go. k3s sets two of them itself
(`--eviction-hard=imagefs.available<5%,nodefs.available<5%`, later the same as `evictionHard`: pkg/daemons/agent, its
log in k3s issue 10399), and that takes the others away (`mergeDefaultEvictionSettings` is false by default,
pkg/kubelet/apis/config/v1beta1/defaults.go; kubernetes issue 112057): k3s evicts nothing for memory or inodes."""

#: Where containerd keeps images, by distribution.
_IMAGES: Final = {"k3s": "/var/lib/rancher/k3s/agent/containerd", "kubernetes": "/var/lib/containerd"}
_KUBELET: Final = "/var/lib/kubelet"


@dataclass(frozen=True, slots=True)
class Eviction:
    """One threshold of a kubelet.

    Attributes:
        signal: `nodefs.available`, `memory.available`, …
        text: As it is written: `10%`, `100Mi`.
        default: Whether it is only the distribution's default, and not the kubelet's own word.
        path: What it watches; empty for memory.

    """

    signal: str
    text: str
    default: bool
    path: str = ""

    def least(self, whole: int) -> int:
        """Give the amount at which pods are evicted, out of the whole."""
        if match := re.fullmatch(r"(\d+(?:\.\d+)?)%", self.text):
            return int(whole * float(match[1]) / 100)
        return int(amount(self.text) or 0)

    @property
    def who(self) -> str:
        """Name it for a person."""
        told = ", by default" if self.default else ""
        return f"the kubelet's {self.signal}<{self.text}{told}, where it evicts pods"


def questions(on: OnHost, kubectl: tuple[str, ...]) -> Iterator[Question]:
    """Ask the host's own kubelet for its configuration, through the API."""
    if on.clusters:
        client = words((*kubectl, "--request-timeout=10s"))
        script = f'{client} get --raw "/api/v1/nodes/$(hostname | tr A-Z a-z)/proxy/configz"'
        yield Question("kubelet", f"{KUBECONFIG}\n{script}")


def evictions(on: OnHost, answers: Mapping[str, Answer]) -> list[Eviction]:
    """Give the thresholds of a host's kubelet; none without a cluster."""
    found = []
    for cluster in list(on.clusters.values())[:1]:  # a host has one kubelet
        own = _own(answer_to(answers, "kubelet"))
        table = DEFAULTS[cluster.distribution] if own is None else own
        for signal, text in table.items():
            path = {"nodefs": _KUBELET, "imagefs": _IMAGES[cluster.distribution]}.get(
                signal.partition(".")[0], ""
            )
            found.append(Eviction(signal, text, own is None, path))
    return found


def _own(answer: Answer) -> dict[str, str] | None:
    """Read `configz`; None when the kubelet did not say."""
    if answer.code:
        return None
    try:
        table = json.loads(answer.text)["kubeletconfig"].get("evictionHard", {})
        return {str(signal): str(text) for signal, text in table.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
