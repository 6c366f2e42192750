"""Networks spread over the devices of one process or of several."""

import json
import os
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pcbook.runs import Refused
from pcbook.store.results import difference


class Spread:
    """Networks spread over devices, which do not communicate.

    Where the networks do not divide evenly, the last devices train spare ones, whose results
    are discarded.
    """

    def __init__(self, count: int, devices: int | None = None):
        found = find_devices(count, devices)
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
        """Arrays on the host of every process, without the spare networks."""
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


def find_devices(count: int, devices: int | None = None) -> list:
    """The first so many `devices`, all by default, of which one process uses at most `count`.

    Raises Refused if there are fewer.
    """
    found = jax.devices()
    if devices is not None and not 1 <= devices <= len(found):
        raise Refused(
            f"--devices {devices}: must be 1 to {len(found)}, the devices that JAX finds here"
        )
    found = found[:devices]
    return found[:count] if jax.process_count() == 1 else found


def check_memory(state: int, networks: int) -> None:
    """Raise Refused if the `state` of so many networks, in bytes, cannot be held on this host.

    Training holds it about three times: before and after a step, and on its way to a checkpoint.
    """
    try:
        most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not told on this system
        return
    if 3 * state > most:
        raise Refused(
            f"{networks} networks need about {3 * state / 1e9:,.1f} GB, this machine has "
            f"{most / 1e9:,.1f} GB: choose fewer --seeds, or smaller images"
        )


def first_process() -> bool:
    return jax.process_index() == 0


def any_process(said: bool) -> bool:
    """Return whether any process says so; all of them must ask."""
    if jax.process_count() == 1:
        return said
    return bool(multihost_utils.process_allgather(np.bool_(said)).any())


def share_text(text: str) -> list[str]:
    """Return the text of every process, in the order of their numbers."""
    if jax.process_count() == 1:
        return [text]
    content = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(content)))
    padded = np.zeros(max(1, *sizes), np.uint8)
    padded[: len(content)] = content
    rows = multihost_utils.process_allgather(padded)
    return [row[:size].tobytes().decode() for row, size in zip(rows, sizes)]


def agree(what: dict) -> None:
    """Raise Refused, in every process, unless all have the same `what`."""
    first, *others = map(json.loads, share_text(json.dumps(what)))
    for number, other in enumerate(others, 1):
        if differs := difference(first, other):
            raise Refused(
                f"process {number} differs from process 0: process 0 has {differs}\n"
                "Nothing was trained. Start every process with the same command and code."
            )


def on_first(function: Callable[[], None]) -> None:
    """Call `function` in the first process; raise its error as Refused in every process."""
    said = ""
    if first_process():
        try:
            function()
        except (Refused, OSError, ValueError) as error:
            said = str(error) or type(error).__name__
    if said := share_text(said)[0]:
        raise Refused(said)


def arithmetic() -> dict:
    """Return the settings of JAX that change numbers or random streams."""
    config = jax.config
    return {
        "x64": config.jax_enable_x64,
        "random numbers": config.jax_default_prng_impl,
        "partitionable": config.jax_threefry_partitionable,
        "matmul precision": config.jax_default_matmul_precision,
    }
