"""Loading needs the memory of what is loaded: nothing is random first, nothing is there twice."""

import pytest
import torch
from foreign_checkpoints import llava
from test_sam_parity import build_sam
from tiny_models import dtypes, frame, tiny_trackgpt
from torch import nn
from tracks import Track

from trackgpt.hub import load_model, load_reported, pair
from trackgpt.perception.checkpoints import load_segmenter, segmenter_config
from trackgpt.planning.tracing import LiveBytes
from trackgpt.reasoners.lora import merge_lora
from trackgpt.systems.trackgpt import TrackGPT
from trackgpt.systems.trackgpt_tuned import save_tuned
from trackgpt.types import Prompt
from trackgpt.weights import give, read_lazily, start_anew, unfilled
from train.assemble import assemble


def held(model):
    """Bytes of all parameters, and of the buffers that are saved with them."""
    return sum({id(v): v.nbytes for v in model.state_dict(keep_vars=True).values()}.values())


def buffers_made_anew(model):
    """Bytes of the buffers that no file holds."""
    kept = {id(v) for v in model.state_dict(keep_vars=True).values()}
    return sum(v.nbytes for v in model.buffers() if id(v) not in kept)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_whole_model_is_loaded_in_its_own_memory_and_little_more(tmp_path, tied, dtype):
    tiny_trackgpt("clip", "sam_vit", tied=tied).save_pretrained(tmp_path)
    with LiveBytes() as live:
        model = TrackGPT.from_pretrained(tmp_path, dtype)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert not any(p.is_meta for p in [*model.parameters(), *model.buffers()])
    largest = max(p.nbytes for p in model.parameters())
    assert live.peak <= 1.1 * held(model) + buffers_made_anew(model) + 4 * largest


def test_bfloat16_is_what_rounding_the_float32_model_gives_and_frequencies_stay_float32(tmp_path):
    tiny_trackgpt("clip", "sam_vit").save_pretrained(tmp_path)
    half, whole = (TrackGPT.from_pretrained(tmp_path, dtype) for dtype in (torch.bfloat16, torch.float32))
    for name, value in whole.state_dict().items():
        assert torch.equal(half.state_dict()[name], value.to(torch.bfloat16))
    frequencies = [b for name, b in half.named_buffers() if name.endswith("inv_freq")]
    assert {b.dtype for b in frequencies} == {torch.float32}


def test_a_pair_and_a_small_form_are_loaded_in_the_dtype_that_is_wanted(tmp_path):
    torch.save(build_sam().state_dict(), tmp_path / "sam.pth")
    llava(tmp_path / "brain")
    name = pair(tmp_path / "brain", tmp_path / "sam.pth")
    model = assemble(name, "", False, 0)
    save_tuned(model, tmp_path / "small", name)
    for place in (name, tmp_path / "small"):
        loaded = load_model(place, "cpu", dtype="bfloat16")
        assert dtypes(loaded) == {torch.bfloat16}
        assert Track(loaded.tracker()).look(frame(0), Prompt("track it")).scores.dtype == "float32"
    merge_lora(model.brain)
    decoder = held(model.segmenter) - held(model.segmenter.image_encoder)
    assert held(loaded) == (held(model) - decoder) / 2 + decoder


def test_what_no_sam_has_starts_at_random_and_not_as_whatever_lay_in_memory(tmp_path):
    torch.save(build_sam().state_dict(), tmp_path / "sam.pth")
    torch.manual_seed(3)
    one, _ = load_segmenter(tmp_path / "sam.pth")
    torch.manual_seed(3)
    two, _ = load_segmenter(tmp_path / "sam.pth")
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
    adapter = torch.cat([p.flatten() for p in one.mask_decoder.adapter.parameters()])
    assert 0.05 < adapter.std() * one.config.decoder.hidden_size**0.5 < 1
    assert segmenter_config(tmp_path / "sam.pth") == one.config


def test_weights_can_be_trained_and_the_file_may_go(tmp_path):
    tiny_trackgpt("conv", tied=True).save_pretrained(tmp_path)
    model, _ = load_reported(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    frozen = "segmenter.shared_image_embedding.positional_embedding"
    assert all(p.requires_grad for name, p in model.named_parameters() if name != frozen)
    assert model.brain.llava.lm_head.weight is model.brain.llava.get_input_embeddings().weight
    sum(p.float().sum() for p in model.parameters()).backward()


def test_an_unfilled_layer_takes_its_numbers_once(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, tmp_path / "layer.safetensors")
    with unfilled():
        layer = nn.Linear(3, 2)
    assert layer.weight.is_meta
    file = tmp_path / "layer.safetensors"
    weights = read_lazily(file)
    assert {name: lazy.shape for name, lazy in weights.items()} == {"weight": (2, 3), "bias": (2,)}
    give(layer, ((name, lazy.make()) for name, lazy in weights.items()), torch.bfloat16, file)
    assert layer(torch.ones(1, 3, dtype=torch.bfloat16)).tolist() == [[3, 3]]
    with unfilled():
        other = nn.Sequential(nn.Linear(3, 2))
    start_anew(other, torch.float32)
    assert 0 < other[0].weight.abs().max() <= 3**-0.5
