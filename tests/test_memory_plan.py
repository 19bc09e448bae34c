"""Memory is known before anything is loaded: weights from headers or published dimensions, activations traced."""

from dataclasses import replace
from pathlib import Path

import foreign_checkpoints as foreign
import pytest
import torch
from small_sets import write_sets
from test_sam_parity import build_sam
from tiny_models import tiny_trackgpt
from torch import nn
from transformers import DynamicCache

from trackgpt.config import LoraConfig
from trackgpt.errors import ModelError, UsageError
from trackgpt.geometry.letterbox import fit
from trackgpt.hub import load_model, load_reported, pair
from trackgpt.planning.inference import FRAME, PREFIX, Answering, plan_inference, trace_inference
from trackgpt.planning.memory_plan import DTYPES, GIB, Load, load_of, matrix_bytes
from trackgpt.planning.outline import FROM_DIMENSIONS, FROM_FILES, outline_of, weight_bytes
from trackgpt.planning.published import BRAINS, ENCODERS
from trackgpt.planning.tracing import LiveBytes, without_memory
from trackgpt.settings import read, read_values
from trackgpt.systems.trackgpt import TrackGPT
from train.assemble import assemble, freeze
from train.config import DataConfig, Kind, Shape, TrainConfig
from train.dry_run import dry_run
from train.engine import StageModule
from train.enlarge import with_tower
from train.memory import BatchSize, batch_size, plan_training, share, table, trace_mask_losses
from train.packing import pack
from train.plan import Plan
from train.planning import outline_for, parse_size
from train.processes import Processes
from train.stages import make_stage
from train.tracking import Targets, TrackingStage, Unrolled, mask_losses
from train.truth import TrueMasks

ROOT = Path(__file__).parents[1]
SEVEN = "llava-hf/llava-1.5-7b-hf+facebook/sam-vit-huge"
CPU = Processes(torch.device("cpu"))
BRAINS_HERE = {
    "llava": foreign.llava,
    "llava_next": foreign.llava_next,
    "qwen2_5_vl": foreign.qwen2_5,
    "qwen3_vl": foreign.qwen3,
    "smolvlm": foreign.smolvlm,
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A brain of every family beside a SAM, by transformers' name; Qwen3-VL has a SAM 2."""
    place = tmp_path_factory.mktemp("pairs")
    torch.save(build_sam().state_dict(), place / "sam.pth")
    foreign.sam2(place / "sam2")
    for kind, write in BRAINS_HERE.items():
        write(place / kind)
    return {kind: pair(place / kind, place / ("sam2" if kind == "qwen3_vl" else "sam.pth")) for kind in BRAINS_HERE}


# What is counted


def test_the_most_that_is_there_at_a_time_is_counted_and_views_are_counted_once():
    with LiveBytes() as live:
        a = torch.zeros(1000)
        b = a.view(10, 100)[2:]
        c = b + 1
        del a, b
        d = c * 2
    assert (live.now, live.peak) == (2 * 800 * 4, (1000 + 800) * 4)
    assert d.shape == (8, 100)


def test_shapes_that_depend_on_indices_are_known_and_nothing_is_held():
    with torch.device("meta"):
        layer = nn.Linear(4096, 4096)
    with without_memory(layer) as live:
        ids = torch.arange(10)
        rows = torch.zeros(10, 4096)[ids > 6]
        out = layer(rows)
    assert tuple(out.shape) == (3, 4096)
    assert live.peak == pytest.approx((10 + 3) * 4096 * 4, abs=200)


# Sizes


@pytest.mark.parametrize("kind", BRAINS_HERE)
def test_every_weight_of_a_pair_is_known_before_it_is_loaded(pairs, kind):
    outline = outline_of(pairs[kind])
    model, _ = load_reported(pairs[kind])
    shapes = {name: tuple(p.shape) for name, p in outline.skeleton().named_parameters()}
    assert shapes == {name: tuple(p.shape) for name, p in model.named_parameters()}
    decoder = sum(p.numel() for name, p in model.segmenter.named_parameters() if not name.startswith("image_encoder"))
    rest = sum(p.numel() for p in model.parameters()) - decoder
    for dtype, size in (("float32", 4), ("bfloat16", 2)):
        assert sum(weight_bytes(outline.skeleton(), dtype).values()) == size * rest + 4 * decoder
    assert outline.source == FROM_FILES
    assert trace_inference(outline, torch.float32, Answering()).answer > 0


def test_a_whole_model_and_the_shipped_one_are_known_from_their_config(tmp_path):
    tiny_trackgpt("clip", "sam_vit", tied=True).save_pretrained(tmp_path)
    for name in (tmp_path, "nano"):
        model, _ = load_reported(name)
        assert sum(weight_bytes(outline_of(name).skeleton(), "float32").values()) == sum(
            p.nbytes for p in model.parameters()
        )
    (tmp_path / "model.safetensors").unlink()
    assert outline_of(tmp_path).skeleton() is not None


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llava-hf/llava-1.5-7b-hf", 7_063_427_072),
        ("llava-hf/llava-1.5-13b-hf", 13_351_494_656),
        ("Qwen/Qwen2.5-VL-3B-Instruct", 3_754_622_976),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 8_292_166_656),
    ],
)
def test_published_brains_have_the_published_number_of_parameters(name, parameters):
    skeleton = outline_of(f"{name}+facebook/sam-vit-huge").skeleton()
    assert sum(p.numel() for p in skeleton.brain.llava.parameters()) == parameters


