"""Steps 9 to 14, from deployment on, of the fourteen on AWS: the requests that would do each of them, as data."""

from smml.cost.budgets import Alert, Budget
from smml.cost.scaling.autoscaling import TargetTracking
from smml.cost.scaling.target import ScalableTarget
from smml.cost.steps.project import Project, model_request, policy
from smml.cost.steps.validate import Request


def deployment(p: Project) -> list[Request]:
    """The same model as an endpoint, as a container task and behind an HTTP interface."""
    variant = {
        "VariantName": "all",
        "ModelName": p.name,
        "InstanceType": p.cpu_instance,
        "InitialInstanceCount": 1,
    }
    config = {
        "EndpointConfigName": p.name,
        "ProductionVariants": [variant],
        "DataCaptureConfig": {
            "EnableCapture": True,
            "InitialSamplingPercentage": 10,
            "DestinationS3Uri": p.s3("captured"),
            "CaptureOptions": [{"CaptureMode": "Input"}],
        },
        "Tags": p.tags,
    }
    endpoint = {"EndpointName": p.name, "EndpointConfigName": p.name, "Tags": p.tags}
    container = {"name": p.name, "image": p.image, "portMappings": [{"containerPort": 8080}]}
    task = {
        "family": p.name,
        "requiresCompatibilities": ["FARGATE"],
        "networkMode": "awsvpc",
        "cpu": "1024",
        "memory": "2048",
        "executionRoleArn": p.role,
        "containerDefinitions": [container],
    }
    return [
        model_request(p),
        Request("sagemaker", "CreateEndpointConfig", config, "which model on which machine"),
        Request("sagemaker", "CreateEndpoint", endpoint, "serve it"),
        Request("ecs", "RegisterTaskDefinition", task, "the same without SageMaker"),
        Request(
            "apigatewayv2", "CreateApi", {"Name": p.name, "ProtocolType": "HTTP"}, "in front of it"
        ),
    ]


def monitoring(p: Project) -> list[Request]:
    """An alarm on the endpoint's latency, a topic for it, a record of every call to the API."""
    alarm = {
        "AlarmName": f"{p.name}-latency",
        "Namespace": "AWS/SageMaker",
        "MetricName": "ModelLatency",
        "Dimensions": [
            {"Name": "EndpointName", "Value": p.name},
            {"Name": "VariantName", "Value": "all"},
        ],
        "ExtendedStatistic": "p99",
        "Period": 60,
        "EvaluationPeriods": 3,
        # ModelLatency comes in microseconds.
        "Threshold": 2_000_000.0,
        "ComparisonOperator": "GreaterThanThreshold",
        "AlarmActions": [p.topic],
    }
    return [
        Request("sns", "CreateTopic", {"Name": p.name, "Tags": p.tags}, "where alarms go"),
        Request("cloudwatch", "PutMetricAlarm", alarm, "tell when answers are late"),
        Request(
            "cloudtrail",
            "CreateTrail",
            {"Name": p.name, "S3BucketName": p.bucket, "EnableLogFileValidation": True},
            "who called what",
        ),
    ]


def scaling(p: Project) -> list[Request]:
    """One to four instances, by requests for each."""
    target = ScalableTarget("sagemaker", f"{p.name}/all", 1, 4)
    tracking = TargetTracking("requests per instance", 600).request(target, p.name)
    service = "application-autoscaling"
    return [
        Request(service, "RegisterScalableTarget", target.request(), "how few, how many"),
        Request(service, "PutScalingPolicy", tracking, "by which metric"),
    ]


def cost(p: Project) -> list[Request]:
    """A budget for what carries the tag; the bill by service."""
    alerts = (Alert("actual", 80, (p.email,)), Alert("forecast", 100, (p.email,)))
    budget = Budget(p.name, p.budget_usd, alerts, ("project", p.name))
    bill = {
        "TimePeriod": {"Start": "2026-11-01", "End": "2026-12-01"},
        "Granularity": "DAILY",
        "Metrics": ["UnblendedCost"],
        "GroupBy": [{"Type": "DIMENSION", "Key": "SERVICE"}],
        "Filter": {"Tags": {"Key": "project", "Values": [p.name]}},
    }
    return [
        Request("budgets", "CreateBudget", budget.request(p.account), "warn before it is spent"),
        Request("ce", "GetCostAndUsage", bill, "what it was spent on"),
    ]


def security(p: Project) -> list[Request]:
    """A role that may do what the jobs do, a key, a bucket that refuses plain HTTP, a private way to it."""
    may = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"]}
    objects = f"arn:aws:s3:::{p.bucket}/*"
    trust = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}}
    plain = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [objects.removesuffix("/*"), objects],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    return [
        Request(
            "iam",
            "CreateRole",
            {
                "RoleName": p.name,
                "AssumeRolePolicyDocument": policy(trust | {"Action": "sts:AssumeRole"}),
                "Tags": p.tags,
            },
            "who the jobs are",
        ),
        Request(
            "iam",
            "PutRolePolicy",
            {
                "RoleName": p.name,
                "PolicyName": "bucket",
                "PolicyDocument": policy(may | {"Resource": objects}),
            },
            "what they may",
        ),
        Request("kms", "CreateKey", {"Description": p.name}, "whose key encrypts it"),
        Request("s3", "PutBucketPolicy", {"Bucket": p.bucket, "Policy": policy(plain)}, "TLS"),
        Request(
            "ec2",
            "CreateVpcEndpoint",
            {
                "VpcId": "vpc-0123456789abcdef0",
                "ServiceName": f"com.amazonaws.{p.region}.s3",
                "VpcEndpointType": "Gateway",
            },
            "S3 without the internet",
        ),
    ]


def collaboration(p: Project) -> list[Request]:
    """A repository, and a project that runs its tests."""
    build = {
        "name": p.name,
        "source": {
            "type": "CODECOMMIT",
            "location": f"https://git-codecommit.{p.region}.amazonaws.com/v1/repos/{p.name}",
        },
        "artifacts": {"type": "NO_ARTIFACTS"},
        "environment": {
            "type": "LINUX_CONTAINER",
            "image": "aws/codebuild/standard:7.0",
            "computeType": "BUILD_GENERAL1_SMALL",
        },
        "serviceRole": p.role,
    }
    return [
        Request("codecommit", "CreateRepository", {"repositoryName": p.name}, "shared code"),
        Request("codebuild", "CreateProject", build, "its tests, on every change"),
    ]
