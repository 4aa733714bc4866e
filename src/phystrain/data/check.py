"""What is wrong or odd about labelled structures, found before anything is trained on them."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from ase.data import chemical_symbols

from phystrain.data import _consistency, _geometry
from phystrain.data.read import Dataset
from phystrain.data.statistics import Energies, References, composition, isolated, reference_energies, residuals
from phystrain.data.structures import Floats, Structures
from phystrain.neighbours import neighbour_list

Level = Literal["error", "warn", "report"]

NET_FORCE = 0.02
"""eV/Å per atom: a larger sum of forces is remarked upon."""

LARGE_FORCE = 50.0
"""eV/Å: a larger force is remarked upon."""

FAR_OUT = 20.0
"""Robust standard deviations: an energy farther from the rest is remarked upon."""

LARGE_STRESS = 5.0
"""eV/Å³ (800 GPa): a larger root mean square is in other units."""

FEW_VALID = 30
"""Validation structures below which the choice of weights is noisy."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        level: ``error`` (do not train on this), ``warn`` (look at it) or ``report`` (good to know).
        topic: what it is about, a word or two.
        text: the finding and, where something is wrong, the mend.
    """

    level: Level
    topic: str
    text: str


@dataclass(frozen=True)
class CheckReport:
    """All findings about a data set.

    Attributes:
        title: summary of the data set.
        findings: in the order they were made.
    """

    title: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not any(finding.level == "error" for finding in self.findings)

    def __str__(self) -> str:
        lines = [self.title, ""]
        for level, heading in (("error", "errors"), ("warn", "warnings"), ("report", "facts")):
            chosen = [finding for finding in self.findings if finding.level == level]
            if chosen:
                lines += [heading, *(f"  {finding.topic:<14} {finding.text}" for finding in chosen), ""]
        counts = [sum(finding.level == level for finding in self.findings) for level in ("error", "warn")]
        many = [f"{count} {word}{'s' * (count != 1)}" for count, word in zip(counts, ("error", "warning"), strict=True)]
        return "\n".join([*lines, ", ".join(many)])


def check(
    data: Dataset | Structures,
    *,
    references: Energies | str = "auto",
    cutoff: float = 5.0,
    others: Mapping[str, Structures] | None = None,
) -> CheckReport:
    """Look for what makes a training fail or mislead.

    Args:
        data: the training set, as read or as it is.
        references: energies of isolated atoms; see :func:`phystrain.data.statistics.reference_energies`.
        cutoff: Å, of the potential that is meant; only for the remark on thin cells.
        others: further sets by name (``valid``, ``test``), to look for structures and elements they share or lack.
    """
    structures = data.structures if isinstance(data, Dataset) else data
    findings: list[Finding] = []
    if isinstance(data, Dataset):
        title = "\n".join(line for line in data.summary().splitlines() if not line.startswith("  warning"))
        findings += [Finding("warn", "file", text) for text in data.warnings]
    else:
        title = f"{len(structures)} structures, {structures.sizes.sum()} atoms"
        findings += _overlaps(structures)
    parts: list[Callable[[Structures], list[Finding]]] = [
        _labels,
        _elements,
        lambda structures: _energies(structures, references),
        _forces,
        _zero_forces,
        _stresses,
        _slopes,
        _duplicates,
        lambda structures: _thin(structures, cutoff),
    ]
    for part in parts:
        findings += part(structures)
    for name, other in (others or {}).items():
        findings += _other(structures, name, other)
    return CheckReport(title, tuple(findings))


def _name(structures: Structures, index: int) -> str:
    """``frame 17``: the number in the file where it is known."""
    return f"frame {structures.info['frame'][index] if 'frame' in structures.info else index}"


def _worst(structures: Structures, values: npt.NDArray[np.float64], unit: str, count: int = 3) -> str:
    """The largest values with their frames."""
    order = np.argsort(-np.nan_to_num(np.abs(values), nan=-1.0), kind="stable")[:count]
    return ", ".join(f"{_name(structures, index)} {values[index]:.4g} {unit}" for index in order.tolist())


def _overlaps(structures: Structures) -> list[Finding]:
    found = _geometry.contacts(structures)
    if not len(found.structure):
        return []
    level: Level = "error" if (found.distance < _geometry.COINCIDENT).any() else "warn"
    pair = int(found.distance.argmin()) if level == "error" else 0
    text = f"{_name(structures, int(found.structure[pair]))}: {_geometry.describe(structures, found, pair)}"
    more = len(np.unique(found.structure)) - 1
    return [Finding(level, "overlap", f"{text}{f'; {more} more frames with close atoms' if more else ''}")]


def _labels(structures: Structures) -> list[Finding]:
    total, findings = len(structures), []
    counts = {label: int(structures.labelled(label).sum()) for label in ("energy", "forces", "stress")}
    if counts["energy"] == counts["forces"] == 0:
        return [Finding("error", "labels", "no energies and no forces: nothing can be learnt. Name their keys.")]
    for label, count in counts.items():
        if 0 < count < total:
            findings.append(Finding("report", "labels", f"{label} in {count} of {total} frames; the rest is left out"))
    if counts["energy"] == 0:
        findings.append(Finding("warn", "labels", "forces without energies leave the energy's zero open"))
    if (structures.weight == 0).any():
        text = f"{int((structures.weight == 0).sum())} frames have weight zero and are not learnt from"
        findings.append(Finding("warn", "labels", text))
    return findings


def _elements(structures: Structures) -> list[Finding]:
    counts = composition(structures)
    rare = [
        f"{chemical_symbols[number]} ({int((column > 0).sum())} frames)"
        for number, column in zip(structures.elements, counts.T, strict=True)
        if (column > 0).sum() < 3 and len(structures) >= 10
    ]
    return [Finding("warn", "elements", f"hardly any structures with {', '.join(rare)}")] if rare else []


def _energies(structures: Structures, choice: Energies | str) -> list[Finding]:
    """References, spread of what remains, and outliers."""
    body = structures.labelled("energy") & ~isolated(structures)
    if not body.any():
        return []
    references: References = reference_energies(structures, choice)
    findings = [
        Finding("error" if "no binding explains" in text else "warn", "references", text)
        for text in references.warnings
    ]
    rest = np.where(body, residuals(structures, references.energies), np.nan)
    middle = np.nanmedian(rest)
    spread = 1.4826 * np.nanmedian(np.abs(rest - middle))
    listed = ", ".join(f"{chemical_symbols[number]} {energy:.4f}" for number, energy in references.energies.items())
    findings.append(Finding("report", "references", f"{references.source}, eV: {listed}"))
    text = f"after them {middle:.4f} eV/atom, typical deviation {spread:.4f}; farthest: "
    findings.append(Finding("report", "energy", text + _worst(structures, rest - middle, "eV/atom")))
    outliers = np.abs(rest - middle) > FAR_OUT * max(spread, 1e-3)
    if outliers.any() and body.sum() >= 10:
        text = f"{int(outliers.sum())} energies lie far from all others: "
        findings.append(Finding("warn", "energy", text + _worst(structures, rest - middle, "eV/atom")))
    return findings


def _forces(structures: Structures) -> list[Finding]:
    labelled = structures.labelled("forces")
    if not labelled.any():
        return []
    parts, squares, count = [], 0.0, 0
    for block in structures.blocks():
        parts.append(_sizes_of_forces(block))
        squares += float(np.nansum(block.forces**2))
        count += int(np.isfinite(block.forces).sum())
    largest, net = (np.concatenate(column) for column in zip(*parts, strict=True))
    rms = float(np.sqrt(squares / count))
    text = f"rms component {rms:.4g} eV/Å; largest: {_worst(structures, largest, 'eV/Å')}"
    findings = [Finding("report", "forces", text)]
    if (largest > LARGE_FORCE).any():
        count = int((largest > LARGE_FORCE).sum())
        findings.append(Finding("warn", "forces", f"{count} frames have a force above {LARGE_FORCE:g} eV/Å"))
    net = np.where(labelled, net, 0.0) / structures.sizes
    level: Level = "warn" if net.max() > NET_FORCE else "report"
    advice = " (atoms held fixed, a field, or forces cut short?)" if level == "warn" else ""
    findings.append(Finding(level, "net force", f"largest per atom{advice}: {_worst(structures, net, 'eV/Å')}"))
    return findings


def _sizes_of_forces(structures: Structures) -> tuple[Floats, Floats]:
    """(systems,) eV/Å, the largest force of each structure, and the size of the sum of its forces."""
    system = structures.system
    largest = np.zeros(len(structures))
    np.maximum.at(largest, system, np.nan_to_num(np.linalg.norm(structures.forces, axis=1)))
    total = np.stack([np.bincount(system, values, len(structures)) for values in structures.forces.T], axis=1)
    return largest, np.linalg.norm(total, axis=1)


def _zero_forces(structures: Structures) -> list[Finding]:
    """Frames whose forces are all zero although symmetry does not make them so."""
    nonzero = np.concatenate(
        [np.bincount(block.system, (block.forces != 0).any(axis=1), len(block)) for block in structures.blocks()]
    )
    suspects = np.flatnonzero(structures.labelled("forces") & (nonzero == 0) & ~isolated(structures))
    wrong = [index for index in suspects.tolist() if _asymmetric(structures, index)]
    if not wrong:
        return []
    text = f"all zero in {len(wrong)} frames that are not symmetric, the first is {_name(structures, wrong[0])}"
    return [Finding("warn", "zero forces", f"{text}: leave forces out where they were not calculated")]


def _asymmetric(structures: Structures, index: int) -> bool:
    """Whether the neighbours of an atom pull to one side: where symmetry forbids a force, unit vectors cancel."""
    part = slice(structures.offsets[index], structures.offsets[index + 1])
    positions, cell = structures.positions[part], structures.cell[index]
    edges, shifts = neighbour_list(positions, cell, structures.pbc[index], 5.0)
    vectors = positions[edges[1]] - positions[edges[0]] + shifts @ cell
    distance = np.linalg.norm(vectors, axis=1, keepdims=True)
    pull = vectors / np.maximum(distance, 1e-9) * (1 - (distance / 5.0) ** 2) ** 2
    sums = np.stack([np.bincount(edges[0], values, len(positions)) for values in pull.T])
    return bool(np.abs(sums).max() > 0.02)


def _stresses(structures: Structures) -> list[Finding]:
    stress = structures.stress[structures.labelled("stress")]
    if not len(stress):
        return []
    rms = float(np.sqrt(np.mean(stress**2)))
    if rms > LARGE_STRESS:
        text = f"rms {rms:.3g} eV/Å³ is more than matter bears: GPa or kbar? 1 eV/Å³ = 160.2 GPa = 1602 kbar"
        return [Finding("error", "stress", text)]
    return [Finding("report", "stress", f"rms component {rms:.3g} eV/Å³")]


def _slopes(structures: Structures) -> list[Finding]:
    """Whether energies, forces and stresses belong together."""
    findings = []
    forces, stress = _consistency.slopes(structures)
    if structures.labelled("forces").any() and structures.labelled("energy").any():
        signs = "gradients of the energy stored as forces: change their sign"
        findings.append(_judge("forces", forces, signs, _consistency.FORCE_FACTORS))
    if structures.labelled("stress").any():
        trusted = not forces.judged or abs(forces.value - 1) < 0.15
        signs = "compression counted positive: change the sign of the stresses"
        if trusted:
            findings.append(_judge("stress", stress, signs, _consistency.STRESS_FACTORS))
    return findings


def _judge(label: str, slope: _consistency.Slope, signs: str, factors: dict[float, str]) -> Finding:
    topic = f"energy-{label}"
    looks_wrong = slope.pairs >= 20 and slope.scatter < 0.5 and not 0.4 < slope.value < 2.5
    if not slope.judged and not looks_wrong:
        return Finding("report", topic, f"not judged: {slope.pairs} pairs of similar structures do not settle it")
    level: Level = "error" if slope.judged else "warn"
    text = f"energy rises by {slope.value:.4g} of the work of the {label} over {slope.pairs} pairs"
    if abs(slope.value - 1) < 0.15:
        return Finding("report", topic, f"{text}: they agree")
    units = _consistency.nearest_factor(slope.value, factors)
    if abs(slope.value + 1) < 0.15:
        return Finding(level, topic, f"{text}, where it should be 1: {signs}")
    if units is not None:
        also = "; the sign is wrong too" if slope.value < 0 else ""
        return Finding(level, topic, f"{text}, where it should be 1: {units}{also}")
    return Finding("warn", topic, f"{text}, where it should be 1: are they of the same calculation?")


def _duplicates(structures: Structures) -> list[Finding]:
    groups: dict[bytes, list[int]] = {}
    for index, key in enumerate(_fingerprints(structures)):
        groups.setdefault(key, []).append(index)
    copies = [members for members in groups.values() if len(members) > 1]
    if not copies:
        return []
    many = sum(len(members) - 1 for members in copies)
    pair = " and ".join(_name(structures, index) for index in copies[0][:2])
    findings = [
        Finding("warn", "duplicates", f"{many} frames are copies of others, such as {pair}: group or drop them")
    ]
    apart = [float(np.nan_to_num(np.ptp(structures.energy[members]))) for members in copies]
    if max(apart) > 1e-3:
        worst = copies[int(np.argmax(apart))]
        listed = ", ".join(_name(structures, index) for index in worst[:4])
        text = f"the same structure has energies {max(apart):.4g} eV apart: {listed}"
        findings.append(Finding("error", "duplicates", f"{text}. Keep one level of theory."))
    return findings


def _fingerprints(structures: Structures) -> list[bytes]:
    """Hash of the geometry of each structure rounded to 1e-4 Å, the first atom at the origin."""
    return [key for block in structures.blocks() for key in _hashes(block)]


def _hashes(structures: Structures) -> Iterator[bytes]:
    first = np.repeat(structures.positions[structures.offsets[:-1]], structures.sizes, axis=0)
    positions = np.round((structures.positions - first) * 1e4).astype(np.int64)
    cells = np.round(structures.cell * 1e4).astype(np.int64)
    for start, stop, cell, pbc in zip(
        structures.offsets[:-1], structures.offsets[1:], cells, structures.pbc, strict=True
    ):
        parts = (positions[start:stop], structures.species[start:stop], cell, pbc)
        yield hashlib.blake2b(b"".join(part.tobytes() for part in parts), digest_size=16).digest()


def _thin(structures: Structures, cutoff: float) -> list[Finding]:
    height = np.concatenate([_geometry.heights(block).min(axis=1) for block in structures.blocks()])
    thin = height < 2 * cutoff
    if not thin.any():
        return []
    text = f"{int(thin.sum())} frames have cells thinner than twice {cutoff:g} Å (down to {height.min():.2f} Å)"
    return [Finding("report", "thin cells", f"{text}; several images of a neighbour are counted, as it must be")]


def _other(structures: Structures, name: str, other: Structures) -> list[Finding]:
    """Elements that training lacks, structures that it shares, and too small a validation set."""
    findings = []
    lacking = sorted(set(other.elements) - set(structures.elements))
    if lacking:
        symbols = ", ".join(chemical_symbols[number] for number in lacking)
        findings.append(
            Finding("error", name, f"contains {symbols}, which training does not: remove or add such frames")
        )
    known = {key: index for index, key in enumerate(_fingerprints(structures))}
    body = ~isolated(other)
    shared = [(index, known[key]) for index, key in enumerate(_fingerprints(other)) if key in known and body[index]]
    if shared:
        pair = f"{name} {_name(other, shared[0][0])} is training {_name(structures, shared[0][1])}"
        findings.append(Finding("warn", name, f"{len(shared)} frames are in training too: {pair}"))
    for label in ("energy", "forces", "stress"):
        if structures.labelled(label).any() and not other.labelled(label).any():
            findings.append(Finding("warn", name, f"has no {label}, training has"))
    if name.startswith("valid") and len(other) < FEW_VALID:
        findings.append(Finding("warn", name, f"{len(other)} frames choose the best weights noisily"))
    return findings
