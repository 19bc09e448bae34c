"""GRPO with TAPO on tiny random models: which frames are shown, which gradient acts, and runs as they are started."""

import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_policies import brain, settings, squares

pytest.importorskip("trl", reason="TRL is not installed: pip install 'trackgpt[rl]'")

from trl import GRPOTrainer

from trackgpt.errors import InputError
from trackgpt.reasoners.policy import Query
from train.grpo import READ_BY_FORWARD, TAPOTrainer, corrupt_frames, shown_instead, token_bonus
from train.report import read_log

ROOT = Path(__file__).parents[1]
NAMES = ("tags", "format", "boxes", "motion")


# Corrupted frames


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def of_images(grid: list[list[int]], counts: list[int]) -> dict:
    """A batch in which every patch of image i holds the number i."""
    rows = torch.tensor(grid).prod(-1).tolist()
    pixels = torch.cat([torch.full((n, 3), float(i)) for i, n in enumerate(rows)])
    return {"pixel_values": pixels, "image_grid_thw": torch.tensor(grid), "num_images": counts}


def test_what_each_corruption_shows_when_nothing_stays():
    assert shown_instead(4, "freeze", 0.0, drawn()) == [0, 0, 0, 0]
    assert shown_instead(4, "drop", 0.0, drawn()) == [0, 0, 0, 0]
    for seed in range(50):
        shown = shown_instead(4, "shuffle", 0.0, drawn(seed))
        assert sorted(shown) == [0, 1, 2, 3]
        assert all(frame != place for place, frame in enumerate(shown))
    for corruption in ("freeze", "shuffle", "drop"):
        assert shown_instead(4, corruption, 1.0, drawn()) == [0, 1, 2, 3]
        assert shown_instead(1, corruption, 0.0, drawn()) == [0]


def test_a_dropped_frame_shows_the_last_one_that_stayed():
    seen = {tuple(shown_instead(4, "drop", 0.5, drawn(seed))) for seed in range(200)}
    assert seen == {(0, a, b, c) for a in (0, 1) for b in (a, 2) for c in (b, 3)}


@pytest.mark.parametrize("corruption", ["freeze", "drop"])
def test_the_keep_rate_is_the_share_of_frames_that_really_stay(corruption):
    kept = [corrupt_frames(of_images([[1, 2, 2]] * 8, [8]), corruption, 0.7, drawn(seed)).kept for seed in range(400)]
    assert sum(kept) / len(kept) == pytest.approx(0.7, abs=0.02)


def test_frames_are_exchanged_inside_their_sample_alone():
    batch = of_images([[1, 2, 2], [1, 2, 2], [1, 2, 4], [1, 2, 4], [1, 2, 4], [1, 4, 4]], [2, 3, 1])
    frozen = corrupt_frames(batch, "freeze", 0.0, drawn())
    assert frozen.pixels[:, 0].tolist() == [0.0] * 8 + [2.0] * 24 + [5.0] * 16
    assert frozen.changed.tolist() == [True, True, False]
    assert frozen.kept == 0.0
    assert batch["pixel_values"][4, 0] == 1.0  # the batch itself is read again
    flat = {"pixel_values": torch.arange(5.0)[:, None, None, None].expand(5, 3, 2, 2), "num_images": [3, 2]}
    assert corrupt_frames(flat, "freeze", 0.0, drawn()).pixels[:, 0, 0, 0].tolist() == [0, 0, 0, 3, 3]


def test_frames_of_several_sizes_in_one_sample_are_refused():
    with pytest.raises(InputError, match=r"\[\[2, 2\], \[2, 4\]\] rows and columns of patches; wanted one size"):
        corrupt_frames(of_images([[1, 2, 2], [1, 2, 4]], [2]), "freeze", 0.0, drawn())


# The estimator


