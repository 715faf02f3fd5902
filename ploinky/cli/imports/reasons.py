"""Why parts of Compose and Kubernetes have no counterpart here, and what to do instead."""

from __future__ import annotations

from ploinky.cli.imports.parts import Reasons

_NETWORK = (
    "every container is in the engine's bridge network, alone: they do not find each other by name",
    "reach other deployments over their path at this server",
)
_FILES = (
    "files are not mounted into containers",
    "build them into the image, give them as variables, or use a repository with a manifest.json",
)
_FIXED = ("is the same for every container here (no-new-privileges, an init process)", "")
_HOST = ("a container here gets nothing of the host's", "keep this one where it runs")
_LOGS = ("output is kept by the server", "read it with p-cli cloud deployments logs")
_LABELS = ("labels of containers are the server's own", "")
_SCHEDULING = ("there is one host, and nothing to schedule", "")
_BUILDS = ("images are not built here", "build and push it, and name it as image")
_RESERVED = ("resources are limited here, not reserved", "")
_SWAP = ("memory is limited without swap; nothing else of it is set", "")

SERVICE: Reasons = {
    "annotations": _LABELS,
    "attach": ("deployments run in the background", ""),
    "blkio_config": ("disk bandwidth is not limited here", ""),
    "cgroup": _HOST,
    "cgroup_parent": _HOST,
    "configs": _FILES,
    "container_name": ("the server names containers", "find its own with p-cli cloud deployments"),
    "cpu_count": ("is not set here", "use cpus"),
    "cpu_percent": ("is not set here", "use cpus"),
    "cpu_period": ("is not set here", "use cpus"),
    "cpu_quota": ("is not set here", "use cpus"),
    "cpu_rt_period": ("is not set here", "use cpus"),
    "cpu_rt_runtime": ("is not set here", "use cpus"),
    "cpu_shares": _RESERVED,
    "cpuset": ("containers are not bound to cores", "use cpus"),
    "credential_spec": _HOST,
    "develop": ("there is no development mode", "a push deploys: p-cli cloud deployments hook"),
    "device_cgroup_rules": _HOST,
    "devices": _HOST,
    "dns": _NETWORK,
    "dns_opt": _NETWORK,
    "dns_search": _NETWORK,
    "domainname": _NETWORK,
    "driver_opts": _NETWORK,
    "external_links": _NETWORK,
    "extra_hosts": _NETWORK,
    "gpus": _HOST,
    "group_add": ("a container has one user and its group", "use user"),
    "hostname": _NETWORK,
    "ipc": _HOST,
    "isolation": _HOST,
    "label_file": _LABELS,
    "labels": _LABELS,
    "links": _NETWORK,
    "logging": _LOGS,
    "mac_address": _NETWORK,
    "mem_reservation": _RESERVED,
    "mem_swappiness": _SWAP,
    "memswap_limit": _SWAP,
    "models": ("is not provided here", ""),
    "network_mode": _NETWORK,
    "networks": _NETWORK,
    "oom_kill_disable": _HOST,
    "oom_score_adj": _HOST,
    "pid": _HOST,
    "platform": ("the engine takes the image for its own platform", ""),
    "post_start": ("nothing is run inside after it starts", "do it in the image's own start"),
    "pre_stop": ("nothing is run inside before it stops", "do it when the program gets SIGTERM"),
    "privileged": ("no container is privileged here", "keep this one where it runs"),
    "provider": ("is not run here", "keep this one where it runs"),
    "pull_policy": ("an image is pulled where it is not there, or has moved", ""),
    "read_only": (
        "a container's own file system can be written to; it goes with the container",
        "",
    ),
    "runtime": _HOST,
    "secrets": (
        "secrets are variables here, not files",
        "give it as a variable: p-cli cloud deployments update DOMAIN PATH --secret NAME",
    ),
    "security_opt": _FIXED,
    "shm_size": ("shared memory has the engine's own size", ""),
    "stdin_open": ("nothing is attached to a container's input", ""),
    "stop_grace_period": (
        "calls in hand are finished first, then it has the server's own time",
        "",
    ),
    "stop_signal": ("it is stopped by the signal that the image names", ""),
    "storage_opt": _HOST,
    "sysctls": _HOST,
    "tmpfs": ("no file system in memory is mounted", "write to the container's own file system"),
    "tty": ("nothing is attached to a terminal", ""),
    "ulimits": ("these are the engine's own", "pids are limited with pids_limit"),
    "use_api_socket": _HOST,
    "userns_mode": _HOST,
    "uts": _HOST,
    "volumes_from": (
        "volumes belong to one deployment",
        "keep what is shared in a service of its own",
    ),
    "working_dir": ("it starts in the image's own directory", "set WORKDIR in the image"),
}