def test_published_encoders_have_the_published_number_of_parameters():
    wanted = {"base": 89_670_912, "large": 308_278_272, "huge": 637_026_048}
    for size, parameters in wanted.items():
        outline = outline_of(f"llava-hf/llava-1.5-7b-hf+facebook/sam-vit-{size}")
        assert outline.source == FROM_DIMENSIONS
        assert sum(p.numel() for p in outline.skeleton().segmenter.image_encoder.parameters()) == parameters
    assert set(BRAINS) & set(ENCODERS) == set()


def test_what_is_nowhere_known_is_one_line(pairs, tiny):
    with pytest.raises(ModelError, match="^MD01: somebody/model: .*trackgpt models pull somebody/model"):
        outline_of("somebody/model+facebook/sam-vit-huge")
    with pytest.raises(UsageError, match="is a brain alone; give it a SAM"):
        outline_of("llava-hf/llava-1.5-7b-hf")
    with pytest.raises(UsageError, match="needs no perception beside it"):
        outline_of(pair(tiny, "facebook/sam-vit-huge"))


# Inference


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_answer_and_a_frame_of_nano_hold_what_was_planned_within_a_tenth(dtype):
    asked = Answering(tokens=60, targets=2)
    plan = plan_inference(outline_of("nano"), asked, [dtype])[dtype]
    model = load_model("nano", "cpu", dtype=dtype)
    cells = model.brain.family.image_tokens
    ids = torch.full((1, PREFIX + cells + asked.tokens), 5)
    ids[:, 1 : 1 + cells] = model.brain.family.image_id
    side = model.brain.config.image_side
    pixels = torch.ones(1, 3, side, side)
    with torch.no_grad(), LiveBytes() as live:
        cache = DynamicCache(config=model.brain.llava.config.get_text_config())
        states = model.brain.hidden(ids, pixels, past_key_values=cache, use_cache=True)
        model.brain.llava.lm_head(states[0, -asked.tokens :]).float().topk(2)
        held = sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values))
        answer = live.peak - held
        del cache, states
        live.restart()
        before = live.now
        query = torch.zeros(2, 128, dtype=model.segmenter.like.dtype)
        features = model.segmenter.encode(torch.zeros(1, 3, 256, 256, dtype=torch.uint8))
        model.segmenter.decode(features.repeated(2), query, query, query)
        frame = live.peak - before
    assert plan.length == ids.shape[1]
    assert plan.cache == held
    assert plan.answer == pytest.approx(answer, rel=0.1)
    assert plan.frame == pytest.approx(frame, rel=0.1)
    stored = {id(p): p.nbytes for p in model.parameters()}
    assert sum(plan.weights.values()) == pytest.approx(sum(stored.values()), rel=0.02)  # folding drops normalisations


