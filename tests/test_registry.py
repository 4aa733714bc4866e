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
    return names


@pytest.mark.parametrize("group", GROUPS)
def test_siblings_do_not_import_one_another(group):
    plugins = {f"phystrain.{group}.{kind}" for kind in registry.kinds(group)}
    for kind in registry.kinds(group):
        assert not imported(PACKAGE / group / f"{kind}.py") & (plugins - {f"phystrain.{group}.{kind}"})


def test_energies_are_differentiated_in_one_file():
    files = [file for file in PACKAGE.rglob("*.py") if file.parent.name != "testing"]
    users = [file.name for file in files if "autograd.grad(" in file.read_text()]
    # balance.py asks for gradients of losses with respect to the weights
    assert sorted(users) == ["balance.py", "derive.py"]


def test_imports_point_one_way():
    """graph <- derive <- potentials, objectives <- data, augment <- train; nothing below knows what is above."""
    order = [
        {"graph", "neighbours", "units", "noise", "labels"},
        {"derive"},
        {"layers", "potentials", "objectives"},
        {"data", "augment"},
        {"train", "label"},
        {"reliability", "report"},
        {"pipeline", "trained", "tune", "cli", "demo"},
    ]
    level = {name: number for number, names in enumerate(order) for name in names}
    for file in PACKAGE.rglob("*.py"):
        part = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part not in level:
            continue
        for module in imported(file):
            pieces = module.split(".")
            if pieces[0] == "phystrain" and len(pieces) > 1 and pieces[1] in level:
                assert level[pieces[1]] <= level[part], f"{file.name} imports {module}"
