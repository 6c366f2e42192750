"""What a run left, for people: how far it is, its curves, and all of it as one HTML page."""

import base64
import csv
import io
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from pcbook.runs import Refused
from pcbook.runs.files import read_json, shown
from pcbook.store import results

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
td, th { border-bottom: 1px solid #8888; padding: .2rem .8rem .2rem 0; text-align: left;
  vertical-align: top }
img { max-width: 100%; background: white }
:root { color-scheme: light dark }
"""
SHADES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]  # Okabe and Ito


# --- reading ---


def read_settings(folder: Path) -> dict:
    """The settings of a run. Raises ValueError if `folder` holds none."""
    settings = read_json(folder / "settings.json")
    if not isinstance(settings, dict) or "epochs" not in settings:
        raise ValueError(f"{folder} holds no run: settings.json is missing or damaged")
    return settings


def metrics_of(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """The columns of each metrics.csv of a run, by the name of the variant, "" for the run's own.

    A last line that is still being written is left out.
    """
    found = {}
    for path in sorted([folder / "metrics.csv", *folder.glob("*/metrics.csv")]):
        if not path.exists():
            continue
        with path.open(newline="", encoding="utf-8") as file:
            head, *lines = list(csv.reader(file)) or [[]]
        lines = [line for line in lines if len(line) == len(head)]
        columns = np.array(lines, float).reshape(-1, len(head)).T
        name = "" if path.parent == folder else path.parent.name
        found[name] = dict(zip(head, columns))
    return found


def results_of(folder: Path) -> dict | None:
    """What a finished run, or one that stopped to be measured, found; None before."""
    names = ["results", *sorted(p.stem for p in folder.glob("results_until_*.json"))]
    for name in names:
        if (folder / f"{name}.json").exists():
            return results.read(folder / name)
    return None


def reached(folder: Path) -> str:
    """How far a run is, in a few words."""
    settings, found = read_settings(folder), metrics_of(folder)
    if (folder / "results.json").exists():
        results.read(folder / "results")
        return f"done, {settings['epochs']} epochs"
    parts = [
        f"{name + ': ' if name else ''}epoch {int(columns['epoch'].max(initial=0))}"
        for name, columns in found.items()
    ]
    return f"{', '.join(parts) or 'epoch 0'} of {settings['epochs']}"


def status(folder: Path) -> str:
    """How far a run is, what can be resumed, and the last losses."""
    settings = read_settings(folder)
    lines = [
        f"{folder}: {settings['experiment']} on {settings['data']}",
        f"  {reached(folder)}, {len(settings['seeds'])} seeds, rates {shown(settings['rates'])}",
    ]
    for name, columns in metrics_of(folder).items():
        kept = (folder / name / "checkpoints").glob("[0-9]*")
        epochs = sorted(int(path.name) for path in kept if path.name.isdigit())
        last = columns["epoch"] == columns["epoch"].max(initial=0)
        loss = f"{columns['loss'][last].mean():.4f}" if last.any() else "none yet"
        lines.append(
            f"  {name + ': ' if name else ''}mean loss {loss}; "
            f"checkpoints of epochs {shown(epochs) or 'none'}"
        )
    return "\n".join(lines)


def table_of_runs(folder: Path) -> str:
    """The runs in a folder, a line for each with how far it is. Raises ValueError without any."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    runs = [path.parent for path in sorted(folder.glob("*/settings.json"))]
    if not runs:
        raise ValueError(f"{folder} holds no folder of a run")
    width = max(len(path.name) for path in runs)

    def line(path):
        try:
            settings, far = read_settings(path), reached(path)
        except ValueError as error:
            return f"{path.name:{width}}  {error}"
        return f"{path.name:{width}}  {settings['experiment']}, {settings['data']}: {far}"

    return "\n".join(map(line, runs))


# --- figures ---


class Panel(NamedTuple):
    """What a figure shows: its text, its lines (variant, rate, x, y), and the names of its axes."""

    text: str
    lines: list[tuple]
    x: str
    y: str


def panels(folder: Path) -> list[Panel]:
    """What there is to draw of a run. Raises ValueError before the first epoch."""
    found = {name: c for name, c in metrics_of(folder).items() if len(c.get("epoch", ()))}
    if not found:
        raise ValueError(f"{folder} has no epoch yet: nothing to draw")
    columns = list(next(iter(found.values())))[3:]
    steps = [name for name in columns if name[0] == "a" and name[1:].isdigit()]
    drawn = []
    for column in [name for name in columns if name not in steps]:
        name = column.replace("_", " ")
        text = f"{name} in each epoch: a line for each network"
        drawn.append(Panel(text, lines_of(found, column), "epoch", name))
    if steps:
        last = {name: last_steps(c, steps) for name, c in found.items()}
        lines = [(name, rate, *pair) for name, pairs in last.items() for rate, pair in pairs]
        text = "preactivation at each image of the test sequences after the last epoch"
        drawn.append(Panel(text, lines, "image", "mean |a|"))
    return drawn


def lines_of(found, column):
    """For each network its variant and rate, the epochs and the values of a column."""
    lines = []
    for name, columns in found.items():
        for rate, seed in sorted(set(zip(columns["rate"], columns["seed"]))):
            mine = (columns["rate"] == rate) & (columns["seed"] == seed)
            lines.append((name, rate, columns["epoch"][mine], columns[column][mine]))
    return lines


