"""Reading and encoding ahead, masks only where they are: the same results, bounded memory, errors where they belong."""

import threading
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from scripted_model import ScriptedModel, film, picture, pictures
from scripted_model import folder as save_folder
from tiny_models import frame, tiny_trackgpt
from tracks import Track

from eval.speed import bench as speed
from trackgpt.app.live import WAITING, Outputs
from trackgpt.config import RethinkConfig
from trackgpt.errors import InputError, OutOfMemoryError, OutputError, UsageError
from trackgpt.export.davis import DavisWriter
from trackgpt.export.records import EVENTS, TRACKS, read_events, read_tracks
from trackgpt.geometry.letterbox import fit
from trackgpt.geometry.masks import encode_rle
from trackgpt.hub import load_model
from trackgpt.perception.encoders import normalise
from trackgpt.session.ahead import AHEAD, EncodedSource, Lookahead, default_lookahead, lookahead_of
from trackgpt.session.playback import InstructionTracker, Playback
from trackgpt.types import EncodedFrame, Prompt
from trackgpt.video.frames import SourceFrame
from trackgpt.video.source import open_source

WAYS = [Lookahead(batch, frames) for batch, frames in product((1, 3, 4), (0, 1, 4))]
RESTLESS = RethinkConfig(ratio=2.0, cooldown=2)


@pytest.fixture(scope="module")
def restless():
    """A small real model that finds every score low and asks its brain again on every third frame."""
    model = tiny_trackgpt("conv", "conv", tied=True, answer="forced").fold()
    model.config.rethink = RESTLESS
    return InstructionTracker(model, "restless")


@pytest.fixture
def tracker():
    return InstructionTracker(ScriptedModel(), "scripted")


def logs(tracker, source, lookahead, say=(("the red square", None),), **reading):
    """tracks.jsonl and events.jsonl of a run."""
    playback = tracker.open(source, lookahead=lookahead, **reading)
    with playback:
        for text, at in say:
            playback.say(text, at)
        assert len(list(playback)) > 0
    read = [(playback.run.path / name).read_bytes() for name in (TRACKS, EVENTS)]
    playback.close()
    return read


def threads(name):
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


# --- the same to the bit ---


def test_every_lookahead_gives_the_same_log_with_rethinks_and_a_new_instruction_on_the_way(restless, tmp_path):
    clip = film(tmp_path / "clip.mp4", 14)
    say = (("the red square", None), ("the green square", 8))
    plain = logs(restless, clip, Lookahead(), say)
    assert plain[1].count(b'"rethink"') >= 3
    assert plain[0].count(b'"rle":"') >= 8
    for way in WAYS:
        assert logs(restless, clip, way, say) == plain


def test_frames_of_several_sizes_and_unreadable_ones_may_share_a_batch(restless):
    small = np.ascontiguousarray(picture(3)[:60, :80])
    frames = [picture(0), None, picture(2), small, None, picture(5), picture(6)]
    plain = logs(restless, frames, Lookahead())
    for way in (Lookahead(batch=4), Lookahead(4, 2)):
        assert logs(restless, frames, way) == plain


def test_a_snapshot_goes_on_exactly_under_another_lookahead(restless):
    frames = list(pictures(12))
    playback = restless.open(frames, lookahead=Lookahead(batch=4, frames=4))
    whole = []
    with playback:
        playback.say("the red square")
        for result in playback:
            whole.append(result.objects)
            if result.index == 5:
                state = playback.snapshot()
    playback.close()
    for way in (Lookahead(), Lookahead(3, 1)):
        playback = restless.open(frames, start=6, lookahead=way)
        with playback:
            playback.restore(state)
            assert [result.objects for result in playback] == whole[6:]
        playback.close()


def test_an_encoded_frame_is_tracked_like_the_frame_itself_and_rewound_like_it(restless):
    tracker = restless.model.tracker()
    early = [tracker.perception.encode([frame(t)])[0] for t in range(6)]
    assert all(isinstance(each, EncodedFrame) for each in early)
    one, other = Track(tracker), Track(tracker)
    one.look(frame(0), Prompt("track it"))
    other.look(early[0], Prompt("track it"))
    for t in range(1, 6):
        state = other.state
        a, b = one.look(frame(t)), other.look(early[t])
        again = tracker.step(state, early[t])[1]
        for each in (b, again):
            assert np.array_equal(a.masks, each.masks)
            assert np.array_equal(a.scores, each.scores)
            assert a.reason == each.reason


