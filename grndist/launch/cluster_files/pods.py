"""The shape of Kubernetes' pods, core/v1: the documented fields that training needs, no others.

Kubernetes drops a field that it does not know without a word, so here it is refused. Numbers are not taken for text nor
text for numbers, as Kubernetes does not.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from grndist.config import Config

Text = dict[str, str]
Port = int | str  # a number or the name of one


def _quantity(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    is_text = isinstance(value, str) and re.fullmatch(r"\d+(\.\d*)?(m|k|[MGTPE]|[KMGTPE]i|e\d+)?", value)
    if not is_number and not is_text:
        raise ValueError("a number of 0 or more was expected, with a unit if need be: 2, 500m, 8Gi")
    return value


Quantity = Annotated[Any, AfterValidator(_quantity)]


class Kube(Config):
    """A mapping of Kubernetes, whose keys are in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel, strict=True)


class Metadata(Kube):
    """Of an object or a pod."""

    name: str | None = None
    generate_name: str | None = None
    namespace: str | None = None
    labels: Text | None = None
    annotations: Text | None = None


class KeyRef(Kube):
    """A key of a Secret or ConfigMap."""

    name: str
    key: str
    optional: bool | None = None


class FieldRef(Kube):
    """A field of the pod."""

    field_path: str
    api_version: str | None = None


class EnvSource(Kube):
    """Where a variable has its value from."""

    secret_key_ref: KeyRef | None = None
    config_map_key_ref: KeyRef | None = None
    field_ref: FieldRef | None = None


class Env(Kube):
    """A variable of the environment."""

    name: str
    value: str | None = None
    value_from: EnvSource | None = None


class NameRef(Kube):
    """The name of a Secret or ConfigMap."""

    name: str
    optional: bool | None = None


class EnvFrom(Kube):
    """All variables of a Secret or ConfigMap."""

    prefix: str | None = None
    secret_ref: NameRef | None = None
    config_map_ref: NameRef | None = None


class Resources(Kube):
    """CPUs, memory, GPUs."""

    requests: dict[str, Quantity] | None = None
    limits: dict[str, Quantity] | None = None


class VolumeMount(Kube):
    """Where a volume appears in a container."""

    name: str
    mount_path: str
    sub_path: str | None = None
    read_only: bool | None = None


class Claim(Kube):
    """A claim of a volume."""

    claim_name: str
    read_only: bool | None = None


class EmptyDir(Kube):
    """A folder that ends with the pod."""

    medium: str | None = None
    size_limit: Quantity | None = None


class SecretVolume(Kube):
    """A Secret as files."""

    secret_name: str
    default_mode: int | None = None
    optional: bool | None = None
    items: list[dict[str, Any]] | None = None


class ConfigMapVolume(NameRef):
    """A ConfigMap as files."""

    default_mode: int | None = None
    items: list[dict[str, Any]] | None = None


class Nfs(Kube):
    """A folder of a file server."""

    server: str
    path: str
    read_only: bool | None = None


class Volume(Kube):
    """Something that containers mount."""

    name: str
    persistent_volume_claim: Claim | None = None
    empty_dir: EmptyDir | None = None
    secret: SecretVolume | None = None
    config_map: ConfigMapVolume | None = None
    nfs: Nfs | None = None
    csi: dict[str, Any] | None = None


class ContainerPort(Kube):
    """A port and its name."""

    container_port: int
    name: str | None = None
    protocol: Literal["TCP", "UDP", "SCTP"] | None = None


class HttpGet(Kube):
    """A page that has to answer."""

    path: str
    port: Port
    scheme: Literal["HTTP", "HTTPS"] | None = None


class Exec(Kube):
    """A command that has to succeed."""

    command: list[str]


class TcpSocket(Kube):
    """A port that has to be open."""

    port: Port


class Probe(Kube):
    """Whether a container is well."""

    http_get: HttpGet | None = None
    exec: Exec | None = None
    tcp_socket: TcpSocket | None = None
    initial_delay_seconds: int | None = None
    period_seconds: int | None = None
    timeout_seconds: int | None = None
    success_threshold: int | None = None
    failure_threshold: int | None = None


class ContainerSecurity(Kube):
    """What a container's processes may do."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    privileged: bool | None = None
    allow_privilege_escalation: bool | None = None
    read_only_root_filesystem: bool | None = None
    capabilities: dict[str, list[str]] | None = None
    seccomp_profile: Text | None = None


class PodSecurity(Kube):
    """Who a pod's processes are."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    fs_group: int | None = None
    fs_group_change_policy: str | None = None
    supplemental_groups: list[int] | None = None
    seccomp_profile: Text | None = None


class Container(Kube):
    """A process and its image."""

    name: str
    image: str
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    command: list[str] | None = None
    args: list[str] | None = None
    working_dir: str | None = None
    env: list[Env] | None = None
    env_from: list[EnvFrom] | None = None
    ports: list[ContainerPort] | None = None
    resources: Resources | None = None
    volume_mounts: list[VolumeMount] | None = None
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    startup_probe: Probe | None = None
    security_context: ContainerSecurity | None = None


class Toleration(Kube):
    """A taint of nodes that a pod does not mind."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class PodSpec(Kube):
    """What a pod consists of and where it may run."""

    containers: list[Container] = Field(min_length=1)
    init_containers: list[Container] | None = None
    volumes: list[Volume] | None = None
    restart_policy: Literal["Always", "OnFailure", "Never"] | None = None
    service_account_name: str | None = None
    automount_service_account_token: bool | None = None
    image_pull_secrets: list[NameRef] | None = None
    node_selector: Text | None = None
    tolerations: list[Toleration] | None = None
    affinity: dict[str, Any] | None = None
    topology_spread_constraints: list[dict[str, Any]] | None = None
    priority_class_name: str | None = None
    runtime_class_name: str | None = None
    scheduler_name: str | None = None
    host_network: bool | None = None
    termination_grace_period_seconds: int | None = None
    security_context: PodSecurity | None = None


class PodTemplate(Kube):
    """A pod to make copies of."""

    metadata: Metadata | None = None
    spec: PodSpec
