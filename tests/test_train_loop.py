"""The loop: what it resumes is what it would have been, what it refuses, and that the stages learn on tiny models."""

import json
import math
import os
import pickle
import random
import resource
import shutil
import signal
import time
from multiprocessing import get_context

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_trackgpt
from tiny_runs import CPU, SMALL, TIMES, Line, plan, run, tiny_join
from torch import nn

from trackgpt.errors import InputError, OutputError, TrackGPTError, UsageError
from train.__main__ import run as train_config
from train.assemble import assemble
from train.checkpoints import whole_checkpoints
from train.config import TrainConfig
from train.engine import start_engine
from train.feed import Batch
from train.loop import StoppedError
from train.plan import Plan, learning_rate
from train.report import draw_curves, read_log
from train.stages import JoinStage, MasksStage

FORK = get_context("fork")


class Breaks(Line):
    """A loss, or only its gradient, that is no number from step `at` on."""

    def __init__(self, at, gradient=False):
        super().__init__()
        self.at, self.gradient = at, gradient

    def losses(self, samples):
        losses, figures = super().losses(samples)
        if len(self.seen) > self.at:
            zero = losses["error"] * 0
            losses["error"] = zero.sqrt() if self.gradient else zero + math.nan
        return losses, figures


def weights(stage):
    return torch.cat([value.flatten().double() for value in stage.model.state_dict().values()])


def newest(folder):
    """The newest checkpoint of a run: its step, weights and state of the optimiser."""
    place = whole_checkpoints(folder)[-1]
    optimizer = torch.load(place / "optimizer_0.pt", weights_only=True)
    return int(place.name), load_file(place / "trained.safetensors"), optimizer["state"]


def assert_same(one, other):
    """Two runs reached the same step with the same weights and moments, bit for bit, and logged the same."""
    (step, trained, moments), (step2, trained2, moments2) = newest(one), newest(other)
    assert step == step2
    assert trained.keys() == trained2.keys()
    assert all(torch.equal(value, trained2[name]) for name, value in trained.items())
    assert all(torch.equal(moments[i][name], moments2[i][name]) for i in moments for name in moments[i])
    logs = [[{k: v for k, v in line.items() if k not in TIMES} for line in read_log(x)] for x in (one, other)]
    assert logs[0] == logs[1]


def process(folder, **fields):
    """A run in a process of its own, the leader of its group; it ends with the exit code of its error."""

    def main():
        os.setsid()
        code = 0
        try:
            run(Line(), folder, **fields)
        except TrackGPTError as error:
            code = error.exit_code
        os._exit(code)  # nothing of pytest's may run here at exit

    started = FORK.Process(target=main)
    started.start()
    return started


