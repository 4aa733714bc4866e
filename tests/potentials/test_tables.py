"""Potentials read from files: published tables against ASE, analytic ones against their formula, and bad files."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.io import read
from scipy.interpolate import CubicSpline

from phystrain import config, registry
from phystrain.derive import evaluate
from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.layers.spline import CubicTable, clamped, five_point, not_a_knot
from phystrain.potentials import build
from phystrain.saving import load_model, save_model
from phystrain.statistics import Statistics
from phystrain.units import voigt_to_full

EAM = Path(__file__).parents[1] / "data_files" / "eam"
FILES = {"Ag_u3.eam": (47,), "AlCu_Zhou2004.eam.alloy": (13, 29), "MoW_FS1984.eam.fs": (42, 74)}


def table(file, species, **settings):
    kind = "eam_table" if "eam" in Path(file).name else "pair_table"
    return build({"kind": kind, "file": str(file), **settings}, Statistics.bare(species))


def dimer(potential, first, second, distance):
    atoms = Atoms([first, second], [[0, 0, 0], [0, 0, distance]])
    return evaluate(potential, AtomGraph.from_ase(atoms, potential.cutoff))


# ---- splines


def test_curves_are_those_of_scipy_and_linear_outside():
    random = np.random.default_rng(0)
    x = [np.linspace(0, 3, 9), np.sort(random.uniform(-1, 2, 7)), np.linspace(1, 8, 30) ** 0.5]
    y = [random.normal(size=len(points)) for points in x]
    curves = [not_a_knot(a, b) for a, b in zip(x, y, strict=True)]
    made = CubicTable([len(points) for points in x], uniform=False)
    made.fill(curves)
    argument = torch.from_numpy(random.uniform(-3, 10, 600))
    which = torch.arange(600) % 3
    found = made(argument, which)
    for number, points in enumerate(x):
        at = argument[which == number].numpy()
        spline = CubicSpline(points, y[number], bc_type="not-a-knot")
        inside = np.clip(at, points[0], points[-1])
        expected = spline(inside) + spline(inside, 1) * (at - inside)
        np.testing.assert_allclose(found[which == number].numpy(), expected, atol=1e-11)


def test_evenly_spaced_points_are_found_without_searching():
    x, random = np.linspace(0.3, 5.1, 23), np.random.default_rng(1)
    curves = [five_point(x, random.normal(size=23)) for _ in range(4)]
    argument = torch.from_numpy(np.concatenate([random.uniform(-1, 7, 200), x, x[:-1] + 1e-12]))
    which = torch.arange(len(argument)) % 4
    results = []
    for uniform in (True, False):
        made = CubicTable([23] * 4, uniform=uniform)
        made.fill(curves)
        results.append(made(argument, which))
    torch.testing.assert_close(*results, rtol=0, atol=1e-10)


def test_splines_differentiate_twice():
    x = np.linspace(0, 4, 12)
    made = CubicTable([12, 12], uniform=True)
    made.fill([clamped(x, np.sin(x), 1.0, np.cos(4.0)), not_a_knot(x, np.exp(-x))])
    argument = torch.tensor([0.31, 1.7, 3.9, 4.6, -0.2], dtype=torch.float64, requires_grad=True)
    which = torch.tensor([0, 1, 0, 1, 0])
    assert torch.autograd.gradgradcheck(lambda at: made(at, which), argument)


# ---- embedded-atom tables


@pytest.mark.parametrize(("name", "species"), FILES.items())
def test_published_tables_give_what_ase_gives(name, species):
    potential = table(EAM / name, species)
    frames = [atoms for atoms in read(EAM / "oracle.xyz.xz", ":") if atoms.info["potential"] == name]
    assert len(frames) in (10, 30)
    graph = AtomGraph.from_ase(frames, potential.cutoff)
    found = evaluate(potential, graph, ("energy", "forces", "stress"))
    expected = [atoms.calc.results for atoms in frames]
    np.testing.assert_allclose(found.energy, [result["energy"] for result in expected], atol=1e-6, rtol=0)
    np.testing.assert_allclose(
        found.forces, np.concatenate([result["forces"] for result in expected]), atol=1e-5, rtol=0
    )
    stress = np.stack([voigt_to_full(result["stress"]) for result in expected])
    np.testing.assert_allclose(found.stress, stress, atol=1e-7, rtol=0)


def test_silver_has_its_published_cohesive_energy():
    """2.85 eV at 4.09 Å, by whose charges the table was fitted (Foiles, Baskes, Daw 1986, table I)."""
    potential = table(EAM / "Ag_u3.eam", (47,), rules="lammps")
    cell = 4.09 / 2 * (1 - np.eye(3))
    energy = evaluate(potential, AtomGraph.from_ase(Atoms("Ag", cell=cell, pbc=True), potential.cutoff)).energy
    assert float(energy[0]) == pytest.approx(-2.85, abs=2e-3)


def test_embedding_goes_on_in_a_straight_line():
    potential = table(EAM / "AlCu_Zhou2004.eam.alloy", (13, 29))
    density = torch.tensor([120.0, 130.0, 140.0], dtype=torch.float64)  # the table ends at 100
    energies = potential.embedding(density, torch.tensor([1, 1, 1]))
    assert float(energies[2] - 2 * energies[1] + energies[0]) == pytest.approx(0, abs=1e-9)


def test_elements_in_any_order_and_fewer_than_the_table_has():
    both, one = (table(EAM / "MoW_FS1984.eam.fs", species) for species in ((42, 74), (74,)))
    torch.testing.assert_close(dimer(both, 74, 74, 2.7).energy, dimer(one, 74, 74, 2.7).energy)
    assert dimer(both, 74, 74, 2.7).energy != dimer(both, 42, 42, 2.7).energy


# ---- models hold their tables


@pytest.mark.parametrize("change", ["gone", "edited"])
@pytest.mark.parametrize("name", ["MoW_FS1984.eam.fs", "pairs.table"])
def test_a_model_does_without_the_file(tmp_path, name, change):
    file, species = tmp_path / name, FILES.get(name, (8, 14))
    file.write_text((EAM / name).read_text() if name in FILES else text_of_table())
    settings = {"kind": "eam_table" if name in FILES else "pair_table", "file": str(file)}
    inner = build(settings, Statistics.bare(species))
    before = dimer(inner, *species, 2.2)
    saved = registry.parse("potentials", settings).model_dump(mode="json")
    save_model(tmp_path / "model.safetensors", inner.float().state_dict(), saved, Statistics.bare(species))
    if change == "gone":
        file.unlink()
    else:
        file.write_text("something else")
    with pytest.raises(UserError, match=r"(?s)gone or was changed.*Put it back"):
        dimer(build(saved, Statistics.bare(species)), *species, 2.2)
    after = dimer(load_model(tmp_path / "model.safetensors").potential, *species, 2.2)
    torch.testing.assert_close(after.energy, before.energy, rtol=0, atol=0)
    torch.testing.assert_close(after.forces, before.forces, rtol=0, atol=0)


def test_the_file_is_looked_for_beside_the_run_file(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "silver.eam").write_text((EAM / "Ag_u3.eam").read_text())
    run = {
        "potential": {"kind": "sum", "terms": {"table": {"kind": "eam_table", "file": "silver.eam"}}},
        "data": {"train": "x.xyz"},
        "stages": [{"name": "one", "objectives": {"forces": {}}, "steps": 1}],
    }
    (tmp_path / "project" / "run.yaml").write_text(yaml.safe_dump(run))
    monkeypatch.chdir(tmp_path)
    made = config.load("project/run.yaml").potential.build(Statistics.bare((47,)))
    assert float(dimer(made, 47, 47, 2.9).energy[0]) < -0.5
    monkeypatch.chdir("/")
    with pytest.raises(UserError, match=r"no such file of a table: /silver\.eam"):
        build({"kind": "eam_table", "file": "silver.eam"}, Statistics.bare((47,)))


# ---- pair tables


def morse(r):
    x = np.exp(-1.5 * (r - 1.8))
    return 2.0 * x * (x - 2), 2.0 * 1.5 * 2 * x * (x - 1)  # energy, force


def text_of_table(grid="R", names=("O-O", "Si-O", "Si-Si"), sign=1.0, points=300, end=5.0):
    parts = ["# made for a test\n"]
    for name in names:
        r = np.linspace(0.8, end, points) if grid == "R" else np.sqrt(np.linspace(0.64, end**2, points))
        header = {"R": f"R 0.8 {end}", "RSQ": f"RSQ 0.8 {end}", "listed": ""}[grid]
        energy, force = morse(r)
        scale = 1.0 + 0.5 * (name == "Si-O")
        rows = "\n".join(
            f"{i} {a:.12f} {scale * b:.12f} {sign * scale * c:.12f}"
            for i, (a, b, c) in enumerate(zip(r, energy, force, strict=True), 1)
        )
        parts.append(f"{name}  # a section\nN {points} {header} FPRIME 0 0\n\n{rows}\n")
    return "\n".join(parts)


@pytest.mark.parametrize("grid", ["R", "RSQ", "listed"])
def test_pair_tables_follow_their_formula(tmp_path, grid):
    (tmp_path / "pairs.table").write_text(text_of_table(grid))
    potential = table(tmp_path / "pairs.table", (8, 14))
    assert potential.cutoff == pytest.approx(5.0)
    for distance in (0.85, 1.3, 2.2, 4.9):
        for pair, scale in (((8, 8), 1.0), ((8, 14), 1.5), ((14, 8), 1.5)):
            energy, force = (scale * value for value in morse(distance))
            found = dimer(potential, *pair, distance)
            assert float(found.energy[0]) == pytest.approx(energy, abs=1e-6)
            assert float(found.forces[1, 2]) == pytest.approx(force, rel=3e-5, abs=3e-5)


def test_pair_tables_outside_their_points(tmp_path):
    (tmp_path / "pairs.table").write_text(text_of_table())
    potential = table(tmp_path / "pairs.table", (8, 14))
    energy, force = morse(0.8)
    found = dimer(potential, 8, 8, 0.5)
    assert float(found.energy[0]) == pytest.approx(energy + 0.3 * force, abs=1e-9)
    assert float(found.forces[1, 2]) == pytest.approx(force, abs=1e-9)
    assert not dimer(potential, 8, 8, 5.0).energy.any()


def test_sections_by_name(tmp_path):
    (tmp_path / "pairs.table").write_text(text_of_table(names=("first", "Si-O", "SiSi")))
    potential = table(tmp_path / "pairs.table", (8, 14), sections={"O-O": "first"})
    assert float(dimer(potential, 8, 8, 1.8).energy[0]) == pytest.approx(-2, abs=1e-5)
    (tmp_path / "single.table").write_text(text_of_table(names=("whatever",)))
    assert table(tmp_path / "single.table", (14,)).cutoff == pytest.approx(5)


# ---- files that cannot be used


@pytest.mark.parametrize(
    ("name", "species", "edit", "words"),
    [
        ("Ag_u3.eam", (47,), lambda text: text[:20000], "numbers are missing"),
        ("Ag_u3.eam", (29,), lambda text: text, "is a table of Ag, not of Cu: take another table"),
        ("Ag_u3.eam", (47,), lambda text: "", "no complete EAM table"),
        ("Ag_u3.eam", (47,), lambda text: text.replace("1.1212121212121229e-02", "0.0"), "0 apart"),
        (
            "AlCu_Zhou2004.eam.alloy",
            (13,),
            lambda text: text[:-200],
            r"entries after the fifth line, not \d+ \(alloy\)",
        ),
        ("AlCu_Zhou2004.eam.alloy", (13,), lambda text: text.replace("E-01", "E-x", 3), "could not convert"),
    ],
)
def test_embedded_atom_files_that_cannot_be_used(tmp_path, name, species, edit, words):
    (tmp_path / name).write_text(edit((EAM / name).read_text()))
    with pytest.raises(UserError, match=words):
        table(tmp_path / name, species)


@pytest.mark.parametrize(
    ("text", "settings", "words"),
    [
        ("", {}, "has no sections"),
        (text_of_table(sign=-1.0), {}, "not minus the derivative"),
        (text_of_table()[:2000], {}, "section O-O: .*points"),
        (text_of_table(names=("A", "B")), {}, "none is named after the pair O-O"),
        (text_of_table(), {"sections": {"O-O": "Si-0"}}, "did you mean 'Si-O'"),
        (text_of_table(), {"sections": {"O-Ti": "Si-O"}}, "'O-Ti' is no pair"),
        (text_of_table().replace("R 0.8 5.0", "BITMAP 0.8 5.0"), {}, "BITMAP"),
        (text_of_table().replace("N 300", "M 300"), {}, "section O-O"),
    ],
)
def test_pair_tables_that_cannot_be_used(tmp_path, text, settings, words):
    (tmp_path / "pairs.table").write_text(text)
    with pytest.raises(UserError, match=words):
        table(tmp_path / "pairs.table", (8, 14), **settings)
