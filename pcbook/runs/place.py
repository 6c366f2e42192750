"""The beginning and the end of a run: its settings, its folder, and what it leaves there."""

import hashlib
import json
from argparse import Namespace
from pathlib import Path

import jax
import numpy as np

from pcbook.emergence.energy_efficiency import SIZES
from pcbook.runs.checkpoints import claim_folder, room_to_write
from pcbook.runs.devices import agree, arithmetic, find_devices, first_process
from pcbook.runs.files import shown, write_npz
from pcbook.runs.loop import Networks
from pcbook.store import results
from pcbook.store.data import Dataset


def settings_of(options: Namespace, dataset: Dataset, rate: float, epochs: int) -> dict:
    """What makes any run what it is, with `rate` and `epochs` where the options name none."""
    least, most = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
    rates = list(options.rate) or [rate]
    for rate in rates:
        if not least <= rate <= most:
            raise ValueError(f"--rate {rate}: must be positive and finite in float32")
    return {
        "experiment": options.experiment,
        "data": options.data if options.data in SIZES else Path(options.data).name,
        "images": fingerprint(dataset),
        "rates": rates,
        "seeds": list(range(options.first_seed, options.first_seed + options.seeds)),
        "epochs": options.epochs or epochs,
        "batch_size": options.batch_size,
        "arithmetic": arithmetic(),
    }


def fingerprint(dataset: Dataset) -> str:
    """A digest of the images and labels, by which a run knows its data."""
    sha = hashlib.sha256()
    for name in Dataset.__annotations__:
        sha.update(np.ascontiguousarray(getattr(dataset, name)).tobytes())
    return sha.hexdigest()[:16]


def begin(options: Namespace, folder: Path, settings: dict, *files: Path) -> dict | None:
    """Claim the run's folder; what its record keeps of this start, or None if the run is done.

    `files` are those that the result depends on beside the code of the package. Raises Refused,
    in every process, if the processes differ or the folder is of another run.
    """
    made = results.made(options.command, results.code(*files))
    agree(
        settings
        | {f"code of {name}": digest for name, digest in made["code"].items()}
        | made["versions"]
        | {"checkpoint_every": options.checkpoint_every, "until": options.until}
    )
    claim_folder(folder, settings, options.arguments)
    if (folder / "results.json").exists():
        found = results.read(folder / "results")
        if first_process():
            print(f"{folder} is done: its results are in {folder / 'results.npz'}.")
            tell(found["summary"])
        return None
    count = len(settings["rates"]) * len(settings["seeds"])
    made["devices"] = len(find_devices(count, options.devices))
    made["processes"] = jax.process_count()
    return made


def finish(
    work: Networks, folder: Path, kept: dict, record: list[dict], arrays: dict, numbers: dict
) -> None:
    """Write weights and results, `results.json` last, which says that the run is done."""
    if not first_process():
        return
    epochs = len(kept["loss"])
    part = "" if epochs == work.settings["epochs"] else f"_until_{epochs}"
    numbers = {"epochs_trained": epochs, "diverged": work.diverged(kept["loss"])} | numbers
    with room_to_write(folder, "The last checkpoint is whole."):
        write_npz(folder / f"weights{part}.npz", **named(kept["params"]))
    write_results(folder, f"results{part}", work.settings, record, numbers, arrays)


def write_results(
    folder: Path, name: str, settings: dict, record: list[dict], numbers: dict, arrays: dict
) -> None:
    """Write the results of a run, and print what came out."""
    numbers = json.loads(json.dumps(numbers), parse_constant=lambda _: None)  # JSON has no NaN
    with room_to_write(folder, "The last checkpoint is whole."):
        results.write(folder / name, settings, record, numbers, **arrays)
    print(f"Done: {folder / f'{name}.npz'}, with what made it in {name}.json.")
    tell(numbers["summary"])


def named(params) -> dict:
    """The arrays of a tree by name: "weights", with the place of each where there are several."""
    found = jax.tree_util.tree_leaves_with_path(params)
    place = jax.tree_util.keystr
    return {f"weights{place(path)}": np.asarray(leaf) for path, leaf in found}


def tell(summary: dict) -> None:
    """Print the few numbers that one looks at first."""
    for name, numbers in summary.items():
        print(f"\n{name}")
        width = max(map(len, numbers))
        for what, value in numbers.items():
            print(f"  {what:{width}}  {shown(value)}")
