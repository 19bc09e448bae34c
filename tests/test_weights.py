"""Loading needs the memory of what is loaded: nothing is random first, nothing is there twice."""

import pytest
import torch
from foreign_checkpoints import llava
from safetensors.torch import load_file, save_file
from test_sam_parity import build_sam
from tiny_models import dtypes, frame, tiny_trackgpt
from torch import nn
from tracks import Track

from trackgpt.errors import ModelError
from trackgpt.hub import load_model, load_reported, pair
from trackgpt.perception.checkpoints import load_segmenter, segmenter_config
from trackgpt.planning.tracing import LiveBytes
from trackgpt.reasoners.lora import merge_lora
from trackgpt.systems.trackgpt import TrackGPT
from trackgpt.systems.trackgpt_tuned import save_tuned
from trackgpt.types import Prompt
from trackgpt.weights import checked, give, read_lazily, start_anew, unfilled
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


def test_an_adapter_with_nan_or_with_integers_is_refused(tmp_path):
    tiny_trackgpt("conv", tied=True).save_pretrained(tmp_path / "base")
    model = assemble(str(tmp_path / "base"), "", False, 0)
    save_tuned(model, tmp_path / "small", str(tmp_path / "base"))
    file, name = tmp_path / "small/tuned.safetensors", "brain.projection.0.weight"
    whole = load_file(file)
    load_reported(tmp_path / "small")
    for value, said in (
        (torch.full_like(whole[name], float("nan")), "has values that are NaN or infinite"),
        (whole[name].to(torch.int32), "is stored as int32"),
    ):
        save_file(whole | {name: value}, file)
        with pytest.raises(ModelError, match=f"^MD02: .*tuned.safetensors: the weight {name} {said}"):
            load_reported(tmp_path / "small")


def test_doctor_finds_weights_that_are_nan(tmp_path, command):
    tiny_trackgpt("conv", tied=True).save_pretrained(tmp_path / "model")
    file, name = tmp_path / "model/model.safetensors", "brain.projection.0.weight"
    whole = load_file(file)
    save_file(whole | {name: torch.full_like(whole[name], float("nan"))}, file)
    done = command("doctor", "-m", tmp_path / "model")
    assert done.code == 4
    assert f"FAILED: MD02: {file}: the weight {name} has values that are NaN or infinite" in done.out


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_weight_is_of_finite_floating_numbers(dtype):
    fine = torch.tensor([[0.0, -1e4], [1e4, 1e-4]], dtype=dtype)
    assert checked("file", "a.weight", fine) is fine
    assert checked("file", "a.weight", fine.T) is not None
    assert checked("file", "none.weight", fine[:0]).numel() == 0
    for value in (float("nan"), float("inf"), -float("inf")):
        wrong = fine.clone()
        wrong[1, 0] = value
        with pytest.raises(ModelError, match=r"^MD02: file: the weight a\.weight has values that are NaN or infinite"):
            checked("file", "a.weight", wrong)


def test_a_weight_of_another_kind_is_refused():
    for value in (
        torch.zeros(2, dtype=torch.int64),
        torch.zeros(2, dtype=torch.bool),
        torch.zeros(2, dtype=torch.cfloat),
    ):
        with pytest.raises(ModelError, match="^MD02: file: the weight w is stored as .*, wanted floating numbers"):
            checked("file", "w", value)
    with pytest.raises(ModelError, match="^MD02: file: the weight w is stored as float32, wanted integers"):
        checked("file", "w", torch.zeros(2), floating=False)
    with pytest.raises(ModelError, match="^MD06: file: the weight w has 8 bits"):
        checked("file", "w", torch.zeros(2).to(torch.float8_e4m3fn))


def test_looking_at_a_weight_takes_no_memory():
    value = torch.ones(1000, 1000)
    with LiveBytes() as live:
        checked("file", "w", value)
    assert live.peak < 1000


def test_an_index_that_names_nothing_and_a_file_of_an_unknown_type_are_one_line(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match="^MD02: .*not an index of shards"):
        read_lazily(tmp_path, standard=True)
    header = b'{"w":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}'
    (tmp_path / "odd.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(ModelError, match="^MD0[26]: .*odd.safetensors") as caught:
        read_lazily(tmp_path / "odd.safetensors")
    assert "\n" not in str(caught.value)


def test_an_unfilled_layer_takes_its_numbers_once(tmp_path):
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
