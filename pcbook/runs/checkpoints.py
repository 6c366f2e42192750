"""The folder of a run and its checkpoints; what is damaged or of another run is refused."""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np

from pcbook.runs import Lost, Refused
from pcbook.runs.devices import on_first, share_text
from pcbook.runs.files import read_json, write_json
from pcbook.runs.processes import LOST
from pcbook.store.results import check_code


@contextmanager
def room_to_write(folder: Path, safe: str):
    """Turn a failed write into a `Refused` that says its cause, what is safe and what to do."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:  # orbax and tensorstore raise errors of many kinds
        text = " ".join(str(error).split()) or type(error).__name__
        number = _errno(error)
        if number is None and jax.process_count() > 1:
            raise Lost(f"{LOST} {safe}") from error
        remedy = REMEDIES.get(number, "").format(free=_free(folder))
        what = f"could not write to {folder}" if remedy else f"stopped at {folder}"
        raise Refused(f"{what}: {text}\n{safe} {remedy}".rstrip()) from error


ROOM = "{free:,.0f} MB are free there: make room and start the same command again."
REMEDIES = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: "The quota is used up: make room and start the same command again.",
    errno.EFBIG: "The file size is limited (ulimit -f): raise it and start the same command again.",
    errno.EROFS: "That file system is read-only: make it writable, or choose another --out.",
    errno.EACCES: "You may not write there: change the permissions, or choose another --out.",
    errno.EPERM: "Writing is not permitted there: remove what forbids it, or choose another --out.",
    errno.ENOTDIR: "A file stands where a folder must be: choose another --out.",
    errno.EEXIST: "A file stands where a folder must be: choose another --out.",
    errno.EISDIR: "A folder stands where a file must be: remove it, or choose another --out.",
    errno.ENOENT: "The folder is not there: restore it, or choose another --out.",
    errno.ENAMETOOLONG: "The name is too long: choose another --out.",
    errno.ELOOP: "The link leads back to itself: choose another --out.",
}


def _errno(error):
    """The number of the system's error that caused `error`; None if there is none."""
    seen = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno:
            return seen.errno
        seen = seen.__cause__ or seen.__context__
    return next((number for number in REMEDIES if os.strerror(number) in str(error)), None)


def _free(folder):
    """Megabytes free where `folder` is or would be."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    return shutil.disk_usage(there).free / 1e6


def check_disk(folder: Path, state: int) -> None:
    """Raise Refused if the disk of `folder` cannot hold three checkpoints of `state` bytes."""
    if 3 * state > 1e6 * _free(folder):
        raise Refused(
            f"{folder}: three checkpoints need {3 * state / 1e6:,.1f} MB, "
            f"{_free(folder):,.1f} MB are free there: make room, or choose another --out"
        )


def claim_folder(folder: Path, settings: dict, arguments: list[str]) -> None:
    """Make the run's folder, or see that it is of the same run, for all processes.

    The `arguments` of the command line are kept there, by which the run can be resumed. Raises
    Refused, in every process, if the folder is of another run or not seen by all.
    """

    def claim():
        with room_to_write(folder, "Nothing was begun."):
            _claim(folder, settings)
            start = {"arguments": arguments, "folder": str(Path.cwd())}
            if read_json(folder / "start.json") != start:
                write_json(folder / "start.json", start)

    on_first(claim)
    blind = [n for n, seen in enumerate(share_text(str(folder.is_dir()))) if seen != "True"]
    if blind:
        raise Refused(f"process {blind[0]} does not see {folder}: choose an --out that all share")


def _claim(folder, settings):
    path = folder / "settings.json"
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise Refused(f"{path} is damaged: {error}. Choose another --out.") from error
        if not isinstance(before, dict):
            raise Refused(f"{path} is damaged: it holds no settings. Choose another --out.")
        if before != settings:
            raise Refused(
                f"{folder} holds a run with other settings:\n{_difference(before, settings)}\n"
                "Start that command again to go on with it, or choose another --out."
            )
    elif folder.exists() and any(not _is_litter(path.name) for path in folder.iterdir()):
        raise Refused(f"{folder} is not empty and holds no run. Choose another --out.")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)


def _is_litter(name):
    """Whether a system, or a write that was cut short, leaves a file of this name."""
    return name.endswith(".part") or name in ("lost+found", ".DS_Store", "Thumbs.db")


class Checkpoints:
    """The last two states of a run, each with a digest by which damage is known."""

    def __init__(self, folder: Path, settings: dict):
        try:
            import orbax.checkpoint as ocp
        except ModuleNotFoundError as error:
            raise Refused(
                f"{error}. Long runs need orbax-checkpoint: pip install orbax-checkpoint"
            ) from error
        self.ocp, self.folder, self.settings = ocp, folder, settings
        for name in ("absl", "asyncio"):  # they print tracebacks of errors that are raised here
            logging.getLogger(name).setLevel(logging.CRITICAL)
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
