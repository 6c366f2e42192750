"""List the stored results whose code has changed since they were made, and how to make them again.

A result records a digest of each source file that made it; comments and docstrings do not count.
A result is *as made* where all of these files are unchanged, *changed* where one is not or is gone,
and *not recorded* where nobody knows what code made it.

    python tools/stale.py
"""

from pcbook import results


def main() -> None:
    lines = [line for path in sorted(results.RESULTS.glob("*.json")) for line in report(path.stem)]
    print("\n".join(lines))


def report(name: str) -> list[str]:
    """Return the lines on one result: a verdict for each entry of its record, and a command."""
    record = results.stored(name)["record"]
    verdicts = [verdict(entry) for entry in record]
    total = sum(len(entry["parts"]) for entry in record)
    lines = [name]
    for entry, said in zip(record, verdicts):
        parts = len(entry["parts"])
        some = "" if parts == total else f", {parts} of {total} parts"
        lines.append(f"  {short(entry['commit'])}{some}: {said}")
    again = [e for e, said in zip(record, verdicts) if said != "as made"]
    return lines + [f"  > {command}" for command in commands(name, again)]


def short(commit: str | None) -> str:
    """Return the first digits of a commit, and whether its files had been changed."""
    head, _, dirty = (commit or "no commit").partition("-")
    return f"{head[:7]}-{dirty}" if dirty else head[:7] if commit else head


def verdict(entry: dict) -> str:
    """Return what is known of the code that made an entry of a record."""
    if entry["code"] is None:
        return "not recorded"
    files = results.changed(entry["code"])
    return f"changed: {', '.join(files)}" if files else "as made"


def commands(name: str, entries: list[dict]) -> list[str]:
    """Return the commands that compute these entries of a result again."""
    program = f"experiments/{name}.py"
    if entries and (results.ROOT / program).exists():
        return [f"python {program} --again"]
    return list(dict.fromkeys(entry["command"] for entry in entries))


if __name__ == "__main__":
    main()
