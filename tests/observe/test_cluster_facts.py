from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.observe.cluster_facts import TEMPLATES, facts, parse, same, secrets_of, template

SAME = [
    ("limits.memory", "1024Mi", "1Gi"), ("limits.memory", "1Gi", "1073741824"), ("limits.cpu", "1000m", "1"),
    ("limits.cpu", "0.5", "500m"), ("limits.memory", "1M", "1000k"), ("image", "a:1", "a:1"),
    ("container x variables", "B A", "A B"), ("may on pods", "get list", "list get"),
]  # fmt: skip
OTHER = [
    ("limits.memory", "1Gi", "1G"), ("limits.memory", "1Gi", ""), ("limits.cpu", "1", "1m"), ("image", "a:1", "a:2"),
    ("container x variables", "A", "A B"), ("hard pods", "20", "<no value>"), ("port 80", "http", "8080"),
]  # fmt: skip


@pytest.mark.parametrize(("fact", "declared", "seen"), SAME)
def test_amounts_and_lists_are_compared_as_what_they_are(fact, declared, seen):
    assert same(fact, declared, seen)


@pytest.mark.parametrize(("fact", "declared", "seen"), OTHER)
def test_what_differs(fact, declared, seen):
    assert not same(fact, declared, seen)


@given(st.text(), st.text(), st.text())
def test_no_text_whatever_raises(fact, declared, seen):
    same(fact, declared, seen)
    parse("\n".join([fact, f"{fact}\t{declared}\t{seen}\t{fact}"]))


def test_a_workload_and_the_secrets_that_it_refers_to():
    container = {"name": "a", "image": "i", "resources": {"limits": {"memory": "1Gi"}},
                 "env": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}},
                         {"name": "V", "value": "x"}],
                 "envFrom": [{"secretRef": {"name": "all"}}, {"configMapRef": {"name": "m"}}]}  # fmt: skip
    volumes = [{"name": "v", "secret": {"secretName": "w", "items": [{"key": "k", "path": "p"}]}}]
    manifest = {"kind": "Deployment", "spec": {"replicas": 1, "template": {
        "metadata": {}, "spec": {"containers": [container], "volumes": volumes}}}}  # fmt: skip
    assert facts(manifest) == {
        "container a image": "i", "container a limits.memory": "1Gi", "container a variables": "T V",
        "container a variables of secrets": "all", "replicas": "1",
    }  # fmt: skip
    assert dict(secrets_of(manifest)) == {"s": {"token"}, "all": frozenset(), "w": {"k"}}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_template_asks_for_no_value_of_a_variable_or_secret(kind):
    assert ".value" not in template(kind)
    assert "data}}{{$v}}" not in template(kind)
    assert template(kind).count("{{end}}") == sum(
        template(kind).count(word) for word in ("{{range", "{{with", "{{if")
    )
