"""Commands on this machine and what it reaches: doctor, bench, figures, compare, plot."""

from pathlib import Path
from typing import Annotated

import typer

from smml import paths
from smml.cli.notebooks import Profile
from smml.errors import UserError


def doctor() -> None:
    """Examine this machine; every finding names its fix; exit 1 only for what blocks a run."""
    from smml.doctor import examine, exit_code, render
    from smml.hardware import detect

    findings = examine(detect(refresh=True))
    print(render(findings))
    raise typer.Exit(exit_code(findings))


def bench(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Which measurements; `all` of the machine, `kernels` for Triton's beside their peers, `devices` "
            "for strategies beside theirs."
        ),
    ],
    profile: Profile = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the records; default build/records/bench.")
    ] = None,
    refresh: Annotated[
        bool, typer.Option(help="Measure the machine's ceilings anew first.")
    ] = False,
    inject_slowdown: Annotated[
        int, typer.Option(help="Do every call N times: proves that compare can fail.")
    ] = 1,
) -> None:
    """Measure on this machine and write one record a quantity."""
    from smml.bench import BENCHES, OF_DEVICES, OF_KERNELS, OF_THE_MACHINE, Setting

    for group, of_group in (("KERNELS", OF_KERNELS), ("DEVICES", OF_DEVICES)):
        if names == [group.lower()]:
            return _bench_apart(group, of_group, profile, out or paths.records() / "bench")
    chosen = OF_THE_MACHINE if names == ["all"] else names
    unknown = [name for name in chosen if name not in BENCHES]
    if unknown:
        raise UserError(
            f"no bench named {', '.join(unknown)}; there are: {', '.join(BENCHES)}, all, kernels, devices."
        )
    for name in chosen:
        setting = Setting.here(f"bench/{name}", profile, refresh=refresh, slowdown=inject_slowdown)
        where = (out or paths.records() / "bench") / name
        for record in BENCHES[name](setting):
            record.save(where)
            print(_record_line(record))
        print(f"records of {name}: {where}")
    return None


def _bench_apart(group: str, names: list[str], profile: str, out: Path) -> None:
    """Each bench in a process of its own, then how each ended and the figures that their records reach."""
    from smml.bench import figures as asked
    from smml.bench.suite import LIMIT_S, run_apart
    from smml.measure import load_folder

    outcomes = run_apart(names, ["--profile", profile, "--out", str(out)], LIMIT_S)
    print(asked.table(asked.judge(load_folder(out), getattr(asked, group))))
    for outcome in outcomes:
        print(f"{outcome.name:14s} {outcome.verdict} after {outcome.seconds:.0f} s")
    failed = [outcome.name for outcome in outcomes if outcome.code != 0]
    print(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed. Records: {out}")
    raise typer.Exit(1 if failed else 0)


def figures(
    records: Annotated[
        Path | None,
        typer.Argument(help="Folder of records of one machine; default: each machine in results/."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Draw reached ÷ asked into this picture (.png, .svg, .pdf).")
    ] = None,
) -> None:
    """Which figures kernels and strategies are to reach and what each machine's records say; nothing is measured."""
    from smml.bench import scaling
    from smml.bench.figures import judge, plot_reached, table
    from smml.measure import load_folder

    folders = [records] if records else sorted(f for f in paths.results().glob("*") if f.is_dir())
    if not folders:
        raise UserError(
            f"no machine has left records in {paths.results()}: run smml bench kernels."
        )
    for folder in folders:
        known = load_folder(folder)
        reached = judge(known)
        print(f"{folder.name}\n\n{table(reached)}\n\n{scaling.table(known)}")
        if out:
            where = out if len(folders) == 1 else out.with_stem(f"{out.stem}-{folder.name}")
            print(f"{plot_reached(reached, folder.name, where)}\n")


def compare(
    records: Annotated[
        Path | None, typer.Argument(help="Folder of records; default: the latest run's.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Folder of baselines; default: this machine's.")
    ] = None,
    accept: Annotated[
        bool, typer.Option(help="Store the records as this machine's baselines.")
    ] = False,
) -> None:
    """Hold records against the baselines of the same machine; exit 1 if any is slower than its band allows."""
    from smml.measure import compare as against, load_folder, regressions
    from smml.measure.compare import accept as store, baselines

    folder = records or paths.records()
    measured = load_folder(folder)
    if not measured:
        raise UserError(f"no records in {folder}: make some with smml run or smml bench all.")
    if accept:
        stored = store(measured)
        print(f"{len(stored)} baselines stored in {paths.results()}")
        return
    fingerprint = measured[0].machine.fingerprint
    known = load_folder(baseline) if baseline else baselines(fingerprint)
    comparisons = against(measured, known)
    judged = [c for c in comparisons if c.ratio is not None]
    if not judged:
        raise UserError(
            f"no baseline for {fingerprint}: store this run as one with smml compare --accept."
        )
    for c in comparisons:
        speed = f"{c.ratio:6.2f}× baseline" if c.ratio is not None else ""
        print(f"{c.verdict:12s} {c.name:40s} {speed}")
    slower = regressions(comparisons)
    print(
        f"{len(judged)} compared with {fingerprint}: {len(slower)} slower than their band allows."
    )
    raise typer.Exit(1 if slower else 0)


def plot(
    records: Annotated[
        Path | None,
        typer.Argument(help="Folder of records of one machine; default: the latest run's."),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Number format whose roof and points are drawn.")
    ] = "float32",
    out: Annotated[Path, typer.Option(help="Where the picture goes (.png, .svg, .pdf).")] = Path(
        "roofline.png"
    ),
) -> None:
    """Draw the roofline of a machine from its records alone; nothing is measured."""
    from smml.measure import load_folder
    from smml.plot import TIMED, roofline
    from smml.roofline import Roof

    folder = records or paths.records()
    known = {record.name: record for record in load_folder(folder)}.values()
    roof = Roof.recorded(known, dtype)
    if roof is None:
        raise UserError(
            f"no ceilings for dtype {dtype!r} in {folder}: make them with smml bench ceilings."
        )
    points = [
        r
        for r in known
        if r.flops
        and r.unit in TIMED
        and r.inputs.get("dtype") == dtype
        and "operator" not in r.inputs
    ]
    roofline([roof], points, title=roof.name).savefig(out)
    print(f"{out}: {len(points)} kernels of {roof.name}")


def _record_line(record) -> str:
    share = (
        f", {record.share_of_measured:.0%} of the measured ceiling"
        if record.share_of_measured
        else ""
    )
    return f"{record.name:44s} {record.value:.4g} {record.unit} (p20 {record.p20:.4g}, p80 {record.p80:.4g}, n {record.n}){share}"