def test_nano_encodes_four_frames_at_once_as_one_at_a_time_within_the_stated_tolerance():
    perception = load_model("nano", "cpu").tracker().perception
    images = [frame(t, 90, 160) for t in range(4)]
    together, alone = perception.encode(images), [perception.encode([image])[0] for image in images]
    for a, b in zip(together, alone, strict=True):
        for x, y in zip(
            (a.features.embedding, *a.features.fine), (b.features.embedding, *b.features.fine), strict=True
        ):
            assert float((x - y).abs().max()) <= 1e-5 * float(y.abs().max())


def test_a_thread_is_used_unasked_for_files_where_there_are_cores_for_it(monkeypatch):
    source = open_source(list(pictures(2)))
    cases = [(1, "file", 0), (2, "file", AHEAD), (4, "folder", AHEAD), (4, "stream", 0), (4, "array", 0)]
    for cores, kind, ahead in cases:
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        source.kind = kind
        assert default_lookahead(source) == Lookahead(1, ahead)


class Counting(ScriptedModel):
    """Notes with how many threads PyTorch would compute where it is asked."""

    def __init__(self):
        super().__init__()
        self.threads = {"reason": set(), "perceive": set(), "encode": set()}

    def reason(self, *given):
        self.threads["reason"].add(torch.get_num_threads())
        return super().reason(*given)

    def perceive(self, *given):
        self.threads["perceive"].add(torch.get_num_threads())
        return super().perceive(*given)

    def encode(self, images):
        self.threads["encode"].add(torch.get_num_threads())
        return super().encode(images)


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(
    ("way", "inside"), [(Lookahead(), 4), (Lookahead(batch=3), 4), (Lookahead(frames=4), 2)], ids=str
)
def test_half_of_pytorchs_threads_compute_a_frame_and_the_callers_number_stays(way, inside):
    model = Counting()
    with InstructionTracker(model).open(list(pictures(8, unsure=(3,))), lookahead=way) as playback:
        outside = [torch.get_num_threads()]
        playback.say("the red square")
        for _ in playback:
            outside.append(torch.get_num_threads())
        playback.seek(4)
        outside.append(torch.get_num_threads())
        playback.undo()
    playback.close()
    assert {*outside, torch.get_num_threads()} == {4}
    assert model.threads["reason"] == model.threads["perceive"] == {inside}
    assert model.threads["encode"] == ({inside} if way != Lookahead() else set())


@pytest.mark.usefixtures("four_threads")
def test_a_perception_that_encodes_nothing_early_keeps_all_threads():
    model = Counting()
    model.early = False
    with InstructionTracker(model).open(list(pictures(8)), lookahead=Lookahead(frames=4)) as playback:
        playback.say("the red square")
        assert len(list(playback)) == 8
    assert model.threads == {"reason": {4}, "perceive": {4}, "encode": set()}


@pytest.mark.usefixtures("four_threads")
def test_what_goes_wrong_inside_leaves_the_callers_number_of_threads_alone(tracker):
    def fail(number):
        if number == 2:
            raise LookupError("no such shelf")

    tracker.model.before = fail
    playback = tracker.open(list(pictures(5)), lookahead=Lookahead(frames=2))
    playback.say("the red square")
    with pytest.raises(LookupError):
        list(playback)
    assert torch.get_num_threads() == 4
    playback.close()


def test_a_frame_that_is_waited_for_has_those_after_it_encoded_by_whoever_waits():
    lanes, slow = {}, threading.Event()

    def encode(images):
        at = int(images[0])
        lanes[at] = threading.current_thread()
        if at == 1:
            assert slow.wait(10)
        elif at == 3:
            slow.set()
        return images

    source = Lookahead(frames=4).over(numbers(8), encode)
    assert [int(frame.encoded) for frame in source] == list(range(8))
    source.close()
    # The thread has frame 1 and waits until frame 3 is encoded, which only the waiting reader can do.
    assert lanes[1].name.startswith("trackgpt-ahead")
    assert lanes[3] is lanes[0] is threading.main_thread()


def numbers(count):
    """Frames whose image is their number."""
    return (SourceFrame(index, index / 10, np.array(index)) for index in range(count))


