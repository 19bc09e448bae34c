"""Wrong command lines and configurations of `python -m train` and `python -m data_tools`: one line and an exit code,
before a model is loaded or a file is written.
"""

import dataclasses
import multiprocessing
import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_trackgpt
from tiny_runs import CPU, Line, run

import train.__main__
from data_tools.__main__ import main as data_tools_main
from trackgpt.config import LoraConfig, TrackGPTConfig
from trackgpt.errors import InputError, OutputError, UsageError
from trackgpt.planning.memory_plan import load_of
from trackgpt.planning.outline import outline_of
from trackgpt.reasoners.lora import add_lora
from trackgpt.settings import from_dict
from train.config import TrainConfig
from train.engine import StageModule
from train.memory import batch_size, plan_training
from train.plan import Plan
from train.run_folder import claimed, must_be_free
from train.stages import make_stage

CONFIG = """
stage: masks
out: out
brain: nano
device: cpu
previews: false
shape: {side: 64, frames: 2, targets: 1}
data: {root: empty, mixture: {phrases: {sets: [refcoco]}}}
plan: {steps: 1, batch: 1, workers: 0, tensorboard: false, bf16: false}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with a configuration and an empty data root, in which no model may be built."""

    def forbidden(*_):
        raise AssertionError("a model was built")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train.__main__, "build", forbidden)
    Path("run.yaml").write_text(CONFIG)
    Path("empty").mkdir()
    Path("model").mkdir()
    Path("broken.yaml").write_text("plan: [1")
    return tmp_path


TRAIN = {
    "": (2, "Missing argument 'config'"),
    "nowhere.yaml": (2, "nowhere.yaml: no such configuration file"),
    "empty": (2, "empty: "),
    "broken.yaml": (2, "broken.yaml: "),
    "run.yaml --frob": (2, "No such option: --frob"),
    "run.yaml plan.batchs=4": (2, "plan: no setting `batchs`; did you mean `batch`?"),
    "run.yaml plan.batch=many": (2, "plan.batch: wanted int, found str ('many')"),
    "run.yaml plan.lr": (2, "plan.lr: wanted SETTING=VALUE"),
    "run.yaml stage=dance": (2, "stage `dance` is not one of tracking, words, masks, language, join"),
    "run.yaml device=tpu": (2, "device: `tpu` is none of auto, cpu, cuda"),
    "run.yaml frozen=[tail]": (2, "frozen: `tail` is none of brain, perception"),
    "run.yaml plan.bf16=fp16": (2, "plan.bf16: `fp16` is none of auto, True, False, None"),
    "run.yaml plan.loss_weights.mesk=2": (2, "plan.loss_weights: `mesk` is no loss of stage masks; it has mask, "),
    "run.yaml validate.kit=coco": (2, "validate.kit: 'coco' is none of synthtrack, "),
    "run.yaml stage=tracking": (3, "empty: no refcoco here"),
    "run.yaml stage=tracking data.mixture=null": (2, "data.mixture: wanted dict, found NoneType"),
    "run.yaml --cache-features": (2, "--cache-features: the stage has no data.cache"),
    "run.yaml brain=models/none --plan": (4, "models/none"),
    "run.yaml --plan --memory nan": (2, "--memory: wanted 0 to 1,000,000 GiB, found nan"),
    "run.yaml --plan --words -3": (2, "--words: wanted 0 to 1,000,000 tokens, found -3"),
    "run.yaml --plan --frame-size 0x0": (2, "--frame-size: wanted WIDTHxHEIGHT in pixels such as 1280x720"),
    "run.yaml out=run.yaml/out": (6, "OUT02: run.yaml/out: cannot be written (Not a directory)"),
    "run.yaml out=/proc/out": (6, "OUT02: /proc/out: cannot be written"),
    "run.yaml out=.": (6, "OUT01: .: holds model but no stage.json, so no run of this trainer made it"),
    "run.yaml out=. --dry-run": (6, "OUT01: .: holds model but no stage.json"),
}


@pytest.mark.parametrize(("line", "wanted"), TRAIN.items())
def test_a_wrong_command_of_train_is_one_line(here, train_command, line, wanted):
    done = train_command(*line.split())
    assert (done.code, done.out, done.err.count("\n")) == (wanted[0], "", 1)
    assert wanted[1] in done.err