def test_frames_encoded_ahead_are_held_and_one_more_is_encoded_beside_whatever_else_goes_on():
    alone, ahead = (plan_inference(outline_of("nano"), Answering(ahead=n), ["float32"])["float32"] for n in (0, 4))
    # The frame itself, and nano's maps of 128 x 16 x 16, 48 x 64 x 64 and 96 x 32 x 32 numbers.
    kept = 720 * 1280 * 3 + 4 * (128 * 16**2 + 48 * 64**2 + 96 * 32**2)
    assert ahead.stream - alone.stream == 4 * kept
    assert ahead.total - alone.total == 4 * kept + alone.frame
    assert "a stream, 4 frames ahead" in ahead.rows()


def test_a_cache_of_seven_billion_takes_half_a_mebibyte_a_token_and_a_fifth_of_the_weights_fit_in_four_bits():
    plans = plan_inference(outline_of(SEVEN), Answering(), ["bfloat16", "int8", "int4"])
    assert plans["bfloat16"].cache / plans["bfloat16"].length == 2 * 32 * 4096 * 2
    language = {dtype: plan.weights["language model"] / GIB for dtype, plan in plans.items()}
    assert language["bfloat16"] == pytest.approx(12.3, abs=0.1)
    assert language["int8"] == pytest.approx(6.3, abs=0.1)
    assert language["int4"] == pytest.approx(3.4, abs=0.1)
    for part in ("output layer", "projection phi", "image encoder", "mask decoder"):
        assert plans["int4"].weights[part] == plans["bfloat16"].weights[part]
    assert plans["bfloat16"].total / GIB == pytest.approx(15.4, abs=0.3)


def test_a_quantised_matrix_has_its_scales():
    assert matrix_bytes(256, 256, "int8") == 256 * 256 + 4 * 256
    assert matrix_bytes(256, 256, "int4") == 32768 + 1024 + 16
    assert set(DTYPES) == {"float32", "bfloat16", "int8", "int4"}


# Training


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return write_sets(tmp_path_factory.mktemp("sets"))


def held_by_mask_losses(samples, targets, frames, side, frame, dtype):
    """Peak bytes, without the logits, of real mask losses: `targets` masks of every sample, all different."""
    grid, n = side // 4, samples * targets
    box = None if frame is None else fit(frame, side)
    blocks, size = (1, (grid, grid)) if box is None else (samples, box.source)
    with LiveBytes() as live:
        logits = torch.zeros(n, frames, grid, grid, dtype=dtype).requires_grad_()
        scores = torch.zeros(n, frames).requires_grad_()
        begun = live.now
        masks, ignored = (torch.zeros(n, frames, *size, dtype=torch.bool).chunk(blocks) for _ in range(2))
        truths = tuple(TrueMasks(*both, box) for both in zip(masks, ignored, strict=True))
        length = torch.full((n,), frames)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            losses, _ = mask_losses(Unrolled(logits, scores), Targets(torch.zeros(0), length, length, truths, frames))
        sum(losses.values()).backward()
        return live.peak - begun


@pytest.mark.parametrize(
    ("side", "frame", "dtype"),
    [
        (1024, (720, 1280), torch.float32),
        (1024, (720, 1280), torch.bfloat16),
        (256, (480, 854), torch.float32),
        (1024, None, torch.float32),
        (1024, None, torch.bfloat16),
    ],
)
def test_mask_losses_hold_what_was_planned_within_a_hundredth(side, frame, dtype):
    held = held_by_mask_losses(2, 2, 1, side, frame, dtype)
    size = BatchSize("tracking", samples=2, frames=1, side=side, targets=4, frame=frame)
    assert trace_mask_losses(size, dtype == torch.bfloat16) == pytest.approx(held, rel=0.01)


