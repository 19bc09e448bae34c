"""The box tracker: its network against the originals' arithmetic, its windows, its words, and its memory."""

import pickle
from pathlib import Path

import box_layouts
import numpy as np
import pytest
import torch
from tiny_boxes import TINY, tiny_network, tiny_tracker, written_tracker

from trackgpt.errors import ModelError, UsageError
from trackgpt.perception.box_checkpoints import load_box_checkpoint
from trackgpt.perception.box_tracker import BoxTracker, FollowedBox, cut_words, inside_frame, shown_box
from trackgpt.perception.box_transformer import SIZES, BoxMaps, BoxTransformer, is_box_transformer
from trackgpt.perception.memory_segmenter import SegmenterMemory
from trackgpt.perception.search_window import SquareCrop
from trackgpt.track import TrackState
from trackgpt.types import Cue, Prompt, Target, VisualPrompt

BOX = (20.0, 16.0, 44.0, 40.0)


def video(count: int, seed: int = 0) -> list[np.ndarray]:
    """Noise, 64 x 80 pixels, another one on every frame."""
    return list(np.random.default_rng(seed).integers(0, 256, (count, 64, 80, 3), np.uint8))


def begun(perception: BoxTracker, frame: np.ndarray, words: str = "the red car", box=BOX) -> tuple:
    """State and prediction after a first frame on which target 1 is shown."""
    prompt = Prompt(words, visual=(VisualPrompt(box),))
    cue = Cue(words, visual=prompt.visual)
    state = TrackState(SegmenterMemory(), None, targets=(Target(1, prompt),), cue=cue)
    seen, memory = perception.perceive(frame, state, (1,))
    return TrackState(memory, None, 1, state.targets, cue), seen


def followed(perception: BoxTracker, frames: list[np.ndarray], words: str = "the red car") -> list:
    """The predictions, and the memory of the target at the end."""
    state, seen = begun(perception, frames[0], words)
    predictions = [seen]
    for frame in frames[1:]:
        seen, memory = perception.perceive(frame, state, ())
        state = TrackState(memory, None, state.frame + 1, state.targets, state.cue)
        predictions.append(seen)
    return [predictions, dict(state.memory.targets)[1]]


def boxes(predictions: list) -> np.ndarray:
    return np.concatenate([seen.boxes for seen in predictions])


# --- the network ---

ORIGINAL = {  # of each of two frames: the box, and means of score and size, from the code of the repositories
    "ostrack": [
        ([1.72534, -1.20009, 0.9999, 0.9999], 0.40057, 0.60051),
        ([-2.58501, 10.32245, 0.38488, 0.37763], 0.36369, 0.55645),
    ],
    "odtrack": [
        ([103.00597, -54.34496, 0.9999, 0.0001], 0.85945, 0.28555),
        ([12.4802, -6.536, 0.9999, 0.0001], 0.86655, 0.34824),
    ],
    "dutrack": [
        ([5.91452, -5.53844, 0.06597, 0.86696], 0.82742, 0.50444),
        ([0.29337, -0.12195, 0.0001, 0.9999], 0.81368, 0.49756),
    ],
}


