"""How well the `process` backend does each field of a pod, in words that people read in events."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.adapter import YES, Support, approximately, no

_HOST_NETWORK = "containers share the host's network"
_NO_RESOLVER = no("names are resolved as the host does it")
_ALL_PROCESSES = approximately("containers see all processes of the host")
_OTHER_HOST = no("probes and hooks go to the pod itself")
_NO_POLICY = no("the host's own policy applies, and cannot be changed for one process")
_NO_DRIVER = no("there is no node here that could attach this volume")
_LINUX = no("containers are processes of a Linux host")
_UNMEASURED = approximately("nothing is limited: a process takes what the host has")

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
    "spec.resources": _UNMEASURED,
    # Their fields are those of spec.containers[].
    "spec.initContainers[].name": YES,
    "spec.ephemeralContainers[].name": YES,
    "spec.ephemeralContainers[].targetContainerName": _ALL_PROCESSES,
    "spec.dnsConfig": _NO_RESOLVER,
    "spec.dnsPolicy": approximately("names are resolved as the host does it"),
    "spec.hostAliases": no("the host's own /etc/hosts is used"),
    "spec.hostIPC": YES,
    "spec.hostNetwork": YES,
    "spec.hostPID": YES,
    "spec.hostUsers": approximately("user IDs are the host's own"),
    "spec.hostname": YES,
    "spec.hostnameOverride": approximately("the pod has this name, which nothing resolves"),
    "spec.subdomain": approximately("nothing resolves it"),
    "spec.setHostnameAsFQDN": no("pods have no domain here"),
    "spec.shareProcessNamespace": _ALL_PROCESSES,
    "spec.runtimeClassName": no("there is no container runtime"),
}

_POD_SECURITY: Mapping[str, Support] = {
    "spec.securityContext.appArmorProfile": _NO_POLICY,
    "spec.securityContext.fsGroup": YES,
    "spec.securityContext.fsGroupChangePolicy": YES,
    "spec.securityContext.runAsGroup": YES,
    "spec.securityContext.runAsNonRoot": YES,
    "spec.securityContext.runAsUser": YES,
    "spec.securityContext.seLinuxChangePolicy": _NO_POLICY,
    "spec.securityContext.seLinuxOptions": _NO_POLICY,
    "spec.securityContext.seccompProfile": _NO_POLICY,
    "spec.securityContext.supplementalGroups": YES,
    "spec.securityContext.supplementalGroupsPolicy": approximately(
        "groups are as in Strict: those of the host's /etc/group are not added"
    ),
    "spec.securityContext.sysctls": no("the kernel's settings are the host's"),
    "spec.securityContext.windowsOptions": _LINUX,
}

_CONTAINER: Mapping[str, Support] = {
    "spec.containers[].args": YES,
    "spec.containers[].command": YES,
    "spec.containers[].image": approximately("ignored: the host's own programs run"),
    "spec.containers[].imagePullPolicy": approximately("ignored: no images are pulled"),
    "spec.imagePullSecrets": approximately("ignored: no images are pulled"),
    "spec.containers[].lifecycle.stopSignal": YES,
    "spec.containers[].ports": approximately(_HOST_NETWORK),
    "spec.containers[].resizePolicy": YES,
    "spec.containers[].resources.limits": _UNMEASURED,
    "spec.containers[].resources.requests": YES,
    "spec.containers[].restartPolicy": YES,
    "spec.containers[].restartPolicyRules": YES,
    "spec.containers[].stdin": YES,
    "spec.containers[].stdinOnce": YES,
    "spec.containers[].tty": YES,
    "spec.containers[].terminationMessagePath": YES,
    "spec.containers[].terminationMessagePolicy": YES,
    "spec.containers[].volumeDevices": no("there are no block volumes here"),
    "spec.containers[].volumeMounts[].mountPath": YES,
    "spec.containers[].volumeMounts[].mountPropagation": no("mounts are private to a container"),
    "spec.containers[].volumeMounts[].name": YES,
    "spec.containers[].volumeMounts[].readOnly": YES,
    "spec.containers[].volumeMounts[].recursiveReadOnly": YES,
    "spec.containers[].volumeMounts[].subPath": YES,
    "spec.containers[].volumeMounts[].subPathExpr": YES,
    "spec.containers[].workingDir": YES,
}

_ASKED = (
    "lifecycle.postStart",
    "lifecycle.preStop",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
)
"""What the provider asks of a container, by its `exec` and `dial`."""

_PROBES: Mapping[str, Support] = {
    **{f"spec.containers[].{one}": YES for one in _ASKED},
    **{f"spec.containers[].{one}.httpGet.host": _OTHER_HOST for one in _ASKED},
    **{f"spec.containers[].{one}.tcpSocket.host": _OTHER_HOST for one in _ASKED},
}

_SECURITY: Mapping[str, Support] = {
    "spec.containers[].securityContext.allowPrivilegeEscalation": YES,
    "spec.containers[].securityContext.appArmorProfile": _NO_POLICY,
    "spec.containers[].securityContext.capabilities.add": YES,
    "spec.containers[].securityContext.capabilities.drop": YES,
    "spec.containers[].securityContext.privileged": no("devices and kernel stay the host's"),
    "spec.containers[].securityContext.procMount": no("/proc is the host's"),
    "spec.containers[].securityContext.readOnlyRootFilesystem": YES,
    "spec.containers[].securityContext.runAsGroup": YES,
    "spec.containers[].securityContext.runAsNonRoot": YES,
    "spec.containers[].securityContext.runAsUser": YES,
    "spec.containers[].securityContext.seLinuxOptions": _NO_POLICY,
    "spec.containers[].securityContext.seccompProfile": _NO_POLICY,
    "spec.containers[].securityContext.windowsOptions": _LINUX,
}

_VOLUMES: Mapping[str, Support] = {
    "spec.volumes[].configMap": YES,
    "spec.volumes[].downwardAPI": YES,
    "spec.volumes[].emptyDir.medium": approximately("on disk, not in memory"),
    "spec.volumes[].emptyDir.sizeLimit": approximately("not enforced"),
    "spec.volumes[].projected": YES,
    "spec.volumes[].secret": YES,
    "spec.volumes[].hostPath": YES,
    "spec.volumes[].gitRepo": no("removed from Kubernetes: clone in an init container"),
    "spec.volumes[].image": no("this backend has no images"),
    **{f"spec.volumes[].{source}": _NO_DRIVER for source in _SOURCES_ELSEWHERE},
}

TABLE: Mapping[str, Support] = {
    **_POD,
    **_POD_SECURITY,
    **_CONTAINER,
    **_PROBES,
    **_SECURITY,
    **_VOLUMES,
}
"""Support by field path."""
