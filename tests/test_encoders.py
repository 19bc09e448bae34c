"""Encoders: what folding keeps, what the maps' shapes are, what is frozen and what trains."""

import copy

import numpy as np
import pytest
import torch
from tiny_models import TINY_VIT
from torch import nn

from trackgpt.config import EncoderConfig
from trackgpt.errors import UsageError
from trackgpt.perception.encoders import (
    PIXEL_MEAN,
    PIXEL_STD,
    ConvEncoder,
    ConvUnit,
    Features,
    SamViT,
    build_encoder,
    can_pack,
    normalise,
)


def lived_in(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every batch normalisation statistics and weights as far from the identity as training leaves them."""
    generator = torch.Generator().manual_seed(seed)
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_(0, 0.5, generator=generator)
        norm.running_var.uniform_(0.2, 3, generator=generator)
        nn.init.normal_(norm.weight, 1, 0.4, generator=generator)
        nn.init.normal_(norm.bias, 0, 0.4, generator=generator)
    return module.eval()


def conv_encoder(out_channels: int | None = 20) -> ConvEncoder:
    torch.manual_seed(0)
    return lived_in(ConvEncoder([6, 8, 12, 16], [1, 2, 3, 2], out_channels))


def all_maps(features: Features) -> list[torch.Tensor]:
    return [features.embedding, *features.fine]


# Pixels


def test_the_mean_colour_becomes_zero_and_one_deviation_above_it_one():
    mean, std = torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1), torch.tensor(PIXEL_STD).view(1, 3, 1, 1)
    assert normalise(mean).abs().max() == 0
    assert torch.allclose(normalise(mean + std), torch.ones(1, 3, 1, 1), atol=1e-5)


def test_bytes_and_the_same_floats_give_the_same_pixels():
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), np.uint8))
    assert normalise(frames).dtype == torch.float32
    assert torch.equal(normalise(frames), normalise(frames.double()))


# The convolutional encoder


def test_maps_stand_at_strides_4_8_and_16_of_any_square():
    encoder = conv_encoder()
    for side in (32, 64, 112):
        features = encoder(torch.randn(2, 3, side, side))
        assert features.embedding.shape == (2, 20, side // 16, side // 16)
        assert features.fine[0].shape == (2, 8, side // 4, side // 4)
        assert features.fine[1].shape == (2, 12, side // 8, side // 8)


def test_without_a_neck_the_embedding_is_the_last_stage():
    assert conv_encoder(None)(torch.randn(1, 3, 32, 32)).embedding.shape == (1, 16, 2, 2)


def test_every_stage_opens_with_a_stride_and_holds_the_units_asked_for():
    stages = conv_encoder().stages
    assert [len(stage) for stage in stages] == [1, 2, 3, 2]
    assert [[unit.conv.stride[0] for unit in stage] for stage in stages] == [[2], [2, 1], [2, 1, 1], [2, 1]]
    assert [[unit.residual for unit in stage] for stage in stages][2] == [False, True, True]


def test_weights_keep_the_names_that_saved_models_have():
    names = set(conv_encoder().state_dict())
    norm = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    assert {f"stages.0.0.norm.{part}" for part in norm} | {"stages.0.0.conv.weight"} == {
        name for name in names if name.startswith("stages.0.")
    }
    assert {name for name in names if not name.startswith("stages.")} == {"neck.weight", "neck.bias"}


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(5, 7, 2), (5, 7, 1), (6, 6, 2), (6, 6, 1)])
def test_a_folded_unit_computes_the_same(inputs, outputs, stride):
    torch.manual_seed(0)
    unit = lived_in(ConvUnit(inputs, outputs, stride))
    x = torch.randn(3, inputs, 9, 9)
    before = unit(x)
    unit.fold()
    assert unit.norm is None
    assert unit.conv.bias is not None
    assert (unit(x) - before).abs().max() <= 1e-5
    assert before.max() > 1


def test_a_residual_unit_adds_its_input_folded_or_not():
    unit = lived_in(ConvUnit(4, 4))
    nn.init.zeros_(unit.conv.weight)
    nn.init.zeros_(unit.norm.bias)
    unit.norm.running_mean.zero_()
    x = torch.randn(1, 4, 5, 5)
    assert torch.equal(unit(x), x.relu())
    unit.fold()
    assert torch.equal(unit(x), x.relu())


def test_a_folded_encoder_computes_the_same_maps():
    encoder, pixels = conv_encoder(), torch.randn(2, 3, 64, 64)
    before = all_maps(encoder(pixels))
    encoder.fold()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    for old, new in zip(before, all_maps(encoder(pixels))):
        assert (new - old).abs().max() <= 1e-5 * old.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_encoder_computes_the_same_maps_of_any_size_and_number(dtype):
    if not can_pack(dtype):
        pytest.skip(f"this machine's PyTorch does not pack kernels of {dtype}")
    encoder = conv_encoder().to(dtype)
    encoder.fold()
    packed = copy.deepcopy(encoder)
    packed.pack(64)
    units = [module for module in packed.modules() if isinstance(module, ConvUnit)]
    assert all(unit.packed and unit.conv.weight.is_mkldnn for unit in units)
    assert sum(p.nbytes for p in packed.parameters()) == sum(p.nbytes for p in encoder.parameters())
    with torch.no_grad():
        for shape in ((1, 3, 64, 64), (4, 3, 64, 64), (2, 3, 96, 96)):
            pixels = torch.randn(shape).to(dtype)
            for old, new in zip(all_maps(encoder(pixels)), all_maps(packed(pixels))):
                assert (new - old).abs().max() <= (1e-6 if dtype == torch.float32 else 1e-2) * old.abs().max()


def test_where_kernels_cannot_be_packed_they_are_used_as_they_lie(monkeypatch):
    encoder, pixels = conv_encoder(), torch.randn(1, 3, 64, 64)
    encoder.fold()
    before = all_maps(encoder(pixels))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    encoder.pack(64)
    assert all(torch.equal(old, new) for old, new in zip(before, all_maps(encoder(pixels))))


def test_a_unit_that_is_not_folded_is_not_packed():
    with pytest.raises(ValueError, match="packed once, after it is folded"):
        ConvUnit(3, 4).pack(16)


def test_folding_twice_is_folding_once():
    encoder, pixels = conv_encoder(), torch.randn(1, 3, 32, 32)
    encoder.fold()
    weights, before = encoder.state_dict(), all_maps(encoder(pixels))
    weights = {name: value.clone() for name, value in weights.items()}
    encoder.fold()
    assert all(torch.equal(value, weights[name]) for name, value in encoder.state_dict().items())
    assert all(torch.equal(old, new) for old, new in zip(before, all_maps(encoder(pixels))))


def test_a_folded_encoder_no_longer_minds_training_mode():
    encoder, pixels = conv_encoder(), torch.randn(1, 3, 32, 32)
    encoder.fold()
    assert torch.equal(encoder.eval()(pixels).embedding, encoder.train()(pixels).embedding)


def test_every_weight_of_the_convolutional_encoder_trains():
    encoder = conv_encoder().train()
    features = encoder(torch.randn(2, 3, 32, 32))
    sum(value.square().mean() for value in all_maps(features)).backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_a_frame_does_not_depend_on_the_other_frames_of_its_batch():
    encoder, pixels = conv_encoder(), torch.randn(3, 3, 32, 32)
    alone = torch.cat([encoder(pixel[None]).embedding for pixel in pixels])
    assert (encoder(pixels).embedding - alone).abs().max() <= 1e-5


# Features


def test_one_frame_is_repeated_for_several_targets():
    features = conv_encoder()(torch.randn(2, 3, 32, 32))
    chosen = features.of(torch.tensor([1, 1, 0]))
    for old, new in zip(all_maps(features), all_maps(chosen)):
        assert torch.equal(new, torch.stack([old[1], old[1], old[0]]))


def test_features_without_fine_maps_stay_without():
    assert Features(torch.randn(1, 4, 2, 2)).of(torch.tensor([0, 0])).fine is None


# SAM's ViT


def test_the_vit_is_frozen_and_has_no_fine_maps():
    encoder = SamViT(TINY_VIT)
    pixels = torch.randn(2, 3, 64, 64, requires_grad=True)
    features = encoder(pixels)
    assert features.embedding.shape == (2, 32, 4, 4)
    assert features.fine is None
    assert not features.embedding.requires_grad
    assert not any(p.requires_grad for p in encoder.parameters())


def test_folding_leaves_the_vit_as_it_is():
    encoder, pixels = SamViT(TINY_VIT), torch.randn(1, 3, 64, 64)
    before = encoder(pixels).embedding
    encoder.fold()
    assert torch.equal(encoder(pixels).embedding, before)


# The choice


def test_a_configuration_names_its_encoder():
    conv = build_encoder(EncoderConfig(kind="conv", channels=[4, 4, 4, 4], blocks=[1, 1, 1, 1]), 10)
    assert isinstance(conv, ConvEncoder)
    assert conv.neck.out_channels == 10
    vit = build_encoder(EncoderConfig(kind="sam_vit", sam=TINY_VIT), 32)
    assert isinstance(vit, SamViT)
    assert len(vit.vision_encoder.layers) == 2


def test_an_unknown_encoder_is_refused_with_the_choices():
    with pytest.raises(UsageError, match="`resnet` is not an encoder; choose sam_vit, sam2 or conv"):
        build_encoder(EncoderConfig(kind="resnet"), 32)
