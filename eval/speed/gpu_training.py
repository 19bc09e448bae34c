"""Samples/s of stage 2, by the trainer itself in a process of its own: evaluation imports no training."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from eval.speed.bench import Figures, Setting, median
from eval.speed.gpu_models import random_model
from trackgpt.errors import OutputError, UsageError

ROOT = Path(__file__).parents[2]
CONFIG = "configs/trackgpt/recipe/7b/2_rvos.yaml"
VIDEOS = 8
WARM = 2
"""Steps that are not counted."""


def train(at: Setting, brain: str, vit: str, cached: bool) -> Figures:
    """Samples/s of stage 2 on one device over drawn videos, with features encoded or read, and the device's memory."""
    work = at.out / "training"
    model, data = work / f"model-{brain}-{vit}", work / "data"
    if not data.exists():
        made = ("--layout", "refer-youtube-vos", "--videos", VIDEOS, "--split", "train", "--frames", 8)
        run_module("data_tools", "make", *made, "-o", data)
    if not model.exists():
        begun = model.with_suffix(".part")
        shutil.rmtree(begun, ignore_errors=True)
        random_model(brain, vit, at.device).save_pretrained(begun)
        begun.rename(model)
    run = work / f"run-{'cached' if cached else 'encoded'}"
    if run.exists() and not (run / "stage.json").is_file():
        raise OutputError(f"{run}: holds no run of `python -m train`; move it away, or choose another --out", "OUT01")
    shutil.rmtree(run, ignore_errors=True)
    settings = _settings(at, model, data, run) + ([f"data.cache={work / 'features'}"] if cached else [])
    if cached:
        run_module("train", CONFIG, *settings, "--cache-features")
    run_module("train", CONFIG, *settings)
    lines = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "rate" in line][WARM:]
    if not steps:
        raise UsageError(f"{run}: {len(lines)} lines in train.jsonl; wanted more than {WARM} steps")
    counted = {"samples_s": median([line["rate"] for line in steps]), "steps": len(steps)}
    return {**counted, "batch": at.size.train_batch, "memory_gib": steps[-1]["memory"], "wait_s": steps[-1]["wait"]}


def _settings(at: Setting, model: Path, data: Path, run: Path) -> list[str]:
    on_gpu = at.device.startswith("cuda")
    plan = {
        "steps": at.size.steps,
        "batch": at.size.train_batch,
        "accumulate": 1,
        "zero": 0,
        "bf16": str(on_gpu).lower(),
        "workers": 8 if on_gpu else 0,
        "log_every": 1,
        "warmup": 1,
        "validate_every": 0,
    }
    named = [f"brain={model}", f"data.root={data}", f"out={run}", f"device={'cuda' if on_gpu else 'cpu'}"]
    return [*named, "validate.kit=''", *(f"plan.{name}={value}" for name, value in plan.items())]


def run_module(module: str, *arguments: object) -> None:
    """Run `python -m MODULE ARGUMENTS` in the repository root; UsageError with its last line if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UsageError(f"gpu-rows: `python -m {module} {arguments[0]} ...` failed: {reason}")
