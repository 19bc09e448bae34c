"""`python -m train CONFIG [key=value ...]`: run one stage of a recipe, going on where it stopped.

    python -m train CONFIG                                              one process, one GPU or none
    torchrun --standalone --nproc_per_node 8 -m train CONFIG            one node
    deepspeed --num_gpus 8 --module train CONFIG plan.zero=2            the same, by DeepSpeed's launcher
    torchrun --nnodes 4 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint HOST:PORT -m train CONFIG    many nodes

torchrun kills 30 s after SIGTERM what has not left. A step and a checkpoint of a tuned 7B (0.5 GB: 2.7 s, measured) fit
into that, a validation does not: give torchrun `--shutdown_timeout 240`, as `train/launchers` do.

Exit codes are those of `trackgpt.ending`; 0 also stands for a run that is out of `plan.minutes`. After Ctrl-C and
SIGTERM a checkpoint is written first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trackgpt import ending
from trackgpt.errors import UsageError
from trackgpt.settings import read
from train.config import DESCRIBER_STAGES, TRL_STAGES, TrainConfig, ValidationConfig

if TYPE_CHECKING:
    from trackgpt.systems.trackgpt import TrackGPT
    from train.engine import Engine
    from train.loop import Validate
    from train.processes import Processes
    from train.stages import Stage


app = typer.Typer(add_completion=False, context_settings=ending.HELP, pretty_exceptions_enable=False)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A YAML file, e.g. configs/trackgpt/foundation/1_words.yaml")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, e.g. plan.minutes=10")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the memory it takes; nothing is loaded")] = False,
    memory: Annotated[float, typer.Option(help="With --plan: GiB of a GPU; * marks what fits")] = 24.0,
    words: Annotated[
        int, typer.Option(help="With --plan: tokens of an instruction and its answer; 0 takes the stage's usual number")
    ] = 0,
    frame_size: Annotated[
        str, typer.Option(help="With --plan and data.mask_loss=original: WIDTHxHEIGHT of the videos, in pixels")
    ] = "1280x720",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Take two steps that are thrown away; print memory, time and parameters")
    ] = False,
    cache_features: Annotated[
        bool, typer.Option("--cache-features", help="Encode every picture into data.cache, after printing the size")
    ] = False,
    local_rank: Annotated[int, typer.Option("--local_rank", hidden=True)] = 0,  # DeepSpeed's launcher passes it on
) -> None:
    """Train one stage; run it again to go on from its last checkpoint."""
    settings = read(TrainConfig, config, overrides)
    if plan:
        from train.planning import memory_report

        typer.echo(memory_report(config, settings, memory, words, frame_size))
        return
    run(settings, dry_run, cache_features)


def run(config: TrainConfig, dry: bool = False, cache: bool = False) -> None:
    """Build the model the configuration names, train it, and write it to `out/model`."""
    from train.processes import join_processes
    from train.run_folder import claimed, must_be_free

    if config.stage in TRL_STAGES:
        run_by_trl(config, dry, cache)
        return
    must_make_sense(config)
    processes = join_processes(config.device, config.plan.zero)
    out = Path(config.out)
    try:
        if cache:
            _fill_cache(config, processes)
        elif dry:
            must_be_free(out, processes)
            _dry_run(config, out, processes)
        else:
            with claimed(out, config, processes):
                _run(config, out, processes)
        processes.sum(0)  # wait for all before the process group is destroyed
    finally:
        processes.leave()


def run_by_trl(config: TrainConfig, dry: bool = False, cache: bool = False) -> None:
    """The same for a stage that TRL trains: its loop, this project's samples, rewards, log and folder.

    Raises:
        UsageError: what such a stage does not have was asked for, or TRL is not installed.
    """
    for asked, option in ((dry, "--dry-run"), (cache, "--cache-features"), (bool(config.validate.kit), "validate.kit")):
        if asked:
            raise UsageError(f"{option}: the stage {config.stage} has none; take few steps into another `out` instead")
    try:
        from train.answer_training import join_for_trl, train_answers
        from train.describer_training import describer_task
        from train.policy_training import policy_task
    except ImportError as error:
        raise UsageError(f"the stage {config.stage} needs TRL ({error}); pip install 'trackgpt[rl]'") from error
    from train.run_folder import claimed

    open_task = describer_task if config.stage in DESCRIBER_STAGES else policy_task
    processes = join_for_trl(config.device)
    out = Path(config.out)
    try:
        with claimed(out, config, processes):
            step = train_answers(config, out, processes, open_task)
        if processes.rank == 0:
            typer.echo(f"stage={config.stage} step={step} out={out}")
        processes.sum(0)
    finally:
        processes.leave()


def must_make_sense(config: TrainConfig) -> None:
    """Refuse, before anything is loaded or written, what no field can see alone.

    Raises:
        UsageError: there is no such stage, loss part or validation set.
        InputError: the validation set, or a set of the stage "memory" or "box", is not there.
    """
    from train.box_tracking import open_box_sets
    from train.memory_sets import open_mask_videos
    from train.memory_tracking import open_subject
    from train.stages import stage_class
    from train.validation import open_validation

    parts = stage_class(config.stage).weights
    for name in config.plan.loss_weights:
        if name not in parts:
            raise UsageError(
                f"plan.loss_weights: `{name}` is no loss of stage {config.stage}; it has {', '.join(parts)}"
            )
    if config.validate.kit:
        open_validation(_validated_on(config))
    for folder in config.memory.sets if config.stage == "memory" else ():
        open_mask_videos(folder)
    if config.stage == "memory":
        open_subject(config.memory.shown)
        if config.memory.shown and config.memory.sets and config.memory.share == 1:
            raise UsageError("memory.share=1: every clip is of memory.sets, and memory.shown is never seen; lower it")
    if config.stage == "box":
        open_box_sets(config.box.sets)


def _dry_run(config: TrainConfig, out: Path, processes: Processes) -> None:
    from train.dry_run import dry_run

    text = dry_run(_begin(config, processes), config, out, processes)
    if processes.rank == 0:
        typer.echo(text)


def _begin(config: TrainConfig, processes: Processes) -> Stage:
    """The stage of a run with its model; data sets are opened before the model is loaded."""
    import torch

    from train.assemble import box_model, memory_model
    from train.stages import make_stage
    from train.tracking import TrackingStage, open_sources

    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.plan.seed)
    sources = open_sources(config.data) if config.stage == "tracking" else []
    alone = {"memory": memory_model, "box": box_model}.get(config.stage)
    model = build(config, processes) if alone is None else alone(config).to(processes.device)
    stage = make_stage(config, model, processes.device)
    if isinstance(stage, TrackingStage):
        stage.samples.sources = sources
    return stage


def _run(config: TrainConfig, out: Path, processes: Processes) -> None:
    from trackgpt.perception.mask_propagation import MaskPropagation
    from train.assemble import Origin, origin
    from train.loop import fit
    from train.model_folder import export_model, exported_step, training_record
    from train.previews import draw_boxes, draw_previews, draw_propagation, draw_sam2
    from train.report import draw_curves

    stage = _begin(config, processes)
    model = stage.model
    preview: Any = draw_previews
    if config.stage == "memory":
        came_from = Origin(config.brain)
        preview = draw_propagation
        if not isinstance(model, MaskPropagation):
            preview = lambda _, path: draw_sam2(out / "model", processes.device, path)  # noqa: E731
    elif config.stage == "box":
        came_from, preview = Origin(config.brain), draw_boxes
    else:
        came_from = origin(model, config.brain, config.perception, config.encoder_from_tower)

    def export(step: int, engine: Engine) -> None:
        if exported_step(out / "model") == step:
            return
        export_model(model, came_from, engine, out / "model", training_record(config, out, step, processes), processes)
        if config.previews:
            with engine.inference():
                if processes.rank == 0:
                    preview(model, out / "previews" / f"{step:06d}.png")
        if processes.rank == 0:
            draw_curves(out)

    step = fit(stage, config.plan, out, processes, export, validation(config, model, processes))
    if processes.rank == 0:
        typer.echo(f"stage={config.stage} step={step} out={out}")


def validation(config: TrainConfig, model: TrackGPT, processes: Processes) -> Validate | None:
    """The hook that measures the model while it learns, if the configuration wants one."""
    if not config.validate.kit:
        return None
    from train.validation import Validation

    return Validation(_validated_on(config), model, processes.rank, processes.size)


def _validated_on(config: TrainConfig) -> ValidationConfig:
    return replace(config.validate, data=config.validate.data or config.data.root)


def _fill_cache(config: TrainConfig, processes: Processes) -> None:
    """Encode this process's share of the pictures; says what it will take before it begins."""
    from eval.run_folder import progress
    from train.tracking import TrackingStage

    if config.stage != "tracking" or not config.data.cache:
        raise UsageError("--cache-features: the stage has no data.cache; name a folder in data.cache=FOLDER")
    stage = _begin(config, processes)
    assert isinstance(stage, TrackingStage)
    assert stage.cache is not None
    cache = stage.cache
    pictures = stage.samples.pictures()
    segmenter = stage.model.segmenter
    left = [picture for picture in pictures if not cache.path(picture).exists()]
    size = cache.size(len(left), segmenter)
    if processes.rank == 0:
        typer.echo(f"{len(pictures)} pictures, {len(left)} to encode: {size / 2**30:.2f} GiB in {cache.folder}")
        cache.must_fit(size)
    mine = left[processes.rank :: processes.size]
    made = cache.fill(progress(mine, "pictures", len(mine)), segmenter)
    encoded = int(processes.sum(made)[0])
    if processes.rank == 0:
        typer.echo(f"pictures={len(pictures)} encoded={encoded} out={cache.folder}")


