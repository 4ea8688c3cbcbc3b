"""Objects in clusters as facts: what kubectl prints of one, and the same of a rendered one.

Facts are named alike on both sides, `container atticd limits.memory` for example. No value of a variable is among
them, nor anything of a Secret but the names of its entries: a cluster's own objects hold what others put there.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

Facts = dict[str, str]

MANAGED: Final = "app.kubernetes.io/managed-by"
_HEAD: Final = (
    '{{range .items}}{{$o := printf "%s\t%s" (or .metadata.namespace "-") .metadata.name}}'
    '{{$o}}\tmanaged by\t{{with .metadata.labels}}{{with index . "' + MANAGED + '"}}{{.}}{{end}}{{end}}\n'
)
_CONTAINER: Final = (
    '{{$c := printf "%s\tcontainer %s" $o .name}}'
    "{{$c}} image\t{{.image}}\n"
    "{{range $k, $v := .resources.limits}}{{$c}} limits.{{$k}}\t{{$v}}\n{{end}}"
    "{{range $k, $v := .resources.requests}}{{$c}} requests.{{$k}}\t{{$v}}\n{{end}}"
    "{{$c}} variables\t{{range .env}}{{.name}} {{end}}\n"
    "{{$c}} variables of secrets\t{{range .envFrom}}{{with .secretRef}}{{.name}} {{end}}{{end}}\n"
)
_POD: Final = (
    "{{range .spec.template.spec.initContainers}}" + _CONTAINER + "{{end}}"
    "{{range .spec.template.spec.containers}}" + _CONTAINER + "{{end}}"
    '{{with .spec.template.metadata}}{{with .annotations}}{{with index . "kingpost/config"}}'
    "{{$o}}\tconfiguration\t{{.}}\n{{end}}{{end}}{{end}}"
)
TEMPLATES: Final[dict[str, str]] = {
    "Deployment": _POD + "{{$o}}\treplicas\t{{.spec.replicas}}\n"
    "{{$o}}\tready\t{{with .status}}{{or .readyReplicas 0}}{{end}}\n",
    "Job": _POD + "{{$o}}\tparallelism\t{{.spec.parallelism}}\n",
    "Service": "{{$o}}\ttype\t{{.spec.type}}\n"
    "{{$o}}\tselector\t{{range $k, $v := .spec.selector}}{{$k}}={{$v}} {{end}}\n"
    "{{range .spec.ports}}{{$o}}\tport {{.port}}\t{{.targetPort}}\n"
    "{{with .nodePort}}{{$o}}\tnode port\t{{.}}\n{{end}}{{end}}",
    "ResourceQuota": "{{range $k, $v := .spec.hard}}{{$o}}\thard {{$k}}\t{{$v}}\n{{end}}",
    "LimitRange": "{{range .spec.limits}}{{range $k, $v := .default}}{{$o}}\tdefault {{$k}}\t{{$v}}\n{{end}}{{end}}",
    "PersistentVolumeClaim": "{{$o}}\tstorage\t{{.spec.resources.requests.storage}}\n",
    "Role": "{{range .rules}}{{$r := .}}{{range .resources}}"
    "{{$o}}\tmay on {{.}}\t{{range $r.verbs}}{{.}} {{end}}\n{{end}}{{end}}",
    "ServiceAccount": "",
    "RoleBinding": "{{$o}}\trole\t{{.roleRef.name}}\n",
    "ConfigMap": "",
    "Namespace": "",
    "Secret": "{{$o}}\tentries\t{{range $k, $v := .data}}{{$k}} {{end}}\n",
}
"""By kind, what follows the head within `range .items`; each fact is a line `NAMESPACE NAME FACT VALUE`."""


def template(kind: str) -> str:
    """Give the go-template of a kind."""
    return f"{_HEAD}{TEMPLATES[kind]}{{{{end}}}}"


def parse(text: str) -> dict[tuple[str, str], Facts]:
    """Read what kubectl printed of one kind: facts by namespace (`-` for none) and name."""
    found: dict[tuple[str, str], Facts] = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) == 4:
            namespace, name, fact, value = fields
            found.setdefault((namespace, name), {})[fact] = value.strip()
    return found


def facts(manifest: Mapping[str, Any]) -> Facts:
    """Give the facts of a rendered manifest."""
    of_kind = _FACTS.get(manifest["kind"])
    return {name: str(value) for name, value in of_kind(manifest)} if of_kind else {}


def _workload(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    inside = manifest["spec"]["template"]
    for container in (*inside["spec"].get("initContainers", ()), *inside["spec"]["containers"]):
        head = f"container {container['name']}"
        yield f"{head} image", container["image"]
        for kind, amounts in container.get("resources", {}).items():
            for name, amount in amounts.items():
                yield f"{head} {kind}.{name}", amount
        yield f"{head} variables", " ".join(one["name"] for one in container.get("env", ()))
        yield (
            f"{head} variables of secrets",
            " ".join(one["secretRef"]["name"] for one in container.get("envFrom", ()) if "secretRef" in one),
        )
    if config := inside["metadata"].get("annotations", {}).get("kingpost/config"):
        yield "configuration", config
    for name in ("replicas", "parallelism"):
        if name in manifest["spec"]:
            yield name, manifest["spec"][name]


def _service(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    spec = manifest["spec"]
    yield "type", spec["type"]
    yield "selector", " ".join(f"{key}={value}" for key, value in sorted(spec["selector"].items()))
    for port in spec["ports"]:
        yield f"port {port['port']}", port["targetPort"]
        if "nodePort" in port:
            yield "node port", port["nodePort"]


def _role(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for rule in manifest["rules"]:
        for resource in rule["resources"]:
            yield f"may on {resource}", " ".join(rule["verbs"])


def _amounts(of: str, *path: str) -> Callable[[Mapping[str, Any]], Iterator[tuple[str, Any]]]:
    """Give the facts of a table of amounts somewhere below `spec`."""

    def give(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        table = manifest["spec"]
        for key in path:
            table = table[0][key] if isinstance(table, (list, tuple)) else table[key]
        yield from ((f"{of} {name}", amount) for name, amount in table.items())

    return give


def _claim(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "storage", manifest["spec"]["resources"]["requests"]["storage"]


def _binding(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "role", manifest["roleRef"]["name"]


_FACTS: Final[dict[str, Callable[[Mapping[str, Any]], Iterator[tuple[str, Any]]]]] = {
    "Deployment": _workload,
    "Job": _workload,
    "Service": _service,
    "ResourceQuota": _amounts("hard", "hard"),
    "LimitRange": _amounts("default", "limits", "default"),
    "PersistentVolumeClaim": _claim,
    "Role": _role,
    "RoleBinding": _binding,
}

_AMOUNT: Final = re.compile(r"(\d+(?:\.\d+)?)(m|[kKMGTPE]i?)?")
_SCALE: Final[dict[str, int | Decimal]] = {
    "": 1, "m": Decimal("0.001"), "k": 1000, "Ki": 1024,
    **{letter: 1000**power for power, letter in enumerate("MGTPE", 2)},
    **{f"{letter}i": 1024**power for power, letter in enumerate("MGTPE", 2)},
}  # fmt: skip


def same(fact: str, declared: str, seen: str) -> bool:
    """Compare two values of a fact: amounts by what they are (`1024Mi` is `1Gi`), lists of names as sets."""
    if " variables" in fact or fact.startswith("may on "):
        return set(declared.split()) == set(seen.split())
    if declared == seen:
        return True
    first, second = amount(declared), amount(seen)
    return first is not None and first == second


def amount(text: str) -> Decimal | None:
    """Give what a quantity of Kubernetes means (`1Gi`, `100m`); None for what is none."""
    match = _AMOUNT.fullmatch(text)
    return Decimal(match[1]) * _SCALE[match[2] or ""] if match else None


def secrets_of(manifest: Mapping[str, Any]) -> Iterator[tuple[str, frozenset[str]]]:
    """Give the Secrets that a workload refers to, each with the entries that it takes; none are named for all."""
    inside = manifest["spec"].get("template", {}).get("spec", {})
    for container in (*inside.get("initContainers", ()), *inside.get("containers", ())):
        for one in container.get("envFrom", ()):
            if "secretRef" in one:
                yield one["secretRef"]["name"], frozenset()
        for one in container.get("env", ()):
            if reference := one.get("valueFrom", {}).get("secretKeyRef"):
                yield reference["name"], frozenset({reference["key"]})
    for volume in inside.get("volumes", ()):
        if held := volume.get("secret"):
            yield held["secretName"], frozenset(item["key"] for item in held.get("items", ()))


def merged(references: Iterable[tuple[str, frozenset[str]]]) -> dict[str, frozenset[str]]:
    """Give each Secret once, with every entry that is taken from it."""
    found: dict[str, frozenset[str]] = {}
    for name, keys in references:
        found[name] = found.get(name, frozenset()) | keys
    return found
