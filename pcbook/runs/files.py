"""Long runs: checkpoints that survive a kill, and networks spread over devices and processes.

A run is a folder. `settings.json` says what it is, `metrics.csv` grows by a row for each
network and epoch, `checkpoints/` holds the last two states, and `weights.npz`, `results.npz` and
`results.json` stand there when it is done. An epoch depends on the seed, on the number of the
epoch and on the state before it, and on nothing else: that is why a run that was killed
ends, bit for bit, where it would have ended.
"""

import csv
import hashlib
import io
import json
import os
import platform
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


class Refused(Exception):
    """The run cannot go on, and nothing was lost; the message says why and what to do."""


def versions() -> dict[str, str]:
    """What made a result."""
    import jaxlib
    import optax

    from pcbook import __version__

    return {
        "pcbook": __version__,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "numpy": np.__version__,
        "optax": optax.__version__,
        "platform": f"{jax.default_backend()}, {platform.machine()}",
    }


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


# --- devices ---


class Spread:
    """Networks spread over devices: each works on its own and never asks another.

    Where the devices do not share out evenly, the last ones train spare networks that are
    thrown away.
    """

    def __init__(self, count: int, devices: int | None = None):
        found = jax.devices()
        if devices is not None and not 1 <= devices <= len(found):
            raise Refused(
                f"--devices {devices}: must be 1 to {len(found)}, the devices that JAX finds here"
            )
        found = found[:devices]
        if jax.process_count() == 1:
            found = found[:count]
        self.count = count
        self.padded = -(-count // len(found)) * len(found)
        self.mesh = Mesh(np.array(found), ("networks",))

    def out(self, tree):
        """Host arrays, with a leading axis of `count` networks, onto the devices."""
        split = NamedSharding(self.mesh, P("networks"))

        def put(leaf):
            leaf = np.asarray(leaf)
            missing = self.padded - len(leaf)
            spare = leaf[:1].repeat(missing, 0)
            leaf = np.concatenate([leaf, spare])
            return jax.make_array_from_callback(leaf.shape, split, lambda at: leaf[at])

        return jax.tree.map(put, tree)

    def share(self, array):
        """The same host array on every device."""
        array, whole = np.asarray(array), NamedSharding(self.mesh, P())
        return jax.make_array_from_callback(array.shape, whole, lambda at: array[at])

    def gather(self, tree):
        """Back on the host of every process, the spare networks thrown away."""
        if jax.process_count() > 1:
            tree = multihost_utils.process_allgather(tree, tiled=True)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: self.count], tree)

    def function(self, function, shared: int):
        """Compile `function(trees over networks, ..., shared arrays)` to run on every device."""

        def call(*args):
            specs = (P("networks"),) * (len(args) - shared) + (P(),) * shared
            return jax.shard_map(
                function, mesh=self.mesh, in_specs=specs, out_specs=P("networks"), check_vma=False
            )(*args)

        return jax.jit(call)


def first_process() -> bool:
    return jax.process_index() == 0


# --- files ---


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole, or as it was before."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, content) -> None:
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def write_npz(path: Path, **arrays) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_whole(path, buffer.getvalue())


@contextmanager
def room_to_write(folder: Path, safe: str):
    """Turn a failed write into a `Refused` that says what is safe."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:  # orbax and tensorstore raise errors of many kinds
        free = shutil.disk_usage(folder).free / 1e6
        raise Refused(
            f"could not write to {folder} ({free:,.0f} MB free): {error}\n"
            f"{safe} Make room and start the same command again."
        ) from error


class Metrics:
    """`metrics.csv`: a row for each epoch and network, to be plotted while the run goes on."""

    def __init__(self, path: Path, columns: list[str]):
        self.path, self.columns = path, columns

    def rewrite(self, rows) -> None:
        """Begin again from the rows that the checkpoint knows."""
        text = io.StringIO()
        csv.writer(text).writerows([self.columns, *rows])
        write_whole(self.path, text.getvalue().encode())

    def append(self, rows) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)


# --- checkpoints ---


class Checkpoints:
    """The last two states of a run, each with a digest by which damage is known."""

    def __init__(self, folder: Path, settings: dict):
        try:
            import orbax.checkpoint as ocp
        except ModuleNotFoundError as error:
            raise Refused(
                f"{error}. Install what long runs need: pip install 'pcbook[runs]'"
            ) from error
        self.ocp, self.folder, self.settings = ocp, folder, settings
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self.manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(self, epoch: int, state: dict) -> None:
        """Keep the host arrays of `state`; written beside the others, then renamed."""
        args = self.ocp.args
        note = {"settings": self.settings, "digest": digest(state)}
        self.manager.save(
            epoch, args=args.Composite(state=args.StandardSave(state), note=args.JsonSave(note))
        )
        self.manager.wait_until_finished()

    def latest(self, like: Callable[[int], dict]) -> tuple[int, dict] | None:
        """The last epoch with its state, shaped as `like(epoch)`; None before the first.

        Raises Refused where it is damaged or of another run.
        """
        epoch = self.manager.latest_step()
        if epoch is None:
            return None
        path = self.folder / str(epoch)
        args = self.ocp.args
        try:
            note = self.manager.restore(epoch, args=args.Composite(note=args.JsonRestore())).note
            settings, expected = note["settings"], note["digest"]
        except Exception as error:
            raise Refused(self._damaged(path, error)) from error
        if settings != self.settings:
            raise Refused(
                f"{path} is a checkpoint of another run:\n{difference(settings, self.settings)}"
                "\nChoose another --out, or move it away."
            )
        try:
            state = self.manager.restore(
                epoch, args=args.Composite(state=args.StandardRestore(like(epoch)))
            ).state
        except Exception as error:
            raise Refused(self._damaged(path, error)) from error
        state = jax.tree.map(np.asarray, state)
        if digest(state) != expected:
            raise Refused(
                self._damaged(path, "its contents do not have the digest they were saved with")
            )
        return epoch, state

    def _damaged(self, path, error):
        others = [str(step) for step in self.manager.all_steps() if str(step) != path.name]
        then = f"go on from epoch {others[-1]}" if others else "begin again from the start"
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return (
            f"{path} is damaged: {lines[0]}\n"
            f"Nothing was changed. Move that folder away and start the same command to {then}."
        )


def digest(state) -> str:
    """A fingerprint of all arrays, with their types, shapes and places."""
    sha = hashlib.sha256()
    for place, leaf in jax.tree_util.tree_leaves_with_path(state):
        leaf = np.ascontiguousarray(leaf)
        sha.update(f"{jax.tree_util.keystr(place)} {leaf.dtype} {leaf.shape} ".encode())
        sha.update(leaf.tobytes())
    return sha.hexdigest()


def claim_folder(folder: Path, settings: dict) -> None:
    """Make the run's folder, or see that it is of the same run. Raises Refused if it is not."""
    path = folder / "settings.json"
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise Refused(f"{path} is damaged: {error}. Choose another --out.") from error
        if before != settings:
            raise Refused(
                f"{folder} holds a run with other settings:\n{difference(before, settings)}\n"
                "Start that command again to go on with it, or choose another --out."
            )
    elif folder.exists() and any(not path.name.endswith(".part") for path in folder.iterdir()):
        raise Refused(f"{folder} is not empty and holds no run. Choose another --out.")
    elif first_process():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)


def difference(before: dict, now: dict) -> str:
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "\n".join(
        f"  {name}: {before.get(name)!r} there, {now.get(name)!r} now" for name in names
    )