def build(config: TrainConfig, processes: Processes) -> TrackGPT:
    """The model on its device, frozen and adapted as configured."""
    from trackgpt.precision import round_frozen
    from train.assemble import assemble, carries_lora, freeze, randomise_encoder, recompute, renew_referring
    from train.enlarge import enlarge_tower
    from train.mimetic import seed_matching_heads
    from train.precision import use_bf16

    model = assemble(config.brain, config.perception, config.encoder_from_tower, config.plan.seed)
    if config.tower.side:
        model = enlarge_tower(model, config.tower.side, config.tower.merging, config.plan.seed)
    if config.matching_heads:
        seed_matching_heads(model)
    if config.new_referring:
        renew_referring(model, config.plan.seed)
    if config.random_encoder:
        randomise_encoder(model, config.plan.seed)
    if not config.propagate:
        model.config.perception.decoder.propagate = model.segmenter.mask_decoder.propagate = False
    freeze(model, config.frozen)
    if carries_lora(model) and use_bf16(config.plan.bf16, processes.device):
        round_frozen(model)
    if config.plan.checkpointing:
        recompute(model)
    return model.to(processes.device)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a stage (see `trackgpt.ending`)."""
    ending.run("train", lambda: app(args=arguments, prog_name="python -m train", standalone_mode=False))


if __name__ == "__main__":
    main()
