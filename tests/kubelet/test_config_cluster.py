from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bridge.config.cluster import Cluster, NodeConfig, default_nodes, problems

UID = "0c8b4c3e-2f4d-4a53-9d0c-5f1f3f1d2a4b"


def test_without_a_word_there_is_one_node_over_all_backends() -> None:
    cluster = Cluster()
    [node] = default_nodes(())
    assert (node.name, node.backends, node.port, node.no_taint) == ("podbridge", (), 10250, False)
    assert node.serving.cert is None
    assert problems(cluster, (), ["a"]) == []
    assert problems(cluster, default_nodes(()), ["a"]) == []
    assert default_nodes((NodeConfig(name="x"),)) == (NodeConfig(name="x"),)


def test_everything_that_can_be_said() -> None:
    cluster = Cluster.model_validate(
        {
            "id": UID.upper(),
            "kubeconfig": "~/config",
            "context": "prod",
            "identity": "node",
            "bootstrap_kubeconfig": "/etc/bootstrap",
            "state": "/var/lib/podbridge",
            "api_server_address": "https://api.example.com:6443/",
        }
    )
    assert cluster.id == UID
    assert cluster.api_server_address == "api.example.com:6443"
    assert cluster.kubeconfig == Path.home() / "config"
    node = NodeConfig.model_validate(
        {
            "name": "edge",
            "backends": ["a"],
            "labels": {"team": "blue", "example.com/tier": ""},
            "no_taint": True,
            "region": "eu-west-1",
            "zone": "eu-west-1a",
            "architecture": "arm64",
            "capacity_type": "spot",
            "address": "2001:DB8::1",
            "port": 10251,
            "serving": {"cert": "/c.pem", "key": "file:/k.pem", "self_signed": True},
        }
    )
    assert node.address == "2001:db8::1"
    assert problems(cluster, [node], ["a", "b"]) == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"id": "my-cluster"}, 'found string "my-cluster"; allowed: a UUID'),
        ({"id": 7}, "found integer 7; allowed: a UUID"),
        ({"api_server_address": "http://api"}, "allowed"),
        ({"api_server_address": "api:99999"}, "allowed"),
        ({"api_server_address": "api/path"}, "allowed"),
        ({"identity": "admin"}, "service-account"),
        ({"nonsense": 1}, "Extra inputs"),
    ],
)
def test_what_no_cluster_is(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Cluster.model_validate(values)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "A.b"}, "at most 63 of a-z"),
        ({"port": 0}, "greater than or equal to 1"),
        ({"address": "0.0.0.0"}, "allowed: an IP address"),
        ({"address": "host"}, "allowed: an IP address"),
        ({"labels": ["a"]}, "a mapping of labels"),
        ({"labels": {"a b": "c"}}, "the name string"),
        ({"labels": {"UPPER.com/a": "c"}}, "the name string"),
        ({"labels": {"a": "b c"}}, "for a; allowed"),
        ({"labels": {"a": 1}}, "found integer 1 for a"),
        ({"labels": {"a": "x" * 64}}, "at most 63"),
        ({"serving": {"key": "-----BEGIN PRIVATE KEY----- hush"}}, "not a reference"),
    ],
)
def test_what_no_node_is(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        NodeConfig.model_validate(values)
    [error] = caught.value.errors()
    assert words in str(error.get("ctx", {}).get("error", error["msg"]))
    assert "hush" not in error["msg"]


def node(**values: Any) -> NodeConfig:
    return NodeConfig.model_validate(values)


@pytest.mark.parametrize(
    ("cluster", "nodes", "expected"),
    [
        (
            {"identity": "node"},
            [],
            {
                "cluster.bootstrap_kubeconfig": "required",
                "cluster.id": "kubectl get namespace kube-system",
            },
        ),
        (
            {"identity": "service-account", "kubeconfig": "/k"},
            [],
            {"cluster.kubeconfig": "not together"},
        ),
        (
            {},
            [{"name": "a"}, {"name": "a", "port": 10251}],
            {"nodes[1].name": 'found "a", which is nodes[0].name already'},
        ),
        (
            {},
            [{"name": "a"}, {"name": "b"}],
            {"nodes[1].port": 'found "10250", which is nodes[0].port already'},
        ),
        (
            {},
            [{"backends": ["fargat", "zzz"]}],
            {
                "nodes[0].backends[0]": 'did you mean "fargate"? the backends are: fargate, local',
                "nodes[0].backends[1]": 'found "zzz"; the backends are: fargate, local',
            },
        ),
        ({}, [{"backends": ["local", "local"]}], {"nodes[0].backends[1]": "twice"}),
        ({}, [{"serving": {"cert": "/c"}}], {"nodes[0].serving.key": "required"}),
        ({}, [{"serving": {"key": "env:K"}}], {"nodes[0].serving.cert": "required"}),
        ({}, [{"name": "n" * 53}], {"nodes[0].name": "53 characters"}),
        ({}, [{"region": "not a label"}], {"nodes[0].region": "the value of a label"}),
        ({}, [{"labels": {"x.podbridge.io/a": "b"}}], {"nodes[0].labels": "podbridge's own"}),
        ({}, [{"labels": {"type": "b"}}], {"nodes[0].labels": "has already"}),
    ],
)
def test_what_is_wrong_between_the_parts(
    cluster: dict[str, Any], nodes: list[dict[str, Any]], expected: dict[str, str]
) -> None:
    found = dict(
        problems(
            Cluster.model_validate(cluster), [node(**one) for one in nodes], ["fargate", "local"]
        )
    )
    assert found.keys() == expected.keys()
    for field, words in expected.items():
        assert words in found[field]


@pytest.mark.parametrize(
    ("label", "allowed"),
    [
        ("example.com/a", True),
        ("a", True),
        ("node.kubernetes.io/a", True),
        ("x.kubelet.kubernetes.io/a", True),
        ("topology.kubernetes.io/zone", True),
        ("node-role.kubernetes.io/worker", False),
        ("node-restriction.kubernetes.io/a", False),
        ("kubernetes.io/a", False),
        ("x.k8s.io/a", False),
    ],
)
def test_labels_that_a_node_may_set_on_itself(label: str, allowed: bool) -> None:
    as_node = Cluster(id=UID, identity="node", bootstrap_kubeconfig="/b")  # type: ignore[arg-type]
    assert (problems(as_node, [node(labels={label: "x"})], []) == []) == allowed
    assert problems(Cluster(), [node(labels={label: "x"})], []) == []


def test_where_the_state_is() -> None:
    assert Cluster(state="/s").folder({}) == Path("/s")  # type: ignore[arg-type]
    assert Cluster().folder({"XDG_STATE_HOME": "/x"}) == Path("/x/podbridge/nodes")
    assert Cluster().folder({"XDG_STATE_HOME": "x", "HOME": "/h"}) == Path(
        "/h/.local/state/podbridge/nodes"
    )


def test_every_field_says_what_it_is() -> None:
    from bridge.config.cluster import ServingCertificate
    from bridge.config.models import _describe

    for model in (Cluster, NodeConfig, ServingCertificate):
        schema = model.model_json_schema()
        _describe(schema, model)
        for name, one in schema["properties"].items():
            assert "description" in one, name
