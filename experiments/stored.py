"""Results of runs that take longer than a chapter may, in results/NAME.json."""

import argparse
import datetime
import json
import platform
import re

import jax
import optax

from pcbook import data


def load(name, **settings):
    """What was stored, with the settings of this run, its versions and its date."""
    results = data.stored(name) if (data.RESULTS / f"{name}.json").exists() else {}
    versions = {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "optax": optax.__version__,
    }
    command = {"command": f"python benchmarks/{name}.py"}
    date = {"versions": versions, "date": datetime.date.today().isoformat()}
    return results | command | settings | date


def save(name, results):
    """Store with a line for each seed, or each list of lists of numbers."""
    text = json.dumps(results, indent=1)
    for inner in (r"[^\[\]]*", r"(?:\s*\[[^\[\]]*\],?)*\s*"):
        text = re.sub(rf"\[{inner}\]", lambda list: " ".join(list[0].split()), text)
    (data.RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def run(main, description):
    """Call `main(only)` from the command line: what `--only` names, or None for everything."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=raw)
    parser.add_argument("--only")
    main(parser.parse_args().only)
