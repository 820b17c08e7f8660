"""What `podbridge demo` runs: the word count of `examples/wordcount`, slow enough to watch.

It asks for little, so that it runs wherever the command does: the shards travel in the environment,
and the parts meet in a folder of the host, which plain processes see anyway.
"""

from __future__ import annotations

import secrets
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import bridge
from bridge.pods import Manifest

SHARDS = 16
PARALLELISM = 4
FAILING_SHARD = 5
"""Its container ends with exit code 3 the first time; the kubelet's first restart is immediate."""

_STEPS = 4
"""Pauses in a shard."""
_START = 0.15
"""Seconds that a pod takes beside its pauses; estimated on two cores."""
_ENDS = 1.0
"""Seconds of the whole before the first shard starts and after the last one."""
_PATIENCE = 120
"""Seconds beyond the wanted ones after which the demo gives up."""

_COUNT = r"""
set -eu
mkdir -p "$FOLDER"
part=$FOLDER/part-$JOB_COMPLETION_INDEX
words() {
  printenv "shard_$JOB_COMPLETION_INDEX" | tr 'A-Z' 'a-z' | tr -cs "a-z'" '\n' |
    sed -e "s/^'*//" -e "s/'*\$//" | grep .
}
pace=$(echo "$JOB_COMPLETION_INDEX $PAUSE" | awk '{ printf "%.2f", $2 * (8 + $1 * 7 % 5) / 10 }')
step=0
while [ "$step" -lt "$STEPS" ]; do
  step=$((step + 1))
  sleep "$pace"
  if [ "$JOB_COMPLETION_INDEX $step" = "$FAILING 2" ] && mkdir "$FOLDER/failed" 2>/dev/null; then
    echo "shard $JOB_COMPLETION_INDEX: fails on purpose, with exit code 3" >&2
    exit 3
  fi
done
words | sort | uniq -c | awk '{ print $2, $1 }' >"$FOLDER/.part-$JOB_COMPLETION_INDEX"
mv -f "$FOLDER/.part-$JOB_COMPLETION_INDEX" "$part"
awk -v shard="$JOB_COMPLETION_INDEX" '
  { words += $2 }
  END { printf "shard %2d: %4d words, %3d different\n", shard, words, NR }
' "$part"
"""

_RANK = r"""
set -eu
mkdir -p "$FOLDER"
tries=0
until [ "$(ls "$FOLDER" | grep -c '^part-')" -eq "$SHARDS" ]; do
  tries=$((tries + 1))
  if [ "$tries" -gt "$TRIES" ]; then
    echo "not all of the $SHARDS parts came" >&2
    exit 1
  fi
  sleep 0.1
done
echo "The 10 most frequent words of Alice's Adventures in Wonderland:"
cat "$FOLDER"/part-* |
  awk '{ count[$1] += $2 } END { for (word in count) print count[word], word }' |
  sort -k 1,1nr -k 2,2 |
  awk '
    NR == 1 { most = $1 }
    NR <= 10 {
      bar = ""
      for (i = 0; i < 40 * $1 / most; i++) bar = bar "#"
      printf "%4d. %-8s %5d %s\n", NR, $2, $1, bar
    }
  '
rm -rf "$FOLDER"/part-* "$FOLDER/failed"
rmdir "$FOLDER" 2>/dev/null || true
"""


def examples_dir() -> Path:
    """The folder of the examples: those in the wheel, or those of the clone that this runs from."""
    packaged = Path(str(resources.files("bridge.cli") / "examples"))
    if packaged.is_dir():
        return packaged
    return Path(bridge.__file__).resolve().parents[1] / "examples"


def demo_folder() -> Path:
    """A folder for one demo, which does not exist yet; nobody can know its name before."""
    return Path(tempfile.gettempdir()).resolve() / f"podbridge-demo-{secrets.token_hex(8)}"


def demo_objects(seconds: float = 8.0, folder: Path | None = None) -> list[Manifest]:
    """The demo's ConfigMap and two Jobs, which take about `seconds` on two cores.

    `folder` (default: a fresh `demo_folder()`) holds the parts. The last pod removes it; after a
    failure the caller does.
    """
    place = str(folder or demo_folder())
    text = {f"shard_{index}": shard for index, shard in enumerate(_shards(_text(), SHARDS))}
    waves = -(-SHARDS // PARALLELISM)
    pause = max(0.0, (seconds - _ENDS) / waves - _START) / _STEPS
    patience = _PATIENCE + max(0, round(seconds))
    count = {
        "PAUSE": f"{pause:.3f}",
        "STEPS": str(_STEPS),
        "FAILING": str(FAILING_SHARD),
    }
    rank = {"SHARDS": str(SHARDS), "TRIES": str(patience * 10)}
    source = [{"configMapRef": {"name": "alice"}}]
    indexed = {"completionMode": "Indexed", "completions": SHARDS, "parallelism": PARALLELISM}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "alice"}, "data": text},
        _job("count", indexed, _container("count", _COUNT, place, count, source), patience),
        _job("rank", {}, _container("rank", _RANK, place, rank, []), patience),
    ]


def _text() -> str:
    """The book of examples/wordcount."""
    from bridge.local.documents import read

    content = (examples_dir() / "wordcount" / "text.yaml").read_text("utf-8")
    shards: dict[str, str] = read(content)[0].value["data"]
    return "\n".join(shards[f"shard-{index}"] for index in range(len(shards)))


def _shards(text: str, count: int) -> list[str]:
    """The text in `count` parts of about one length, cut between paragraphs."""
    parts: list[list[str]] = [[] for _ in range(count)]
    done = 0
    for paragraph in text.split("\n\n"):
        parts[min(done * count // len(text), count - 1)].append(paragraph)
        done += len(paragraph) + 2
    return ["\n\n".join(part) + "\n" for part in parts]


def _container(
    name: str, script: str, folder: str, env: dict[str, str], env_from: list[Manifest]
) -> Manifest:
    variables = {"LC_ALL": "C", "FOLDER": folder, **env}
    container: dict[str, Any] = {
        "name": name,
        "image": "busybox:1.37",
        "command": ["/bin/sh", "-c"],
        "args": [script.lstrip("\n")],
        "env": [{"name": key, "value": value} for key, value in variables.items()],
        "resources": {
            "requests": {"cpu": "50m", "memory": "32Mi"},
            "limits": {"memory": "128Mi"},
        },
    }
    return container | ({"envFrom": env_from} if env_from else {})


def _job(name: str, spec: Manifest, container: Manifest, deadline: int) -> Manifest:
    pod = {"restartPolicy": "OnFailure", "containers": [container]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {**spec, "activeDeadlineSeconds": deadline, "template": {"spec": pod}},
    }
