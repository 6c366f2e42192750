"""The loop of long runs: networks side by side, epoch by epoch, with checkpoints between them."""

import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import random
from tqdm import tqdm

from pcbook.emergence.energy_efficiency.training import seed_keys
from pcbook.runs import Diverged, Stopped
from pcbook.runs.checkpoints import Checkpoints, check_disk, room_to_write
from pcbook.runs.devices import Spread, any_process, check_memory, first_process
from pcbook.runs.files import Metrics
from pcbook.runs.stopping import Stop
from pcbook.store import results

MINUTE = 60.0  # seconds between two lines of progress in a log


class Networks:
    """A network for each rate with each seed, trained side by side over the devices.

    `init(keys)` makes the state before the first epoch, (parameters, state of the rule, memory of
    the optimiser) with a leading axis of networks. `epoch(state, keys, rates, *shared, number)`
    trains the networks of one device for an epoch and returns the new state and what was seen of
    each: arrays by name with a leading axis of networks, `seen` saying their shapes. The training
    loss is among them, as "loss".
    """

    def __init__(self, settings: dict, devices: int | None, init: Callable, epoch: Callable,
                 shared: tuple, seen: dict[str, tuple[int, ...]]):  # fmt: skip
        self.settings, self.seen = settings, seen
        self.networks = list(product(settings["rates"], settings["seeds"]))
        rates, seeds = zip(*self.networks)
        self.spread = Spread(len(self.networks), devices)
        one = jax.eval_shape(init, seed_keys(seeds[:1]))
        self.bytes = len(seeds) * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves(one))
        check_memory(self.bytes, len(seeds))
        keys = seed_keys(seeds)
        self.untrained = jax.tree.map(np.asarray, init(keys))
        self._each = self.spread.out((random.key_data(keys), np.float32(rates)))
        self._shared = jax.tree.map(self.spread.share, shared)

        def advance(state, each, shared, number):
            keys, rates = each
            return epoch(state, random.wrap_key_data(keys), rates, *shared, number)

        self._advance = self.spread.function(advance, shared=2)

    def kept(self, epochs: int) -> dict:
        """What is kept before the first epoch, or the shapes of what is kept after some."""
        params, state, memory = self.untrained
        rows = {n: np.zeros((epochs, len(self.networks), *s), "f") for n, s in self.seen.items()}
        return {"params": params, "state": state, "memory": memory} | rows

    def advance(self, state, epoch: int) -> tuple[Any, dict]:
        """One epoch further: the state on the devices, and on the host what was seen."""
        number = self.spread.share(np.int32(epoch))
        state, seen = self._advance(state, self._each, self._shared, number)
        return state, self.spread.gather(seen)

    @property
    def columns(self) -> list[str]:
        """The columns of metrics.csv."""
        return ["epoch", "rate", "seed", *self.seen]

    def rows(self, epoch: int, seen: dict) -> Iterator[list]:
        """The rows of metrics.csv for one epoch."""
        for i, network in enumerate(self.networks):
            yield [epoch + 1, *network, *(f"{seen[name][i]:.6f}" for name in self.seen)]

    def diverged(self, loss) -> list[dict]:
        """The networks whose loss (epochs, networks) ceased to be finite, each with its epoch."""
        lost = ~np.isfinite(loss)
        return [
            {"rate": rate, "seed": seed, "epoch": int(lost[:, i].argmax()) + 1}
            for i, (rate, seed) in enumerate(self.networks)
            if lost[:, i].any()
        ]


def leaves(tree) -> list:
    """The arrays of a tree."""
    return jax.tree.leaves(tree)


def train(
    work: Networks,
    folder: Path,
    epochs: int,
    checkpoint_every: int,
    quiet: bool,
    made: dict,
    stop: Stop,
) -> tuple[dict, list[dict]]:
    """Train from the last checkpoint, or from the start, until so many epochs are trained.

    Returns what is kept and its record: for each start, the epochs that it trained. Raises
    Stopped once a process is asked to stop, and Diverged when every network has diverged.
    """
    began = time.monotonic()
    with room_to_write(folder, "Nothing was lost."):
        checkpoints = Checkpoints(folder / "checkpoints", work.settings)
        check_disk(folder, work.bytes)
    epoch, kept, before = checkpoints.latest(work.kept) or (0, work.kept(0), [])
    first, record = epoch, before
    _tell_changes(before, made, epoch)
    state = work.spread.out((kept["params"], kept["state"], kept["memory"]))
    seen = {name: list(kept[name]) for name in work.seen}
    metrics = Metrics(folder / "metrics.csv", work.columns)
    safe = f"The checkpoint of epoch {epoch} is whole." if epoch else "No epoch was kept yet."
    asked = any_process(bool(stop.asked))
    if first_process():
        with room_to_write(folder, safe):
            each = ({name: rows[n] for name, rows in seen.items()} for n in range(epoch))
            metrics.rewrite(row for n, found in enumerate(each) for row in work.rows(n, found))
    with Progress(folder.name, epoch, epochs, quiet or not first_process()) as progress:
        while epoch < epochs and not asked:
            state, found = work.advance(state, epoch)
            for name, rows in seen.items():
                rows.append(found[name])
            if first_process():
                with room_to_write(folder, safe):
                    metrics.append(work.rows(epoch, found))
            epoch += 1
            progress.tell(epoch, float(found["loss"].mean()))
            _tell_diverged(work, np.array(seen["loss"]))
            asked = any_process(bool(stop.asked))
            if asked or epoch % checkpoint_every == 0 or epoch == epochs:
                params, own, memory = work.spread.gather(state)
                kept = {"params": params, "state": own, "memory": memory}
                kept |= {name: np.array(rows) for name, rows in seen.items()}
                trained = {f"epochs {first + 1} to {epoch}": round(time.monotonic() - began)}
                record = results.add_parts(before, made, trained)
                with room_to_write(folder, safe):
                    checkpoints.save(epoch, kept, record)
                safe = f"The checkpoint of epoch {epoch} is whole."
    if epoch < epochs:
        raise Stopped(f"{safe} The same command goes on from there.")
    return kept, record


def _tell_changes(record, made, epoch):
    """Say what the last start of a record had otherwise that changes numbers by rounding."""
    names = ("versions", "devices", "processes")
    before = {name: record[-1].get(name, 1) for name in names} if record else {}
    differs = results.difference(before, {name: made[name] for name in before})
    if differs and first_process():
        print(
            f"Before epoch {epoch + 1} the run had {differs}. From here on it rounds otherwise, "
            "and rounding grows over epochs: the result differs from that of one start.",
            file=sys.stderr,
        )


def _tell_diverged(work, loss):
    """Say which networks diverged in the last epoch; raise Diverged if now all have."""
    lost = work.diverged(loss)
    for network in lost:
        if network["epoch"] == len(loss) and first_process():
            print(
                f"rate {network['rate']:g}, seed {network['seed']} diverged in epoch {len(loss)}",
                file=sys.stderr,
            )
    if len(lost) == len(work.networks):
        raise Diverged(
            f"every network has diverged by epoch {len(loss)}: choose a smaller --rate and "
            "another --out. No results were written."
        )


class Progress:
    """What a run says while it trains: a bar on a terminal, in a log a line each minute."""

    def __init__(self, name: str, epoch: int, epochs: int, quiet: bool):
        self.name, self.first, self.epochs, self.quiet = name, epoch, epochs, quiet
        self.began = self.told = time.monotonic()
        bar = sys.stderr.isatty() and not quiet
        self.bar = tqdm(total=epochs, initial=epoch, unit="epoch", disable=not bar)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.bar.close()

    def tell(self, epoch: int, loss: float) -> None:
        """Say how far it is; the first time after the first epoch, with what is left."""
        self.bar.set_postfix({"loss": f"{loss:.4f}"}, refresh=False)
        self.bar.update()
        now, done = time.monotonic(), epoch - self.first
        if not self.bar.disable or self.quiet or (done > 1 and now - self.told < MINUTE):
            return
        said = f"{self.name}: epoch {epoch} of {self.epochs}, loss {loss:.4f}"
        if done > 1:  # the first epoch holds the time of compiling
            said += f", about {(now - self.began) / (done - 1) * (self.epochs - epoch):.0f} s left"
        else:
            self.began = now
        self.told = now
        print(said, file=sys.stderr, flush=True)
