"""`python -m eval KIT`: run a model through a benchmark, or score a folder of any tracker's result files."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from eval.kit import Kit, LeavesOut, Submits
from eval.report import last_line, report
from eval.run_folder import RESULTS, digest, open_run, world_size
from eval.runner import Job, run
from eval.trackers import Choice
from trackgpt.data.trees import entries
from trackgpt.errors import InputError, UsageError


@dataclass(frozen=True)
class RunOptions:
    """The options of every kit's command."""

    model: Annotated[str, typer.Option(help="Shipped name or folder of a model to run")] = ""
    results: Annotated[
        Path | None, typer.Option(help="Score this folder (or .zip) of result files instead of a model")
    ] = None
    out: Annotated[Path | None, typer.Option(help="Folder of the run; by default runs/KIT-WHAT")] = None
    jobs: Annotated[int, typer.Option(min=1, help="Processes; the figures are those of one")] = 1
    threads: Annotated[int, typer.Option(min=0, help="Arithmetic threads per process; 0 leaves torch's choice")] = 1
    limit: Annotated[int, typer.Option(min=0, help="Only the first so many tasks; 0 means all")] = 0
    partial: Annotated[bool, typer.Option("--partial", help="Score an incomplete folder, and say so in the report")] = (
        False
    )
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1")] = "auto"
    variant: Annotated[str, typer.Option(help="Ablation, e.g. no-rethinking; a wrong name lists all")] = "full"
    settings: Annotated[list[str] | None, typer.Option("--set", help="Loop setting, e.g. --set cooldown=3")] = None
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or auto; on a GPU int8, int4")] = "float32"


def evaluate(open_kit: Callable[[], Kit], asked: RunOptions, chosen: dict[str, Any]) -> None:
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
    for reason in kit.left_out if isinstance(kit, LeavesOut) else ():
        typer.echo(f"left out: {reason}", err=True)
    source = asked.model or str(asked.results)
    named = Path(source).stem + ("" if asked.variant == "full" else f"-{asked.variant}")
    out = asked.out or Path("runs") / f"{kit.name}-{named}"
    settings = {"kit": kit.name, "headline": list(kit.headline), **chosen, "limit": asked.limit, **_what(kit, asked)}
    with open_run(out, settings, fills=asked.results is None or asked.results.is_file()):
        job = _job(open_kit, kit, asked, out)
        result = run(job, asked.jobs, asked.limit, asked.partial)
        if result is None:
            return
        figures = report(kit, result, settings, out)
        for note in result.notes:
            typer.echo(f"note: {note}", err=True)
        packed = kit.submit(job.results, out) if isinstance(kit, Submits) else None
    typer.echo((out / "report.md").read_text(encoding="utf-8"))
    more = {} if packed is None else {"submission": packed}
    typer.echo(last_line(kit, figures, units=len(result.rows), out=out, **more))


def _what(kit: Kit, asked: RunOptions) -> dict[str, Any]:
    """What makes the results: model, digest, ablation and settings; or where they come from."""
    if asked.results:
        return {"results": str(asked.results)}
    made = {"model": asked.model, "variant": asked.variant, "settings": asked.settings or [], "model_sha256": ""}
    made["dtype"] = asked.dtype
    if asked.model not in kit.baselines:
        from trackgpt.hub import find, parts_of

        made["model_sha256"] = digest(*map(find, parts_of(asked.model)))
    return made


def _job(open_kit: Callable[[], Kit], kit: Kit, asked: RunOptions, out: Path) -> Job:
    if asked.results:
        return Job(open_kit, _folder(asked.results, kit, out), out)
    if asked.model in kit.baselines:
        return Job(open_kit, out / RESULTS, out, baseline=asked.model)
    choice = Choice(asked.model, asked.variant, tuple(asked.settings or ()), asked.device, asked.threads, asked.dtype)
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
        if world_size() > 1:
            raise UsageError(f"{results}: {world_size()} ranks would unpack it at once; unpack it and give its folder")
        if results.resolve().is_relative_to((out / RESULTS).resolve()):
            raise UsageError(f"{results}: lies where it would be unpacked; choose another --out")
        unpack(results, out / RESULTS)
        return beginning(out / RESULTS)
    if not entries(results):
        raise InputError(f"{results}: missing or empty; wanted result files {kit.layout}")
    return beginning(results)


