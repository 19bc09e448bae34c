"""SAM's ViT gives the same embedding with every implementation of its attention; the package runs SDPA."""

import copy

import pytest
import torch
from tiny_models import TINY_VIT, tiny_trackgpt
from torch.nn.attention import flex_attention as torchs

from eval.speed import attention
from eval.speed.attention import KINDS, TOLERANCE, measure, use_attention
from eval.speed.bench import Workload
from trackgpt.errors import UsageError
from trackgpt.hub import load_model
from trackgpt.perception.encoders import ConvEncoder, SamViT

# Four cells a side, windows of three: the first layer pads, the second sees every cell. What FlexAttention computes is
# tested without its compiler, which takes longer than everything else here together.
PIXELS = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def uncompiled(monkeypatch):
    monkeypatch.setattr(attention, "compiled_flex", lambda: torchs.flex_attention)


@pytest.fixture(scope="module")
def vit():
    encoder = SamViT(TINY_VIT)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in encoder.parameters():
            if value.dim() > 1:
                value.normal_(0, value[0].numel() ** -0.5, generator=generator)
        for layer in encoder.vision_encoder.layers:
            layer.attn.rel_pos_h.normal_(0, 1, generator=generator)
            layer.attn.rel_pos_w.normal_(0, 1, generator=generator)
    return encoder.eval()


def embedding(encoder, kind):
    use_attention(encoder, kind)
    return encoder(PIXELS).embedding


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "eager"])
def test_every_way_gives_the_embedding_of_plain_matrices(vit, kind, uncompiled):
    plain = embedding(vit, "eager")
    assert (embedding(vit, kind) - plain).abs().max() <= TOLERANCE * plain.abs().max()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", ["rel_pos_h", "rel_pos_w"])
def test_both_axes_of_the_positions_are_seen(vit, kind, axis, uncompiled):
    blind = copy.deepcopy(vit)
    for layer in blind.vision_encoder.layers:
        torch.nn.init.zeros_(getattr(layer.attn, axis))
    seen = embedding(vit, kind)
    assert (embedding(blind, kind) - seen).abs().max() > 0.01 * seen.abs().max()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
def test_flex_attention_compiled_gives_it_too(vit):
    plain = embedding(vit, "eager")
    assert (embedding(vit, "flex") - plain).abs().max() <= TOLERANCE * plain.abs().max()


def test_weights_have_the_same_names_whatever_computes_with_them(vit):
    names = {}
    for kind in KINDS:
        use_attention(vit, kind)
        names[kind] = list(vit.state_dict())
    assert all(found == names["eager"] for found in names.values())


def classes(module):
    return {type(part) for part in module.modules() if isinstance(part, KINDS["eager"])}


def test_the_package_runs_sdpa(tmp_path):
    tiny_trackgpt(encoder="sam_vit").save_pretrained(tmp_path)
    assert classes(load_model(tmp_path, "cpu").segmenter) == {KINDS["sdpa"]}


def test_an_encoder_without_such_attention_is_left_alone():
    encoder = ConvEncoder([4, 4, 4, 4], [1, 1, 1, 1]).eval()
    before = encoder(PIXELS).embedding
    use_attention(encoder, "flex")
    assert torch.equal(encoder(PIXELS).embedding, before)


# speed: that it runs, never how fast


@pytest.mark.parametrize(("dtype", "more"), [(torch.float32, []), (torch.bfloat16, ["whole_ratio"])], ids=str)
def test_ways_are_timed_side_by_side_and_what_cannot_run_is_not_measured(monkeypatch, dtype, more):
    def no_compiler():
        raise RuntimeError("no C++ compiler\nand a long story")

    monkeypatch.setattr(attention, "compiled_flex", no_compiler)
    monkeypatch.setattr(attention, "inference_dtype", lambda wanted, device: dtype)
    part = measure(Workload(pairs=1, vit="tiny"))
    rows = {line.quantity: line for line in part.lines}
    assert rows["eager / flex"].how == "not measured: no C++ compiler"
    assert len(rows["eager / flex"].values) == 0
    assert list(part.last) == ["sdpa_ratio", "augmented_ratio", *more]
    assert all(value > 0 for value in part.last.values())


def test_an_unknown_size_is_refused():
    with pytest.raises(UsageError, match="choose from tiny, b, l, h"):
        measure(Workload(vit="xl"))
