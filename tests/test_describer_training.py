"""Training of a describer on tiny random models: runs as they are started, rewards that move it, runs that stop."""

import inspect
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_policies
import torch
from safetensors.torch import load_file
from tiny_boxes import written_tracker
from transformers.modeling_outputs import BaseModelOutputWithPooling

pytest.importorskip("trl", reason="TRL is not installed: pip install 'trackgpt[rl]'")

from trl import GRPOTrainer, SFTConfig, SFTTrainer

from trackgpt.hub import find
from trackgpt.reasoners.describer import VlmDescriber, find_template
from trackgpt.reasoners.policy import Query, Trajectories, messages, parse, render
from trackgpt.reasoners.vlm_policy import VlmPolicy
from trackgpt.synthtrack.clips import make_case
from trackgpt.systems.reasoningtrack import SCENE
from trackgpt.systems.trackgpt import BrainReasoner, TrackGPT
from trackgpt.track import TrackState
from trackgpt.types import Prompt
from train.answer_training import KeptTokens
from train.brain_folder import write_brain
from train.report import read_log

ROOT = Path(__file__).parents[1]
TERMS = ("format", "order", "gain", "decision", "holds")
SHORT = 'prompt: "{marked}{words}"\n'
"""A question without its explanations, which are hundreds of tokens to a model that reads bytes."""


@pytest.fixture(scope="module")
def lent(tmp_path_factory):
    """A tiny random Qwen2.5-VL that is asked in few words, and a box tracker."""
    root = tmp_path_factory.mktemp("describers")
    model = tiny_policies.brain(root, "qwen2_5_vl")
    (model / "describer.yaml").write_text(SHORT)
    return root, model, written_tracker(root / "tracker")


def settings(stage: str, lent: tuple, out: Path, **more: object) -> Path:
    """The configuration of a run; `plan` and `describer` win over what is here."""
    _, model, tracker = lent
    describer = {"pairs": 4, "gap": 12, "window": 2, "group": 2, "tokens": 8, "tracker": str(tracker)}
    config = {
        "stage": f"describer_{stage}",
        "brain": str(model),
        "out": str(out),
        "device": "cpu",
        "previews": False,
        "describer": describer | more.pop("describer", {}),
        "plan": tiny_policies.PLAN | {"tensorboard": False} | more.pop("plan", {}),
    }
    path = out.with_suffix(".yaml")
    path.write_text(json.dumps(config | more))  # JSON is YAML
    return path


def weights(folder: Path) -> torch.Tensor:
    return torch.cat([value.flatten() for _, value in sorted(load_file(folder / "model.safetensors").items())])


def test_trl_has_what_is_relied_on_beside_the_method_that_tapo_replaces():
    """`_load_from_checkpoint` is set on a trainer; rewards are given rows by number, and a way to log."""
    for trainer in (SFTTrainer, GRPOTrainer):
        loads = inspect.signature(trainer._load_from_checkpoint).parameters
        assert list(loads)[:2] == ["self", "resume_from_checkpoint"]
    source = inspect.getsource(GRPOTrainer._calculate_rewards)
    assert 'reward_kwargs["log_metric"] = self._log_metric' in source
    assert "completions=completions" in source
    assert "**reward_kwargs" in source
    assert "if num_items_in_batch is None else num_items_in_batch" in inspect.getsource(SFTTrainer.compute_loss)
    assert "self.model_accepts_loss_kwargs" in inspect.getsource(SFTTrainer._get_num_items_in_batch)
    assert {"max_length", "completion_only_loss"} <= set(inspect.signature(SFTConfig).parameters)


def test_imitation_lowers_the_loss_and_rewards_begin_where_it_ended(train_command, lent):
    root, model, _ = lent
    out = root / "sft"
    done = train_command(settings("sft", lent, out, plan={"lr": 5e-3}))
    assert (done.code, done.last) == (0, f"stage=describer_sft step=5 out={out}"), done.err
    losses = [line["loss"] for line in read_log(out)]
    assert len(losses) == 5
    assert losses[-1] < losses[0] - 0.5
    assert "trackgpt track VIDEO -m reasoningtrack:TRACKER+FOLDER" in (out / "model/README.md").read_text()
    assert find_template(out / "model").prompt == "{marked}{words}"

    after = root / "grpo"
    done = train_command(
        settings("grpo", lent, after, brain=str(out / "model"), plan={"weight_decay": 0.0}), "previews=true"
    )
    assert (done.code, done.last) == (0, f"stage=describer_grpo step=5 out={after}"), done.err
    log = read_log(after)
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5]
    assert all(line[f"reward/{name}"] == 0.0 for line in log for name in TERMS)  # eight bytes are no answer
    (shown, *_) = [json.loads(line) for line in (after / "previews/000005.jsonl").read_text().splitlines()]
    assert set(shown) == {"row", "asked", "answer", "reward", *TERMS}
    assert torch.equal(weights(after / "model"), weights(out / "model"))  # nothing was earned, nothing is learned
    assert not torch.equal(weights(out / "model"), weights(model))
    VlmDescriber.from_pretrained(after / "model")


