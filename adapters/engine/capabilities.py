"""How well the `engine` backend does each field of a pod, in words that people read in events."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.adapter import YES, Support, approximately, no

_NO_POLICY = no("the engine's own policy applies to every container")
# A kubelet, too, leaves them aside where its host has no SELinux; where there is one, the engine's
# own labels keep containers apart.
_LABELS = approximately("the engine labels containers itself, where its host has SELinux")
_NO_DRIVER = no("there is no node here that could attach this volume")
_LINUX = no("containers are Linux containers")

_SOURCES_ELSEWHERE = (
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "ephemeral",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "iscsi",
    "nfs",
    "persistentVolumeClaim",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
)

_POD: Mapping[str, Support] = {
    "spec.activeDeadlineSeconds": YES,
    "spec.restartPolicy": YES,
    "spec.terminationGracePeriodSeconds": YES,
    "spec.resources": approximately("limits hold for each container, and not for the pod"),
    # Their fields are those of spec.containers[].
    "spec.initContainers[].name": YES,
    "spec.ephemeralContainers[].name": YES,
    "spec.ephemeralContainers[].targetContainerName": approximately(
        "processes are seen only where the pod shares its process namespace"
    ),
    "spec.dnsConfig": approximately("its name servers stand in place of the engine's"),
    "spec.dnsPolicy": approximately("names are resolved as the engine does it: no cluster DNS"),
    "spec.hostAliases": YES,
    "spec.hostIPC": YES,
    "spec.hostNetwork": YES,
    "spec.hostPID": YES,
    "spec.hostUsers": no("the engine decides on user namespaces for all its containers"),
    "spec.hostname": YES,
    "spec.hostnameOverride": YES,
    "spec.subdomain": approximately("it stands in the pod's own /etc/hosts, and nowhere else"),
    "spec.setHostnameAsFQDN": no("pods have no domain here"),
    "spec.shareProcessNamespace": YES,
    "spec.runtimeClassName": no("the engine has one runtime"),
    "spec.imagePullSecrets": YES,
}

_POD_SECURITY: Mapping[str, Support] = {
    "spec.securityContext.appArmorProfile": _NO_POLICY,
    "spec.securityContext.fsGroup": YES,
    "spec.securityContext.fsGroupChangePolicy": YES,
    "spec.securityContext.runAsGroup": YES,
    "spec.securityContext.runAsNonRoot": YES,
    "spec.securityContext.runAsUser": YES,
    "spec.securityContext.seLinuxChangePolicy": _NO_POLICY,
    "spec.securityContext.seLinuxOptions": _LABELS,
    "spec.securityContext.seccompProfile": YES,
    "spec.securityContext.supplementalGroups": YES,
    "spec.securityContext.supplementalGroupsPolicy": approximately(
        "groups are as the engine merges them with the image's"
    ),
    "spec.securityContext.sysctls": YES,
    "spec.securityContext.windowsOptions": _LINUX,
}

_CONTAINER: Mapping[str, Support] = {
    "spec.containers[].args": YES,
    "spec.containers[].command": YES,
    "spec.containers[].image": YES,
    "spec.containers[].imagePullPolicy": YES,
    "spec.containers[].lifecycle": YES,
    "spec.containers[].livenessProbe": YES,
    "spec.containers[].readinessProbe": YES,
    "spec.containers[].startupProbe": YES,
    "spec.containers[].ports": YES,
    "spec.containers[].resizePolicy": YES,
    "spec.containers[].resources.limits": YES,
    "spec.containers[].resources.limits[ephemeral-storage]": approximately("not enforced"),
    "spec.containers[].resources.requests": YES,
    "spec.containers[].restartPolicy": YES,
    "spec.containers[].restartPolicyRules": YES,
    "spec.containers[].stdin": approximately(
        "on Podman it ends when the first client that attached to it leaves"
    ),
    "spec.containers[].stdinOnce": YES,
    "spec.containers[].tty": YES,
    "spec.containers[].terminationMessagePath": YES,
    "spec.containers[].terminationMessagePolicy": YES,
    "spec.containers[].volumeDevices": no("there are no block volumes here"),
    "spec.containers[].volumeMounts": YES,
    "spec.containers[].workingDir": YES,
}

_SECURITY: Mapping[str, Support] = {
    "spec.containers[].securityContext.allowPrivilegeEscalation": YES,
    "spec.containers[].securityContext.appArmorProfile": _NO_POLICY,
    "spec.containers[].securityContext.capabilities.add": YES,
    "spec.containers[].securityContext.capabilities.drop": YES,
    "spec.containers[].securityContext.privileged": YES,
    "spec.containers[].securityContext.procMount": no("it takes a user namespace of the pod's own"),
    "spec.containers[].securityContext.readOnlyRootFilesystem": YES,
    "spec.containers[].securityContext.runAsGroup": YES,
    "spec.containers[].securityContext.runAsNonRoot": YES,
    "spec.containers[].securityContext.runAsUser": YES,
    "spec.containers[].securityContext.seLinuxOptions": _LABELS,
    "spec.containers[].securityContext.seccompProfile": YES,
    "spec.containers[].securityContext.windowsOptions": _LINUX,
}

_VOLUMES: Mapping[str, Support] = {
    "spec.volumes[].configMap": YES,
    "spec.volumes[].downwardAPI": YES,
    "spec.volumes[].emptyDir.medium": YES,
    "spec.volumes[].emptyDir.sizeLimit": approximately("enforced in memory, not on disk"),
    "spec.volumes[].projected": YES,
    "spec.volumes[].secret": YES,
    "spec.volumes[].hostPath": YES,
    "spec.volumes[].gitRepo": no("removed from Kubernetes: clone in an init container"),
    "spec.volumes[].image": no("images are not mounted here"),
    **{f"spec.volumes[].{source}": _NO_DRIVER for source in _SOURCES_ELSEWHERE},
}

TABLE: Mapping[str, Support] = {
    **_POD,
    **_POD_SECURITY,
    **_CONTAINER,
    **_SECURITY,
    **_VOLUMES,
}
"""Support by field path."""

_GROUP = no("a group of containers is run as one, and stays as it was launched")

HELPED: Mapping[str, Support] = {
    **TABLE,
    "spec.ephemeralContainers": _GROUP,
    "spec.ephemeralContainers[].name": _GROUP,
    "spec.ephemeralContainers[].targetContainerName": _GROUP,
    "spec.containers[].resizePolicy": approximately("nothing is resized while it runs"),
}
"""The same with `helper: always`."""
