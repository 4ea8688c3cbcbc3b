"""Objects in a cluster against the rendered manifests, and etcd's quota; asked on the cluster's host with kubectl."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from kingpost.base.units import format_size
from kingpost.observe import drift_codes as codes
from kingpost.observe.cluster_facts import MANAGED, Facts, facts, merged, parse, same, secrets_of, template
from kingpost.observe.looking import KUBECONFIG, Question, answer_to, words
from kingpost.render.audits import audit_jobs
from kingpost.render.kubernetes import cluster_sheets
from kingpost.render.layout import cluster_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.base.verdict import Verdict
    from kingpost.observe.drift_items import Visit

Manifest = dict[str, Any]
Key = tuple[str, str]

_KINDS: Final = (
    "Namespace", "Deployment", "Service", "ConfigMap", "ResourceQuota", "LimitRange", "PersistentVolumeClaim",
    "ServiceAccount", "Role", "RoleBinding", "Job",
)  # fmt: skip
_MARK: Final = "# kind "
#: k3s and kubeadm let etcd give its metrics on this port of loopback (k3s pkg/etcd, kubeadm's etcd manifest); else
#: the argument that it was started with.
_ETCD: Final = """
curl -sf -m 5 http://127.0.0.1:2381/metrics |
  grep -E '^etcd_server_quota_backend_bytes |^etcd_mvcc_db_total_size_in_bytes ' && exit 0
for file in /proc/[0-9]*/cmdline; do
  tr '\\0' '\\n' 2>/dev/null <"$file" | sed -n 's/^\\(--etcd-arg=\\)*\\(--\\)*quota-backend-bytes=/argument /p'
done | grep . || { echo 'neither its metrics on port 2381 nor its arguments say it' >&2; exit 1; }
"""


def questions(visit: Visit) -> Iterator[Question]:
    """Ask for what every cluster of the host holds, of each kind that is rendered."""
    for name, cluster in visit.on.clusters.items():
        objects = declared_objects(visit, name)
        client = words((*visit.kubectl, "--request-timeout=10s"))
        lines = [KUBECONFIG]
        for kind in _KINDS:
            lines.append(f"echo '{_MARK}{kind}'")
            lines.append(f"{client} get {kind} -A -o {words((f'go-template={template(kind)}',))} || exit 1")
        yield Question(f"cluster {name}", "\n".join(lines))
        for namespace, secret in _secrets(objects):
            listed = template("Secret").replace("{{range .items}}", "", 1).removesuffix("{{end}}")
            script = (
                f"{client} get secret -n {words((namespace, secret))} -o {words((f'go-template={listed}',))}"
            )
            yield Question(f"cluster {name} secret {namespace}/{secret}", f"{KUBECONFIG}\n{script}")
        for kind, namespace, map_name in objects:
            if kind == "ConfigMap":
                yield Question(
                    f"cluster {name} map {namespace}/{map_name}",
                    _digests(client, namespace, map_name, objects[kind, namespace, map_name]),
                )
        if cluster.etcd is not None:
            yield Question(f"etcd {name}", _ETCD)


def _digests(client: str, namespace: str, name: str, manifest: Manifest) -> str:
    """Give the script that takes the digest of each declared entry there: what somebody wrote in stays there."""
    lines = [KUBECONFIG]
    for key in manifest["data"]:
        one = words(
            (f'go-template={{{{with .data}}}}{{{{with index . "{key}"}}}}{{{{.}}}}{{{{end}}}}{{{{end}}}}',)
        )
        get = f"{client} get configmap -n {words((namespace, name))} -o {one}"
        lines.append(f"{get} | sha256sum | cut -c1-64 || exit 1")
    return "\n".join(lines)


def declared_objects(visit: Visit, cluster: str) -> dict[tuple[str, str, str], Manifest]:
    """Give the rendered manifests of a cluster, by kind, namespace (`-` for none) and name."""
    sheets = cluster_sheets(visit.on.platform) | audit_jobs(visit.on.platform)
    folder = f"{cluster_directory(cluster)}/"
    return {
        (one["kind"], one["metadata"].get("namespace", "-"), one["metadata"]["name"]): one
        for path, sheet in sheets.items()
        if path.startswith(folder)
        for one in sheet.objects
    }


def _secrets(objects: dict[tuple[str, str, str], Manifest]) -> dict[Key, frozenset[str]]:
    """Give the Secrets that declared workloads refer to, with the entries that they take."""
    found: dict[Key, frozenset[str]] = {}
    for (_, namespace, _), manifest in objects.items():
        for name, keys in merged(secrets_of(manifest)).items() if "spec" in manifest else ():
            found[namespace, name] = found.get((namespace, name), frozenset()) | keys
    return found


def judge(visit: Visit) -> Iterator[Verdict]:
    """Compare them."""
    for name, cluster in visit.on.clusters.items():
        objects = declared_objects(visit, name)
        answer = answer_to(visit.answers, f"cluster {name}")
        if answer.code:
            yield visit.not_asked(f"objects in {name}", f"kubectl: {answer.why}")
        else:
            yield from _objects(visit, name, objects, _by_kind(answer.text))
            for place, keys in _secrets(objects).items():
                yield _secret(visit, name, place, keys)
        if cluster.etcd is not None:
            yield _etcd(visit, name, cluster.etcd.quota)


def _by_kind(text: str) -> dict[str, dict[Key, Facts]]:
    parts = (part.partition("\n") for part in text.split(_MARK) if part.strip())
    return {kind.strip(): parse(rest) for kind, _, rest in parts}


def _objects(
    visit: Visit,
    cluster: str,
    declared: dict[tuple[str, str, str], Manifest],
    seen: dict[str, dict[Key, Facts]],
) -> Iterator[Verdict]:
    for (kind, namespace, name), manifest in declared.items():
        item = _item(cluster, kind, namespace, name)
        found = seen.get(kind, {}).get((namespace, name))
        if found is None:
            if kind != "Job":  # one that ran is gone after a while
                yield visit.differs(codes.OBJECT_MISSING, item, "an object", None)
            continue
        wanted = facts(manifest)
        if kind == "ConfigMap":
            yield from _map(visit, cluster, (namespace, name), manifest)
            continue
        yield from _compared(visit, item, wanted, found)
        if kind == "Deployment" and int(found.get("ready") or 0) < manifest["spec"]["replicas"]:
            yield visit.differs(
                codes.OBJECT_NOT_READY, f"{item} ready", wanted["replicas"], found.get("ready") or "0"
            )
    for kind, objects in seen.items():
        for (namespace, name), found in objects.items():
            if found.get("managed by") == "kingpost" and (kind, namespace, name) not in declared:
                item = _item(cluster, kind, namespace, name)
                yield visit.differs(codes.OBJECT_EXTRA, item, None, f"an object labelled {MANAGED}=kingpost")


def _compared(visit: Visit, item: str, wanted: Facts, found: Facts) -> Iterator[Verdict]:
    wrong = [fact for fact, value in wanted.items() if not same(fact, value, found.get(fact, ""))]
    # A limit that was put on by hand bounds the container as well.
    wrong += [fact for fact in found if " limits." in fact and fact not in wanted]
    for fact in wrong:
        yield visit.differs(codes.OBJECT, f"{item} {fact}", wanted.get(fact), found.get(fact))
    if not wrong:
        yield codes.SAME.verdict(visit.subject(item), f"{len(wanted)} values, as declared", {})


def _map(visit: Visit, cluster: str, place: Key, manifest: Manifest) -> Iterator[Verdict]:
    """Compare a ConfigMap's entries by their digests."""
    item = _item(cluster, "ConfigMap", *place)
    answer = answer_to(visit.answers, f"cluster {cluster} map {place[0]}/{place[1]}")
    digests = answer.text.split()
    if answer.code or len(digests) != len(manifest["data"]):
        yield visit.not_asked(item, f"kubectl: {answer.why}")
        return
    for (key, text), digest in zip(manifest["data"].items(), digests, strict=True):
        wanted = sha256(text.encode()).hexdigest()
        yield visit.compared(codes.OBJECT, f"{item} {key}", f"sha256 {wanted[:16]}", f"sha256 {digest[:16]}")


