"""The energy-efficiency experiment at any size, from the command line.

`pcbook.energy_efficiency` trains; `pcbook.runs.files` keeps what was reached. Here they meet.
"""

import hashlib
import time
from argparse import Namespace
from functools import partial
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jax.experimental import multihost_utils
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
from pcbook.runs.checkpoints import Checkpoints, claim_folder, room_to_write
from pcbook.runs.devices import Spread, first_process
from pcbook.runs.files import Metrics, write_npz
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
    with np.load(path) as file:
        missing = set(Dataset.__annotations__) - set(file)
        if missing:
            raise ValueError(f"--data {name}: lacks {', '.join(sorted(missing))}")
        x = {split: file[f"x_{split}"] for split in ("train", "test")}
        y = {split: file[f"y_{split}"].astype(int) for split in ("train", "test")}
    x = {split: images.reshape(len(images), -1) for split, images in x.items()}
    if x["train"].dtype == np.uint8:
        x = {split: images / np.float32(255) for split, images in x.items()}
    x = {split: images.astype(np.float32) for split, images in x.items()}
    return Dataset(x["train"], y["train"], x["test"], y["test"])


def main(options: Namespace) -> None:
    """Train, or go on training, until the results stand in the folder."""
    dataset, folder = load(options.data), Path(options.out)
    settings = settle(options, dataset)
    sorted_images = deck(dataset.y_train, settings["steps"], settings["order"])
    trainer = Trainer(RECURRENT, settings["loss"], settings["batch_size"], sorted_images)
    images = dataset.x_train, dataset.y_train
    check_training(*images, trainer, settings["rates"], settings["epochs"], 1)
    with room_to_write(folder.parent, "Nothing was begun."):
        claim_folder(folder, settings)
    if (folder / "results.json").exists():
        results.read(folder / "results")
        print(f"{folder} is done: its results are in {folder / 'results.npz'}.")
        return
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("folder")
    work = Work(dataset, trainer, settings, options.devices)
    made = results.made(options.command, results.code())
    made["devices"] = len(work.spread.mesh.devices)
    until = min(options.until or settings["epochs"], settings["epochs"])
    state, record = train(work, folder, until, options.checkpoint_every, options.quiet, made)
    finish(work, folder, state, record)


def settle(options: Namespace, dataset: Dataset) -> dict:
    """What makes a run what it is: a change of any of these makes another run."""
    size = SIZES.get(options.data, SIZES["digits"])
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
    }


def finish(work: "Work", folder: Path, state: dict, record: list[dict]) -> None:
    """Measure, and write weights and results: `results.json` last, which says that it is done."""
    measured = work.results(state["params"]) | {"loss": state["loss"], "curve": state["curve"]}
    if not first_process():
        return
    epochs = len(state["loss"])
    part = "" if epochs == work.settings["epochs"] else f"_until_{epochs}"
    numbers = {"epochs_trained": epochs, "summary": work.summary(measured)}
    with room_to_write(folder, "The last checkpoint is whole."):
        write_npz(folder / f"weights{part}.npz", weights=state["params"])
        results.write(folder / f"results{part}", work.settings, record, numbers, **measured)
    print(f"Done: {folder / f'results{part}.npz'}, with what made it in results{part}.json.")


def train(work: "Work", folder: Path, epochs: int, checkpoint_every: int, quiet: bool, made: dict):
    """Train from the last checkpoint, or from the start, until so many epochs are trained.

    Returns the state and its record: for each start, the epochs that it trained.
    """
    settings, began = work.settings, time.monotonic()
    with room_to_write(folder, "Nothing was lost."):
        checkpoints = Checkpoints(folder / "checkpoints", settings)
    epoch, kept, record = checkpoints.latest(work.empty) or (0, work.first(), [])
    first, before = epoch, record
    state = work.spread.out((kept["params"], (), kept["memory"]))
    loss, curve = list(kept["loss"]), list(kept["curve"])
    columns = ["epoch", "rate", "seed", "loss", *(f"a{t}" for t in range(1, settings["steps"] + 1))]
    metrics = Metrics(folder / "metrics.csv", columns)
    safe = f"The checkpoint of epoch {epoch} is whole."
    if first_process():
        with room_to_write(folder, safe):
            metrics.rewrite(row for n in range(epoch) for row in work.rows(n, loss[n], curve[n]))
    hide = quiet or not first_process()
    with tqdm(total=epochs, initial=epoch, unit="epoch", disable=hide, dynamic_ncols=True) as bar:
        while epoch < epochs:
            state, losses, curves = work.advance(state, epoch)
            loss.append(losses)
            curve.append(curves)
            if first_process():
                with room_to_write(folder, safe):
                    metrics.append(work.rows(epoch, losses, curves))
            epoch += 1
            bar.update()
            bar.set_postfix(loss=f"{losses.mean():.4f}", last_step=f"{curves[:, -1].mean():.4f}")
            if epoch % checkpoint_every == 0 or epoch == epochs:
                params, _, memory = work.spread.gather(state)
                kept = {"params": params, "memory": memory}
                kept |= {"loss": np.array(loss), "curve": np.array(curve)}
                trained = {f"epochs {first + 1} to {epoch}": round(time.monotonic() - began)}
                record = results.add_parts(before, made, trained)
                with room_to_write(folder, safe):
                    checkpoints.save(epoch, kept, record)
                safe = f"The checkpoint of epoch {epoch} is whole."
    return kept, record


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
