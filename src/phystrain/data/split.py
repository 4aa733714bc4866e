"""Which structures are trained on and which are kept back."""

import numpy as np
import numpy.typing as npt
from ase.data import chemical_symbols

from phystrain.data._frame import Texts
from phystrain.data.statistics import composition, isolated
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.registry import did_you_mean

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_TRAIN, _VALID, _TEST = ("train", "training"), ("valid", "val", "validation"), ("test", "testing")


def split(structures: Structures, valid_fraction: float, seed: int, group_by: str | None = None) -> tuple[Ints, Ints]:
    """Numbers of the structures to train on and of those to validate on, each ascending.

    Isolated atoms always stay in training: they are references, not samples. So do the last structures that hold an
    element: errors of a potential that was never shown it would say nothing.

    Args:
        structures: to divide.
        valid_fraction: part to keep back, between 0 and 1; at least one structure lands on either side.
        seed: the same seed gives the same split.
        group_by: name in ``structures.info``; structures of the same value stay together (a trajectory, a
            composition), so that validation does not see near-copies of what was trained on. The fraction is then
            met as nearly as whole groups allow. Structures without a value are groups of their own.

    Raises:
        UserError: too few structures or groups, a fraction outside of (0, 1), no such name, or nothing to spare
            because every structure or group holds an element of its own.
    """
    if not 0 < valid_fraction < 1:
        raise UserError(f"valid_fraction is {valid_fraction}: it must lie between 0 and 1.")
    single = isolated(structures)
    usable = np.flatnonzero(~single)
    if len(usable) < 2:
        raise UserError(
            f"{len(usable)} structure{'s' * (len(usable) != 1)} besides isolated atoms cannot be split into training "
            "and validation: at least 2 are needed."
        )
    target = min(max(1, round(valid_fraction * len(usable))), len(usable) - 1)
    random = np.random.default_rng(seed)
    elements = structures.elements
    holds = np.concatenate([composition(block, elements) > 0 for block in structures.blocks()])[usable]
    if group_by is None:
        taken = _spared(random.permutation(len(usable)), holds, target)
    else:
        taken = _whole_groups(_groups(structures, group_by)[usable], holds, target, random, group_by)
    if not len(taken):
        what = f"every {group_by}" if group_by else "every structure"
        raise UserError(
            f"{what} holds an element that no other does: nothing can be kept back. Give data.valid, a file of "
            "validation structures, or valid_fraction 0."
        )
    kept = usable[taken]
    valid = np.zeros(len(structures), dtype=bool)
    valid[kept] = True
    return np.flatnonzero(~valid), np.flatnonzero(valid)


def given(structures: Structures, key: str = "split") -> tuple[Ints, Ints]:
    """The split that the file itself names.

    Args:
        structures: to divide.
        key: name in ``structures.info`` whose values are ``train``, ``valid`` (or ``val``) and ``test``; the last
            are in neither part.

    Raises:
        UserError: no such name, another value, or an empty part.
    """
    values = np.char.lower(_column(structures, key))
    unknown = ~np.isin(values, (*_TRAIN, *_VALID, *_TEST))
    if unknown.any():
        number = int(np.flatnonzero(unknown)[0])
        raise UserError(f"structure {number}: {key} is {str(values[number])!r}; it must be train, valid or test.")
    train, valid = np.flatnonzero(np.isin(values, _TRAIN)), np.flatnonzero(np.isin(values, _VALID))
    if not len(train) or not len(valid):
        raise UserError(f"{key} puts no structure into {'train' if not len(train) else 'valid'}.")
    return train, valid


def require_same_elements(train: Structures, name: str, other: Structures) -> None:
    """Refuse structures with elements that are in no training structure.

    Args:
        train: training structures.
        name: of the others, for the message.
        other: structures that the potential is to be judged on.

    Raises:
        UserError: names the first such element.
    """
    known = set(train.elements)
    for number in other.elements:
        if number not in known:
            raise UserError(
                f"{chemical_symbols[number]} is in the {name} structures but in no training structure: "
                "add labelled structures with it, or leave those frames out"
            )


def _column(structures: Structures, key: str) -> Texts:
    if key not in structures.info:
        there = sorted(name for name in structures.info if name != "frame")
        hint = did_you_mean(key, there) if there else "the structures carry no such facts; split without it"
        raise UserError(f"no structure has {key!r} to group by: {hint}.")
    return structures.info[key]


def _groups(structures: Structures, key: str) -> Ints:
    """(systems,) number of the group of each structure."""
    values = _column(structures, key)
    names, numbers = np.unique(values, return_inverse=True)
    alone = values == ""
    numbers[alone] = len(names) + np.arange(int(alone.sum()))
    return numbers.astype(np.int64)


def _spared(order: Ints, holds: Bools, target: int) -> Ints:
    """The first ``target`` in ``order`` whose elements (members, elements) all occur in what is not taken."""
    left: Ints = holds.sum(axis=0)
    scarce: Bools = left <= target  # no other element can run out
    spare, refused = np.ones(len(order), dtype=bool), 0
    touched: Bools = np.asarray(holds[:, scarce].any(axis=1))
    for place in np.flatnonzero(touched[order]).tolist():
        if place - refused >= target:
            break
        own = holds[order[place]]
        if np.all(left[own & scarce] > 1):
            left = left - own
        else:
            spare[place], refused = False, refused + 1
    return order[spare][:target]


def _whole_groups(groups: Ints, holds: Bools, target: int, random: np.random.Generator, key: str) -> Ints:
    """Groups in random order, each taken if that brings the number of structures nearer to ``target``."""
    names, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise UserError(f"all structures have the same {key}: group by something else, or split without groups.")
    whole = np.logical_or.reduceat(holds[np.argsort(numbers, kind="stable")], np.cumsum(sizes) - sizes)
    left = whole.sum(axis=0)
    order = random.permutation(len(names))
    taken: list[int] = []
    count = 0
    for group in order.tolist():
        spare = len(taken) < len(names) - 1 and (left[whole[group]] > 1).all()
        if spare and abs(count + sizes[group] - target) < abs(count - target):
            taken.append(group)
            count += int(sizes[group])
            left = left - whole[group]
    spare = [group for group in order.tolist() if (left[whole[group]] > 1).all()]
    taken = taken or sorted(spare, key=lambda group: sizes[group])[:1]
    return np.flatnonzero(np.isin(numbers, taken))
