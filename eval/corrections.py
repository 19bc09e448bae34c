"""How often a person has to correct a tracker: a simulated user who says the right sentence when the track is wrong.

The user watches every frame, sees the result before speaking, and is heard on the next frame. What the data have a
person say there comes first; the correction then waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from eval.kits.box_sequences import OneTarget, needed_frames
from eval.listening import Heard, listen
from eval.metrics.interactive import OVERLAP_WANTED
from trackgpt.data.box_video import InteractiveBoxSequence
from trackgpt.errors import InputError
from trackgpt.export.records import plain
from trackgpt.geometry.boxes import box_iou
from trackgpt.online import Tracker

Wording = Literal["full", "short", "nothing"]


@dataclass(frozen=True)
class User:
    """How a simulated user corrects.

    Attributes:
        patience: frames on which the track is wrong in a row before the user says so, at least 1. Frames on which the
            target is not seen count for nothing, and neither begin nor end a row.
        says: the whole expression ("full"), a few words that carry on what was said before ("short", "no, the red
            one"), or nothing at all, for comparison.
    """

    patience: int = 3
    says: Wording = "full"


@dataclass(frozen=True)
class Watched:
    """One video, as the user saw it.

    Attributes:
        name: of the sequence.
        overlaps: float64 (T,) from the first sentence on, IoU with the target, NaN where it is not seen.
        corrections: frames on which the user corrected, and the words.
        heard: frames on which anything was said, and how it was understood.
        reasons: (T,) why the slow model was asked on each frame, "" where it was not.
        readings: int64 (T,) how often it was asked.
        seconds, cpu_seconds: float64 (T,) of each frame, see `Listened`.
        settled: the track is right on the last frame on which the target is seen.
    """

    name: str
    overlaps: np.ndarray
    corrections: tuple[tuple[int, str], ...]
    heard: tuple[tuple[int, Heard], ...]
    reasons: tuple[str, ...]
    readings: np.ndarray
    seconds: np.ndarray
    cpu_seconds: np.ndarray
    settled: bool

    def as_json(self) -> dict[str, Any]:
        """Plain values, NaN as null."""
        kept: dict[str, Any] = plain(asdict(self), 6)
        return kept

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Watched:
        """What `as_json` gave.

        Raises:
            InputError: it is no watched video.
        """
        try:
            arrays = {name: np.array(values[name], np.float64) for name in ("overlaps", "seconds", "cpu_seconds")}
            return cls(
                str(values["name"]),
                corrections=tuple((int(t), str(text)) for t, text in values["corrections"]),
                heard=tuple((int(t), Heard(**heard)) for t, heard in values["heard"]),
                reasons=tuple(map(str, values["reasons"])),
                readings=np.array(values["readings"], np.int64),
                settled=bool(values["settled"]),
                **arrays,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"holds no watched video ({error!r:.80}); delete it to watch the video again") from error


def watch(
    tracker: Tracker,
    frames: Iterable[np.ndarray],
    truth: np.ndarray,
    said: Mapping[int, str],
    correction: Callable[[int], str],
    user: User,
    name: str = "",
) -> Watched:
    """Track a video with a user who corrects; what kind of instruction a sentence is, the tracker finds out.

    Args:
        tracker: the system.
        frames: uint8 RGB (height, width, 3), from the frame of the first sentence on.
        truth: float32 (T, 4) xyxy of all frames of the video, NaN where the target is not seen.
        said: what is said by frame, whatever the tracker does.
        correction: what to say on a frame of the video; "" where there are no words for the target.
        user: see there.
        name: of the sequence.
    """
    first, target, seen, overlaps = min(said), OneTarget(), [], []
    watching = _Watching(user, {t - first: text for t, text in said.items()}, lambda t: correction(first + t))
    for t, one in enumerate(listen(tracker, watching.says, frames), first):
        seen.append(one)
        overlaps.append(_overlap(target.box(one.seen), truth[t]))
        watching.sees(overlaps[-1])
    found = np.array(overlaps)
    last = found[~np.isnan(found)][-1:]
    return Watched(
        name,
        found,
        tuple((first + t, text) for t, text in watching.corrections),
        tuple((t, one.heard) for t, one in enumerate(seen, first) if one.heard),
        tuple(one.seen.reason for one in seen),
        np.array([one.readings for one in seen]),
        np.array([one.seconds for one in seen]),
        np.array([one.cpu_seconds for one in seen]),
        bool((last > OVERLAP_WANTED).all()),
    )


class _Watching:
    """A user in front of a video: says what there is to say, and what is wrong with what was seen before."""

    def __init__(self, user: User, said: Mapping[int, str], correction: Callable[[int], str]) -> None:
        self.user, self.said, self.correction = user, said, correction
        self.wrong = 0
        self.corrections: list[tuple[int, str]] = []

    def says(self, t: int) -> str:
        """The words about frame t."""
        if text := self.said.get(t, ""):
            self.wrong = 0
        elif self.wrong >= self.user.patience and self.user.says != "nothing" and (text := self.correction(t)):
            self.wrong = 0
            self.corrections.append((t, text))
        return text

    def sees(self, overlap: float) -> None:
        """The IoU of a frame's track, NaN where the target is not seen, which counts for nothing."""
        if not np.isnan(overlap):
            self.wrong = 0 if overlap > OVERLAP_WANTED else self.wrong + 1


def _overlap(box: np.ndarray, truth: np.ndarray) -> float:
    if np.isnan(truth).any():
        return np.nan
    return 0.0 if np.isnan(box).any() else float(box_iou(np.float32([box]), np.float32([truth]))[0, 0])


def watch_sequence(tracker: Tracker, sequence: InteractiveBoxSequence, user: User, everything: bool = False) -> Watched:
    """Track a sequence of InteractTrack with a user who corrects.

    Where a script is beside the sequence (SynthTrack-Interact), what is said whatever happens are its instructions that
    change the target, and a correction is in its words for the frame. Elsewhere everything is said that the sequence
    holds, and a correction repeats the last of it.

    Args:
        tracker: the system.
        sequence: with its frames.
        user: see there.
        everything: say all of a script, questions and hints included.

    Raises:
        InputError: the sequence is malformed, or has no frames.
    """
    video, script = needed_frames(sequence), sequence.script()
    said = {prompt.frame: prompt.text for prompt in video.prompts if prompt.frame < len(video)}
    if script is not None and not everything:
        needed = {each.frame for each in script.said if each.kind in ("start", "conditional") or each.old}
        said = {t: text for t, text in said.items() if t in needed}

    def correction(t: int) -> str:
        if script is not None:
            return script.corrections[t][user.says == "full"]
        return said[max(frame for frame in said if frame <= t)]

    assert video.boxes is not None
    frames = (video.frame(t) for t in range(min(said), len(video)))
    return watch(tracker, frames, video.boxes, said, correction, user, sequence.name)


def corrections_summary(videos: Sequence[Watched]) -> Mapping[str, float]:
    """The figures of several videos.

    Returns:
        corrections: per video. settled: percent of the videos that end with a right track. right: percent of the frames
        with the target on which IoU is above 0.5, and iou: its mean there in percent, both of all videos pooled.
        groundings: readings of the slow model per video, and rethinks: those of them that no words asked for. refused:
        percent of what was said that the system could not do.
        tracker_fps: frames per second on which the slow model was not asked, NaN without such frames; end_to_end_fps:
        of all frames. tracker_fps_cpu, end_to_end_fps_cpu: the same per second of processor time.
    """
    overlaps = np.concatenate([video.overlaps for video in videos])
    overlaps = overlaps[~np.isnan(overlaps)]
    seconds, cpu = (np.concatenate([getattr(v, name) for v in videos]) for name in ("seconds", "cpu_seconds"))
    readings = np.concatenate([video.readings for video in videos])
    reasons = [reason for video in videos for reason in video.reasons]
    heard = [each for video in videos for _, each in video.heard]
    return {
        "corrections": sum(len(video.corrections) for video in videos) / len(videos),
        "settled": 100 * sum(video.settled for video in videos) / len(videos),
        "right": 100 * float(np.mean(overlaps > OVERLAP_WANTED)) if len(overlaps) else np.nan,
        "iou": 100 * float(np.mean(overlaps)) if len(overlaps) else np.nan,
        "groundings": float(readings.sum()) / len(videos),
        "rethinks": sum(reason not in ("", "prompt") for reason in reasons) / len(videos),
        "refused": 100 * sum(each.refused != "" for each in heard) / len(heard),
        "tracker_fps": _rate(seconds[readings == 0]),
        "end_to_end_fps": _rate(seconds),
        "tracker_fps_cpu": _rate(cpu[readings == 0]),
        "end_to_end_fps_cpu": _rate(cpu),
    }


def _rate(seconds: np.ndarray) -> float:
    """Frames per second; NaN of none, or of frames that took no time that can be measured."""
    total = float(seconds.sum())
    return len(seconds) / total if total else np.nan
