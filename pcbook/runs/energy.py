"""The energy-efficiency experiment at any size, from the command line.

`pcbook.energy_efficiency` trains; `pcbook.runs.files` keeps what was reached. Here they meet.
"""

import hashlib
import json
import sys
import time
import zipfile
from argparse import Namespace
from functools import partial
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from tqdm import tqdm

from pcbook.emergence.energy_efficiency import (
    RECURRENT,
    SIZES,
    bounds,
    energies,
    measure_all,
    preactivations,
    probe,
)
from pcbook.emergence.energy_efficiency.orders import deck
from pcbook.emergence.energy_efficiency.training import (
    Trainer,
    advance,
    check_training,
    init_state,
    seed_keys,
)
from pcbook.runs import Refused, Stopped
from pcbook.runs.checkpoints import Checkpoints, claim_folder, room_to_write
from pcbook.runs.devices import Spread, agree, any_process, arithmetic, first_process
from pcbook.runs.files import Metrics, write_npz
from pcbook.runs.stopping import Stop
from pcbook.store import results
from pcbook.store.data import Dataset

PROBE = 20260101  # the seed of the test sequences: the same for every run


def load(name: str) -> Dataset:
    """A dataset by the name of its size, or a reader's own from an .npz file."""
    if name in SIZES:
        return SIZES[name].load()
    path = Path(name)
    if path.suffix != ".npz" or not path.is_file():
        raise ValueError(f"--data {name}: must be one of {', '.join(SIZES)}, or an .npz file")
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except (EOFError, TypeError, ValueError, zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"--data {name}: is not a whole .npz file of numbers") from error
    if missing := set(Dataset.__annotations__) - set(arrays):
        raise ValueError(f"--data {name}: lacks {', '.join(sorted(missing))}")
    x = {split: _rows(name, f"x_{split}", arrays[f"x_{split}"]) for split in ("train", "test")}
    y = {split: _labels(name, f"y_{split}", arrays[f"y_{split}"]) for split in ("train", "test")}
    if len({arrays[f"x_{split}"].dtype.kind in "iu" for split in x}) == 2:
        raise ValueError(f"--data {name}: x_train and x_test must both be integers or both floats")
    return Dataset(x["train"], y["train"], x["test"], y["test"])


def _rows(data, name, images):
    """Rows of pixels in [0, 1] of images that are integers in 0..255 or floats in [0, 1]."""
    if images.ndim < 2 or images.dtype.kind not in "biuf":
        raise ValueError(
            f"--data {data}: {name} is {images.dtype} of shape {images.shape}: "
            "must be real numbers, an image in each row"
        )
    rows, top = images.reshape(len(images), -1), 255 if images.dtype.kind in "iu" else 1
    if rows.size and not (rows.min() >= 0 and rows.max() <= top):
        raise ValueError(
            f"--data {data}: {name} is {images.dtype} from {rows.min():g} to {rows.max():g}: "
            f"must be within 0 and {top}"
        )
    images = rows.astype(np.float32)
    return images if top == 1 else images / np.float32(255)


def _labels(data, name, labels):
    """Labels as integers; those that are not are refused."""
    if labels.dtype.kind not in "iu" or labels.size == 0 or labels.max() >= 10_000:
        raise ValueError(
            f"--data {data}: {name} is {labels.dtype}: must be integer labels from 0 below 10,000"
        )
    return labels.astype(int)


def check_classes(dataset: Dataset) -> None:
    """Raise ValueError if a class of the test images has no training image."""
    if missing := set(dataset.y_test.tolist()) - set(dataset.y_train.tolist()):
        raise ValueError(f"y_test holds {min(missing)}: must be among the labels of y_train")


