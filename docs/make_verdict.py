"""Writes the table of tests in ``verdict.md`` from what the tests say of themselves."""

import inspect
import re
from pathlib import Path

from phystrain import registry
from phystrain.verdict.grade import OTHER, RULES

PAGE = Path(__file__).parent / "verdict.md"
BEGIN, END = "<!-- tests: made by make_verdict.py -->", "<!-- end of tests -->"
LEVELS = ("0: static", "1: dynamics", "2: labels or a reference")
DECIDES = re.compile(r"limit|toleran|required|most_|_below|contact|fatal|unsafe|least|alike|overlap")
SOURCE = re.compile(r"arXiv \d{4}\.\d{4,5}|doi:[^\s)`,]+|mlip-arena|mlipaudit|LAMBench|matbench-discovery|ml-peg")


def row(kind: str) -> str:
    """One line of the table."""
    module = registry.find("reliability", kind)
    config = module.Config
    fields = {name: field for name, field in config.model_fields.items() if DECIDES.search(name)}
    settings = "; ".join(
        f"`{name}` {field.default:g}" if isinstance(field.default, int | float) else f"`{name}` not judged"
        for name, field in fields.items()
        if field.default is None or (isinstance(field.default, int | float) and not isinstance(field.default, bool))
    )
    text = " ".join((module.__doc__ or "").split()) + " " + " ".join((config.__doc__ or "").split())
    sources = ", ".join(dict.fromkeys(SOURCE.findall(inspect.getsource(module).replace("\n", " "))))
    what = (config.__doc__ or text).split("\n")[0].strip().rstrip(".")
    rule = RULES.get(kind, OTHER)
    fails = f"{rule.grade}: {rule.reason}" if kind in RULES else rule.grade
    return f"| `{kind}` | {LEVELS[config.level]} | {what} | {settings or '–'} | {sources or 'ours'} | {fails} |"


def table() -> str:
    """All kinds, the cheap levels first."""
    kinds = sorted(registry.kinds("reliability"), key=lambda k: (registry.find("reliability", k).Config.level, k))
    head = "| test | level | what it looks at | what decides, with defaults | source | if it fails |\n"
    return head + "| --- | --- | --- | --- | --- | --- |\n" + "\n".join(row(kind) for kind in kinds)


def page(text: str) -> str:
    """The page with a fresh table."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