def policies() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log probabilities of six words with the true frames and with corrupted ones, and what both depend on."""
    torch.manual_seed(0)
    theta = torch.randn(6, dtype=torch.double, requires_grad=True)
    mixed = 0.3 * torch.randn(6, 6, dtype=torch.double) @ theta
    return torch.log_softmax(theta, 0), torch.log_softmax(mixed, 0), theta


def expected_gradient(mode: str) -> torch.Tensor:
    """Of the policy gradient with the bonus as advantage, summed over all words with their probabilities."""
    p, q, theta = policies()
    bonus = token_bonus(p - q, mode, clip=1e6)
    return torch.autograd.grad((p.exp().detach() * bonus * p).sum(), theta)[0]


def test_the_bonus_in_the_advantage_has_the_gradient_of_the_papers_divergence():
    p, q, theta = policies()
    divergence = (p.exp() * (p - q.detach())).sum()  # eq. 4
    wanted = torch.autograd.grad(divergence, theta)[0]
    assert torch.allclose(expected_gradient("advantage"), wanted, atol=1e-12)
    assert wanted.norm() > 0.1
    p, q, theta = policies()
    as_written = (p.exp().detach() * (p - q.detach())).sum()  # Algorithm 1, line 9, in the loss
    assert torch.autograd.grad(as_written, theta)[0].norm() < 1e-12


def test_the_loss_mode_has_the_gradient_of_papos_k3_word_by_word():
    p, q, theta = policies()
    difference = (q - p).detach() - p + p.detach()  # the value of q - p, with the gradient of -p
    for clip in (1e6, 0.05):
        k3 = (difference.exp() - difference - 1).clamp(max=clip)
        bonus = token_bonus(p - q, "loss", clip)
        for word in range(6):
            papo = torch.autograd.grad(k3[word], theta, retain_graph=True)[0]
            ours = torch.autograd.grad(bonus[word] * p[word], theta, retain_graph=True)[0]
            assert torch.allclose(papo, ours, atol=1e-12)
    assert (k3 == 0.05).any()
    assert (k3 < 0.05).any()


def test_a_gain_is_clipped_in_nats():
    gain = torch.tensor([-900.0, -7.0, -1.0, 0.0, 1.0, 7.0])
    assert token_bonus(gain, "advantage", 5.0).tolist() == [-5.0, -5.0, -1.0, 0.0, 1.0, 5.0]
    assert token_bonus(gain, "loss", 5.0)[:2].tolist() == [0.0, 0.0]


# What is relied on of TRL


def test_trl_has_what_the_one_replaced_method_relies_on():
    theirs, ours = set(dir(GRPOTrainer)), {name for name in vars(TAPOTrainer) if not name.startswith("__")}
    assert ours & theirs == {"_generate_and_score_completions"}
    assert list(inspect.signature(GRPOTrainer._generate_and_score_completions).parameters) == ["self", "inputs"]
    scored = list(inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters)
    assert scored[:6] == ["self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"]
    assert set(READ_BY_FORWARD) <= set(scored)
    assert list(inspect.signature(GRPOTrainer._load_from_checkpoint).parameters)[:2] == [
        "self",
        "resume_from_checkpoint",
    ]
    source = inspect.getsource(GRPOTrainer)
    for text in (
        "if advantages.dim() == 1:",  # one advantage for each token is taken as it is
        'output["old_per_token_logps"] = old_per_token_logps',
        'output["num_images"] = num_images',
        'self._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}',
    ):
        assert text in source
    for name in READ_BY_FORWARD:
        assert f'output["{name}"]' in source


# Runs as they are started


@pytest.fixture(scope="module")
def lent(tmp_path_factory):
    """Two clips, and a model of either family."""
    root = tmp_path_factory.mktemp("policies")
    squares(root / "data")
    return root, {family: brain(root, family) for family in ("qwen2_5_vl", "qwen3_vl")}


def weights(folder: Path) -> torch.Tensor:
    return torch.cat([value.flatten() for _, value in sorted(load_file(folder / "model.safetensors").items())])


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_the_command_takes_five_steps_in_either_family_and_the_term_acts(train_command, lent, family):
    root, models = lent
    out = root / f"run_{family}"
    config = settings("grpo", models[family], root / "data", out, policy={"tapo": {"weight": 0.1, "norm_every": 1}})
    done = train_command(config)
    assert (done.code, done.last) == (0, f"stage=grpo step=5 out={out}"), done.err
    log = read_log(out)
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5]
    for line in log:
        assert line["tapo/kept"] == 0.0
        assert line["reward_std"] == 0.0  # noise earns nothing, so that all of the gradient is the term's
        assert line["grad_norm"] == pytest.approx(line["tapo/grad_norm"], rel=1e-3)
        assert line["grad_norm"] > 1e-5
    assert not torch.equal(weights(out / "model"), weights(models[family]))
    learned = weights(out / "model")
    assert train_command(config).last == done.last  # nothing is left to do
    shutil.rmtree(out / "model")  # as if it had been ended before its model was written
    assert train_command(config).last == done.last
    assert torch.equal(weights(out / "model"), learned)
    other = train_command(config, "policy.tapo.weight=0.2")
    assert other.code == 2
    assert "holds a run with policy.tapo.weight=0.1, this one has 0.2" in other.err


def counted(terms, answer, expected) -> dict[str, float]:
    """Rewards that differ between answers of noise."""
    return {"reward": len(answer.text) % 5 / 4} | {term.name: 0.0 for term in terms}


def test_without_a_weight_the_trainer_is_trls_to_the_bit(train_command, lent, monkeypatch):
    root, models = lent
    monkeypatch.setattr("train.policy_training.earned", counted)

    def trained(name: str) -> torch.Tensor:
        out = root / name
        plan, policy = {"steps": 2, "batch": 4}, {"group": 4, "beta": 0.04}
        done = train_command(settings("grpo", models["qwen2_5_vl"], root / "data", out, plan=plan, policy=policy))
        assert done.code == 0, done.err
        assert any(line["reward_std"] > 0 for line in read_log(out))
        assert not [name for line in read_log(out) for name in line if name.startswith("tapo/")]
        return weights(out / "model")

    ours = trained("without")
    monkeypatch.setattr("train.answer_training.TAPOTrainer", GRPOTrainer)
    assert torch.equal(trained("theirs"), ours)
    assert not torch.equal(weights(models["qwen2_5_vl"]), ours)


def test_samples_of_one_frame_gain_nothing(train_command, lent):
    root, models = lent
    squares(root / "still", frames=0)
    policy = {"tapo": {"weight": 0.1, "corruption": "shuffle", "norm_every": 1}}
    out = root / "single"
    done = train_command(settings("grpo", models["qwen3_vl"], root / "still", out, plan={"steps": 1}, policy=policy))
    assert done.code == 0, done.err
    (line,) = read_log(out)
    assert [line[f"tapo/{name}"] for name in ("kl", "bonus", "clipped", "grad_norm", "kept")] == [0, 0, 0, 0, 1]
    assert line["grad_norm"] == 0.0


@pytest.mark.parametrize("lora", [0, 2])
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(train_command, lent, monkeypatch, lora):
    root, models = lent
    monkeypatch.setattr("train.policy_training.earned", counted)
    policy = {"lora": lora, "tapo": {"weight": 0.1, "corruption": "drop", "keep": 0.5}}

    def config(name: str) -> Path:
        out = root / f"{name}_{lora}"
        return settings("grpo", models["qwen2_5_vl"], root / "data", out, plan={"steps": 2}, policy=policy)

    assert train_command(config("whole"), f"previews={lora == 2}").code == 0
    assert train_command(config("halves"), "plan.minutes=1e-9").last.startswith("stage=grpo step=1 ")
    assert train_command(config("halves")).last.startswith("stage=grpo step=2 ")
    whole, halves = root / f"whole_{lora}", root / f"halves_{lora}"
    assert torch.equal(weights(whole / "model"), weights(halves / "model"))
    if lora:
        before, after = (load_file(place / "model.safetensors") for place in (models["qwen2_5_vl"], whole / "model"))
        changed = {name for name in after if not torch.equal(before[name], after[name])}
        assert changed
        assert all(name.endswith("_proj.weight") and "visual" not in name for name in changed)
        answers = [json.loads(line) for line in (whole / "previews/000002.jsonl").read_text().splitlines()]
        assert [set(each) for each in answers] == [{"row", "asked", "answer", "reward", *NAMES}] * 2
        assert (whole / "curves.png").exists()


def test_sft_learns_the_same_rows_and_grpo_begins_where_it_ended(train_command, lent):
    root, models = lent
    out = root / "sft"
    plan = {"steps": 3, "lr": 5e-3}
    done = train_command(settings("sft", models["qwen3_vl"], root / "data", out, plan=plan))
    assert (done.code, done.last) == (0, f"stage=sft step=3 out={out}"), done.err
    first, *_, last = read_log(out)
    assert last["loss"] < first["loss"] - 0.1
    record = json.loads((out / "model/training.json").read_text())
    assert (record["step"], record["config"]["stage"]) == (3, "sft")
    assert "trackgpt track VIDEO -m qtrack:FOLDER" in (out / "model/README.md").read_text()
    begun = settings("grpo", out / "model", root / "data", root / "after_sft", plan={"steps": 1})
    assert train_command(begun).code == 0


def in_few_words(count: int, query: Query, *_: object) -> list[dict]:
    """The question without its explanations, which are hundreds of tokens to a model that reads bytes."""
    return [{"role": "user", "content": [*[{"type": "image"}] * count, {"type": "text", "text": f"{query.known}"}]}]


def test_what_is_rewarded_is_said_more_often(train_command, lent, monkeypatch):
    root, models = lent
    monkeypatch.setattr("train.query_rows.messages", in_few_words)
    monkeypatch.setattr(
        "train.policy_training.earned",
        lambda terms, answer, _: {"reward": float(answer.text > "a")} | dict.fromkeys(NAMES, 0.0),
    )
    plan = {"steps": 20, "batch": 16, "lr": 1e-2}
    policy = {"group": 16, "tokens": 1, "tapo": {"weight": 0.01}}
    out = root / "learning"
    done = train_command(settings("grpo", models["qwen3_vl"], root / "data", out, plan=plan, policy=policy))
    assert done.code == 0, done.err
    rewards = [line["reward"] for line in read_log(out)]
    assert sum(rewards[:5]) / 5 < 0.7
    assert sum(rewards[-5:]) / 5 > 0.9


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["policy.group=3"], "plan.batch * plan.accumulate * processes is 2; wanted a multiple"),
        (["plan.zero=2"], "plan.zero=2: the stage grpo shards nothing"),
        (["plan.loss_weights.text=1"], "has one loss"),
        (["brain=''"], "wants a vision-language model to start from"),
        (["--dry-run"], "--dry-run: the stage grpo has none"),
        (["--plan"], "the stage grpo has no plan yet"),
        (["validate.kit=synthtrack"], "validate.kit: the stage grpo has none"),
        (["policy.frames=0"], "policy.frames=0: a question about one frame would say where its objects are"),
        (["policy.tapo.mode=penalty"], "policy.tapo.mode: `penalty` is none of advantage, loss"),
        (["policy.reward_weights.speed=1"], "`speed` is none of tags, format, boxes, motion"),
    ],
)
def test_a_run_that_cannot_be_is_refused_in_one_line(train_command, lent, given, said):
    root, models = lent
    done = train_command(settings("grpo", models["qwen2_5_vl"], root / "data", root / "refused"), *given)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_without_trl_the_command_says_what_to_install(train_command, lent, monkeypatch):
    root, models = lent
    monkeypatch.setitem(sys.modules, "train.answer_training", None)
    done = train_command(settings("grpo", models["qwen2_5_vl"], root / "data", root / "refused"))
    assert done.code == 2
    assert "needs TRL" in done.err
    assert "pip install 'trackgpt[rl]'" in done.err


# Minutes


@pytest.mark.slow
def test_two_processes_share_the_answers_and_write_once(lent):
    root, models = lent
    tapo = {"weight": 0.1, "norm_every": 1}
    out = root / "two"
    config = settings("grpo", models["qwen2_5_vl"], root / "data", out, plan={"steps": 3}, policy={"tapo": tapo})
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "train"]
    done = subprocess.run([*launch, str(config), "policy.group=4"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.splitlines() == [f"stage=grpo step=3 out={out}"]
    log = read_log(out)
    assert [line["step"] for line in log] == [1, 2, 3]
    # A group of four is answered by two processes, whose gradients differ: the norm of their mean is below the mean.
    assert all(0 < line["grad_norm"] < line["tapo/grad_norm"] for line in log)
    assert json.loads((out / "model/training.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_eight_samples_are_learned_to_a_mean_reward_above_nine_tenths(train_command, lent, monkeypatch):
    root, models = lent
    squares(root / "eight", clips=8, frames=1)
    monkeypatch.setattr("train.query_rows.messages", in_few_words)
    plan = {"steps": 120, "batch": 8, "lr": 5e-3, "warmup": 10, "decay": 0.5, "log_every": 10}
    assert train_command(settings("sft", models["qwen2_5_vl"], root / "eight", root / "learned", plan=plan)).code == 0
    plan = {"steps": 3, "batch": 16, "lr": 1e-4}
    policy = {"tokens": 110, "temperature": 0.3, "tapo": {"weight": 0.01, "norm_every": 1}}
    begun = settings("grpo", root / "learned/model", root / "eight", root / "rewarded", plan=plan, policy=policy)
    assert train_command(begun).code == 0
    log = read_log(root / "rewarded")
    assert min(line["reward"] for line in log) > 0.9  # two answers to each of the eight
    assert all(line["tapo/grad_norm"] > 0 for line in log)
