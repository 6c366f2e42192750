"""The command line of the experiments: compute the parts that are missing, and store each."""

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pcbook import results


def run(
    program: str,
    description: str,
    settings: dict,
    parts: Callable[[], dict[tuple, Callable]],
    report: Callable[[dict], None] = lambda numbers: None,
    inputs: tuple[Path, ...] = (),
) -> None:
    """Compute the `parts` of an experiment that are missing in results/, and write each when done.

    `parts()` gives for each part, named by the keys that lead to its numbers, a function that
    computes them. `report(numbers)` prints what there is. `inputs` are files that the numbers
    depend on beside the code.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=raw)
    parser.add_argument("--only", nargs="+", metavar="KEY", help="only parts with these keys")
    parser.add_argument("--again", action="store_true", help="compute stored parts again")
    options = parser.parse_args()
    path = Path(program).resolve().relative_to(results.ROOT)
    command = shlex.join(["python", str(path), *sys.argv[1:]])
    try:
        computed = results.Parts(
            results.RESULTS / path.stem,
            settings,
            results.made(command, results.code(program, *inputs)),
        )
        functions = parts()
        only = choose(list(functions), options.only)
        missing = computed.resume(list(functions), only, options.again)
    except ValueError as error:
        sys.exit(f"error: {error}")
    for part in missing:
        start = time.perf_counter()
        numbers = functions[part]()
        computed.add(part, numbers, time.perf_counter() - start)
        print(f"{', '.join(part)}: {time.perf_counter() - start:.0f} s", flush=True)
    report(computed.numbers)


def choose(parts: list[tuple], keys: list[str] | None) -> list[tuple]:
    """Return the parts that have one of the `keys`; all without keys. Raises ValueError if none."""
    for key in keys or ():
        if not any(key in part for part in parts):
            allowed = ", ".join(sorted({key for part in parts for key in part}))
            raise ValueError(f"--only {key!r}: must be among {allowed}")
    return [part for part in parts if keys is None or set(keys) & set(part)]
