"""The command line: `trackgpt track race.mp4 -i "who will win the race?"`.

stdout is data (the answer, then one `key=value` line at the end; JSON lines before it with --json); stderr is talk.
Heavy imports happen inside the commands, so that `--help` is immediate.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trackgpt import ending
from trackgpt.app.live import say
from trackgpt.files import refuse_existing, refuse_strangers

if TYPE_CHECKING:
    from trackgpt.weights import LoadReport

app = typer.Typer(
    help="Tell a video tracker what you mean, and it follows the right object.\n\n"
    "Example: trackgpt track race.mp4 -i 'who will win the race?'",
    no_args_is_help=True,
    add_completion=False,
    context_settings=ending.HELP,
    pretty_exceptions_enable=False,
)

FORMATS = "mp4,davis,coco,mot,timeline,jsonl"
Model = Annotated[str, typer.Option("-m", "--model", help="Shipped name, preset, folder, or brain (hub id)")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16, auto; on a GPU int8, int4")]
Perception = Annotated[str | None, typer.Option(help="For a brain: a SAM's .pth, folder or hub id")]
Offline = Annotated[bool, typer.Option("--offline", help="Ask no hub for anything")]


def _option(group: str, *names: str, **about: Any) -> Any:
    """An option that stands in a group of `--help`."""
    return typer.Option(*names, rich_help_panel=group, **about)


def _is_given(context: typer.Context, name: str) -> bool:
    """Whether a parameter stands on the command line, and is no default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _named(model: str, perception: str | None, grounder: str | None, usual: str) -> str:
    """The name of a model of parts; `usual` is the brain that a perception is for where none is named."""
    from trackgpt.hub import NANO_MEMORY, grounded, pair

    named = pair(model or usual, perception) if perception else pair(model, None)
    return grounded(grounder, named or NANO_MEMORY) if grounder else named


def _keep_offline(offline: bool) -> None:
    if offline:
        from trackgpt.fetching import go_offline

        go_offline()


