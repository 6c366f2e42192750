"""The energy-efficiency experiment at any size, from the command line.

`pcbook.energy_efficiency` trains; `pcbook._runs` keeps what was reached. Here they meet.
"""

import hashlib
import time
from argparse import Namespace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jax.experimental import multihost_utils
from tqdm.auto import tqdm

from pcbook import _runs
from pcbook.data import Dataset
from pcbook.energy_efficiency import (
    RECURRENT,
    SIZES,
    Trainer,
    advance,
    bounds,
    check_training,
    deck,
    energies,
    init_state,
    measure_all,
    preactivations,
    probe,
    seed_keys,
)

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
    dataset = load(options.data)
    size = SIZES.get(options.data, SIZES["digits"])
    settings = {
        "data": options.data if options.data in SIZES else Path(options.data).name,
        "images": fingerprint(dataset),
        "loss": options.loss,
        "order": options.order,
        "seeds": list(range(options.first_seed, options.first_seed + options.seeds)),
        "epochs": options.epochs or size.epochs,
        "rate": options.rate or size.rate,
        "batch_size": options.batch_size,
        "steps": options.steps,
    }
    trainer = Trainer(
        RECURRENT,
        settings["loss"],
        settings["rate"],
        settings["batch_size"],
        deck(dataset.y_train, settings["steps"], settings["order"]),
    )
    check_training(dataset.x_train, dataset.y_train, trainer, settings["epochs"], 1)
    folder = Path(options.out)
    with _runs.room_to_write(folder.parent, "Nothing was begun."):
        _runs.claim_folder(folder, settings)
    if (folder / "results.npz").exists():
        print(f"{folder} is done: its results are in {folder / 'results.npz'}.")
        return
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("folder")
    work = Work(dataset, trainer, settings, _runs.Seeds(options.seeds, options.devices))
    began = time.monotonic()
    until = min(options.until or settings["epochs"], settings["epochs"])
    state = train(work, folder, until, options.checkpoint_every, options.quiet)
    results = work.results(state["params"]) | {
        "loss": state["loss"],
        "curve": state["curve"],
    }
    if _runs.first_process():
        with _runs.room_to_write(folder, "The last checkpoint is whole."):
            note = {"command": options.command, "settings": settings, "date": _runs.today()}
            note |= {"versions": _runs.versions(), "devices": len(work.seeds.mesh.devices)}
            note["epochs_trained"] = len(state["loss"])
            note["seconds_of_the_last_start"] = round(time.monotonic() - began, 1)
            part = "" if note["epochs_trained"] == settings["epochs"] else f"_until_{until}"
            _runs.write_json(folder / f"results{part}.json", note | {"summary": summary(results)})
            _runs.write_npz(folder / f"weights{part}.npz", weights=state["params"])
            done = folder / f"results{part}.npz"
            _runs.write_npz(done, **results)  # the last: where it stands, the run is done
        print(f"Done: {done}, and what made it in {done.with_suffix('.json')}.")


def train(work: "Work", folder: Path, epochs: int, checkpoint_every: int, quiet: bool) -> dict:
    """From the last checkpoint, or from the start, until so many epochs are trained."""
    settings = work.settings
    with _runs.room_to_write(folder, "Nothing was lost."):
        checkpoints = _runs.Checkpoints(folder / "checkpoints", settings)
    epoch, kept = checkpoints.latest(work.empty) or (0, work.first())
    state = work.seeds.spread((kept["params"], kept["memory"]))
    loss, curve = list(kept["loss"]), list(kept["curve"])
    columns = ["epoch", "seed", "loss", *(f"a{t}" for t in range(1, settings["steps"] + 1))]
    metrics = _runs.Metrics(folder / "metrics.csv", columns)
    safe = f"The checkpoint of epoch {epoch} is whole."
    if _runs.first_process():
        with _runs.room_to_write(folder, safe):
            metrics.rewrite(row for n in range(epoch) for row in work.rows(n, loss[n], curve[n]))
    hide = quiet or not _runs.first_process()
    with tqdm(total=epochs, initial=epoch, unit="epoch", disable=hide, dynamic_ncols=True) as bar:
        while epoch < epochs:
            state, losses, curves = work.advance(state, epoch)
            loss.append(losses)
            curve.append(curves)
            if _runs.first_process():
                with _runs.room_to_write(folder, safe):
                    metrics.append(work.rows(epoch, losses, curves))
            epoch += 1
            bar.update()
            bar.set_postfix(loss=f"{losses.mean():.4f}", last_step=f"{curves[:, -1].mean():.4f}")
            if epoch % checkpoint_every == 0 or epoch == epochs:
                params, memory = work.seeds.gather(state)
                kept = {"params": params, "memory": memory}
                kept |= {"loss": np.array(loss), "curve": np.array(curve)}
                with _runs.room_to_write(folder, safe):
                    checkpoints.save(epoch, kept)
                safe = f"The checkpoint of epoch {epoch} is whole."
    return kept


