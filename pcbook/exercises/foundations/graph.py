"""The exercises of the chapter *graph*."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from pcbook.exercises import NotYet, expect


def depth(answer) -> str:
    """Steps of rate 1 until fixed prediction is exact, for three graphs."""
    chain, skip, recurrent = np.asarray(answer, float)
    if chain == 7 or recurrent == 31:
        raise NotYet(
            "Count the steps, not the vertices: the topmost vertex has its error at the start."
        )
    if skip == 0:
        raise NotYet(
            "The short cut brings an error early, but not all of it: the longest way counts."
        )
    expect([chain], [6], "A chain of 7 vertices: the error of the top one is there at step 0.")
    expect(
        [skip],
        [6],
        "With a skip the first vertex has two ways to the loss. When is its error complete?",
    )
    expect(
        [recurrent], [30], "From the first h to the last is 29 steps, and one more to its read-out."
    )
    return "The longest way to the loss decides, through layers and through time alike."


def front(answer) -> str:
    """One sweep of Z-IL by hand on a chain of tanh layers without biases."""
    rng = np.random.default_rng(0)
    Ws = [rng.normal(size=(4, 4)) / 2 for _ in range(3)]
    x, y = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    for rate in (1.0, 0.5):
        found = answer(Ws, x, y, rate)
        if found is None:
            raise NotYet("The function returns nothing yet.")
        if len(found) != 3:
            raise NotYet(f"There are three errors, e_1 to e_3, not {len(found)}.")
        right = _sweep(Ws, x, y, rate)
        for e in found:
            if np.shape(e) != (5, 4):
                raise NotYet(f"An error has the shape of its activity, (5, 4), not {np.shape(e)}.")
        expect(found[2], right[2], "The top error is y - mu_3, whole: the rate does not touch it.")
        flipped = _sweep(Ws, x, y, rate, slope=False)
        if np.allclose(found[1], flipped[1]):
            raise NotYet(
                "The derivative of tanh is missing on the way down: phi'(x) = 1 - tanh(x)^2."
            )
        expect(
            found[1], right[1], "e_2 = rate * (e_3 W_3) * phi'(x_2), with x_2 of the forward pass."
        )
        expect(found[0], right[0], "e_1 is made from e_2 as e_2 was from e_3.")
    return "Each vertex settled once, from the one above. At rate 1 you have written backprop."


def _sweep(Ws, x, y, rate, slope=True):
    xs = [x]
    for i, W in enumerate(Ws):
        xs.append((np.tanh(xs[-1]) if i else xs[-1]) @ W.T)
    es = [y - xs[-1]]
    for W, h in zip(Ws[:0:-1], xs[-2:0:-1]):
        es.insert(0, rate * (es[0] @ W) * (1 - np.tanh(h) ** 2 if slope else 1))
    return es


def price(answer) -> str:
    """Fixed prediction's arithmetic over backprop's, on ten equal layers, 100 steps."""
    value = float(answer)
    if np.isclose(value, 100):
        raise NotYet(
            "That is the objection in round numbers. What does a step do, and what backprop?"
        )
    if np.isclose(value, 100 * 9 / 29):
        raise NotYet("The forward pass and the update of the weights are still to be added.")
    expect(
        value,
        (10 + 100 * 9 + 10) / (10 + 9 + 10),
        "Count products: forward, a step, the update.",
        rtol=0.005,
    )
    return "About thirty times, for what one sweep of the front gives exactly."


def straight(answer) -> str:
    """A function with a checkpoint_name that makes its sigmoid layer a vertex."""
    W, x = jnp.ones((3, 3)) / 3, jnp.ones((2, 3))
    program = jax.make_jaxpr(answer)(W, x)
    names = {e.params["name"]: e for e in program.eqns if e.primitive.name == "name"}
    if "hidden" not in names:
        raise NotYet(f'No vertex is called "hidden": there are {list(names)}.')
    until_there = program.jaxpr.replace(outvars=names["hidden"].outvars)
    (held,) = jaxpr_as_fun(program.replace(jaxpr=until_there))(W, x)
    if not np.allclose(held, jax.nn.sigmoid(x @ W)):
        raise NotYet("The vertex should hold what comes out of the sigmoid, not what goes in.")
    expect(
        answer(W, x),
        (jax.nn.sigmoid(x @ W) @ W).sum(),
        "A name must not change the value of the loss.",
    )
    return "The cut is where you say: the same loss, another graph."
