"""`python -m train CONFIG [key=value ...]`: run one stage of a recipe, going on where it stopped.

    python -m train CONFIG                                              one process, one GPU or none
    torchrun --standalone --nproc_per_node 8 -m train CONFIG            one node
    deepspeed --num_gpus 8 --module train CONFIG plan.zero=2            the same, by DeepSpeed's launcher
    torchrun --nnodes 4 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint HOST:PORT -m train CONFIG    many nodes

torchrun kills 30 s after SIGTERM what has not left. A step and a checkpoint of a tuned 7B (0.5 GB: 2.7 s, measured) fit
into that, a validation does not: give torchrun `--shutdown_timeout 240`, as `train/launchers` do.

Exit codes: 0 done (or out of `plan.minutes`), 2 the configuration, 3 the data, 4 a model, 6 the disk, 7 memory, 130 and
143 stopped by Ctrl-C and by SIGTERM after a checkpoint, 1 anything else.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trackgpt.errors import TrackGPTError, UsageError
from trackgpt.settings import read, write_json
from train.data_config import DataConfig, ValidationConfig
from train.plan import Plan
from train.shape import Shape

if TYPE_CHECKING:
    from trackgpt.systems.trackgpt import TrackGPT
    from train.engine import Engine
    from train.loop import Validate
    from train.stages import Stage
    from train.world import World


@dataclass
class TrainConfig:
    """One stage of a recipe.

    Attributes:
        stage: "tracking", the three-part recipe on data sets (see `train.tracking`), or a part of nano's foundation, a
            name in `train.stages.STAGES`.
        out: the run's folder: checkpoints, log, curves, previews, and the model under `model/`.
        brain: the model to start from, by a name `trackgpt.hub.load_model` knows; empty for a new nano.
        segmenter: a model whose perception takes the place of that one's.
        encoder_from_tower: start the perception's encoder from the brain's vision tower.
        matching_heads: begin with heads that look for the word they stand on (see `train.mimetic`).
        random_encoder: begin with an image encoder of random weights (Table 4's ablation).
        new_referring: begin with random weights for all that TrackGPT adds to LLaVA and SAM.
        propagate: hand Q_t on from frame to frame; false is Table 3's baseline, in training and in the exported model.
        frozen: halves that do not learn: "brain", "segmenter".
        data: of the stage "tracking".
        validate: on what, every `plan.validate_every` steps.
        shape: of the foundation's stages: side in pixels of the padded square, frames unrolled, targets a clip.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads for the arithmetic; 0 leaves torch's choice.
        previews: draw what the model would say and follow in SynthTrack after every checkpoint.
        plan: see `train.plan.Plan`.
    """

    stage: str = "words"
    out: str = "runs/words"
    brain: str = ""
    segmenter: str = ""
    encoder_from_tower: bool = False
    matching_heads: bool = False
    random_encoder: bool = False
    new_referring: bool = False
    propagate: bool = True
    frozen: list[str] = field(default_factory=list)
    data: DataConfig = field(default_factory=DataConfig)
    validate: ValidationConfig = field(default_factory=ValidationConfig)
    shape: Shape = field(default_factory=Shape)
    device: str = "auto"
    threads: int = 0
    previews: bool = True
    plan: Plan = field(default_factory=Plan)


def main(
    config: Annotated[Path, typer.Argument(help="A YAML file, e.g. configs/trackgpt/foundation/1_words.yaml")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, e.g. plan.minutes=10")] = None,
    dry_run: Annotated[bool, typer.Option(help="Say what it would learn, hold and take; train nothing")] = False,
    cache_features: Annotated[
        bool, typer.Option(help="Encode every picture once into data.cache, saying the size first; train nothing")
    ] = False,
    local_rank: Annotated[int, typer.Option("--local_rank", hidden=True)] = 0,  # DeepSpeed's launcher passes it on
) -> None:
    """Train one stage; run it again to go on from its last checkpoint."""
    try:
        run(read(TrainConfig, config, overrides), dry_run, cache_features)
    except TrackGPTError as error:
        typer.echo(f"train: {error}", err=True)
        raise typer.Exit(error.exit_code) from None


def run(config: TrainConfig, dry: bool = False, cache: bool = False) -> None:
    """Build the model the configuration names, train it, and write it to `out/model`."""
    from train.stages import STAGES
    from train.world import join_world

    if config.stage not in ("tracking", *STAGES):
        raise UsageError(f"stage `{config.stage}` is not one of tracking, {', '.join(STAGES)}")
    world = join_world(config.device, config.plan.zero)
    try:
        if cache:
            _fill_cache(config, world)
        else:
            _run(config, world, dry)
        world.sum(0)  # nobody leaves while another still talks
    finally:
        world.leave()


def _run(config: TrainConfig, world: World, dry: bool) -> None:
    import torch

    from train.assemble import origin
    from train.dry_run import dry_run
    from train.loop import fit
    from train.model_folder import export_model, exported_step, training_record
    from train.previews import draw_previews
    from train.report import draw_curves

    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.plan.seed)
    model = build(config, world)
    stage = make_stage(config, model, world)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    if dry:
        text = dry_run(stage, config.plan, out, world)
        if world.rank == 0:
            typer.echo(text)
        return
    if world.rank == 0:
        write_json(config, out / "stage.json")
    came_from = origin(model, config.brain, config.segmenter, config.encoder_from_tower)

    def export(step: int, engine: Engine) -> None:
        if exported_step(out / "model") == step:
            return
        export_model(model, came_from, engine, out / "model", training_record(config, out, step, world), world)
        if config.previews:
            with engine.inference():
                if world.rank == 0:
                    draw_previews(model, out / "previews" / f"{step:06d}.png")
        if world.rank == 0:
            draw_curves(out)

    step = fit(stage, config.plan, out, world, export, validation(config, model, world))
    if world.rank == 0:
        typer.echo(f"stage={config.stage} step={step} out={out}")


def make_stage(config: TrainConfig, model: TrackGPT, world: World) -> Stage:
    """The stage a configuration names."""
    from train.stages import STAGES

    if config.stage != "tracking":
        return STAGES[config.stage](model, config.shape, world.device)
    from train.tracking import Tracking

    return Tracking(model, config.data, world.device)


def validation(config: TrainConfig, model: TrackGPT, world: World) -> Validate | None:
    """The hook that measures the model while it learns, if the configuration wants one."""
    if not config.validate.kit:
        return None
    from train.validation import Validation

    chosen = replace(config.validate, data=config.validate.data or config.data.root)
    return Validation(chosen, model, world.rank, world.size)


def _fill_cache(config: TrainConfig, world: World) -> None:
    """Encode this process's share of the pictures; says what it will take before it begins."""
    from eval.run_folder import progress

    stage = make_stage(config, build(config, world), world)
    cache = getattr(stage, "cache", None)
    if cache is None:
        raise UsageError("--cache-features: the stage has no data.cache; name a folder in data.cache=FOLDER")
    pictures = stage.lessons.pictures()
    segmenter = stage.model.segmenter
    left = [picture for picture in pictures if not cache.path(picture).exists()]
    size = cache.size(len(left), segmenter)
    if world.rank == 0:
        typer.echo(f"{len(pictures)} pictures, {len(left)} to encode: {size / 2**30:.2f} GiB in {cache.folder}")
        cache.must_fit(size)
    mine = left[world.rank :: world.size]
    made = cache.fill(progress(mine, "pictures", len(mine)), segmenter)
    encoded = int(world.sum(made)[0])
    if world.rank == 0:
        typer.echo(f"pictures={len(pictures)} encoded={encoded} out={cache.folder}")


def build(config: TrainConfig, world: World) -> TrackGPT:
    """The model on its device, frozen and adapted as configured."""
    from trackgpt.precision import round_frozen
    from train.assemble import assemble, carries_lora, freeze, randomise_encoder, recompute, renew_referring
    from train.mimetic import seed_matching_heads
    from train.precision import use_bf16

    model = assemble(config.brain, config.segmenter, config.encoder_from_tower, config.plan.seed)
    if config.matching_heads:
        seed_matching_heads(model)
    if config.new_referring:
        renew_referring(model, config.plan.seed)
    if config.random_encoder:
        randomise_encoder(model, config.plan.seed)
    if not config.propagate:
        model.config.perception.decoder.propagate = model.segmenter.mask_decoder.propagate = False
    freeze(model, config.frozen)
    if carries_lora(model) and use_bf16(config.plan.bf16, world.device):
        round_frozen(model)
    if config.plan.checkpointing:
        recompute(model)
    return model.to(world.device)


if __name__ == "__main__":
    sys.exit(typer.run(main))
