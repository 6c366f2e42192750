"""Train a model on labelled images, by backprop or by predictive coding, at any size."""

from argparse import Namespace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random

from pcbook.core import models
from pcbook.core.models import Model
from pcbook.core.network import LOSSES
from pcbook.core.rules import Rule, accuracy, begin, stateless
from pcbook.core.rules.rule import epoch as learn_epoch
from pcbook.foundations import graph
from pcbook.runs import place
from pcbook.runs.loop import Networks, train
from pcbook.runs.own import check_classes, load_data, load_object
from pcbook.runs.stopping import Stop
from pcbook.store.data import Dataset

METHODS = {
    "backprop": {},
    "z-il": {},
    "fixed-prediction": {},
    "inference-learning": {"steps": 20, "rate": 0.1},
}
RATE, EPOCHS = 1e-3, 20
HIDDEN = 64  # units in the hidden layer of "mlp"


def main(options: Namespace, stop: Stop) -> None:
    """Train, or go on training, until the results stand in the folder.

    Raises Stopped at the end of an epoch, after a checkpoint, once `stop` is asked for.
    """
    dataset, folder = load_data(options.data), Path(options.out)
    check_classes(dataset)
    model, own = load_model(options.network, dataset)
    settings = place.settings_of(options, dataset, RATE, EPOCHS)
    settings |= {"network": model.name, "method": options.method}
    if settings["batch_size"] > len(dataset.x_train):
        raise ValueError(
            f"--batch-size {settings['batch_size']}: must be at most {len(dataset.x_train)}, "
            "the training images"
        )
    made = place.begin(options, folder, settings, *own)
    if made is None:
        return
    work = Work(dataset, model, settings, options.devices)
    until = min(options.until or settings["epochs"], settings["epochs"])
    kept, record = train(work, folder, until, options.checkpoint_every, options.quiet, made, stop)
    rates, seeds = zip(*work.networks)
    arrays = {"rates": np.array(rates), "seeds": np.array(seeds)}
    arrays |= {name: kept[name] for name in work.seen}
    place.finish(work, folder, kept, record, arrays, {"summary": work.summary(kept)})


def load_model(name: str, dataset: Dataset) -> tuple[Model, list[Path]]:
    """Return the multilayer network for the images, or a user's own, with the file it is from.

    Raises ValueError, which names --network, if it does not fit the images.
    """
    pixels, classes = dataset.x_train.shape[1], dataset.y_train.max() + 1
    if name == "mlp":
        return models.mlp((pixels, HIDDEN, int(classes))), []
    if ":" not in name:
        raise ValueError(
            f"--network {name}: must be mlp, or an import path, as package.module:NAME or "
            "folder/file.py:NAME"
        )
    model, file = load_object("--network", name, Model)
    try:
        scores = jax.eval_shape(
            lambda key: model.apply(model.init(key), jnp.asarray(dataset.x_train[:2])),
            random.key(0),
        )
    except Exception as error:  # whatever the user's own code raises
        raise ValueError(
            f"--network {name}: does not take images of {pixels} pixels: "
            f"{type(error).__name__}: {error}"
        ) from error
    if scores.shape != (2, classes):
        raise ValueError(
            f"--network {name}: two images give {scores.shape}, must give (2, {classes}), "
            "a score for each class"
        )
    return model, [file]


def rule_of(model: Model, method: str) -> Rule:
    """The rule that trains a model to name the class, by cross entropy."""
    if method != "backprop":
        return graph.rule(model, "cross entropy", method=method, **METHODS[method])
    loss = LOSSES["cross entropy"]

    def gradient(params, state, x, y, key):
        mean = lambda params: loss(model.apply(params, x), y).mean()  # noqa: E731
        return *jax.value_and_grad(mean)(params), state

    return Rule(f"backprop, {model.name}", stateless, gradient, model.apply)


class Work(Networks):
    """One run's computation: an epoch by Adam on the devices, and the accuracy after it."""

    def __init__(self, dataset: Dataset, model: Model, settings: dict, devices: int | None):
        rule = rule_of(model, settings["method"])
        classes = int(dataset.y_train.max()) + 1

        def init(keys):
            def one(key):
                own, key = random.split(random.fold_in(key, 0))
                return begin(rule, optax.adam(1.0), model.init(own), key)

            return jax.vmap(one)(keys)

        def epoch(state, keys, rates, images, labels, test, answers, number):
            def one(state, key, rate):
                y, key = jax.nn.one_hot(labels, classes), random.fold_in(key, number + 1)
                adam, batch_size = optax.adam(rate), settings["batch_size"]
                state, losses = learn_epoch(rule, adam, batch_size, state, images, y, key)
                score = partial(accuracy, rule.predict, state[0])
                return state, {
                    "loss": losses.mean(),
                    "train_accuracy": score(images, labels),
                    "test_accuracy": score(test, answers),
                }

            return jax.vmap(one)(state, keys, rates)

        super().__init__(
            settings,
            devices,
            init=jax.jit(init),
            epoch=epoch,
            shared=(dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test),
            seen={"loss": (), "train_accuracy": (), "test_accuracy": ()},
        )

    def summary(self, kept: dict) -> dict:
        """For each rate, the last loss and accuracies: mean and standard deviation (ddof = 1)."""

        def of(values):
            mean = round(float(values.mean()), 4)
            return [mean, round(float(values.std(ddof=1)), 4)] if len(values) > 1 else mean

        rates = np.array([rate for rate, _ in self.networks])
        return {
            f"rate {rate:g}": {
                name.replace("_", " "): of(kept[name][-1][rates == rate]) for name in self.seen
            }
            for rate in self.settings["rates"]
        }
