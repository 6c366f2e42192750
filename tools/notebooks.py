"""Save the chapters as they are committed: formatted, run, with text outputs and no pictures.

Pictures and the state of widgets are made again by whoever builds the book or runs
the chapter; what is committed is small, and its differences can be read.

    python tools/notebooks.py
"""

import re
import subprocess
import sys

import nbformat
from book import CACHE, chapters, enter_root, run_chapters
from jupyter_cache import get_cache
from nbval.plugin import coalesce_streams, get_sanitize_patterns

FOLD = {"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}


def main() -> None:
    enter_root()
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", "book"], check=True)
    run_chapters(chapters())
    store = get_cache(str(CACHE))
    for chapter in chapters():
        _, notebook = store.merge_match_into_notebook(nbformat.read(chapter, as_version=4))
        nbformat.write(tidy(notebook), chapter)


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without pictures, widgets and what a run leaves in its metadata."""
    with open("tests/nbval.cfg", encoding="utf-8") as file:
        patterns = get_sanitize_patterns(file.read())
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        for trace in ("execution", "lines_to_next_cell"):
            cell.metadata.pop(trace, None)
        if "solution" in cell.metadata.get("tags", ()):
            cell.metadata["mystnb"] = FOLD
        if cell.cell_type == "code":
            cell.outputs = coalesce_streams(cell.outputs)
        for output in cell.get("outputs", ()):
            if "data" not in output:
                continue
            output.data = {kind: data for kind, data in output.data.items() if kept(kind)}
            for pattern, replacement in patterns if "text/html" in output.data else ():
                page = output.data["text/html"]
                output.data["text/html"] = re.sub(pattern, replacement, page)
    return notebook


def kept(kind: str) -> bool:
    return not kind.startswith(("image/", "application/vnd.jupyter.widget"))


if __name__ == "__main__":
    main()