@app.command()
def track(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="Video, folder, glob, pipe -, camera, URL")],
    instruction: Annotated[
        list[str] | None,
        typer.Option("-i", "--instruction", help="TEXT, '240: TEXT' (frame), '@8.5: TEXT'"),
    ] = None,
    script: Annotated[Path | None, typer.Option(help="JSONL, description.txt or run to say")] = None,
    box: Annotated[
        list[str] | None,
        _option("Pointing", metavar="ID:x,y,w,h", help="A box, in pixels as displayed; ID may be left out"),
    ] = None,
    mask: Annotated[
        list[str] | None, _option("Pointing", metavar="ID:FILE", help="A mask, or a label map of several targets")
    ] = None,
    point: Annotated[
        list[str] | None, _option("Pointing", metavar="ID:x,y[,-]", help="A point on the target; - for not on it")
    ] = None,
    drop: Annotated[
        list[str] | None,
        _option("Pointing", metavar="@FRAME:ID", help="Ends a target. @FRAME: or @8.5s: may begin others"),
    ] = None,
    output: Annotated[Path | None, _option("Output", "-o", "--output", help="Run folder; else runs/SOURCE-N")] = None,
    format_: Annotated[
        str,
        _option("Output", "--format", help=f"{FORMATS},interacttrack", show_default=False),
    ] = FORMATS,
    overwrite: Annotated[bool, _option("Output", "--overwrite", help="Replace an existing run")] = False,
    resume: Annotated[Path | None, _option("Output", metavar="RUN", help="Go on with a run that was cut")] = None,
    strict: Annotated[bool, _option("Output", "--strict", help="Exit 1 when there were warnings")] = False,
    quiet: Annotated[bool, _option("Output", "-q", "--quiet", help="No progress bar, no warnings")] = False,
    as_json: Annotated[bool, _option("Output", "--json", help="Print events and frames as JSON lines")] = False,
    model: Annotated[
        str | None,
        _option("Model", "-m", "--model", help="Name, folder, hub id; else nano, nano-memory"),
    ] = None,
    perception: Annotated[str | None, _option("Model", help="For a brain: a SAM's .pth, folder or hub id")] = None,
    grounder: Annotated[str | None, _option("Model", help="Finds words: FILE.onnx, folder, hub id")] = None,
    offline: Annotated[bool, _option("Model", "--offline", help="Ask no hub for anything")] = False,
    on_ambiguous: Annotated[
        str, _option("Model", metavar="WAY", help="Several fit: best (default), all, ask, fail", show_default=False)
    ] = "best",
    rethink: Annotated[str, _option("Model", help="auto, off; live also async")] = "auto",
    set_: Annotated[
        list[str] | None, _option("Model", "--set", metavar="K=V", help="A rule of the model, see the README")
    ] = None,
    guess: Annotated[bool, _option("Model", "--guess", help="Go on where footage is unlike its training")] = False,
    start: Annotated[int, _option("Source", help="First frame")] = 0,
    end: Annotated[int | None, _option("Source", help="Frame to stop before")] = None,
    stride: Annotated[int, _option("Source", help="Take every n-th frame")] = 1,
    fps: Annotated[float | None, _option("Source", help="Override the source's frame rate")] = None,
    max_pixels: Annotated[int, _option("Source", help="Refuse larger frames")] = 64_000_000,
    allow_gaps: Annotated[bool, _option("Source", "--allow-gaps", help="Folders: mixed sizes, gaps")] = False,
    device: Annotated[str, _option("Speed", help="auto, cpu, cuda, cuda:1, mps")] = "auto",
    dtype: Annotated[
        str, _option("Speed", help="float32 (default), bfloat16, auto; GPU: int8, int4", show_default=False)
    ] = "float32",
    backend: Annotated[str, _option("Speed", help="torch or onnxruntime")] = "torch",
    compile_: Annotated[bool, _option("Speed", "--compile", help="Slow start, then faster")] = False,
    batch: Annotated[int, _option("Speed", help="Frames encoded at once")] = 1,
    ahead: Annotated[int | None, _option("Speed", help="Frames encoded ahead")] = None,
) -> int:
    """Track what an instruction means, or what is pointed at.

    Example: trackgpt track race.mp4 -i "the red car" -i "240: the blue one"
    """
    from trackgpt.app.instructions import SpokenScript, read_script
    from trackgpt.app.pointing import Pointing
    from trackgpt.app.tracking import TrackRequest, run
    from trackgpt.hub import NANO_MEMORY
    from trackgpt.session.ahead import lookahead_of

    _keep_offline(offline)
    pointing = Pointing(*(tuple(given or ()) for given in (box, mask, point, drop)))
    reading = {"start": start, "end": end, "stride": stride, "fps": fps}
    request = TrackRequest(
        source=source,
        instructions=tuple(instruction or ()),
        script=read_script(script) if script else SpokenScript(),
        pointing=pointing,
        model=_named(model or "", perception, grounder, NANO_MEMORY if pointing or grounder else "nano"),
        output=output,
        formats=tuple(name.strip() for name in format_.split(",") if name.strip()),
        device=device,
        execution={"dtype": dtype, "backend": backend, "compile": compile_},
        reading=reading | {"max_pixels": max_pixels, "allow_gaps": allow_gaps},
        rethink=rethink,
        on_ambiguous=on_ambiguous,
        settings=tuple(set_ or ()),
        guess=guess,
        lookahead=lookahead_of(batch, ahead),
        overwrite=overwrite,
        strict=strict,
        quiet=quiet,
        as_json=as_json,
    )
    if resume is None:
        return run(request)
    from trackgpt.app.resuming import resume as go_on

    return go_on(resume, request, [name for name in context.params if _is_given(context, name)])


