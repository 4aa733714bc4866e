"""A commented run file for the user's own data."""

import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from ase.data import chemical_symbols

from phystrain import recipes
from phystrain.data.read import LabelKeys, read
from phystrain.data.split import require_same_elements
from phystrain.data.statistics import isolated
from phystrain.data.structures import Structures
from phystrain.errors import UserError

ATOMS_PER_STEP = 300
FEWEST = 4
UNKNOWN = "temperatures: null"
TEMPERATURE_NAMES = ("temperature", "temperature_k", "temp", "temp_k", "kelvin", "t_k")
"""Names under which frames say at what temperature they were taken, in this order; capitals do not matter."""


def propose(
    data: Path | str,
    keys: LabelKeys | None = None,
    *,
    test: Path | str | None = None,
    base: Path | str = ".",
    temperatures: Sequence[float] | None = None,
) -> str:
    """Text of a run file that trains on ``data`` as it stands.

    Args:
        data: file with labelled structures.
        keys: names of the labels where they are not the usual ones.
        test: file with test structures.
        base: folder of the run file, which relative paths in it start from.
        temperatures: K, that of the data first; those that the frames name, or else none, if not given.

    Raises:
        UserError: a file cannot be read, there are too few structures with energies, or a test structure holds an
            element that no other does.
    """
    found = read(data, keys=keys)
    structures = found.structures.select(~isolated(found.structures))
    labelled = int(structures.labelled("energy").sum())
    if labelled < FEWEST:
        raise UserError(
            f"{data} has {labelled} structures with energies besides isolated atoms: training needs {FEWEST} at the "
            "very least. If there are more, name their key with --energy"
        )
    if test is not None:
        require_same_elements(structures, "test", read(test, keys=keys).structures)
    quantities = tuple(q for q in ("energy", "forces", "stress") if structures.labelled(q).any())
    batch_size = max(1, min(32, round(ATOMS_PER_STEP / structures.sizes.mean()), labelled // 2))
    periodic = bool(structures.pbc.any())
    # a semi-empirical method knows molecules better than any fitted pair form
    teacher = "gfn2-xtb" if not periodic and importlib.util.find_spec("tblite") else None
    variant = recipes.recommended(quantities, periodic, labelled, teacher)
    steps, pretrain_steps = _lengths(labelled)
    stages = recipes.stages(
        variant,
        quantities=quantities,
        steps=steps,
        pretrain_steps=pretrain_steps,
        batch_size=batch_size,
        teacher=teacher,
    )
    chosen = {name: value for name, value in (keys.model_dump() if keys else {}).items() if value}
    elements = " ".join(chemical_symbols[number] for number in structures.elements)
    return _HEAD.format(
        data=data,
        frames=len(structures),
        atoms=len(structures.positions),
        elements=elements,
        labels=", ".join(quantities),
        variant=recipes.VARIANTS[variant],
        file=_quoted(data, base),
        keys=f"\n  keys: {yaml.safe_dump(chosen, default_flow_style=True).strip()}" if chosen else "",
        test=f"\n  test: {_quoted(test, base)}" if test else "",
        valid_fraction=_valid_fraction(structures),
        temperatures=_temperatures_line(structures, temperatures),
    ) + _with_comments({"stages": stages})


def named_temperatures(structures: Structures) -> list[float]:
    """K, up to four that the frames name themselves, ascending; none if they do not."""
    for name in TEMPERATURE_NAMES:
        found = next((values for key, values in structures.info.items() if key.lower() == name), None)
        if found is None:
            continue
        try:
            kelvin = np.unique([float(value) for value in found if value])
        except ValueError:
            continue
        if len(kelvin) and np.isfinite(kelvin).all() and kelvin[0] > 0:
            return [float(value) for value in kelvin[np.unique(np.linspace(0, len(kelvin) - 1, 4).astype(int))]]
    return []


def _temperatures_line(structures: Structures, given: Sequence[float] | None) -> str:
    """Setting and comment."""
    kelvin = list(given) if given else named_temperatures(structures)
    if not kelvin:
        return f"# TO FILL IN: the temperature of your data in K, as in [300]; it is not guessed\n  {UNKNOWN}"
    source = "" if given else "# as your frames name them\n  "
    return f"{source}temperatures: {json.dumps(kelvin)}"


def _quoted(file: Path | str, base: Path | str) -> str:
    """A path as it stands in the run file: relative to the folder of that, unless it was given as absolute."""
    path = str(file) if Path(file).is_absolute() else os.path.relpath(file, base)
    return str(yaml.safe_dump(path, default_style='"', width=10_000, allow_unicode=True)).strip()


def _lengths(labelled: int) -> tuple[int, int]:
    """Steps on the labels and of pretraining: more data, longer training, up to what two cores do in an hour."""
    steps = int(min(20_000, max(1_500, 20 * labelled)))
    return steps, min(5_000, max(1_000, steps // 2))


def _valid_fraction(structures: Structures) -> float:
    """A tenth, but at least two structures and at most two hundred."""
    return round(min(max(0.1, 2 / len(structures)), 200 / len(structures), 0.5), 4)


def _with_comments(settings: dict) -> str:
    plain = json.loads(json.dumps(settings))  # without anchors for what occurs twice
    text = yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=110)
    lines: list[str] = []
    said = set()
    for line in text.splitlines():
        comment = next((found for start, found in _COMMENTS.items() if line.strip().startswith(start)), None)
        if comment is not None and comment not in said:
            said.add(comment)
            indent = line[: len(line) - len(line.lstrip(" "))]
            lines += [f"{indent}{part}" for part in f"# {comment}".splitlines()]
        lines.append(line)
    return "\n".join(lines) + "\n"


_COMMENTS = {
    "- name: finetune": (
        "weak losses are two more objectives, 'pitc: {}' and 'pisc: {}': they cost two more\n"
        "# passes a step, and conservative networks, as this one, changed by one or two per cent, either way;\n"
        "# a network with 'head: direct' wants 'gradient: {every: 3, ramp: 1000}' and 'balance: {share: 0.333}'"
    ),
    "fit: {choose: auto": (
        "the best of several classical potentials, fitted to the same labels: it knows repulsion; where none\n"
        "# is good enough, only a wall below the distances of your data"
    ),
    "potential: {kind: wall}": "nothing but repulsion, below the distances of your data",
    "potential: {kind: eam}": "a classical potential fitted to the same labels; it knows what repulsion is",
    "prior:": "it is added and held fixed, and the network learns what it leaves; see docs/teachers.md for other ways",
    "confine: {counted": "where atoms have fewer neighbours than in your data, as in fragments, it stands alone",
    "confine:": "where atoms are closer or lonelier than in your data, the classical potential stands alone",
    "- name: committee": "three networks from different random starts",
    "- name: taught": (
        "another one learns their mean forces on rattled copies of your structures, and then your labels with those\n"
        "# copies replayed: more accurate than any of the three. For a training five times shorter remove the\n"
        "# stages committee and taught, and from finetune the fields init_from and replay"
    ),
    "augment: {kind: pull_perturb": "structures pulled and perturbed far from equilibrium, labelled by a teacher",
    "- {kind: pull_perturb": "structures pulled and perturbed far from equilibrium, labelled by a teacher",
    "label_by: gfn2-xtb": "GFN2-xTB, from 'pip install phystrain[qm]'; without it, a fitted EAM is proposed instead",
    "replay:": "its labels stay in the loss at a small weight, so that nothing is forgotten",
}

_HEAD = """\
# Written by 'phystrain init' for {data}:
# {frames} structures, {atoms} atoms, elements {elements}; labels: {labels}.
# Train with 'phystrain train THIS_FILE'; change any field there too, as in 'stages.finetune.steps=5000'.
# Every field and its default: 'phystrain schema'.
potential: {{kind: painn, channels: 64, layers: 2, cutoff: 5.0}}

data:
  train: {file}{keys}{test}
  valid_fraction: {valid_fraction}
  # 'isolated' takes energies of isolated atoms from single-atom frames, 'fit' fits them; or give them: {{H: -13.6}}
  reference_energies: auto

# After training the potential is tested in molecular dynamics. With 'baseline' the same network is also trained without
# physics and tested beside it.
reliability:
  {temperatures}
  replicas: 4
  picoseconds: 2.0
  baseline: true

seed: 0

# {variant}
"""
