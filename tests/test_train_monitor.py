"""What a run tells while it runs, what it says before it starts, and the arithmetic of its memory."""

import json
import re
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import CPU, Line, plan, run
from torch import nn

from trackgpt import precision
from trackgpt.errors import UsageError
from trackgpt.planning.memory_plan import GIB, Load, load_of
from train import supply
from train.config import TrainConfig
from train.dry_run import dry_run
from train.engine import deepspeed_settings, parameter_groups
from train.memory import Share, share, table
from train.monitor import Window
from train.precision import use_bf16
from train.processes import Processes
from train.report import draw_curves, read_log
from train.supply import Supply, samples_per_second


class Room(Processes):
    """Two processes of which the other has said `other`."""

    other = None

    def gather(self, thing):
        return [thing, self.other]


# The log


def test_a_line_has_the_losses_figures_rate_norm_speed_waiting_and_memory(tmp_path):
    run(Line(), tmp_path, steps=4, log_every=2)
    lines = read_log(tmp_path)
    assert [line["step"] for line in lines] == [2, 4]
    assert list(lines[0]) == ["step", "minutes", "lr", "error", "size", "grad", "rate", "wait", "memory"]
    assert all(line["size"] == 3.0 for line in lines)
    assert all(0 <= line["wait"] <= 1 and line["rate"] > 0 and line["memory"] > 0.01 for line in lines)


def test_a_line_is_the_mean_over_steps_and_processes():
    window, other = Window({}), Window({})
    for value in (1.0, 2.0):
        window.add({"loss": value})
    other.add({"loss": 6.0, "seen_there_only": 4.0})
    room = Room(torch.device("cpu"))
    object.__setattr__(room, "other", other.sums)
    assert window.merged(room) == {"loss": [9.0, 3], "seen_there_only": [4.0, 1]}


def test_the_validation_hook_is_called_in_evaluation_mode_and_logged(tmp_path):
    stage, seen = Line(), []

    def validate(step):
        seen.append((step, stage.model.training, torch.is_grad_enabled()))
        return {"j": step / 10}

    run(stage, tmp_path, validate=validate, validate_every=2, log_every=3)
    assert seen == [(2, False, False), (4, False, False)]
    assert stage.model.training
    values = [(line["step"], line.get("val_j"), "error" in line) for line in read_log(tmp_path)]
    assert values == [(2, 0.2, False), (3, None, True), (4, 0.4, False)]


def test_half_a_line_that_a_kill_left_spoils_no_other(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    run(Line(), tmp_path, steps=3)
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3]
    assert draw_curves(tmp_path).stat().st_size > 1000


def test_a_run_without_a_terminal_prints_a_line_with_the_time_left(tmp_path, capsys):
    run(Line(), tmp_path, steps=2, log_every=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("step 2/2 left 0.0 min lr 0.01 error ")


def test_tensorboard_holds_the_same_figures(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed: pip install 'trackgpt[train]'")
    run(Line(), tmp_path, steps=2, tensorboard=True)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = [event.value for event in events.Scalars("error")]
    assert shown == pytest.approx([line["error"] for line in read_log(tmp_path)], rel=1e-5)


def test_weights_and_biases_gets_every_line_of_a_run_that_names_a_project(tmp_path, monkeypatch):
    told = []
    run_there = SimpleNamespace(
        log=lambda line, step: told.append((step, line["error"])), finish=lambda: told.append("end")
    )
    fake = SimpleNamespace(init=lambda **settings: told.append(settings["project"]) or run_there)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    run(Line(), tmp_path, steps=2)
    assert told == []
    run(Line(), tmp_path, steps=4, wandb="tracking")
    assert [told[0], told[1][0], told[2][0], told[3]] == ["tracking", 3, 4, "end"]


def test_a_project_without_the_package_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"plan.wandb=tracking needs wandb .*pip install 'trackgpt\[wandb\]'"):
        run(Line(), tmp_path, wandb="tracking")


# Arithmetic


def test_bfloat16_is_used_where_it_is_measured_to_be_faster(monkeypatch):
    slow_here = {torch.bfloat16: 10.0, torch.float32: 1.0}
    monkeypatch.setattr(precision, "probe", slow_here.get)
    assert not use_bf16(None, CPU.device)
    monkeypatch.setattr(precision, "probe", {torch.bfloat16: 0.4, torch.float32: 1.0}.get)
    assert use_bf16("auto", CPU.device)
    assert not use_bf16(False, CPU.device)


def test_the_probe_takes_a_moment():
    assert 0 < precision.probe(torch.float32) < 1


def test_the_memory_of_a_seven_billion_model_is_that_of_the_zero_paper():
    # Rajbhandari et al. 2020, table 1, counts 16 bytes a parameter (half-precision weights and gradients beside 12
    # bytes of state); float32 weights and gradients make it 16 without ZeRO and 20 with its separate master copy.
    whole = Load(trained=7 * 10**9, frozen_bytes=0)
    assert share(whole, 0, 8).total == 16 * 7e9
    assert share(whole, 1, 8).total == (4 + 4 + 12 / 8) * 7e9
    assert share(whole, 2, 8).total == (4 + 16 / 8) * 7e9
    assert share(whole, 3, 8).total == 20 / 8 * 7e9
    assert share(whole, 3, 8, "parameters") == Share(0.0, 4 * 7e9 / 8, 0.0, 0.0)


def test_adapters_make_the_frozen_weights_the_whole_of_it():
    lora = Load(trained=30 * 10**6, frozen_bytes=2 * 7 * 10**9)
    assert share(lora, 2, 1).total / GIB == pytest.approx(13.6, abs=0.1)
    assert share(lora, 3, 8).total / GIB == pytest.approx(1.7, abs=0.1)


def test_a_model_is_weighed_without_being_built():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(1000, 1000, bias=False), nn.Linear(1000, 10, bias=False))
    model[0].requires_grad_(False)
    assert load_of(model.parameters()) == Load(10_000, 4_000_000)
    assert len(table(load_of(model.parameters())).splitlines()) == 1 + 4 * 3


