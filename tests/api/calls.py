"""A valid call, small and fast, of each public function: what the bad inputs are made from."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random

import pcbook
from pcbook import (
    backprop,
    claims,
    data,
    energy,
    energy_efficiency,
    models,
    mortal_computer,
    network,
    predictive_coding,
    queries_and_forgetting,
    substrate,
)

KEY = random.key(0)
BATCH, SIZES = 4, (3, 5, 2)
ARGS = "*args"  # under this name: what is passed on by position

PARAMS = network.init(random.key(1), SIZES)
X = random.normal(random.key(2), (BATCH, 3))
Y = random.uniform(random.key(3), (BATCH, 2))
XS = network.activities(PARAMS, X)
ES = predictive_coding.errors(PARAMS, XS[:-1], Y)
SQUARE = network.init(random.key(4), (3, 3, 3))
RULE = backprop.rule()
ADAM = optax.adam(0.01)
LABELS = np.arange(40) % 4
IMAGES = np.random.default_rng(0).uniform(size=(40, 3)).astype(np.float32)
DATASET = data.Dataset(IMAGES, LABELS, IMAGES[:20], LABELS[:20])
SQUARES = np.random.default_rng(0).uniform(size=(40, 4)).astype(np.float32)
PIXELS = data.Dataset(SQUARES, LABELS, SQUARES[:20], LABELS[:20])
OUTPUTS = network.init(random.key(5), (3, 5, 4))

FULL = [jnp.ones_like(layer.W, dtype=bool) for layer in PARAMS]
CORTEX = substrate.Cortex(random.uniform(KEY, (4, 3)), jnp.zeros(4))
HABITS = substrate.Habits(steps=3)

W = energy_efficiency.init(KEY, 3)
SEQUENCE = random.uniform(KEY, (4, BATCH, 3))
PROBE = energy_efficiency.probe(DATASET, KEY, steps=4)
MEASURES = energy_efficiency.measure_all(W[None], PROBE, KEY)

BODY, MIND = mortal_computer.creature.born(60.0)
GENOME = mortal_computer.neat.Ancestry().ancestor(np.random.default_rng(0))

MEMORY = queries_and_forgetting.memorise(random.normal(KEY, (8, 3)), 0.1)
MUPC = pcbook.fast_inference.residual(3, 5, 4, 2)
MUPC_PARAMS = MUPC.init(KEY)
ENERGY = predictive_coding.chain()
CLAMPS = energy.Clamps(X, Y)


def loss(params, x, y):
    return ((network.forward(params, x) - y) ** 2).sum() / 2


def row(value):
    return jnp.asarray(value)


net = {"params": PARAMS, "x": X, "y": Y}

CALLS: dict[str, dict[str, Any]] = {
    # --- core
    "network.init": {"key": KEY, "sizes": SIZES},
    "network.firing": {"xs": XS, "activation": "tanh"},
    "network.predict": {"layer": PARAMS[0], "r": X},
    "network.activities": {"params": PARAMS, "x": X, "activation": "tanh"},
    "network.forward": {"params": PARAMS, "x": X, "activation": "tanh"},
    "network.predictor": {"activation": "tanh"},
    "models.mlp": {"sizes": SIZES, "activation": "tanh"},
    "models.residual": {"n_in": 3, "width": 4, "blocks": 2, "n_out": 2},
    "models.cnn": {"channels": (1, 2), "classes": 3, "size": 4},
    "models.rnn": {"n_in": 3, "units": 4, "n_out": 2},
    "models.lstm": {"n_in": 3, "units": 4, "n_out": 2},
    "models.transformer": {"tokens": 5, "length": 4, "width": 4, "heads": 2, "layers": 1},
    "energy.define": {
        "value": ENERGY.value,
        "start": ENERGY.start,
        "velocity": ENERGY.velocity,
        "update": ENERGY.update,
    },
    "energy.settle": {
        "energy": ENERGY,
        "params": PARAMS,
        "clamps": CLAMPS,
        "steps": 2,
        "rate": 0.1,
    },
    "energy.settle_then_learn": {
        "name": "rule",
        "energy": ENERGY,
        "predict": RULE.predict,
        "steps": 2,
        "rate": 0.1,
        "precision": 1.0,
    },
    "relaxation.relax_towards": {"target": lambda x: x / 2, "start": X, "steps": 2, "rate": 0.1},
    "relaxation.relax": {
        "velocity": lambda x: -x,
        "start": X,
        "steps": 2,
        "rate": 0.1,
        "trajectory": True,
    },
    "rules.accuracy": {"predict": RULE.predict, "params": OUTPUTS, "x": X, "y": row(LABELS[:4])},
    "rules.r_squared": {"predict": RULE.predict, "params": PARAMS, "x": X, "y": Y},
    "rules.fit": {
        "rule": RULE,
        "params": OUTPUTS,
        "data": DATASET,
        "optimizer": ADAM,
        "epochs": 1,
        "batch_size": 8,
        "key": KEY,
    },
    "rules.step": {"gradient": RULE.gradient, "optimizer": ADAM},
    "rules.begin": {"rule": RULE, "optimizer": ADAM, "params": PARAMS, "key": KEY},
    "rules.learn": {
        "rule": RULE,
        "params": PARAMS,
        "x": X[None],
        "y": Y[None],
        "optimizer": ADAM,
        "watch": lambda params: (),
        "every": 1,
        "key": KEY,
    },
    "rules.without_biases": {"rule": RULE},
    "rules.interval": {"values": np.arange(5.0), "level": 0.95},
    "rules.exceeds": {"values": np.arange(5.0), "least": 0.1},
    "rules.angle": {"update": PARAMS, "other": PARAMS[::-1]},
    "rules.compare": {
        "rules": [RULE],
        "model": models.mlp((3, 4)),
        "data": DATASET,
        "rates": (0.01, 0.1),
        "seeds": 2,
        "optimizer": optax.sgd,
        "epochs": 1,
        "batch_size": 8,
        "patience": 1,
        "key": KEY,
    },
    "cost.count": {"function": jnp.dot, ARGS: (X, X.T)},
    "cost.products": {"function": jnp.dot, ARGS: (X, X.T)},
    # --- foundations
    "backprop.rule": {"activation": "tanh", "loss": "squared error"},
    "backprop.rule_for_last_layer": {"activation": "tanh", "loss": "squared error"},
    "backprop.deltas": {"params": PARAMS, "xs": XS, "delta": Y, "activation": "tanh"},
    "backprop.weight_gradients": {"xs": XS, "ds": [ES[1], Y], "activation": "tanh"},
    "backprop.rule_with_feedback": {"agreement": 0.5, "activation": "tanh"},
    "backprop.rule_without_pause": {"overwritten": 0.5, "activation": "tanh"},
    "backprop.timeline": {"depth": 3},
    "backprop.reach": {
        "gradient": lambda params: RULE.gradient(params, (), X, Y, KEY)[1],
        "params": PARAMS,
        "key": KEY,
    },
    "predictive_coding.rule": {
        "steps": 2,
        "rate": 0.1,
        "activation": "tanh",
        "loss": "squared error",
        "precision": 1.0,
    },
    "predictive_coding.chain": {"activation": "tanh", "loss": "squared error"},
    "predictive_coding.errors": {"params": PARAMS, "xs": XS[:-1], "y": Y, "precision": 1.0},
    "predictive_coding.energy": {"params": PARAMS, "xs": XS[:-1], "y": Y, "precision": 1.0},
    "predictive_coding.energies": {"params": PARAMS, "xs": XS[:-1], "y": Y, "precision": 1.0},
    "predictive_coding.with_precision": {"params": PARAMS, "precision": 1.0},
    "predictive_coding.velocities": {"params": PARAMS, "xs": XS[:-1], "es": ES},
    "predictive_coding.infer": {**net, "steps": 2, "rate": 0.1, "precision": 1.0},
    "predictive_coding.weight_gradients": {"xs": XS[:-1], "es": ES, "activation": "tanh"},
    "predictive_coding.infer_size": {
        "light": 2.0,
        "prior_mean": 3.0,
        "prior_variance": 1.0,
        "light_variance": 1.0,
        "steps": 3,
        "rate": 0.01,
    },
    "predictive_coding.infer_input": {
        "params": PARAMS,
        "y": Y,
        "prior": jnp.zeros(3),
        "steps": 2,
        "rate": 0.1,
    },
    "predictive_coding.linear_energy": {**net, "precision": 1.0},
    "graph.value_and_grad": {"loss": loss, "method": "z-il", "vertices": "products"},
    "graph.settle": {"loss": loss, "inference": "errors", "steps": 2, "vertices": "products"},
    "graph.largest_stable_rate": {"loss": loss, "vertices": "products"},
    "graph.rule": {"model": models.mlp(SIZES), "loss": "squared error", "method": "z-il"},
    "graph.activities": {"loss": loss, "vertices": "products"},
    "graph.predictions": {"loss": loss, "vertices": "products"},
    "graph.errors": {"loss": loss, "steps": 2, "rate": 0.1, "vertices": "products"},
    "graph.trace": {"loss": loss, "vertices": "products"},
    # --- inference
    "inference_learning.settle": {**net, "tolerance": 0.1, "steps": 5, "rate": 0.1},
    "inference_learning.rule": {"tolerance": 0.1, "steps": 5, "rate": 0.1, "activation": "tanh"},
    "inference_learning.incremental_rule": {"optimizer": ADAM, "steps": 2, "rate": 0.1},
    "inference_learning.target_alignment": {**net, "update": PARAMS, "rate": 0.1},
    "inference_learning.linear_equilibrium": {**net, "precision": 1.0},
    "inference_learning.linear_targets": {"params": SQUARE, "y": X},
    "inference_learning.equilibrium_propagation": {"nudge": 0.1, "steps": 5, "rate": 0.1},
    "fast_inference.infer": {**net, "method": "euler", "rate": 0.1, "tolerance": 0.1, "steps": 3},
    "fast_inference.rule": {"method": "euler", "rate": 0.1, "tolerance": 0.1, "steps": 3},
    "fast_inference.init": {"key": KEY, "sizes": SIZES, "activation": "tanh"},
    "fast_inference.backprops": {"params": PARAMS, "sweeps": 2.0},
    "fast_inference.residual": {"n_in": 3, "width": 5, "depth": 4, "n_out": 2},
    "fast_inference.residual_activities": {
        "params": MUPC_PARAMS,
        "x": X,
        "es": jnp.zeros((3, BATCH, 5)),
    },
    "fast_inference.residual_energy": {"activation": "identity"},
    "fast_inference.residual_rule": {"steps": 2, "rate": 0.1, "activation": "identity"},
    "queries_and_forgetting.ask": {
        "params": PARAMS,
        "y": Y,
        "known": jnp.ones(2),
        "steps": 2,
        "rate": 0.1,
        "precision": 1.0,
    },
    "queries_and_forgetting.hidden_causes": {"activation": "tanh"},
    "queries_and_forgetting.rule": {"steps": 2, "rate": 0.1, "precision": 1.0},
    "queries_and_forgetting.memorise": {"x": random.normal(KEY, (8, 3)), "noise": 0.1},
    "queries_and_forgetting.recall": {
        "memory": MEMORY,
        "x": X,
        "known": jnp.array([True, True, False]),
        "steps": 2,
        "rate": 0.1,
    },
    "queries_and_forgetting.winners": {"drive": X, "k": 2},
    "queries_and_forgetting.gated": {"params": PARAMS, "gates": jnp.ones((2, 5), bool)},
    "queries_and_forgetting.keeping_gates": {"rule": RULE, "contexts": 2},
    "queries_and_forgetting.select": {"memories": [MEMORY, MEMORY], "x": X},
    "queries_and_forgetting.transfer": {"R": np.eye(3)},
    "queries_and_forgetting.move": {"state": jnp.zeros(4), "action": 1},
    # --- mortal
    "thermodynamics.protocol": {"s": 0.3},
    "thermodynamics.potential": {"x": X, "wall": 1.0, "tilt": 0.5, "height": 10.0, "force": 4.0},
    "thermodynamics.erase": {
        "key": KEY,
        "time": 0.1,
        "particles": 3,
        "moments": 2,
        "height": 10.0,
        "force": 4.0,
        "dt": 0.01,
    },
    "thermodynamics.least_work": {"success": 0.9},
    "thermodynamics.stiffen": {
        "key": KEY,
        "time": 1.0,
        "particles": 3,
        "steps": 2,
        "start": 1.0,
        "end": 4.0,
    },
    "thermodynamics.mean_work": {"time": 1.0, "steps": 2, "start": 1.0, "end": 4.0},
    "thermodynamics.free_energy": {"work": np.arange(4.0)},
    "thermodynamics.landauer": {"temperature": 300.0},
    "thermodynamics.energy_of": {"function": jnp.dot, ARGS: (X, X.T), "memory": "DRAM"},
    "thermodynamics.price": {
        "cost": {"flops": 1.0, "transcendentals": 2.0, "bytes": 3.0},
        "memory": "DRAM",
        "number": "float32",
    },
    "substrate.device": {"key": KEY, "params": PARAMS, "spread": 0.5},
    "substrate.apply_gains": {"chip": PARAMS, "params": PARAMS},
    "substrate.in_the_loop": {"rule": RULE, "chip": PARAMS},
    "substrate.generations": {
        "rule": RULE,
        "dataset": DATASET,
        "sizes": (3, 4),
        "spread": 0.5,
        "count": 2,
        "optimizer": ADAM,
        "updates": 2,
        "batch_size": 4,
        "key": KEY,
    },
    "substrate.draw_mask": {"key": KEY, "params": PARAMS, "density": 0.5},
    "substrate.apply_mask": {"params": PARAMS, "mask": FULL},
    "substrate.rewire": {
        "W": PARAMS[0].W,
        "there": PARAMS[0].W > 0,
        "score": jnp.abs(PARAMS[0].W),
        "share": 0.3,
    },
    "substrate.by_chance": {"key": KEY, "slope": PARAMS[0].W},
    "substrate.by_slope": {"key": KEY, "slope": PARAMS[0].W},
    "substrate.select_structure": {
        "rule": RULE,
        "params": PARAMS,
        "mask": FULL,
        "x": X[None, None],
        "y": Y[None, None],
        "score": substrate.by_slope,
        "shares": jnp.array([0.3]),
        "optimizer": ADAM,
        "key": KEY,
    },
    "substrate.plant": {"key": KEY, "shape": (2, 3), "units": 6, "fan_in": 3},
    "substrate.firing_rate": {"current": row([0.1, 2.0]), "neuron": substrate.Neuron()},
    "substrate.integrate_and_fire": {"current": row([0.1, 2.0]), "steps": 3, "dt": 0.1},
    "substrate.stdp": {"pre": jnp.ones((4, 3)), "post": jnp.ones((4, 2)), "dt": 1.0},
    "substrate.init_cortex": {"key": KEY, "neurons": 4, "pixels": 3, "habits": HABITS},
    "substrate.present_image": {
        "cortex": CORTEX,
        "image": X[0] ** 2 / 9,
        "key": KEY,
        "habits": HABITS,
    },
    "substrate.responses": {"cortex": CORTEX, "images": X**2 / 9, "key": KEY, "habits": HABITS},
    "substrate.classify_by_vote": {
        "known": jnp.abs(X),
        "labels": row([0, 1, 2, 9]),
        "asked": jnp.abs(X),
    },
    "substrate.send_spikes": {"value": X, "told": X / 2, "threshold": 0.1, "leak": 0.1},
    "substrate.settle_by_spikes": {**net, "steps": 2, "rate": 0.2, "threshold": 0.1, "leak": 0.1},
    "substrate.additions": {
        "params": PARAMS,
        "settled": substrate.settle_by_spikes(**net, steps=2),
    },
    "substrate.spiking": {"steps": 2, "rate": 0.2, "threshold": 0.1, "leak": 0.1},
    "substrate.infer_without_clock": {**net, "steps": 2, "chance": 0.5, "rate": 0.1, "key": KEY},
    "mortal_computer.draw_couplings": {"rng": np.random.default_rng(0), "leak": 0.1},
    "mortal_computer.wander": {"key": KEY, "A": jnp.eye(4) / 2, "steps": 3},
    "mortal_computer.lagged": {"A": np.eye(4) / 2, "past": 1},
    "mortal_computer.windows": {"z": np.ones((5, 4)), "past": 1},
    "mortal_computer.shared_information": {"C": np.eye(3) + 0.1},
    "mortal_computer.weather": {"key": KEY, "steps": 3, "regular": 0.5},
    "mortal_computer.live": {
        "key": KEY,
        "heat": jnp.zeros(3),
        "food": jnp.ones(3),
        "paces": mortal_computer.Paces(),
        "noise": 0.1,
        "budget": 60.0,
        "gain": 0.05,
        "lethal": 3.0,
        "hurt": 1,
        "cut": jnp.ones(8),
    },
    "mortal_computer.regulate": {"body": BODY, "heat": 0.1, "command": 0.1, "lethal": 3.0},
    "mortal_computer.swing": {"height": 0.4, "period": 130.0, "gain": 0.05},
    "mortal_computer.variety": {"values": np.arange(4.0), "width": 0.5},
    "mortal_computer.plenty": {"place": jnp.zeros(2)},
    "mortal_computer.forage": {
        "key": KEY,
        "manner": mortal_computer.Manner(1.0, 0.0),
        "steps": 3,
        "noise": 0.01,
    },
    "mortal_computer.lifetimes": {"food": np.ones((2, 3)), "budget": 2.0, "cost": 1.0},
    "mortal_computer.grow": {"key": KEY, "by_gradient": 1.0},
    "mortal_computer.evolve": {"seed": 0, "generations": 1, "size": 2, "threshold": 3.0},
    "mortal_computer.fitness": {"genome": GENOME},
    "mortal_computer.solves": {"genome": GENOME},
    "mortal_computer.respond": {"genome": GENOME, "x": np.eye(2)},
    "mortal_computer.free_energy": {"mind": MIND, "s": 0.1, "hands": jnp.ones((8, 2))},
    # --- emergence
    "energy_efficiency.init": {"key": KEY, "pixels": 3},
    "energy_efficiency.preactivations": {"W": W, "x": SEQUENCE, "transmit": 1.0},
    "energy_efficiency.drive": {"W": W, "x": SEQUENCE},
    "energy_efficiency.energy": {"a": SEQUENCE, "params": W, "loss": "pre"},
    "energy_efficiency.gradient": {"W": W, "x": SEQUENCE, "loss": "pre"},
    "energy_efficiency.run": {
        "network": energy_efficiency.RECURRENT,
        "params": W,
        "x": SEQUENCE,
        "transmit": 1.0,
    },
    "energy_efficiency.sequences": {"key": KEY, "labels": LABELS, "steps": 4, "order": "random"},
    "energy_efficiency.pooled": {"dataset": PIXELS, "side": 1, "channels": 1},
    "energy_efficiency.medians": {"images": IMAGES, "labels": LABELS},
    "energy_efficiency.bounds": {"dataset": DATASET},
    "energy_efficiency.energies": {"W": W, "x": SEQUENCE},
    "energy_efficiency.prediction_units": {
        "a": random.normal(KEY, (8, 3)),
        "classes": row(LABELS[:8]),
        "count": 4,
        "threshold": 0.1,
    },
    "energy_efficiency.lesion": {"units": jnp.array([True, False, False])},
    "energy_efficiency.lesion_others": {"key": KEY, "units": jnp.array([True, False, False])},
    "energy_efficiency.decode": {"drive": X, "medians": IMAGES[:4]},
    "energy_efficiency.correlation": {"a": X, "b": IMAGES[:5]},
    "energy_efficiency.elsewhere": {"classes": row(LABELS[:8])},
    "energy_efficiency.in_wrong_context": {"rows": PROBE.rows, "classes": PROBE.classes[-1]},
    "energy_efficiency.probe": {"dataset": DATASET, "key": KEY, "times": 1, "steps": 4},
    "energy_efficiency.measure": {"params": W, "test": PROBE, "key": KEY},
    "energy_efficiency.measure_all": {"params": W[None], "test": PROBE, "key": KEY},
    "energy_efficiency.interval": {
        "values": np.arange(5.0),
        "level": 0.95,
        "draws": 10,
        "seed": 0,
    },
    "energy_efficiency.rule": {"network": energy_efficiency.RECURRENT, "loss": "pre"},
    "energy_efficiency.train": {
        "images": IMAGES,
        "labels": LABELS,
        "epochs": 1,
        "rate": 1e-3,
        "loss": "pre",
        "order": "ascending",
        "steps": 4,
        "batch_size": 2,
        "seeds": (0,),
        "every": 1,
    },
    "energy_controls.conclude": {"found": MEASURES},
    "energy_controls.early_stop": {"losses": np.array([3.0, 2.0, 2.5, 2.6]), "patience": 1},
    "energy_controls.error_units": {"W": W, "test": PROBE, "step": 2, "threshold": 0.1},
    "energy_controls.latent": {"units": 2},
    "energy_controls.leaky": {"leak": 0.5},
    "energy_controls.surprise": {"params": W, "test": PROBE},
    "energy_controls.swapped": {"test": PROBE, "step": 2},
}

# Not tried, and why.
NOT_TRIED = {
    "graph.draw": "returns a picture",
    "explore.figure": "returns a picture",
    "explore.check_choice": "is what explore and live check by",
    "explore.is_numeric": "is what explore and live ask of a choice",
    "live.live": "takes a drawing of one's own",
    "panels.arrange": "is what explore draws by",
    "panels.base64_of": "is what explore draws by",
    "panels.check_text": "is what explore draws by",
    "panels.images": "is what explore draws by",
    "panels.layout": "is what explore draws by",
    "panels.png": "is what explore draws by",
    "energy_controls.judge": "trains for minutes",
    "explore.picture": "returns a picture",
    "explore.explore": "returns a picture",
    "explore.glue": "writes into a notebook",
    "energy.contrast": "its options are those of settle_then_learn",
    "data.digits": "reads a file",
    "data.mnist": "downloads",
    "data.fashion_mnist": "downloads",
    "data.cifar10": "downloads",
    "energy.largest_stable_rate": "takes an Energy, which settle_then_learn is tried with",
    "pickling.picklable": "decorates functions",
    "rules.verify": "tries a rule, and raises what it finds",
    "predictive_coding.beside_backprop": "reads a Comparison for a claim",
    "predictive_coding.last_layer_rule": "has no arguments",
    "predictive_coding.nearest_mean": "takes a Dataset",
    "predictive_coding.measure_fall": "measures for a claim",
    "descent.barzilai_borwein": "is what descend follows",
    "descent.begin": "is what descend begins with",
    "descent.conjugate_gradients": "takes a product of one's own",
    "descent.descend": "takes a slope of one's own",
    "descent.follow": "takes a velocity of one's own",
    "queries_and_forgetting.practise": "plays for minutes",
    "energy_controls.vary": "trains for minutes",
    "energy_controls.watch": "trains for minutes",
    "energy_controls.table": "returns a text",
    "rules.stateless": "takes anything",
}

# Modules that serve others: the reading of arguments itself, files, and the ledger's cards.
NOT_COVERED = {"arguments", "checks", "jaxprs", "results", "claims", "exercises"}


def public() -> dict[str, Any]:
    """The public functions by module and name: no classes, and no criteria of claims."""
    found = {}
    for module_name in pcbook.__all__:
        if module_name in NOT_COVERED:
            continue
        module = getattr(pcbook, module_name)
        for name in getattr(module, "__all__", vars(module)):
            value = getattr(module, name)
            if name.startswith("_") or inspect.isclass(value) or not callable(value):
                continue
            home = getattr(value, "__module__", "")
            if home.startswith(module.__name__) and not isinstance(value, tuple):
                found[f"{module_name}.{name}"] = value
    criteria = {id(function) for function in claims.criteria().values()}
    return {name: value for name, value in found.items() if id(value) not in criteria}


def call(function, arguments: dict[str, Any]):
    """Call a function by keywords, and by position for what stands under `ARGS`."""
    named = dict(arguments)
    if ARGS in named:
        rest = named.pop(ARGS)
        return function(named.pop("function"), *rest, **named)
    return function(**named)


def comparable(result):
    """What a call returned as a list of arrays, so that two can be compared; keys as numbers."""
    leaves = jax.tree.leaves(result)
    arrays = []
    for leaf in leaves:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = random.key_data(leaf)
        if isinstance(leaf, np.ndarray | jax.Array | float | int | bool | np.generic):
            arrays.append(np.asarray(leaf))
    return arrays
