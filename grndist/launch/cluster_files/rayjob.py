"""The shape of a RayJob: the documented fields of KubeRay 1.7 (its API reference, ray.io/v1), no others."""

from typing import Any, Literal

from pydantic import Field

from grndist.launch.cluster_files.pods import (
    ContainerSecurity,
    Env,
    EnvFrom,
    Kube,
    Metadata,
    PodTemplate,
    Resources,
    Text,
    VolumeMount,
)


class HeadGroup(Kube):
    """The head of the cluster."""

    template: PodTemplate
    ray_start_params: Text | None = None
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"] | None = None
    enable_ingress: bool | None = None
    head_service: dict[str, Any] | None = None


class WorkerGroup(Kube):
    """Workers that are alike."""

    group_name: str
    template: PodTemplate
    ray_start_params: Text | None = None
    replicas: int | None = None
    min_replicas: int | None = None
    max_replicas: int | None = None
    num_of_hosts: int | None = None
    idle_timeout_seconds: int | None = None
    suspend: bool | None = None


class AuthOptions(Kube):
    """Who may use the cluster."""

    mode: Literal["token", "disabled"] | None = None
    secret_name: str | None = None
    enable_k8s_token_auth: bool | None = Field(None, alias="enableK8sTokenAuth")


class AutoscalerOptions(Kube):
    """How the cluster grows and shrinks."""

    version: Literal["v1", "v2"] | None = None
    upscaling_mode: Literal["Default", "Aggressive", "Conservative"] | None = None
    idle_timeout_seconds: int | None = None
    image: str | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    resources: Resources | None = None
    env: list[Env] | None = None
    env_from: list[EnvFrom] | None = None
    volume_mounts: list[VolumeMount] | None = None
    security_context: ContainerSecurity | None = None


class RayCluster(Kube):
    """The cluster of a job."""

    head_group_spec: HeadGroup
    worker_group_specs: list[WorkerGroup] | None = None
    ray_version: str | None = None
    auth_options: AuthOptions | None = None
    enable_in_tree_autoscaling: bool | None = None
    autoscaler_options: AutoscalerOptions | None = None
    gcs_fault_tolerance_options: dict[str, Any] | None = None
    tls_options: dict[str, Any] | None = None
    network_policy: dict[str, Any] | None = None
    head_service_annotations: Text | None = None
    suspend: bool | None = None


class SubmitterConfig(Kube):
    """How often the job is handed in again."""

    backoff_limit: int | None = None


class RayJobSpec(Kube):
    """A command and the cluster that it runs on."""

    entrypoint: str
    ray_cluster_spec: RayCluster
    runtime_env_yaml: str | None = Field(None, alias="runtimeEnvYAML")
    submission_mode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"] | None = None
    submitter_pod_template: PodTemplate | None = None
    submitter_config: SubmitterConfig | None = None
    shutdown_after_job_finishes: bool | None = None
    ttl_seconds_after_finished: int | None = None
    active_deadline_seconds: int | None = None
    pre_running_deadline_seconds: int | None = None
    backoff_limit: int | None = None
    entrypoint_num_cpus: float | None = None
    entrypoint_num_gpus: float | None = None
    entrypoint_resources: str | None = None
    job_id: str | None = None
    metadata: Text | None = None
    managed_by: str | None = None
    suspend: bool | None = None


class RayJob(Kube):
    """The whole file."""

    api_version: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec
