"""Which tool prepares the data: this machine, Lambda, Athena, Glue, SageMaker Processing, AWS Batch, a stream, a state machine."""

from dataclasses import dataclass
from typing import Literal

from smml.cost.decisions.decision import Decision, Rejected, amount, count, seconds
from smml.data import limits
from smml.errors import UserError

Tool = Literal[
    "this machine",
    "AWS Lambda",
    "Amazon Athena",
    "AWS Glue",
    "SageMaker Processing",
    "AWS Batch",
    "Amazon Kinesis",
    "Amazon MSK",
    "AWS Step Functions",
]


@dataclass(frozen=True)
class DataTask:
    """One piece of work on data. Raises UserError naming the field.

    data_bytes           in all; piece_bytes of the largest piece that is worked on by itself (a file, a record)
    seconds_per_gb       of the work on one vCPU; free_memory_bytes of the machine at hand
    steps                that follow each other with retries and branches between
    in_s3                the data lie there; else they lie on the machine at hand
    sql                  the question is a query; catalogue: tables shall be found and described for others
    on_arrival           each piece is worked on when it comes; stream: records come without end, in order
    kafka                those who write or read the stream speak Kafka's protocol
    needs_gpu, managed   a GPU is needed; the step belongs to a lifecycle that SageMaker runs
    """

    data_bytes: float
    piece_bytes: float
    seconds_per_gb: float = 60.0
    free_memory_bytes: float = 8e9
    steps: int = 1
    in_s3: bool = True
    sql: bool = False
    catalogue: bool = False
    on_arrival: bool = False
    stream: bool = False
    kafka: bool = False
    needs_gpu: bool = False
    managed: bool = False

    def __post_init__(self) -> None:
        for name in ("data_bytes", "piece_bytes", "seconds_per_gb", "free_memory_bytes", "steps"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)!r}; give a number above 0.")
        if self.piece_bytes > self.data_bytes:
            raise UserError(
                f"piece_bytes is {self.piece_bytes:g} and data_bytes is {self.data_bytes:g}: a piece is no larger than "
                "all; give both anew."
            )

    @property
    def piece_seconds(self) -> float:
        """Work on the largest piece, on one vCPU."""
        return self.piece_bytes / 1e9 * self.seconds_per_gb


def choose_data_tool(task: DataTask) -> Decision[Tool]:
    """The tool that suits, what is excluded first; the reasons carry the numbers."""
    against = {"AWS Lambda": lambda_refusal(task), "this machine": _too_large(task)}
    lost = [Rejected(name, why) for name, why in against.items() if why]
    if task.steps > 1:
        return Decision(
            "AWS Step Functions",
            [
                f"{count(task.steps, 'step')} follow each other: a state machine starts them, retries and branches; "
                "each step's own tool is decided by itself (steps=1)."
            ],
            lost,
        )
    if task.stream:
        tool: Tool = "Amazon MSK" if task.kafka else "Amazon Kinesis"
        why = (
            "its writers or readers speak Kafka" if task.kafka else "nobody needs Kafka's protocol"
        )
        return Decision(tool, [f"Records come without end, and {why}."], lost)
    if not task.in_s3 and not against["this machine"] and not task.needs_gpu:
        return Decision(
            "this machine",
            [
                f"{amount(task.data_bytes, 'B')} lie here and fit into {amount(task.free_memory_bytes, 'B')} of free "
                f"memory; {seconds(task.data_bytes / 1e9 * task.seconds_per_gb)} on one core, nothing to pay."
            ],
            [one for one in lost if one.option != "this machine"],
        )
    if task.sql:
        return Decision(
            "Amazon Athena",
            ["The question is a query over files in S3: paid by bytes scanned, nothing stays up."],
            lost,
        )
    if task.on_arrival and not against["AWS Lambda"]:
        return Decision(
            "AWS Lambda",
            [
                f"Each piece comes by itself, {seconds(task.piece_seconds)} of work, and Lambda allows "
                f"{seconds(limits.limit('lambda_timeout').value)}; nothing is paid between."
            ],
            lost,
        )
    if task.managed:
        return Decision(
            "SageMaker Processing",
            [
                "The step belongs to a lifecycle that SageMaker runs: same roles, records and images."
            ],
            lost,
        )
    if task.catalogue and not task.needs_gpu:
        return Decision(
            "AWS Glue",
            ["Tables shall be found by others: Glue prepares them and keeps their catalogue."],
            lost,
        )
    gpu = ", on instances with a GPU" if task.needs_gpu else ""
    return Decision(
        "AWS Batch",
        [
            f"{amount(task.data_bytes, 'B')} in one go: a queue of containers{gpu}, on capacity that ends with the job "
            "and may be Spot."
        ],
        lost,
    )


def lambda_refusal(task: DataTask) -> str:
    """Which limit of Lambda the largest piece breaks, with both numbers; empty if none."""
    memory, timeout = limits.limit("lambda_memory").value, limits.limit("lambda_timeout").value
    if task.needs_gpu:
        return f"{limits.fact('lambda_accelerators').says}, and a GPU is needed"
    if task.piece_bytes > memory:
        return f"a piece has {amount(task.piece_bytes, 'B')}, Lambda gives {amount(memory, 'B')} of memory"
    if task.piece_seconds > timeout:
        return f"a piece takes {seconds(task.piece_seconds)}, Lambda stops after {seconds(timeout)}"
    return ""


def _too_large(task: DataTask) -> str:
    if task.in_s3:
        return "the data lie in S3, fetching them is paid for"
    if task.data_bytes > task.free_memory_bytes:
        return f"{amount(task.data_bytes, 'B')} do not fit into {amount(task.free_memory_bytes, 'B')} of free memory"
    return ""