def test_a_step_in_parts_is_the_step_in_one(train_command, lent):
    root, *_ = lent
    steps = {"steps": 1, "lr": 1e-3}
    whole = settings("sft", lent, root / "together", plan=steps | {"batch": 4})
    parts = settings("sft", lent, root / "parts", plan=steps | {"batch": 1, "accumulate": 4})
    assert [train_command(path).code for path in (whole, parts)] == [0, 0]
    (one,), (four,) = read_log(root / "together"), read_log(root / "parts")
    for name in ("loss", "grad_norm"):  # answers of different lengths: means of their means would differ by 4e-4
        assert one[name] == pytest.approx(four[name], rel=2e-5)


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(train_command, lent, monkeypatch):
    root, model, _ = lent
    monkeypatch.setattr(
        "train.describer_training.earned",
        lambda terms, answer, *_: {"reward": len(answer.text) % 5 / 4} | dict.fromkeys(TERMS, 0.0),
    )

    def config(name: str) -> Path:
        return settings("grpo", lent, root / name, plan={"steps": 2}, describer={"lora": 2})

    assert train_command(config("whole")).code == 0
    assert train_command(config("halves"), "plan.minutes=1e-9").last.startswith("stage=describer_grpo step=1 ")
    assert train_command(config("halves")).last.startswith("stage=describer_grpo step=2 ")
    whole, halves = (weights(root / name / "model") for name in ("whole", "halves"))
    assert torch.equal(whole, halves)
    assert not torch.equal(whole, weights(model))


