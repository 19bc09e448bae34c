"""`python -m train.first_frames --data DAVIS`: nano-memory after a minute with the first frame of each sequence.

Each sequence has a network of its own: the one that ships, trained on reenactments of the sequence's first frame
(`configs/memory/shown.yaml`). Of a box that is shown, the network's own first mask is learned. Results are those of the
kit davis: `python -m eval davis --data DAVIS --results OUT/results` scores them again. The same command goes on after
a stop.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from eval.kits.davis import Davis, first_masks, shown_objects
from eval.run_folder import progress, write_text
from eval.runner import Job, Worker
from eval.trackers import Choice
from trackgpt import ending
from trackgpt.data.videos import read_image
from trackgpt.errors import ModelError, UsageError
from trackgpt.hub import NANO_MEMORY
from trackgpt.settings import read_json

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs/memory/shown.yaml"

app = typer.Typer(add_completion=False, context_settings=ending.HELP, pretty_exceptions_enable=False)


@app.command()
def main(
    data: Annotated[Path, typer.Option(help="DAVIS, the folder of JPEGImages and Annotations")],
    out: Annotated[Path, typer.Option(help="Folder of the run")] = Path("runs/first_frames"),
    split: Annotated[str, typer.Option(help="Part of the data set")] = "semi-supervised/val",
    prompt: Annotated[str, typer.Option(help="What is shown: mask, box or point")] = "mask",
    resolution: Annotated[str, typer.Option(help="480p, or 240p")] = "480p",
    plan: Annotated[list[str] | None, typer.Option("--set", help="Of the training, such as plan.steps=100")] = None,
) -> None:
    """Learn from the first frame of each sequence, follow it, and print the means."""
    kit = Davis(data, split, prompt, resolution)
    _same_run(out / "asked.json", {"split": split, "prompt": prompt, "resolution": resolution, "set": plan or []})
    rows = []
    for task in progress(kit.tasks(), "sequences", len(kit.tasks())):
        model = out / "models" / task
        learned = (model / "model").is_dir() or learn(kit, task, model, plan or [])
        if not learned:
            typer.echo(f"{task}: nothing is found on its first frame, so nothing is learned of it")
        choice = Choice(str(model / "model") if learned else NANO_MEMORY)
        job = Job(lambda: kit, out / "results", out, choice)
        found = Worker(job)(task) or []
        typer.echo(
            f"{task} " + " ".join(f"{row.unit} J={row.figures['J']:.4f} F={row.figures['F']:.4f}" for row in found)
        )
        rows += found
    typer.echo(" ".join(f"{name}={value:.2f}" for name, value in kit.summarise(rows).items()) + f" out={out}")


def _same_run(file: Path, asked: dict[str, Any]) -> None:
    """Keep what a run was asked for, and refuse to go on with something else.

    Raises:
        UsageError: the folder holds a run that was asked otherwise.
    """
    if file.exists():
        if read_json(file) != asked:
            raise UsageError(f"{file.parent}: holds a run of other settings ({file.name}); choose another --out")
        return
    write_text(file, json.dumps(asked) + "\n")


def learn(kit: Davis, task: str, out: Path, settings: list[str]) -> bool:
    """Train on the first frame of a sequence; of several objects the network learns them as one.

    Returns:
        False where the shipped network finds nothing of what is shown, so that there is no mask to learn.

    Raises:
        InputError: the frame or its masks cannot be read.
        ModelError: the training failed; with its last line.
    """
    truth = kit.annotations / task / "00000.png"
    picture = kit.root / "JPEGImages" / kit.resolution / task / "00000.jpg"
    masks = first_masks(truth)
    if kit.prompt == "mask":
        mask = np.any(list(masks.values()), axis=0)
    else:
        tracker = Choice(NANO_MEMORY).load()
        _, seen = tracker.step(tracker.begin(), read_image(picture), shown_objects(masks, kit.prompt))
        mask = seen.masks.any(0) if seen.masks is not None and len(seen.masks) else np.zeros((1, 1), bool)
    if not mask.any():
        return False
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8)).save(out.with_suffix(".png"))
    here = [f"memory.shown=[{picture.resolve()},{out.resolve()}.png]", f"out={out.resolve()}"]
    command = [sys.executable, "-m", "train", str(CONFIG), *here, *settings]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise ModelError(f"{task}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'no training'}")
    return True


if __name__ == "__main__":
    ending.run("train.first_frames", lambda: app(prog_name="python -m train.first_frames", standalone_mode=False))