class Work:
    """One run's computation: a step of training on the devices, and what is measured."""

    def __init__(self, dataset, trainer, settings, seeds):
        self.dataset, self.trainer, self.settings, self.seeds = dataset, trainer, settings, seeds
        key = random.key(PROBE)
        self.probe = probe(dataset, key, steps=settings["steps"], order=settings["order"])
        keys = seed_keys(settings["seeds"])
        self._keys = seeds.spread(random.key_data(keys))
        self._first = jax.tree.map(np.asarray, init_state(trainer, dataset.x_train.shape[1], keys))
        self._images = seeds.share(dataset.x_train)
        self._test = seeds.share(self.probe.x)

        def epoch(state, keys, images, test, first):
            keys = random.wrap_key_data(keys)
            state, loss = advance(trainer, state, images, keys, first, 1)
            curve = jax.lax.map(lambda W: jnp.abs(preactivations(W, test)).mean((1, 2)), state[0])
            return state, loss[0], curve

        self._epoch = seeds.spread_function(epoch, shared=3)

    def first(self) -> dict:
        """What is kept before the first epoch."""
        return self._kept(self._first, 0)

    def empty(self, epoch: int) -> dict:
        """The shapes of what is kept after `epoch`."""
        return self._kept(self._first, epoch)

    def _kept(self, state, epoch):
        seeds, steps = len(self.settings["seeds"]), self.settings["steps"]
        loss = np.zeros((epoch, seeds), np.float32)
        curve = np.zeros((epoch, seeds, steps), np.float32)
        return {"params": state[0], "memory": state[1], "loss": loss, "curve": curve}

    def advance(self, state, epoch: int):
        """One epoch further: the state on the devices, and on the host the losses and curves."""
        number = self.seeds.share(np.int32(epoch))
        state, *seen = self._epoch(state, self._keys, self._images, self._test, number)
        return state, *self.seeds.gather(seen)

    def rows(self, epoch: int, losses, curves):
        """The rows of metrics.csv for one epoch."""
        for seed, loss, curve in zip(self.settings["seeds"], losses, curves):
            yield [epoch + 1, seed, f"{loss:.6f}", *(f"{a:.6f}" for a in curve)]

    def results(self, params) -> dict:
        """Every measure of the trained networks and, for comparison, of the untrained."""
        found = {"bounds": np.array(bounds(self.dataset))}
        for name, weights in (("", params), ("untrained_", self._first[0])):
            weights = jnp.asarray(weights)
            measured = measure_all(weights, self.probe, random.key(PROBE + 1))
            cost = jax.lax.map(partial(energies, x=self.probe.x), weights)
            found |= {name + field: value for field, value in measured._asdict().items()}
            found |= {name + "energy_" + f: value for f, value in cost._asdict().items()}
        return {name: np.asarray(value) for name, value in found.items()}


def summary(results: dict) -> dict:
    """The few numbers that one looks at first: means over seeds."""

    def rounded(value):
        return np.round(np.asarray(value, float), 4).tolist()

    last = slice(None), -1
    return {
        "bounds (none, median, category)": rounded(results["bounds"]),
        "preactivation": rounded(results["preactivation"].mean(0)),
        "lesioned": rounded(results["lesioned"].mean(0)),
        "control lesion": rounded(results["control"].mean(0)),
        "prediction units above zero": (results["units"] > 0).any(1).sum(1).tolist(),
        "expected, unexpected": rounded([results["expected"].mean(), results["unexpected"].mean()]),
        "decoded": rounded(results["decoded"].mean(0)),
        "AP, ST, EC at the last step": rounded(
            [
                results[f"energy_{name}"][last].mean()
                for name in ("activity", "transmission", "total")
            ]
        ),
    }


def fingerprint(dataset: Dataset) -> str:
    """A digest of the images and labels, by which a run knows its data."""
    sha = hashlib.sha256()
    for name in Dataset.__annotations__:
        sha.update(np.ascontiguousarray(getattr(dataset, name)).tobytes())
    return sha.hexdigest()[:16]
