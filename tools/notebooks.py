"""Save the chapters as they are committed: formatted, run, with text outputs and no pictures.

Pictures are made again by whoever builds the book or runs the chapter; what is committed is
small, and its differences can be read. What a page folds is folded in JupyterLab and in Colab
too, by their own metadata.

    python tools/notebooks.py                              # all chapters
    python tools/notebooks.py book/foundations/graph.ipynb # these
"""

import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import nbformat
from book import CACHE, chapters, enter_root, run_chapters
from jupyter_cache import get_cache
from nbval.plugin import coalesce_streams

FOLD = {"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
FOLDED_CODE = {"hide-input", "hide-cell", "remove-cell", "remove-input"}
FOLDED_OUTPUTS = {"hide-cell", "remove-cell"}
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}


def main() -> None:
    enter_root()
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", "book"], check=True)
    chosen = choose(sys.argv[1:])
    for chapter in chosen:
        notebook = nbformat.read(chapter, as_version=4)
        for cell in notebook.cells:
            fold(cell)
        nbformat.write(notebook, chapter)
    run_chapters(chosen)
    store = get_cache(str(CACHE))
    for chapter in chosen:
        _, notebook = store.merge_match_into_notebook(nbformat.read(chapter, as_version=4))
        nbformat.write(tidy(notebook), chapter)


def choose(names: list[str]) -> list[Path]:
    """The notebooks called `names`, by default all; exits for a name that is none of them."""
    known = chapters()
    for name in names:
        if Path(name) not in known:
            sys.exit(f"{name} is no chapter: must be one of {', '.join(map(str, known))}")
    return [Path(name) for name in names] or known


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without pictures, widgets and what a run leaves in its metadata."""
    patterns = ConfigParser(delimiters=":", interpolation=None)
    patterns.read("tests/nbval.cfg", encoding="utf-8")
    figures = patterns["figures"]
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        for trace in ("execution", "lines_to_next_cell"):
            cell.metadata.pop(trace, None)
        if cell.cell_type == "code":
            cell.outputs = coalesce_streams(cell.outputs)
        for output in cell.get("outputs", ()):
            if "data" not in output:
                continue
            output.data = {kind: data for kind, data in output.data.items() if kept(kind)}
            if "text/html" in output.data:
                page = output.data["text/html"]
                output.data["text/html"] = re.sub(figures["regex"], figures["replace"], page)
    return notebook


def fold(cell: nbformat.NotebookNode) -> None:
    """Fold in JupyterLab (`jupyter`) and in Colab (`cellView`) what the tags fold on a page."""
    tags = set(cell.metadata.get("tags", ())) if cell.cell_type == "code" else set()
    for key in ("jupyter", "cellView"):
        cell.metadata.pop(key, None)
    if tags & FOLDED_CODE:
        cell.metadata["jupyter"] = {"source_hidden": True}
        cell.metadata["cellView"] = "form"
    if tags & FOLDED_OUTPUTS:
        cell.metadata["jupyter"]["outputs_hidden"] = True
    if "solution" in tags:
        cell.metadata["mystnb"] = FOLD


def kept(kind: str) -> bool:
    """Whether an output of this MIME type is committed."""
    return not kind.startswith(("image/", "application/vnd.jupyter.widget"))


if __name__ == "__main__":
    main()
