"""The experiments of the chapter on controls, from the command line, at any size."""

from argparse import Namespace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pcbook.emergence.energy_controls import VARIANTS, Conclusions, Stopping, table, vary, watch
from pcbook.emergence.energy_efficiency import SIZES
from pcbook.runs.checkpoints import room_to_write
from pcbook.runs.energy import load
from pcbook.runs.files import today, versions, write_json, write_npz


def main(options: Namespace) -> None:
    """Run one experiment and write OUT.npz with OUT.json."""
    dataset, seeds = load(options.data), range(options.seeds)
    size = SIZES.get(options.data, SIZES["digits"])
    epochs = options.epochs or size.epochs
    if options.experiment == "variants":
        rate = options.rate or size.rate
        arrays = variants(dataset, options.only, epochs, rate, seeds)
    else:
        rates = [options.rate] if options.rate else [size.rate / 3, size.rate]
        arrays = stopping(dataset, epochs, rates, seeds)
    out = Path(options.out)
    settings = {
        name: getattr(options, name) for name in ("experiment", "data", "seeds", "rate", "only")
    }
    note = {"command": options.command, "settings": settings | {"epochs": epochs}}
    note |= {"date": today(), "versions": versions()}
    with room_to_write(out.parent, "Nothing was written."):
        write_json(out.with_suffix(".json"), note)
        write_npz(out.with_suffix(".npz"), **arrays)


def variants(dataset, only, epochs, rate, seeds) -> dict:
    """`conclusions` (variants, fields, seeds), with the `names` of the variants."""
    for name in only or ():
        if name not in VARIANTS:
            raise ValueError(f"--only {name!r}: must be among {', '.join(map(repr, VARIANTS))}")
    rows = {}
    for name in tqdm(only or VARIANTS, unit="variant"):
        network, order = VARIANTS[name]
        rows[name] = vary(dataset, network, order, epochs=epochs, rate=rate, seeds=seeds)
    print(table(rows))
    values = np.array([np.stack(found) for found in rows.values()], np.float32)
    return {
        "names": np.array(list(rows)),
        "fields": np.array(Conclusions._fields),
        "conclusions": values,
    }


def stopping(dataset, epochs, rates, seeds) -> dict:
    """The arrays of `Stopping` with a leading axis of `rates`; conclusions (rates, fields, ...)."""
    watched: list[Stopping] = [
        watch(dataset, epochs=epochs, rate=rate, seeds=seeds) for rate in rates
    ]
    return {
        "rates": np.array(rates, np.float32),
        "epochs": watched[0].epochs,
        "redrawn": np.array([w.redrawn for w in watched], np.float32),
        "fixed": np.array([w.fixed for w in watched], np.float32),
        "fields": np.array(Conclusions._fields),
        "conclusions": np.array([np.stack(w.conclusions) for w in watched], np.float32),
    }
