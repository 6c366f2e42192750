"""What JAX records of a program (a jaxpr), read alike in every JAX that the package admits.

Three details have changed between JAX 0.7.2 and 0.12: what `get_bind_params` returns (in
0.9.2), the parameters of `scan`, and the class of a jaxpr without constants (both in 0.11).
Nothing else in the package depends on the version of JAX.
"""

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def run_operation(eqn: JaxprEqn, inputs: list) -> list:
    """Run a recorded operation on new inputs.

    Args:
        eqn: The operation.
        inputs: One value for each of `eqn.invars`.

    Returns:
        One value for each of `eqn.outvars`.
    """
    bound = eqn.primitive.get_bind_params(eqn.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)  # before JAX 0.9.2
    outputs = eqn.primitive.bind(*functions, *inputs, **params)
    return list(outputs) if eqn.primitive.multiple_results else [outputs]


def scan_bounds(eqn: JaxprEqn) -> tuple[int, int]:
    """Where the constants end among a scan's inputs, and where its carried state ends."""
    if "ft_in" in eqn.params:  # from JAX 0.11 on
        constants, carry, _ = map(len, eqn.params["ft_in"].unpack())
    else:
        constants, carry = eqn.params["num_consts"], eqn.params["num_carry"]
    return constants, constants + carry


def closed(jaxpr: Jaxpr | ClosedJaxpr) -> ClosedJaxpr:
    """A jaxpr with its constants; from JAX 0.11 on, every jaxpr has them."""
    return jaxpr if hasattr(jaxpr, "consts") else ClosedJaxpr(jaxpr, ())