@pytest.mark.parametrize(
    "override",
    ["plan.batch=0", "plan.batch=1000000000", "plan.accumulate=0", "plan.lr=-1", "plan.lr=.nan", "plan.lr=.inf"]
    + ["plan.lr=1e9", "plan.steps=0", "plan.steps=-5", "plan.warmup=-1", "plan.decay=1.5", "plan.clip=-1"]
    + ["plan.workers=-1", "plan.workers=100000", "plan.minutes=-1", "plan.save_every=-1", "plan.keep=0"]
    + ["plan.log_every=0", "plan.seed=-1", "plan.seed=99999999999", "plan.max_skipped=2", "plan.zero=4"]
    + ["plan.loss_weights.mask=-1", "plan.loss_weights.mask=much", "data.frames=0", "data.turns=0", "data.targets=0"]
    + ["data.own_answers=2", "data.wordings=[6]", "data.mixture.phrases.weight=0", "validate.tasks=0", "threads=-1"]
    + ["shape.frames=0", "shape.side=1", "shape.targets=100000"],
)
def test_a_number_out_of_range_is_refused_with_its_range_before_anything_is_done(here, train_command, override):
    done = train_command("run.yaml", override)
    name = override.split("=")[0]
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"run.yaml.{name}" in done.err
    assert ": wanted " in done.err
    assert " to " in done.err or "a finite number" in done.err
    assert sorted(path.name for path in here.iterdir()) == ["broken.yaml", "empty", "model", "run.yaml"]


@pytest.mark.parametrize("schema", [TrainConfig, TrackGPTConfig])
def test_every_number_of_a_configuration_has_a_range_that_its_default_lies_in(schema):
    def walk(config):
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if dataclasses.is_dataclass(value):
                walk(value)
            elif "of" in field.metadata:
                walk(field.metadata["of"]())
            elif "float" in str(field.type) or "int" in str(field.type).replace("hint", ""):
                assert "range" in field.metadata, field.name
                from_dict(type(config), {field.name: value})

    walk(schema())


def test_entries_of_lists_and_mappings_are_in_range_each():
    with pytest.raises(UsageError, match=r"config.data.wordings\[1\]: wanted 0 to 5, found 7"):
        from_dict(TrainConfig, {"data": {"wordings": [0, 7]}})
    with pytest.raises(UsageError, match=r"config.plan.loss_weights.mask: wanted 0.0 to 1,000,000.0, found nan"):
        from_dict(TrainConfig, {"plan": {"loss_weights": {"mask": float("nan")}}})


DATA_TOOLS = {
    "frob": (2, "No such command 'frob'"),
    "make": (2, "Missing option '-o' / '--out'"),
    "make -o out --layout refcocoo": (2, "'refcocoo' is not one of"),
    "make -o out --videos 0": (2, "--videos is 0; wanted 1 to 10,000"),
    "make -o out --frames 100000000": (2, "--frames is 100000000; wanted 1 to 10,000"),
    "make -o out --longest 16": (2, "--longest is 16; wanted 32 to 8,192"),
    "make -o out --layout lv-vis --split test": (2, "lv-vis has no part of test scenes"),
    "make -o run.yaml": (6, "OUT01: run.yaml: is a file; wanted a folder"),
    "make -o run.yaml/out --videos 1": (6, "OUT02: run.yaml/out: cannot be written (Not a directory)"),
    "make -o /proc/out --videos 1": (6, "OUT02: /proc/out: cannot be written"),
    "check refcocoo empty": (2, "'refcocoo' is not one of"),
    "check refcoco nowhere": (3, "nowhere: no such folder"),
    "check refcoco empty --open -3": (2, "--open is -3; wanted 0 or more"),
    "view": (2, "Missing option '-o' / '--out'"),
    "view -o sheet.gif": (2, "sheet.gif: wanted a name that ends in .png or .jpg"),
    "view -o sheet.png empty": (3, "empty: "),
    "view -o sheet.png --layout refcocoo empty": (2, "--layout refcocoo: no such data set"),
    "view -o sheet.png --frames 0": (2, "--frames is 0; wanted 1 to 10,000"),
    "atlas run.yaml -o out": (3, "run.yaml: cannot open as a font"),
    "build-instrack --annotations nowhere -o out": (3, "nowhere"),
    "rephrase run.yaml -o out": (2, "give either --model, or --endpoint and --endpoint-model"),
}


@pytest.mark.parametrize(("line", "wanted"), DATA_TOOLS.items())
def test_a_wrong_command_of_data_tools_is_one_line(here, capsys, line, wanted):
    with pytest.raises(SystemExit) as left:
        data_tools_main(line.split())
    said = capsys.readouterr()
    assert (left.value.code, said.err.count("\n")) == (wanted[0], 1)
    assert wanted[1] in said.err
    assert sorted(path.name for path in here.iterdir()) == ["broken.yaml", "empty", "model", "run.yaml"]


def limited(command, room):
    """The exit code of a command in a process in which no file may grow beyond so many bytes."""

    def child():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        code = 70
        try:
            command()
        except SystemExit as left:
            code = left.code
        finally:
            os._exit(code)

    started = multiprocessing.get_context("fork").Process(target=child)
    started.start()
    started.join(120)
    return started.exitcode


@pytest.mark.parametrize("layout", ["folder", "mp4"])
def test_make_on_a_full_disk_ends_with_6(here, layout):
    line = f"make -o out --layout {layout} --videos 1 --frames 2 --longest 64"
    assert limited(lambda: data_tools_main(line.split()), 500) == 6


# A run's folder


def config(out, **plan):
    return TrainConfig(stage="masks", out=str(out), plan=Plan(**plan))


