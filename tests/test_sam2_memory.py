"""SAM 2's memory: transformers' streaming bit for bit, in constant memory, every target as if it were alone."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foreign_checkpoints import sam2, sam2_video
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Sam2VideoConfig, Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from trackgpt.errors import ModelError
from trackgpt.hub import load_model
from trackgpt.online import follow as follow_prompts
from trackgpt.perception.encoders import normalise
from trackgpt.perception.memory_segmenter import Asked, SegmenterMemory, prediction
from trackgpt.perception.sam2_attention import LeanMemoryAttention
from trackgpt.perception.sam2_memory import NEUTRAL, Sam2Memory, is_sam2_video, square
from trackgpt.perception.sam2_model import check_transformers
from trackgpt.perception.sam2_session import Limits, Sam2TargetMemory, session_of
from trackgpt.track import TrackState
from trackgpt.types import Prompt, VisualPrompt

SIZE = (48, 80)
SIDE = 64
BOX = VisualPrompt(box=(10.0, 8.0, 44.0, 33.0))
POINT = VisualPrompt(points=((25.0, 20.0, 1),))
CLICKS = VisualPrompt(points=((25.0, 20.0, 1), (60.0, 40.0, 0)))
ONES = {name: np.zeros(SIZE, bool) for name in ("left", "right")}
ONES["left"][10:40, 5:35] = True
ONES["right"][5:30, 50:76] = True
MASK = VisualPrompt(mask=ONES["left"])
OTHER = VisualPrompt(mask=ONES["right"])
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("sam2")
    sam2_video(where)
    return where


@pytest.fixture(scope="module")
def stock():
    return sam2_video()


@pytest.fixture(scope="module")
def neutral(folder):
    return Sam2Memory.from_pretrained(folder, settings=NEUTRAL)


@pytest.fixture
def network(folder):
    return Sam2Memory.from_pretrained(folder)


def settled(folder, **changes):
    return Sam2Memory.from_pretrained(folder, settings=dataclasses.replace(NEUTRAL, **changes))


def video(count, seed=0, size=SIZE):
    rng = np.random.default_rng(seed)
    still = rng.integers(0, 256, (*size, 3))
    return [((3 * still + rng.integers(0, 256, (*size, 3))) // 4).astype(np.uint8) for _ in range(count)]


def follow(network, frames, shown, count=1):
    """What is found on every frame: `shown` gives prompts by frame and target, which are there from then on."""
    memories, found = [None] * count, []
    for t, frame in enumerate(frames):
        asked = [Asked(memory, shown.get((t, k))) for k, memory in enumerate(memories)]
        found.append(network.segment(frame, asked))
        memories = [one.memory for one in found[-1]]
    return found


def newest(memory):
    """The entry of the last frame."""
    return max((*memory.conditioning, *memory.recent), key=lambda entry: entry.frame)


def same(a, b):
    """Whether two targets on a frame, and what is remembered of them, are equal to the bit."""
    arrays = np.array_equal(a.mask, b.mask) and (a.iou, a.presence) == (b.iou, b.presence)
    mine, theirs = ([*each.memory.conditioning, *each.memory.recent] for each in (a, b))
    return arrays and len(mine) == len(theirs) and all(map(same_entry, mine, theirs))


def same_entry(a, b):
    kept = (a.features is None, a.frame) == (b.features is None, b.frame)
    return kept and torch.equal(a.pointer, b.pointer) and (a.features is None or torch.equal(a.features, b.features))


def close(a, b, within=1e-5):
    """Whether they are equal up to rounding."""
    pointers = (newest(a.memory).pointer - newest(b.memory).pointer).abs().max()
    scores = max(abs(a.iou - b.iou), abs(a.presence - b.presence))
    return np.array_equal(a.mask, b.mask) and float(pointers) <= within and scores <= within


# transformers' own streaming


def stock_session(prompts, size=SIZE):
    """A stock session in which a target begins on frame 0 for each prompt, told as `Sam2VideoProcessor` tells it."""
    session = Sam2VideoInferenceSession(video_height=size[0], video_width=size[1], dtype=torch.float32)
    for number, prompt in enumerate(prompts):
        index = session.obj_id_to_idx(number)
        if prompt.mask is not None:
            mask = torch.from_numpy(prompt.mask)[None, None].float()
            mask = F.interpolate(mask, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
            session.add_mask_inputs(index, 0, (mask >= 0.5).float())
        else:
            session.add_point_inputs(index, 0, stock_points(prompt, size))
    session.obj_with_new_inputs = list(range(len(prompts)))
    return session


def stock_points(prompt, size=SIZE):
    corners = [(*prompt.box[:2], 2), (*prompt.box[2:], 3)] if prompt.box else []
    told = torch.tensor([*corners, *prompt.points], dtype=torch.float32)
    x, y = told[:, 0] * (SIDE / size[1]), told[:, 1] * (SIDE / size[0])
    return {"point_coords": torch.stack([x, y], 1)[None, None], "point_labels": told[None, None, :, 2].int()}


def pixels(frame):
    return normalise(square(frame, SIDE, CPU))[0]


def stock_masks(model, session, frame, t):
    out = model(inference_session=session, frame=pixels(frame), frame_idx=t)
    return (F.interpolate(out.pred_masks, frame.shape[:2], mode="bilinear", align_corners=False)[:, 0] > 0).numpy()


def check_bits(stock, network, prompt, count):
    """Follow a target both ways, and compare every frame and what is remembered of it."""
    frames, session = video(count), stock_session([prompt])
    for t, ((found,), frame) in enumerate(zip(follow(network, frames, {(0, 0): prompt}), frames, strict=True)):
        assert np.array_equal(found.mask, stock_masks(stock, session, frame, t)[0]), t
        kind = "non_cond_frame_outputs" if t else "cond_frame_outputs"
        theirs, mine = session.output_dict_per_obj[0][kind][t], newest(found.memory)
        assert torch.equal(mine.pointer, theirs["object_pointer"]), t
        assert torch.equal(mine.features, theirs["maskmem_features"]), t
        assert found.presence == pytest.approx(float(theirs["object_score_logits"].sigmoid()), abs=1e-6)
    assert 0 < found.mask.mean() < 1
    return found.memory


@pytest.mark.parametrize("prompt", [BOX, MASK, POINT], ids=["box", "mask", "point"])
def test_one_target_is_tracked_bit_for_bit_as_transformers_streams_it(stock, neutral, prompt):
    assert check_bits(stock, neutral, prompt, 30).tokens == (7, 16)


def test_the_first_sam2_is_tracked_bit_for_bit_too(tmp_path):
    names = ("enable_occlusion_spatial_embedding", "enable_temporal_pos_encoding_for_object_pointers")
    first = sam2_video(tmp_path, **dict.fromkeys(names, False))
    check_bits(first, Sam2Memory.from_pretrained(tmp_path, settings=NEUTRAL), CLICKS, 5)


def test_several_targets_are_those_that_transformers_follows_one_by_one(stock, folder):
    frames, prompts = video(10), [BOX, MASK, POINT, OTHER]
    shown = {(0, k): prompt for k, prompt in enumerate(prompts)}
    alone, together = (follow(settled(folder, together=n), frames, shown, 4) for n in (1, 4))
    sessions = [stock_session([prompt]) for prompt in prompts]
    for t, frame in enumerate(frames):
        for k, session in enumerate(sessions):
            mask = stock_masks(stock, session, frame, t)[0]
            assert np.array_equal(alone[t][k].mask, mask)
            assert np.array_equal(together[t][k].mask, mask)
            assert close(together[t][k], alone[t][k])


def test_a_corrective_click_is_stock_inference_on_a_frame_with_memory_and_the_mask_that_was_tracked(stock, neutral):
    frames = video(6)
    memory = follow(neutral, frames[:5], {(0, 0): BOX})[-1][0].memory
    found = neutral.segment(frames[5], [Asked(memory, CLICKS)])[0]
    session, now = session_of([memory], neutral.model.memory_positions)
    session.add_new_frame(pixels(frames[5]), now)
    asked = {"inference_session": session, "frame_idx": now, "obj_idx": 0, "batch_size": 1, "reverse": False}
    asked |= {"is_init_cond_frame": False, "mask_inputs": None, "streaming": True}
    with torch.inference_mode():
        tracked = stock._run_single_frame_inference(**asked, point_inputs=None)["pred_masks"].clamp(-32, 32)
        clicks = stock_points(CLICKS)
        told = stock._run_single_frame_inference(**asked, point_inputs=clicks, prev_sam_mask_logits=tracked)
    assert torch.equal(newest(found.memory).pointer, told["object_pointer"])


def test_attention_in_place_gives_the_bits_of_transformers_whatever_the_number_of_heads(stock):
    config = Sam2VideoConfig.from_dict(stock.config.to_dict() | {"memory_attention_num_attention_heads": 2})
    config._attn_implementation = "sdpa"  # as a whole model has it
    for made in (stock.config, config):
        theirs = type(stock.memory_attention)(made).eval()
        ours = LeanMemoryAttention(made).eval()
        ours.load_state_dict(theirs.state_dict())
        cells, told = (torch.randn(16, 2, 128) for _ in range(2))
        memory, places = (torch.randn(3 * 16 + 10, 2, 64) for _ in range(2))
        with torch.no_grad():
            wanted, found = (each(cells, memory, told, places, 10) for each in (theirs, ours))
            assert torch.equal(wanted, found)
            ours.folded = True
            assert (ours(cells, memory, told, places, 10) - wanted).abs().max() <= 1e-5


def test_folded_attention_gives_the_same_masks(folder, neutral):
    frames, shown = video(20), {(0, 0): BOX, (9, 0): CLICKS}
    for (a,), (b,) in zip(follow(neutral, frames, shown), follow(settled(folder, folded=True), frames, shown)):
        assert close(a, b)


@pytest.mark.parametrize("together", [1, 3])
def test_frames_encoded_ahead_give_the_same_and_share_no_memory(folder, together):
    network, frames = settled(folder, together=together), [*video(2), *video(2, size=(40, 40))]
    for frame, encoded in zip(frames, network.encode(frames), strict=True):
        assert encoded.image is frame
        found, wanted = (network.segment(each, [Asked(None, BOX)])[0] for each in (encoded, frame))
        assert same(found, wanted) if together == 1 else close(found, wanted)
        for rows in encoded.features:
            assert rows.untyped_storage().nbytes() == rows.nbytes
    assert network.encode([]) == []


# What is remembered


@pytest.mark.parametrize(("count", "frames"), [(1, 200), (3, 30)])
def test_memory_does_not_grow_and_holds_nothing_but_itself(folder, count, frames):
    network, memories, sizes = settled(folder, together=count), [None] * count, []
    encoded = network.encode(video(10))
    for t in range(frames):
        shown = BOX if t == 0 else None
        found = network.segment(encoded[t % 10], [Asked(memory, shown) for memory in memories])
        memories = [one.memory for one in found]
        sizes.append([memory.nbytes for memory in memories])
    assert sizes[15:] == [[7 * 16 * 64 * 2 + 16 * 128 * 4] * count] * (frames - 15)
    for memory in memories:
        for entry in (*memory.conditioning, *memory.recent):
            for tensor in (entry.pointer, entry.features):
                assert tensor is None or tensor.untyped_storage().nbytes() == tensor.nbytes


def test_a_frame_is_a_pure_function_of_memory_and_pixels(neutral):
    frames = video(4)
    memory = follow(neutral, frames[:3], {(0, 0): BOX})[-1][0].memory
    first, again = (neutral.segment(frames[3], [Asked(memory, None)])[0] for _ in range(2))
    assert same(first, again)
    assert memory.frames == 3
    assert first.memory.frames == 4


def test_the_first_conditioning_frame_and_the_newest_ones_are_kept():
    memory, limits = Sam2TargetMemory(), Limits(3, 6, 15)
    for t in range(20):
        memory = memory.after(torch.zeros(16, 1, 64), torch.zeros(1, 1, 128), t % 4 == 0, limits)
    assert [entry.frame for entry in memory.conditioning] == [0, 12, 16]
    assert [entry.frame for entry in memory.recent if entry.features is not None] == [14, 15, 17, 18, 19]
    assert min(entry.frame for entry in memory.recent) == 5
    only = memory.after(torch.zeros(16, 1, 64), torch.zeros(1, 1, 128), True, Limits(1, 6, 15))
    assert [entry.frame for entry in only.conditioning] == [0]


def test_there_are_at_most_16_pointers_of_at_most_15_frames_ago(folder, stock):
    frames, shown = video(40), {(t, 0): CLICKS for t in range(0, 30, 6)}
    network = Sam2Memory.from_pretrained(folder)
    memory = follow(network, frames, shown)[-1][0].memory
    assert [entry.frame for entry in memory.conditioning] == [0, 12, 18, 24]
    session, now = session_of([memory], network.model.memory_positions)
    asked = (session, 0, now, None, CPU)
    offsets, pointers, limit = network.model._get_object_pointers(*asked, streaming=True)
    assert (len(offsets), len(pointers), limit, max(offsets)) == (16, 16, 16, 15)
    loose, _, _ = stock._get_object_pointers(*asked, streaming=True)
    assert (len(loose), max(loose)) == (19, 40)
    assert offsets == [min(offset, 15) for offset in loose][:16]


def test_a_bound_of_the_configuration_bounds_the_conditioning_frames(folder, stock):
    network = Sam2Memory.from_pretrained(folder)
    assert network.limits == (4, 6, 15)
    network.model.config.max_cond_frame_num = 2
    assert Sam2Memory(network.model).limits.conditioning == 2


def test_a_saved_track_goes_on_with_the_same_bits(neutral, tmp_path):
    frames = video(9)
    found = follow(neutral, frames[:8], {(0, 0): BOX, (3, 1): MASK}, 2)[-1]
    state = TrackState(SegmenterMemory(tuple((k + 1, one.memory) for k, one in enumerate(found))), None)
    state.save(tmp_path / "track")
    loaded = TrackState.load(tmp_path / "track", (SegmenterMemory, *neutral.kinds)).memory
    assert loaded.nbytes == state.memory.nbytes
    old, new = (
        neutral.segment(frames[8], [Asked(memory, None) for _, memory in each.targets])
        for each in (state.memory, loaded)
    )
    assert all(map(same, old, new))


def test_the_loop_adds_corrects_and_drops_targets_by_what_a_person_shows(folder):
    tracker = load_model(folder, "cpu").tracker()
    said = (
        Prompt(visual=(BOX, POINT)),
        Prompt(frame=2, kind="correct", ids=(1,), visual=(CLICKS,)),
        Prompt(frame=3, kind="add", visual=(OTHER,)),
        Prompt(frame=5, kind="drop", ids=(2,)),
    )
    seen = list(follow_prompts(tracker, video(7), said))
    assert [one.ids.tolist() for one in seen] == [[1, 2]] * 3 + [[1, 2, 3]] * 2 + [[1, 3]] * 2
    assert all(one.masks.any((1, 2)).all() for one in seen)
    assert all(set(one.own_scores) == {"iou", "presence"} for one in seen)


# Prompts


def test_a_target_may_begin_on_any_frame_and_changes_no_other(network):
    frames = video(12)
    alone = follow(network, frames, {(0, 0): BOX})
    later = follow(network, frames[5:], {(0, 0): OTHER})
    both = follow(network, frames, {(0, 0): BOX, (5, 1): OTHER}, 2)
    assert all(same(a[0], b[0]) for a, b in zip(alone, both, strict=True))
    assert all(same(a[0], b[1]) for a, b in zip(later, both[5:], strict=True))
    assert not both[4][1].mask.any()
    assert (both[4][1].presence, both[4][1].memory.nbytes) == (0.0, 0)


@pytest.mark.parametrize("prompt", [BOX, OTHER, POINT, CLICKS], ids=["box", "mask", "point", "clicks"])
def test_prompting_one_target_leaves_the_others_as_they_are_to_the_bit(network, prompt):
    frames, begun = video(10), {(0, 0): BOX, (0, 1): MASK, (2, 2): POINT}
    before, after = (follow(network, frames, shown, 3) for shown in (begun, begun | {(5, 1): prompt}))
    for t in range(10):
        assert same(before[t][0], after[t][0])
        assert same(before[t][2], after[t][2])
        assert same(before[t][1], after[t][1]) == (t < 5)


def test_in_a_batch_the_frame_of_a_prompt_is_the_same_for_the_others_to_the_bit(folder):
    network, frames, begun = settled(folder, together=8), video(8), {(0, 0): BOX, (0, 1): MASK}
    before, after = (follow(network, frames, shown, 2) for shown in (begun, begun | {(5, 1): OTHER}))
    assert all(same(before[t][0], after[t][0]) for t in range(6))
    assert all(close(before[t][0], after[t][0]) for t in range(6, 8))


@pytest.mark.parametrize("prompt", [OTHER, BOX, CLICKS], ids=["mask", "box", "clicks"])
def test_a_correction_on_a_tracked_frame_is_remembered_for_good(neutral, prompt):
    frames = video(30)
    memory = follow(neutral, frames, {(0, 0): MASK, (5, 0): prompt})[-1][0].memory
    assert [entry.frame for entry in memory.conditioning] == [0, 5]
    assert all(entry.features is not None for entry in memory.conditioning)
    assert 5 not in [entry.frame for entry in memory.recent]


def test_a_correction_reads_what_is_remembered_and_a_beginning_does_not(neutral):
    frames = video(6)
    memory = follow(neutral, frames[:5], {(0, 0): MASK})[-1][0].memory
    for prompt in (BOX, CLICKS):
        corrected, begun = (neutral.segment(frames[5], [Asked(each, prompt)])[0] for each in (memory, None))
        assert not torch.equal(newest(corrected.memory).pointer, newest(begun.memory).pointer)


def test_a_mask_is_believed(neutral):
    found = neutral.segment(video(1)[0], [Asked(None, MASK)])[0]
    overlap = (found.mask & MASK.mask).sum() / (found.mask | MASK.mask).sum()
    assert overlap > 0.85
    assert found.iou == 1
    assert found.presence > 0.99
    empty = neutral.segment(video(1)[0], [Asked(None, VisualPrompt(mask=np.zeros(SIZE, bool)))])[0]
    assert not empty.mask.any()
    assert empty.presence < 0.01


def test_a_box_and_points_are_read_together_and_beside_a_mask_they_are_not(neutral):
    frame = video(1)[0]
    both = VisualPrompt(BOX.box, CLICKS.points)
    found = [neutral.segment(frame, [Asked(None, prompt)])[0] for prompt in (BOX, CLICKS, both)]
    pointers = [newest(one.memory).pointer for one in found]
    assert not torch.equal(pointers[0], pointers[2])
    assert not torch.equal(pointers[1], pointers[2])
    points = neutral._points(both, SIZE)
    assert points.labels.tolist() == [[[2, 3, 1, 0]]]
    assert points.coordinates[0, 0, 0].tolist() == pytest.approx([10 * 64 / 80, 8 * 64 / 48])
    beside = neutral.segment(frame, [Asked(None, VisualPrompt(BOX.box, CLICKS.points, MASK.mask))])[0]
    assert same(beside, neutral.segment(frame, [Asked(None, MASK)])[0])


def test_a_prompt_that_shows_nothing_is_none(neutral):
    frames = video(3)
    memory = follow(neutral, frames[:2], {(0, 0): BOX})[-1][0].memory
    asked = [Asked(memory, None), Asked(memory, VisualPrompt()), Asked(None, VisualPrompt())]
    tracked, shown, nobody = neutral.segment(frames[2], asked)
    assert same(tracked, shown)
    assert nobody.memory.nbytes == 0
    assert same(
        neutral.segment(frames[2], [Asked(nobody.memory, BOX)])[0], neutral.segment(frames[2], [Asked(None, BOX)])[0]
    )


def test_an_absent_target_has_an_empty_mask_and_comes_back(folder):
    network, frames = settled(folder), video(4)
    bias = network.model.mask_decoder.pred_obj_score_head.proj_out.bias
    memory = follow(network, frames[:2], {(0, 0): BOX})[-1][0].memory
    bias.fill_(-5.0)
    gone = network.segment(frames[2], [Asked(memory, None)])[0]
    assert not gone.mask.any()
    assert gone.presence < 0.5
    seen = prediction([1], [gone], frames[2])
    assert not seen.present[0]
    assert np.isnan(seen.boxes).all()
    bias.fill_(5.0)
    assert network.segment(frames[3], [Asked(gone.memory, None)])[0].mask.any()


def test_masks_have_the_size_of_the_frame_that_is_asked_about(neutral):
    memory = None
    for size in ((48, 80), (31, 17), (200, 90)):
        found = neutral.segment(video(1, size=size)[0], [Asked(memory, BOX if memory is None else None)])[0]
        memory = found.memory
        assert found.mask.shape == size
        assert found.mask.dtype == bool


# Hypotheses


def followed(network, frames, judges):
    """Two targets, shown on frame 0 by BOX and MASK, with a judge each: what was found of them, per frame."""
    memories, found = [None, None], []
    for t, frame in enumerate(frames):
        shown = (BOX, MASK) if t == 0 else (None, None)
        seen = network.segment(frame, [Asked(*each) for each in zip(memories, shown, judges, strict=True)])
        memories = [each.memory for each in seen]
        found.append(seen)
    return found


def test_a_judge_sees_three_hypotheses_of_a_tracked_target_and_silence_changes_nothing(network):
    seen = []

    def silent(hypotheses):
        seen.append(hypotheses)
        return np.zeros(len(hypotheses))

    before, after = (followed(network, video(4), judges) for judges in ((None, None), (silent, None)))
    for a, b in zip(before, after, strict=True):
        assert all(same(x._replace(hypotheses=()), y._replace(hypotheses=())) for x, y in zip(a, b, strict=True))
    assert [len(each) for each in seen] == [3, 3, 3]
    for hypotheses, found in zip(seen, after[1:], strict=True):
        assert sorted(h.iou for h in found[0].hypotheses) == sorted(h.iou for h in hypotheses)
        assert found[0].iou == found[0].hypotheses[0].iou == max(h.iou for h in hypotheses)
        for one in hypotheses:
            assert one.mask.shape == (16, 16)
            assert one.embedding is None or one.embedding.shape == (128,)
            assert one.embedding is None or np.linalg.norm(one.embedding) == pytest.approx(1, abs=1e-5)
    assert len(after[0][0].hypotheses) == 1  # what was shown is no guess
    assert after[1][1].hypotheses == ()


@pytest.mark.parametrize("together", [1, 4])
def test_a_veto_takes_the_next_best_for_one_target_and_leaves_the_other(folder, together):
    network, offered = settled(folder, together=together), []

    def veto(hypotheses):
        iou = np.array([one.iou for one in hypotheses])
        offered.append(np.sort(iou)[1])
        return np.where(iou == iou.max(), -1.0, 0.0)

    before, after = (followed(network, video(4), judges) for judges in ((None, None), (None, veto)))
    assert all(same(a[0], b[0]) for a, b in zip(before, after, strict=True))
    assert [found[1].iou for found in after[1:]] == pytest.approx(offered)
    assert not same(before[1][1], after[1][1]._replace(hypotheses=()))


def test_a_kept_frame_is_a_conditioning_frame_that_outlives_the_recent_ones(neutral):
    frames, memory = video(24), None
    for t, frame in enumerate(frames):
        memory = neutral.segment(frame, [Asked(memory, BOX if t == 0 else None)])[0].memory
        if t == 3:
            memory = neutral.kept(memory, 0)
            assert [each.frame for each in memory.lasting] == [0, 3]
            assert 3 not in [each.frame for each in memory.recent]
    assert [each.frame for each in memory.kept] == [3]
    assert memory.kept[0].features is not None
    memory = neutral.kept(memory, 0)  # in the place of the other one
    assert [each.frame for each in memory.kept] == [23]
    corrected = neutral.segment(frames[0], [Asked(memory, BOX)])[0].memory
    assert corrected.kept == ()
    assert [each.frame for each in corrected.conditioning] == [0, 24]


# Pixels


@pytest.mark.parametrize("size", [(48, 80), (720, 1280), (64, 64), (37, 201)])
def test_frames_are_squashed_as_pillow_does_it_to_a_grey_level(size):
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    theirs = np.array(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BILINEAR), int)
    ours = square(frame, SIDE, CPU)
    assert ours.dtype == torch.uint8
    assert np.abs(ours[0].permute(1, 2, 0).numpy() - theirs).max() <= 1
    exact = F.interpolate(
        torch.from_numpy(frame).permute(2, 0, 1)[None].float(), (SIDE, SIDE), mode="bilinear", antialias=True
    )
    assert (ours - exact).abs().max() <= 1.01  # rows are rounded, then columns


def test_a_view_of_a_frame_is_read_as_its_copy_is(neutral):
    frame = video(1)[0]
    mirrored = frame[:, ::-1]
    assert torch.equal(square(mirrored, SIDE, CPU), square(mirrored.copy(), SIDE, CPU))


# Loading


def test_every_weight_is_that_of_the_file(folder, neutral):
    stored = load_file(folder / "model.safetensors")
    loaded = neutral.model.state_dict()
    assert loaded.keys() == stored.keys()
    assert all(torch.equal(stored[name], value) for name, value in loaded.items())
    assert not any(p.requires_grad for p in neutral.model.parameters())
    assert is_sam2_video(folder)


def test_in_16_bits_the_decoder_stays_in_32_and_masks_stay_alike(folder, neutral):
    network = Sam2Memory.from_pretrained(folder, torch.bfloat16)
    kinds = {name.split(".")[0]: p.dtype for name, p in network.model.named_parameters()}
    assert {name for name, dtype in kinds.items() if dtype == torch.bfloat16} == {"vision_encoder", "memory_attention"}
    frames = video(8)
    found, wanted = (follow(each, frames, {(0, 0): BOX, (4, 0): CLICKS}) for each in (network, neutral))
    assert min(np.mean(a.mask == b.mask) for (a,), (b,) in zip(found, wanted)) > 0.95
    assert newest(found[-1][0].memory).pointer.dtype == torch.float32
    fresh = network.model.memory_attention.rotary_emb.inv_freq
    assert fresh.dtype == torch.float32


def changed_copy(folder, where, weights=lambda stored: stored, **settings):
    where.mkdir()
    config = json.loads((folder / "config.json").read_text()) | settings
    (where / "config.json").write_text(json.dumps(config))
    save_file(weights(load_file(folder / "model.safetensors")), where / "model.safetensors")
    return where


TWIN = "prompt_encoder.shared_embedding.positional_embedding"


def test_one_of_two_names_of_the_same_positions_is_enough(folder, tmp_path):
    where = changed_copy(folder, tmp_path / "one", lambda w: {k: v for k, v in w.items() if k != TWIN})
    model = Sam2Memory.from_pretrained(where).model
    twins = model.prompt_encoder.shared_embedding, model.shared_image_embedding
    assert torch.equal(*(each.positional_embedding for each in twins))


KEY = "memory_encoder.projection.weight"


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda w: {k: v for k, v in w.items() if k != KEY}, "MD02", f"weights missing 1: {KEY}"),
        (lambda w: w | {"memory_encoder.more": torch.zeros(2)}, "MD02", "weights unknown 1: memory_encoder.more"),
        (lambda w: w | {KEY: torch.zeros(3, 3)}, "MD02", rf"{KEY} is \(3, 3\), wanted"),
        (lambda w: w | {KEY: torch.full_like(w[KEY], torch.nan)}, "MD02", f"{KEY} has values that are NaN"),
        (lambda w: w | {KEY: w[KEY].int()}, "MD02", f"{KEY} is stored as int32"),
    ],
    ids=["missing", "unknown", "shape", "nan", "integers"],
)
def test_weights_that_do_not_fit_are_refused_by_name(folder, tmp_path, change, code, said):
    where = changed_copy(folder, tmp_path / "changed", change)
    with pytest.raises(ModelError, match=said) as caught:
        Sam2Memory.from_pretrained(where)
    assert caught.value.code == code
    assert str(where) in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("edgetam_video", "this is EdgeTAM, whose RepViT encoder needs timm"),
        ("sam3_video", "this is SAM 3, which is gated"),
        ("sam3_tracker_video", "this is SAM 3, which is gated"),
        ("sam", "this is a SAM for single images"),
        ("llava", "a model of the type 'llava', and no SAM 2"),
    ],
)
def test_relatives_are_refused_with_what_to_use_instead(folder, tmp_path, kind, said):
    where = changed_copy(folder, tmp_path / "relative", model_type=kind)
    assert not is_sam2_video(where)
    with pytest.raises(ModelError, match=f"{said}.*; use the folder of facebook/sam2.1-hiera-tiny") as caught:
        Sam2Memory.from_pretrained(where)
    assert caught.value.code == "MD06"


def test_a_sam2_for_images_is_refused_and_one_with_a_memory_is_not(folder, tmp_path):
    sam2(tmp_path / "images")
    with pytest.raises(ModelError, match="for single images, without the weights of its memory") as caught:
        Sam2Memory.from_pretrained(tmp_path / "images")
    assert caught.value.code == "MD06"
    Sam2Memory.from_pretrained(changed_copy(folder, tmp_path / "whole", model_type="sam2"))


@pytest.mark.parametrize(
    ("settings", "code"),
    [({"num_maskmem": 0}, "MD06"), ({"memory_attention_num_layers": 5000}, "MD02"), ({"vision_config": 3}, "MD02")],
)
def test_configurations_that_make_no_sense_are_refused(folder, tmp_path, settings, code):
    where = changed_copy(folder, tmp_path / "odd", **settings)
    with pytest.raises(ModelError) as caught:
        Sam2Memory.from_pretrained(where)
    assert caught.value.code == code


def test_what_is_not_there_is_said(folder, tmp_path):
    (tmp_path / "sam2.1_hiera_tiny.pt").write_bytes(b"")
    with pytest.raises(ModelError, match="only Hugging Face's layout is read") as caught:
        Sam2Memory.from_pretrained(tmp_path / "sam2.1_hiera_tiny.pt")
    assert caught.value.code == "MD06"
    with pytest.raises(ModelError, match=r"no config.json there") as caught:
        Sam2Memory.from_pretrained(tmp_path)
    assert caught.value.code == "MD01"
    where = changed_copy(folder, tmp_path / "pointer")
    (where / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ModelError, match="Git LFS pointer") as caught:
        Sam2Memory.from_pretrained(where)
    assert caught.value.code == "MD01"


# transformers


def test_the_private_methods_of_transformers_are_those_that_were_tested():
    check_transformers()


def test_another_transformers_is_refused_with_the_method_and_the_version_to_install():
    class Changed(Sam2VideoModel):
        def _use_multimask(self, is_init_cond_frame, points):
            """Another argument."""

    with pytest.raises(
        ModelError, match=r"Changed._use_multimask takes \(is_init_cond_frame points\), wanted \("
    ) as caught:
        check_transformers(Changed)
    assert "pip install 'transformers~=5.23.0'" in str(caught.value)
    with pytest.raises(ModelError, match="no such method"):
        check_transformers(object)


def test_the_speed_bench_measures_both_and_ours_does_not_grow(stock, folder):
    from eval.speed import memory_segmenter
    from eval.speed.bench import Workload

    part = memory_segmenter.compare(stock, Sam2Memory.from_pretrained(folder), Workload(pairs=1, height=48, width=64))
    assert {part.last[f"growth_ours_{count}"] for count in memory_segmenter.COUNTS} == {0}
    assert all(part.last[f"growth_stock_{count}"] > 0 for count in memory_segmenter.COUNTS)
    assert all(part.last[f"x_{count}"] > 0 for count in memory_segmenter.COUNTS)