def test_matrices_decay_and_biases_do_not_and_a_shared_matrix_counts_once():
    layer, tied = nn.Linear(4, 4), nn.Linear(4, 4)
    tied.weight = layer.weight
    groups = parameter_groups(nn.ModuleList([layer, tied]), 0.1)
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 0.1), (2, 0.0)]


def test_settings_of_the_plan_win_over_ours_section_by_section():
    settings = deepspeed_settings(plan(zero=3, deepspeed={"zero_optimization": {"overlap_comm": True}, "x": 1}), CPU)
    assert settings["zero_optimization"]["stage"] == 3
    assert settings["zero_optimization"]["overlap_comm"] is True
    assert settings["x"] == 1


# Before a run


def test_a_dry_run_says_what_it_would_learn_hold_and_take_and_writes_nothing_but_a_picture(tmp_path):
    stage = Line()
    stage.model[0].requires_grad_(False)
    stage.picture = lambda samples: np.full((4, 6, 3), len(samples), np.uint8)
    text = dry_run(stage, TrainConfig(plan=plan(steps=1000, accumulate=2)), tmp_path, CPU)
    assert "learned: 25 of 65 parameters" in text
    assert "frozen" in text
    assert "ZeRO GPUs" in text
    assert "s per step of 6 samples" in text
    assert "expected: 1000 steps" in text
    assert re.search(r"one worker makes [\d.]+ samples/s, a process consumes [\d.]+: ratio [\d.]+, so 1 worker", text)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["dry_run", "dry_run/batch.png"]
    assert np.array(Image.open(tmp_path / "dry_run/batch.png"))[0, 0].tolist() == [3, 3, 3]


def test_a_step_that_eats_ten_samples_a_second_needs_three_workers_that_make_four():
    assert Supply(made=4.0, consumed=10.0).workers == 3
    assert Supply(made=4.0, consumed=8.0).workers == 2
    text = Supply(made=4.0, consumed=10.0).text(plan(workers=1))
    assert text == (
        "one worker makes 4.0 samples/s, a process consumes 10.0: ratio 0.40, so 3 worker(s) with a core each keep it "
        "fed; plan.workers is 1"
    )


def test_a_worker_is_timed_after_its_sets_are_opened(monkeypatch):
    """The first sample takes 0.5 s, each other 0.01 s."""

    class Slow(Line):
        def sample(self, seed):
            time.sleep(0.01 if self.seen else 0.5)
            self.seen.append(seed)
            return seed

    monkeypatch.setattr(supply, "SECONDS", 0.2)
    stage = Slow()
    assert 30 < samples_per_second(stage, 2, 100) <= 100
    assert stage.seen[0] == 200_000_100
    assert len(set(stage.seen)) == len(stage.seen)


def test_a_log_line_is_json_that_any_reader_takes(tmp_path):
    run(Line(), tmp_path, steps=1)
    (line,) = (tmp_path / "train.jsonl").read_text().splitlines()
    assert json.loads(line)["lr"] == 0.01
