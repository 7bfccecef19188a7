"""Jobs, layouts and clusters that the planner's tests draw from; strategies of hypothesis."""

from dataclasses import replace

from hypothesis import strategies as st

from smml.plan.cluster import cluster
from smml.plan.layout import Job, Layout
from smml.plan.shape import named_shape

MODELS = ("llama-3.2-1b", "llama-3.1-8b", "llama-3.1-70b", "gpt-22b", "gpt-175b", "mixtral-8x7b")
ACCELERATORS = ("a100-40gb", "a100-80gb", "h100", "h100-96gb", "h200", "p5.48xlarge", "b200")

jobs = st.builds(
    lambda model, length, batch, dtype, engine, attention: Job(
        replace(named_shape(model), learned_positions=2 * length * (model.startswith("gpt"))),
        *(length, batch, dtype, engine, attention),
    ),
    st.sampled_from(MODELS),
    st.sampled_from((2048, 8192)),
    st.sampled_from((256, 512)),
    st.sampled_from(("bf16", "fp16")),
    st.sampled_from(("eager", "fused", "compiled")),
    st.sampled_from(("unfused", "flash", "flash3")),
)


@st.composite
def planned(draw):
    """A job, a cluster and a layout that can carry it."""
    job, accelerator = draw(jobs), draw(st.sampled_from(ACCELERATORS))
    if accelerator.startswith("a100") and job.attention == "flash3":
        job = replace(job, attention="flash")
    t, p = draw(st.sampled_from((1, 2, 4, 8))), draw(st.sampled_from((1, 2, 4)))
    d = draw(st.sampled_from((1, 2, 8, 32)))
    c = 1 if job.attention == "unfused" else draw(st.sampled_from((1, 2)))
    layout = Layout(
        data_parallel=d,
        tensor_parallel=t,
        pipeline_parallel=p,
        context_parallel=c,
        micro_batch_size=draw(st.sampled_from((1, 2, 4))),
        interleave=draw(st.sampled_from((1, 2))) if p > 1 else 1,
        sequence_parallel=t > 1 and draw(st.booleans()),
        zero_stage=draw(st.sampled_from((0, 1, 2, 3))),
        recompute=draw(st.sampled_from(("none", "selective", "full"))),
        overlap_tensor=draw(st.sampled_from(("none", "backward", "full"))),
        overlap_data=draw(st.booleans()),
        overlap_pipeline=draw(st.booleans()),
    )
    place = cluster(accelerator, layout.world_size)
    if layout.problem(job, place.gpus):
        layout = replace(layout, interleave=1)
    return place, job, layout


def eight_billion(**changes) -> tuple:
    """Llama 3.1 8B on eight H100 with FSDP, `changes` of Layout applied."""
    job = Job(named_shape("llama-3.1-8b"), 8192, 64)
    fields = {"data_parallel": 8, "zero_stage": 3, "recompute": "selective"} | changes
    layout = Layout(**fields)
    return cluster("h100", layout.world_size), job, layout
