"""The folder of a run and its checkpoints; what is damaged or of another run is refused."""

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np

from pcbook.runs import Refused
from pcbook.runs.devices import first_process
from pcbook.runs.files import write_json
from pcbook.store.results import check_code


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
                f"{folder} holds a run with other settings:\n{_difference(before, settings)}\n"
                "Start that command again to go on with it, or choose another --out."
            )
    elif folder.exists() and any(not path.name.endswith(".part") for path in folder.iterdir()):
        raise Refused(f"{folder} is not empty and holds no run. Choose another --out.")
    elif first_process():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)


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

    def save(self, epoch: int, state: dict, record: list[dict]) -> None:
        """Keep the host arrays of `state`, and what made them; written whole, then renamed."""
        args = self.ocp.args
        note = {"settings": self.settings, "digest": _digest(state), "record": record}
        self.manager.save(
            epoch, args=args.Composite(state=args.StandardSave(state), note=args.JsonSave(note))
        )
        self.manager.wait_until_finished()

    def latest(self, like: Callable[[int], dict]) -> tuple[int, dict, list[dict]] | None:
        """The last epoch, its state, shaped as `like(epoch)`, and its record; None before the 1st.

        Raises Refused where it is damaged or of another run, and ValueError where it was made by
        other code.
        """
        epoch = self.manager.latest_step()
        if epoch is None:
            return None
        path = self.folder / str(epoch)
        args = self.ocp.args
        try:
            note = self.manager.restore(epoch, args=args.Composite(note=args.JsonRestore())).note
            settings, expected, record = note["settings"], note["digest"], note["record"]
        except Exception as error:
            raise Refused(self._damaged(path, error)) from error
        if settings != self.settings:
            raise Refused(
                f"{path} is a checkpoint of another run:\n{_difference(settings, self.settings)}"
                "\nChoose another --out, or move it away."
            )
        for entry in record:
            check_code(entry, str(path))
        try:
            state = self.manager.restore(
                epoch, args=args.Composite(state=args.StandardRestore(like(epoch)))
            ).state
        except Exception as error:
            raise Refused(self._damaged(path, error)) from error
        state = jax.tree.map(np.asarray, state)
        if _digest(state) != expected:
            raise Refused(
                self._damaged(path, "its contents do not have the digest they were saved with")
            )
        return epoch, state, record

    def _damaged(self, path, error):
        others = [str(step) for step in self.manager.all_steps() if str(step) != path.name]
        then = f"go on from epoch {others[-1]}" if others else "begin again from the start"
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return (
            f"{path} is damaged: {lines[0]}\n"
            f"Nothing was changed. Move that folder away and start the same command to {then}."
        )


def _digest(state) -> str:
    """A fingerprint of all arrays, with their types, shapes and places."""
    sha = hashlib.sha256()
    for place, leaf in jax.tree_util.tree_leaves_with_path(state):
        leaf = np.ascontiguousarray(leaf)
        sha.update(f"{jax.tree_util.keystr(place)} {leaf.dtype} {leaf.shape} ".encode())
        sha.update(leaf.tobytes())
    return sha.hexdigest()


def _difference(before: dict, now: dict) -> str:
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "\n".join(
        f"  {name}: {before.get(name)!r} there, {now.get(name)!r} now" for name in names
    )
