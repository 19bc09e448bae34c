"""Every family of brains learns: the real stage, the real command, LoRA, recomputed activations."""

from pathlib import Path

import foreign_checkpoints as foreign
import pytest
import torch
from small_sets import write_sets
from test_sam_parity import build_sam
from tiny_runs import plan
from torch import nn

from trackgpt.errors import UsageError
from trackgpt.hub import load_reported
from train.__main__ import run as train_config
from train.assemble import assemble, recompute
from train.config import DataConfig, Kind, TrainConfig
from train.tracking import TrackingStage

CPU = torch.device("cpu")
QKV = 4  # two layers, q_proj and v_proj


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> dict[str, str]:
    """Each family's brain with a SAM, as a configuration names them."""
    place = tmp_path_factory.mktemp("models")
    torch.save(build_sam().state_dict(), place / "sam.pth")
    for kind, write in foreign.FAMILIES.items():
        write(place / kind)
    return {kind: f"{place / kind}+{place / 'sam.pth'}" for kind in foreign.FAMILIES}


def data(root: Path, name: str = "refer-youtube-vos", frames: int = 2) -> DataConfig:
    return DataConfig(str(root), mixture={"all": Kind(1, [name])}, frames=frames, turns=1)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("kind", foreign.FAMILIES)
def test_every_family_takes_two_steps_of_the_recipe_and_is_exported(kind, bf16, names, root, tmp_path):
    steps = plan(steps=2, batch=2, accumulate=1, checkpointing=True, bf16=bf16)
    train_config(TrainConfig("tracking", str(tmp_path), names[kind], data=data(root), previews=False, plan=steps))
    before, after = (
        model.state_dict() for model in (load_reported(names[kind])[0], load_reported(tmp_path / "model")[0])
    )
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    projections = {name for name in moved if name.endswith(("q_proj.weight", "v_proj.weight")) and "brain" in name}
    assert len(projections) == QKV
    frozen = [name for name in moved if name.startswith("brain.llava.") and name not in projections]
    tables = ("embed_tokens", "lm_head")
    assert all(name.endswith(".weight") and any(table in name for table in tables) for name in frozen), frozen
    assert not any(name.startswith("segmenter.image_encoder") for name in moved)
    assert any(name.startswith("segmenter.mask_decoder") for name in moved)


@pytest.mark.parametrize("kind", foreign.FAMILIES)
def test_every_family_overfits_one_sample(kind, names, root):
    torch.manual_seed(0)  # of LoRA and its dropout
    model = assemble(names[kind], "", False, 0)
    recompute(model)
    tracking = TrackingStage(model, data(root, "refcoco", frames=1), CPU)
    module = nn.ModuleList(tracking.modules()).train()
    learned = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=1e-2)
    costs = []
    for _ in range(40):
        losses, _ = tracking.losses([tracking.sample(0)])
        costs.append({name: value.item() for name, value in losses.items()})
        optimiser.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimiser.step()
    assert costs[-1]["text"] < 0.8 * costs[0]["text"]
    assert costs[-1]["mask"] < 0.1 * costs[0]["mask"]


@pytest.mark.parametrize("kind", foreign.FAMILIES)
def test_recomputed_activations_give_the_gradients_of_kept_ones(kind, names, root):
    """A layer of the language model begins once, or once more in the backward pass."""
    grads, calls = [], []
    for again in (False, True):
        torch.manual_seed(0)  # of LoRA and its dropout
        model = assemble(names[kind], "", False, 0).train()
        if again:
            recompute(model)
        ran = []
        model.brain.language.layers[0].mlp.register_forward_pre_hook(lambda *_, ran=ran: ran.append(1))
        tracking = TrackingStage(model, data(root), CPU)
        losses, _ = tracking.losses([tracking.sample(0)])
        sum(losses.values()).backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        calls.append(len(ran))
    kept, recomputed = grads
    assert calls == [1, 2]
    assert kept.keys() == recomputed.keys()
    assert all(torch.allclose(kept[name], recomputed[name], atol=1e-6) for name in kept)


def test_only_a_tower_of_convolutions_starts_an_encoder_of_convolutions(names):
    with pytest.raises(UsageError, match=r"encoder_from_tower: tower and encoder are CLIPVisionModel and SamViT"):
        assemble(names["llava"], "", True, 0)
