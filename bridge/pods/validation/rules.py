"""The rules for single fields of a pod's spec, by schema path below `spec`."""

from __future__ import annotations

from functools import cache

from bridge.pods.validation import names
from bridge.pods.validation.names import Rule, at_least, one_of

_MAX_INT32 = 2**31 - 1
_ID = at_least(0, _MAX_INT32)
_RESTART = one_of("Always", "OnFailure", "Never")
_PULL = one_of("", "Always", "IfNotPresent", "Never")
_SECCOMP = one_of("Unconfined", "RuntimeDefault", "Localhost")
_SELECTOR_OPERATOR = one_of("In", "NotIn", "Exists", "DoesNotExist")
_NODE_OPERATOR = one_of("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
_WEIGHT = at_least(1, 100)

_PROBE: dict[str, Rule] = {
    "failureThreshold": at_least(0),
    "initialDelaySeconds": at_least(0),
    "periodSeconds": at_least(0),
    "successThreshold": at_least(0),
    "terminationGracePeriodSeconds": at_least(1),
    "timeoutSeconds": at_least(0),
}
_HANDLER: dict[str, Rule] = {
    "exec.command": names.not_empty,
    "grpc.port": names.port,
    "httpGet.httpHeaders[].name": names.header_name,
    "httpGet.port": names.port,
    "httpGet.scheme": one_of("", "HTTP", "HTTPS"),
    "tcpSocket.port": names.port,
}
_SECURITY: dict[str, Rule] = {
    "appArmorProfile.type": _SECCOMP,
    "runAsGroup": _ID,
    "runAsUser": _ID,
    "seccompProfile.type": _SECCOMP,
}
_CONTAINER: dict[str, Rule] = {
    "env[].name": names.env_name,
    "env[].valueFrom.configMapKeyRef.key": names.data_key,
    "env[].valueFrom.configMapKeyRef.name": names.dns_subdomain,
    "env[].valueFrom.fileKeyRef.key": names.env_name,
    "env[].valueFrom.fileKeyRef.path": names.no_back_steps,
    "env[].valueFrom.secretKeyRef.key": names.data_key,
    "env[].valueFrom.secretKeyRef.name": names.dns_subdomain,
    "envFrom[].configMapRef.name": names.dns_subdomain,
    "envFrom[].secretRef.name": names.dns_subdomain,
    "image": names.trimmed,
    "imagePullPolicy": _PULL,
    "name": names.dns_label,
    "ports[].containerPort": at_least(1, 65535),
    "ports[].hostPort": at_least(0, 65535),
    "ports[].protocol": one_of("", "TCP", "UDP", "SCTP"),
    "resizePolicy[].resourceName": one_of("cpu", "memory"),
    "resizePolicy[].restartPolicy": one_of("NotRequired", "RestartContainer"),
    "restartPolicy": _RESTART,
    "restartPolicyRules[].action": one_of("Restart", "RestartAllContainers"),
    "restartPolicyRules[].exitCodes.operator": one_of("In", "NotIn"),
    "securityContext.procMount": one_of("", "Default", "Unmasked"),
    "terminationMessagePolicy": one_of("", "File", "FallbackToLogsOnError"),
    "volumeMounts[].mountPath": names.mount_path,
    "volumeMounts[].mountPropagation": one_of("None", "HostToContainer", "Bidirectional"),
    "volumeMounts[].name": names.not_empty,
    "volumeMounts[].recursiveReadOnly": one_of("Disabled", "IfPossible", "Enabled"),
    "volumeMounts[].subPath": names.relative_path,
    "volumeMounts[].subPathExpr": names.relative_path,
}
_ITEMS: dict[str, Rule] = {
    "items[].key": names.not_empty,
    "items[].mode": names.file_mode,
    "items[].path": names.projected_path,
}
_VOLUME: dict[str, Rule] = {
    "configMap.defaultMode": names.file_mode,
    "configMap.name": names.not_empty,
    "downwardAPI.defaultMode": names.file_mode,
    "hostPath.path": names.no_back_steps,
    "hostPath.type": one_of(
        *("", "DirectoryOrCreate", "Directory", "FileOrCreate", "File"),
        *("Socket", "CharDevice", "BlockDevice"),
    ),
    "image.pullPolicy": _PULL,
    "name": names.dns_label,
    "nfs.path": names.mount_path,
    "nfs.server": names.not_empty,
    "persistentVolumeClaim.claimName": names.not_empty,
    "projected.defaultMode": names.file_mode,
    "projected.sources[].configMap.name": names.not_empty,
    "projected.sources[].secret.name": names.not_empty,
    "projected.sources[].serviceAccountToken.expirationSeconds": at_least(600, 1 << 32),
    "projected.sources[].serviceAccountToken.path": names.projected_path,
    "secret.defaultMode": names.file_mode,
    "secret.secretName": names.not_empty,
}
_SPEC: dict[str, Rule] = {
    "activeDeadlineSeconds": at_least(1, _MAX_INT32),
    "dnsConfig.nameservers[]": names.ip_address,
    "dnsConfig.options[].name": names.not_empty,
    "dnsConfig.searches[]": names.dns_search,
    "dnsPolicy": one_of("", "ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    "hostAliases[].hostnames[]": names.dns_subdomain,
    "hostAliases[].ip": names.ip_address,
    "hostname": lambda value: names.dns_label(value) if value else None,
    "hostnameOverride": names.dns_subdomain,
    "nodeName": lambda value: names.dns_subdomain(value) if value else None,
    "os.name": one_of("linux", "windows"),
    "preemptionPolicy": one_of("Never", "PreemptLowerPriority"),
    "priorityClassName": lambda value: names.dns_subdomain(value) if value else None,
    "readinessGates[].conditionType": names.qualified_name,
    "restartPolicy": one_of("", "Always", "OnFailure", "Never"),
    "runtimeClassName": names.dns_subdomain,
    "schedulingGates[].name": names.qualified_name,
    "securityContext.fsGroup": _ID,
    "securityContext.fsGroupChangePolicy": one_of("OnRootMismatch", "Always"),
    "securityContext.supplementalGroups[]": _ID,
    "securityContext.supplementalGroupsPolicy": one_of("Merge", "Strict"),
    "serviceAccountName": lambda value: names.dns_subdomain(value) if value else None,
    "subdomain": lambda value: names.dns_label(value) if value else None,
    "terminationGracePeriodSeconds": at_least(0),
    "tolerations[].effect": one_of("", "NoSchedule", "PreferNoSchedule", "NoExecute"),
    "tolerations[].operator": one_of("", "Exists", "Equal"),
    "topologySpreadConstraints[].labelSelector.matchExpressions[].operator": _SELECTOR_OPERATOR,
    "topologySpreadConstraints[].maxSkew": at_least(1),
    "topologySpreadConstraints[].minDomains": at_least(1),
    "topologySpreadConstraints[].topologyKey": names.qualified_name,
    "topologySpreadConstraints[].whenUnsatisfiable": one_of("DoNotSchedule", "ScheduleAnyway"),
}


def _affinity() -> dict[str, Rule]:
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    out: dict[str, Rule] = {
        f"affinity.nodeAffinity.{preferred}[].weight": _WEIGHT,
        f"affinity.nodeAffinity.{required}.nodeSelectorTerms": names.not_empty,
    }
    for term in (f"{required}.nodeSelectorTerms[]", f"{preferred}[].preference"):
        where = f"affinity.nodeAffinity.{term}.matchExpressions[]"
        out[f"{where}.operator"] = _NODE_OPERATOR
        out[f"{where}.key"] = names.qualified_name
    for kind in ("podAffinity", "podAntiAffinity"):
        out[f"affinity.{kind}.{preferred}[].weight"] = _WEIGHT
        for term in (f"{required}[]", f"{preferred}[].podAffinityTerm"):
            where = f"affinity.{kind}.{term}"
            out[f"{where}.topologyKey"] = names.qualified_name
            out[f"{where}.labelSelector.matchExpressions[].operator"] = _SELECTOR_OPERATOR
    return out


@cache
def pod_rules() -> dict[str, Rule]:
    """Every rule, by schema path below the pod's spec ("containers[].image")."""
    out = dict(_SPEC) | _affinity()
    out |= {f"securityContext.{name}": rule for name, rule in _SECURITY.items()}
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        out |= {f"{kind}[].{name}": rule for name, rule in _CONTAINER.items()}
        out |= {f"{kind}[].securityContext.{name}": rule for name, rule in _SECURITY.items()}
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            out |= {f"{kind}[].{probe}.{name}": rule for name, rule in (_PROBE | _HANDLER).items()}
        for hook in ("postStart", "preStop"):
            out |= {f"{kind}[].lifecycle.{hook}.{name}": rule for name, rule in _HANDLER.items()}
    out |= {f"volumes[].{name}": rule for name, rule in _VOLUME.items()}
    for source in ("configMap", "secret", "downwardAPI"):
        out |= {f"volumes[].{source}.{name}": rule for name, rule in _ITEMS.items()}
        out |= {f"volumes[].projected.sources[].{source}.{name}": r for name, r in _ITEMS.items()}
    return out
