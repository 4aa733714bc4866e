"""Embedded-atom potentials: convex embeddings, published crystals, smooth ends, what fitting may presume."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import covalent_radii
from pydantic import ValidationError

from phystrain import registry
from phystrain.derive import evaluate
from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.layers.embedded_atom import EmbeddedAtomPotential, smooth_root
from phystrain.layers.pair import PairPotential, positive, softplus_inverse
from phystrain.potentials import build
from phystrain.statistics import Statistics
from phystrain.testing.potentials import CHECKS, perturbed

SILICA = Statistics(
    species=(8, 14),
    neighbours=28.5,
    cutoff=5.0,
    nearest={"8-8": 2.54, "8-14": 1.60, "14-14": 2.99},
    shortest={"8-8": 2.35, "8-14": 1.51, "14-14": 2.79},
)
MOLYBDENUM = {"d": 4.114825, "A": 1.887117, "c": 3.25, "c0": 43.4475218, "c1": -31.9332978, "c2": 6.0804249}
TUNGSTEN = {"d": 4.400224, "A": 1.896373, "c": 3.25, "c0": 47.1346499, "c1": -33.7665655, "c2": 6.2541999}
PUBLISHED = {
    "kind": "finnis_sinclair",
    "cutoff": 4.5,
    "power": 2,
    "smoothing": 0.0,
    "zbl": False,
    "published": {"Mo-Mo": MOLYBDENUM, "W-W": TUNGSTEN},
}
VARIANTS = [
    {"kind": "eam", "exponentials": 3},
    {"kind": "eam", "exponentials": 3, "embedding": "square_root"},
    {"kind": "eam", "exponentials": 3, "embedding": "spline"},
    {"kind": "finnis_sinclair"},
]
NAMES = ["quadratic", "square_root", "spline", "finnis_sinclair"]


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def energy(potential, atoms):
    return float(evaluate(potential, AtomGraph.from_ase(atoms, potential.cutoff), ("energy",)).energy[0])


def derivatives(function, x):
    """Value, slope and second derivative of a function of independent numbers."""
    x = x.clone().requires_grad_()
    value = function(x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    return value.detach(), slope.detach(), bend


def species_of(potential, number, like):
    return potential.kinds.species_index(torch.tensor([number])).expand(len(like))


@pytest.mark.parametrize("settings", VARIANTS[1:3], ids=NAMES[1:3])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_other_embeddings_keep_the_contract(settings, check):
    check(perturbed(build(settings | {"cutoff": 4.0}, SILICA)), (8, 14))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("settings", VARIANTS, ids=NAMES)
def test_embeddings_are_convex_whatever_is_fitted(settings, seed):
    """And zero without neighbours, where their derivatives are finite."""
    potential = perturbed(build(settings, SILICA), 1.0, seed)
    rho = torch.linspace(0, 6, 601)
    for number in (8, 14):
        value, slope, bend = derivatives(lambda x, z=number: potential.embedding(x, species_of(potential, z, x)), rho)
        assert value[0] == 0
        assert torch.isfinite(slope).all()
        assert (bend >= 0).all()
        assert bend.max() > 1e-4
        assert (value.diff().diff() >= -1e-12).all()  # seen without derivatives
        assert slope[0] < 0


@pytest.mark.parametrize("settings", VARIANTS, ids=NAMES)
def test_embeddings_are_twice_differentiable(settings):
    """Derivatives agree with differences, and do not jump, at the knots too: small steps make small changes."""
    potential = perturbed(build(settings, SILICA), 1.0)
    steps = []
    for h in (1e-4, 1e-5):
        rho = torch.arange(0.25, 3.1, 0.25)[:, None] + torch.tensor([-h, h])
        parts = derivatives(lambda x: potential.embedding(x, species_of(potential, 14, x)), rho.flatten())
        steps.append(torch.stack([part.reshape(-1, 2).diff(dim=1) for part in parts]).abs())
        slope = (parts[0].reshape(-1, 2).diff(dim=1) / (2 * h)).squeeze(1)
        assert slope.numpy() == pytest.approx(parts[1].reshape(-1, 2).mean(dim=1).numpy(), rel=1e-4, abs=1e-6)
    assert (steps[1] <= 0.2 * steps[0] + 1e-9).all()


def test_spline_starts_as_the_quadratic():
    quadratic, spline = (
        build({"kind": "eam", "embedding": name, "curvature": 0.3, "density": 1.4}, SILICA)
        for name in ("quadratic", "spline")
    )
    rho = torch.linspace(0, 8, 100)
    species = torch.zeros(100, dtype=torch.int64)
    assert spline.embedding(rho, species).tolist() == pytest.approx(quadratic.embedding(rho, species).tolist())


def test_spline_integrates_its_polygon():
    """Its second derivative goes straight from knot to knot and stays after the last one."""
    potential = build({"kind": "eam", "embedding": "spline", "knots": 4, "density": 1.0}, Statistics.bare((29,)))
    bends = [0.2, 1.1, 0.05, 0.6, 0.4]
    potential.raw_curvature.data = softplus_inverse(torch.tensor([bends]))
    rho = torch.linspace(0.01, 3, 50)
    _, _, bend = derivatives(lambda x: potential.embedding(x, torch.zeros(len(x), dtype=torch.int64)), rho)
    assert bend.tolist() == pytest.approx(np.interp(rho.numpy(), [0, 0.5, 1, 1.5, 2], bends).tolist())


def test_smooth_root_is_a_difference_of_roots():
    rho = torch.tensor([0.0, 1e-6, 0.3, 40.0])
    assert smooth_root(rho, 0.01).tolist() == pytest.approx((torch.sqrt(rho + 0.01) - 0.1).tolist(), abs=1e-15)
    assert torch.equal(smooth_root(rho, 0.0), rho.sqrt())


@pytest.mark.parametrize(("element", "constant", "cohesion"), [("Mo", 3.1472, -6.82), ("W", 3.1652, -8.90)])
def test_finnis_sinclair_is_as_published(element, constant, cohesion):
    """Cohesive energy and lattice constant of Finnis and Sinclair 1984, table 1; no parameter is lost in the basis."""
    potential = build(PUBLISHED, Statistics.bare((42, 74)))
    lengths = constant * (1 + np.linspace(-2e-3, 2e-3, 5))
    energies = [energy(potential, bulk(element, "bcc", a=a)) for a in lengths]
    assert energies[2] == pytest.approx(cohesion, abs=2e-4)
    a, b, _ = np.polyfit(lengths - constant, energies, 2)
    assert -b / (2 * a) == pytest.approx(0, abs=2e-4)
    graph = AtomGraph.from_ase(bulk(element, "bcc", a=constant), potential.cutoff)
    assert evaluate(potential, graph, ("stress",)).stress.abs().max() < 1e-3


def test_finnis_sinclair_is_its_closed_form():
    """A disordered cluster against the formula as printed."""
    atoms = bulk("Mo", "bcc", a=3.1472, cubic=True) * 2
    atoms.rattle(0.15, seed=2)
    atoms.pbc = False
    r = atoms.get_all_distances()
    r = r[~np.eye(len(r), dtype=bool)].reshape(len(r), -1)
    d, a, c, c0, c1, c2 = (MOLYBDENUM[name] for name in ("d", "A", "c", "c0", "c1", "c2"))
    rho = np.where(r < d, (r - d) ** 2, 0).sum(axis=1)
    pairs = np.where(r < c, (r - c) ** 2 * (c0 + c1 * r + c2 * r**2), 0).sum() / 2
    potential = build(PUBLISHED, Statistics.bare((42, 74)))
    assert energy(potential, atoms) == pytest.approx(pairs - a * np.sqrt(rho).sum(), rel=1e-10)


@pytest.mark.parametrize(("power", "jumps"), [(2, True), (3, False)])
def test_finnis_sinclair_ends_smoothly(power, jumps):
    """With the third power, second derivatives of V and phi vanish at their ranges; as published, they jump."""
    potential = build(PUBLISHED | {"power": power}, Statistics.bare((42, 74)))
    pair = potential.kinds.number("Mo-Mo")
    zero = torch.zeros(2, dtype=torch.int64)
    for end, function in (
        (3.25, lambda r: potential.pair_energies(r, zero + pair)),
        (4.114825, lambda r: potential.densities(r, zero, zero)),
    ):
        value, slope, bend = derivatives(function, end + torch.tensor([-1e-6, 1e-6]))
        assert value.abs().max() < 1e-9
        assert slope.abs().max() < 1e-4
        assert (bend.diff().abs().item() > 0.5) == jumps
        assert bend[1] == 0


def test_finnis_sinclair_starts_with_a_well():
    """Depth, place and curvature of the pair term are those asked for; the density in the data is of order one."""
    potential = build({"kind": "finnis_sinclair", "depth": 0.8, "stiffness": 4.7}, SILICA)
    pair = torch.tensor([potential.kinds.number("O-Si")])
    value, slope, bend = derivatives(lambda r: potential.pair_energies(r, pair), torch.tensor([1.60]))
    assert value.item() == pytest.approx(-0.8)
    assert slope.item() == pytest.approx(0, abs=1e-9)
    assert bend.item() == pytest.approx(2 * 0.8 * (4.7 / 1.60) ** 2)
    atoms = bulk("Si", "diamond", a=7.1)
    for fraction in ([0.12, 0.13, 0.14], [0.12, 0.62, 0.11], [0.61, 0.13, 0.12], [0.13, 0.12, 0.63]):
        atoms += Atoms("O", [np.array(fraction) @ atoms.cell.array], cell=atoms.cell)
    forces = evaluate(potential, AtomGraph.from_ase(atoms, potential.cutoff)).forces
    assert forces.abs().max() < 20


@pytest.mark.parametrize("species", [(1, 6, 8), (8, 14), (42, 74), (1, 92)])
@pytest.mark.parametrize("settings", VARIANTS, ids=NAMES)
def test_dimers_repel(settings, species):
    """At the start, from the nuclei to most of the bond length; when fitted wildly, wherever the wall is whole."""
    statistics = SILICA if species == (8, 14) else Statistics.bare(species)
    potential = build(settings, statistics)
    wild = perturbed(build(settings, statistics), 2.0, seed=5)
    for pair in potential.kinds.pairs:
        radii = float(covalent_radii[list(pair)].sum())
        r = torch.linspace(0.05, 0.75 * radii, 200)
        curve = potential.components(r, *pair)["total"]
        assert (curve.diff() < 0).all(), f"{pair} attracts at {r[1:][curve.diff() >= 0]}"
        r = torch.linspace(0.02, 0.99 * float(potential.wall.inner[potential.kinds.pairs.index(pair)]), 50)
        _, slope, _ = derivatives(lambda r, pair=pair: wild.components(r, *pair)["total"], r)
        assert (slope < -10).all()


def test_a_recipe_of_equal_exponentials():
    """The starting point of Zheng and Fung: everything one, amplitudes those at r = 0, covalent radii."""
    settings = {"kind": "eam", "cutoff": 8.0, "decays": [1, 1], "amplitude": 1, "depth": 1, "loose_depth": 1}
    settings |= {"decay": 1, "curvature": 1, "density": 1, "minimum": "covalent", "zbl": False}
    potential = build(settings, SILICA)
    radii = [float(covalent_radii[list(pair)].sum()) for pair in potential.kinds.pairs]
    assert positive(potential.raw_minimum).tolist() == pytest.approx(radii)
    r, zero = torch.tensor([1.0, 2.5, 5.0]), torch.zeros(3, dtype=torch.int64)
    assert potential.densities(r, zero, zero + 1).tolist() == pytest.approx((10 * torch.exp(-r)).tolist())
    well = (1 - torch.exp(-(r - radii[1]))) ** 2 - 1
    assert potential.pair_energies(r, zero + 1).tolist() == pytest.approx(well.tolist())
    rho = torch.tensor([0.0, 0.7, 3.0])
    assert potential.embedding(rho, zero).tolist() == pytest.approx(((rho - 1) ** 2 - 1).tolist())


def test_default_parameters_keep_their_names():
    """Models that were saved stay loadable."""
    names = set(build({"kind": "eam"}, SILICA).state_dict())
    assert names == {
        *(f"raw_{name}" for name in ("depth", "decay", "minimum", "beta", "amplitude", "curvature", "density")),
        *(f"wall.{name}" for name in ("charges", "length", "inner", "outer")),
        "origin",
        "kinds.rows.row_of",
    }


def classical():
    """Every potential with tables by pair that says in which parameters its energy is affine."""
    found = {str(settings): settings for settings in VARIANTS}
    for kind in registry.kinds("potentials"):
        if not any(settings["kind"] == kind for settings in VARIANTS):
            found[kind] = {"kind": kind}
    for settings in found.values():
        try:
            potential = perturbed(build(settings, SILICA), 0.1)
        except (ValidationError, UserError):  # needs settings of its own: a file, a term
            continue
        if isinstance(potential, PairPotential | EmbeddedAtomPotential) or getattr(type(potential), "linear", ()):
            yield pytest.param(potential, id=f"{settings['kind']}-{settings.get('embedding', '')}".strip("-"))


CLASSICAL = list(classical())


def change(potential, name, values):
    """Set the values (not the raw numbers) of a parameter."""
    raw = softplus_inverse(values) if name.startswith("raw_") else values
    potential.get_parameter(name).data.copy_(raw)


def value_of(potential, name):
    parameter = potential.get_parameter(name).detach()
    return positive(parameter) if name.startswith("raw_") else parameter.clone()


def near_and_far():
    atoms = Atoms("SiO2Si", [[0, 0, 0], [1.6, 0, 0], [-1.2, 1.1, 0], [0.4, 1.7, 1.5]])
    close = Atoms("SiO2", [[0, 0, 0], [0.9, 0, 0], [-0.4, 1.0, 0]])
    return AtomGraph.from_ase([atoms, close], 12.0)


@pytest.mark.parametrize("potential", CLASSICAL)
def test_energy_is_affine_in_what_is_called_linear(potential):
    """Jointly in all of these, each name a parameter; and the energy depends on each."""
    potential = potential.double()
    graph = near_and_far()
    assert all(name.startswith(("raw_", "free_")) for name in potential.linear)
    known = dict(potential.named_parameters())  # some kinds have parameters that a setting adds
    start = {name: value_of(potential, name) for name in potential.linear if name in known}
    random = torch.Generator().manual_seed(3)
    slopes = {name: torch.rand(values.shape, generator=random) for name, values in start.items()}

    def at(step, names=tuple(start)):
        for name, values in start.items():
            change(potential, name, values + (step * slopes[name] if name in names else 0))
        return evaluate(potential, graph, ("energy",)).energy

    zero, half, one = at(0.0), at(0.5), at(1.0)
    assert half.tolist() == pytest.approx(((zero + one) / 2).tolist(), rel=1e-9, abs=1e-9)
    for name in start:
        assert not torch.equal(at(1.0, (name,)), zero), f"{name} changes nothing"
    at(0.0)


@pytest.mark.parametrize("potential", CLASSICAL)
def test_every_table_by_pair_has_a_rule_for_unlike_pairs(potential):
    """Pairs are as many as elements and one more here, so that the tables are told from those by element."""
    tables = {
        name for name, values in potential.named_parameters() if values.shape[:1] == (len(potential.kinds.pairs),)
    }
    assert tables <= set(potential.mixing)
    assert set(potential.mixing.values()) <= {"arithmetic", "geometric"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"published": {"Mo-Fe": MOLYBDENUM}}, "no pair of elements"),
        ({"published": {"Mo-W": MOLYBDENUM}}, "A belongs to an element"),
        ({"published": {"Mo-Mo": {k: v for k, v in MOLYBDENUM.items() if k != "A"}}}, "A belongs to an element"),
        ({"cutoff": 4.0}, "set cutoff to 4.11"),
    ],
)
def test_published_parameters_that_cannot_be(changes, message):
    with pytest.raises(UserError, match=message):
        build(PUBLISHED | changes, Statistics.bare((42, 74)))


def test_the_order_of_elements_matters_where_it_should():
    """A density that is not symmetric is asked for in both directions, and each reaches the right atom."""

    class Uneven(EmbeddedAtomPotential):
        symmetric = False

        def pair_energies(self, distance, pair):
            return 0 * distance

        def densities(self, distance, first, second):
            return (1.0 + 10.0 * first + 100.0 * second) * (4 - distance).clamp(min=0) ** 3

        def embedding(self, density, species):
            return density * (species + 1)

    potential = Uneven((8, 14), 4.0)
    atoms = Atoms("SiO", [[0, 0, 0], [3, 0, 0]])
    graph = AtomGraph.from_ase(atoms, 4.0)
    assert potential.atomic_energies(graph).tolist() == pytest.approx([2 * 11, 101])
    assert potential.components(torch.tensor([3.0]), 14, 8)["total"].item() == pytest.approx(123)
