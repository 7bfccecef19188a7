"""On what: accelerators in nodes, the links in a node and between nodes, and what an accelerator-hour costs. Pure."""

import math
import re
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from smml.data import Accelerator, accelerators, instance, instances
from smml.errors import UserError
from smml.plan.constants import constant, constant_of, constants

NETWORKS = ("infiniband", "efa", "ethernet")
# The full board of an architecture, whose watts per peak FLOP/s its constants assume.
_REFERENCE = {
    "Ampere": "a100-80gb-sxm",
    "Hopper": "h100-sxm",
    "Ada Lovelace": "l40s",
    "Blackwell": "b200",
}
# The board that is meant where only the chip is named.
_USUAL = {"a100": "a100-80gb-sxm", "h100": "h100-sxm", "h200": "h200-sxm", "v100": "v100-16gb"}
_SLOTS = ("pcie", "nvl")
# Architectures whose matrix units read shared memory by themselves, for which FlashAttention-3 and its like are written.
LATE = ("Hopper", "Blackwell")


@dataclass(frozen=True)
class Fabric:
    """A link as one accelerator sees it: bytes/s one way, and seconds before a message's first byte."""

    kind: str
    bandwidth_bytes_per_s: float
    latency_s: float


@dataclass(frozen=True)
class Cluster:
    """`gpus` accelerators, `gpus_per_node` of them joined by `inside`, nodes joined by `between`.

    `instance` is the EC2 type where one was named; accelerators are paid for in whole lots of `sold_by`.
    """

    key: str
    gpus: int
    gpus_per_node: int
    inside: Fabric
    between: Fabric
    power_w: float | None
    bandwidth_bytes_per_s: float
    price_usd_per_gpu_hour: float | None = None
    sold_by: int = 1
    instance: str | None = None

    @property
    def nodes(self) -> int:
        """Nodes that the accelerators stand in."""
        return -(-self.gpus // self.gpus_per_node)

    @property
    def billed_gpus(self) -> int:
        """Accelerators that are paid for: whole lots."""
        return -(-self.gpus // self.sold_by) * self.sold_by

    @cached_property
    def accelerator(self) -> Accelerator:
        """The catalogue's entry."""
        return accelerators()[self.key]

    @cached_property
    def processors(self) -> int | None:
        """Streaming multiprocessors, over which tiles are dealt in waves; None where not known."""
        chip, *board = self.key.split("-")
        name = f"multiprocessors_{chip}"
        cut_down = chip == "h100" and "sxm" not in board  # the PCIe and NVL boards carry fewer
        return None if cut_down or name not in constants() else int(constant(name))

    @cached_property
    def power_share(self) -> float:
        """Watts per peak FLOP/s against the architecture's full board, at most 1."""
        reference = accelerators().get(_REFERENCE.get(self.accelerator.architecture, self.key))
        if self.power_w is None or reference is None or reference.power is None:
            return 1.0
        mine, theirs = self.accelerator.peak_flops("fp16"), reference.peak_flops("fp16")
        if mine is None or theirs is None:
            return 1.0
        return min(1.0, (self.power_w / mine.value) / (reference.power.value / theirs.value))

    @cached_property
    def clock_share(self) -> float:
        """Clock under the power limit against the full board's. The limit acts on the mean of many kernels, so that it
        slows all that the clock bounds, attention as well as products.
        """
        return self.power_share ** constant("power_exponent")

    def matmul_flops_per_s(self, dtype: str) -> float:
        """FLOP/s of large products under the power limit, before waves. Raises UserError without a peak for dtype."""
        peak = self.peak_flops(dtype)
        if dtype == "fp8":
            share = constant("matmul_share_8bit")
        else:
            share = constant_of("matmul_share", self.accelerator.architecture.split()[0])
        return peak * share * self.clock_share

    def peak_flops(self, dtype: str) -> float:
        """Dense peak of the datasheet, FLOP/s. Raises UserError naming dtype where there is none."""
        peak = self.accelerator.peak_flops(dtype)
        if peak is None:
            known = ", ".join(self.accelerator.dense_peak_flops)
            raise UserError(
                f"dtype is {dtype!r}: the catalogue holds no such peak of {self.accelerator.name}, only {known}. "
                "Choose one of these or another accelerator."
            )
        return peak.value

    @cached_property
    def memory_bytes_per_s(self) -> float:
        """Bytes/s that kernels get from device memory."""
        return self.bandwidth_bytes_per_s * constant("memory_bandwidth_share")

    @cached_property
    def usable_bytes(self) -> float:
        """Bytes that the allocator may hand out: the memory less context and communication buffers.

        Drivers count the marketed GB as GiB, less what they keep; the marketed figure is the careful one.
        """
        return self.accelerator.memory.value - constant("context_bytes")

    def at_price(self, usd_per_gpu_hour: float, sold_by: int = 1) -> "Cluster":
        """The same cluster at another price, sold in lots of `sold_by`."""
        return replace(self, price_usd_per_gpu_hour=usd_per_gpu_hour, sold_by=sold_by)

    def group(self, ranks: int, stride: int) -> Fabric:
        """The link of a collective over `ranks` ranks that stand `stride` apart in the order of ranks.

        Inside a node it is `inside`. Across nodes every member in a node brings its own adapter, up to `inside`; where
        nodes do not divide into groups, or the last node is not full, the group with the fewest there is waited for.
        """
        span, node = ranks * stride, self.gpus_per_node
        if self.gpus <= node or (span <= node and node % span == 0):
            return self.inside
        alone = span >= self.gpus  # one group, which only a last node that is not full cuts short
        fewest = (self.gpus % node or node) // stride if alone else math.gcd(ranks, node // stride)
        members = max(1, min(ranks, fewest))
        return Fabric(
            self.between.kind,
            min(self.inside.bandwidth_bytes_per_s, members * self.between.bandwidth_bytes_per_s),
            self.between.latency_s,
        )


def cluster(
    accelerator: str,
    gpus: int,
    *,
    network: str | None = None,
    network_gbit_per_s: float | None = None,
    gpus_per_node: int | None = None,
    price_usd_per_gpu_hour: float | None = None,
) -> Cluster:
    """`gpus` of an accelerator of the catalogue, or of an EC2 instance type with its network and price.

    `accelerator`: a key such as "h100-sxm", a short name such as "h100", an instance type such as "p5.48xlarge", each
    optionally with what differs in this board: "h100-96gb, 500 W, 2.4 TB/s". `network_gbit_per_s` is an accelerator's
    share of its node's network, one way; `network` where None is EFA on EC2, else InfiniBand beside NVLink. Raises UserError naming the field.
    """
    if not isinstance(gpus, int) or isinstance(gpus, bool) or gpus < 1:
        raise UserError(f"gpus is {gpus!r}: give a whole number of 1 or more.")
    if network is not None and network not in NETWORKS:
        raise UserError(f"network is {network!r}: there are {', '.join(NETWORKS)}. Choose one.")
    for field, value in {
        "network_gbit_per_s": network_gbit_per_s,
        "gpus_per_node": gpus_per_node,
        "price_usd_per_gpu_hour": price_usd_per_gpu_hour,
    }.items():
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{field} is {value!r}: give a number above 0 or leave it out.")
    if gpus_per_node is not None and gpus_per_node != int(gpus_per_node):
        raise UserError(f"gpus_per_node is {gpus_per_node!r}: give a whole number of 1 or more.")
    name, *rest = (part.strip() for part in accelerator.lower().split(","))
    hosted = instance(name)
    if hosted is not None and hosted.accelerator is not None:
        key, per_node = hosted.accelerator, hosted.accelerator_count
        sold_by = per_node if price_usd_per_gpu_hour is None else 1
        network = network or ("efa" if hosted.efa else "ethernet")
        gbit = hosted.network_baseline.value / per_node
        price_usd_per_gpu_hour = price_usd_per_gpu_hour or hosted.price_usd_per_accelerator_hour
    else:
        key, hosted, sold_by = _key(name), None, 1
        per_node, gbit = _node_of(key)
    device = accelerators()[key]
    power = device.power.value if device.power else None
    memory = device.bandwidth.value
    for part in rest:
        said = re.fullmatch(r"(\d+\.?\d*|\.\d+) ?(w|tb/s)", part)
        if said is None or not float(said[1]) > 0:
            raise UserError(
                f"accelerator is {accelerator!r}: {part!r} is no power ('500 W') and no bandwidth ('2.4 TB/s'). "
                "Correct or drop it."
            )
        if said[2] == "w":
            power = float(said[1])
        else:
            memory = float(said[1]) * 1e12
    pcie = device.interconnect is None or "PCIe" in (device.interconnect_kind or "")
    kind = "pcie" if pcie else "nvlink"
    network = network or ("ethernet" if pcie else "infiniband")
    # The catalogue counts both directions; without a link of its own a device has its slot.
    one_way = device.interconnect.value / 2 if device.interconnect else constant("slot_bytes_per_s")
    gbit = network_gbit_per_s or gbit
    return Cluster(
        key,
        gpus,
        gpus_per_node or per_node,
        Fabric(kind, one_way * constant(f"link_share_{kind}"), constant(f"latency_{kind}_s")),
        Fabric(
            network,
            gbit / 8 * 1e9 * constant(f"link_share_{network}"),
            constant(f"latency_{network}_s"),
        ),
        power,
        memory,
        price_usd_per_gpu_hour,
        sold_by,
        hosted.name if hosted else None,
    )


def _key(name: str) -> str:
    """The catalogue's key of a name as tables print it: "a100-80gb", "H100 PCIe", "h100-80gb-hbm3", "H100 SXM5 96GB"."""
    chip, *board = re.split(r"[-_ ]+", name.removeprefix("nvidia").strip("-_ "))
    fitting = []
    for key in accelerators():
        same, *parts = key.split("-")
        sizes = {part for part in parts if part.endswith("gb")}
        said = {part for part in board if part.endswith("gb")}
        contradicts = sizes and said and sizes != said
        alike = all((slot in parts) == (slot in board) for slot in _SLOTS)
        if same == chip and alike and not contradicts:
            fitting.append((bool(sizes & said), key == _USUAL.get(chip), key == name, key))
    if name in accelerators():
        return name
    if not fitting:
        raise UserError(
            f"accelerator is {name!r}: the catalogue holds {', '.join(accelerators())} and EC2 types with accelerators; "
            "a chip's name and its memory, such as 'a100-40gb', will do. Choose one."
        )
    return max(fitting)[-1]


@lru_cache
def _node_of(key: str) -> tuple[int, float]:
    """Accelerators a node and Gbit/s an accelerator: of a DGX or HGX system, else of the largest EC2 type with it."""
    device = accelerators()[key]
    if not (device.interconnect_kind and "NVLink" in device.interconnect_kind):
        hosts = [entry for entry in instances().values() if entry.accelerator == key]
        if hosts:
            largest = max(hosts, key=lambda entry: entry.accelerator_count)
            count = largest.accelerator_count
            return count, largest.network_baseline.value / count
    return 8, constant_of("adapter_gbit_per_s", device.architecture.split()[0])
