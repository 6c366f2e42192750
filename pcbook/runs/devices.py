"""Networks spread over the devices of one process or of several."""

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pcbook.runs import Refused


class Spread:
    """Networks spread over devices, which do not communicate.

    Where the networks do not divide evenly, the last devices train spare ones, whose results
    are discarded.
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


def first_process() -> bool:
    return jax.process_index() == 0
