"""pcbook.core.pickling: a rule that another process loads takes the same step, bit for bit."""

import inspect
import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from pcbook import (
    backprop,
    graph,
    inference_learning,
    models,
    network,
    predictive_coding,
    queries_and_forgetting,
    rules,
    substrate,
)
from pcbook.core.energy import settle_then_learn

ROOT = Path(__file__).parents[2]
KEY, SIGMOID = random.key(0), network.ACTIVATIONS["sigmoid"]
PARAMS = network.init(KEY, (3, 5, 2))
X, Y = random.normal(random.key(1), (4, 3)), random.normal(random.key(2), (4, 2))
MLP, CNN = models.mlp((3, 5, 2)), models.cnn((1, 2), 2, size=2)

RULES = {
    "backprop": backprop.rule("relu", loss="cross entropy"),
    "feedback": backprop.rule_with_feedback(0.5),
    "no pause": backprop.rule_without_pause(0.5),
    "without biases": rules.without_biases(backprop.rule()),
    "a name of one's own": backprop.rule()._replace(name="mine"),
    "predictive coding": predictive_coding.rule(steps=3, rate=0.1, loss="cross entropy"),
    "precisions": predictive_coding.rule(steps=3, precision=[0.5, jnp.array([1.0, 2.0])]),
    "last layer": predictive_coding.last_layer_rule(),
    "inference learning": inference_learning.rule(
        steps=5, activation=network.ACTIVATIONS["sigmoid"]
    ),
    "equilibrium propagation": inference_learning.equilibrium_propagation(0.1, steps=5),
    "hidden causes": queries_and_forgetting.rule(steps=3),
    "gates": queries_and_forgetting.keeping_gates(backprop.rule(), 1),
    "spikes": substrate.spiking(steps=3),
    "in the loop": substrate.in_the_loop(backprop.rule(), PARAMS),
    "graph": graph.rule(MLP, "squared error", method="inference-learning", steps=3, rate=0.1),
    "energy": settle_then_learn(
        "mine",
        predictive_coding.chain("tanh"),
        network.predictor("tanh"),
        network.LOSSES["squared error"],
        steps=2,
        rate=0.1,
    ),
}

LOAD = """
import pickle, sys
import jax
import numpy as np
with open(sys.argv[1], "rb") as file:
    found = {name: leaves(*case) for name, case in pickle.load(file).items()}
with open(sys.argv[2], "wb") as file:
    pickle.dump(found, file)
"""


def leaves(rule, params, x, y):
    """The step of a rule and its prediction, as bytes."""
    key = jax.random.key(3)
    step = rule.gradient(params, rule.init(key, params), x, y, key), rule.predict(params, x)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(step)]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """What a process that has only the pickles finds."""
    folder = tmp_path_factory.mktemp("pickles")
    script = "import jax, numpy as np\n" + inspect.getsource(leaves) + LOAD
    cases = {name: (rule, PARAMS, X, Y) for name, rule in RULES.items()}
    cases["cnn"] = (graph.rule(CNN, method="z-il"), CNN.init(KEY), jnp.ones((4, 4)), Y)
    (folder / "rules").write_bytes(pickle.dumps(cases))
    subprocess.run(
        [sys.executable, "-c", script, folder / "rules", folder / "found"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    return cases, pickle.loads((folder / "found").read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("name", [*RULES, "cnn"])
def test_a_rule_takes_the_same_step_where_it_is_loaded(elsewhere, name):
    cases, found = elsewhere
    assert found[name] == leaves(*cases[name])


def test_a_rule_with_what_does_not_pickle_says_so():
    rule = predictive_coding.rule(activation=lambda x: jnp.tanh(x))
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(rule)


def test_a_function_of_a_table_is_loaded_as_that_of_the_table():
    for function in (*network.ACTIVATIONS.values(), *network.LOSSES.values()):
        assert pickle.loads(pickle.dumps(function)) is function
