"""The experiments of the chapter on controls, from the command line, at any size."""

from argparse import Namespace
from math import nan
from pathlib import Path

import numpy as np

from pcbook.emergence.energy_controls import VARIANTS, Conclusions, judge
from pcbook.emergence.energy_controls.stopping import evaluator, split
from pcbook.emergence.energy_efficiency import RECURRENT, SIZES
from pcbook.runs import Diverged
from pcbook.runs.energy import Work, trainer_of
from pcbook.runs.loop import train
from pcbook.runs.own import load_data
from pcbook.runs.place import begin, finish, settings_of, write_results
from pcbook.runs.stopping import Stop
from pcbook.store.data import Dataset

EVERY = 5  # epochs between two evaluations of a training that is watched


def main(options: Namespace, stop: Stop) -> None:
    """Run one of the two experiments, or go on with it, until its results stand in the folder.

    Raises Stopped at the end of an epoch, after a checkpoint, once `stop` is asked for.
    """
    dataset, folder = load_data(options.data), Path(options.out)
    size = SIZES.get(options.data, SIZES["digits"])
    settings = settings_of(options, dataset, size.rate, size.epochs) | {
        "loss": "pre",
        "steps": 10,
        "only": list(options.only) or None,
    }
    if options.only and options.experiment != "energy-variants":
        raise ValueError("--only goes with variants")
    experiment = variants if options.experiment == "energy-variants" else stopping
    experiment(dataset, settings, folder, options, stop)


def variants(dataset: Dataset, settings: dict, folder: Path, options: Namespace, stop: Stop):
    """Train every variant in a folder of its own within `folder`, and conclude.

    The result has `conclusions` (variants, fields, seeds), with the `names` of the variants.
    """
    trainers = {}
    for name in settings["only"] or VARIANTS:
        if name not in VARIANTS:
            raise ValueError(f"--only {name!r}: must be among {', '.join(map(repr, VARIANTS))}")
        network, order = VARIANTS[name]
        own = settings | {"variant": name, "order": order}
        trainers[name] = trainer_of(dataset, network, own), own
    made = begin(options, folder, settings)
    if made is None:
        return
    found, record = {}, []
    for name, (trainer, own) in trainers.items():
        work = Work(dataset, trainer, own, options.devices)
        place, every = folder / name, options.checkpoint_every
        try:
            kept, entries = train(work, place, own["epochs"], every, options.quiet, made, stop)
        except Diverged:
            found[name] = Conclusions(*np.full((len(Conclusions._fields), len(own["seeds"])), nan))
            continue
        found[name] = judge(dataset, *VARIANTS[name], kept["params"])
        add_entries(record, name, entries)
    if not record:
        raise Diverged("every variant has diverged: choose a smaller --rate and another --out")
    arrays = {
        "names": np.array(list(found)),
        "fields": np.array(Conclusions._fields),
        "conclusions": np.array([np.stack(rows) for rows in found.values()], np.float32),
    }
    numbers = {"summary": {name: summary(rows) for name, rows in found.items()}}
    write_results(folder, "results", settings, record, numbers, arrays)


def add_entries(record: list[dict], name: str, entries: list[dict]) -> None:
    """Add the entries of a variant's record to that of the whole, their parts under its name."""
    for entry in entries:
        start = {key: value for key, value in entry.items() if key != "parts"}
        for known in record:
            if {key: value for key, value in known.items() if key != "parts"} == start:
                break
        else:
            record.append(known := start | {"parts": {}})
        known["parts"] |= {f"{name}: {part}": n for part, n in entry["parts"].items()}


class Watched(Work):
    """Networks that are evaluated every so many epochs: any rule for stopping can be tried on them.

    Only then are `redrawn`, `fixed` and `conclusions` seen; in the other epochs they are NaN.
    """

    def __init__(self, fitted: Dataset, trainer, settings, devices, dataset: Dataset, held_out):
        super().__init__(fitted, trainer, settings, devices)
        self.seen |= {"redrawn": (), "fixed": (), "conclusions": (len(Conclusions._fields),)}
        self.moments = np.arange(0, settings["epochs"] + 1, EVERY)
        self.evaluate = evaluator(dataset, held_out, len(self.moments))
        self._nothing = {
            name: np.full((len(self.networks), *self.seen[name]), np.nan, np.float32)
            for name in ("redrawn", "fixed", "conclusions")
        }

    def advance(self, state, epoch):
        state, seen = super().advance(state, epoch)
        if (epoch + 1) % EVERY:
            return state, seen | self._nothing
        return state, seen | self.evaluated(self.spread.gather(state[0]), epoch + 1)

    def evaluated(self, params, epoch):
        """What is seen of the networks after so many epochs, by their parameters on the host."""
        redrawn, fixed, conclusions = self.evaluate(params, epoch // EVERY)
        found = {"redrawn": redrawn, "fixed": fixed, "conclusions": np.stack(conclusions, -1)}
        return {name: np.asarray(value, np.float32) for name, value in found.items()}


def stopping(dataset: Dataset, settings: dict, folder: Path, options: Namespace, stop: Stop):
    """Train without a stop, watched; the arrays of `Stopping` with a leading axis of rates.

    The `conclusions` are (rates, fields, moments, seeds).
    """
    if settings["epochs"] % EVERY:
        raise ValueError(f"--epochs {settings['epochs']}: must be a multiple of {EVERY}")
    (images, labels), held_out = split(dataset)
    fitted = Dataset(images, labels, dataset.x_test, dataset.y_test)
    settings |= {"order": "ascending"}
    trainer = trainer_of(fitted, RECURRENT, settings)
    made = begin(options, folder, settings)
    if made is None:
        return
    work = Watched(fitted, trainer, settings, options.devices, dataset, held_out)
    rates, seeds = settings["rates"], settings["seeds"]
    epochs, every = settings["epochs"], options.checkpoint_every
    kept, record = train(work, folder, epochs, every, options.quiet, made, stop)
    first = work.evaluated(work.untrained[0], 0)

    def moments(name):
        rows = np.stack([first[name], *kept[name][EVERY - 1 :: EVERY]])
        return np.moveaxis(rows.reshape(len(rows), len(rates), len(seeds), *rows.shape[2:]), 1, 0)

    conclusions = np.moveaxis(moments("conclusions"), -1, 1)
    arrays = {
        "rates": np.array(rates, np.float32),
        "epochs": work.moments,
        "redrawn": moments("redrawn"),
        "fixed": moments("fixed"),
        "fields": np.array(Conclusions._fields),
        "conclusions": conclusions,
    }
    ends = zip(rates, conclusions[:, :, -1])
    numbers = {"summary": {f"rate {rate:g}": summary(Conclusions(*end)) for rate, end in ends}}
    finish(work, folder, kept, record, arrays, numbers)


def summary(found: Conclusions) -> dict:
    """The mean and the standard deviation (ddof = 1) of each conclusion over networks."""

    def of(values):
        mean, n = round(float(np.mean(values)), 2), len(values)
        return [mean, round(float(np.std(values, ddof=1)), 2)] if n > 1 else mean

    return {name.replace("_", " "): of(values) for name, values in found._asdict().items()}
