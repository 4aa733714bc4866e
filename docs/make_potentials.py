"""Write docs/potentials/, one page for each potential, and the tables in docs/networks.md.

Usage: python docs/make_potentials.py

All of it comes from the files of the potentials (docstring, ``Config``, presets) and from what
``benchmarks/networks/cost.py`` and ``benchmarks.reproduce`` have measured. ``tests/test_docs.py`` fails where a page is
out of date.
"""

import json
import re
import statistics
from pathlib import Path

from phystrain.catalogue import DEFAULT, ELEMENTS, Entry, potentials, sizes

DOCS = Path(__file__).parent
FOLDER = DOCS / "potentials"
GUIDE = DOCS / "networks.md"
COSTS = DOCS.parent / "benchmarks" / "results" / "networks" / "cost.json"
RESULTS = DOCS.parent / "benchmarks" / "results" / "reproduce"
COMPARED = {"networks-aspirin-1000": "errors, rMD17", "networks-silica-200": "errors, same topologies"}
"""Experiments that compare the networks, and their test of errors."""
TABLE = re.compile(r"(<!-- table -->\n).*?(<!-- end of table -->)", re.DOTALL)
ERRORS = re.compile(r"(<!-- errors -->\n).*?(<!-- end of errors -->)", re.DOTALL)


def pages() -> dict[Path, str]:
    """The text of every file that this script writes."""
    listed = potentials()
    made = {FOLDER / f"{entry.kind}.md": page(entry) for entry in listed}
    made[FOLDER / "README.md"] = index(listed)
    guide = TABLE.sub(lambda marks: marks[1] + costs(listed) + marks[2], GUIDE.read_text(encoding="utf-8"))
    made[GUIDE] = ERRORS.sub(lambda marks: marks[1] + errors(listed) + marks[2], guide)
    return made


def page(entry: Entry) -> str:
    """The page of one potential."""
    parts = [f"# {entry.kind}", plain(entry.introduction), facts(entry)]
    if entry.presets:
        parts += ["## Presets", presets(entry)]
    parts += ["## Settings", "\n".join(settings(entry))]
    return (
        "\n\n".join([*parts, f"Written by `python docs/make_potentials.py` from `potentials/{entry.kind}.py`."]) + "\n"
    )


def facts(entry: Entry) -> str:
    """Heads and size, in a list."""
    heads = "conservative" if len(entry.heads) == 1 else " or ".join(f"`head: {head}`" for head in entry.heads)
    lines = [f"* forces: {heads}"] if entry.is_network else []
    return "\n".join([*lines, f"* size, for {len(ELEMENTS)} elements: {sizes(entry)}"])


def presets(entry: Entry) -> str:
    """Table of the presets."""
    rows = ["| preset | replaces | parameters |", "| --- | --- | --- |"]
    for name, count in entry.parameters.items():
        fields = entry.presets.get(name, {})
        written = ", ".join(f"`{field}: {value}`" for field, value in fields.items()) or "nothing: the defaults"
        rows.append(f"| {'none' if name == DEFAULT else f'`{name}`'} | {written} | {count:,} |")
    return "\n".join(rows)


def settings(entry: Entry) -> list[str]:
    """Table of the fields."""
    rows = ["| setting | values | default | |", "| --- | --- | --- | --- |"]
    for field in entry.settings:
        default = f"`{field.default}`" if field.default else "to be given"
        rows.append(
            f"| `{field.name}` | {field.values} | {default} | {plain(field.description)} |".replace(" |  |", " | |")
        )
    return rows


def index(listed: list[Entry]) -> str:
    """The list of all pages."""
    lines = ["# Potentials", ""]
    for title, networks in (("Networks", True), ("Classical potentials and combinations", False)):
        lines += [f"## {title}", ""]
        lines += [f"* [{e.kind}]({e.kind}.md): {plain(e.summary)}" for e in listed if e.is_network == networks]
        lines.append("")
    lines.append(
        "Which network to take: [networks.md](../networks.md). One of your own: "
        "[adding-a-potential.md](../adding-a-potential.md)."
    )
    return "\n".join(lines) + "\n"


def costs(listed: list[Entry]) -> str:
    """Table of the networks: what they are, what they cost, how exact they are."""
    measured = json.loads(COSTS.read_text(encoding="utf-8")) if COSTS.is_file() else {"kinds": {}}
    rows = [
        "| network | forces | parameters | training step, ms | prediction, ms | turned, double | turned, single |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for entry in listed:
        if not entry.is_network:
            continue
        found = measured["kinds"].get(entry.kind, {})
        cells = [f"{found[key]:.0f}" if key in found else "–" for key in ("step_ms", "forces_ms")]
        cells += [f"{found[key]:.0e}" if key in found else "–" for key in ("turned_double", "turned_single")]
        parameters = (
            "–" if entry.obstacle else f"{entry.parameters['small' if 'small' in entry.parameters else DEFAULT]:,}"
        )
        rows.append(
            f"| [{entry.kind}](potentials/{entry.kind}.md) | {' or '.join(entry.heads)} | {parameters} | "
            f"{' | '.join(cells)} |"
        )
    return "\n".join(rows) + "\n"


def errors(listed: list[Entry]) -> str:
    """Table of the networks: errors on the same frames after the same steps, and what the weak losses change."""
    rows = [
        "| network | aspirin: energy | forces | with PITC and PISC | silica: energy | forces | with PITC and PISC |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for entry in listed:
        if not entry.is_network:
            continue
        name, cells = entry.kind.replace("_", "-"), []
        for experiment, test in COMPARED.items():
            alone, weak = (_figures(experiment, f"{name}{more}", test) for more in ("", "-pitc-and-pisc"))
            cells += [_spread([one[figure] for one in alone.values()], digits) for figure, digits in _FIGURES.items()]
            both = [100 * (weak[seed][_FORCES] / alone[seed][_FORCES] - 1) for seed in alone if seed in weak]
            cells.append(f"{_spread(both, 0, sign='+')} %" if both else "–")
        rows.append(f"| {entry.kind} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


_FORCES = "forces MAE, meV/Å"
_FIGURES = {"energy MAE, meV/atom": 1, _FORCES: 0}


def _figures(experiment: str, variant: str, test: str) -> dict[int, dict[str, float]]:
    """Figures of a test by seed."""
    files = sorted((RESULTS / experiment).glob(f"{variant}-[0-9].json"))
    results = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return {result["seed"]: result["figures"][test] for result in results}


def _spread(values: list[float], digits: int, sign: str = "") -> str:
    """Mean and standard deviation."""
    if len(values) < 2:
        return "–"
    return f"{statistics.mean(values):{sign}.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def plain(text: str) -> str:
    """A docstring as Markdown: no roles, no double colons."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    return re.sub(r"::$", ":", text, flags=re.MULTILINE)


def main() -> None:
    """Write what has changed, and take away pages of potentials that are no more."""
    made = pages()
    for stale in set(FOLDER.glob("*.md")) - set(made):
        stale.unlink()
    for path, text in made.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(DOCS.parent))


if __name__ == "__main__":
    main()
