"""What can be scaled, and which CloudWatch metrics it has: an ECS service or a SageMaker endpoint variant."""

from dataclasses import dataclass
from typing import Any, Literal

from smml.errors import UserError

Metric = Literal["utilization", "requests per instance", "backlog per instance"]
METRICS = ("utilization", "requests per instance", "backlog per instance")


@dataclass(frozen=True)
class ScalableTarget:
    """An ECS service ("cluster/service") or a SageMaker endpoint variant ("endpoint/variant") and its bounds.

    `queue` is the SQS queue before an ECS service, `load_balancer` the resource label of its target group; a metric that
    needs one says so. Raises UserError naming the field.
    """

    service: Literal["ecs", "sagemaker"]
    name: str
    min_capacity: int
    max_capacity: int
    queue: str | None = None
    load_balancer: str | None = None

    def __post_init__(self) -> None:
        if self.service not in ("ecs", "sagemaker"):
            raise UserError(f"service is {self.service!r}; allowed are ecs, sagemaker.")
        if self.name.count("/") != 1 or not all(self.name.split("/")):
            wanted = "cluster/service" if self.service == "ecs" else "endpoint/variant"
            raise UserError(f"name is {self.name!r}; give {wanted}.")
        if not 0 <= self.min_capacity <= self.max_capacity:
            raise UserError(
                f"min_capacity is {self.min_capacity} and max_capacity {self.max_capacity}; "
                "give 0 <= min_capacity <= max_capacity."
            )

    @property
    def identity(self) -> dict[str, str]:
        """The three fields by which every request of Application Auto Scaling names the target."""
        first, second = self.name.split("/")
        if self.service == "ecs":
            resource, dimension = f"service/{self.name}", "ecs:service:DesiredCount"
        else:
            resource = f"endpoint/{first}/variant/{second}"
            dimension = "sagemaker:variant:DesiredInstanceCount"
        return {
            "ServiceNamespace": self.service,
            "ResourceId": resource,
            "ScalableDimension": dimension,
        }

    def request(self) -> dict[str, Any]:
        """Parameters of RegisterScalableTarget."""
        bounds = {"MinCapacity": self.min_capacity, "MaxCapacity": self.max_capacity}
        return self.identity | bounds


def metric_specification(metric: Metric, target: ScalableTarget) -> dict[str, Any]:
    """The metric as TargetTrackingScalingPolicyConfiguration names it. Raises UserError where the target has none."""
    if metric == "backlog per instance" and target.service == "ecs":
        return {
            "CustomizedMetricSpecification": {"Metrics": _over_tasks(target, "waiting / running")}
        }
    if metric == "backlog per instance":
        specification = _endpoint_metric(target, "ApproximateBacklogSizePerInstance")
        return {"CustomizedMetricSpecification": specification | {"Statistic": "Average"}}
    if metric == "utilization" and target.service == "ecs":
        return {
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": "ECSServiceAverageCPUUtilization"
            }
        }
    if metric == "utilization":
        raise UserError(
            "SageMaker offers no predefined utilization of a variant; track 'requests per instance' or "
            "'backlog per instance'."
        )
    if target.service == "sagemaker":
        kind: dict[str, Any] = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    elif target.load_balancer is None:
        raise UserError(
            "load_balancer is None; requests per instance of an ECS service are counted by its load balancer: give "
            "the resource label app/NAME/ID/targetgroup/NAME/ID."
        )
    else:
        kind = {
            "PredefinedMetricType": "ALBRequestCountPerTarget",
            "ResourceLabel": target.load_balancer,
        }
    return {"PredefinedMetricSpecification": kind}


def waiting_metric(target: ScalableTarget, from_zero: bool, period_s: int) -> dict[str, Any]:
    """The requests that wait, as PutMetricAlarm takes them; with `from_zero` only those that no instance can serve.

    Raises UserError where no queue is named.
    """
    plain = {"Statistic": "Maximum", "Period": period_s}
    if not from_zero:
        return _queue_metric(target) | plain
    if target.service == "sagemaker":
        return _endpoint_metric(target, "HasBacklogWithoutCapacity") | plain
    metrics = _over_tasks(target, "IF(running < 1, waiting, 0)")
    for metric in metrics:
        if "MetricStat" in metric:
            metric["MetricStat"]["Period"] = period_s
    return {"Metrics": metrics}


def _over_tasks(target: ScalableTarget, expression: str) -> list[dict[str, Any]]:
    """Metric math over the queue's `waiting` messages and the service's `running` tasks."""
    cluster, service = target.name.split("/")
    tasks = {
        "Namespace": "ECS/ContainerInsights",
        "MetricName": "RunningTaskCount",
        "Dimensions": [
            {"Name": "ClusterName", "Value": cluster},
            {"Name": "ServiceName", "Value": service},
        ],
    }
    parts = {"waiting": (_queue_metric(target), "Sum"), "running": (tasks, "Average")}
    stats = [
        {"Id": name, "MetricStat": {"Metric": metric, "Stat": stat}, "ReturnData": False}
        for name, (metric, stat) in parts.items()
    ]
    return [*stats, {"Id": "result", "Expression": expression, "ReturnData": True}]


def _endpoint_metric(target: ScalableTarget, name: str) -> dict[str, Any]:
    return {
        "Namespace": "AWS/SageMaker",
        "MetricName": name,
        "Dimensions": [{"Name": "EndpointName", "Value": target.name.split("/")[0]}],
    }


def _queue_metric(target: ScalableTarget) -> dict[str, Any]:
    if target.service == "sagemaker":
        return _endpoint_metric(target, "ApproximateBacklogSize")
    if target.queue is None:
        raise UserError(
            "queue is None; waiting requests are counted by SQS: give the queue's name."
        )
    return {
        "Namespace": "AWS/SQS",
        "MetricName": "ApproximateNumberOfMessagesVisible",
        "Dimensions": [{"Name": "QueueName", "Value": target.queue}],
    }