def last_steps(columns, steps):
    """For each network its rate, and what it costs at each image after its last epoch."""
    last = columns["epoch"] == columns["epoch"].max()
    values = np.stack([columns[name][last] for name in steps], 1)
    return [(r, (np.arange(1, len(steps) + 1), v)) for r, v in zip(columns["rate"][last], values)]


def draw(shown: list[Panel]) -> Figure:
    """A figure with a panel below another, one colour for each variant and rate."""
    figure = Figure(figsize=(7, 3.5 * len(shown)), layout="constrained")
    for axes, panel in zip(figure.subplots(len(shown), squeeze=False)[:, 0], shown):
        kinds = list(dict.fromkeys((name, rate) for name, rate, *_ in panel.lines))
        for name, rate, *points in panel.lines:
            axes.plot(*points, **style(kinds.index((name, rate))))
        for number, (name, rate) in enumerate(kinds):
            label = f"{name}, rate {rate:g}".removeprefix(", ").replace("$", r"\$")
            axes.plot([], [], **style(number), label=label)
        axes.set(xlabel=panel.x, ylabel=panel.y)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def style(number: int) -> dict:
    """The look of the line with this number."""
    dashes = ("-", "--", ":")[number // len(SHADES) % 3]
    return {"color": SHADES[number % len(SHADES)], "linestyle": dashes, "linewidth": 1.2}


def picture(figure: Figure, kind: str = "png") -> bytes:
    """A figure as the bytes of a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=150)
    return buffer.getvalue()


def plot(folder: Path, to: Path | None) -> Path:
    """Draw the curves of a run below one another; where they were written."""
    read_settings(folder)
    figure, to = draw(panels(folder)), to or folder / "curves.png"
    kind, allowed = to.suffix.removeprefix(".").lower(), ("png", "svg", "pdf")
    if kind not in allowed:
        raise ValueError(f"--to {to}: must end in .{', .'.join(allowed)}")
    _write(to, picture(figure, kind))
    return to


# --- the page ---


def write(folder: Path, to: Path | None) -> Path:
    """Write the report of a run as one HTML page; where it was written."""
    to = to or folder / "report.html"
    _write(to, page(folder).encode())
    return to


def page(folder: Path) -> str:
    """The tables and figures of a run as HTML; whatever the run contains stands there as text."""
    settings, found = read_settings(folder), results_of(folder)
    title = escape(f"{folder.resolve().name}: {settings['experiment']} on {settings['data']}")
    body = [f"<h1>{title}</h1>", f"<p>{escape(reached(folder))}.</p>"]
    if found is not None:
        body += ["<h2>What came out</h2>", *summary(found["summary"])]
        body += diverged(found["diverged"]) if found.get("diverged") else []
    body += ["<h2>Curves</h2>", *figures(folder)]
    body += ["<h2>Settings</h2>", table([["setting", "value"], *plain(settings)])]
    if found is not None:
        body += ["<h2>What made it</h2>", *record(found["record"])]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def summary(numbers: dict[str, dict]) -> list[str]:
    """A table with a row for each measure and a column for each rate or variant."""
    measures = list(dict.fromkeys(name for column in numbers.values() for name in column))
    rows = [[name, *(shown(c.get(name, "")) for c in numbers.values())] for name in measures]
    return [table([["", *numbers], *rows])]


def diverged(networks: list[dict]) -> list[str]:
    """A sentence for each network that diverged."""
    said = "rate {rate:g}, seed {seed} diverged in epoch {epoch}"
    return [f"<p>{escape(said.format(**network))}.</p>" for network in networks]


def figures(folder: Path) -> Iterator[str]:
    """The figures as pictures within the page."""
    try:
        for panel in panels(folder):
            content = base64.b64encode(picture(draw([panel]))).decode()
            source, text = f"data:image/png;base64,{content}", escape(panel.text)
            caption = f"<figcaption>{text}</figcaption>"
            yield f'<figure><img src="{source}" alt="{text}">{caption}</figure>'
    except ValueError as error:
        yield f"<p>{escape(str(error))}.</p>"


def record(entries: list[dict]) -> list[str]:
    """A table for each start of the program: command, date, commit, versions, devices, parts."""
    return [table([["", "start"], *plain({**e, "code": None})]) for e in entries]


def plain(content: dict) -> list[list[str]]:
    """The entries of a dictionary as rows; what is nested is shown as JSON."""
    said = {k: v if isinstance(v, str) else json.dumps(v) for k, v in content.items() if v}
    return [[key, text] for key, text in said.items()]


def table(rows: list[list[Any]]) -> str:
    """A table of texts, which are escaped; the first row is its head."""
    head, *body = [[escape(str(cell)) for cell in row] for row in rows]
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in body]
    heads = "".join(f"<th>{cell}</th>" for cell in head)
    return f"<table><tr>{heads}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _write(path: Path, content: bytes) -> None:
    try:
        results.write_whole(path, content)
    except OSError as error:
        raise Refused(f"could not write {path}: {error.strerror}") from error
