"""A group as a workload that an adapter can run. Pure but for the folder of Azure Files."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

from adapters.simulators.azure.groups.records import Group, Record
from adapters.simulators.common.web import Json
from bridge.workload import (
    Container,
    EmptyDir,
    EnvVar,
    File,
    Files,
    HelperUse,
    HostPath,
    Identity,
    Mount,
    Port,
    PullCredential,
    Resources,
    RestartPolicy,
    Role,
    Security,
    Volume,
    Workload,
)

_GB = 1024**3
_SHARE = re.compile(r"[a-z0-9][a-z0-9-]*")
LONGEST = 24 * 3600.0
"""Real seconds after which a process ends even where the simulator was killed and nobody asks."""


class NoShare(Exception):
    """A share of Azure Files is not there."""


def workload_of(
    group: Group, identity: Identity, shares: Path | None, *, has_images: bool
) -> Workload:
    """The whole group; its containers are started one by one. NoShare."""
    properties = group.properties
    records = (*group.inits, *group.containers)
    return Workload(
        identity=identity,
        containers=tuple(
            _container(one, _resources(one, group) if has_images else Resources())
            for one in records
        ),
        volumes=tuple(_volumes(properties, shares)),
        restart_policy=RestartPolicy.NEVER,
        hard_stop=LONGEST,
        pull_credentials=tuple(
            PullCredential(one["server"], one.get("username", ""), one.get("password", ""))
            for one in properties.get("imageRegistryCredentials", ())
        ),
        helper=HelperUse.NEVER,
    )


def _volumes(properties: Json, shares: Path | None) -> Iterator[Volume]:
    for one in properties.get("volumes", ()):
        if "secret" in one:
            content = one["secret"].items()
            files = (File(key, base64.b64decode(text), secret=True) for key, text in content)
            yield Files(one["name"], tuple(files), revision="1")
        elif "azureFile" in one:
            yield HostPath(one["name"], str(_share(one["azureFile"], shares)), "Directory")
        else:
            yield EmptyDir(one["name"])


def _share(given: Json, shares: Path | None) -> Path:
    account, share = str(given["storageAccountName"]), str(given["shareName"])
    place = (shares or Path()) / account / share
    if shares is None or not account.isalnum() or not _SHARE.fullmatch(share) or not place.is_dir():
        raise NoShare(f"mount error(2): No such file or directory: {account}/{share}")
    return place.absolute()


def _container(record: Record, resources: Resources) -> Container:
    given = record.definition["properties"]
    command = tuple(given.get("command", ()))
    return Container(
        name=record.name,
        role=Role.INIT if record.init else Role.MAIN,
        image=given["image"],
        command=command,
        env=tuple(
            EnvVar(one["name"], one["secureValue"], secret=True)
            if "secureValue" in one
            else EnvVar(one["name"], one.get("value", ""))
            for one in given.get("environmentVariables", ())
        ),
        mounts=tuple(
            Mount(one["name"], one["mountPath"], read_only=one.get("readOnly", False))
            for one in given.get("volumeMounts", ())
        ),
        resources=resources,
        restart_policy=RestartPolicy.NEVER,
        termination_message_path="",
        security=_security(given.get("securityContext", {})),
        ports=tuple(
            Port(one["port"], one.get("protocol", "TCP")) for one in given.get("ports", ())
        ),
    )


def _resources(record: Record, group: Group) -> Resources:
    """Without a limit of its own a container can use what all of its group request."""
    given = record.definition["properties"].get("resources", {})
    whole = {"cpu": group.cpu, "memoryInGB": group.memory}
    return Resources(_amounts(given.get("requests", {})), _amounts(whole | given.get("limits", {})))


def _amounts(given: Json) -> dict[str, int]:
    found = {}
    if "cpu" in given:
        found["cpu"] = round(given["cpu"] * 1000)
    if "memoryInGB" in given:
        found["memory"] = round(given["memoryInGB"] * _GB)
    return found


def _security(given: Json) -> Security:
    capabilities = given.get("capabilities", {})
    return Security(
        run_as_user=given.get("runAsUser"),
        run_as_group=given.get("runAsGroup"),
        no_new_privileges=given.get("allowPrivilegeEscalation", True) is False,
        add_capabilities=tuple(capabilities.get("add", ())),
        drop_capabilities=tuple(capabilities.get("drop", ())),
        privileged=given.get("privileged", False),
    )
