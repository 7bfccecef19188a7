"""What is to be computed: a typed workload of which machines are chosen."""

from dataclasses import dataclass
from typing import Literal

from smml.cost.decisions.decision import HOURS_PER_MONTH
from smml.data import limits
from smml.data.catalogue import dtype_key
from smml.errors import UserError

Purpose = Literal["training", "real-time inference", "batch inference"]
Operators = Literal["standard", "custom C++", "CUDA or Triton"]
_CHOICES = {
    "purpose": ("training", "real-time inference", "batch inference"),
    "operators": ("standard", "custom C++", "CUDA or Triton"),
}


@dataclass(frozen=True)
class Workload:
    """A job (training, batch inference: `tokens`, perhaps a deadline) or a service (`tokens_per_s` at its peak).

    A token stands for one row or one image where the model produces none. Raises UserError naming the field.

    parameters              numbers that take part in every token, N
    dtype                   of weights and products; a CPU computes each dtype at its fp32 rate
    bytes_per_parameter     held per parameter: 2 for bf16 weights, 16 when AdamW trains them (arXiv:1910.02054)
    extra_memory_bytes      beside them, per model copy: KV cache of the whole batch, activations
    host_memory_bytes       of the runtime beside the model, counted where the model lies in the host's memory
    flops_per_token         6N in training and 2N in inference where None (arXiv:2001.08361, section 2.1)
    tokens, deadline_hours  of one job, start-up included in the deadline
    tokens_per_step         global batch of training: gradients cross the network once a step
    startup_s               paid in each job before its first token: boot, image, weights
    tokens_per_s            of a service at its peak; average_load is the mean share of the peak
    latency_s               of one token of one sequence; batch_size sequences go through one model copy together
    hours_per_month         that a service is up
    budget_usd              for the job, or for a month of the service
    static_shapes           all tensor sizes are known when the model is compiled
    utilization             share of the roof that the program reaches, where nothing was measured
    """

    purpose: Purpose
    parameters: float
    dtype: str = "bf16"
    bytes_per_parameter: float = 2.0
    extra_memory_bytes: float = 0.0
    host_memory_bytes: float = 2.0**30
    flops_per_token: float | None = None
    tokens: float | None = None
    deadline_hours: float | None = None
    tokens_per_step: float = 1e6
    startup_s: float = 300.0
    tokens_per_s: float | None = None
    average_load: float = 1.0
    latency_s: float | None = None
    batch_size: int = 1
    hours_per_month: float = HOURS_PER_MONTH
    budget_usd: float | None = None
    operators: Operators = "standard"
    static_shapes: bool = True
    runs_on_arm: bool = True
    utilization: float = limits.limit("model_flops_utilization").value

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UserError(
                    f"{name} is {getattr(self, name)!r}; allowed are {', '.join(allowed)}; give one of these."
                )
        dtype_key(self.dtype)
        positive = [
            "parameters",
            "bytes_per_parameter",
            "batch_size",
            "hours_per_month",
            "tokens_per_step",
        ]
        optional = (
            "flops_per_token",
            "tokens",
            "deadline_hours",
            "tokens_per_s",
            "latency_s",
            "budget_usd",
        )
        for name in positive + [name for name in optional if getattr(self, name) is not None]:
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)!r}; give a number above 0.")
        for name in ("extra_memory_bytes", "host_memory_bytes", "startup_s"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} is {getattr(self, name)!r}; give 0 or more.")
        for name in ("utilization", "average_load"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(
                    f"{name} is {getattr(self, name)!r}; it is a share: give 0 < {name} <= 1."
                )
        needed = "tokens_per_s" if self.is_service else "tokens"
        foreign = ("tokens", "deadline_hours") if self.is_service else ("tokens_per_s", "latency_s")
        if getattr(self, needed) is None:
            raise UserError(f"{self.purpose} needs {needed}; give a number above 0.")
        for name in foreign:
            if getattr(self, name) is not None:
                raise UserError(
                    f"{name} does not belong to {self.purpose}; leave it out, give {needed}."
                )

    @property
    def is_service(self) -> bool:
        """Whether it is up all the time and billed by the month; else it is a job, billed for its run."""
        return self.purpose == "real-time inference"

    @property
    def token_flops(self) -> float:
        """FLOPs per token, given or by the 6N or 2N rule."""
        if self.flops_per_token is not None:
            return self.flops_per_token
        return (6 if self.purpose == "training" else 2) * self.parameters

    @property
    def weight_bytes(self) -> float:
        """Bytes of all parameters as held; in inference every step reads them once."""
        return self.parameters * self.bytes_per_parameter

    @property
    def memory_bytes(self) -> float:
        """Bytes of one model copy: parameters and what lies beside them."""
        return self.weight_bytes + self.extra_memory_bytes
