"""How well Fargate does each field of a pod, in words that people read in events."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.adapter import YES, Support, approximately, no
from bridge.groups import capabilities

_BARRED = no("Fargate does not allow it")
_NO_POLICY = no("Fargate's own policy applies to every container")
_LABELS = approximately("not set, as on any node without SELinux: Fargate's own policy applies")
_GROUP = no("a task's containers stay as they were launched")
_VPC = no("a task has a network interface of its own, and no host")

_POD: Mapping[str, Support] = {
    "spec.terminationGracePeriodSeconds": approximately(
        "at most 115 seconds where it is Fargate that ends the task"
    ),
    "spec.resources": approximately("the task's size counts, which is rounded up"),
    "spec.ephemeralContainers": _GROUP,
    "spec.ephemeralContainers[].name": _GROUP,
    "spec.ephemeralContainers[].targetContainerName": _GROUP,
    "spec.dnsConfig": no("Fargate takes no name servers of one's own"),
    "spec.dnsPolicy": approximately("names are resolved by the VPC: no cluster DNS"),
    "spec.hostAliases": no("Fargate writes /etc/hosts itself"),
    "spec.hostIPC": _BARRED,
    "spec.hostNetwork": _VPC,
    "spec.hostPID": _BARRED,
    "spec.hostUsers": approximately("each task has a machine of its own"),
    "spec.hostname": approximately("the host's name is the one that AWS gives it"),
    "spec.hostnameOverride": no("the host's name is the one that AWS gives it"),
    "spec.subdomain": no("the host's name is the one that AWS gives it"),
    "spec.setHostnameAsFQDN": no("the host's name is the one that AWS gives it"),
    "spec.shareProcessNamespace": YES,
    "spec.runtimeClassName": no("Fargate has one runtime"),
}

_POD_SECURITY: Mapping[str, Support] = {
    "spec.securityContext.appArmorProfile": _NO_POLICY,
    "spec.securityContext.runAsGroup": YES,
    "spec.securityContext.runAsUser": YES,
    "spec.securityContext.seLinuxChangePolicy": _NO_POLICY,
    "spec.securityContext.seLinuxOptions": _LABELS,
    "spec.securityContext.seccompProfile": YES,
    "spec.securityContext.supplementalGroups": YES,
    "spec.securityContext.sysctls": YES,
}

_CONTAINER: Mapping[str, Support] = {
    "spec.containers[].imagePullPolicy": approximately("every task pulls its images"),
    "spec.containers[].ports[].hostPort": _VPC,
    "spec.containers[].ports[].hostIP": _VPC,
    "spec.containers[].resources.limits": approximately("the task's size is the limit of its CPU"),
}

_SECURITY: Mapping[str, Support] = {
    "spec.containers[].securityContext.allowPrivilegeEscalation": YES,
    "spec.containers[].securityContext.appArmorProfile": _NO_POLICY,
    "spec.containers[].securityContext.capabilities.add": YES,
    "spec.containers[].securityContext.capabilities.drop": YES,
    "spec.containers[].securityContext.privileged": YES,
    "spec.containers[].securityContext.procMount": _BARRED,
    "spec.containers[].securityContext.readOnlyRootFilesystem": YES,
    "spec.containers[].securityContext.runAsGroup": YES,
    "spec.containers[].securityContext.runAsUser": YES,
    "spec.containers[].securityContext.seLinuxOptions": _LABELS,
    "spec.containers[].securityContext.seccompProfile": YES,
}

_VOLUMES: Mapping[str, Support] = {
    "spec.volumes[].emptyDir.medium": approximately("on the task's encrypted disk, not in memory"),
}

TABLE: Mapping[str, Support] = {
    **capabilities.TABLE,
    **_POD,
    **_POD_SECURITY,
    **_CONTAINER,
    **_SECURITY,
    **_VOLUMES,
}
"""Support by field path. What only values can tell is in `check`."""
