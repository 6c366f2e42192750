"""The recipes and the examples in docstrings do what they say."""

import doctest
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from pcbook.core.rules import comparison, rule, training
from pcbook.foundations.graph import methods

PAGE = Path(__file__).parents[2] / "book" / "recipes.md"
START, *SECTIONS = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
RECIPES = {section.partition("\n")[0]: section for section in SECTIONS}


def blocks(text):
    """The Python blocks of a page, each at the line of its section where it stands."""
    for found in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield "\n" * text[: found.start(1)].count("\n") + found[1]


@pytest.mark.slow
@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_does_what_it_says(title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in [*blocks(START), *blocks(RECIPES[title])]:
        exec(compile(block, f"recipes.md, {title}", "exec"), names)


def test_every_recipe_has_code():
    assert len(RECIPES) >= 9
    assert all(list(blocks(text)) for text in (START, *RECIPES.values()))


@pytest.mark.slow
@pytest.mark.parametrize("module", [comparison, rule, training, methods], ids=lambda m: m.__name__)
def test_the_examples_in_docstrings_print_what_they_say(module):
    tried = doctest.testmod(module, extraglobs={"jax": jax, "jnp": jnp})
    assert tried.attempted
    assert not tried.failed