@pytest.mark.parametrize("kind", box_layouts.KINDS)
def test_a_checkpoint_computes_what_the_code_it_was_trained_with_computes(kind, tmp_path):
    file = box_layouts.written(tmp_path / "ep0300.pth.tar", box_layouts.weights(kind))
    network, report = load_box_checkpoint(file)
    assert network.config.name == kind
    assert not report.new
    assert not report.unexpected
    templates, windows, ids = box_layouts.seen()
    words = (ids, torch.ones_like(ids, dtype=torch.bool)) if kind == "dutrack" else None
    temporal = None
    for window, (box, score, size) in zip(windows, ORIGINAL[kind], strict=True):
        with torch.inference_mode():
            maps = network(templates[:, : network.config.templates], window, words, temporal)
        temporal = maps.temporal
        assert maps.boxes()[0][0].tolist() == pytest.approx(box, rel=1e-4, abs=1e-4)
        assert [maps.score.mean().item(), maps.size.mean().item()] == pytest.approx([score, size], abs=2e-5)
    assert (None if temporal is None else temporal.shape[1]) == {"ostrack": None, "odtrack": 1, "dutrack": 3}[kind]


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        (lambda net: net.pop("backbone.blocks.1.attn.proj.bias"), "MD02", "layers.1.attention.o_proj.bias"),
        (lambda net: net.update({"backbone.neck.weight": torch.zeros(3)}), "MD06", "backbone.neck.weight"),
        (lambda net: net.update({"backbone.norm.bias": torch.zeros(3)}), "MD02", "norm.bias"),
        (lambda net: net.update({"backbone.norm.bias": torch.full((64,), torch.nan)}), "MD02", "NaN"),
        (lambda net: net.clear(), "MD02", "no weights under `net`"),
        (lambda net: net.pop("box_head.conv1_ctr.0.weight"), "MD06", "centre head"),
    ],
)
def test_a_checkpoint_that_is_not_one_of_the_three_is_refused_by_name(change, code, named, tmp_path):
    net = box_layouts.weights("odtrack")
    change(net)
    with pytest.raises(ModelError) as refused:
        load_box_checkpoint(box_layouts.written(tmp_path / "net.pth", net))
    assert refused.value.code == code
    assert named in str(refused.value)
    assert "net.pth" in str(refused.value)


def test_nothing_in_a_checkpoint_is_run(tmp_path):
    ran = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return Path.touch, (ran,)

    torch.save({"net": box_layouts.weights("ostrack"), "settings": Hostile()}, tmp_path / "net.pth")
    load_box_checkpoint(tmp_path / "net.pth")
    assert not ran.exists()
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(ModelError, match="MD02"):
        load_box_checkpoint(tmp_path / "bare.pth")
    assert not ran.exists()
    with pytest.raises(ModelError, match="MD01"):
        load_box_checkpoint(tmp_path / "none.pth")


def test_nano_has_at_most_9_million_parameters_and_the_sizes_share_one_schema():
    counts = {}
    for name, config in SIZES.items():
        with torch.device("meta"):
            counts[name] = sum(p.numel() for p in BoxTransformer(config).parameters()) / 1e6
    assert counts["nano"] < 9
    assert 100 < counts["b-256"] < counts["b-384"] < 130
    assert [(c.template_side, c.search_side) for c in SIZES.values()] == [(96, 192), (128, 256), (192, 384)]


def test_word_pieces_that_fill_up_change_nothing_and_others_do():
    network = tiny_network()
    templates, window = torch.randn(2, 1, 3, 32, 32), torch.randn(2, 3, 64, 64)
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    counts = torch.tensor([[True] * 4, [True, True, False, False]])
    with torch.inference_mode():
        both = network(templates, window, (ids, counts)).score
        alone = network(templates[1:], window[1:], (ids[1:, :2], counts[1:, :2])).score
        read = network(templates[1:], window[1:], (ids[1:], torch.ones(1, 4, dtype=torch.bool))).score
        unsaid = network(templates[1:], window[1:]).score
    assert torch.allclose(both[1], alone[0], atol=1e-5)
    assert not torch.allclose(both[1], read[0], atol=1e-5)
    assert not torch.allclose(both[1], unsaid[0], atol=1e-5)


def test_the_best_cell_gives_the_box_and_a_window_prefers_the_middle_without_changing_its_score():
    score = torch.zeros(1, 4, 4)
    score[0, 0, 3], score[0, 1, 2] = 0.9, 0.8
    maps = BoxMaps(score, torch.full((1, 2, 4, 4), 0.25), torch.full((1, 2, 4, 4), 0.5), None)
    hann = torch.from_numpy(np.outer(np.hanning(6)[1:-1], np.hanning(6)[1:-1])).float()
    assert maps.boxes()[0].tolist() == [[3.5 / 4, 0.5 / 4, 0.25, 0.25]]
    box, found = maps.boxes(hann)
    assert box.tolist() == [[2.5 / 4, 1.5 / 4, 0.25, 0.25]]
    assert found.item() == pytest.approx(0.8)


