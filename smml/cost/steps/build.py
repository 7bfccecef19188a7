"""Steps 1 to 8, up to a judged model, of the fourteen on AWS: the requests that would do each of them, as data."""

import json

from smml.cost.steps.project import Project, model_request
from smml.cost.steps.validate import Request


def environment(p: Project) -> list[Request]:
    """A managed notebook with the same packages."""
    fields = {
        "NotebookInstanceName": p.name,
        "InstanceType": p.cpu_instance,
        "RoleArn": p.role,
        "VolumeSizeInGB": 20,
        "Tags": p.tags,
    }
    return [Request("sagemaker", "CreateNotebookInstance", fields, "a managed notebook")]


def hardware(p: Project) -> list[Request]:
    """One GPU, as Spot capacity, gone when it shuts down."""
    fields = {
        "ImageId": "ami-0123456789abcdef0",
        "InstanceType": p.gpu_instance.removeprefix("ml."),
        "MinCount": 1,
        "MaxCount": 1,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "InstanceMarketOptions": {"MarketType": "spot"},
        "MetadataOptions": {"HttpTokens": "required"},
        "TagSpecifications": [{"ResourceType": "instance", "Tags": p.tags}],
    }
    return [Request("ec2", "RunInstances", fields, "a GPU by the second")]


def storage(p: Project) -> list[Request]:
    """A private, encrypted bucket; file systems for what needs one."""
    closed = dict.fromkeys(
        ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
    )
    return [
        Request("s3", "CreateBucket", {"Bucket": p.bucket}, "objects"),
        Request(
            "s3",
            "PutPublicAccessBlock",
            {"Bucket": p.bucket, "PublicAccessBlockConfiguration": closed},
            "nothing of it is public",
        ),
        Request(
            "efs",
            "CreateFileSystem",
            {"CreationToken": p.name, "Encrypted": True, "Tags": p.tags},
            "files that many machines share",
        ),
        Request(
            "fsx",
            "CreateFileSystem",
            {
                "FileSystemType": "LUSTRE",
                "StorageCapacity": 1200,
                "SubnetIds": ["subnet-0123456789abcdef0"],
                "LustreConfiguration": {"DeploymentType": "SCRATCH_2"},
                "Tags": p.tags,
            },
            "files as fast as many GPUs read",
        ),
    ]


def preprocessing(p: Project) -> list[Request]:
    """Tokenise in a job; the flow from data to model as a state machine."""
    cluster = {"InstanceType": p.cpu_instance, "InstanceCount": 1, "VolumeSizeInGB": 30}
    job = {
        "ProcessingJobName": f"{p.name}-tokenise",
        "AppSpecification": {"ImageUri": p.image, "ContainerEntrypoint": ["python", "-m", "smml"]},
        "ProcessingResources": {"ClusterConfig": cluster},
        "RoleArn": p.role,
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        "Tags": p.tags,
    }
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sagemaker:createProcessingJob.sync",
        "Parameters": {"ProcessingJobName.$": "$$.Execution.Name"}
        | {name: value for name, value in job.items() if name != "ProcessingJobName"},
        "Retry": [{"ErrorEquals": ["States.TaskFailed"], "MaxAttempts": 2}],
        "End": True,
    }
    flow = {"StartAt": "Tokenise", "States": {"Tokenise": task}}
    glue = {
        "Name": p.name,
        "Role": p.role,
        "Command": {"Name": "glueetl", "ScriptLocation": p.s3("code/prepare.py")},
        "WorkerType": "G.1X",
        "NumberOfWorkers": 2,
    }
    return [
        Request("sagemaker", "CreateProcessingJob", job, "tokenise, then nothing stays up"),
        Request("glue", "CreateJob", glue, "the same with Spark and a catalogue"),
        Request(
            "stepfunctions",
            "CreateStateMachine",
            {"name": p.name, "roleArn": p.role, "definition": json.dumps(flow)},
            "start it, retry it, go on",
        ),
    ]


def framework(p: Project) -> list[Request]:
    """A registry for the container that holds the framework."""
    fields = {
        "repositoryName": p.name,
        "imageTagMutability": "IMMUTABLE",
        "encryptionConfiguration": {"encryptionType": "AES256"},
        "tags": p.tags,
    }
    return [Request("ecr", "CreateRepository", fields, "one image for training and serving")]


def _training_job(p: Project) -> dict:
    return {
        "AlgorithmSpecification": {"TrainingImage": p.image, "TrainingInputMode": "File"},
        "RoleArn": p.role,
        "OutputDataConfig": {"S3OutputPath": p.s3("models")},
        "ResourceConfig": {
            "InstanceType": p.gpu_instance,
            "InstanceCount": 1,
            "VolumeSizeInGB": 50,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200},
        "EnableManagedSpotTraining": True,
        "CheckpointConfig": {"S3Uri": p.s3("checkpoints")},
    }


def training(p: Project) -> list[Request]:
    """One job on managed Spot capacity, which goes on from its checkpoint."""
    fields = {
        "TrainingJobName": p.name,
        "HyperParameters": {"learning_rate": "30", "steps": "150"},
        "Tags": p.tags,
    }
    return [Request("sagemaker", "CreateTrainingJob", _training_job(p) | fields, "train on Spot")]


def tuning(p: Project) -> list[Request]:
    """Eight such jobs, two at a time."""
    ranges = [
        {"Name": "learning_rate", "MinValue": "3", "MaxValue": "300", "ScalingType": "Logarithmic"}
    ]
    metric = {"Name": "loss", "Regex": "loss ([0-9.]+)"}
    definition = _training_job(p)
    definition["AlgorithmSpecification"] |= {"MetricDefinitions": [metric]}
    config = {
        "Strategy": "Bayesian",
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 8, "MaxParallelTrainingJobs": 2},
        "ParameterRanges": {"ContinuousParameterRanges": ranges},
    }
    fields = {
        "HyperParameterTuningJobName": p.name,
        "HyperParameterTuningJobConfig": config,
        "TrainingJobDefinition": definition,
        "Tags": p.tags,
    }
    return [Request("sagemaker", "CreateHyperParameterTuningJob", fields, "try eight rates")]


def evaluation(p: Project) -> list[Request]:
    """Predictions for everything held out."""
    source = {"S3DataType": "S3Prefix", "S3Uri": p.s3("held-out")}
    fields = {
        "TransformJobName": p.name,
        "ModelName": p.name,
        "TransformInput": {"DataSource": {"S3DataSource": source}},
        "TransformOutput": {"S3OutputPath": p.s3("predictions")},
        "TransformResources": {"InstanceType": p.cpu_instance, "InstanceCount": 1},
        "Tags": p.tags,
    }
    return [
        model_request(p),
        Request("sagemaker", "CreateTransformJob", fields, "predict, then end"),
    ]
