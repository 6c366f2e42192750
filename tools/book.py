"""Build the book: run the chapters whose inputs have changed, two at a time, then make the pages.

Jupyter Book runs a notebook again only when its own code changes. A chapter also
depends on the modules of `pcbook` that it imports (and those that they import), on
its claims, on `results/` where it or they read from there, and on the pinned packages. All
of that makes the chapter's key here; a chapter whose key has changed is dropped from the
cache, and is run again. A cell that fails fails the build, with its traceback.

    python tools/book.py
"""

import ast
import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path

import grimp
import nbformat
import settings
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import ExecutionResult, single_nb_execution

import pcbook

ROOT = Path(__file__).parents[1]
CACHE = ROOT / "_build" / ".jupyter_cache"
KEYS = CACHE / "keys.json"
PAGES = ROOT / "_build" / "html"
MADE_FROM = ROOT / "_build" / "made_from"
AT_A_TIME = 2


def main() -> None:
    enter_root()
    keys = run_chapters(chapters())
    build_pages(keys)
    print(f"\nThe book is at {PAGES / 'index.html'}\nRead it there, or with `make serve`.")


def enter_root() -> None:
    """Work from the repository's root, with the settings that all chapters share."""
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    settings.apply()


def chapters() -> list[Path]:
    """The notebooks of the table of contents, relative to the root."""
    toc = yaml.safe_load(Path("_toc.yml").read_text(encoding="utf-8"))
    files = [toc["root"]] + [c["file"] for part in toc["parts"] for c in part["chapters"]]
    return [path for file in files if (path := Path(f"{file}.ipynb")).exists()]


# --- what a chapter depends on ---


def key(chapter: Path, notebook: nbformat.NotebookNode) -> str:
    """A digest of everything that the chapter's outputs depend on."""
    cells = [(c.source, c.metadata) for c in notebook.cells if c.cell_type == "code"]
    code = "\n".join(source for source, _ in cells)
    modules = sorted(closure(imported(code) | own_modules(chapter)))
    texts = [file.read_text(encoding="utf-8") for file in map(source, modules)]
    claims = yaml.safe_load(Path("book/claims.yml").read_text(encoding="utf-8")) or []
    parts = [
        json.dumps(cells),
        json.dumps([claim for claim in claims if claim["chapter"] == chapter.stem]),
        sys.version,
        *texts,
        *map(digest, (Path("requirements.txt"), Path("tools/settings.py"))),
        *(digest(file) for file in package_data()),
        *(digest(file) for file in stored_results() if reads_results([code, *texts])),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def imported(code: str) -> set[str]:
    """The modules of pcbook that a chapter's code names; all of them if it takes pcbook whole."""
    names = set()
    for node in ast.walk(ast.parse(TransformerManager().transform_cell(code))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {node.module} - {"pcbook"}
    modules = graph().modules
    if names & {"pcbook", "pcbook.*"}:
        return modules
    names |= {pcbook._HOME.get(name.removeprefix("pcbook."), name) for name in names}
    return names & modules


def own_modules(chapter: Path) -> set[str]:
    """The module that backs the chapter, and the one that checks its exercises."""
    own = f"{chapter.parent.name}.{chapter.stem}"
    return {f"pcbook.{own}", f"pcbook.exercises.{own}"} & graph().modules


def closure(modules: set[str]) -> set[str]:
    """The modules and all that they import, with the packages that hold them."""
    reached = set(modules)
    for module in modules:
        reached |= graph().find_upstream_modules(module)
    return reached | {name.rpartition(".")[0] for name in reached if "." in name} | {"pcbook"}


@cache
def graph() -> grimp.ImportGraph:
    """Which module of pcbook imports which."""
    return grimp.build_graph("pcbook", cache_dir=None)


def source(module: str) -> Path:
    path = Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def package_data() -> list[Path]:
    """The files of the package that are not Python."""
    return sorted(
        path
        for path in Path("pcbook").rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    )


def reads_results(texts: list[str]) -> bool:
    """Whether any of these texts calls `stored`, whatever the name of the result."""
    return any("stored(" in text for text in texts)


def stored_results() -> list[Path]:
    return sorted(path for path in Path("results").rglob("*") if path.is_file())


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# --- running them ---


def run_chapters(chapters: list[Path]) -> dict[Path, str]:
    """Bring the cache up to date, or exit with the tracebacks of the cells that failed.

    Returns the key of each chapter.
    """
    store = get_cache(str(CACHE))
    keys = json.loads(KEYS.read_text(encoding="utf-8")) if KEYS.exists() else {}
    notebooks = {chapter: nbformat.read(chapter, as_version=4) for chapter in chapters}
    wanted = {chapter: key(chapter, notebook) for chapter, notebook in notebooks.items()}
    stale = {
        chapter: notebook
        for chapter, notebook in notebooks.items()
        if keys.get(str(chapter)) != wanted[chapter] or not cached(store, notebook)
    }
    print(f"{len(chapters)} notebooks, {len(stale)} to run", flush=True)
    failures = []
    with ProcessPoolExecutor(AT_A_TIME) as pool:
        running = {
            pool.submit(execute, notebook, chapter.parent): chapter
            for chapter, notebook in stale.items()
        }
        for done, future in enumerate(as_completed(running), 1):
            chapter, result = running[future], future.result()
            verdict = "FAILED after" if result.err else "ran in"
            print(f"[{done}/{len(stale)}] {chapter} {verdict} {result.time:.0f} s", flush=True)
            if result.err:
                failures.append(f"{chapter}\n{result.exc_string}")
                continue
            bundle = CacheBundleIn(result.nb, str(chapter), data={"execution_seconds": result.time})
            store.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
            keys[str(chapter)] = wanted[chapter]
            KEYS.write_text(json.dumps(keys, indent=1), encoding="utf-8")
    if failures:
        sys.exit("\n\n".join(failures))
    return wanted


def cached(store, notebook) -> bool:
    try:
        return bool(store.match_cache_notebook(notebook))
    except KeyError:
        return False


def execute(notebook: nbformat.NotebookNode, folder: Path) -> ExecutionResult:
    """Run a notebook in a kernel of its own, one that says nothing but errors."""
    quietly = ["--IPKernelApp.log_level=ERROR"]
    return single_nb_execution(
        notebook, cwd=str(folder), timeout=300, allow_errors=False, extra_arguments=quietly
    )


def build_pages(keys: dict[Path, str]) -> None:
    """Make the HTML, with warnings as errors, unless it was made from just these files."""
    files = [Path(f) for f in ("_config.yml", "_toc.yml", "package-lock.json", "requirements.txt")]
    files += sorted(p for p in Path("book").rglob("*") if p.is_file() and p.suffix != ".pyc")
    inputs = "\n".join([*map(digest, files), *map(str, files), *keys.values()])
    if MADE_FROM.exists() and MADE_FROM.read_text(encoding="utf-8") == inputs:
        return
    MADE_FROM.unlink(missing_ok=True)
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    strictly = ["--all", "-W", "-n", "--keep-going", "-q"]
    command = [jupyter_book, "build", ".", *strictly]
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
        sys.exit("The pages were not built: see the warnings above.")
    MADE_FROM.write_text(inputs, encoding="utf-8")


if __name__ == "__main__":
    main()
