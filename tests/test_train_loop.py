"""The loop: what it resumes is what it would have been, what it refuses, and that the stages learn on tiny models."""

import json
import math
import signal

import cv2
import numpy as np
import pytest
import torch
from tiny_models import tiny_trackgpt
from torch import nn

from trackgpt.errors import TrackGPTError, UsageError
from train.__main__ import TrainConfig, run
from train.assemble import assemble
from train.loop import Plan, batches, fit, learning_rate
from train.report import draw_curves, read_log
from train.shape import Shape
from train.stages import Join, Masks

CPU = torch.device("cpu")
SMALL = Shape(side=64, frames=3, targets=2)


class Line:
    """Fits y = 2 x with dropout and normalisation: both would give away a resumed run that differs."""

    weights = {"error": 1.0}

    def __init__(self):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.seen = []

    def sample(self, seed):
        x = torch.randn(4, generator=torch.Generator().manual_seed(seed))
        return seed, x, 2 * x.sum()

    def modules(self):
        return [self.model]

    def losses(self, samples):
        self.seen.append([seed for seed, _, _ in samples])
        x, y = (torch.stack([s[i] for s in samples]) for i in (1, 2))
        error = (self.model(x)[:, 0] - y).square().mean()
        return {"error": error}, {"size": float(len(samples))}


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


def plan(**fields):
    small = {"steps": 4, "batch": 3, "lr": 0.01, "warmup": 1, "workers": 0, "bf16": False, "log_every": 1}
    return Plan(**{**small, **fields})


def train(stage, folder, **fields):
    return fit(stage, plan(**fields), folder, CPU, lambda step: None)


def weights(stage):
    return torch.cat([value.flatten().double() for value in stage.model.state_dict().values()])


# Going on


def test_two_steps_and_a_resumed_two_equal_four_straight(tmp_path):
    straight = Line()
    assert train(straight, tmp_path / "straight") == 4
    first = Breaks(2)
    with pytest.raises(TrackGPTError, match="at step 2"):
        train(first, tmp_path / "twice", save_minutes=0.0)
    second = Line()
    torch.manual_seed(99)
    assert train(second, tmp_path / "twice") == 4
    assert second.seen == straight.seen[2:]
    assert torch.equal(weights(second), weights(straight))
    assert not torch.equal(weights(first), weights(straight))
    lines = [[{**line, "minutes": 0} for line in read_log(tmp_path / name)] for name in ("straight", "twice")]
    assert lines[0] == lines[1]
    assert [line["step"] for line in lines[0]] == [1, 2, 3, 4]


def test_a_finished_run_is_not_trained_again_and_says_where_it_is(tmp_path):
    train(Line(), tmp_path)
    before = (tmp_path / "state.pt").read_bytes()
    again = Line()
    assert train(again, tmp_path) == 4
    assert train(Line(), tmp_path, steps=2) == 4
    assert again.seen == []
    assert (tmp_path / "state.pt").read_bytes() == before


def test_samples_are_a_function_of_seed_and_step():
    stage = Line()
    one = [[s[0] for s in batch] for batch in batches(stage, plan(seed=3), 0)]
    assert one == [[300_000_000 + 3 * step + i for i in range(3)] for step in range(4)]
    late = [[s[0] for s in batch] for batch in batches(stage, plan(seed=3), 3)]
    assert late == one[3:]
    other = [s[0] for batch in batches(stage, plan(seed=4), 0) for s in batch]
    assert set(other).isdisjoint(sum(one, []))


def test_worker_processes_give_the_same_samples_in_order_even_after_opencv_has_started_threads():
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((900, 900, 3), np.uint8), (9, 9), 2)

    def too_long(*_):
        raise TimeoutError("a worker process waits for ever")

    old = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(20)
    try:
        alone, helped = ([[s[0] for s in b] for b in batches(Line(), plan(workers=w, steps=3), 0)] for w in (0, 1))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
    assert alone == helped


