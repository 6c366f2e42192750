"""The experiments of the chapter on controls, from the command line, at any size."""

import time
from argparse import Namespace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pcbook.emergence.energy_controls import VARIANTS, Conclusions, Stopping, table, vary, watch
from pcbook.emergence.energy_efficiency import SIZES
from pcbook.runs import Stopped
from pcbook.runs.checkpoints import room_to_write
from pcbook.runs.energy import load
from pcbook.runs.stopping import Stop
from pcbook.store import results


def main(options: Namespace, stop: Stop) -> None:
    """Run one experiment and write OUT.npz with OUT.json.

    Raises Stopped after a variant, or after a rate, once `stop` is asked for: nothing is kept.
    Raises ValueError if OUT holds a result of other settings, and OSError if its folder is missing.
    """
    dataset, seeds, out = load(options.data), range(options.seeds), Path(options.out)
    size = SIZES.get(options.data, SIZES["digits"])
    names = ("experiment", "data", "seeds", "rate", "only")
    settings = {name: getattr(options, name) for name in names}
    settings["epochs"] = options.epochs or size.epochs
    check_place(out, settings)
    made = results.made(options.command, results.code())
    began = time.monotonic()
    if options.experiment == "variants":
        rate = options.rate or size.rate
        arrays = variants(dataset, options.only, settings["epochs"], rate, seeds, stop)
    else:
        rates = [options.rate] if options.rate else [size.rate / 3, size.rate]
        arrays = stopping(dataset, settings["epochs"], rates, seeds, stop)
    parts = {options.experiment: round(time.monotonic() - began)}
    with room_to_write(out.parent, "Nothing was written."):
        results.write(out, settings, results.add_parts([], made, parts), {}, **arrays)


def check_place(out: Path, settings: dict) -> None:
    """Raise an error, before anything is computed, if the result cannot be written to `out`."""
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out {out}: the folder {out.parent} does not exist")
    if out.with_name(f"{out.name}.json").exists():
        before = results.read(out)["settings"]
        if differs := results.difference(before, settings):
            raise ValueError(f"--out {out} holds a result with {differs}: choose another --out")


def check_stop(stop: Stop) -> None:
    """Raise Stopped if `stop` is asked for."""
    if stop.asked:
        raise Stopped("Nothing was written: the same command begins again from the start.")


def variants(dataset, only, epochs, rate, seeds, stop) -> dict:
    """`conclusions` (variants, fields, seeds), with the `names` of the variants."""
    for name in only or ():
        if name not in VARIANTS:
            raise ValueError(f"--only {name!r}: must be among {', '.join(map(repr, VARIANTS))}")
    rows = {}
    for name in tqdm(only or VARIANTS, unit="variant"):
        check_stop(stop)
        network, order = VARIANTS[name]
        rows[name] = vary(dataset, network, order, epochs=epochs, rate=rate, seeds=seeds)
    print(table(rows))
    values = np.array([np.stack(found) for found in rows.values()], np.float32)
    return {
        "names": np.array(list(rows)),
        "fields": np.array(Conclusions._fields),
        "conclusions": values,
    }


def stopping(dataset, epochs, rates, seeds, stop) -> dict:
    """The arrays of `Stopping` with a leading axis of `rates`; conclusions (rates, fields, ...)."""
    watched: list[Stopping] = []
    for rate in rates:
        check_stop(stop)
        watched.append(watch(dataset, epochs=epochs, rate=rate, seeds=seeds))
    return {
        "rates": np.array(rates, np.float32),
        "epochs": watched[0].epochs,
        "redrawn": np.array([w.redrawn for w in watched], np.float32),
        "fixed": np.array([w.fixed for w in watched], np.float32),
        "fields": np.array(Conclusions._fields),
        "conclusions": np.array([np.stack(w.conclusions) for w in watched], np.float32),
    }
