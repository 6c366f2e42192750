"""The energy-efficiency experiment at any size, from the command line.

`pcbook.energy_efficiency` trains; `pcbook.runs.loop` keeps what was reached. Here they meet.
"""

from argparse import Namespace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from pcbook.emergence.energy_controls import VARIANTS
from pcbook.emergence.energy_efficiency import (
    RECURRENT,
    SIZES,
    Network,
    bounds,
    energies,
    measure_all,
    probe,
    run,
)
from pcbook.emergence.energy_efficiency.orders import deck
from pcbook.emergence.energy_efficiency.training import (
    Trainer,
    advance,
    check_training,
    init_state,
)
from pcbook.runs.loop import Networks, train
from pcbook.runs.own import check_classes, load_data, load_object
from pcbook.runs.place import begin, finish, settings_of
from pcbook.runs.stopping import Stop
from pcbook.store.data import Dataset

PROBE = 20260101  # the seed of the test sequences: the same for every run
NETWORKS = {network.name: network for network, _ in VARIANTS.values()}


def main(options: Namespace, stop: Stop) -> None:
    """Train, or go on training, until the results stand in the folder.

    Raises Stopped at the end of an epoch, after a checkpoint, once `stop` is asked for.
    """
    dataset, folder = load_data(options.data), Path(options.out)
    network, own = load_network(options.network)
    size = SIZES.get(options.data, SIZES["digits"])
    settings = settings_of(options, dataset, size.rate, size.epochs) | {
        "loss": options.loss,
        "order": options.order,
        "network": network.name,
        "steps": options.steps,
    }
    trainer = trainer_of(dataset, network, settings)
    made = begin(options, folder, settings, *own)
    if made is None:
        return
    work = Work(dataset, trainer, settings, options.devices)
    until = min(options.until or settings["epochs"], settings["epochs"])
    kept, record = train(work, folder, until, options.checkpoint_every, options.quiet, made, stop)
    measured = work.results(kept["params"]) | {"loss": kept["loss"], "curve": kept["curve"]}
    finish(work, folder, kept, record, measured, {"summary": work.summary(measured)})


def load_network(name: str) -> tuple[Network, list[Path]]:
    """Return a network of the book by its name, or a user's own, with the file it comes from."""
    if name in NETWORKS:
        return NETWORKS[name], []
    if ":" not in name:
        raise ValueError(
            f"--network {name}: must be one of {', '.join(NETWORKS)}, or an import path, as "
            "package.module:NAME or folder/file.py:NAME"
        )
    network, file = load_object("--network", name, Network)
    return network, [file]


def trainer_of(dataset: Dataset, network: Network, settings: dict) -> Trainer:
    """Return what stays the same throughout a training, once data and settings fit each other."""
    check_classes(dataset)
    sorted_images = deck(dataset.y_train, settings["steps"], settings["order"])
    trainer = Trainer(network, settings["loss"], settings["batch_size"], sorted_images)
    images = dataset.x_train, dataset.y_train
    check_training(*images, trainer, settings["rates"], settings["epochs"], 1)
    return trainer


class Work(Networks):
    """One run's computation: an epoch of training on the devices, and what is measured.

    After each epoch the mean preactivation of the test sequences is seen at each of their images.
    """

    def __init__(self, dataset: Dataset, trainer: Trainer, settings: dict, devices: int | None):
        self.dataset, self.network = dataset, trainer.network
        self.probe = probe(
            dataset, random.key(PROBE), steps=settings["steps"], order=settings["order"]
        )
        forward = partial(run, trainer.network)

        def epoch(state, keys, rates, images, test, number):
            state, loss = advance(trainer, state, images, keys, rates, number, 1)
            curve = jax.lax.map(lambda p: jnp.abs(forward(p, test)).mean((1, 2)), state[0])
            return state, {"loss": loss[0], "curve": curve}

        super().__init__(
            settings,
            devices,
            init=partial(init_state, trainer.network, dataset.x_train.shape[1]),
            epoch=epoch,
            shared=(dataset.x_train, self.probe.x),
            seen={"loss": (), "curve": (settings["steps"],)},
        )

    @property
    def columns(self) -> list[str]:
        """The columns of metrics.csv: a1 is the preactivation at the first image."""
        steps = range(1, self.settings["steps"] + 1)
        return ["epoch", "rate", "seed", "loss", *(f"a{t}" for t in steps)]

    def rows(self, epoch: int, seen: dict):
        """The rows of metrics.csv for one epoch."""
        for network, loss, curve in zip(self.networks, seen["loss"], seen["curve"]):
            yield [epoch + 1, *network, f"{loss:.6f}", *(f"{a:.6f}" for a in curve)]

    def results(self, params) -> dict:
        """Every measure of the trained networks and, for comparison, of the untrained."""
        rates, seeds = zip(*self.networks)
        found = {"rates": rates, "seeds": seeds, "bounds": bounds(self.dataset)}
        for name, weights in (("", params), ("untrained_", self.untrained[0])):
            weights = jax.tree.map(jnp.asarray, weights)
            measured = measure_all(weights, self.probe, random.key(PROBE + 1), self.network)
            found |= {name + field: value for field, value in measured._asdict().items()}
            if self.network is RECURRENT:
                cost = jax.lax.map(partial(energies, x=self.probe.x), weights)
                found |= {name + "energy_" + f: value for f, value in cost._asdict().items()}
        return {name: np.asarray(value) for name, value in found.items()}

    def summary(self, found: dict) -> dict:
        """For each rate, the few numbers that one looks at first: means over seeds."""
        return {
            f"rate {rate:g}": summary(found, found["rates"] == rate)
            for rate in self.settings["rates"]
        }


def summary(found: dict, which) -> dict:
    """Means over the networks `which`, rounded."""

    def mean(name):
        return np.round(found[name][which].mean(0, dtype=float), 4).tolist()

    shown = {
        "bounds (none, median, category)": np.round(found["bounds"], 4).tolist(),
        "preactivation": mean("preactivation"),
        "lesioned": mean("lesioned"),
        "control lesion": mean("control"),
        "prediction units above zero": (found["units"][which] > 0).any(1).sum(1).tolist(),
        "expected, unexpected": [mean("expected"), mean("unexpected")],
        "decoded": mean("decoded"),
    }
    if "energy_total" in found:
        costs = [mean(f"energy_{name}")[-1] for name in ("activity", "transmission", "total")]
        shown["AP, ST, EC at the last step"] = costs
    return shown
