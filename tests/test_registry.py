import ast
from pathlib import Path

import pytest

from phystrain import registry
from phystrain.errors import UserError

PACKAGE = Path(registry.__file__).parent
GROUPS = ("potentials", "objectives", "augment", "reliability")


@pytest.mark.parametrize("group", GROUPS)
def test_the_file_name_is_the_kind(group):
    assert registry.kinds(group)
    for kind in registry.kinds(group):
        config = registry.find(group, kind).Config
        assert config.model_fields["kind"].default == kind
        assert config.__doc__


def test_a_misspelt_kind_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'painn'"):
        registry.find("potentials", "pain")


@pytest.mark.parametrize(
    ("word", "choices", "near"),
    [
        ("trian.xyz", ["test.xyz", "train.xyz"], "train.xyz"),
        ("silica.extxyz", ["silica.xyz", "water.extxyz"], "silica.xyz"),
        ("start.xyz", ["gold.xyz", "water.xyz", "iron.xyz"], None),  # alike in nothing but their ending
    ],
)
def test_what_is_far_off_is_not_suggested(word, choices, near):
    found = registry.did_you_mean(word, choices)
    assert found == (f"choose from {', '.join(sorted(choices))}" if near is None else f"did you mean {near!r}?")


def imported(file: Path) -> set[str]:
    """Modules of the package that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("group", GROUPS)
def test_siblings_do_not_import_one_another(group):
    plugins = {f"phystrain.{group}.{kind}" for kind in registry.kinds(group)}
    for kind in registry.kinds(group):
        assert not imported(PACKAGE / group / f"{kind}.py") & (plugins - {f"phystrain.{group}.{kind}"})


def test_energies_are_differentiated_in_one_file():
    files = [file for file in PACKAGE.rglob("*.py") if file.parent.name != "testing"]
    users = [file.name for file in files if "autograd.grad(" in file.read_text()]
    # balance.py asks for gradients of losses with respect to the weights, compiled.py when it compares code
    assert sorted(users) == ["balance.py", "compiled.py", "derive.py"]


ORDER = (
    {
        "__init__",
        "allocator",
        "errors",
        "noise",
        "parallel",
        "progress",
        "recipes",
        "statistics",
        "units",
    },
    {"files", "neighbours", "registry"},
    {"graph"},
    {"datasets", "derive", "explain", "labels", "layers", "saving"},
    {"compiled", "data", "objectives", "potentials"},
    {"catalogue", "dynamics", "fitting", "init", "reference", "testing", "uncertainty"},
    {"augment"},
    {"interfaces"},
    {"export", "reliability"},
    {"stages", "tune.space", "verdict.grade"},
    {"config", "report"},
    {"train"},
    {"preflight", "verdict"},
    {"augmented", "asking", "label", "md", "ranked", "tune"},
    {"demo", "pipeline", "trained"},
    {"cli"},
)
"""Packages and modules of the top level, and parts of them that are of another level than the rest, lowest first."""


def level(module: str) -> tuple[int, str]:
    """Where a module of the package belongs, and as part of what; names such as ``__version__`` are of the package."""
    pieces = module.split(".")[1:3]
    for part in (".".join(pieces), pieces[0]):
        for number, names in enumerate(ORDER):
            if part in names:
                return number, part
    return 0, "__init__"


def test_every_module_has_a_place():
    parts = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in PACKAGE.rglob("*.py")}
    placed = [name for names in ORDER for name in names]
    assert parts == {name for name in placed if "." not in name}
    assert len(placed) == len(set(placed))
    for name in placed:
        assert (PACKAGE / f"{name.replace('.', '/')}.py").is_file() or (PACKAGE / name / "__init__.py").is_file()


def test_imports_point_one_way():
    """Nothing knows what is above it, or beside it; imports inside functions count too."""
    for file in PACKAGE.rglob("*.py"):
        own, part = level(".".join(("phystrain", *file.relative_to(PACKAGE).with_suffix("").parts)))
        for module in imported(file):
            if module.startswith("phystrain."):
                theirs, other = level(module)
                assert other == part or theirs < own, f"{file.relative_to(PACKAGE)} imports {module}"