def wait_for_lines(folder, count):
    """Until a run has logged `count` lines."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if (folder / "train.jsonl").exists() and (folder / "train.jsonl").read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.002)
    raise TimeoutError(f"{folder}: no {count} lines")


# Going on


def test_two_steps_and_a_resumed_two_equal_four_straight(tmp_path):
    straight = Line()
    assert run(straight, tmp_path / "straight") == 4
    first = Breaks(2)
    with pytest.raises(TrackGPTError, match="step 2: the loss is nan"):
        run(first, tmp_path / "twice", save_minutes=0.0)
    second = Line()
    torch.manual_seed(99)
    assert run(second, tmp_path / "twice") == 4
    assert second.seen == straight.seen[2:]
    assert torch.equal(weights(second), weights(straight))
    assert not torch.equal(weights(first), weights(straight))
    assert_same(tmp_path / "straight", tmp_path / "twice")
    assert [line["step"] for line in read_log(tmp_path / "twice")] == [1, 2, 3, 4]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_that_is_killed_three_times_equals_the_run_that_is_not(tmp_path, workers):
    many = {"steps": 120, "save_every": 5, "workers": workers, "warmup": 10}
    run(Line(), tmp_path / "straight", **many)
    draw = random.Random()  # another place each time: whichever it is, the curve must be the same
    logged = 0
    for _ in range(3):
        logged += draw.randint(3, 30)
        killed = process(tmp_path / "killed", **many)
        wait_for_lines(tmp_path / "killed", logged)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.join(60)
        assert killed.exitcode == -signal.SIGKILL
    assert run(Line(), tmp_path / "killed", **many) == 120
    assert_same(tmp_path / "straight", tmp_path / "killed")


def test_a_line_of_the_log_is_the_same_when_a_checkpoint_fell_in_between(tmp_path):
    run(Line(), tmp_path / "straight", steps=8, log_every=4)
    for _ in range(8):
        run(Line(), tmp_path / "often", steps=8, log_every=4, minutes=1e-9)
    assert_same(tmp_path / "straight", tmp_path / "often")


def test_a_finished_run_is_not_trained_again_and_says_where_it_is(tmp_path):
    run(Line(), tmp_path)
    before = newest(tmp_path)
    again, exported = Line(), []
    assert run(again, tmp_path, export=lambda step, engine: exported.append(step)) == 4
    assert run(Line(), tmp_path, steps=2) == 4
    assert again.seen == []
    assert exported == [4]
    assert torch.equal(before[1]["parts.0.0.weight"], newest(tmp_path)[1]["parts.0.0.weight"])


def test_a_checkpoint_is_written_while_training_goes_on_and_two_are_kept(tmp_path):
    steps = []

    def export(step, engine):
        steps.append((step, [int(place.name) for place in whole_checkpoints(tmp_path)]))

    run(Line(), tmp_path, export=export, save_minutes=0.0)
    assert steps == [(1, [1]), (2, [1, 2]), (3, [2, 3]), (4, [3, 4])]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "train.jsonl"]
    assert (tmp_path / "checkpoints/latest").read_text() == "000004\n"


def halved(place):
    file = place / "trained.safetensors"
    file.write_bytes(file.read_bytes()[:100])


def emptied(place):
    (place / "optimizer_0.pt").write_bytes(b"")


def zeroed(place):
    file = place / "optimizer_0.pt"
    file.write_bytes(bytes(file.stat().st_size))


def flipped(place):
    file = place / "trained.safetensors"
    file.write_bytes(b"\xff" * 8 + file.read_bytes()[8:])


def no_numbers(place):
    file = place / "trained.safetensors"
    weights = load_file(file)
    weights["parts.0.3.bias"] *= math.nan
    save_file(weights, file)


def misnamed(place):
    state = json.loads((place / "state.json").read_text())
    state["progress"]["step"] = 40
    (place / "state.json").write_text(json.dumps(state))


def uncounted(place):
    (place / "state.json").write_text('{"progress": {"step": "4"}, "files": {}, "layout": {}}')


DAMAGES = [
    (halved, "trained.safetensors: 100 bytes, wanted"),
    (emptied, "optimizer_0.pt: 0 bytes, wanted"),
    (zeroed, "optimizer_0.pt: not a file that torch.save wrote"),
    (flipped, "trained.safetensors: "),
    (no_numbers, "parts.0.3.bias holds NaN or infinity"),
    (misnamed, "state.json: not that of step 4"),
    (uncounted, "state.json: config.step: wanted int, found str ('4')"),
]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of four steps with checkpoints of steps 3 and 4, and the undisturbed run."""
    folder = tmp_path_factory.mktemp("stopped")
    run(Line(), folder / "straight")
    run(Line(), folder / "cut", save_every=3)
    return folder


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_and_that_is_said(
    tmp_path, stopped, capsys, damage, reason
):
    shutil.copytree(stopped / "cut", tmp_path / "cut")
    places = tmp_path / "cut/checkpoints"
    damage(places / "000004")
    assert run(Line(), tmp_path / "cut", keep=1) == 4
    said = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("train: "))
    assert reason in said
    assert said.endswith("; going on from 000003")
    assert sorted(place.name for place in places.iterdir()) == ["000004", "000004.damaged", "latest"]
    assert_same(stopped / "straight", tmp_path / "cut")


def test_a_run_whose_checkpoints_are_all_damaged_does_not_silently_begin_again(tmp_path, stopped):
    shutil.copytree(stopped / "cut", tmp_path / "cut")
    for step in (3, 4):
        halved(tmp_path / f"cut/checkpoints/{step:06d}")
    with pytest.raises(InputError, match="000004: damaged .* no older checkpoint is whole; bring one back, or delete"):
        run(Line(), tmp_path / "cut")
    assert sorted(place.name for place in (tmp_path / "cut/checkpoints").iterdir()) == ["000003", "000004", "latest"]