def main(options: Namespace, stop: Stop) -> None:
    """Train, or go on training, until the results stand in the folder.

    Raises Stopped at the end of an epoch, after a checkpoint, once `stop` is asked for.
    """
    dataset, folder = load(options.data), Path(options.out)
    check_classes(dataset)
    settings = settle(options, dataset)
    sorted_images = deck(dataset.y_train, settings["steps"], settings["order"])
    trainer = Trainer(RECURRENT, settings["loss"], settings["batch_size"], sorted_images)
    images = dataset.x_train, dataset.y_train
    check_training(*images, trainer, settings["rates"], settings["epochs"], 1)
    made = results.made(options.command, results.code())
    agree(
        settings
        | {f"code of {name}": digest for name, digest in made["code"].items()}
        | made["versions"]
        | {"checkpoint_every": options.checkpoint_every, "until": options.until}
    )
    claim_folder(folder, settings)
    if (folder / "results.json").exists():
        results.read(folder / "results")
        print(f"{folder} is done: its results are in {folder / 'results.npz'}.")
        return
    work = Work(dataset, trainer, settings, options.devices)
    made["devices"] = len(work.spread.mesh.devices)
    made["processes"] = jax.process_count()
    until = min(options.until or settings["epochs"], settings["epochs"])
    state, record = train(work, folder, until, options.checkpoint_every, options.quiet, made, stop)
    finish(work, folder, state, record)


def settle(options: Namespace, dataset: Dataset) -> dict:
    """What makes a run what it is: a change of any of these makes another run."""
    size = SIZES.get(options.data, SIZES["digits"])
    least, most = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
    for rate in options.rate or ():
        if rate > 0 and not least <= rate <= most:
            raise ValueError(f"--rate {rate}: must be positive and finite in float32")
    return {
        "data": options.data if options.data in SIZES else Path(options.data).name,
        "images": fingerprint(dataset),
        "loss": options.loss,
        "order": options.order,
        "rates": options.rate or [size.rate],
        "seeds": list(range(options.first_seed, options.first_seed + options.seeds)),
        "epochs": options.epochs or size.epochs,
        "batch_size": options.batch_size,
        "steps": options.steps,
        "arithmetic": arithmetic(),
    }


def finish(work: "Work", folder: Path, state: dict, record: list[dict]) -> None:
    """Measure, and write weights and results: `results.json` last, which says that it is done."""
    measured = work.results(state["params"]) | {"loss": state["loss"], "curve": state["curve"]}
    if not first_process():
        return
    epochs = len(state["loss"])
    part = "" if epochs == work.settings["epochs"] else f"_until_{epochs}"
    lost = work.diverged(state["loss"])
    numbers = {"epochs_trained": epochs, "diverged": lost, "summary": work.summary(measured)}
    numbers = json.loads(json.dumps(numbers), parse_constant=lambda _: None)  # JSON has no NaN
    with room_to_write(folder, "The last checkpoint is whole."):
        write_npz(folder / f"weights{part}.npz", weights=state["params"])
        results.write(folder / f"results{part}", work.settings, record, numbers, **measured)
    print(f"Done: {folder / f'results{part}.npz'}, with what made it in results{part}.json.")


def changes(record: list[dict], made: dict) -> str:
    """Return what the last start of a record had otherwise; it changes numbers by rounding only."""
    names = ("versions", "devices", "processes")
    before = {name: record[-1].get(name, 1) for name in names} if record else {}
    return results.difference(before, {name: made[name] for name in before})