def test_masks_in_frames_of_720p_take_fourteen_times_those_on_a_grid_of_256():
    # 921,600 pixels instead of 65,536, and in both cases 29 bytes per pixel at the peak.
    sizes = (BatchSize("tracking", 1, 1, 1024, targets=1, frame=frame) for frame in (FRAME, None))
    frames, grid = (trace_mask_losses(size, bf16=False) for size in sizes)
    assert frames == pytest.approx(29 * 720 * 1280, rel=0.001)
    assert grid == pytest.approx(29 * 256 * 256, rel=0.001)


def test_a_size_of_frames_is_width_by_height():
    assert parse_size("1280x720") == FRAME == (720, 1280)
    for wrong in ("720p", "1280x", "0x720", "1280 x 720", "-1x2"):
        with pytest.raises(UsageError, match=f"--frame-size: wanted WIDTHxHEIGHT .* found `{wrong}`"):
            parse_size(wrong)


def test_the_command_counts_masks_at_the_size_of_frames_that_it_is_given(tmp_path, train_command):
    tiny_trackgpt("clip", "sam_vit", lora=LoraConfig(rank=2)).save_pretrained(tmp_path / "model")
    config = config_for(tmp_path, tmp_path / "model")
    said = {}
    for size in ("1280x720", "1920x1080"):
        out = train_command(config, "data.mask_loss=original", "--plan", "--frame-size", size).out
        line = next(line for line in out.splitlines() if "mask losses" in line)
        width, _, height = size.partition("x")
        assert f"masks compared in frames of {width} x {height}, assumed" in line
        said[size] = float(line.split()[3])
    assert said["1920x1080"] / said["1280x720"] == pytest.approx(1920 * 1080 / (1280 * 720), rel=0.05)
    assert "masks compared on the decoder's grid of 16 x 16" in train_command(config, "--plan").out
    wrong = train_command(config, "--plan", "--frame-size", "720p")
    assert (wrong.code, len(wrong.err.splitlines())) == (2, 1)


@pytest.mark.parametrize(
    ("rank", "mask_loss", "own"), [(0, "grid", 0.0), (2, "grid", 0.0), (2, "original", 0.0), (0, "grid", 1.0)]
)
def test_a_training_step_holds_what_was_planned_within_a_tenth(sets, tmp_path, rank, mask_loss, own):
    lora = LoraConfig(rank=rank)
    tiny_trackgpt("clip", "sam_vit", width=64, max_instruction_tokens=99, lora=lora).save_pretrained(tmp_path)
    model = assemble(str(tmp_path), "", False, 0)
    mixture = {"all": Kind(1, ["refer-youtube-vos"])}
    data = DataConfig(str(sets), mixture=mixture, frames=3, turns=1, mask_loss=mask_loss, own_answers=own)
    config = TrainConfig("tracking", data=data, plan=Plan(batch=4))
    stage = make_stage(config, model, CPU.device)
    (module,) = stage.modules()
    module.train()
    batch = [stage.sample(i) for i in range(4)]
    length = pack(model.brain.template, [list(sample.turns) for sample in batch]).ids.shape[1]
    words = length - PREFIX - model.brain.family.image_tokens
    outline = outline_of(tmp_path)
    size = batch_size(config, outline, words, batch[0].masks.shape[-2:])
    load, planned = plan_training(outline, config, size, bf16=False)
    assert load == load_of(module.parameters())
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    with LiveBytes() as live:
        losses, _ = stage.losses(batch)
        sum(losses.values()).backward()
    assert planned.plain == pytest.approx(live.peak, rel=0.1)
    assert planned.checkpointed < planned.plain


# The foundation


def small_nano():
    """What the foundation begins with: nano with a tower of 128 pixels and random weights."""
    shipped = load_reported("nano")[0]
    return TrackGPT.from_config(with_tower(shipped.config, 128, 0), shipped.brain.template.tokenizer)


