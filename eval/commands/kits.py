"""`python -m eval KIT`: run a model through a benchmark, or score a folder of anybody's result files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.kit import Kit, Submits
from eval.report import last_line, report
from eval.run_folder import digest, open_run, world
from eval.runner import RESULTS, Job, run
from eval.trackers import VARIANTS, Choice
from trackgpt.errors import InputError, UsageError

Model = Annotated[str, typer.Option(help="Shipped name or folder of a model to run")]
Results = Annotated[Path | None, typer.Option(help="Score this folder (or .zip) of result files instead of a model")]
Out = Annotated[Path | None, typer.Option(help="Folder of the run; by default runs/KIT-WHAT")]
Data = Annotated[Path, typer.Option(help="Folder of the data set, or the folder that holds it")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes; the figures are those of one")]
Threads = Annotated[int, typer.Option(min=0, help="Arithmetic threads a process; 0 leaves torch's choice")]
Limit = Annotated[int, typer.Option(min=0, help="Only the first so many tasks; 0 means all")]
Partial = Annotated[bool, typer.Option("--partial", help="Score an incomplete folder, and say so in the report")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or auto; on a GPU int8, int4")]
Variant = Annotated[str, typer.Option(help="Ablation: " + ", ".join(VARIANTS))]
Set = Annotated[list[str] | None, typer.Option("--set", help="Loop setting, e.g. --set cooldown=3")]


@dataclass(frozen=True)
class Asked:
    """The options that every kit's command has."""

    model: str
    results: Path | None
    out: Path | None
    jobs: int
    threads: int
    limit: int
    partial: bool
    device: str
    variant: str
    settings: tuple[str, ...]
    dtype: str = "float32"


def evaluate(open_kit: Callable[[], Kit], asked: Asked, chosen: dict[str, Any]) -> None:
    """Run or score a kit, write its report, and print it with the figures last.

    Args:
        open_kit: makes the kit, in every process.
        asked: the common options.
        chosen: the kit's own options, for run.json.

    Raises:
        UsageError: neither a model nor results, or both; a run folder of other settings.
        InputError: data or results are missing or malformed.
        ModelError: there is no such model.
    """
    if bool(asked.model) == bool(asked.results):
        raise UsageError("give --model NAME to run a model, or --results DIR to score result files")
    kit = open_kit()
    source = asked.model or str(asked.results)
    named = Path(source).stem + ("" if asked.variant == "full" else f"-{asked.variant}")
    out = asked.out or Path("runs") / f"{kit.name}-{named}"
    settings = {"kit": kit.name, "headline": list(kit.headline), **chosen, "limit": asked.limit, **_what(kit, asked)}
    open_run(out, settings)
    job = _job(open_kit, kit, asked, out)
    outcome = run(job, asked.jobs, asked.limit, asked.partial)
    if outcome is None:
        return
    figures = report(kit, outcome, settings, out)
    typer.echo((out / "report.md").read_text())
    packed = kit.submit(job.results, out) if isinstance(kit, Submits) else None
    more = {} if packed is None else {"submission": packed}
    typer.echo(last_line(kit, figures, units=len(outcome.rows), out=out, **more))


def _what(kit: Kit, asked: Asked) -> dict[str, Any]:
    """What makes the results: model, digest, ablation and settings; or where they come from."""
    if asked.results:
        return {"results": str(asked.results)}
    made = {"model": asked.model, "variant": asked.variant, "settings": list(asked.settings), "model_sha256": ""}
    made["dtype"] = asked.dtype
    if asked.model not in kit.baselines:
        from trackgpt.hub import find

        names = [asked.model] if Path(asked.model).exists() else asked.model.split("+")
        made["model_sha256"] = digest(*map(find, names))
    return made


def _job(open_kit: Callable[[], Kit], kit: Kit, asked: Asked, out: Path) -> Job:
    if asked.results:
        return Job(open_kit, _folder(asked.results, kit, out), out)
    if asked.model in kit.baselines:
        return Job(open_kit, out / RESULTS, out, baseline=asked.model)
    choice = Choice(asked.model, asked.variant, asked.settings, asked.device, asked.threads, asked.dtype)
    return Job(open_kit, out / RESULTS, out, choice)


def _folder(results: Path, kit: Kit, out: Path) -> Path:
    """The folder of result files: unpacked, if it is a submission's zip; a .json holds all results itself.

    Raises:
        UsageError: it is a zip, and several ranks would unpack it at once.
        InputError: it is missing or empty, or no zip that may be unpacked.
    """
    from eval.submission import beginning, unpack

    if results.suffix == ".json" and results.is_file():
        return results
    if results.is_file():
        if world() > 1:
            raise UsageError(f"{results}: {world()} ranks would unpack it at once; unpack it and give its folder")
        unpack(results, out / RESULTS)
        return beginning(out / RESULTS)
    if not results.is_dir() or not any(results.iterdir()):
        raise InputError(f"{results}: missing or empty; wanted result files {kit.layout}")
    return beginning(results)