def train(
    work: "Work",
    folder: Path,
    epochs: int,
    checkpoint_every: int,
    quiet: bool,
    made: dict,
    stop: Stop,
):
    """Train from the last checkpoint, or from the start, until so many epochs are trained.

    Returns the state and its record: for each start, the epochs that it trained. Raises Stopped
    once a process is asked to stop, and Refused when every network has diverged.
    """
    settings, began = work.settings, time.monotonic()
    with room_to_write(folder, "Nothing was lost."):
        checkpoints = Checkpoints(folder / "checkpoints", settings)
    epoch, kept, record = checkpoints.latest(work.empty) or (0, work.first(), [])
    first, before = epoch, record
    if first_process() and (differs := changes(record, made)):
        print(
            f"Before epoch {epoch + 1} the run had {differs}. From here on it rounds otherwise, "
            "and rounding grows over epochs: the result differs from that of one start.",
            file=sys.stderr,
        )
    state = work.spread.out((kept["params"], (), kept["memory"]))
    loss, curve = list(kept["loss"]), list(kept["curve"])
    columns = ["epoch", "rate", "seed", "loss", *(f"a{t}" for t in range(1, settings["steps"] + 1))]
    metrics = Metrics(folder / "metrics.csv", columns)
    safe = f"The checkpoint of epoch {epoch} is whole." if epoch else "No epoch was kept yet."
    asked = any_process(bool(stop.asked))
    if first_process():
        with room_to_write(folder, safe):
            metrics.rewrite(row for n in range(epoch) for row in work.rows(n, loss[n], curve[n]))
    hide = quiet or not first_process()
    options = {"mininterval": 0.1 if sys.stderr.isatty() else 60, "dynamic_ncols": True}
    with tqdm(total=epochs, initial=epoch, unit="epoch", disable=hide, **options) as bar:
        while epoch < epochs and not asked:
            state, losses, curves = work.advance(state, epoch)
            loss.append(losses)
            curve.append(curves)
            if first_process():
                with room_to_write(folder, safe):
                    metrics.append(work.rows(epoch, losses, curves))
            epoch += 1
            bar.update()
            shown = {"loss": losses.mean(), "last_step": curves[:, -1].mean()}
            bar.set_postfix({name: f"{x:.4f}" for name, x in shown.items()}, refresh=False)
            _tell_diverged(work, loss)
            asked = any_process(bool(stop.asked))
            if asked or epoch % checkpoint_every == 0 or epoch == epochs:
                params, _, memory = work.spread.gather(state)
                kept = {"params": params, "memory": memory}
                kept |= {"loss": np.array(loss), "curve": np.array(curve)}
                trained = {f"epochs {first + 1} to {epoch}": round(time.monotonic() - began)}
                record = results.add_parts(before, made, trained)
                with room_to_write(folder, safe):
                    checkpoints.save(epoch, kept, record)
                safe = f"The checkpoint of epoch {epoch} is whole."
    if epoch < epochs:
        raise Stopped(f"{safe} The same command goes on from there.")
    return kept, record


def _tell_diverged(work, loss):
    """Say which networks diverged in the last epoch; raise Refused if now all have."""
    lost = work.diverged(np.array(loss))
    for network in lost:
        if network["epoch"] == len(loss) and first_process():
            print(
                f"rate {network['rate']:g}, seed {network['seed']} diverged in epoch {len(loss)}",
                file=sys.stderr,
            )
    if len(lost) == len(work.networks):
        raise Refused(
            f"every network has diverged by epoch {len(loss)}: choose a smaller --rate and "
            "another --out. No results were written."
        )