def foundation(name, frozen):
    """Configuration, stage on nano prepared as the trainer prepares it, and its module."""
    torch.manual_seed(0)
    config = TrainConfig(name, shape=Shape(side=128, frames=2, targets=3), frozen=frozen, plan=Plan(batch=3))
    model = small_nano()
    freeze(model, frozen)
    stage = make_stage(config, model, CPU.device)
    return config, stage, StageModule(stage, {}, False, CPU.device, False)


def packed(stage, batch):
    """Length of the longest conversation, and number of targets, of a batch that is read."""
    samples = [sample[0] if isinstance(sample, tuple) else sample for sample in batch]
    turns = [[((turn.question, turn.answer),) for turn in sample.turns] for sample in samples]
    found = pack(stage.model.brain.template, turns)
    return found.ids.shape[1], len(found.row)


def planned_batch(stage, size):
    """The first batch with the targets that are planned (a join draws them), and the planned size with its words."""
    for k in range(100):
        batch = [stage.sample(10 * k + i) for i in range(size.samples)]
        if not size.words:
            return batch, size
        length, targets = packed(stage, batch)
        if size.stage == "language" or targets == size.targets:
            cells = stage.model.brain.family.image_tokens
            return batch, replace(size, words=round((length - PREFIX - cells) / size.turns))
    raise AssertionError(f"no batch with {size.targets} targets")


@pytest.mark.parametrize(
    ("name", "frozen"),
    [("words", []), ("masks", []), ("language", []), ("join", []), ("join", ["brain"])],
)
def test_a_step_of_the_foundation_holds_what_was_planned_within_a_tenth(name, frozen):
    config, stage, module = foundation(name, frozen)
    outline = outline_for(config)
    batch, size = planned_batch(stage, batch_size(config, outline))
    load, planned = plan_training(outline, config, size, bf16=False)
    assert replace(load, unused=0) == load_of(module.parameters())
    every = sum(p.nbytes for p in stage.model.parameters())
    heads = sum(p.nbytes for p in module.parameters()) - sum(
        p.nbytes for p in stage.model.parameters() if any(p is q for q in module.parameters())
    )
    assert 4 * load.trained + load.frozen_bytes + load.unused == every + heads
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    with LiveBytes() as live:
        losses, _ = stage.losses(batch)
        torch.stack([stage.weights[part] * loss for part, loss in losses.items()]).sum().backward()
    assert planned.plain == pytest.approx(live.peak, rel=0.1)


def test_what_a_stage_does_not_use_is_whole_on_every_gpu():
    load = Load(trained=10, frozen_bytes=40, unused=1000)
    assert share(load, zero=0, gpus=4).weights == 40 + 40 + 1000
    assert share(load, zero=3, gpus=4).weights == (40 + 40) / 4 + 1000
    assert share(load, zero=3, gpus=4, offload="parameters").weights == 1000


@pytest.mark.parametrize("name", ["words", "join"])
def test_a_dry_run_of_the_foundation_prints_the_table_of_the_plan(train_command, tmp_path, name):
    tiny_trackgpt("conv", tied=True, width=128).save_pretrained(tmp_path / "model")
    path = tmp_path / "config.yaml"
    plan = "plan: {batch: 2, bf16: false, steps: 10, workers: 0, tensorboard: false}"
    path.write_text(f"stage: {name}\nbrain: {tmp_path / 'model'}\nshape: {{side: 64, frames: 2, targets: 2}}\n{plan}\n")
    done = train_command(path, "--plan", "--memory", "0")
    assert done.code == 0, done.err
    config = read(TrainConfig, path)
    stage = make_stage(config, assemble(config.brain, "", False, 0), CPU.device)
    text = dry_run(stage, config, tmp_path / "dry", CPU)
    rows = [line for line in text.splitlines() if line[:4].strip() in ("0", "1", "2", "3", "ZeRO")]
    assert len(rows) == 1 + 4 * 3
    assert "\n".join(rows) in done.out