KITS: dict[str, tuple[str, str, str]] = {
    "refer-davis17": (
        "eval.kits.refer_davis17:ReferDavis17",
        "Refer-DAVIS17 by ReferFormer's protocol, strictly, and by VISA's; splits valid and train.",
        "valid",
    ),
    "refer-youtube-vos": (
        "eval.kits.refer_youtube_vos:ReferYoutubeVos",
        "Refer-YouTube-VOS: a submission's zip, and scores where the truth is on disk; splits valid, train and test.",
        "valid",
    ),
    "mevis": (
        "eval.kits.mevis:Mevis",
        "MeViS: scores on valid_u and train, a zip for the server on valid and test.",
        "valid_u",
    ),
    "revos": (
        "eval.kits.revos:Revos",
        "ReVOS: J, F, A and R of referring and reasoning expressions; splits valid, train and train_sub.",
        "valid",
    ),
    "reason-vos": ("eval.kits.reason_vos:ReasonVos", "ReasonVOS, which has the one split valid.", "valid"),
    "instrack": (
        "eval.kits.instrack:InsTrack",
        "InsTrack (eval/kits/INSTRACK.md): instructions in six wordings; splits test and train.",
        "test",
    ),
    "reason-seg": (
        "eval.kits.reason_seg:ReasonSeg",
        "ReasonSeg: gIoU and cIoU, by short and long queries; splits val, test and train.",
        "val",
    ),
    "refcoco": (
        "eval.kits.refcoco:RefCoco",
        "RefCOCO, RefCOCO+, RefCOCOg, RefCLEF and gRefCOCO: --split SET/SPLIT or SET/BY/SPLIT, such as "
        "refcoco+/testA, refcocog/google/val or grefcoco/testB (LISA writes refcoco+|unc|testA).",
        "refcoco/val",
    ),
    "davis": (
        "eval.kits.davis:Davis",
        "DAVIS label maps of anybody's tracker: --split semi-supervised/val or unsupervised/val.",
        "semi-supervised/val",
    ),
    "lasot": (
        "eval.kits.lasot:Lasot",
        "LaSOT's boxes by its Matlab toolkit and by pytracking; splits test, train and all.",
        "test",
    ),
    "tnl2k": (
        "eval.kits.tnl2k:Tnl2k",
        "TNL2K's boxes by pytracking and by its Matlab toolkit; splits test, train and all.",
        "test",
    ),
    "tnllt": (
        "eval.kits.tnllt:Tnllt",
        "TNLLT's boxes by its Matlab toolkit and by pytracking; splits test, train and all.",
        "test",
    ),
    "interacttrack": (
        "eval.kits.interacttrack:InteractTrack",
        "InteractTrack: prompts, switches and tracking, by the paper's formulas and by the released code.",
        "test",
    ),
    "rmot26": (
        "eval.kits.rmot26:Rmot26",
        "RMOT26: MCP beside the static box, CLE, NDE, MOTP in three conventions, HOTA; splits test and train.",
        "test",
    ),
    "mot": (
        "eval.kits.mot:Mot",
        "HOTA, CLEAR and Identity on a MOTChallenge tree (MOT17, SportsMOT, ...); splits train, val and test.",
        "train",
    ),
}
"""Name of the command: module and class of the kit, and its default split; imported when the command is used."""


def register(app: typer.Typer) -> None:
    """Add the command of every kit that needs a data root and a split."""
    for name, (place, about, split) in KITS.items():
        app.command(name, help=about)(command(place, split))


def command(place: str, split: str) -> Callable[..., None]:
    """The command of the kit at "module:class"."""

    def run_kit(
        model: Model = "",
        results: Results = None,
        data: Data = Path("data"),
        split: Annotated[str, typer.Option(help="Part of the data set")] = split,
        out: Out = None,
        jobs: Jobs = 1,
        threads: Threads = 1,
        limit: Limit = 0,
        partial: Partial = False,
        device: Device = "auto",
        variant: Variant = "full",
        set_: Set = None,
        dtype: Dtype = "float32",
    ) -> None:
        asked = Asked(model, results, out, jobs, threads, limit, partial, device, variant, tuple(set_ or ()), dtype)
        evaluate(functools.partial(open_kit, place, data, split), asked, {"data": str(data), "split": split})

    return run_kit


def open_kit(place: str, data: Path, split: str) -> Kit:
    """The kit at "module:class" for a part of a data set."""
    module, _, kit = place.partition(":")
    opened: Kit = getattr(import_module(module), kit)(data, split)
    return opened