@pytest.mark.parametrize(
    ("stage", "given", "said"),
    [
        ("grpo", ["describer.tracker=''"], "the reward `gain` is what a box tracker gains by words"),
        ("grpo", ["describer.records=somewhere"], "the stage describer_sft reads them"),
        ("sft", ["describer.sets={lasot: somewhere}"], "they hold no answers to imitate"),
        (
            "grpo",
            ["describer.sets={lasot: somewhere}", "describer.reward_weights.holds=1"],
            "describer.reward_weights.holds: which words hold is known of SynthTrack alone",
        ),
        ("grpo", ["describer.group=3"], "describer.group=3: plan.batch * plan.accumulate * processes is 2"),
        ("grpo", ["describer.reward_weights.speed=1"], "`speed` is none of format, order, gain, decision"),
        ("sft", ["--dry-run"], "--dry-run: the stage describer_sft has none"),
        ("sft", ["--plan"], "the stage describer_sft has no plan yet"),
    ],
)
def test_a_run_that_cannot_be_is_refused_in_one_line(train_command, lent, stage, given, said):
    done = train_command(settings(stage, lent, lent[0] / "refused"), *given)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_malformed_records_are_named_and_the_others_learned(train_command, lent, tmp_path, shared):
    paths = [str(shared / f"data/tnllt/ReasoningTrack/Evaluation/sample0001/img{k}.jpg") for k in (1, 2)]
    rows = [
        {"input": "<image><image>the wooden ship on the river", "output": said, "images": paths}
        for said in ("<think>a</think><d>yes</d>\n<answer>the ship on the sea</answer>", "the ship")
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    out = lent[0] / "records"
    done = train_command(settings("sft", lent, out, plan={"steps": 1, "batch": 1}), f"describer.records={tmp_path}")
    assert (done.code, done.last) == (0, f"stage=describer_sft step=1 out={out}"), done.err
    assert "1 malformed records are left out: rows.json:1" in done.err


def test_nanos_brain_is_a_folder_that_can_learn_and_still_says_what_it_said(tmp_path):
    write_brain("nano", tmp_path / "brain")
    vlm = VlmDescriber.from_pretrained(tmp_path / "brain").vlm
    assert find_template(tmp_path / "brain").prompt == "{words}"
    frame = cv2.resize(make_case(3, split="train", frames=1).clip.frames[0], (256, 256))  # which neither scales
    content = [{"type": "image"}, {"type": "text", "text": SCENE}]
    asked = vlm.in_chat([{"role": "user", "content": content}])
    assert asked == f"USER: <image>\n{SCENE} ASSISTANT:"
    said = vlm.ask([frame], asked).text
    brain = TrackGPT.from_pretrained(find("nano")).brain
    assert said.strip() == BrainReasoner(brain).reason(frame, TrackState(None, None), Prompt(SCENE)).text


def test_the_brain_as_a_policy_writes_a_box_in_11_tokens_and_two_in_20(tmp_path):
    write_brain("nano", tmp_path / "brain")
    policy = VlmPolicy.from_pretrained(tmp_path / "brain")
    view, tokens = policy.view(np.zeros((180, 320, 3), np.uint8)), policy.processor.tokenizer
    boxes = {1: {1: (10.0, 20.0, 110.0, 140.0)}, 2: {1: (30.0, 40.0, 310.0, 70.0)}}
    one, two = (
        render(Trajectories.of((1,), {n: boxes[n] for n in range(1, count + 1)}), view, policy.convention)
        for count in (1, 2)
    )
    assert '"bbox_2d": [6, 56, 69, 131]' in one  # along the padded square, whose upper 70 pixels are not the frame's
    assert parse(one, (1,), view, policy.convention).at(1)[1] == pytest.approx(boxes[1][1], abs=0.8)
    lengths = [len(tokens.encode(text, add_special_tokens=False)) for text in (one, two)]
    assert lengths == [11, 20]
    (asked,) = messages(2, Query("the car", ((1, boxes[1][1]),)), view, policy.convention, template=policy.template)
    assert asked["content"][-1]["text"] == "the car On frame 0, object 1 is at [6, 56, 69, 131]."
    assert len(tokens.encode(asked["content"][-1]["text"], add_special_tokens=False)) == 2 + 3 + 5
    assert tokens.decode(tokens.encode(two, add_special_tokens=False)) == two


def test_a_tower_that_is_held_stays_as_it_is_though_it_normalises_by_batches(lent, train_command, tmp_path):
    write_brain("nano", tmp_path / "brain")
    before, out = load_file(tmp_path / "brain/model.safetensors"), tmp_path / "held"
    config = settings(
        "sft", (lent[0], tmp_path / "brain", lent[2]), out, describer={"vision": False}, plan={"steps": 1}
    )
    assert train_command(config).code == 0
    after = load_file(out / "model/model.safetensors")
    tower = [name for name in before if name.startswith("vision_tower.")]
    assert any(name.endswith("running_mean") for name in tower)
    assert all(torch.equal(after[name].float(), before[name].float()) for name in tower)
    assert any(not torch.equal(after[name].float(), before[name].float()) for name in before if name not in tower)


def test_a_held_tower_looks_at_every_image_once_and_gives_what_it_would_have_given():
    looked = []

    def forward(pixels: torch.Tensor) -> BaseModelOutputWithPooling:
        looked.append(len(pixels))
        return BaseModelOutputWithPooling(last_hidden_state=pixels.flatten(2).mean(2, keepdim=True))

    tower, images = KeptTokens(forward, most=3), torch.rand(4, 3, 8, 8)
    for shown in ([0, 1, 0], [1, 2], [0, 1, 2], [3], [0]):
        found = tower(images[shown])
        assert torch.equal(found.last_hidden_state, images[shown].flatten(2).mean(2, keepdim=True))
        assert torch.equal(found.hidden_states[-1], found.last_hidden_state)
    assert looked == [2, 1, 1, 1]  # the first image was forgotten when the fourth came


# Minutes


@pytest.mark.slow
def test_two_processes_learn_what_one_does(lent):
    root, *_ = lent
    plan = {"steps": 3, "lr": 1e-3}
    one = settings("sft", lent, root / "one", plan=plan | {"batch": 4})
    two = settings("sft", lent, root / "two", plan=plan | {"batch": 2})
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "train"]
    for command in ([sys.executable, "-m", "train", str(one)], [*launch, str(two)]):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
    alone, shared = read_log(root / "one"), read_log(root / "two")
    for name in ("loss", "grad_norm"):  # of the first step; Adam makes steps of the signs of small ones
        assert alone[0][name] == pytest.approx(shared[0][name], rel=2e-5)
    assert [line["loss"] for line in alone] == pytest.approx([line["loss"] for line in shared], rel=1e-3)
    assert alone[-1]["loss"] < alone[0]["loss"] - 0.01


@pytest.mark.slow
def test_two_processes_share_rewarded_answers_and_write_once(lent):
    root, *_ = lent
    out = root / "both"
    path = settings("grpo", lent, out, plan={"steps": 2}, describer={"group": 4})
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "train"]
    done = subprocess.run([*launch, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.splitlines() == [f"stage=describer_grpo step=2 out={out}"]
    assert [line["step"] for line in read_log(out)] == [1, 2]
    assert json.loads((out / "model/training.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(lent):
    root, *_ = lent

    def config(name: str) -> list[str]:
        path = settings("sft", lent, root / name, plan={"steps": 12, "save_every": 2})
        return [sys.executable, "-m", "train", str(path)]

    assert subprocess.run(config("uncut"), cwd=ROOT, capture_output=True).returncode == 0
    run = subprocess.Popen(config("killed"), cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not list((root / "killed/checkpoints").glob("checkpoint-*/trainer_state.json")):
        assert run.poll() is None
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not (root / "killed/model").exists()
    assert subprocess.run(config("killed"), cwd=ROOT, capture_output=True).returncode == 0
    assert torch.equal(weights(root / "uncut/model"), weights(root / "killed/model"))