def test_targets_that_share_a_frame_are_decoded_as_on_frames_of_their_own():
    segmenter = load_model("nano", "cpu").segmenter
    with torch.no_grad():
        features = segmenter.encode(torch.from_numpy(frame(1, 256, 256)).permute(2, 0, 1)[None])
        queries = torch.randn(3, 128, generator=torch.Generator().manual_seed(0))
        shared = segmenter.decode(features.repeated(3), queries, None, queries)
        own = segmenter.decode(features.of(torch.zeros(3, dtype=torch.long)), queries, None, queries)
    for x, y in ((shared.logits, own.logits), (shared.score, own.score), (shared.online, own.online)):
        assert float((x - y).abs().max()) <= 1e-5 * float(y.abs().max())


def test_pixels_side_by_side_are_normalised_like_planes():
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)).permute(0, 3, 1, 2)
    assert torch.equal(normalise(pixels), normalise(pixels.contiguous()))


# --- masks, only where they are ---


@pytest.mark.parametrize("source", [(48, 64), (64, 48), (37, 53), (1, 1000), (480, 854), (5, 8)])
@pytest.mark.parametrize("centre", [False, True])
def test_cutting_out_what_is_above_a_threshold_is_cropping_and_comparing(source, centre):
    rng = np.random.default_rng(0)
    for s in (4, 16, 30):
        box = fit(source, 64, centre)
        noise = rng.normal(size=(3, s, s)).astype(np.float32)
        lone = np.full((1, s, s), -3, np.float32)
        lone[0, s // 3, s // 4] = 5
        for logits in (noise, noise - 3, np.full_like(noise, -1), lone):
            for threshold in (0.0, 0.3, -1.0, float(logits.max()), float(logits[0, 0, 0])):
                assert np.array_equal(box.crop_above(logits, threshold), box.crop_mask(logits) > threshold)


def test_logits_that_are_no_numbers_are_cut_out_like_any_other():
    logits = np.full((1, 16, 16), -1, np.float32)
    logits[0, 2, 2], logits[0, 9, 9] = np.nan, 4
    box = fit((32, 32), 32)
    assert np.array_equal(box.crop_above(logits, 0.0), box.crop_mask(logits) > 0)
    assert box.crop_above(logits, 0.0).any()


def test_run_lengths_are_those_of_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(500):
        height, width = rng.integers(1, 20, 2)
        mask = rng.random((height, width)) < rng.choice([0, 0.1, 0.5, 1])
        theirs = coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
        assert encode_rle(mask) == theirs


# --- bounded, and stopped ---


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_no_more_is_read_than_the_lookahead_says(tracker, way):
    read = []

    def endless():
        for index in range(40):
            read.append(index)
            yield picture(index)

    playback = tracker.open(endless(), lookahead=way)
    with playback:
        playback.say("the red square")
        for result in playback:
            ahead = -(-way.frames // way.batch) * way.batch  # in whole batches
            assert len(read) - (result.index + 1) <= way.batch + ahead
    playback.close()
    assert len(read) == 40


def test_closing_in_the_middle_ends_the_thread_before_the_source_is_closed(tracker):
    source = open_source(pictures(50))
    order = []
    source.close = lambda: order.append(len(threads("trackgpt-ahead")))
    playback = Playback(tracker, source, lookahead=Lookahead(frames=3))
    playback.say("the red square")
    next(iter(playback))
    assert len(threads("trackgpt-ahead")) == 1
    playback.close()
    playback.close()
    assert order == [0, 0]


def test_what_makes_no_lookahead_is_refused():
    for batch, frames in ((0, 0), (1, -1)):
        with pytest.raises(UsageError, match="wanted batch >= 1, frames >= 0"):
            Lookahead(batch, frames)


def test_what_is_not_asked_for_is_left_to_the_source():
    assert lookahead_of(1, None) is None
    assert lookahead_of(4, None) == Lookahead(4, 0)
    assert lookahead_of(1, 0) == Lookahead()


# --- errors come where they belong ---


@pytest.mark.parametrize("way", [way for way in WAYS if way != Lookahead()], ids=str)
def test_a_source_that_breaks_off_gives_all_frames_before_it_and_then_its_own_error(tracker, way):
    frames = [*pictures(6), np.zeros((4, 4), np.uint8), picture(7)]
    playback = tracker.open(frames, lookahead=way)
    seen = []

    def run():
        with playback:
            playback.say("the red square")
            seen.extend(result.index for result in playback)

    with pytest.raises(InputError, match="frame 6 of the arrays"):
        run()
    assert seen == [0, 1, 2, 3, 4, 5]
    assert list(read_events(playback.run.path))[-1].type == "error"
    assert threads("trackgpt-ahead") == []
    playback.close()


def test_after_an_error_there_is_nothing_more():
    def broken():
        yield from ()
        raise InputError("gone")

    source = EncodedSource(broken(), list, Lookahead(2, 2))
    with pytest.raises(InputError, match="gone"):
        next(source)
    assert list(source) == []
    source.close()


@pytest.mark.parametrize("options", [("--ahead", 2), ("--batch", 3), ("--batch", 2, "--ahead", 3)], ids=str)
def test_running_out_of_memory_in_the_encoder_has_its_exit_code_in_every_thread(
    command, model, monkeypatch, tmp_path, options
):
    calls = []

    def encode(images):
        calls.append(len(images))
        if len(calls) == 2:
            raise OutOfMemoryError("MD05: no memory")
        return images

    monkeypatch.setattr(model, "encode", encode)
    clip = film(tmp_path / "clip.mp4", 20)
    done = command("track", clip, "-i", "the red square", "-o", "out", "--format", "davis", *options)
    assert done.code == 7, done.err
    tracked = list(read_tracks("out"))
    assert 1 <= len(tracked) < 20
    assert len(list((tmp_path / "out" / "masks").glob("*.png"))) == len(tracked)
    assert threads("trackgpt-") == []


def test_an_interrupt_leaves_a_mask_for_every_frame_in_the_log(command, model, tmp_path):
    def interrupt(number):
        if number == 7:
            raise KeyboardInterrupt

    model.before = interrupt
    clip = film(tmp_path / "clip.mp4", 20)
    options = ("--format", "davis,mp4", "--ahead", 3)
    done = command("track", clip, "-i", "the red square", "-o", "out", *options)
    assert (done.code, len(list(read_tracks("out")))) == (130, 7)
    assert len(list((tmp_path / "out" / "masks").glob("*.png"))) == 7
    with open_source(tmp_path / "out" / "video.mp4") as video:
        assert len(list(video)) == 7
    assert threads("trackgpt-") == []


def test_a_picture_that_cannot_be_written_ends_the_run_and_the_thread(command, model, monkeypatch, tmp_path):
    write = DavisWriter.write

    def full(self, record, height, width):
        if record.index == 3:
            raise OutputError("no space", "OUT02")
        return write(self, record, height, width)

    monkeypatch.setattr(DavisWriter, "write", full)
    clip = film(tmp_path / "clip.mp4", 30)
    done = command("track", clip, "-i", "the red square", "-o", "out", "--format", "davis", "--ahead", 2)
    assert done.code == 6
    assert "OUT02: no space" in done.err
    assert 4 <= len(list(read_tracks("out"))) <= 4 + WAITING + 1
    assert sorted(path.name for path in Path("out/masks").iterdir()) == [f"{t:05d}.png" for t in range(3)]
    assert not threads("trackgpt-")


def test_whatever_goes_wrong_with_the_last_picture_the_video_is_closed_and_the_thread_ends(
    tracker, monkeypatch, tmp_path
):
    def broken(self, record, height, width):
        if record.index == 5:
            raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(DavisWriter, "write", broken)

    def run():
        with (
            tracker.open(list(pictures(6)), out=tmp_path / "out") as playback,
            Outputs(playback, ("davis", "mp4")) as outputs,
        ):
            playback.say("the red square")
            for result in playback:
                outputs.write(result)

    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        run()
    with open_source(tmp_path / "out" / "video.mp4") as video:
        assert len(list(video)) == 5
    assert not threads("trackgpt-")


def test_the_masks_written_are_those_of_the_log(command, model, tmp_path):
    frames = save_folder(tmp_path / "frames", 12)
    command("track", frames, "-i", "the red square and the green square", "-o", "out", "--format", "davis,mp4")
    written = {path.name: path.read_bytes() for path in (tmp_path / "out" / "masks").iterdir()}
    writer = DavisWriter(tmp_path / "again")
    for record in read_tracks("out"):
        assert writer.write(record, *record.size).read_bytes() == written.pop(f"{record.index:05d}.png")
    assert not written


# --- speed: that it runs, never how fast ---


@pytest.mark.parametrize("part", ["online", "targets"])
def test_the_parts_of_speed_run_and_their_numbers_are_numbers(tiny, part):
    measured = speed.measure_part(part, speed.Workload(str(tiny), pairs=1, frames=6, height=48, width=64))
    assert all(np.isfinite(line.values).all() for line in measured.lines)
    assert all(value > 0 for name, value in measured.last.items() if name != "further_target")