@pytest.mark.parametrize(
    ("stage", "side", "name", "said"),
    [
        ("words", 128, SEVEN, "441 per image; the brain of .* has 576 tokens per image"),
        ("masks", 128, SEVEN, "its codes have 128 channels, the queries of .* 256"),
        ("masks", 100, "nano", "shape.side: wanted a multiple of 16, found 100"),
        ("language", 256, "", "shape.side: nano reads squares of 128, not 256"),
    ],
)
def test_a_stage_that_cannot_learn_with_a_model_is_one_line(stage, side, name, said):
    config = TrainConfig(stage, shape=Shape(side=side))
    outline = outline_of(name) if name else outline_for(config)
    with pytest.raises(UsageError, match=said) as caught:
        plan_training(outline, config, batch_size(config, outline), bf16=False)
    assert "\n" not in str(caught.value)


def test_gradients_and_the_optimiser_hold_what_was_planned(tmp_path):
    tiny_trackgpt("clip", "sam_vit", lora=LoraConfig(rank=0)).save_pretrained(tmp_path)
    model, _ = load_reported(tmp_path)
    load = load_of(model.parameters())
    optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
    sum(p.sum() for p in model.parameters() if p.requires_grad).backward()
    optimizer.step()
    moments = sum(v.nbytes for state in optimizer.state.values() for v in state.values() if v.dim())
    assert moments == 8 * load.trained
    assert sum(p.grad.nbytes for p in model.parameters() if p.grad is not None) == 4 * load.trained


def config_for(folder, model, **data):
    plan = "plan: {batch: 2, bf16: false, steps: 10, workers: 0, tensorboard: false}\n"
    text = f"stage: tracking\nout: {folder / 'out'}\nbrain: {model}\nfrozen: [perception]\n"
    text += "data: {frames: 3, turns: 1, mixture: {all: {sets: [refer-youtube-vos]}}}\n" + plan
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_the_plan_prints_the_table_that_a_dry_run_prints(train_command, sets, tmp_path):
    fields = {"width": 64, "max_instruction_tokens": 99, "lora": LoraConfig(rank=2)}
    tiny_trackgpt("clip", "sam_vit", **fields).save_pretrained(tmp_path / "model")
    config = config_for(tmp_path, tmp_path / "model")
    done = train_command(config, "--plan", "--memory", "0")
    assert done.code == 0, done.err
    settings = read(TrainConfig, config, [f"data.root={sets}"])
    model = assemble(settings.brain, "", False, 0)
    freeze(model, settings.frozen)
    text = dry_run(TrackingStage(model, settings.data, CPU.device), settings, tmp_path / "dry", CPU)
    rows = [line for line in text.splitlines() if line[:4].strip() in ("0", "1", "2", "3", "ZeRO")]
    assert len(rows) == 1 + 4 * 3
    assert "\n".join(rows) in done.out
    learned = next(line for line in text.splitlines() if line.startswith("learned: "))
    assert learned in done.out
    assert done.values()["inference_fits"] == "none"


def test_what_fits_is_marked(tmp_path, train_command):
    tiny_trackgpt("clip", "sam_vit", lora=LoraConfig(rank=2)).save_pretrained(tmp_path / "model")
    config = config_for(tmp_path, tmp_path / "model")
    done = train_command(config, "plan.zero=2", "--plan", "--memory", "0.02", "--words", "20")
    assert done.values()["inference_fits"] == "float32,bfloat16,int8,int4"
    assert done.values()["training_fits"].startswith("0x1,0x4")
    assert "weights not read" in done.out.splitlines()[0]


CONFIGS = ROOT / "configs/trackgpt"
RECIPES = {str(path.relative_to(CONFIGS).with_suffix("")): path for path in sorted(CONFIGS.rglob("*.yaml"))}


