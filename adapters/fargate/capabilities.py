"""How well Fargate does each field of a pod, in words that people read in events."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.adapter import YES, Support, approximately, no

_BARRED = no("Fargate does not allow it")
_NO_POLICY = no("Fargate's own policy applies to every container")
_LABELS = approximately("not set, as on any node without SELinux: Fargate's own policy applies")
_NO_DRIVER = no("there is no node here that could attach this volume")
_LINUX = no("containers are Linux containers")
_GROUP = no("a task's containers stay as they were launched")
_VPC = no("a task has a network interface of its own, and no host")

_SOURCES_ELSEWHERE = (
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "ephemeral", "fc",
    "flexVolume", "flocker", "gcePersistentDisk", "glusterfs", "iscsi", "nfs",
    "photonPersistentDisk", "portworxVolume", "quobyte", "rbd", "scaleIO", "storageos",
    "vsphereVolume",
)  # fmt: skip

_POD: Mapping[str, Support] = {
    "spec.activeDeadlineSeconds": YES,
    "spec.restartPolicy": YES,
    "spec.terminationGracePeriodSeconds": approximately(
        "at most 115 seconds where it is Fargate that ends the task"
    ),
    "spec.resources": approximately("the task's size counts, which is rounded up"),
    "spec.initContainers[].name": YES,
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
    "spec.imagePullSecrets": YES,
}

_POD_SECURITY: Mapping[str, Support] = {
    "spec.securityContext.appArmorProfile": _NO_POLICY,
    "spec.securityContext.fsGroup": approximately(
        "for files of ConfigMaps, Secrets and the downward API, and emptyDir volumes"
    ),
    "spec.securityContext.fsGroupChangePolicy": approximately("files are made with their group"),
    "spec.securityContext.runAsGroup": YES,
    "spec.securityContext.runAsNonRoot": approximately("checked against runAsUser, not the image"),
    "spec.securityContext.runAsUser": YES,
    "spec.securityContext.seLinuxChangePolicy": _NO_POLICY,
    "spec.securityContext.seLinuxOptions": _LABELS,
    "spec.securityContext.seccompProfile": YES,
    "spec.securityContext.supplementalGroups": YES,
    "spec.securityContext.supplementalGroupsPolicy": approximately(
        "groups are as the helper merges them with the image's"
    ),
    "spec.securityContext.sysctls": YES,
    "spec.securityContext.windowsOptions": _LINUX,
}

_CONTAINER: Mapping[str, Support] = {
    "spec.containers[].args": YES,
    "spec.containers[].command": YES,
    "spec.containers[].image": YES,
    "spec.containers[].imagePullPolicy": approximately("every task pulls its images"),
    "spec.containers[].lifecycle": YES,
    "spec.containers[].livenessProbe": YES,
    "spec.containers[].readinessProbe": YES,
    "spec.containers[].startupProbe": YES,
    "spec.containers[].ports": YES,
    "spec.containers[].ports[].hostPort": _VPC,
    "spec.containers[].ports[].hostIP": _VPC,
    "spec.containers[].resizePolicy": approximately("nothing is resized while it runs"),
    "spec.containers[].resources.limits": approximately("the task's size is the limit of its CPU"),
    "spec.containers[].resources.limits[memory]": YES,
    "spec.containers[].resources.limits[ephemeral-storage]": approximately("not enforced"),
    "spec.containers[].resources.requests": YES,
    "spec.containers[].restartPolicy": YES,
    "spec.containers[].restartPolicyRules": YES,
    "spec.containers[].stdin": YES,
    "spec.containers[].stdinOnce": YES,
    "spec.containers[].tty": YES,
    "spec.containers[].terminationMessagePath": YES,
    "spec.containers[].terminationMessagePolicy": YES,
    "spec.containers[].volumeDevices": no("there are no block volumes here"),
    "spec.containers[].volumeMounts": YES,
    "spec.containers[].volumeMounts[].mountPropagation": no("nothing is mounted while it runs"),
    "spec.containers[].volumeMounts[].recursiveReadOnly": no("mounts are not recursive here"),
    "spec.containers[].workingDir": YES,
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
    "spec.containers[].securityContext.runAsNonRoot": approximately(
        "checked against runAsUser, not the image"
    ),
    "spec.containers[].securityContext.runAsUser": YES,
    "spec.containers[].securityContext.seLinuxOptions": _LABELS,
    "spec.containers[].securityContext.seccompProfile": YES,
    "spec.containers[].securityContext.windowsOptions": _LINUX,
}

_VOLUMES: Mapping[str, Support] = {
    "spec.volumes[].configMap": YES,
    "spec.volumes[].downwardAPI": YES,
    "spec.volumes[].emptyDir.medium": approximately("on the task's encrypted disk, not in memory"),
    "spec.volumes[].emptyDir.sizeLimit": approximately("counted, but not enforced"),
    "spec.volumes[].projected": YES,
    "spec.volumes[].secret": YES,
    "spec.volumes[].hostPath": no("there is no host to share files with"),
    "spec.volumes[].gitRepo": no("removed from Kubernetes: clone in an init container"),
    "spec.volumes[].image": no("images are not mounted here"),
    "spec.volumes[].persistentVolumeClaim": YES,
    **{f"spec.volumes[].{source}": _NO_DRIVER for source in _SOURCES_ELSEWHERE},
}

TABLE: Mapping[str, Support] = {
    **_POD,
    **_POD_SECURITY,
    **_CONTAINER,
    **_SECURITY,
    **_VOLUMES,
}
"""Support by field path. What only values can tell is in `check`."""
