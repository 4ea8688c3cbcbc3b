"""Manifests: the API takes them, every container is bounded, and no secret is in them."""

import hashlib
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml as pyyaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kingpost.render.kubernetes_objects import name_of
from kingpost.render.runner_config import quantity
from kingpost.render.site import render_site
from kingpost.topology.loader import load
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

EXAMPLES = Path(__file__).parents[2] / "examples"
GIB = 1024**3
JWT = "ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64"


def flywheel() -> Platform:
    return Platform(load(EXAMPLES / "flywheel" / "topology.toml").topology)


def platform(**tables) -> Platform:
    return Platform(
        Topology.model_validate(
            {
                "site": {"name": "s"},
                "hosts": {"box": {"memory": "32GiB"}},
                "clusters": {"k": {"host": "box", "memory_max": "16GiB", **tables.pop("cluster", {})}},
                "secrets": {
                    "s3": {"provider": "path", "path": "/s/it's s3", "variables": ["AWS_ACCESS_KEY_ID"]},
                    "jwt": {
                        "provider": "path",
                        "path": "/s/jwt",
                        "variables": ["ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64"],
                    },
                },
                **tables,
            }
        )
    )


def manifests(made: Platform) -> dict[str, list[dict]]:
    return {
        path: list(pyyaml.safe_load_all(text))
        for path, text in render_site(made).items()
        if path.startswith("clusters/")
    }


def objects(made: Platform, kind: str) -> list[dict]:
    return [one for documents in manifests(made).values() for one in documents if one["kind"] == kind]


def pods(made: Platform) -> list[dict]:
    workloads = [*objects(made, "Deployment"), *objects(made, "Job")]
    return [workload["spec"]["template"]["spec"] for workload in workloads]


def bucket(provider: str) -> Platform:
    return platform(
        buckets={
            "b": {"provider": provider, "credentials": "s3", "listener": {"cluster": "k", "port": 9000}}
        },
        attic={
            "a": {
                "cluster": "k",
                "port": 8080,
                "node_port": 30080,
                "secret": "jwt",
                "storage": {"kind": "bucket", "bucket": "b"},
            }
        },
    )