@pytest.mark.parametrize("config", RECIPES.values(), ids=RECIPES)
def test_every_configuration_is_planned_though_earlier_stages_have_not_run(config, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = read(TrainConfig, config)
    outline = outline_for(settings, config)
    sizes = {"foundation": "nano", "nano": "nano", "7b": SEVEN, "13b": SEVEN.replace("7b", "13b")}
    assert outline.name == sizes[config.parent.name]
    for model in filter(None, (settings.brain, settings.perception)):
        assert (f"{model} is not there yet" in outline.source) == model.startswith("runs/")


@pytest.mark.parametrize("name", RECIPES)
def test_the_header_of_a_configuration_names_its_command_and_the_stages_it_starts_from(name):
    lines = RECIPES[name].read_text().splitlines()
    said = dict(line[2:].split(":", 1) for line in lines if line.startswith(("# command:", "# needs:", "# result:")))
    assert f" -m train configs/trackgpt/{name}.yaml" in said["command"]
    assert said["result"].strip()
    made_by = {f"{read_values(path)['out']}/model": one for one, path in RECIPES.items()}
    values = read_values(RECIPES[name])
    wanted = {made_by[model] for key in ("brain", "perception") if (model := values.get(key, "")).startswith("runs/")}
    named = {word for word in said["needs"].replace(",", " ").split() if word in RECIPES}
    assert named == wanted
    assert said["needs"].strip()


def test_stages_that_make_each_other_are_refused_and_not_followed_for_ever(train_command, tmp_path):
    for one, other in ("ab", "ba"):
        (tmp_path / f"{one}.yaml").write_text(f"stage: tracking\nout: runs/{one}\nbrain: runs/{other}/model\n")
    done = train_command(tmp_path / "a.yaml", "--plan")
    assert done.code == 4
    assert "MD01: runs/a/model: not a model on this machine" in done.err
    assert "no configuration in its folder or under configs/ makes it" in done.err


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("plan.batchs=4", "plan: no setting `batchs`; did you mean `batch`?"),
        ("plan.batch=many", "plan.batch: wanted int, found str ('many')"),
        ("plan.batch=0", "plan.batch: wanted 1 to 65,536, found 0"),
        ("frozen=[tail]", "frozen: `tail` is none of brain, perception, language"),
        ("data.mask_loss=full", "data.mask_loss: `full` is none of grid, original"),
        ("plan.offload=disk", "plan.offload: `disk` is none of none, optimizer, parameters"),
        ("brain=runs/no/model", "MD01: runs/no/model: not a model on this machine"),
        ("stage=dance", "stage `dance` is not one of tracking, words, masks, language, join"),
        ("shape.frames=0", "shape.frames: wanted 1 to 1,000, found 0"),
    ],
)
def test_a_plan_that_cannot_be_is_one_line(train_command, tmp_path, override, said):
    done = train_command(config_for(tmp_path, SEVEN), override, "--plan")
    assert done.code in (2, 4)
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert train_command(tmp_path / "none.yaml", "--plan").code == 2


def test_stages_that_shard_take_less_of_each_gpu(tmp_path):
    outline = outline_of(SEVEN)
    config = TrainConfig("tracking", data=DataConfig(frames=1, turns=1), plan=Plan(batch=1))
    load, activations = plan_training(outline, config, batch_size(config, outline, words=20), bf16=True)
    assert load.trained == 26_296_804
    assert activations.checkpointed < 0.4 * activations.plain
    lines = table(load, activations=activations, memory=24).splitlines()
    assert lines[0].endswith("+ kept  + redone")
    assert len(lines) == 13
    assert "*" in lines[-1]


def test_the_plan_is_compared_with_what_is_held(tiny):
    """The part "memory" of `python -m eval speed`."""
    from eval.speed import bench as speed

    part = speed.measure_part("memory", speed.Workload(str(tiny)))
    for name in ("weights_tensors", "cache_tensors", "cache_and_answer_tensors", "frame_tensors"):
        assert part.last[name] == pytest.approx(1, abs=0.1)
    assert [line.how for line in part.lines if line.quantity.startswith("weights, process")] == [
        "not measured: the allocator keeps more"
    ]
