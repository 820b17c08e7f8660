"""How well a group of containers with the helper does each field of a pod, on any cloud. An adapter
adds what its cloud decides, and its words go before these."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.adapter import YES, Support, approximately, no

_NO_DRIVER = no("there is no node here that could attach this volume")
_LINUX = no("containers are Linux containers")

_SOURCES_ELSEWHERE = (
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "ephemeral", "fc",
    "flexVolume", "flocker", "gcePersistentDisk", "glusterfs", "iscsi", "nfs",
    "photonPersistentDisk", "portworxVolume", "quobyte", "rbd", "scaleIO", "storageos",
    "vsphereVolume",
)  # fmt: skip

_POD: Mapping[str, Support] = {
    "spec.activeDeadlineSeconds": YES,
    "spec.restartPolicy": YES,
    "spec.initContainers[].name": YES,
    "spec.imagePullSecrets": YES,
    "spec.securityContext.fsGroup": approximately(
        "for files of ConfigMaps, Secrets and the downward API, and emptyDir volumes"
    ),
    "spec.securityContext.fsGroupChangePolicy": approximately("files are made with their group"),
    "spec.securityContext.runAsNonRoot": approximately("checked against runAsUser, not the image"),
    "spec.securityContext.supplementalGroupsPolicy": approximately(
        "groups are as the helper merges them with the image's"
    ),
    "spec.securityContext.windowsOptions": _LINUX,
}

_CONTAINER: Mapping[str, Support] = {
    "spec.containers[].args": YES,
    "spec.containers[].command": YES,
    "spec.containers[].image": YES,
    "spec.containers[].lifecycle": YES,
    "spec.containers[].livenessProbe": YES,
    "spec.containers[].readinessProbe": YES,
    "spec.containers[].startupProbe": YES,
    "spec.containers[].ports": YES,
    "spec.containers[].resizePolicy": approximately("nothing is resized while it runs"),
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
    "spec.containers[].securityContext.runAsNonRoot": approximately(
        "checked against runAsUser, not the image"
    ),
    "spec.containers[].securityContext.windowsOptions": _LINUX,
}

_VOLUMES: Mapping[str, Support] = {
    "spec.volumes[].configMap": YES,
    "spec.volumes[].downwardAPI": YES,
    "spec.volumes[].emptyDir.sizeLimit": approximately("counted, but not enforced"),
    "spec.volumes[].projected": YES,
    "spec.volumes[].secret": YES,
    "spec.volumes[].hostPath": no("there is no host to share files with"),
    "spec.volumes[].gitRepo": no("removed from Kubernetes: clone in an init container"),
    "spec.volumes[].image": no("images are not mounted here"),
    "spec.volumes[].persistentVolumeClaim": YES,
    **{f"spec.volumes[].{source}": _NO_DRIVER for source in _SOURCES_ELSEWHERE},
}

TABLE: Mapping[str, Support] = {**_POD, **_CONTAINER, **_VOLUMES}
"""Support by field path."""
