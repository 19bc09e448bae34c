"""Injected faults: what a run had recorded when it was killed, stopped or refused is whole afterwards.

    python tests/faults.py --faults 200 --seed 0        # minutes; `make faults`

Each fault meets a run of its own, in a process that was forked once everything was imported. Afterwards every line of
the log must be a line of the undisturbed run's log, in order and without a gap; what the log holds must be exportable;
nothing else of the folder may be half written. The last line of stdout is key=value, with the lines that were lost.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import scripted_model  # noqa: E402
import torch  # noqa: E402, F401 - imported before processes are forked

import trackgpt.hub  # noqa: E402
from trackgpt.app import cli, repairing, tracking  # noqa: E402, F401
from trackgpt.export import coco, davis, exporting, mot, overlay, records, timeline  # noqa: E402, F401

FRAMES = 24
NAMES = ("tracks.jsonl", "events.jsonl")
EXPORTS = ("video.mp4", "masks", "coco.json", "mot.txt", "timeline.png")


@dataclass(frozen=True)
class Happened:
    """What a fault left.

    Attributes:
        recorded: lines of tracks.jsonl that were seen before the fault struck, and must be there after it.
        code: how the process ended: its exit code, or minus the signal.
    """

    recorded: int
    code: int


def track(out: Path, clip: Path | str, pause: float, before: Callable[[], None]) -> int:
    """Start a run in a process of its own; gives its number."""
    number = os.fork()
    if number:
        return number
    status = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        before()
        trackgpt.hub.load_model = lambda *_, **__: scripted_model.ScriptedModel(pause=pause)  # type: ignore[assignment]
        sys.argv = ["trackgpt", "track", str(clip), "-i", "the red square", "-o", str(out), "-q", "--json"]
        cli.main()
    except SystemExit as left:
        status = int(left.code or 0)
    finally:
        os._exit(status)


def lines(out: Path, name: str) -> list[bytes]:
    """The whole lines of a log."""
    path = out / name
    return (
        [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")] if path.exists() else []
    )


def ended(number: int) -> int:
    """Wait for a process; its exit code, or minus the signal that ended it."""
    for _ in range(3000):
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    raise AssertionError("the run did not end within 30 s")


def struck(out: Path, clip: Path, chance: random.Random, by: signal.Signals) -> Happened:
    """A signal after a random frame."""
    number, at = track(out, clip, 0.004, lambda: None), chance.randrange(FRAMES)
    began = time.monotonic()
    while len(lines(out, "tracks.jsonl")) < at and time.monotonic() - began < 15:
        time.sleep(0.001)
    seen = len(lines(out, "tracks.jsonl"))
    os.kill(number, by)
    return Happened(seen, ended(number))


def filled(out: Path, clip: Path, chance: random.Random, largest: int) -> Happened:
    """No file may grow beyond a random size."""
    size = chance.randrange(200, largest)

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return Happened(0, ended(track(out, clip, 0.0, limited)))


def unheard(out: Path, clip: Path, chance: random.Random) -> Happened:
    """Standard output is a pipe that nobody reads any more, full, or closed."""

    kind = chance.randrange(3)

    def broken() -> None:
        if kind == 0:
            reads, writes = os.pipe()
            os.close(reads)
            os.dup2(writes, 1)
        elif kind == 1:
            os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        else:
            sys.stdout.close()
            sys.stdout = None  # type: ignore[assignment] - as Python starts without one

    return Happened(FRAMES, ended(track(out, clip, 0.0, broken)))


def refused(out: Path, clip: Path, chance: random.Random) -> Happened:
    """The output cannot be made at all: below a file, or where the system lets nobody write."""
    place = chance.choice((clip / "out", Path("/proc/out"), Path("/sys/out")))
    return Happened(0, ended(track(place, clip, 0.0, lambda: None)))


def transport_stream(path: Path) -> Path:
    """The clip as MPEG-TS, which can be read from any beginning."""
    import av

    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=12)
        stream.height, stream.width, stream.pix_fmt = scripted_model.HEIGHT, scripted_model.WIDTH, "yuv420p"
        for picture in scripted_model.pictures(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    return path


def streamed(out: Path, data: bytes, chance: random.Random) -> Happened:
    """An HTTP sender that is slow, and that goes away in the middle and does not come back."""
    import http.server
    import threading

    end, pause = chance.randrange(len(data) // 4, len(data)), chance.choice((0.0, 0.05))
    served: list[int] = []

    class Sender(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - the name of the method in the library
            served.append(1)
            if len(served) > 1:
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            for start in range(0, end, 4096):
                self.wfile.write(data[start : min(end, start + 4096)])
                self.wfile.flush()
                time.sleep(pause)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sender) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            return Happened(0, ended(track(out, f"http://127.0.0.1:{server.server_port}/clip.ts", 0.0, lambda: None)))
        finally:
            server.shutdown()


def stream_problem(out: Path, happened: Happened) -> str:
    """What is wrong with the run of a stream that broke off: its frames are no function of the clip alone."""
    if happened.code not in (0, 3):
        return f"exit code {happened.code}, wanted 0 or 3"
    if not (out / "tracks.jsonl").exists():
        return ""
    found = [record.index for record in records.read_tracks(out)]
    if found != list(range(len(found))) or not list(records.read_events(out)):
        return f"frames {found}"
    lacking = [name for name in ("masks", "coco.json", "mot.txt") if found and not (out / name).exists()]
    return f"no {lacking[0]}" if lacking else ""


def problem(out: Path, whole: Path, happened: Happened, kind: str) -> str:
    """What was lost or left half; empty where nothing was."""
    if kind == "stream":
        return stream_problem(out, happened)
    codes = {
        "refused": (6,),
        "kill": (-9, 0),
        "stop": (143, 0),
        "interrupt": (130, 0),
        "full": (0, 6),
        "stdout": (0, 6),
    }[kind]
    if happened.code < 0 and not happened.recorded:
        return ""  # it struck before the program began
    if happened.code not in codes:
        return f"exit code {happened.code}, wanted one of {codes}"
    if not (out / "tracks.jsonl").exists():
        return (
            "" if kind == "refused" or happened.code and not happened.recorded else "no log"
        )  # it struck before the run began
    for name in NAMES:
        ours, theirs = lines(out, name), lines(whole, name)
        shown = [line for line in ours if b'"type":"error"' not in line and b'"type":"warn"' not in line]
        if shown != theirs[: len(shown)]:
            return f"{name} differs from the undisturbed run's"
    count = len(lines(out, "tracks.jsonl"))
    if count < happened.recorded:
        return f"{happened.recorded} frames were recorded, {count} are left"
    if kind == "stdout" and count < FRAMES:
        return f"{count} of {FRAMES} frames"
    if count and (out / "run.json").exists() and not repaired(out):
        return "repair did not make every export"
    return "" if not [path for path in out.rglob("*.part*") if kind != "kill"] else "a part of a file was left"


def repaired(out: Path) -> bool:
    """Whether `trackgpt repair` makes what is missing."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    number = os.fork()
    if not number:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        try:
            repairing.run(out, "")
        except BaseException:
            os._exit(1)
        os._exit(0)
    os.close(nowhere)
    return ended(number) == 0 and all((out / name).exists() for name in EXPORTS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Inject faults; 1 when anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    began, chance = time.monotonic(), random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        clip, whole = scripted_model.film(Path(folder) / "clip.mp4", FRAMES), Path(folder) / "whole"
        assert ended(track(whole, clip, 0.0, lambda: None)) == 0
        exporting.export(whole, ["davis", "coco", "mot", "timeline"])  # imports what every run would import anew
        sent = transport_stream(Path(folder) / "clip.ts").read_bytes()
        largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())
        kinds: dict[str, Callable[[Path], Happened]] = {
            "kill": lambda out: struck(out, clip, chance, signal.SIGKILL),
            "stop": lambda out: struck(out, clip, chance, signal.SIGTERM),
            "interrupt": lambda out: struck(out, clip, chance, signal.SIGINT),
            "full": lambda out: filled(out, clip, chance, largest),
            "stdout": lambda out: unheard(out, clip, chance),
            "refused": lambda out: refused(out, clip, chance),
            "stream": lambda out: streamed(out, sent, chance),
        }
        tried, lost = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0)
        for number in range(options.faults):
            kind = list(kinds)[number % len(kinds)]
            out = Path(folder) / "out"
            shutil.rmtree(out, ignore_errors=True)
            found = problem(out, whole, kinds[kind](out), kind)
            tried[kind] += 1
            if found:
                lost[kind] += 1
                print(f"{kind}, fault {number}: {found}")
        for kind in kinds:
            print(f"{kind:10s} {tried[kind]:5d} faults, {lost[kind]} with a loss")
    total = sum(lost.values())
    print(f"faults={sum(tried.values())} lost={total} seed={options.seed} seconds={time.monotonic() - began:.0f}")
    return int(total > 0)


if __name__ == "__main__":
    sys.exit(main())
