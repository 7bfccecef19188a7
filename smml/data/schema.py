"""What a fact is: a value with unit, source and date; and what the catalogue states of an accelerator and an instance."""

import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from smml.errors import UserError

DTYPES = ("fp64", "fp64_tensor", "fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp4")
_TORCH_NAMES = {
    "float64": "fp64",
    "double": "fp64",
    "float32": "fp32",
    "float": "fp32",
    "tfloat32": "tf32",
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float8_e4m3fn": "fp8",
    "float8_e5m2": "fp8",
    "float4_e2m1fn_x2": "fp4",
}
# Datasheets round to three or four digits; a wider gap is a dense figure in the sparse table or the reverse.
SPARSE_TOLERANCE = 0.01

Dtype = Literal["fp64", "fp64_tensor", "fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp4"]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(strict=True, ge=1)]


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Source(_Fact):
    """A document. `checked`: the figures were read in it, or in the quotation that the title names."""

    title: Text
    url: Annotated[str, Field(pattern=r"^https?://\S+$")]
    date: datetime.date
    checked: Annotated[bool, Field(strict=True)]


class Quantity(_Fact):
    """A positive figure in `unit`, where it was read, and the day for which it was read there."""

    value: Annotated[float, Field(strict=True, gt=0)]
    unit: Text
    source: Text
    url: str
    date: datetime.date
    checked: bool


class Accelerator(_Fact):
    """One device: memory in B, bandwidth and interconnect in B/s, power in W, peaks in FLOP/s, dense apart from sparse."""

    key: Text
    name: Text
    vendor: Text
    architecture: Text
    compute_capability: Annotated[str, Field(pattern=r"^\d+\.\d+$")] | None = None
    released: Annotated[int, Field(strict=True, ge=2010, le=2100)]
    match: Annotated[list[Text], Field(min_length=1)]
    memory: Quantity
    bandwidth: Quantity
    interconnect: Quantity | None = None
    interconnect_kind: Text | None = None
    power: Quantity | None = None
    matrix_unit_dtypes: list[Dtype]
    dense_peak_flops: Annotated[dict[Dtype, Quantity], Field(min_length=1)]
    sparse_peak_flops: dict[Dtype, Quantity] = {}
    sparse_exceptions: dict[Dtype, Text] = {}

    @model_validator(mode="after")
    def _dense_and_sparse_stay_apart(self) -> "Accelerator":
        for dtype, sparse in self.sparse_peak_flops.items():
            dense = self.dense_peak_flops.get(dtype)
            if dense is None or dtype in self.sparse_exceptions:
                continue
            if abs(sparse.value - 2 * dense.value) > SPARSE_TOLERANCE * sparse.value:
                raise ValueError(
                    f"dense_peak_flops.{dtype} = {dense.value:g} is not half of sparse_peak_flops.{dtype} = "
                    f"{sparse.value:g}; correct one of them, or state the reason in sparse_exceptions.{dtype}"
                )
        for dtype, sparse in self.sparse_peak_flops.items():
            if (
                dtype in self.dense_peak_flops
                and sparse.value <= self.dense_peak_flops[dtype].value
            ):
                raise ValueError(
                    f"sparse_peak_flops.{dtype} must exceed dense_peak_flops.{dtype}; are they swapped?"
                )
        for dtype in self.sparse_exceptions:
            if dtype not in self.dense_peak_flops or dtype not in self.sparse_peak_flops:
                raise ValueError(
                    f"sparse_exceptions.{dtype} stands without a dense and a sparse peak of {dtype}"
                )
        for dtype in self.matrix_unit_dtypes:
            if dtype not in self.dense_peak_flops:
                raise ValueError(
                    f"matrix_unit_dtypes names {dtype}, which dense_peak_flops does not hold"
                )
        if (self.interconnect is None) != (self.interconnect_kind is None):
            raise ValueError("interconnect and interconnect_kind stand together or not at all")
        return self

    def peak_flops(self, dtype: str) -> Quantity | None:
        """Dense peak in FLOP/s; None where the vendor states none. fp32 is the ordinary one, tf32 a key of its own.

        `dtype` is a key such as "bf16" or a torch name such as "bfloat16" or "torch.bfloat16".
        Raises UserError for a name that is neither.
        """
        return self.dense_peak_flops.get(dtype_key(dtype))


class Instance(_Fact):
    """One EC2 type: memory in GiB, network in Gbit/s, local NVMe in GB, price in USD/h for Linux in `region`.

    `network` is a burst ("up to") where `network_baseline` is lower. `price_kind` says what the price buys.
    """

    name: Text
    family: Text
    vcpu: Count
    memory: Quantity
    accelerator: Text | None = None
    accelerator_count: Annotated[int, Field(strict=True, ge=0)] = 0
    network: Quantity
    network_baseline: Quantity
    efa: Annotated[bool, Field(strict=True)] = False
    local_nvme: Quantity | None = None
    price_usd_per_hour: Quantity | None = None
    price_kind: Literal["on-demand", "capacity block"]
    region: Annotated[str, Field(pattern=r"^[a-z]{2}-[a-z]+-\d$")]
    status: Literal["current", "previous generation", "withdrawn"]

    @model_validator(mode="after")
    def _parts_agree(self) -> "Instance":
        if (self.accelerator is None) != (self.accelerator_count == 0):
            raise ValueError(
                "accelerator (of the family) and accelerators (of the size) stand together or not at all"
            )
        if self.network_baseline.value > self.network.value:
            raise ValueError("network_baseline must not exceed network")
        return self

    @property
    def price_usd_per_accelerator_hour(self) -> float | None:
        """Price of one accelerator for an hour; None without accelerators or without a known price."""
        if self.price_usd_per_hour is None or not self.accelerator_count:
            return None
        return self.price_usd_per_hour.value / self.accelerator_count


def dtype_key(dtype: str) -> str:
    """The catalogue's name ("bf16") of a dtype given by it or by its torch name ("bfloat16", "torch.bfloat16").

    Raises UserError for any other name.
    """
    name = str(dtype).removeprefix("torch.")
    key = _TORCH_NAMES.get(name, name)
    if key not in DTYPES:
        raise UserError(
            f"unknown dtype {dtype!r}; allowed are {', '.join(DTYPES)} and torch's names "
            f"({', '.join(_TORCH_NAMES)}); give one of these."
        )
    return key