def test_a_checkpoint_is_written_while_training_goes_on(tmp_path):
    steps = []
    stage = Line()

    def export(step):
        steps.append((step, torch.load(tmp_path / "state.pt", weights_only=True)["step"]))

    fit(stage, plan(save_minutes=0.0), tmp_path, CPU, export)
    assert steps == [(1, 1), (2, 2), (3, 3), (4, 4), (4, 4)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.pt", "train.jsonl"]


def test_a_run_stops_when_its_minutes_are_over(tmp_path):
    assert train(Line(), tmp_path, minutes=1e-9) == 1
    assert train(Line(), tmp_path, minutes=1e-9) == 2


def test_a_logged_line_is_the_mean_of_the_steps_since_the_last_even_after_a_resume(tmp_path):
    train(Line(), tmp_path, steps=4, log_every=4, minutes=1e-9)
    train(Line(), tmp_path, steps=4, log_every=4)
    (line,) = read_log(tmp_path)
    assert (line["step"], line["size"]) == (4, 3.0)


# Refusals


@pytest.mark.parametrize(("gradient", "named"), [(False, "the loss is nan"), (True, "the gradient's norm is nan")])
def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_checkpoint(tmp_path, gradient, named):
    train(Line(), tmp_path, minutes=1e-9)
    before = (tmp_path / "state.pt").read_bytes()
    stage = Breaks(1, gradient)
    with pytest.raises(TrackGPTError, match=f"{named} at step 2; the last checkpoint is intact"):
        train(stage, tmp_path, save_minutes=60.0)
    assert (tmp_path / "state.pt").read_bytes() == before
    assert bool(weights(stage).isfinite().all())


def test_an_unknown_stage_is_refused(tmp_path):
    with pytest.raises(UsageError, match="stage `wrods` is not one of words, masks, language, join"):
        run(TrainConfig(stage="wrods", out=str(tmp_path)))


# Numbers of the plan


def test_the_learning_rate_warms_up_stays_and_goes_to_zero():
    schedule = Plan(steps=1000, lr=2.0, warmup=100, decay=0.3)
    wanted = {0: 0.02, 49: 1.0, 99: 2.0, 100: 2.0, 699: 2.0, 700: 2.0, 850: 1.0, 999: 2.0 / 300, 1000: 0.0}
    assert {step: learning_rate(step, schedule) for step in wanted} == pytest.approx(wanted)


def test_a_plan_without_warmup_or_decay_is_constant_until_its_last_step():
    assert [learning_rate(step, Plan(steps=4, lr=1.0, warmup=0, decay=0.0)) for step in range(5)] == [1, 1, 1, 1, 0]


def test_loss_weights_of_the_plan_win_over_those_of_the_stage(tmp_path):
    still = Line()
    before = still.model[0].weight.detach().clone()
    train(still, tmp_path, steps=1, loss_weights={"error": 0.0}, weight_decay=0.0)
    assert torch.equal(still.model[0].weight, before)


def test_weight_decay_spares_biases_and_normalisations(tmp_path):
    stage = Line()
    before = {name: value.clone() for name, value in stage.model.named_parameters()}
    train(stage, tmp_path, steps=1, loss_weights={"error": 0.0}, weight_decay=0.5, lr=0.1)
    for name, value in stage.model.named_parameters():
        wanted = before[name] * (1 - 0.1 * 0.5 if before[name].dim() > 1 else 1)
        assert torch.allclose(value, wanted), name


def test_the_paper_weighs_text_mask_and_purport_by_one():
    assert [Join.weights[name] for name in ("text", "mask", "purport")] == [1.0, 1.0, 1.0]


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
    stage = Join(tiny_trackgpt("conv", tied=True, width=128), SMALL, CPU)
    history = learn(stage, one_batch(stage, (3, 4)), 40, 3e-3)
    first, last = history[0], history[-1]
    assert set(stage.weights) <= set(first)
    assert last["mask"] < 0.5 * first["mask"]
    assert last["text"] < 0.5 * first["text"]
    assert last["iou"] > first["iou"]


def test_gradients_of_the_mask_reach_the_brain_and_the_first_online_query():
    model = tiny_trackgpt("conv", tied=True, width=128)
    stage = Join(model, SMALL, CPU)
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
    stage = Masks(tiny_trackgpt("conv", tied=True, width=128), SMALL, CPU)
    history = learn(stage, one_batch(stage, (3, 4)), 30, 3e-3)
    assert history[-1]["mask"] < 0.6 * history[0]["mask"]
