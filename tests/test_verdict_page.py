"""docs/verdict.md knows every test."""

import importlib.util
from pathlib import Path

from phystrain import registry

SCRIPT = Path(__file__).parents[1] / "docs" / "make_verdict.py"


def test_the_table_is_up_to_date():
    spec = importlib.util.spec_from_file_location("make_verdict", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = script.PAGE.read_text(encoding="utf-8")
    assert script.page(text) == text, "python docs/make_verdict.py"
    for kind in registry.kinds("reliability"):
        assert f"| `{kind}` |" in text
