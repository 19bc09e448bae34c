"""Samples on their way to the model: the same whoever makes them, and none that is broken goes unnamed."""

import json
import os
import signal

import cv2
import numpy as np
import pytest
from tiny_runs import CPU, Line, plan, run

from trackgpt.errors import InputError, TrackGPTError, UsageError
from train.feed import batches, too_many
from train.plan import Plan
from train.processes import Processes


class Counting(Line):
    """Samples that are their own seed; `broken` cannot be made, `wrong` is a mistake of the stage's."""

    def __init__(self, broken=(), wrong=None, error=None):
        super().__init__()
        self.broken, self.wrong, self.error = set(broken), wrong, error or KeyError("mask")

    def sample(self, seed):
        if seed == self.wrong:
            raise self.error
        if seed in self.broken:
            raise InputError(f"picture {seed}.jpg is truncated")
        return super().sample(seed)


def seeds(stage, plan, processes=CPU, done=0):
    return [[s[0] for s in batch.samples] for batch in batches(stage, plan, processes, done)]


def test_samples_are_a_function_of_seed_and_index():
    one = seeds(Line(), plan(seed=3))
    assert one == [[300_000_000 + 3 * step + i for i in range(3)] for step in range(4)]
    assert seeds(Line(), plan(seed=3), done=9) == one[3:]
    assert set(sum(seeds(Line(), plan(seed=4)), [])).isdisjoint(sum(one, []))


def test_processes_take_batches_in_turn_and_together_see_what_one_sees():
    alone = seeds(Line(), plan(batch=2, accumulate=2))
    first, second = (seeds(Line(), plan(batch=2), Processes(CPU.device, rank, 2)) for rank in (0, 1))
    assert first == alone[0::2]
    assert second == alone[1::2]
    assert len(sum(alone, [])) == len(set(sum(alone, []))) == 16


def test_what_is_drawn_while_learning_depends_on_the_batch_and_not_on_who_has_it():
    alone = [batch.seed for batch in batches(Line(), plan(batch=2, accumulate=2), CPU)]
    second = [batch.seed for batch in batches(Line(), plan(batch=2), Processes(CPU.device, 1, 2))]
    assert second == alone[1::2]
    assert len(set(alone)) == 8


def test_worker_processes_give_the_same_samples_in_order_even_after_opencv_has_started_threads():
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((900, 900, 3), np.uint8), (9, 9), 2)

    def too_long(*_):
        raise TimeoutError("a worker process waits for ever")

    old = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(20)
    try:
        alone, helped = (seeds(Line(), plan(workers=w, steps=3)) for w in (0, 1))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
    assert alone == helped


# Broken samples


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_sample_is_replaced_by_the_next_good_one_and_named(tmp_path, workers):
    stage = Counting(broken=(4, 5, 11))
    assert run(stage, tmp_path, workers=workers) == 4
    assert sum(stage.seen, []) == [0, 1, 2, 3, 6, 6, 6, 7, 8, 9, 10, 12]
    lines = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert lines == [
        {"index": 4, "replaced_by": 6, "reason": "picture 4.jpg is truncated"},
        {"index": 5, "replaced_by": 6, "reason": "picture 5.jpg is truncated"},
        {"index": 11, "replaced_by": 12, "reason": "picture 11.jpg is truncated"},
    ]


def test_too_many_broken_samples_stop_the_run_after_a_checkpoint(tmp_path):
    stage = Counting(broken=(1, 4))
    with pytest.raises(
        InputError, match=r"2 of 6 samples are broken, more than plan.max_skipped=0.001 allows"
    ) as error:
        run(stage, tmp_path, max_skipped=0.001)
    assert error.value.exit_code == 3
    assert len((tmp_path / "skipped.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "checkpoints/latest").read_text() == "000002\n"
    with pytest.raises(InputError, match="3 of 9 samples are broken"):  # also when it is started again
        run(Counting(broken=(1, 4, 7)), tmp_path, max_skipped=0.001)


def test_the_share_counts_from_a_thousand_samples_on():
    assert [too_many(n, 40, Plan()) for n in (10, 11)] == [False, True]
    assert [too_many(n, 5000, Plan()) for n in (50, 51)] == [False, True]
    assert too_many(1, 10**6, Plan(max_skipped=0.0))


def test_data_in_which_nothing_is_whole_is_refused_at_once(tmp_path):
    with pytest.raises(InputError, match="100 samples from 0 on are all broken; the first: picture 0.jpg is truncated"):
        run(Counting(broken=range(1000)), tmp_path)


# Mistakes


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_in_a_stage_names_the_sample_the_reason_and_the_line(tmp_path, workers):
    with pytest.raises(TrackGPTError, match=r"^sample 7: KeyError: 'mask' at .*test_train_feed.py:\d+$"):
        run(Counting(wrong=7), tmp_path, workers=workers)


def test_an_error_of_ours_keeps_its_exit_code(tmp_path):
    with pytest.raises(UsageError, match="sample 7: no such split") as error:
        run(Counting(wrong=7, error=UsageError("no such split")), tmp_path, workers=1)
    assert error.value.exit_code == 2


def test_a_worker_that_dies_says_which_samples_and_what_to_do(tmp_path):
    class Dies(Line):
        def sample(self, seed):
            if seed == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().sample(seed)

    with pytest.raises(
        TrackGPTError, match=r"a worker process died while it made samples from \d on \(.*; if memory ran out"
    ):
        run(Dies(), tmp_path, workers=1, save_minutes=0.0)
