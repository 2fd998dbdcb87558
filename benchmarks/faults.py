"""Does a harvest, does a training end as if nothing had happened? Kills, full disks, damage, clocks, signals.

The commands `lensing harvest` and `lensing train` run in processes of their own and meet with an accident; then they
run again, undisturbed. A line for each accident: how often it was tried, how the command ended, and whether the bytes
of the store and of the weights are those of a run without accidents. A difference, a half-written file or a traceback
ends with 1.

    python benchmarks/faults.py             twenty random moments for each command; some minutes
    python benchmarks/faults.py --quick     three moments
    python benchmarks/faults.py --fork      (Linux) processes are copies of one that has imported torch: much quicker
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SITES = ["mlp_out.2", "resid_post.4"]
WORDS, DOCUMENTS = 60, 600
SMALLEST = 200  # blocks of 512 bytes: less than a shard or a checkpoint, more than the files of JSON
NOT_TIMED = {"run.json", "config.json", "metrics.jsonl"}  # these say how long it took; the numbers are compared below
JUMPING = """
import itertools, sys, time
jumps, real = itertools.cycle([1e9, -1e9, 3600.0]), time.time
time.time = lambda: real() + next(jumps)
from lensing.cli import main
sys.exit(main(sys.argv[1:]))
"""


class Process:
    """A running command: a new interpreter, or with `fork` a copy of this one."""

    def __init__(self, call: Sequence[str], log: Path, *, fork: bool, limit: int | None = None) -> None:
        self.log = log
        self._child: subprocess.Popen[bytes] | None = None
        if not fork:
            wrapped = [] if limit is None else ["sh", "-c", f'ulimit -f {limit}; exec "$@"', "sh"]
            command = call if call[0] == sys.executable else [sys.executable, "-m", "lensing", *call]
            with open(log, "wb") as out:
                self._child = subprocess.Popen([*wrapped, *command], stdout=out, stderr=out)
            self.pid = self._child.pid
            return
        self.pid = os.fork()
        if not self.pid:
            self._be(call, limit)

    def _be(self, call: Sequence[str], limit: int | None) -> None:
        code = 99
        try:
            out = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            if limit is not None:
                import resource

                resource.setrlimit(resource.RLIMIT_FSIZE, (limit * 512, limit * 512))
            if call[0] == sys.executable:
                sys.argv = ["-c", *call[3:]]
                exec(call[2], {})
            from lensing.cli import main

            code = main(list(call))
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)

    def wait(self, seconds: float | None = None) -> int | None:
        """Exit code (negative: the signal), None where it still runs after `seconds`."""
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            if self._child is not None:
                if (code := self._child.poll()) is not None:
                    return code
            else:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    return os.waitstatus_to_exitcode(status)
            if end is not None and time.monotonic() > end:
                return None
            time.sleep(0.002)

    def said(self) -> str:
        """What it printed."""
        return self.log.read_text(errors="replace")


class Bench:
    """The two commands, their undisturbed results, and the table."""

    def __init__(self, work: Path, seed: int, *, fork: bool) -> None:
        self.work, self.draw, self.fork = work, random.Random(seed), fork
        self.rows: list[dict[str, Any]] = []
        self.text = work / "text.txt"
        self._write_text()
        self.harvest = ["harvest", "--model", "almanac", "--text", str(self.text), "--sites", *SITES, "--shuffle-rows",
                        "4000", "--shard-rows", "2000"]  # fmt: skip
        self.train = ["train", "batchtopk", "--width", "512", "--k", "8", "--batch", "512", "--tokens", "120000",
                      "--site", SITES[0], "--checkpoint-minutes", "0.0005", "--store"]  # fmt: skip
        self.whole: dict[str, dict[str, Any]] = {}
        self.took: dict[str, tuple[float, float]] = {}

    def _write_text(self) -> None:
        import lensing as ln

        pieces = ln.load_model("almanac", device="cpu").tokenizer.get_vocab()
        words = sorted(word for word in (piece.removeprefix("▁") for piece in pieces) if word.isalpha())
        draw = random.Random(0)
        documents = (" ".join(draw.choices(words, k=draw.randint(WORDS // 2, WORDS))) for _ in range(DOCUMENTS))
        self.text.write_text("\n\n".join(documents))

    def call(self, what: str, out: Path, store: Path | None = None) -> list[str]:
        """The arguments of `harvest` or `train` into a folder."""
        more = [] if what == "harvest" else [str(store or self.work / "harvest")]
        return [*(self.harvest if what == "harvest" else self.train), *more, "--out", str(out)]

    def start(self, call: Sequence[str], **more: Any) -> Process:
        """Start a command."""
        return Process(call, self.work / "log.txt", fork=self.fork, **more)

    def undisturbed(self) -> None:
        """Run both commands once, and note when they first wrote and when they ended."""
        for what in ("harvest", "train"):
            out = self.work / what
            began = time.monotonic()
            process, first = self.start(self.call(what, out)), None
            while (code := process.wait(0.01)) is None:
                if first is None and out.exists() and any(out.iterdir()):
                    first = time.monotonic() - began
            if code:
                raise SystemExit(f"{what} failed without any accident: {process.said()}")
            self.took[what] = (first or 0.0, time.monotonic() - began)
            self.whole[what] = outcome(out)

    def tell(self, name: str, tried: int, ended: str, good: bool) -> None:
        """Print and keep a line."""
        self.rows.append({"accident": name, "tried": tried, "ended": ended, "good": good})
        print(f"{'ok  ' if good else 'BAD '} {name:44} {tried:3} x  {ended}", flush=True)

    def same(self, what: str, out: Path, store: Path | None = None) -> bool:
        """Whether the command, run again, ends with what an undisturbed run ends with."""
        process = self.start(self.call(what, out, store))
        code = process.wait()
        if code:
            print(process.said())
        return code == 0 and outcome(out) == self.whole[what] and not list(out.rglob("*.part"))

    # --- accidents ---

    def kills(self, what: str, moments: int) -> None:
        """kill -9 at random moments of a command; the next command goes on in the same folder."""
        out, done, whole, good = self.work / f"killed-{what}", 0, 0, True
        first, end = self.took[what]
        while done < moments:
            process = self.start(self.call(what, out))
            code = process.wait(self.draw.uniform(0.7 * first, end))
            if code is None:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                done += 1
                good &= nothing_half(out, self.whole[what])
            else:
                good &= code == 0 and outcome(out) == self.whole[what]
                whole += 1
                shutil.rmtree(out)
        good &= self.same(what, out)
        self.tell(f"kill -9, {what}", moments, f"{whole + 1} runs came to their end between kills", good)

    def signals(self, what: str) -> None:
        """Signals that ask a command to end."""
        for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
            out = self.work / f"{what}-{name}"
            process = self.start(self.call(what, out))
            while process.wait(0.002) is None and not progress(out, what):
                pass
            os.kill(process.pid, getattr(signal, name))
            code = process.wait()
            good = code == 130 and "Traceback" not in process.said() and nothing_half(out, self.whole[what])
            self.tell(f"{name}, {what}", 1, f"exit {code}", self.same(what, out) and good)

    def full(self, what: str) -> None:
        """A small file system that fills up midway, or, where none can be mounted, a limit on the size of a file."""
        place = self.work / f"small-{what}"
        place.mkdir()
        out = place / "out"
        with tmpfs(place) as mounted:
            process = self.start(self.call(what, out), limit=None if mounted else SMALLEST)
            if mounted:
                while process.wait(0.001) is None and not progress(out, what):
                    pass
                fill(place / "ballast")
            code, said = process.wait(), process.said()
            reported = code == 1 and "cannot be written" in said and "Traceback" not in said
            good = reported and nothing_half(out, self.whole[what])
            (place / "ballast").unlink(missing_ok=True)
            good &= self.same(what, out)
        self.tell(f"full disk ({'tmpfs' if mounted else 'ulimit -f'}), {what}", 1, f"exit {code}", good)

    def damage(self, name: str, hurt: Callable[[Path], None]) -> None:
        """A shard that is removed or changed: verify and training say so, the same harvest mends it."""
        store, out = self.work / f"store-{name}", self.work / f"sae-{name}"
        shutil.copytree(self.work / "harvest", store)
        hurt(store / SITES[0] / "00003.safetensors")
        codes = []
        for call in (["verify", str(store)], self.call("train", out, store)):
            process = self.start(call)
            codes.append(process.wait())
            if "Traceback" in process.said() or "00003.safetensors" not in process.said():
                codes.append(-1)
        good = codes == [1, 1] and self.same("harvest", store) and self.same("train", out, store)
        self.tell(f"{name} shard", 1, f"verify and train exit {codes}", good)

    def flipped_checkpoint(self) -> None:
        """A changed byte in the newest checkpoint: the one before it is used."""
        out = self.work / "flipped-checkpoint"
        process = self.start(self.call("train", out))
        while process.wait(0.001) is None and not (out / "checkpoint.before.safetensors").exists():
            pass
        os.kill(process.pid, signal.SIGTERM)
        code = process.wait()
        flip(out / "checkpoint.safetensors", self.draw)
        self.tell("flipped byte, newest checkpoint", 1, f"exit {code}, then 0", self.same("train", out))

    def flipped_weights(self) -> None:
        """A changed byte in finished weights: the command says so and changes nothing."""
        out = self.work / "flipped-weights"
        shutil.copytree(self.work / "train", out)
        flip(out / "weights.safetensors", self.draw)
        before, codes = outcome(out), []
        for call in (self.call("train", out), ["verify", str(out)]):
            process = self.start(call)
            codes.append(process.wait())
            if "Traceback" in process.said() or "weights.safetensors" not in process.said():
                codes.append(-1)
        self.tell("flipped byte, finished weights", 1, f"train and verify exit {codes}",
                  codes == [1, 1] and outcome(out) == before)  # fmt: skip

    def clock(self, what: str) -> None:
        """A wall clock that jumps by thirty years and back at each look."""
        out = self.work / f"clock-{what}"
        process = self.start([sys.executable, "-c", JUMPING, *self.call(what, out)])
        code = process.wait()
        self.tell(f"clock jumps, {what}", 1, f"exit {code}", code == 0 and outcome(out) == self.whole[what])


def outcome(folder: Path) -> dict[str, Any]:
    """Hashes of all finished files; of those that say how long it took, everything else that they say."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if path.name not in NOT_TIMED:
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    if (folder / "metrics.jsonl").exists():
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        found["metrics"] = [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
    if (folder / "config.json").exists():
        record = json.loads((folder / "config.json").read_text())
        for name in ("seconds", "step_seconds", "reading_seconds"):
            record["training"].pop(name)
        found["config"] = record
    return found


def nothing_half(folder: Path, whole: dict[str, Any]) -> bool:
    """Whether each file with a final name is whole: the hash of a finished run, or a checkpoint that can be read."""
    from lensing.training.checkpoint import read_checkpoint

    for path in (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".part" and p.name not in NOT_TIMED):
        if path.name.startswith("checkpoint"):
            read_checkpoint(path)
        elif hashlib.sha256(path.read_bytes()).hexdigest() != whole[str(path.relative_to(folder))]:
            return False
    return True


def progress(out: Path, what: str) -> bool:
    """Whether a command has got somewhere."""
    if what == "harvest":
        return len(list(out.glob("*/0*.safetensors"))) > 3
    return (out / "checkpoint.safetensors").exists()


def flip(path: Path, draw: random.Random) -> None:
    """Change one bit of one byte."""
    raw = bytearray(path.read_bytes())
    raw[draw.randrange(len(raw) // 2, len(raw))] ^= 1 << draw.randrange(8)
    path.write_bytes(raw)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    try:
        with open(path, "wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                with suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass
    except OSError:
        pass


@contextmanager
def tmpfs(place: Path) -> Any:
    """Mount a small file system where that is allowed; yields whether it was."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(place)], check=True)


def main() -> int:
    """Print a line for each accident; return 1 where one of them did harm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three random moments instead of twenty")
    parser.add_argument("--fork", action="store_true", help="copy one process that has imported torch (Linux)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and bytes")
    parser.add_argument("--out", type=Path, help="also write the table as JSON to this file")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
    import torch

    torch.set_num_threads(1)  # a copied process has none of the threads of the first
    moments = 3 if options.quick else 20
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.seed, fork=options.fork)
        bench.undisturbed()
        print(f"seed {options.seed}; undisturbed: " + ", ".join(
            f"{what} writes from {first:.1f} s and ends at {end:.1f} s" for what, (first, end) in bench.took.items()
        ))  # fmt: skip
        for what in ("harvest", "train"):
            bench.kills(what, moments)
            bench.signals(what)
            bench.full(what)
            bench.clock(what)
        bench.damage("removed", Path.unlink)
        bench.damage("flipped", lambda path: flip(path, bench.draw))
        bench.flipped_checkpoint()
        bench.flipped_weights()
        rows = bench.rows
    print(f"{time.monotonic() - began:.0f} s")
    if options.out is not None:
        from lensing.config import versions

        options.out.write_text(json.dumps({"seed": options.seed, "fork": options.fork, "table": rows,
                                           "versions": versions()}, indent=1))  # fmt: skip
    return int(not all(row["good"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