def _secret(visit: Visit, cluster: str, place: Key, keys: frozenset[str]) -> Verdict:
    item = _item(cluster, "Secret", *place)
    answer = answer_to(visit.answers, f"cluster {cluster} secret {place[0]}/{place[1]}")
    if answer.code:
        if "NotFound" in answer.problem or "not found" in answer.problem:
            return visit.differs(codes.OBJECT_MISSING, item, "a Secret", None)
        return visit.not_asked(item, f"kubectl: {answer.why}")
    held = set(parse(answer.text).get(place, {}).get("entries", "").split())
    if missing := keys - held:
        return visit.differs(codes.OBJECT, f"{item} entries", sorted(keys), sorted(held - missing))
    return visit.same(item, sorted(keys) or "there")


def _etcd(visit: Visit, cluster: str, declared: int) -> Verdict:
    """Compare the quota in effect: at it etcd refuses every write, and the cluster stands still."""
    item = f"etcd of {cluster} quota"
    answer = answer_to(visit.answers, f"etcd {cluster}")
    rows = dict(line.split(" ", 1) for line in answer.text.splitlines() if " " in line)
    text = rows.get("etcd_server_quota_backend_bytes") or rows.get("argument")
    if answer.code or text is None:
        return visit.not_asked(item, answer.why)
    seen = int(float(text))
    if seen == declared:
        return visit.same(item, format_size(declared))
    return visit.differs(codes.ETCD_QUOTA, item, format_size(declared), format_size(seen))


def _item(cluster: str, kind: str, namespace: str, name: str) -> str:
    place = name if namespace == "-" else f"{namespace}/{name}"
    return f"{cluster}: {kind} {place}"
