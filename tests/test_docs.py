"""Pages about potentials are up to date, and the guide to writing one can be followed to the letter."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from phystrain import registry
from phystrain.catalogue import Entry
from phystrain.errors import UserError
from phystrain.potentials import build
from phystrain.statistics import Statistics
from phystrain.testing.potentials import CHECKS, perturbed

DOCS = Path(__file__).parents[1] / "docs"
GUIDE = (DOCS / "adding-a-potential.md").read_text(encoding="utf-8")
FILE, SUITE = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
(RUN,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
(POINTS,) = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
KIND, MODULE = re.search(r'^(\w+) = "([\w.]+)"$', POINTS, re.MULTILINE).groups()


def _script():
    spec = importlib.util.spec_from_file_location("make_potentials", DOCS / "make_potentials.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_up_to_date():
    script = _script()
    made = script.pages()
    for path, text in made.items():
        assert path.is_file(), f"{path.name} is missing: python docs/make_potentials.py"
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date: python docs/make_potentials.py"
    assert set(script.FOLDER.glob("*.md")) <= set(made), "pages of no potential: python docs/make_potentials.py"


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert "://" in link or (page.parent / link).exists(), link


def _forget():
    registry.kinds.cache_clear()
    registry._modules.cache_clear()


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The file of the guide in an installed package of someone's own."""
    site = tmp_path_factory.mktemp("site")
    name, module = MODULE.split(".")
    (site / name).mkdir()
    (site / name / "__init__.py").touch()
    (site / name / f"{module}.py").write_text(FILE, encoding="utf-8")
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    group = re.search(r'entry-points\."([\w.]+)"', POINTS)[1]
    (info / "entry_points.txt").write_text(f"[{group}]\n{KIND} = {MODULE}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        _forget()
        yield site
    sys.modules.pop(MODULE, None)
    sys.modules.pop(name, None)
    _forget()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_the_guides_potential_keeps_the_contract(check, package):
    torch.manual_seed(0)
    potential = build({"kind": KIND, "channels": 8, "radial_count": 6, "cutoff": 4.0}, Statistics.bare((8, 14)))
    check(perturbed(potential), (8, 14))


def test_the_guides_suite_and_run_file_work(package, tmp_path):
    """In a process of its own, as a stranger would."""
    accepted = f"""
from phystrain.config import check
import yaml


def test_run_file():
    assert check(yaml.safe_load({RUN!r})).potential.kind == {KIND!r}
"""
    (tmp_path / "test_it.py").write_text(SUITE + accepted, encoding="utf-8")
    path = {"PYTHONPATH": f"{package}:{Path(registry.__file__).parents[1]}", "PATH": "", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-k", "check_forces or rotation or run_file", "test_it.py"]
    outcome = subprocess.run(command, cwd=tmp_path, env=path, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "3 passed" in outcome.stdout


def test_the_guides_potential_is_listed_with_its_presets(package):
    entry = Entry(KIND)
    assert entry.is_network
    assert set(entry.parameters) == {"small", "wide"}
    assert "doi:10.1103/PhysRevLett.98.146401" in entry.source


def test_installed_packages_cannot_take_a_name(package, monkeypatch):
    info = next(package.glob("*.dist-info")) / "entry_points.txt"
    before = info.read_text()
    try:
        info.write_text("[phystrain.potentials]\npainn = my_package.shells\n")
        importlib.invalidate_caches()
        _forget()
        with pytest.raises(UserError, match="calls itself 'painn'"):
            registry.kinds("potentials")
    finally:
        info.write_text(before)
        _forget()
