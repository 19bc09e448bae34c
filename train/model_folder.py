"""The exported model folder, with a card that records how it was trained."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trackgpt.data.trees import read_object
from trackgpt.errors import InputError
from trackgpt.settings import to_dict
from trackgpt.systems.trackgpt import TrackGPT
from trackgpt.version import installed
from train.assemble import Origin, carries_lora
from train.checkpoints import replace_folder, together
from train.engine import Engine
from train.processes import Processes
from train.report import read_log

CARD = "README.md"
RECORD = "training.json"
PACKAGES = ("trackgpt", "torch", "transformers", "peft", "deepspeed", "numpy")
PROTOCOL = (
    "Figures named val_ come from the validation hook on data no step trains on. All others are means over the "
    "training samples of the last logged steps, with the answers given (teacher-forced), masks on the decoder's grid; "
    "they are no benchmark results."
)


def copy_beside(source: Path, out: Path) -> None:
    """Copy what a model's folder has beside weights: configurations, tokenizer, templates; not how it was trained.

    Args:
        source: the model's folder, as a hub has it.
        out: a folder that is there.
    """
    for file in source.iterdir():
        beside = file.suffix in (".json", ".jinja", ".txt", ".model", ".yaml") and "index" not in file.name
        if beside and file.name != RECORD:
            shutil.copy(file, out)


def export_model(
    model: TrackGPT, origin: Origin, engine: Engine, folder: Path, record: dict[str, Any], processes: Processes
) -> None:
    """Write the model folder, replacing an earlier one: all weights, or adapters alone where the brain has LoRA.

    Every process calls this (under ZeRO-3 weights are gathered); rank 0 writes. Until the new folder is on the disk the
    old one stays.

    Args:
        model: what is exported.
        origin: of its frozen parts.
        engine: that trains it.
        folder: of the model.
        record: see `training_record`.
        processes: the processes.

    Raises:
        OutputError: the disk is full, or may not be written.
    """
    adapters = carries_lora(model)
    unfinished = folder.with_name(folder.name + ".tmp")

    def write() -> None:
        shutil.rmtree(unfinished, ignore_errors=True)
        if adapters:
            origin.save(model, unfinished)
        else:
            model.save_pretrained(unfinished)
        (unfinished / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
        (unfinished / CARD).write_text(card(record, adapters))
        replace_folder(unfinished, folder)

    with engine.whole(origin.parameters(model) if adapters else model.parameters()):
        together(processes, f"{folder}: the model of step {record['step']}", write if processes.rank == 0 else _nothing)


def exported_step(folder: Path) -> int:
    """The step a model folder was written at; -1 for none."""
    try:
        return int(read_object(folder / RECORD)["step"])
    except (InputError, ValueError, TypeError, KeyError):
        return -1


def training_record(config: Any, out: Path, step: int, processes: Processes) -> dict[str, Any]:
    """Data of the model card: configuration, step, versions, commit, processes, the last figures."""
    log = read_log(out) if (out / "train.jsonl").exists() else []
    return {
        "step": step,
        "config": to_dict(config),
        "processes": processes.size,
        "device": str(processes.device.type),
        "versions": {"python": platform.python_version()} | {name: installed(name) for name in PACKAGES},
        "commit": commit(),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "figures": log[-1] if log else {},
        "skipped": len((out / "skipped.jsonl").read_text().splitlines()) if (out / "skipped.jsonl").exists() else 0,
    }


def card(record: dict[str, Any], adapters: bool, read: str = "") -> str:
    """The model card, Markdown; `read` is how the folder is read, where that is not by `trackgpt.load`."""
    config = record["config"]
    plan = config["plan"]
    total = plan["batch"] * plan["accumulate"] * record["processes"]
    settings = {name: value for name, value in config.items() if name != "plan"}
    form = (
        "adapters and decoder, without the frozen models, which `tuned.json` names"
        if adapters
        else "every weight, in `model.safetensors`"
    )
    return "\n".join(
        [
            f"# trackgpt, stage {config['stage']}, step {record['step']} of {plan['steps']}",
            "",
            f"This folder holds {form}. Read it with {read or _reading(config['stage'])}.",
            "",
            "## Training",
            "",
            f"Seed {plan['seed']}; {total} samples per step on {record['processes']} process(es) ({record['device']}), "
            f"{record['step'] * total} samples in all, {record['skipped']} broken ones replaced. "
            f"Written {record['written']} at commit {record['commit']}.",
            "",
            "Data, ratios and parts, as configured:",
            "",
            *_table(settings),
            "",
            "Plan:",
            "",
            *_table(plan),
            "",
            "Versions:",
            "",
            *_table(record["versions"]),
            "",
            "## Figures at the end",
            "",
            PROTOCOL,
            "",
            *_table(record["figures"]),
            "",
        ]
    )


def _reading(stage: str) -> str:
    """How a model in a folder is loaded, in Python."""
    return '`trackgpt.load("reasoningtrack:" + folder)`' if stage == "box" else "`trackgpt.load(folder)`"


def commit() -> str:
    """The commit this code is at, with a note where files differ from it; "unknown" outside a checkout."""
    where = Path(__file__).parent
    try:
        name = _git(where, "rev-parse", "HEAD")
        return name + (" (changed)" if _git(where, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(where: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=where, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()


def _table(values: dict[str, Any]) -> list[str]:
    shown = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    rows = [f"| {name} | {value} |" for name, value in shown.items()]
    return ["| | |", "|---|---|", *rows]


def _nothing() -> None:
    pass
