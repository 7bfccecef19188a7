"""Workloads that the tests of choosing compute share."""

import dataclasses

from smml.cost.decisions.deployment import Deployment
from smml.cost.decisions.workload import Workload

LLAMA_8B = {"parameters": 8.03e9, "dtype": "bf16"}
# A classical model: a few thousand coefficients, a row at a time.
CLASSICAL = Workload(
    "real-time inference",
    1e4,
    dtype="fp32",
    bytes_per_parameter=4,
    tokens_per_s=100,
    average_load=0.1,
)
CHAT = Workload(
    "real-time inference", **LLAMA_8B, tokens_per_s=400, batch_size=16, extra_memory_bytes=4e9
)
PRETRAINING = Workload(
    "training",
    **LLAMA_8B,
    bytes_per_parameter=16,
    tokens=1e10,
    deadline_hours=240,
    operators="CUDA or Triton",
)
PROTOTYPE = Workload("real-time inference", 1.24e9, tokens_per_s=0.2, average_load=0.1)
PERFORMANCE = dataclasses.replace(PROTOTYPE, tokens_per_s=200, latency_s=0.02)
NIGHTLY = Workload("batch inference", 1.1e8, dtype="fp16", tokens=1e5, batch_size=8)
BULK = dataclasses.replace(NIGHTLY, tokens=1e9, batch_size=64)
UNHURRIED = Workload("training", 1e6, dtype="fp32", bytes_per_parameter=16, tokens=1e7)
URGENT = dataclasses.replace(UNHURRIED, deadline_hours=0.1)
SMALL = Deployment(
    memory_bytes=5e8,
    requests_per_month=1e5,
    work_seconds_per_request=0.05,
    latency_s=2,
    cold_start_s=1,
)