CASES = {
    "flywheel": flywheel,
    **{
        provider: (lambda provider=provider: bucket(provider))
        for provider in ("rustfs", "minio", "garage", "other")
    },
    "local": lambda: platform(attic={"a": {"cluster": "k", "port": 8080, "secret": "jwt"}}),
    "elsewhere": lambda: platform(
        attic={"a": {"cluster": "k", "port": 8080, "storage": {"kind": "local", "path": "/srv/x y"}}}
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_api_takes_every_manifest(case):
    found = manifests(CASES[case]())
    assert found
    for path, documents in found.items():
        for document in documents:
            if document["kind"] != "ClusterConfiguration":
                kubernetes_validate.validate(document, "1.34", strict=True)
            assert document["metadata"].get("namespace", path.split("/")[2]) == path.split("/")[2]


@pytest.mark.parametrize(
    ("provider", "names"),
    [
        ("minio", {"MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"}),
        ("garage", {"GARAGE_RPC_SECRET"}),
        ("rustfs", {"RUSTFS_ACCESS_KEY", "RUSTFS_SECRET_KEY"}),
    ],
)
def test_a_bucket_server_reads_its_keys_by_its_own_names(provider, names):
    found = {
        variable["name"]
        for pod in pods(bucket(provider))
        for container in pod["containers"]
        for variable in container["env"]
        if "valueFrom" in variable
    }
    assert names <= found


@pytest.mark.parametrize("case", CASES)
def test_every_container_is_bounded_and_unprivileged(case):
    found = pods(CASES[case]())
    assert found
    for pod in found:
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"]["memory"]
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert "latest" not in container["image"]
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in pod["volumes"]}
        assert pod["securityContext"]["runAsNonRoot"] is True


@pytest.mark.parametrize("case", CASES)
def test_no_secret_is_in_them(case):
    made = CASES[case]()
    assert not objects(made, "Secret")
    for one in objects(made, "ConfigMap"):
        for text in one["data"].values():
            config = tomllib.loads(text)
            assert "credentials" not in config.get("storage", {})
            assert "jwt" not in config
            assert "@" not in config.get("database", {}).get("url", "")


@pytest.mark.parametrize("case", CASES)
def test_services_find_their_pods(case):
    made = CASES[case]()
    for service in objects(made, "Service"):
        (workload,) = [
            one
            for one in objects(made, "Deployment")
            if one["metadata"]["name"] == service["metadata"]["name"]
        ]
        assert service["spec"]["selector"] == workload["spec"]["template"]["metadata"]["labels"]
        ports = workload["spec"]["template"]["spec"]["containers"][0]["ports"]
        assert service["spec"]["ports"][0]["targetPort"] in {port["name"] for port in ports}


def test_limits_come_from_the_topology():
    found = {one["metadata"]["name"]: one for one in objects(flywheel(), "Deployment")}
    memory = {
        name: one["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
        for name, one in found.items()
    }
    assert memory == {"attic": "2Gi", "attic-rustfs": "4Gi", "runner-nix": "512Mi"}


def test_a_namespaces_quota_and_default():
    quotas = {
        one["metadata"]["namespace"]: one["spec"]["hard"] for one in objects(flywheel(), "ResourceQuota")
    }
    assert quotas["nix-cache"] == {"limits.memory": "12Gi", "requests.memory": "12Gi", "pods": "20"}
    (limits,) = objects(flywheel(), "LimitRange")
    assert limits["spec"]["limits"][0]["default"] == {"memory": "512Mi"}


def test_a_changed_configuration_starts_the_pod_anew():
    def annotation(**attic):
        made = platform(attic={"a": {"cluster": "k", "port": 8080, **attic}})
        (deployment,) = objects(made, "Deployment")
        return deployment["spec"]["template"]["metadata"]["annotations"]

    assert annotation() == annotation()
    assert annotation() != annotation(default_retention="30d")


def test_attic_keeps_its_state_on_volumes():
    (pod,) = pods(CASES["elsewhere"]())
    mounts = {
        m["mountPath"]: m.get("subPath") for m in pod["containers"][0]["volumeMounts"] if m["name"] == "state"
    }
    assert mounts == {"/srv/x y": "srv-x y", "/var/lib/atticd": "var-lib-atticd"}
    assert not [v for v in pods(flywheel())[0]["volumes"] if v["name"] == "state"]


def test_a_comment_says_how_each_secret_is_made_in_words_a_shell_takes():
    text = render_site(bucket("rustfs"))["clusters/k/default/bucket-b.yaml"]
    assert """kubectl -n default create secret generic s3 '--from-env-file=/s/it'"'"'s s3'""" in text


def test_etcd_has_a_quota():
    files = render_site(flywheel())
    configuration = pyyaml.safe_load(files["hosts/honey/kubeadm-honey/configuration.yaml"])
    assert configuration["etcd"]["local"]["extraArgs"] == [
        {"name": "quota-backend-bytes", "value": str(2 * GIB)}
    ]
    patch = pyyaml.safe_load(files["hosts/honey/kubeadm-honey/patches/etcd+strategic.yaml"])
    assert patch["spec"]["containers"][0]["resources"]["limits"] == {"memory": "4Gi"}
    k3s = render_site(platform(cluster={"etcd": {"quota": "512MiB"}}))["hosts/box/k3s-k.yaml"]
    assert pyyaml.safe_load(k3s) == {"cluster-init": True, "etcd-arg": ["quota-backend-bytes=536870912"]}


def test_a_runner_in_a_cluster_is_told_its_limits():
    (config,) = [
        tomllib.loads(one["data"]["config.toml"])
        for one in objects(flywheel(), "ConfigMap")
        if "config.toml" in one["data"]
    ]
    (runner,) = config["runners"]
    assert config["concurrent"] == 3
    assert runner["executor"] == "kubernetes"
    assert runner["kubernetes"]["memory_limit"] == runner["kubernetes"]["memory_request"] == "8Gi"
    assert runner["kubernetes"]["cpu_limit"] == "4"


def test_a_restarted_runner_is_the_same_machine_to_gitlab():
    def identity():
        (pod,) = [pod for pod in pods(flywheel()) if "initContainers" in pod]
        env = {one["name"]: one.get("value") for one in pod["initContainers"][0]["env"]}
        return env["SYSTEM_ID"]

    assert identity() == identity()
    assert re.fullmatch(r"[rs]_[0-9a-zA-Z]{12}", identity())


AWKS = [awk for awk in (["busybox", "awk"], ["mawk"], ["gawk"], ["original-awk"]) if shutil.which(awk[0])]


@pytest.mark.parametrize("awk", AWKS, ids=lambda awk: awk[0])
@pytest.mark.parametrize("token", ["glrt-abc_DEF-123", "glrt-x\n", "glrt-a&b\\\\1"])
def test_a_pod_fills_its_token_in_as_it_starts(tmp_path, awk, token):
    (pod,) = [pod for pod in pods(flywheel()) if "initContainers" in pod]
    (container,) = pod["initContainers"]
    (tmp_path / "config.toml").write_text('a = "@TOKEN:nix@"\nb = "@TOKEN:nix@ @TOKEN:nix@"\n')
    script = (
        container["command"][-1]
        .replace("/template", str(tmp_path))
        .replace("/etc/gitlab-runner", f"{tmp_path}/out")
    )
    (tmp_path / "out").mkdir()
    environment = {one["name"]: one.get("value", token) for one in container["env"]}
    script = script.replace("awk '", f"{' '.join(awk)} '")
    subprocess.run(["sh", "-euc", script], env={**os.environ, **environment}, check=True)
    clean = token.strip()
    assert (tmp_path / "out" / "config.toml").read_text() == f'a = "{clean}"\nb = "{clean} {clean}"\n'
    assert (tmp_path / "out" / "config.toml").stat().st_mode & 0o077 == 0
    assert (tmp_path / "out" / ".runner_system_id").read_text() == environment["SYSTEM_ID"]


@given(st.text(min_size=1, max_size=70))
@settings(deadline=None)
def test_names_are_what_kubernetes_takes_and_stay_apart(text):
    name = name_of(text)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name)
    if name != text:
        assert name.endswith(hashlib.sha256(text.encode()).hexdigest()[:8])


@given(st.integers(0, 2**60))
@settings(deadline=None)
def test_a_quantity_means_the_same_bytes(size):
    number, unit = re.fullmatch(r"(\d+)([KMGTP]i)?", quantity(size)).groups()
    assert int(number) * 1024 ** ("KMGTP".index(unit[0]) + 1 if unit else 0) == size


def test_a_namespace_is_made_before_what_is_put_in_it():
    """kubectl takes the files of a folder in the order of their names (apply --recursive)."""
    seen = set()
    for path in sorted(manifests(flywheel())):
        _, _, namespace, name = path.split("/")
        seen |= {namespace} if name == "00-namespace.yaml" else set()
        assert namespace in seen or namespace == "default", path