@app.command()
def chat(
    source: Annotated[str, typer.Argument(help="Video, folder, glob, camera, URL")],
    instruction: Annotated[
        list[str] | None, typer.Option("-i", "--instruction", help="Said before the first line")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Run folder; else runs/SOURCE-N")] = None,
    format_: Annotated[str, typer.Option("--format", help=f"Of {FORMATS}; else all", show_default=False)] = FORMATS,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run")] = False,
    model: Annotated[str, typer.Option("-m", "--model", help="Name, folder, hub id; else nano")] = "",
    perception: Perception = None,
    grounder: Annotated[str | None, typer.Option(help="Finds words: FILE.onnx, folder, hub id")] = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    offline: Offline = False,
    guess: Annotated[bool, typer.Option("--guess", help="Go on where footage is unlike its training")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="K=V", help="A rule of the model, see the README")
    ] = None,
    start: Annotated[int, typer.Option(help="First frame")] = 0,
    end: Annotated[int | None, typer.Option(help="Frame to stop before")] = None,
    stride: Annotated[int, typer.Option(help="Take every n-th frame")] = 1,
    live_policy: Annotated[str, typer.Option(help="Cameras, streams: latest frame, or every one")] = "latest",
) -> int:
    """Say what to follow while it plays, correct it, take it back: plain words, and :help for commands.

    Examples:
        trackgpt chat race.mp4

        trackgpt chat race.mp4 -m nano-memory < lines.txt
    """
    from trackgpt.app.chat import run_chat
    from trackgpt.app.tracking import TrackRequest
    from trackgpt.hub import NANO_MEMORY

    _keep_offline(offline)
    return run_chat(
        TrackRequest(
            source=source,
            instructions=tuple(instruction or ()),
            model=_named(model, perception, grounder, NANO_MEMORY if grounder else "nano"),
            output=output,
            formats=tuple(name.strip() for name in format_.split(",") if name.strip()),
            device=device,
            execution={"dtype": dtype},
            reading={"start": start, "end": end, "stride": stride},
            guess=guess,
            settings=tuple(set_ or ()),
            overwrite=overwrite,
        ),
        live_policy,
    )


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Run folder")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Chooses the synthetic clip")] = 8,
    model: Model = "nano",
    kind: Annotated[str, typer.Option(help="explicit, implicit, multi or none")] = "implicit",
    frames: Annotated[int, typer.Option(help="Length of the clip")] = 48,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo and its clip")] = False,
) -> int:
    """Make a SynthTrack clip, track it, and show J&F against its truth. Example: trackgpt demo --seed 3"""
    from trackgpt.app.demonstration import run

    return run(output, seed, model, kind, frames, overwrite)


@app.command()
def doctor(
    model: Model = "nano",
    perception: Perception = None,
    grounder: Annotated[str | None, typer.Option(help="Finds words: FILE.onnx, folder, hub id")] = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    tokens: Annotated[int, typer.Option(help="Of question and answer, for the memory it will take")] = 200,
    targets: Annotated[int, typer.Option(help="Tracked at once, for the memory it will take")] = 1,
    offline: Offline = False,
) -> int:
    """Versions, device, decoders, memory before loading, what becomes of the weights, and a 5-frame self-test.

    Example: trackgpt doctor -m llava-hf/llava-1.5-7b-hf --perception facebook/sam-vit-huge --dtype bfloat16
    """
    from trackgpt.app.doctor import Visit, run
    from trackgpt.hub import grounded, pair

    _keep_offline(offline)
    named = pair(model, perception)
    return run(Visit(grounded(grounder, named) if grounder else named, device, dtype, tokens, targets))


convert = typer.Typer(
    help="Other people's checkpoints into folders for -m and --perception, and models into ONNX.\n\n"
    "Example: trackgpt convert sam sam_vit_b_01ec64.pth sam-vit-base",
    no_args_is_help=True,
)
app.add_typer(convert, name="convert")


@convert.command()
def lisa(
    folder: Annotated[Path, typer.Argument(help="LISA's folder; with --back, one made by this command")],
    out: Annotated[Path, typer.Argument(help="New folder")],
    vision_tower: Annotated[Path | None, typer.Option(help="Folder of openai/clip-vit-large-patch14")] = None,
    conversation: Annotated[str, typer.Option(help="lisa, or lisa-llama-2 ([INST] ...)")] = "lisa",
    stage_2: Annotated[bool, typer.Option("--stage-2", help="For training on: Q_p, Q_t and rethinking")] = False,
    back: Annotated[bool, typer.Option("--back", help="From our folder to LISA's layout")] = False,
) -> int:
    """LISA's weights as a TrackGPT whose <TK> is [SEG], or back.

    Examples:
        trackgpt convert lisa LISA-7B-v1 lisa-7b --vision-tower clip-vit-large-patch14

        trackgpt convert lisa lisa-7b LISA-again --back
    """
    from trackgpt.conversion.lisa import convert_back, convert_lisa

    done = convert_back(folder, out) if back else convert_lisa(folder, out, vision_tower, conversation, stage_2)
    return _converted(done, out)


