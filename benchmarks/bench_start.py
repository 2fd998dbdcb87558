"""How long a person waits for `lensing --help` and `import lensing`; the limits are the project's promise."""

import subprocess
import sys
import time

LIMITS_S = {
    "lensing --help": ([sys.executable, "-m", "lensing", "--help"], 0.4),
    "import lensing": ([sys.executable, "-c", "import lensing"], 0.1),
}


def best(command: list[str], times: int = 7) -> float:
    """Return the shortest wall time in seconds of several runs."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - started)
    return min(found)


if __name__ == "__main__":
    failed = False
    for name, (command, limit) in LIMITS_S.items():
        seconds = best(command)
        failed |= seconds > limit
        print(f"{name:16}{seconds:6.3f} s, {seconds / limit:4.2f} of its limit {limit} s")
    sys.exit(failed)