def test_a_folder_of_another_configuration_is_refused_by_its_first_difference(tmp_path):
    with claimed(tmp_path, config(tmp_path), CPU):
        run(Line(), tmp_path)
    with claimed(tmp_path, config(tmp_path, workers=3, keep=5, batch=16, accumulate=2, steps=5000), CPU):
        pass  # none of these changes what a step is
    before = (tmp_path / "stage.json").read_bytes()
    with pytest.raises(UsageError, match="holds a run with plan.lr=0.001, this one has 0.01; go on as it was, or"):
        claimed(tmp_path, config(tmp_path, lr=0.01, clip=2.0), CPU).__enter__()
    with pytest.raises(UsageError, match=r"holds a run with plan.batch\*accumulate=32, this one has 64"):
        claimed(tmp_path, config(tmp_path, accumulate=2), CPU).__enter__()
    assert (tmp_path / "stage.json").read_bytes() == before
    (tmp_path / "stage.json").write_text("{")
    with pytest.raises(InputError, match="stage.json: damaged; delete it if"):
        claimed(tmp_path, config(tmp_path), CPU).__enter__()


@pytest.mark.parametrize("name", ["model/weights.bin", "model.old/weights.bin", "checkpoints/note", "train.jsonl"])
def test_a_folder_with_what_no_run_has_made_is_refused_and_left_as_it_is(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    (tmp_path / "slurm-1.out").write_text("a log may lie there")
    said = f"OUT01: {tmp_path}: holds {name.partition('/')[0]} but no stage.json, so no run of this trainer made it"
    for enter in (claimed(tmp_path, config(tmp_path), CPU).__enter__, lambda: must_be_free(tmp_path, CPU)):
        with pytest.raises(OutputError, match=said) as refused:
            enter()
        assert refused.value.exit_code == 6
    files = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == sorted([name, "slurm-1.out"])


def test_a_stage_json_of_something_else_is_refused(tmp_path):
    (tmp_path / "stage.json").write_text('{"stage": 3, "lights": "on"}')
    with pytest.raises(OutputError, match="OUT01: .*stage.json: is no configuration of a run"):
        claimed(tmp_path, config(tmp_path), CPU).__enter__()
    assert (tmp_path / "stage.json").read_text() == '{"stage": 3, "lights": "on"}'


def test_a_run_whose_damaged_stage_json_was_deleted_goes_on(tmp_path):
    with claimed(tmp_path, config(tmp_path), CPU):
        run(Line(), tmp_path)
    (tmp_path / "stage.json").unlink()
    with claimed(tmp_path, config(tmp_path), CPU):
        assert (tmp_path / "stage.json").is_file()


def test_a_folder_that_nothing_was_trained_in_takes_any_configuration(tmp_path):
    for lr in (0.1, 0.2):
        with claimed(tmp_path, config(tmp_path, lr=lr), CPU):
            pass
    assert '"lr": 0.2' in (tmp_path / "stage.json").read_text()


def test_a_second_process_is_refused_while_the_first_trains_and_not_when_it_was_killed(tmp_path):
    context = multiprocessing.get_context("fork")
    begun = context.Event()

    def first():
        with claimed(tmp_path, config(tmp_path), CPU):
            begun.set()
            signal.pause()

    process = context.Process(target=first)
    process.start()
    assert begun.wait(30)
    with pytest.raises(UsageError, match=f"process {process.pid} of .* trains into it; wait, or choose another `out`"):
        claimed(tmp_path, config(tmp_path), CPU).__enter__()
    process.kill()
    process.join(30)
    with claimed(tmp_path, config(tmp_path), CPU):
        pass


@pytest.mark.parametrize("place", ["file/out", "/proc/out"])
def test_a_folder_that_cannot_be_made_is_out02(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="OUT02: .*out: cannot be written"):
        claimed(tmp_path / place, config(tmp_path), CPU).__enter__()


# Frozen weights in bfloat16


def test_with_adapters_and_bfloat16_the_frozen_encoder_is_stored_in_it_as_the_plan_says(tmp_path):
    model = tiny_trackgpt("conv", lora=LoraConfig(rank=2))
    model.save_pretrained(tmp_path)
    add_lora(model.brain, model.config.brain.lora)
    settings = TrainConfig(stage="tracking", plan=Plan(batch=1))
    stage = make_stage(settings, model, CPU.device)
    pixels = torch.zeros(1, 3, model.segmenter.config.image_side, model.segmenter.config.image_side, dtype=torch.uint8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = model.segmenter.eval().encode(pixels).embedding
        module = StageModule(stage, {}, True, CPU.device, touch=False)
        after = model.segmenter.eval().encode(pixels).embedding
    assert torch.equal(before, after)
    encoder = [m for m in model.segmenter.image_encoder.modules() if isinstance(m, torch.nn.Conv2d)]
    assert {m.weight.dtype for m in encoder} == {torch.bfloat16}
    outline = outline_of(str(tmp_path))
    planned, _ = plan_training(outline, settings, batch_size(settings, outline, 20), bf16=True)
    assert load_of(module.parameters()) == dataclasses.replace(planned, unused=0)