@convert.command()
def sam(
    file: Annotated[Path, typer.Argument(help="An original .pth file")],
    out: Annotated[Path, typer.Argument(help="New folder")],
    check: Annotated[bool, typer.Option("--check", help="Then run both and compare; needs segment-anything")] = False,
) -> int:
    """SAM's weights as a Hugging Face folder.

    Example: trackgpt convert sam sam_vit_h_4b8939.pth sam-vit-huge --check
    """
    from trackgpt.conversion.sam import convert_sam

    if not check:
        return _converted(convert_sam(file, out), out)
    from trackgpt.conversion.sam_check import compare, refuse_differences, require_segment_anything

    require_segment_anything()
    _converted(convert_sam(file, out), out)
    found = compare(file, out)
    print(" ".join(f"{name}_difference={value:.2g}" for name, value in found.items()))
    refuse_differences(found, out)
    return 0


@convert.command()
def onnx(
    model: Annotated[str, typer.Argument(help="Shipped name or folder")],
    out: Annotated[Path, typer.Argument(help="Folder for encoder.onnx, decoder.onnx and onnx.json")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export")] = False,
) -> int:
    """Encoder and mask decoder as ONNX files for other programs. Example: trackgpt convert onnx nano nano-onnx"""
    from trackgpt.hub import load_trackgpt
    from trackgpt.perception.onnx_segmenter import DECODER, ENCODER, SHAPES, export_onnx

    refuse_existing(out, overwrite)
    refuse_strangers(out, (ENCODER, DECODER), (SHAPES,), "it is no export of this command")
    described = export_onnx(load_trackgpt(model, "cpu", packed=False).segmenter, out)
    print(f"image_side={described['image_side']} opset={described['opset']} out={out}")
    return 0


def _converted(report: LoadReport, out: Path) -> int:
    for line in report.lines()[1:]:
        say(line)
    counts = ("loaded", "new", "skipped", "reshaped", "unexpected")
    print(" ".join(f"{kind}={len(getattr(report, kind))}" for kind in counts), f"out={out}")
    return 0


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="Model folder of a run with LoRA, as training writes it")],
    out: Annotated[Path, typer.Argument(help="Folder of the whole model")],
    base: Annotated[str, typer.Option(help="Its frozen models, if they are not where it says")] = "",
    dtype: Annotated[str, typer.Option(help="Store as float32 or bfloat16")] = "float32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a TrackGPT that is there")] = False,
) -> int:
    """A model folder of its own from an adapter and its frozen models: LoRA merged into the weights.

    Example: trackgpt merge runs/7b/3_instrack/model trackgpt-7b --dtype bfloat16
    """
    from trackgpt.app.merging import run

    return run(adapter, out, base, dtype, overwrite)


models = typer.Typer(
    help="The models that ship inside the package, and those that can be fetched.\n\nExample: trackgpt models"
)
app.add_typer(models, name="models")


@models.callback(invoke_without_command=True)
def list_models(context: typer.Context, offline: Offline = False) -> int:
    """The models that ship inside the package, and those that can be fetched.

    Examples:
        trackgpt models

        trackgpt models pull small
    """
    from trackgpt.app.pulling import listing

    _keep_offline(offline)
    if context.invoked_subcommand is None:
        print("\n".join(listing()))
    return 0


@models.command()
def pull(
    name: Annotated[str, typer.Argument(help="A preset, such as small; or the hub's id of any model")],
    revision: Annotated[str, typer.Option(help="Of a hub's id: another commit, branch or tag")] = "",
    offline: Offline = False,
) -> int:
    """Fetch public weights once, check every byte, and go on where an earlier attempt stopped.

    With --offline nothing is fetched: what is here is compared with what was written down when it came.

    Examples:
        trackgpt models pull small

        trackgpt models pull facebook/sam2.1-hiera-large
    """
    from trackgpt.app.pulling import run

    _keep_offline(offline)
    return run(name, revision)


@app.command()
def repair(
    run: Annotated[Path, typer.Argument(help="A run folder")],
    source: Annotated[str, typer.Option(help="Its video, if it is not where it was")] = "",
) -> int:
    """Make the outputs that a killed run still lacks, from its log. Example: trackgpt repair runs/race-1"""
    from trackgpt.app.repairing import run as repair_run

    return repair_run(run, source)


@app.command()
def show(run: Annotated[Path, typer.Argument(help="A run folder")]) -> int:
    """What happened in a run: the answer, the score over time, the events. Example: trackgpt show runs/demo"""
    from trackgpt.app.summary import summarise

    print(summarise(run))
    return 0


def main() -> None:
    """Run the command line (see `trackgpt.ending`)."""
    ending.run("trackgpt", lambda: app(standalone_mode=False))


if __name__ == "__main__":
    main()