class Bomb:
    """Pickled, it makes whoever opens the file write another."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def plant(file, bomb):
    """Put a bomb beside what a file of a checkpoint holds, which stays as long as `state.json` says."""
    torch.save({**torch.load(file, weights_only=True), "hyper": bomb}, file)
    state = json.loads((file.parent / "state.json").read_text())
    state["files"][file.name] = file.stat().st_size
    (file.parent / "state.json").write_text(json.dumps(state))


def test_a_checkpoint_that_names_code_is_refused_and_the_code_does_not_run(tmp_path, stopped):
    shutil.copytree(stopped / "cut", tmp_path / "cut")
    plant(tmp_path / "cut/checkpoints/000004/optimizer_0.pt", Bomb(tmp_path / "ran"))
    with pytest.raises(InputError, match=r"optimizer_0.pt: refused: it asks for posix.mkdir, which could run code"):
        run(Line(), tmp_path / "cut")
    assert not (tmp_path / "ran").exists()


def test_a_pickle_without_an_archive_is_not_opened_at_all(tmp_path, stopped):
    shutil.copytree(stopped / "cut", tmp_path / "cut")
    file = tmp_path / "cut/checkpoints/000004/optimizer_0.pt"
    size = file.stat().st_size
    file.write_bytes(pickle.dumps(Bomb(tmp_path / "ran")).ljust(size, b"\0"))
    assert run(Line(), tmp_path / "cut") == 4
    assert not (tmp_path / "ran").exists()
    assert_same(stopped / "straight", tmp_path / "cut")


def test_a_checkpoint_of_another_width_is_refused(tmp_path, stopped):
    shutil.copytree(stopped / "cut", tmp_path / "cut")
    wider = Line()
    wider.model[0], wider.model[1] = nn.Linear(4, 9), nn.BatchNorm1d(9)
    wider.model[3] = nn.Linear(9, 1)
    with pytest.raises(InputError, match=r"000004: parts.0.0.weight is \(8, 4\), this model's \(9, 4\)"):
        run(wider, tmp_path / "cut")


def test_a_checkpoint_that_was_never_given_its_name_is_no_checkpoint_and_is_cleared_away(tmp_path):
    run(Line(), tmp_path / "straight")
    run(Line(), tmp_path / "killed", minutes=1e-9)
    place = tmp_path / "killed/checkpoints"
    shutil.copytree(place / "000001", place / "000003.tmp")
    assert [whole.name for whole in whole_checkpoints(tmp_path / "killed")] == ["000001"]
    assert run(Line(), tmp_path / "killed") == 4
    assert_same(tmp_path / "straight", tmp_path / "killed")
    assert sorted(path.name for path in place.iterdir()) == ["000001", "000004", "latest"]


def test_a_checkpoint_of_another_stage_is_refused(tmp_path):
    run(Line(), tmp_path)
    other = Line()
    other.model.append(nn.Linear(1, 1))
    with pytest.raises(TrackGPTError, match="2 names differ, e.g. parts.0.4.bias"):
        run(other, tmp_path, steps=5)


def test_a_run_stops_when_its_minutes_are_over(tmp_path):
    assert run(Line(), tmp_path, minutes=1e-9) == 1
    assert run(Line(), tmp_path, minutes=1e-9) == 2


def test_only_what_learns_and_statistics_are_stored(tmp_path):
    stage = Line()
    stage.model[0].requires_grad_(False)
    run(stage, tmp_path)
    statistics = {f"parts.0.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    learned = {f"parts.0.{i}.{name}" for i in (1, 3) for name in ("weight", "bias")}
    assert set(newest(tmp_path)[1]) == statistics | learned


# One step from several batches


@pytest.mark.parametrize("workers", [0, 1])
def test_accumulated_batches_see_the_samples_of_a_big_one_and_make_its_update(tmp_path, workers):
    def still():
        stage = Line()
        stage.model[1].eval()  # statistics of a batch are those of its own samples
        stage.model[2] = nn.Identity()
        stage.modules = lambda: [stage.model[0], stage.model[3]]
        return stage

    big, small = still(), still()
    run(big, tmp_path / "big", batch=6, workers=workers)
    run(small, tmp_path / "small", batch=2, accumulate=3, workers=workers)
    assert sum(big.seen, []) == sum(small.seen, [])
    assert [len(seen) for seen in small.seen] == [2] * 12
    assert (weights(big) - weights(small)).abs().max() <= 1e-6
    lines = [[line["error"] for line in read_log(tmp_path / name)] for name in ("big", "small")]
    assert lines[0] == pytest.approx(lines[1], rel=1e-5)


def test_accumulated_batches_of_the_join_stage_add_up_to_their_mean(tmp_path):
    samples = [tiny_join().sample(seed) for seed in range(4)]
    batches = [Batch(7, samples[:2], []), Batch(8, samples[2:], [])]

    def gradient(batches, accumulate):
        engine = start_engine(tiny_join(), plan(accumulate=accumulate), CPU, bf16=False)
        for batch in batches:
            engine.backward(engine.forward(batch).total)
        return torch.cat([p.grad.flatten() for p in engine.module.parameters() if p.grad is not None])

    together, first, second = gradient(batches, 2), gradient(batches[:1], 1), gradient(batches[1:], 1)
    assert (together - (first + second) / 2).abs().max() <= 1e-5 * together.abs().max()


# Refusals


@pytest.mark.parametrize(("gradient", "named"), [(False, "the loss is nan"), (True, "the gradient's norm is nan")])
def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_checkpoint(tmp_path, gradient, named):
    run(Line(), tmp_path, minutes=1e-9)
    before = newest(tmp_path)[1]
    stage = Breaks(1, gradient)
    with pytest.raises(TrackGPTError, match=f"step 2: {named}; the last checkpoint is intact"):
        run(stage, tmp_path, save_minutes=60.0)
    step, trained, _ = newest(tmp_path)
    assert step == 1
    assert all(torch.equal(value, before[name]) for name, value in trained.items())
    assert bool(weights(stage).isfinite().all())


@pytest.mark.parametrize("room", [100, 3000])  # bytes a file may have: neither weights nor optimiser fit; weights do
def test_a_full_disk_stops_the_run_and_leaves_the_checkpoint(tmp_path, room):
    run(Line(), tmp_path / "straight")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step, engine):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))

    try:
        with pytest.raises(OutputError, match="the checkpoint of step 2 cannot be written: .*run the same command"):
            run(Line(), tmp_path / "full", export=fill, save_minutes=0.0, log_every=100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [place.name for place in whole_checkpoints(tmp_path / "full")] == ["000001"]
    assert run(Line(), tmp_path / "full") == 4
    assert all(torch.equal(v, newest(tmp_path / "full")[1][k]) for k, v in newest(tmp_path / "straight")[1].items())


def test_a_log_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "train.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"train.jsonl: Is a directory; make room; the last checkpoint is intact"):
        run(Line(), tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_preempted_run_saves_ends_with_143_and_goes_on(tmp_path, workers):
    many = {"steps": 200, "workers": workers}
    run(Line(), tmp_path / "straight", **many)
    told = process(tmp_path / "told", **many)
    wait_for_lines(tmp_path / "told", 10)
    os.killpg(told.pid, signal.SIGTERM)  # as Slurm does: the workers hear it too
    told.join(60)
    assert told.exitcode == 143
    assert 10 <= newest(tmp_path / "told")[0] < 200
    assert run(Line(), tmp_path / "told", **many) == 200
    assert_same(tmp_path / "straight", tmp_path / "told")


def test_a_stop_says_what_came_and_what_to_do(tmp_path):
    class Told(Line):
        def losses(self, samples):
            os.kill(os.getpid(), signal.SIGINT)
            return super().losses(samples)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(StoppedError, match="SIGINT at step 1; saved: run the same command to go on") as stopped:
        run(Told(), tmp_path)
    assert stopped.value.exit_code == 130
    assert newest(tmp_path)[0] == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_an_unknown_stage_is_refused(tmp_path):
    with pytest.raises(UsageError, match="stage `wrods` is not one of tracking, words, masks, language, join"):
        train_config(TrainConfig(stage="wrods", out=str(tmp_path)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"zero": 4}, "plan.zero: 4 is none of 0, 1, 2, 3"),
        ({"offload": "optimizer"}, "plan.offload: optimizer needs plan.zero of 1 or more"),
        ({"zero": 2, "offload": "parameters"}, "plan.offload: parameters needs plan.zero=3, found 2"),
        ({"bf16": "fp16"}, "plan.bf16: `fp16` is none of auto, true, false"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(tmp_path, fields, message):
    with pytest.raises(UsageError, match=message):
        run(Line(), tmp_path, **fields)


def test_a_stage_in_which_nothing_learns_is_refused(tmp_path):
    stage = Line()
    stage.model.requires_grad_(False)
    with pytest.raises(UsageError, match="nothing learns"):
        run(stage, tmp_path)


# Numbers of the plan


def test_the_learning_rate_warms_up_stays_and_goes_to_zero():
    schedule = Plan(steps=1000, lr=2.0, warmup=100, decay=0.3)
    wanted = {0: 0.02, 49: 1.0, 99: 2.0, 100: 2.0, 699: 2.0, 700: 2.0, 850: 1.0, 999: 2.0 / 300, 1000: 0.0}
    assert {step: learning_rate(step, schedule) for step in wanted} == pytest.approx(wanted)


def test_a_plan_without_warmup_or_decay_is_constant_until_its_last_step():
    assert [learning_rate(step, Plan(steps=4, lr=1.0, warmup=0, decay=0.0)) for step in range(5)] == [1, 1, 1, 1, 0]


def test_without_a_plateau_the_rate_goes_up_and_straight_to_zero_as_in_lisa():
    schedule = Plan(steps=5000, lr=3e-4, warmup=100, decay=1.0)
    wanted = {0: 3e-6, 99: 3e-4, 100: 3e-4, 2550: 1.5e-4, 4999: 3e-4 / 4900, 5000: 0.0}
    assert {step: learning_rate(step, schedule) for step in wanted} == pytest.approx(wanted)


def test_loss_weights_of_the_plan_win_over_those_of_the_stage(tmp_path):
    still = Line()
    before = still.model[0].weight.detach().clone()
    run(still, tmp_path, steps=1, loss_weights={"error": 0.0}, weight_decay=0.0)
    assert torch.equal(still.model[0].weight, before)


def test_weight_decay_spares_biases_and_normalisations(tmp_path):
    stage = Line()
    before = {name: value.clone() for name, value in stage.model.named_parameters()}
    run(stage, tmp_path, steps=1, loss_weights={"error": 0.0}, weight_decay=0.5, lr=0.1)
    for name, value in stage.model.named_parameters():
        wanted = before[name] * (1 - 0.1 * 0.5 if before[name].dim() > 1 else 1)
        assert torch.allclose(value, wanted), name


def test_the_paper_weighs_text_mask_and_purport_by_one():
    assert [JoinStage.weights[name] for name in ("text", "mask", "purport")] == [1.0, 1.0, 1.0]


# What a run leaves


def test_curves_are_drawn_from_the_log(tmp_path):
    assert draw_curves(tmp_path) is None
    lines = [{"step": s, "minutes": 0, "loss": 1 / s} for s in (1, 2, 1)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2]
    assert draw_curves(tmp_path).stat().st_size > 1000


def test_halves_that_were_trained_apart_are_put_together(tmp_path):
    brain, segmenter = (tiny_trackgpt("conv", tied=True, seed=seed, width=128) for seed in (1, 2))
    brain.save_pretrained(tmp_path / "brain")
    segmenter.save_pretrained(tmp_path / "segmenter")
    model = assemble(str(tmp_path / "brain"), str(tmp_path / "segmenter"), False, 0)
    whole = model.state_dict()
    assert all(torch.equal(whole[f"brain.{k}"], v) for k, v in brain.brain.state_dict().items())
    assert all(torch.equal(whole[f"segmenter.{k}"], v) for k, v in segmenter.segmenter.state_dict().items())
    towered = assemble(str(tmp_path / "brain"), "", True, 0)
    tower = brain.brain.llava.model.vision_tower.encoder.stages.state_dict()
    assert all(torch.equal(v, tower[k]) for k, v in towered.segmenter.image_encoder.stages.state_dict().items())


# The stages learn


def one_batch(stage, seeds):
    return [stage.sample(seed) for seed in seeds]


def learn(stage, samples, steps, lr):
    """Loss parts before each of `steps` steps on one batch."""
    parameters = [p for module in stage.modules() for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=lr)
    nn.ModuleList(stage.modules()).train()
    history = []
    for _ in range(steps):
        losses, figures = stage.losses(samples)
        total = sum(stage.weights[name] * value for name, value in losses.items())
        optimiser.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        history.append({name: value.item() for name, value in losses.items()} | figures)
    return history


def test_the_join_stage_learns_one_batch_from_instruction_to_mask():
    stage = JoinStage(tiny_trackgpt("conv", tied=True, width=128), SMALL, CPU.device)
    history = learn(stage, one_batch(stage, (3, 4)), 40, 3e-3)
    first, last = history[0], history[-1]
    assert set(stage.weights) <= set(first)
    assert last["mask"] < 0.5 * first["mask"]
    assert last["text"] < 0.5 * first["text"]
    assert last["iou"] > first["iou"]


def test_gradients_of_the_mask_reach_the_brain_and_the_first_online_query():
    model = tiny_trackgpt("conv", tied=True, width=128)
    stage = JoinStage(model, SMALL, CPU.device)
    losses, _ = stage.losses(one_batch(stage, (3,)))
    losses["mask"].backward()
    for parameter in (
        model.brain.projection[0].weight,
        model.brain.llava.model.language_model.layers[0].self_attn.q_proj.weight,
        model.segmenter.mask_decoder.first_online.weight,
        model.segmenter.mask_decoder.adapter.proj_in.weight,
    ):
        assert parameter.grad.abs().max() > 0


def test_the_masks_stage_learns_one_batch():
    stage = MasksStage(tiny_trackgpt("conv", tied=True, width=128), SMALL, CPU.device)
    history = learn(stage, one_batch(stage, (3, 4)), 30, 3e-3)
    assert history[-1]["mask"] < 0.6 * history[0]["mask"]