class Work:
    """One run's computation: an epoch of training on the devices, and what is measured.

    A network for each of the `rates` with each of the `seeds`.
    """

    def __init__(self, dataset, trainer, settings, devices):
        self.dataset, self.settings = dataset, settings
        self.networks = list(product(settings["rates"], settings["seeds"]))
        rates, seeds = zip(*self.networks)
        self.spread = Spread(len(self.networks), devices)
        self.probe = probe(
            dataset, random.key(PROBE), steps=settings["steps"], order=settings["order"]
        )
        keys = seed_keys(seeds)
        first = init_state(trainer.network, dataset.x_train.shape[1], keys)
        self._first = jax.tree.map(np.asarray, first)
        self._each = self.spread.out((random.key_data(keys), np.float32(rates)))
        self._images = self.spread.share(dataset.x_train)
        self._test = self.spread.share(self.probe.x)

        def epoch(state, each, images, test, first):
            keys, rates = each
            keys = random.wrap_key_data(keys)
            state, loss = advance(trainer, state, images, keys, rates, first, 1)
            curve = jax.lax.map(lambda W: jnp.abs(preactivations(W, test)).mean((1, 2)), state[0])
            return state, loss[0], curve

        self._epoch = self.spread.function(epoch, shared=3)

    def first(self) -> dict:
        """What is kept before the first epoch."""
        return self._kept(self._first, 0)

    def empty(self, epoch: int) -> dict:
        """The shapes of what is kept after `epoch`."""
        return self._kept(self._first, epoch)

    def _kept(self, state, epoch):
        params, _, memory = state
        loss = np.zeros((epoch, len(self.networks)), np.float32)
        curve = np.zeros((*loss.shape, self.settings["steps"]), np.float32)
        return {"params": params, "memory": memory, "loss": loss, "curve": curve}

    def advance(self, state, epoch: int):
        """One epoch further: the state on the devices, and on the host the losses and curves."""
        number = self.spread.share(np.int32(epoch))
        state, *seen = self._epoch(state, self._each, self._images, self._test, number)
        return state, *self.spread.gather(seen)

    def rows(self, epoch: int, losses, curves):
        """The rows of metrics.csv for one epoch."""
        for network, loss, curve in zip(self.networks, losses, curves):
            yield [epoch + 1, *network, f"{loss:.6f}", *(f"{a:.6f}" for a in curve)]

    def diverged(self, loss) -> list[dict]:
        """The networks whose loss (epochs, networks) ceased to be finite, each with its epoch."""
        lost = ~np.isfinite(loss)
        return [
            {"rate": rate, "seed": seed, "epoch": int(lost[:, i].argmax()) + 1}
            for i, (rate, seed) in enumerate(self.networks)
            if lost[:, i].any()
        ]

    def results(self, params) -> dict:
        """Every measure of the trained networks and, for comparison, of the untrained."""
        rates, seeds = zip(*self.networks)
        found = {"rates": rates, "seeds": seeds, "bounds": bounds(self.dataset)}
        for name, weights in (("", params), ("untrained_", self._first[0])):
            weights = jnp.asarray(weights)
            measured = measure_all(weights, self.probe, random.key(PROBE + 1))
            cost = jax.lax.map(partial(energies, x=self.probe.x), weights)
            found |= {name + field: value for field, value in measured._asdict().items()}
            found |= {name + "energy_" + f: value for f, value in cost._asdict().items()}
        return {name: np.asarray(value) for name, value in found.items()}

    def summary(self, results) -> dict:
        """For each rate, the few numbers that one looks at first: means over seeds."""
        return {
            f"rate {rate:g}": summary(results, results["rates"] == rate)
            for rate in self.settings["rates"]
        }


def summary(results: dict, which) -> dict:
    """Means over the networks `which`, rounded."""

    def mean(name):
        return np.round(results[name][which].mean(0, dtype=float), 4).tolist()

    return {
        "bounds (none, median, category)": np.round(results["bounds"], 4).tolist(),
        "preactivation": mean("preactivation"),
        "lesioned": mean("lesioned"),
        "control lesion": mean("control"),
        "prediction units above zero": (results["units"][which] > 0).any(1).sum(1).tolist(),
        "expected, unexpected": [mean("expected"), mean("unexpected")],
        "decoded": mean("decoded"),
        "AP, ST, EC at the last step": [
            mean(f"energy_{name}")[-1] for name in ("activity", "transmission", "total")
        ],
    }


def fingerprint(dataset: Dataset) -> str:
    """A digest of the images and labels, by which a run knows its data."""
    sha = hashlib.sha256()
    for name in Dataset.__annotations__:
        sha.update(np.ascontiguousarray(getattr(dataset, name)).tobytes())
    return sha.hexdigest()[:16]
