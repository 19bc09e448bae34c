"""`python -m train CONFIG [key=value ...]`: run one stage of a recipe, resuming where it stopped."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from trackgpt.config import read, write_json
from trackgpt.errors import TrackGPTError, UsageError
from train.loop import Plan
from train.shape import Shape


@dataclass
class TrainConfig:
    """One stage of a recipe.

    Attributes:
        stage: "words", "masks", "language" or "join" (see `train.stages`).
        out: the run's folder: checkpoints, log, curves, previews, and the model under `model/`.
        brain, segmenter: model folders to start these halves from; empty starts from a new nano.
        encoder_from_tower: start the perception's encoder from the brain's vision tower.
        matching_heads: begin with heads that look for the word they stand on (see `train.mimetic`).
        frozen: halves that do not learn: "brain", "segmenter".
        shape: side in pixels of the padded square, frames unrolled, targets a clip (see `train.stages.Shape`).
        device: "auto", "cpu" or "cuda".
        threads: CPU threads for the arithmetic; 0 leaves torch's choice.
    """

    stage: str = "words"
    out: str = "runs/words"
    brain: str = ""
    segmenter: str = ""
    encoder_from_tower: bool = False
    matching_heads: bool = False
    frozen: list[str] = field(default_factory=list)
    shape: Shape = field(default_factory=Shape)
    device: str = "auto"
    threads: int = 0
    plan: Plan = field(default_factory=Plan)


def main(
    config: Annotated[Path, typer.Argument(help="A YAML file, e.g. configs/trackgpt/nano_1_words.yaml")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, e.g. plan.minutes=10")] = None,
) -> None:
    """Train one stage; run it again to go on from its last checkpoint."""
    try:
        run(read(TrainConfig, config, overrides))
    except TrackGPTError as error:
        typer.echo(f"train: {error}", err=True)
        raise typer.Exit(error.exit_code) from None


def run(config: TrainConfig) -> None:
    """Build the model the configuration names, train it, and write it to `out/model`."""
    import torch

    from train.assemble import assemble
    from train.loop import fit
    from train.mimetic import seed_matching_heads
    from train.previews import draw_previews
    from train.report import draw_curves
    from train.stages import STAGES

    if config.stage not in STAGES:
        raise UsageError(f"stage `{config.stage}` is not one of {', '.join(STAGES)}")
    if config.threads:
        torch.set_num_threads(config.threads)
    device = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    )
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    write_json(config, out / "stage.json")
    torch.manual_seed(config.plan.seed)
    model = assemble(config.brain, config.segmenter, config.encoder_from_tower, config.plan.seed).to(device)
    if config.matching_heads and not (out / "state.pt").exists():
        seed_matching_heads(model)
    for half in config.frozen:
        if half not in ("brain", "segmenter"):
            raise UsageError(f"frozen: `{half}` is not a half of the model; choose brain or segmenter")
        getattr(model, half).requires_grad_(False)
    stage = STAGES[config.stage](model, config.shape, device)

    def export(step: int) -> None:
        model.save_pretrained(out / "model")
        draw_curves(out)
        draw_previews(model, out / "previews" / f"{step:06d}.png")

    step = fit(stage, config.plan, out, device, export)
    typer.echo(f"stage={config.stage} step={step} out={out}")


if __name__ == "__main__":
    sys.exit(typer.run(main))
