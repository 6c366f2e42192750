"""Results that are computed part by part: the command line of `experiments/`."""

import runpy
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from pcbook.runs import Stopped
from pcbook.runs.ending import sentences
from pcbook.runs.stopping import Stop
from pcbook.store import results


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
    depend on beside the code. A signal stops after the part that is being computed.
    """
    path = Path(program).resolve().relative_to(results.ROOT)
    with sentences() as end:
        options = read(path, description, sys.argv[1:])
        command = shlex.join(["python", str(path), *sys.argv[1:]])
        computed = results.Parts(
            results.RESULTS / path.stem,
            settings,
            results.made(command, results.code(program, *inputs)),
        )
        functions = parts()
        only = choose(list(functions), options["only"])
        missing = computed.resume(list(functions), only, options["again"])
        for number, part in enumerate(missing):
            check_stop(end.stop, number)
            start = time.perf_counter()
            numbers = functions[part]()
            computed.add(part, numbers, time.perf_counter() - start)
            print(f"{', '.join(part)}: {time.perf_counter() - start:.0f} s", flush=True)
        report(computed.numbers)


def read(path: Path, description: str, arguments: list[str]) -> dict:
    """Return the options `only` and `again`; --help and wrong arguments end the program."""
    only = click.Option(["--only"], multiple=True, metavar="KEY", help="Only parts with this key.")
    again = click.Option(["--again"], is_flag=True, help="Compute stored parts again.")
    command = click.Command(
        f"python {path}",
        params=[only, again],
        help="\b\n" + description.replace("\n\n", "\n\n\b\n"),
    )
    context = command.make_context(command.name, spread(arguments, "--only"))
    return context.params


def spread(arguments: list[str], *options: str) -> list[str]:
    """Write `--option A B` as `--option A --option B`, for each of the `options`."""
    found, last = [], None
    for argument in arguments:
        if argument.startswith("-") and not argument.lstrip("-").replace(".", "").isdigit():
            last = argument if argument in options else None
            found.append(argument)
        elif last is not None and found[-1] != last:
            found += [last, argument]
        else:
            found.append(argument)
    return found


def check_stop(stop: Stop, kept: int) -> None:
    """Raise Stopped if `stop` is asked for; `kept` parts were computed by this start."""
    if stop.asked:
        raise Stopped(f"{kept} parts were computed and are kept. The same command goes on.")


def choose(parts: list[tuple], keys: tuple[str, ...]) -> list[tuple]:
    """Return the parts that have one of the `keys`; all without keys. Raises ValueError if none."""
    for key in keys:
        if not any(key in part for part in parts):
            allowed = ", ".join(sorted({key for part in parts for key in part}))
            raise ValueError(f"--only {key!r}: must be among {allowed}")
    return [part for part in parts if not keys or set(keys) & set(part)]


def experiments() -> dict[str, Path]:
    """The programs of `experiments/` by name, where the package stands in a checkout."""
    return {path.stem: path for path in sorted((results.ROOT / "experiments").glob("*.py"))}


def run_program(path: Path, arguments: list[str]) -> None:
    """Run a program of `experiments/` as `python experiments/NAME.py` does."""
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")