DEPLOY: Reasons = {
    "endpoint_mode": _NETWORK,
    "labels": _LABELS,
    "placement": _SCHEDULING,
    "restart_policy": ("what dies is started again, with growing pauses", ""),
    "rollback_config": ("a deploy that fails leaves what served before", ""),
    "update_config": ("all of a release is switched in one step, without a lost call", ""),
}

VOLUME: Reasons = dict.fromkeys(
    ("driver", "driver_opts", "external", "labels", "name"),
    ("volumes are the engine's own, and one deployment's", ""),
)

COMPOSE: Reasons = {
    "configs": _FILES,
    "include": ("other files are not read along", "import them one by one"),
    "models": ("is not provided here", ""),
    "networks": _NETWORK,
    "secrets": SERVICE["secrets"],
}

BUILD = (
    _BUILDS[0],
    "build and push it and name it as image, or, where its repository has a manifest.json:"
    " p-cli cloud deploy DOMAIN PATH AGENT --repository URL",
)
BIND_MOUNT = _FILES
ANONYMOUS_VOLUME = (
    "is not kept: what is written there goes with the container",
    "give the volume a name",
)

CONTAINER: Reasons = {
    "imagePullPolicy": ("an image is pulled where it is not there, or has moved", ""),
    "lifecycle": ("nothing is run inside after it starts or before it stops", "do it in the image"),
    "resizePolicy": _RESERVED,
    "restartPolicy": ("what dies is started again, with growing pauses", ""),
    "stdin": ("nothing is attached to a container's input", ""),
    "stdinOnce": ("nothing is attached to a container's input", ""),
    "terminationMessagePath": _LOGS,
    "terminationMessagePolicy": _LOGS,
    "tty": ("nothing is attached to a terminal", ""),
    "volumeDevices": _HOST,
    "workingDir": SERVICE["working_dir"],
}

SECURITY: Reasons = {
    "appArmorProfile": _HOST,
    "fsGroup": ("a volume begins as the image has it, with its owner", ""),
    "fsGroupChangePolicy": ("a volume begins as the image has it, with its owner", ""),
    "privileged": SERVICE["privileged"],
    "procMount": _HOST,
    "readOnlyRootFilesystem": SERVICE["read_only"],
    "runAsNonRoot": ("is not checked", "give runAsUser, or an image with a user of its own"),
    "seLinuxOptions": _HOST,
    "seccompProfile": ("is the engine's own", ""),
    "supplementalGroups": SERVICE["group_add"],
    "sysctls": _HOST,
}

