from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands_kit import home, invoke

from bridge.cli.assess import assess_objects
from bridge.config import BackendConfig
from bridge.errors import Invalid, Unsupported
from bridge.local.manifests import load

pytestmark = pytest.mark.slow

__all__ = ["home"]

GOOD = """\
apiVersion: v1
kind: Pod
metadata: {name: good}
spec:
  restartPolicy: Never
  containers: [{name: main, image: busybox, command: ["true"]}]
"""
JOB = """\
apiVersion: batch/v1
kind: Job
metadata: {name: words}
spec:
  completions: 3
  completionMode: Indexed
  suspend: true
  template:
    spec:
      restartPolicy: Never
      volumes: [{name: v, nfs: {server: s, path: /x}}, {name: e, emptyDir: {}}]
      containers:
      - name: main
        image: busybox
        volumeMounts:
        - {name: e, mountPath: /e, subPathExpr: $(JOB_COMPLETION_INDEX)}
"""
CRON = """\
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "0 3 * * *"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: main, image: busybox}]
"""
PROCESS = BackendConfig(name="process", type="process")
NULL = BackendConfig(name="null", type="null")


def write(home: Path, name: str, *documents: str) -> str:
    (home / name).write_text("---\n".join(documents))
    return name


def test_every_backend_is_asked_and_one_real_one_is_enough(home: Path) -> None:
    code, out, _ = invoke("check", "-f", write(home, "good.yaml", GOOD))

    assert code == 0
    rows = {tuple(one.split(maxsplit=2)) for one in out.splitlines()[:4]}
    assert ("null", "pod/good", "runs (simulated)") in rows
    assert ("process", "pod/good", "runs, approximated") in rows
    assert "spec.containers[0].image: ignored: the host's own programs run" in out


def test_a_refusal_names_field_words_and_file(home: Path) -> None:
    code, out, _ = invoke("check", "-f", write(home, "job.yaml", GOOD, JOB), "-o", "json")
    found = {(one["backend"], one["object"]): one for one in json.loads(out)["results"]}

    assert code == 2
    refused = found["process", "job/words"]
    assert refused["source"] == "job.yaml, document 2"
    fields = {one["field"] for one in refused["refused"]}
    assert fields == {
        "spec.template.spec.volumes[0].nfs",
        "spec.template.spec.containers[0].command",
    }
    # Indexed pods have a hostname that nobody asked for.
    assert not any("hostname" in one["field"] for one in refused["approximated"])
    assert found["process", "pod/good"]["possible"]


def test_a_backend_on_which_nothing_runs_counts_where_it_is_named(home: Path) -> None:
    file = write(home, "job.yaml", JOB)

    assert invoke("check", "-f", file)[0] == 2
    assert invoke("check", "-f", file, "--on", "null")[0] == 0
    assert invoke("check", "-f", file, "--on", "null,process")[0] == 2


def test_fields_of_a_cron_job_are_its_own(home: Path) -> None:
    _, out, _ = invoke("check", "-f", write(home, "cron.yaml", CRON), "--on", "process")

    assert "refused:      spec.jobTemplate.spec.template.spec.containers[0].command: " in out


def test_the_annotation_says_where_a_pod_may_run(home: Path) -> None:
    named = GOOD.replace(
        "{name: good}", "{name: good, annotations: {podbridge.io/backend: process}}"
    )
    file = write(home, "named.yaml", named)
    assert invoke("check", "-f", file)[0] == 0
    _, out, _ = invoke("check", "-f", file)
    assert "the annotation names process" in out

    file = write(home, "wrong.yaml", named.replace("backend: process", "backend: proces"))
    code, _, error = invoke("check", "-f", file)
    assert code == 2
    assert 'wrong.yaml: metadata.annotations[podbridge.io/backend]: found backend "proces"' in error


def test_more_than_the_backend_has_is_refused(home: Path) -> None:
    (home / "podbridge.yaml").write_text("backends: [{name: small, type: process, cpu: 1}]\n")
    big = GOOD.replace("image: busybox", "image: busybox, resources: {requests: {cpu: 2}}")

    code, out, _ = invoke("check", "-f", write(home, "big.yaml", big), "--on", "small")
    assert code == 2
    assert "the backend has 1" in out


def test_a_token_needs_a_cluster(home: Path) -> None:
    token = GOOD + (
        "  volumes: [{name: t, projected: {sources: [{serviceAccountToken: {path: token}}]}}]\n"
    )
    code, out, _ = invoke("check", "-f", write(home, "token.yaml", token), "--on", "process")

    assert code == 2
    assert "spec.volumes[0].projected.sources[0].serviceAccountToken: service account tokens" in out


def test_manifests_are_read_from_standard_input() -> None:
    assert invoke("check", "-f", "-", "--on", "process", text=GOOD)[0] == 0
    code, _, error = invoke("check", "-f", "-", text="kind: Deployment\napiVersion: apps/v1\n")
    assert code == 2
    assert "standard input: kind: Deployment" in error


@pytest.mark.usefixtures("home")
def test_a_run_is_refused_with_all_violations_at_once(home: Path) -> None:
    both = write(home, "both.yaml", JOB, CRON)
    with pytest.raises(Unsupported) as refused:
        assess_objects(load([both]), [PROCESS])
    assert [(one.source, one.field) for one in refused.value.violations] == [
        ("both.yaml, document 1", "spec.template.spec.volumes[0].nfs"),
        ("both.yaml, document 1", "spec.template.spec.containers[0].command"),
        ("both.yaml, document 2", "spec.jobTemplate.spec.template.spec.containers[0].command"),
    ]
    assert len(assess_objects(load([both]), [NULL])) == 2
    with pytest.raises(Invalid, match="none of these is chosen without its name"):
        assess_objects(load([both]), [PROCESS, NULL])