def test_a_model_is_read_as_it_was_written_and_a_damaged_one_is_refused(tmp_path):
    folder = written_tracker(tmp_path / "tiny")
    assert is_box_transformer(folder)
    assert not is_box_transformer(tmp_path)
    wanted, found = tiny_network().state_dict(), BoxTransformer.from_pretrained(folder).state_dict()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    (folder / "config.json").write_text('{"kind": "box_transformer", "width": 64}')
    with pytest.raises(ModelError, match="MD02"):
        BoxTransformer.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="MD01"):
        BoxTransformer.from_pretrained(folder)


@pytest.mark.parametrize("wrong", [{"search_side": 100}, {"heads": 5}, {"stem": "pyramid", "width": 30}])
def test_sizes_that_do_not_go_together_are_refused(wrong):
    with pytest.raises(UsageError, match="wanted a multiple"):
        tiny_network(**wrong)


def test_a_word_table_of_another_language_model_is_taken_if_it_has_the_shape():
    network = tiny_network()
    network.words.adopt(torch.ones(TINY.vocabulary, TINY.word_width))
    assert network.words.table.weight.mean().item() == 1
    with pytest.raises(UsageError, match="wanted 1536 x 16"):
        network.words.adopt(torch.ones(TINY.vocabulary, 8))


# --- windows ---


def test_a_crop_is_a_square_of_four_sizes_and_black_outside_of_the_frame():
    frame = np.full((60, 100, 3), 200, np.uint8)
    crop = SquareCrop.around((10, 20, 20, 60), 4.0)  # a root of 400 square pixels
    assert crop == SquareCrop(-25, 0, 80)
    square = crop.cut(frame, 80)
    assert square.shape == (80, 80, 3)
    assert (square[:60, 25:] == 200).all()
    assert not square[:, :25].any()
    assert not square[60:].any()
    assert SquareCrop.around((500, 500, 510, 510), 2.0).cut(frame, 16).max() == 0


def test_boxes_go_into_a_crop_and_back():
    crop = SquareCrop(-25, 7, 80)
    assert crop.inside((-25, 7, 15, 47)) == (0, 0, 0.5, 0.5)
    assert crop.outside(crop.inside((1.5, 2.5, 30, 40))) == pytest.approx((1.5, 2.5, 30, 40))


def test_a_box_stays_in_the_frame_and_keeps_a_least_size():
    frame = np.zeros((60, 100, 3), np.uint8)
    assert inside_frame((-5, 10, 20, 30), frame, 2) == (0, 10, 20, 30)
    assert inside_frame((150, 70, 160, 80), frame, 2) == (98, 58, 100, 60)
    assert inside_frame((10, 10, 10, 9), frame, 4) == (10, 10, 14, 14)


# --- tracks ---


def test_tracking_a_then_b_then_a_gives_a_twice():
    perception = tiny_tracker("gate=0", "every=2")
    a, b = video(8, 1), video(8, 2)
    first = followed(perception, a)[0]
    followed(perception, b, "a dog")
    assert np.array_equal(boxes(first), boxes(followed(perception, a)[0]))


def test_a_shown_box_is_the_answer_of_its_frame_with_the_networks_own_score():
    _, seen = begun(tiny_tracker(), video(1)[0])
    assert seen.boxes.tolist() == [list(BOX)]
    assert seen.masks is None
    assert 0 < seen.scores[0] < 1
    assert seen.own_scores["centre"] == seen.scores


def test_words_and_temporal_tokens_change_what_is_found():
    frames = video(4)
    plain = boxes(followed(tiny_tracker(), frames)[0])
    assert not np.array_equal(plain, boxes(followed(tiny_tracker(), frames, "a dog on the left")[0]))
    assert not np.array_equal(plain, boxes(followed(tiny_tracker("temporal=false"), frames)[0]))
    assert not np.array_equal(plain, boxes(followed(tiny_tracker("paper=true"), frames)[0]))


