"""What a container can see of its helper: nothing that is secret."""

from __future__ import annotations

import os
import subprocess
from base64 import b64encode
from pathlib import Path

import pytest
from helper_kit import KEY, Make, Pod, container
from support.helper_program import go

from bridge.helper.payload import encode
from bridge.workload import EnvVar, Security

pytestmark = pytest.mark.slow
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may run as another user")
NOBODY = 65534
LOOK = """
echo "environment $(env | grep -c PODBRIDGE)"
for file in environ mem maps auxv; do
  if [ -n "$(head -c 1 /proc/$PPID/$file 2>&-)" ]; then echo "reads $file"; fi
done
for link in fd/0 fd/1 exe root cwd; do
  if readlink /proc/$PPID/$link; then echo "reads $link"; fi
done
echo "command $(tr '\\0' ' ' < /proc/$PPID/cmdline)"
ls /proc/self/fd | wc -l
"""
"""What a shell whose parent is the helper tries."""


def lines_of(pod: Pod, name: str) -> list[str]:
    return pod.join(name, 0)[0].decode().splitlines()


def installed(pod: Pod, folder: Path) -> None:
    """Has a program that any user may run."""
    for one in (folder, *list(folder.parents)[:3]):
        one.chmod(0o755)
    pod.install()
    pod.program = pod.bin / "helper"


@as_root
def test_a_container_of_the_helpers_own_user_reads_nothing_of_it(
    make: Make, tmp_path: Path
) -> None:
    pod = make(container("m", LOOK, working_dir="/", env=(EnvVar("S", "hidden", secret=True),)))
    installed(pod, tmp_path)
    pod.run("m", user=NOBODY, group=NOBODY, extra_groups=[])
    said = lines_of(pod, "m")
    assert said[0] == "environment 0"
    assert not [one for one in said if one.startswith("reads")]
    assert said[1].startswith("command ")
    assert "--payload-fd" in said[1]
    # Its three streams, and the folder that ls reads.
    assert int(said[-1]) == 4


@as_root
def test_a_container_of_another_user_reads_nothing_of_a_root_helper(
    make: Make, tmp_path: Path
) -> None:
    pod = make(container("m", LOOK, working_dir="/", security=Security(run_as_user=1234)))
    installed(pod, tmp_path)
    pod.run("m")
    said = lines_of(pod, "m")
    assert said[0] == "environment 0"
    assert not [one for one in said if one.startswith("reads")]


@as_root
def test_root_with_a_containers_usual_rights_reads_nothing(make: Make) -> None:
    # Docker's: CAP_SYS_PTRACE, CAP_PERFMON and CAP_SYS_ADMIN are not among them.
    usual = "chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw"
    usual += " sys_chroot mknod audit_write setfcap"
    kept = ",".join(f"+{one}" for one in usual.split())
    drop = ["setpriv", f"--bounding-set=-all,{kept}", "--inh-caps=-all"]
    if subprocess.run([*drop, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no setpriv that may drop capabilities")
    pod = make(container("m", LOOK))
    plain = pod.program
    process = subprocess.Popen(
        [*drop, plain, "run"],
        env={"PATH": os.environ["PATH"], **encode(pod.payload("run", "m"))},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    pod.running["m"] = process
    said = lines_of(pod, "m")
    assert said[0] == "environment 0"
    assert not [one for one in said if one.startswith("reads")]


def test_nothing_in_the_shared_folder_is_secret(make: Make, tmp_path: Path) -> None:
    pod = make(container("m", "echo fine", env=(EnvVar("S", "hidden-value", secret=True),)))
    pod.install()
    pod.all()
    pod.end()
    found = [path for path in pod.folder.rglob("*") if path.is_file()]
    assert len(found) >= 2
    for path in found:
        content = path.read_bytes()
        for secret in (KEY, b64encode(KEY), b"hidden-value", KEY.hex().encode()):
            assert secret not in content, path


def test_what_the_helper_was_started_with_is_in_no_environment_of_it(make: Make) -> None:
    pod = make(container("m", "echo on; exec sleep 60"))
    process = pod.run("m")
    assert process.stdout is not None
    process.stdout.readline()
    try:
        kept = Path(f"/proc/{process.pid}/environ").read_bytes()
    except PermissionError:
        return
    assert b"PODBRIDGE" not in kept
    assert b"IMAGE=" in kept


def test_its_own_tests_pass() -> None:
    for command in (("gofmt", "-l", "."), ("go", "vet", "."), ("go", "test", ".")):
        go(*command)


@as_root
def test_nobody_puts_something_else_in_the_helpers_place(make: Make, tmp_path: Path) -> None:
    """Also where the folder was open to all, as an empty volume is."""
    script = (
        f"cd {tmp_path}; for one in bin podbridge; do (cd $one; mv * gone; touch new; ls); done"
    )
    pod = make(container("m", script))
    pod.folder.mkdir(exist_ok=True)
    for one in (pod.folder, pod.bin):
        one.chmod(0o777)
    installed(pod, tmp_path)
    for one in (pod.folder, pod.bin):
        assert one.stat().st_mode & 0o7777 == 0o755
    pod.run("m", user=NOBODY, group=NOBODY, extra_groups=[])
    assert lines_of(pod, "m") == ["helper", "state"]
