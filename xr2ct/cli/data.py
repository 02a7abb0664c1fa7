"""Commands on what is learnt from: synthetic chests, collections, plans, stores, X-rays."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from xr2ct.cli.arguments import (
    angles,
    command,
    geometry_arguments,
    positive,
    positives,
    print_result,
    stated_geometry,
    words,
)
from xr2ct.errors import UserError, WorkFailed


def add_phantom(commands: Any) -> None:
    p = command(commands, "phantom", run_phantom, "write synthetic chests as DICOM series")
    p.add_argument("folder", type=Path, metavar="DIR")
    p.add_argument("--cohort", required=True)
    p.add_argument("--patients", type=positive, required=True)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--workers", type=positive, default=None, help="processes (default: one a core)")


def run_phantom(args: argparse.Namespace) -> None:
    from xr2ct.cohorts.names import check_cohort
    from xr2ct.cohorts.phantom import write_cohort

    folders = write_cohort(
        args.folder,
        check_cohort(args.cohort),
        args.patients,
        args.seed,
        workers=args.workers or os.cpu_count() or 1,
    )
    print(f"{len(folders)} synthetic chests of {args.cohort} in {args.folder}")


def add_fetch(commands: Any) -> None:
    p = command(commands, "fetch", run_fetch, "download a cohort's collection from the Imaging Data Commons")
    p.add_argument("cohort")
    p.add_argument("--to", type=Path, required=True, metavar="DIR")
    p.add_argument("--modalities", type=words, default=None, metavar="CT[,DX,CR]")
    p.add_argument("--patients", nargs="+", default=(), metavar="ID", help="these PatientIDs alone")
    p.add_argument("--dry-run", action="store_true", help="say size, licence and citation, and stop")


def run_fetch(args: argparse.Namespace) -> None:
    from xr2ct.cohorts.fetch import MODALITIES, download, select

    selection = select(args.cohort, args.modalities or MODALITIES, args.patients)
    print(selection, flush=True)
    if not args.dry_run:
        print(f"{download(selection, args.to)} series fetched to {args.to}")


def add_plan(commands: Any) -> None:
    p = command(
        commands, "plan", run_plan, "every series of a folder, which the cohort's rule takes, and why"
    )
    p.add_argument("cohort")
    p.add_argument("source", type=Path, metavar="SOURCE")
    p.add_argument("--out", type=Path, required=True, metavar="PLAN.csv")
    p.add_argument("--salt", type=Path, default=None, metavar="FILE", help="of cohorts that are not public")
    p.add_argument("--workers", type=positive, default=None, help="processes (default: one a core)")
    p.add_argument("--json", action="store_true")


def run_plan(args: argparse.Namespace) -> None:
    from xr2ct.cohorts.plan import plan_cohort, scan_file, write_plan
    from xr2ct.cohorts.plan_summary import format_plan, summarise_plan
    from xr2ct.cohorts.pseudonyms import names_for

    names = names_for(args.cohort, args.salt)
    plan = plan_cohort(args.source, args.cohort, index=scan_file(args.out), workers=args.workers)
    write_plan(plan, args.out, names)
    told = summarise_plan(plan, names)
    print_result(told, f"{format_plan(told)}\n{args.out}", args.json)


def add_ingest(commands: Any) -> None:
    p = command(commands, "ingest", run_ingest, "raw CT to a Zarr store with its X-rays")
    p.add_argument("cohort")
    p.add_argument("source", type=Path, metavar="SOURCE|PLAN.csv")
    p.add_argument("--out", type=Path, required=True, metavar="STORE")
    p.add_argument("--size", type=positives, default=(64,), metavar="64[,128]")
    p.add_argument("--cube-mm", type=float, default=320.0)
    p.add_argument(
        "--angles", type=angles, default=None, help="degrees or view names (default: eight, 45° apart)"
    )
    geometry_arguments(p)
    p.add_argument("--seed", type=int, default=0, help="of the split by patient")
    p.add_argument(
        "--splits",
        default=None,
        metavar="seeded|test|NAME|CSV",
        help="drawn by seed, all test, a shipped list, or columns patient, split (default: the cohort's own)",
    )
    p.add_argument("--salt", type=Path, default=None, metavar="FILE", help="of cohorts that are not public")
    p.add_argument("--remove-table", action="store_true", help="make air of all that is not the patient")
    p.add_argument("--repair", action="store_true", help="write again what is missing or damaged")
    p.add_argument(
        "--workers", type=positive, default=None, help="processes, of each job (default: its cores)"
    )
    p.add_argument("--cluster", default=None, metavar="PROFILE", help="as an array of jobs")
    p.add_argument("--wait", action="store_true", help="with --cluster: wait for the end")
    p.add_argument("--json", action="store_true")


def run_ingest(args: argparse.Namespace) -> None:
    from xr2ct.cohorts.names import check_cohort
    from xr2ct.ingest.command import fulfil
    from xr2ct.ingest.request import Request

    geometry = stated_geometry(args)
    request = Request(
        args.source,
        args.out,
        check_cohort(args.cohort),
        args.size,
        geometries=(geometry,) if geometry else (),
        angles=args.angles,
        cube_mm=args.cube_mm,
        seed=args.seed,
        splits=args.splits,
        workers=args.workers,
        salt=args.salt,
        remove_table=args.remove_table,
        repair=args.repair,
    )
    if args.cluster:
        _ingest_by_jobs(request, args)
        return
    if args.wait:
        raise UserError("--wait: of use with --cluster alone; without it the command waits anyway")
    report = fulfil(request, _living)
    print_result(report.as_dict(), str(report), args.json)


def _living(lease: Any) -> bool:
    from launch.ingest import living  # here: only a store that jobs were to fill needs it

    return living(lease)


def _ingest_by_jobs(request: Any, args: argparse.Namespace) -> None:
    from launch.ingest import follow, submit
    from launch.profiles import load_profile

    submitted = submit(request, load_profile(args.cluster), args.cluster)
    jobs = ", ".join(submitted.jobs)
    if not args.wait:
        told = {"store": str(submitted.store), "jobs": submitted.jobs, "report": str(submitted.report)}
        text = f"jobs {jobs}: {submitted.cases} cases; logs in {submitted.logs}\nreport: {submitted.report}"
        print_result(told, text, args.json)
        return
    print(f"jobs {jobs}; logs in {submitted.logs}", file=sys.stderr, flush=True)
    follow(submitted, lambda line: print(line, file=sys.stderr, flush=True))
    file = submitted.report.with_suffix(".json") if args.json else submitted.report
    print(file.read_text(encoding="utf-8"), end="")


def add_inspect(commands: Any) -> None:
    p = command(commands, "inspect", run_inspect, "what a store holds: counts, pictures, checksums")
    p.add_argument("store", type=Path)
    p.add_argument("--verify", action="store_true", help="check every chunk against its checksum")
    p.add_argument("--sheet", type=Path, default=None, metavar="PNG", help="write a contact sheet")
    p.add_argument(
        "--page", type=Path, default=None, metavar="HTML", help="write a page to accept and reject cases on"
    )
    p.add_argument(
        "--exclude",
        type=Path,
        default=None,
        metavar="CSV",
        help="put such a page's list of rejected in place",
    )
    p.add_argument("--geometry", default=None, help="of the page's X-rays (default: the store's first)")
    p.add_argument("--workers", type=positive, default=None, help="processes (default: one a core)")
    p.add_argument("--json", action="store_true")


def run_inspect(args: argparse.Namespace) -> None:
    from xr2ct.inspection import contact_sheet, format_summary, summary
    from xr2ct.store import Store
    from xr2ct.store.check import damage
    from xr2ct.store.exclude import install_exclude

    if args.verify and (problems := damage(args.store)):
        raise WorkFailed("\n".join(problems))
    if args.exclude:
        install_exclude(args.store, args.exclude)
    if args.page:
        from xr2ct.inspection.page import write_page

        write_page(Store.open(args.store, excluded=True), args.page, args.workers, args.geometry)
    store = Store.open(args.store)
    told = summary(store)
    print_result(told, format_summary(told), args.json)
    if args.verify:
        print(f"{args.store}: every chunk matches its checksum", file=sys.stderr)
    if args.sheet:
        contact_sheet(store, args.sheet)


def add_export(commands: Any) -> None:
    p = command(
        commands,
        "export",
        run_export,
        "a store's cases as files for other programs, or a run's best checkpoint as one file to hand on",
    )
    p.add_argument("source", type=Path, metavar="STORE|RUN|CHECKPOINT")
    p.add_argument("--to", type=Path, required=True, metavar="DIR|MODEL.xr2ct")
    p.add_argument(
        "--weights", choices=("mapper", "mapper-ema"), default=None, help="of a run (default: mapper)"
    )
    p.add_argument(
        "--format", choices=("nifti", "mha", "x2ct"), default=None, help="of a store (default: nifti)"
    )
    p.add_argument("--size", type=positive, default=None, help="voxels a side (default: the largest)")
    p.add_argument("--geometry", default=None, help="of the X-rays (default: the store's first)")
    p.add_argument("--case", nargs="+", default=None, metavar="ID", help="of a store: these alone")
    p.add_argument("--split", choices=("train", "val", "test"), default=None)
    p.add_argument("--json", action="store_true")


def run_export(args: argparse.Namespace) -> None:
    if args.source.is_file():
        raise UserError(f"{args.source}: a file; expected a store, a run or a checkpoint, which are folders")
    of_store = {key: getattr(args, key) for key in ("format", "size", "geometry", "case", "split")}
    told: Any
    if (args.source / "config.yaml").is_file():
        from xr2ct.exchange.export_model import export_model

        _refuse(args.source, "a run or checkpoint", of_store)
        told = export_model(args.source, args.to, args.weights or "mapper")
    else:
        from xr2ct.exchange.export import export_store

        _refuse(args.source, "no run or checkpoint", {"weights": args.weights})
        told = export_store(
            args.source,
            args.to,
            args.format or "nifti",
            size=args.size,
            geometry=args.geometry,
            cases=args.case or (),
            split=args.split,
        )
    print_result(told.as_dict(), str(told), args.json)


def _refuse(source: Path, what: str, options: dict[str, Any]) -> None:
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if given:
        raise UserError(f"{source}: is {what}; {', '.join(given)} do not go with it")


def add_card(commands: Any) -> None:
    p = command(commands, "card", run_card, "what a model that was handed on is: data, figures, use, limits")
    p.add_argument("model", type=Path, metavar="MODEL.xr2ct")
    p.add_argument("--json", action="store_true")


def run_card(args: argparse.Namespace) -> None:
    from xr2ct.exchange.card_text import card_text
    from xr2ct.exchange.model_file import read_model

    if not args.model.is_file():
        raise UserError(f"{args.model}: there is no such file; `xr2ct export RUN --to {args.model}` makes it")
    model = read_model(args.model)
    told = {"sha256": model.sha256, **model.about.card.model_dump(mode="json")}
    print_result(told, card_text(model).rstrip("\n"), args.json)


def add_project(commands: Any) -> None:
    p = command(
        commands, "project", run_project, "line integrals of a CT, or a store's own, as .mha and .png"
    )
    p.add_argument(
        "source", type=Path, metavar="CT|STORE", help="a DICOM folder, .nii.gz, .mha, .nrrd; a store"
    )
    p.add_argument("--case", default=None, help="of a store: this case alone")
    p.add_argument("--angles", type=angles, default=(0.0, 90.0), help="degrees or view names")
    geometry_arguments(p)
    p.add_argument("--out", type=Path, required=True, metavar="DIR")


def run_project(args: argparse.Namespace) -> None:
    from xr2ct.projection.export import export_views
    from xr2ct.projection.geometry import named_geometry

    geometry = stated_geometry(args) or named_geometry("x2ct")
    for path in export_views(args.source, geometry, args.angles, args.out, case=args.case):
        print(path)


COMMANDS = (add_phantom, add_fetch, add_plan, add_ingest, add_inspect, add_export, add_card, add_project)