@dataclass(frozen=True)
class KitCommand:
    """How a kit is called.

    Attributes:
        place: "module:class" below `eval.kits`, imported when the command is used.
        about: for `--help`.
        own: its own options by name, each of `_own`. Their values, in this order, are the arguments of the class.
        device: default of `--device`.
    """

    place: str
    about: str
    own: Mapping[str, tuple[Any, Any]]
    device: str = "auto"


def _prompt(default: str, choices: str) -> dict[str, tuple[Any, Any]]:
    """The own option of kits that may begin a track in several ways."""
    return {"prompt": _own(str, default, f"What begins a track: {choices}")}


REQUIRED = inspect.Parameter.empty
SENTENCE_OR_BOX = "the sentence, (box) the true box of the first frame, or both"


def _own(kind: type, default: Any, text: str, **limits: int) -> tuple[Any, Any]:
    """An option: its type with what `--help` says, and its default."""
    return Annotated[kind, typer.Option(help=text, **limits)], default


def _data(split: str) -> dict[str, tuple[Any, Any]]:
    """The own options of most kits: a folder and a split, with this default."""
    data = _own(Path, Path("data"), "Folder of the data set, or the folder that holds it")
    return {"data": data, "split": _own(str, split, "Part of the data set")}


KITS = {
    "synthtrack": KitCommand(
        "synthtrack:SynthTrack",
        "Instructions of every kind on held-out synthetic videos; --model random-object is the baseline.",
        {
            "seed": _own(int, 1, "Chooses the videos", min=0, max=1_000_000),
            "videos": _own(int, 200, "How many videos", min=1, max=10_000),
            "split": _own(str, "test", "test, or train for choosing settings without touching test"),
        },
        device="cpu",
    ),
    "davis-text": KitCommand(
        "davis_text:DavisText",
        "One expression per object on real DAVIS sequences (not Refer-DAVIS17).",
        {
            "data": _own(Path, REQUIRED, "DAVIS: JPEGImages/480p/SEQUENCE, Annotations/480p/SEQUENCE (or 240p)"),
            "expressions": _own(Path, REQUIRED, "refvos's DAVIS17_RE_categorization.csv"),
            "resolution": _own(str, "auto", "480p, 240p, or auto: the better one a sequence has"),
        },
    ),
    "refer-davis17": KitCommand(
        "refer_davis17:ReferDavis17",
        "Refer-DAVIS17 by ReferFormer's protocol, strictly, and by VISA's; splits valid and train.",
        _data("valid"),
    ),
    "refer-youtube-vos": KitCommand(
        "refer_youtube_vos:ReferYoutubeVos",
        "Refer-YouTube-VOS: a submission's zip, and scores where the truth is on disk; splits valid, train and test.",
        _data("valid"),
    ),
    "mevis": KitCommand(
        "mevis:Mevis", "MeViS: scores on valid_u and train, a zip for the server on valid and test.", _data("valid_u")
    ),
    "revos": KitCommand(
        "revos:Revos",
        "ReVOS: J, F, A and R of referring and reasoning expressions; splits valid, train and train_sub.",
        _data("valid"),
    ),
    "reason-vos": KitCommand("reason_vos:ReasonVos", "ReasonVOS, which has the one split valid.", _data("valid")),
    "instrack": KitCommand(
        "instrack:InsTrack",
        "InsTrack (eval/kits/INSTRACK.md): instructions in six wordings; splits test and train.",
        _data("test"),
    ),
    "reason-seg": KitCommand(
        "reason_seg:ReasonSeg",
        "ReasonSeg: gIoU and cIoU, by short and long queries; splits val, test and train.",
        _data("val"),
    ),
    "refcoco": KitCommand(
        "refcoco:RefCoco",
        "RefCOCO, RefCOCO+, RefCOCOg, RefCLEF and gRefCOCO: --split SET/SPLIT or SET/BY/SPLIT, such as "
        "refcoco+/testA, refcocog/google/val or grefcoco/testB (LISA writes refcoco+|unc|testA).",
        _data("refcoco/val"),
    ),
    "davis": KitCommand(
        "davis:Davis",
        "DAVIS from the first masks (-m nano-memory), or label maps: --split semi-supervised/val or unsupervised/val.",
        _data("semi-supervised/val")
        | _prompt("mask", "the first masks, or of each its box or a point")
        | {"resolution": _own(str, "480p", "480p, or 240p")},
    ),
    "lasot": KitCommand(
        "lasot:Lasot",
        "LaSOT's boxes by its Matlab toolkit and by pytracking; splits test, train and all.",
        _data("test") | _prompt("sentence", SENTENCE_OR_BOX),
    ),
    "tnl2k": KitCommand(
        "tnl2k:Tnl2k",
        "TNL2K's boxes by pytracking and by its Matlab toolkit; splits test, train and all.",
        _data("test") | _prompt("sentence", SENTENCE_OR_BOX),
    ),
    "tnllt": KitCommand(
        "tnllt:Tnllt",
        "TNLLT's boxes by its Matlab toolkit and by pytracking; splits test, train and all.",
        _data("test") | _prompt("sentence", SENTENCE_OR_BOX),
    ),
    "interacttrack": KitCommand(
        "interacttrack:InteractTrack",
        "InteractTrack: prompts, switches and tracking, by the paper's formulas and by the released code.",
        _data("test"),
    ),
    "rmot26": KitCommand(
        "rmot26:Rmot26",
        "RMOT26: MCP beside the static box, CLE, NDE, MOTP in three conventions, HOTA; splits test and train.",
        _data("test") | _prompt("sentence", "the question, or (box) the initial boxes beside it"),
    ),
    "mot": KitCommand(
        "mot:Mot",
        "HOTA, CLEAR and Identity on a MOTChallenge tree (MOT17, SportsMOT, ...); splits train, val and test.",
        _data("train"),
    ),
    "mot-query": KitCommand(
        "mot_query:MotQuery",
        "QTrack's protocol on a MOTChallenge tree: only who is asked about, from a reference frame on.",
        _data("train") | _prompt("sentence", "the question, or (box) the true boxes of the reference"),
    ),
}
"""The kits by the name of their command."""


def register(app: typer.Typer) -> None:
    """Add the command of every kit."""
    for name, kit in KITS.items():
        app.command(name, help=kit.about)(command(kit))


def command(kit: KitCommand) -> Callable[..., None]:
    """The command of a kit: its own options, then those of every kit."""

    def run_kit(**given: Any) -> None:
        own = {name: given.pop(name) for name in kit.own}
        chosen = {name: str(value) if isinstance(value, Path) else value for name, value in own.items()}
        evaluate(functools.partial(open_kit, kit.place, *own.values()), RunOptions(**given), chosen)

    kinds = get_type_hints(RunOptions, include_extras=True)
    shared = {each.name: (kinds[each.name], each.default) for each in fields(RunOptions)}
    shared["device"] = (kinds["device"], kit.device)
    run_kit.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in {**kit.own, **shared}.items()
    )
    return run_kit


def open_kit(place: str, *own: Any) -> Kit:
    """The kit at "module:class", for the values of its own options."""
    module, _, name = place.partition(":")
    kit: Kit = getattr(import_module(f"eval.kits.{module}"), name)(*own)
    return kit
