"""The command line: `trackgpt track race.mp4 -i "who will win the race?"`.

stdout is data (the answer, one `key=value` line at the end, or JSON); stderr is talk. Heavy imports happen inside the
commands, so that `--help` is immediate.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from trackgpt.errors import TrackGPTError

app = typer.Typer(
    help="Tell a video tracker what you mean, and it follows the right object.\n\n"
    "Example: trackgpt track race.mp4 -i 'who will win the race?'",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

FORMATS = "mp4,davis,coco,mot,timeline,jsonl"


@app.command()
def track(
    source: Annotated[str, typer.Argument(help="Video, folder of frames, glob, camera index, or stream URL")],
    instruction: Annotated[
        list[str],
        typer.Option("-i", "--instruction", help="What to track; '240: no, the red one' applies at frame 240"),
    ],
    model: Annotated[str, typer.Option("-m", "--model", help="Shipped name or folder")] = "nano",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Run folder [default: runs/SOURCE-N]")] = None,
    format_: Annotated[str, typer.Option("--format", help="Any of " + FORMATS)] = FORMATS,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
    seed: Annotated[int, typer.Option(help="Recorded; nano draws nothing at random")] = 0,
    start: Annotated[int, typer.Option(help="First frame")] = 0,
    end: Annotated[int | None, typer.Option(help="Frame to stop before")] = None,
    stride: Annotated[int, typer.Option(help="Take every n-th frame")] = 1,
    fps: Annotated[float | None, typer.Option(help="Override the source's frame rate")] = None,
    rethink: Annotated[str, typer.Option(help="auto or off")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 when there were warnings")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress bar")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line a frame on stdout")] = False,
) -> None:
    """Track what an instruction means.

    Examples:
        trackgpt track race.mp4 -i "who will win the race?"

        trackgpt track frames/ -i "the dog" -i "240: no, the black one" -o out --format mp4,davis
    """
    from trackgpt.app.tracking import Request, run

    request = Request(
        source=source,
        instructions=tuple(instruction),
        model=model,
        output=output,
        formats=tuple(name.strip() for name in format_.split(",") if name.strip()),
        device=device,
        seed=seed,
        reading={"start": start, "end": end, "stride": stride, "fps": fps},
        rethink=rethink,
        overwrite=overwrite,
        strict=strict,
        quiet=quiet,
        as_json=as_json,
    )
    raise typer.Exit(run(request))


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Run folder")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Chooses the synthetic clip")] = 8,
    model: Annotated[str, typer.Option("-m", "--model")] = "nano",
    kind: Annotated[str, typer.Option(help="explicit, implicit, multi or none")] = "implicit",
) -> None:
    """Make a SynthTrack clip, track it, and show J&F against its truth. Example: trackgpt demo --seed 3"""
    from trackgpt.app.demonstration import run

    raise typer.Exit(run(output, seed, model, kind))


@app.command()
def doctor(model: Annotated[str, typer.Option("-m", "--model")] = "nano") -> None:
    """Versions, device, decoders, weights, and a 5-frame self-test. Example: trackgpt doctor"""
    from trackgpt.app.doctor import run

    raise typer.Exit(run(model))


@app.command()
def models() -> None:
    """The models that ship inside the package. Example: trackgpt models"""
    from trackgpt.hub import shipped

    for entry in shipped():
        weights = entry.folder / "model.safetensors"
        size = f"{weights.stat().st_size / 2**20:.1f} MiB" if weights.exists() else "missing"
        typer.echo(f"{entry.name:10s} {size:>10s}  {entry.about}")


@app.command()
def show(run: Annotated[Path, typer.Argument(help="A run folder")]) -> None:
    """What happened in a run: the answer, the purport score over time, the events. Example: trackgpt show runs/demo"""
    from trackgpt.app.summary import summarise

    typer.echo(summarise(run))


def main() -> None:
    """Run the command line: errors become one line on stderr and an exit code."""
    try:
        app(standalone_mode=False)
    except TrackGPTError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted")
        sys.exit(130)
    except typer.Exit as leave:
        sys.exit(leave.exit_code)
    except BrokenPipeError:
        # The reader of stdout has gone (`| head`): Python would complain once more while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        _unexpected(error)


def _unexpected(error: Exception) -> None:
    import click

    if isinstance(error, click.ClickException):
        error.show()
        sys.exit(error.exit_code)
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        _say("MD05: out of memory; use a smaller model, a smaller video, or --device cpu")
        sys.exit(7)
    if os.environ.get("TRACKGPT_TRACEBACK"):
        raise error
    _say(f"a defect of trackgpt, please report it: {type(error).__name__}: {error} (TRACKGPT_TRACEBACK=1 shows where)")
    sys.exit(70)


def _say(text: str) -> None:
    print(f"trackgpt: {text}", file=sys.stderr)


def echo_json(values: dict[str, Any]) -> None:
    """One JSON line on stdout."""
    typer.echo(json.dumps(values))


if __name__ == "__main__":
    main()