POD: Reasons = {
    "activeDeadlineSeconds": ("a deployment runs until it is stopped", ""),
    "affinity": _SCHEDULING,
    "automountServiceAccountToken": ("there is no Kubernetes API to speak to", ""),
    "dnsConfig": _NETWORK,
    "dnsPolicy": _NETWORK,
    "enableServiceLinks": _NETWORK,
    "ephemeralContainers": ("are not run here", ""),
    "hostAliases": _NETWORK,
    "hostIPC": _HOST,
    "hostNetwork": _HOST,
    "hostPID": _HOST,
    "hostname": _NETWORK,
    "imagePullSecrets": (
        "images are pulled with the engine's own credentials",
        "run docker login (or podman login) as the server's user",
    ),
    "initContainers": (
        "nothing is run before the container",
        "do it in the image's own start, or in install of a repository's manifest.json",
    ),
    "nodeName": _SCHEDULING,
    "nodeSelector": _SCHEDULING,
    "priorityClassName": _SCHEDULING,
    "restartPolicy": ("what dies is started again, with growing pauses", ""),
    "runtimeClassName": _HOST,
    "schedulerName": _SCHEDULING,
    "serviceAccount": ("there is no Kubernetes API to speak to", ""),
    "serviceAccountName": ("there is no Kubernetes API to speak to", ""),
    "shareProcessNamespace": _HOST,
    "subdomain": _NETWORK,
    "terminationGracePeriodSeconds": SERVICE["stop_grace_period"],
    "tolerations": _SCHEDULING,
    "topologySpreadConstraints": _SCHEDULING,
}

WORKLOAD: Reasons = {
    "minReadySeconds": ("a release serves as soon as it is healthy", ""),
    "ordinals": _SCHEDULING,
    "persistentVolumeClaimRetentionPolicy": ("volumes stay when a deployment is removed", ""),
    "paused": ("a deploy is never paused", ""),
    "podManagementPolicy": _SCHEDULING,
    "progressDeadlineSeconds": (
        "a deploy waits as long as health.startPeriod says, 60 seconds at first",
        "set health.startPeriod in the deployment",
    ),
    "revisionHistoryLimit": ("is the server's setting releasesKept", ""),
    "strategy": DEPLOY["update_config"],
    "updateStrategy": DEPLOY["update_config"],
}

_BALANCED = ("calls go to the instance with the fewest in hand", "")

KUBERNETES_SERVICE: Reasons = {
    "allocateLoadBalancerNodePorts": _BALANCED,
    "externalIPs": _NETWORK,
    "externalTrafficPolicy": _BALANCED,
    "healthCheckNodePort": _BALANCED,
    "internalTrafficPolicy": _BALANCED,
    "ipFamilies": _NETWORK,
    "ipFamilyPolicy": _NETWORK,
    "loadBalancerClass": _BALANCED,
    "loadBalancerIP": _BALANCED,
    "loadBalancerSourceRanges": (
        "every client is let in",
        "set auth or rateLimit in the deployment, or filter in a proxy before the server",
    ),
    "publishNotReadyAddresses": ("an instance gets calls once it is healthy", ""),
    "sessionAffinity": (_BALANCED[0] + ", whoever calls", "keep sessions in a store of their own"),
    "sessionAffinityConfig": _BALANCED,
    "trafficDistribution": _BALANCED,
}

OBJECTS: Reasons = {
    "Job": (
        "what ends by itself is not deployed",
        "make it a command of an agent, and call it: p-cli client task",
    ),
    "CronJob": (
        "what ends by itself is not deployed",
        "make it a command of an agent, and name it in schedule of its manifest.json",
    ),
    "HorizontalPodAutoscaler": (
        "the number of instances is fixed",
        "change it with p-cli cloud scale DOMAIN PATH N",
    ),
    "NetworkPolicy": _NETWORK,
    "PodDisruptionBudget": ("no instance is stopped before another one serves", ""),
    "ServiceAccount": ("there is no Kubernetes API to speak to", ""),
    "Role": ("there is no Kubernetes API to speak to", ""),
    "RoleBinding": ("there is no Kubernetes API to speak to", ""),
    "ClusterRole": ("there is no Kubernetes API to speak to", ""),
    "ClusterRoleBinding": ("there is no Kubernetes API to speak to", ""),
    "Namespace": ("deployments are told apart by domain and path", ""),
    "PersistentVolume": ("volumes are the engine's own", ""),
    "StorageClass": ("volumes are the engine's own", ""),
    "LimitRange": ("every deployment has its own resources", ""),
    "ResourceQuota": ("every deployment has its own resources", ""),
    "PriorityClass": _SCHEDULING,
    "IngressClass": ("the server routes by itself", ""),
}
