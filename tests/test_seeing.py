"""What a vision tower learns from: mosaics and windows, with labels that a reader can check; and merged cells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import tiny_brain_config, tiny_tokenizer, tiny_trackgpt

from trackgpt.config import TrackGPTConfig
from trackgpt.errors import UsageError
from trackgpt.reasoners.brain import Brain
from trackgpt.synthtrack.catalog import HELD_OUT_PAIRS
from trackgpt.systems.trackgpt import TrackGPT
from train.codes import CATEGORY_NAMES, COLOUR_NAMES
from train.config import SeeingConfig, Shape
from train.engine import StageModule
from train.enlarge import enlarge_tower
from train.mosaics import DrawnSquare, cells_of, mosaic, ordinary, shares_of, token_labels, window
from train.seeing import SeeingStage

CPU = torch.device("cpu")


def square_picture() -> DrawnSquare:
    """64 pixels; thing 1 (category 3, colour 2) fills the upper left 32, thing 2 a sixteenth of the last cell of 16."""
    ids = np.zeros((64, 64), np.uint8)
    ids[:32, :32] = 1
    ids[48:52, 48:52] = 2
    boxes = np.array([[0, 0, 0.5, 0.5], [0.75, 0.75, 0.8125, 0.8125]], np.float32)
    frame = np.zeros((64, 64, 3), np.uint8)
    return DrawnSquare(frame, ids, np.array([3, 5]), np.array([2, 4]), boxes, (1.0, 1.0))


def test_a_cell_is_named_after_the_thing_that_fills_most_of_it_from_15_percent_on() -> None:
    shown = cells_of(square_picture(), 4)
    assert (shown[:2, :2] == 0).all()
    assert (shown[2:] == -1).all()
    assert (shown[:, 2:] == -1).all()
    assert shares_of(square_picture().ids, 2, 4)[-1] == pytest.approx(1 / 16)


def test_a_token_carries_the_box_and_the_region_of_the_whole_thing() -> None:
    labels = token_labels(square_picture(), 4)
    assert labels["category"][1, 1] == 3
    assert labels["colour"][1, 1] == 2
    assert labels["box"][1, 1].tolist() == [0, 0, 0.5, 0.5]
    # The thing's middle is at a quarter of the square, in the first of nine regions; cell 1, 1 alone is there as well.
    assert labels["region"][:2, :2].tolist() == [[0, 0], [0, 0]]
    assert labels["region"][3, 3] == -1
    assert np.isnan(labels["box"][3, 3]).all()


def test_a_window_keeps_the_boxes_of_the_whole_picture() -> None:
    part = window(square_picture(), (16, 16), 32)
    assert part.frame.shape == (32, 32, 3)
    assert (part.ids[:16, :16] == 1).all()
    assert part.boxes.tolist() == square_picture().boxes.tolist()


def test_labels_of_an_unplaced_picture_know_names_and_no_places() -> None:
    labels = token_labels(square_picture(), 4, placed=False)
    assert labels["category"][0, 0] == 3
    assert (labels["region"] == -1).all()
    assert np.isnan(labels["box"]).all()


def test_a_mosaic_shows_many_things_of_the_train_split_and_is_the_same_for_the_same_seed() -> None:
    shown = mosaic(5, 64, (0.3, 0.35), full=True)
    again = mosaic(5, 64, (0.3, 0.35), full=True)
    assert (shown.frame == again.frame).all()
    assert len(np.unique(shown.ids)) > 6  # an ordinary scene has eight things at most, most have fewer
    pairs = {
        (CATEGORY_NAMES[c], COLOUR_NAMES[k])
        for seed in range(12)
        for picture in [mosaic(seed, 32, (0.2, 0.3))]
        for c, k in zip(picture.category, picture.colour, strict=True)
    }
    assert len(pairs) > 100
    assert not pairs & set(HELD_OUT_PAIRS)


def test_boxes_of_an_ordinary_frame_hold_the_things_pixels() -> None:
    (picture,) = ordinary(3, 64, 1)
    for row, box in enumerate(picture.boxes):
        ys, xs = np.nonzero(picture.ids == row + 1)
        if len(xs):
            assert box[0] * 64 - 1.5 <= xs.min()
            assert xs.max() <= box[2] * 64 + 1.5
            assert box[1] * 64 - 1.5 <= ys.min()
            assert ys.max() <= box[3] * 64 + 1.5


def merging_model(side: int = 64, merging: int = 2) -> TrackGPT:
    """A tiny TrackGPT whose tower merges 2 x 2 cells of 16 pixels into a token."""
    base = tiny_trackgpt("conv", tied=True, width=128)
    return enlarge_tower(base, side, merging).eval()


def test_a_merging_tower_has_a_quarter_of_the_tokens() -> None:
    model = merging_model(64, 2)
    assert model.brain.family.image_tokens == 4
    frames = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    tokens = model.brain.vision(model.brain.preprocess(frames)).last_hidden_state
    assert tokens.shape == (2, 4, model.brain.vision.config.hidden_size)


def test_an_enlarged_tower_begins_as_the_mean_of_four_cells_up_to_its_normalisation() -> None:
    tower = merging_model(64, 2).brain.vision
    first = tower.merging[0].conv.weight
    each = torch.arange(len(first))
    assert first[each, each, 1:, 1:].mean().item() == pytest.approx(0.25, abs=0.02)
    assert (tower.merging[1].norm.weight == 0).all()  # the later ones hand on what they get


def test_a_whole_square_tells_its_cells_of_all_of_it_and_a_window_does_not() -> None:
    tower = merging_model(64, 2).brain.vision
    maps = torch.rand(1, tower.config.hidden_size, 4, 4)
    part = torch.rand(1, tower.config.hidden_size, 2, 2)
    places = torch.zeros(1, 4, tower.config.hidden_size)
    with torch.no_grad():
        before = tower.read(maps, tower.position_embedding), tower.read(part, places)
        tower.context.bias += 1
        after = tower.read(maps, tower.position_embedding), tower.read(part, places)
    assert not torch.allclose(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_what_was_learned_comes_along_and_positions_are_interpolated() -> None:
    base = tiny_trackgpt("conv", tied=True, width=128)
    grown = enlarge_tower(base, 128, 1)
    old, new = base.state_dict(), grown.state_dict()
    moved = [name for name in old if not name.endswith("position_embedding")]
    assert all(torch.equal(old[name], new[name]) for name in moved)
    assert grown.brain.config.image_side == 128
    assert grown.brain.vision.position_embedding.shape[1] == 64
    assert enlarge_tower(grown, 128, 1) is grown


def test_only_convolutions_that_were_not_merged_before_are_enlarged() -> None:
    with pytest.raises(UsageError, match="cannot be enlarged"):
        enlarge_tower(tiny_trackgpt("clip"), 128, 1)
    with pytest.raises(UsageError, match="merges cells already"):
        enlarge_tower(merging_model(64, 2), 128, 3)


def test_a_merging_tower_computes_the_same_when_folded_and_when_read_back(tmp_path) -> None:
    model = merging_model(64, 2)
    for unit in model.brain.vision.merging:  # statistics and scales that are not those of a new layer
        unit.norm.running_mean.normal_()
        unit.norm.running_var.uniform_(0.5, 2)
        unit.norm.weight.data.uniform_(0.5, 1.5)
    frame = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    pixels = model.brain.preprocess(frame[None])
    before = model.brain.vision(pixels).last_hidden_state
    model.save_pretrained(tmp_path)
    again = TrackGPT.from_pretrained(tmp_path)
    assert torch.equal(again.brain.vision(pixels).last_hidden_state, before)
    folded = again.fold().brain.vision(pixels).last_hidden_state
    assert torch.allclose(folded, before, atol=1e-4)
    assert torch.allclose(again.pack().brain.vision(pixels).last_hidden_state, before, atol=1e-4)


def seeing_stage(**fields) -> SeeingStage:
    return SeeingStage(merging_model(128, 2), Shape(side=128), SeeingConfig(**fields), CPU)


def test_a_window_gets_the_positions_of_its_place_in_the_whole_grid() -> None:
    stage = seeing_stage(window=64)
    grid = torch.arange(64.0).reshape(1, 64, 1).expand(1, 64, stage.tower.config.hidden_size)
    stage.tower.position_embedding = torch.nn.Parameter(grid.clone())
    corner = torch.tensor([[2, 4]])
    at = stage.positions(corner, 4)[0, :, 0]
    assert at.tolist() == [8 * y + x for y in range(2, 6) for x in range(4, 8)]


@pytest.mark.parametrize("fields", [{"window": 64, "mosaics": 0.5}, {"hold": True, "mosaics": 0.5}])
def test_the_stage_teaches_the_tower_and_holds_the_words(fields: dict) -> None:
    stage = seeing_stage(**fields)
    module = StageModule(stage, {}, False, CPU, touch=False)
    losses, figures = stage.losses([stage.sample(seed) for seed in (1, 2, 3, 4)])
    torch.stack([stage.weights[name] * loss for name, loss in losses.items()]).sum().backward()
    assert set(losses) == set(stage.weights)
    assert stage.tower.merging[0].conv.weight.grad.abs().sum() > 0
    assert stage.model.brain.llava.get_input_embeddings().weight.grad is None
    convolution = stage.tower.encoder.stages[0][0].conv.weight
    assert (convolution.grad is None) == bool(fields.get("hold"))
    assert 0 <= figures["category_acc"] <= 1
    assert len(list(module.parameters())) > 0


def test_a_configuration_of_a_merging_tower_is_read_as_it_was_written(tmp_path) -> None:
    config = tiny_brain_config("conv", 64, tied=True)
    config.llava["vision_config"] |= {"merging": 1}
    brain = Brain.from_config(config, tiny_tokenizer(), 32)
    assert brain.family.image_tokens == 4
    assert brain.vision.config.patch_size == 32
    assert isinstance(replace(TrackGPTConfig(), brain=config), TrackGPTConfig)