def test_40_word_pieces_are_read_and_16_in_the_papers_way_the_last_one_always():
    assert cut_words(range(50), 40) == [*range(39), 49]
    assert cut_words([1, 2], 40) == [1, 2]
    frames, long = video(2), "red" + 59 * " red"
    assert np.array_equal(*(boxes(followed(tiny_tracker(), frames, words)[0]) for words in (long, long + " red red")))
    plain, unread = (boxes(followed(tiny_tracker(how), frames, "a dog")[0]) for how in ("words=true", "words=false"))
    assert not np.array_equal(plain, unread)
    assert np.array_equal(unread, boxes(followed(tiny_tracker(), frames, "")[0]))


def test_templates_are_spread_over_the_whole_past_and_memory_does_not_grow():
    perception = tiny_tracker("gate=0", "every=1", "store=4")
    sizes = [followed(perception, video(count))[1].nbytes for count in (40, 80)]
    memory = followed(perception, video(40))[1]
    assert len(memory.views) <= 4
    assert memory.every == 16  # a fifth view halves them to three: after looks 5, 9, 17 and 33
    assert max(sizes) <= memory.first.nbytes * 5 + memory.kept.image.nbytes + memory.temporal.nbytes


def test_a_view_below_the_gate_is_no_template():
    frames = video(12)
    assert followed(tiny_tracker("gate=1", "every=2"), frames)[1].views == ()
    assert len(followed(tiny_tracker("gate=0", "every=2"), frames)[1].views) == 5


def test_a_score_below_the_bound_is_absence_and_leaves_the_box_where_it_was():
    perception = tiny_tracker("absent=1")
    predictions, memory = followed(perception, video(3))
    assert not any(seen.present.any() for seen in predictions)
    assert np.isnan(boxes(predictions)).all()
    assert memory.box == BOX


def test_a_frame_that_was_described_on_is_kept_small_with_its_box():
    state, _ = begun(tiny_tracker("kept_side=40"), video(1)[0])
    kept = dict(state.memory.targets)[1].kept
    assert kept.image.shape == (32, 40, 3)
    assert kept.box == (10, 8, 22, 20)
    state, _ = begun(tiny_tracker("kept_side=0"), video(1)[0])
    assert dict(state.memory.targets)[1].kept is None


def test_a_new_description_keeps_the_views_and_a_new_box_does_not():
    perception = tiny_tracker("gate=0", "every=1")
    frames = video(5)
    _, memory = followed(perception, frames)
    state = TrackState(SegmenterMemory(((1, memory),)), None, 5, (Target(1, Prompt("x")),), Cue("a blue car"))
    _, told = perception.perceive(frames[0], state, (1,))
    new: FollowedBox = dict(told.targets)[1]
    assert new.words == "a blue car"
    assert len(new.views) == len(memory.views) + 1
    assert new.kept.box == new.box
    shown = TrackState(state.memory, None, 5, state.targets, Cue(visual=(VisualPrompt(BOX),)))
    _, told = perception.perceive(frames[0], shown, (1,))
    assert dict(told.targets)[1].views == ()
    assert dict(told.targets)[1].words == "the red car"


def test_a_saved_track_goes_on_with_the_same_bits(tmp_path):
    perception, frames = tiny_tracker("gate=0", "every=1"), video(6)
    state, _ = begun(perception, frames[0])
    state.save(tmp_path / "track")
    again = TrackState.load(tmp_path / "track", perception.kinds)
    one, two = (perception.perceive(frames[1], each, ())[0] for each in (state, again))
    assert np.array_equal(one.boxes, two.boxes)
    assert np.array_equal(one.scores, two.scores)


def test_what_is_no_box_and_no_mask_is_refused():
    frame = np.zeros((60, 100, 3), np.uint8)
    mask = np.zeros((60, 100), bool)
    with pytest.raises(UsageError, match="points were given"):
        shown_box(VisualPrompt(points=((5, 5, 1),)), frame)
    with pytest.raises(UsageError, match="mask that was shown is empty"):
        shown_box(VisualPrompt(mask=mask), frame)
    with pytest.raises(UsageError, match="holds nothing of the frame"):
        shown_box(VisualPrompt((200, 10, 210, 20)), frame)
    mask[10:20, 30:50] = True
    assert shown_box(VisualPrompt(mask=mask), frame) == (30, 10, 50, 20)
    assert shown_box(VisualPrompt((-5, 10, 20, 30)), frame) == (0, 10, 20, 30)
