"""`smml decide compute|deploy|buy|place`: the decision with its reasons and what was rejected; exit 1 where nothing will do."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from smml.errors import UserError

if TYPE_CHECKING:
    from smml.cost.decisions.decision import Decision

app = typer.Typer(
    help="Decide for a workload, and say why: which compute, which deployment, which way to buy it, which place.",
    no_args_is_help=True,
)
AsJson = Annotated[bool, typer.Option("--json", help="The decision as JSON.")]
Capacity = Annotated[str, typer.Option(help="on-demand or spot.")]
_PURPOSES = {
    "training": "training",
    "real-time": "real-time inference",
    "batch": "batch inference",
}


@app.command()
def compute(
    purpose: Annotated[str, typer.Argument(help="training, real-time or batch.")],
    model: Annotated[str | None, typer.Option(help="A known shape, such as llama-3.1-8b.")] = None,
    parameters: Annotated[float | None, typer.Option(help="Numbers that a token uses.")] = None,
    dtype: Annotated[str, typer.Option(help="Of weights, products and KV cache.")] = "bf16",
    tokens: Annotated[float | None, typer.Option(help="Of one job.")] = None,
    deadline_hours: Annotated[
        float | None, typer.Option(help="Of one job, start-up in it.")
    ] = None,
    tokens_per_s: Annotated[float | None, typer.Option(help="Of a service at its peak.")] = None,
    average_load: Annotated[float, typer.Option(help="Mean traffic over the peak.")] = 1.0,
    latency_ms: Annotated[float | None, typer.Option(help="Of one token.")] = None,
    sequences: Annotated[int, typer.Option(help="Answered together by one model copy.")] = 1,
    context_tokens: Annotated[int, typer.Option(help="Held of each in the KV cache.")] = 0,
    budget_usd: Annotated[float | None, typer.Option(help="For the job, or a month.")] = None,
    instance: Annotated[str | None, typer.Option(help="Judge this EC2 type only.")] = None,
    region: Annotated[str | None, typer.Option(help="Whose prices; the catalogue's.")] = None,
    capacity: Capacity = "on-demand",
    as_json: AsJson = False,
) -> None:
    """Which EC2 type, how many, at what price; with --instance whether that type will do."""
    from smml.cost.decisions.decide_workload import decide

    if purpose not in _PURPOSES:
        raise UserError(
            f"purpose is {purpose!r}; allowed are {', '.join(_PURPOSES)}; give one of these."
        )
    _show(
        decide(
            _PURPOSES[purpose],
            model=model,
            parameters=parameters,
            dtype=dtype,
            sequences=sequences,
            context_tokens=context_tokens,
            instance=instance,
            region=region,
            capacity=capacity,
            tokens=tokens,
            deadline_hours=deadline_hours,
            tokens_per_s=tokens_per_s,
            average_load=average_load,
            latency_s=None if latency_ms is None else latency_ms / 1e3,
            budget_usd=budget_usd,
        ),
        as_json,
    )


@app.command()
def deploy(
    memory_gb: Annotated[float, typer.Option(help="Of model and runtime in use.")],
    requests_per_month: Annotated[float, typer.Option(help="Or predictions of a batch.")],
    work_seconds: Annotated[
        float, typer.Option(help="A request takes on one vCPU, or on the accelerator.")
    ],
    on: Annotated[
        str | None, typer.Option(help="Judge this target only: lambda, fargate, endpoint …")
    ] = None,
    gpu_memory_gb: Annotated[float, typer.Option(help="Where a GPU is needed.")] = 0.0,
    image_gb: Annotated[float, typer.Option(help="Container image.")] = 2.0,
    package_mb: Annotated[
        float | None, typer.Option(help=".zip package, unzipped, instead of an image.")
    ] = None,
    latency_s: Annotated[float | None, typer.Option(help="That every answer keeps.")] = None,
    cold_start_s: Annotated[float, typer.Option(help="Of a fresh Lambda.")] = 0.0,
    batch: Annotated[bool, typer.Option("--batch", help="Nobody waits for one answer.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Retrained on new data.")] = False,
    managed: Annotated[
        bool, typer.Option("--managed", help="Whole lifecycle, one service.")
    ] = False,
    own: Annotated[bool, typer.Option("--own", help="Own containers and infrastructure.")] = False,
    api_gateway: Annotated[bool, typer.Option("--api-gateway", help="In front of it.")] = False,
    capacity: Capacity = "on-demand",
    as_json: AsJson = False,
) -> None:
    """SageMaker, Lambda, ECS/EKS, AWS Batch or Kinesis + SageMaker; with --on whether that target will do."""
    from smml.cost.decisions.decide_target import judge, known_target
    from smml.cost.decisions.deployment import Deployment, choose_deployment

    wanted = Deployment(
        memory_bytes=memory_gb * 1e9,
        requests_per_month=requests_per_month,
        work_seconds_per_request=work_seconds,
        image_bytes=image_gb * 1e9,
        package_bytes=None if package_mb is None else package_mb * 1e6,
        latency_s=latency_s,
        cold_start_s=cold_start_s,
        needs_accelerator=gpu_memory_gb > 0,
        accelerator_memory_bytes=gpu_memory_gb * 1e9,
        batch=batch,
        retrains_on_stream=stream,
        managed_lifecycle=managed,
        own_infrastructure=own,
        behind_api_gateway=api_gateway,
    )
    if on is None and capacity != "on-demand":
        raise UserError(
            "--capacity belongs to one target: name it with --on, such as --on endpoint."
        )
    decision = (
        choose_deployment(wanted) if on is None else judge(wanted, known_target(on), capacity)
    )
    _show(decision, as_json)


@app.command()
def buy(
    instance: Annotated[str, typer.Argument(help="EC2 type, such as g6.xlarge.")],
    hours_per_month: Annotated[float, typer.Option(help="That each instance works, of 730.")] = 730,
    instances: Annotated[int, typer.Option(help="At work together.")] = 1,
    months: Annotated[float, typer.Option(help="Horizon.")] = 12,
    region: Annotated[str, typer.Option(help="Where.")] = "us-east-1",
    checkpoint_s: Annotated[
        float | None, typer.Option(help="The work may be interrupted: seconds of a checkpoint.")
    ] = None,
    restart_s: Annotated[float, typer.Option(help="From the loss to the first new step.")] = 300.0,
    taken_back: Annotated[
        float | None, typer.Option(help="Share of such spot instances lost in a month.")
    ] = None,
    discount_rate: Annotated[float, typer.Option(help="Of money, a year.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """On demand, spot, committed or in blocks: the cheapest way to have an instance type for so many hours."""
    from smml.cost.buying.choose import Interruptible, choose_purchase
    from smml.cost.buying.demand import monthly

    if checkpoint_s is None and taken_back is not None:
        raise UserError(
            "--taken-back belongs to work that may be interrupted: give --checkpoint-s."
        )
    work = None if checkpoint_s is None else Interruptible(checkpoint_s, restart_s, taken_back)
    _show(
        choose_purchase(
            instance,
            monthly(hours_per_month, instances),
            months,
            region=region,
            interruptible=work,
            discount_rate=discount_rate,
        ),
        as_json,
    )


@app.command()
def place(
    mean_machines: Annotated[float, typer.Option(help="At work on average.")],
    peak_machines: Annotated[float, typer.Option(help="At work at the busiest moment.")],
    usd_per_hour: Annotated[float, typer.Option(help="Of one rented machine.")],
    own_purchase_usd: Annotated[float, typer.Option(help="Of one machine like it.")],
    own_usd_per_month: Annotated[float, typer.Option(help="Its power, space and people.")],
    horizon_months: Annotated[float, typer.Option(help="That the workload lasts.")] = 36,
    own_lifetime_months: Annotated[float, typer.Option(help="Then it is bought again.")] = 48,
    needed_in_days: Annotated[float | None, typer.Option(help="From now.")] = None,
    own_delivery_days: Annotated[float, typer.Option(help="Until it stands.")] = 60,
    data_must_stay: Annotated[bool, typer.Option("--data-must-stay")] = False,
    shapes_hardware: Annotated[bool, typer.Option("--shapes-hardware")] = False,
    managed: Annotated[bool, typer.Option("--managed")] = False,
    as_json: AsJson = False,
) -> None:
    """Hardware of one's own or AWS, with the month from which buying pays."""
    given = dict(locals())
    shown = given.pop("as_json")
    from smml.cost.decisions.decide_place import Placement, choose_place

    _show(choose_place(Placement(**given)), shown)


def _show(decision: "Decision", as_json: bool) -> None:
    """Print the decision; exit 1 where nothing will do, so that a script can tell."""
    if as_json:
        print(json.dumps(as_dict(decision), indent=2, ensure_ascii=False))
    else:
        print(decision.explain())
    if decision.choice is None:
        raise typer.Exit(1)


def as_dict(decision: "Decision") -> dict:
    """The decision as JSON holds it: choice and price None where nothing will do."""
    price = decision.price
    return {
        "choice": None if decision.choice is None else str(decision.choice),
        "price": None if price is None else {"usd": price.usd, "per": price.per},
        "reasons": decision.reasons,
        "rejected": [
            {"option": one.option, "would_do": one.feasible, "why": one.why}
            for one in decision.rejected
        ],
    }
