"""Every potential found by listing the folder keeps the contract."""

import tempfile
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch import nn

from phystrain import registry
from phystrain.derive import Potential
from phystrain.errors import UserError
from phystrain.interfaces.lammps import write_lammps
from phystrain.potentials import build
from phystrain.statistics import Statistics
from phystrain.testing.potentials import (
    CHECKS,
    check_batching,
    check_compiled,
    check_energy_conservation,
    check_forces,
    check_locality,
    check_precision,
    check_reflection,
    check_rotation,
    check_second_derivatives,
    check_smoothness,
    perturbed,
)

SPECIES = (8, 14)
SMALL = {"cutoff": 4.0, "channels": 8, "layers": 2, "radial_count": 6}
"""Settings of every kind that has them."""

_FOLDER = tempfile.TemporaryDirectory()
"""Of the tables below, as long as the tests run."""


def _table(settings, name):
    """Write a potential as tables; gives the file of that name."""
    statistics = Statistics.bare(SPECIES)
    torch.manual_seed(0)
    write_lammps(build(settings, statistics), _FOLDER.name, statistics, spacing=0.01)
    return str(Path(_FOLDER.name) / name)


SETTINGS = {
    "sum": {"terms": {"one": {"kind": "morse", "cutoff": 4.0}, "other": {"kind": "reference_energy"}}},
    "confined": {
        "potential": {"kind": "painn", **SMALL},
        "densities": {8: [(1.0, 2.0), (0.5, 1.0)], 14: [(0.2, 0.5), (0.1, 0.3)]},
        "lowest": 0.0,  # wide margins: a steep fade would look like a jump to the check of smoothness
        "highest": 5.0,
        "decays": (3.0,),
        "counted": 2.0,
    },
    "frozen": {"potential": {"kind": "morse", "cutoff": 4.0}},
    "escn": {"hidden": 8, "edge_channels": 8, "layers": 3, "mmax": 1},
    "equiformer_v2": {
        "hidden": 4,
        "edge_channels": 8,
        "attention_heads": 2,
        "alpha_channels": 4,
        "value_channels": 4,
        "feed_forward": 8,
    },
    "spinconv": {"hidden": 16},
    "wall": {"unseen_fraction": 1.0},
    "zbl": {"fraction": 1.0, "unseen_fraction": 1.0},
    "eam_table": {"file": _table({"kind": "eam", "cutoff": 4.0}, "potential.eam.fs")},
    "pair_table": {"file": _table({"kind": "morse", "cutoff": 4.0}, "potential.table")},
}
"""Settings of particular kinds, in place of the small ones."""


def _examples():
    """One set of settings for each kind, and one more for kinds with a direct force head."""
    for kind in registry.kinds("potentials"):
        config = getattr(registry.find("potentials", kind), "Config", None)
        if config is None:
            continue
        names = config.model_fields
        settings = {"kind": kind} | {name: value for name, value in SMALL.items() if name in names}
        settings |= SETTINGS.get(kind, {})
        yield pytest.param(settings, id=kind)
        if "head" in names:
            yield pytest.param(settings | {"head": "direct"}, id=f"{kind}-direct")


EXAMPLES = list(_examples())


def _statistics():
    return Statistics(
        species=SPECIES,
        reference_energies={8: -3.1, 14: -1.7},
        reference_source="given",
        energy_mean=-0.3,
        force_rms=1.3,
        neighbours=20.0,
        cutoff=4.0,
        nearest={"8-8": 2.6, "8-14": 1.62, "14-14": 3.0},
        shortest={"8-8": 2.3, "8-14": 1.5, "14-14": 2.7},
    )


def _build(settings):
    torch.manual_seed(0)
    try:
        return build(settings, _statistics())
    except UserError as error:
        if "install" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="module")
def built():
    """Potentials by settings, made once."""
    known: dict[str, nn.Module] = {}

    def make(settings):
        if str(settings) not in known:
            known[str(settings)] = perturbed(_build(settings))
        return known[str(settings)]

    return make


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("settings", EXAMPLES)
def test_contract(settings, check, built):
    check(built(settings), SPECIES)


@pytest.mark.parametrize("settings", EXAMPLES)
def test_weights_fit_a_potential_built_again(settings, built):
    potential, again = built(settings), _build(settings).double()
    assert isinstance(again, Potential)
    again.load_state_dict(potential.state_dict())
    check_precision(again, SPECIES)


@pytest.mark.parametrize("settings", EXAMPLES)
def test_only_direct_heads_are_direct(settings, built):
    assert hasattr(built(settings), "heads") == (settings.get("head") == "direct")


@pytest.mark.slow
@pytest.mark.parametrize("settings", EXAMPLES)
def test_compiled_equals_eager(settings, built):
    torch.compiler.reset()
    jaxtyping.config.update("jaxtyping_disable", True)  # the compiler cannot trace the checks of shapes
    try:
        check_compiled(built(settings), SPECIES)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


class Faulty(nn.Module):
    """An inverse-square repulsion to which one fault at a time is added."""

    cutoff = 4.0

    def __init__(self, fault):
        super().__init__()
        self.fault = fault
        self.strength = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def atomic_energies(self, graph):
        r, vectors = graph.distances, graph.vectors
        if self.fault == "axis":
            r = (vectors * vectors.new_tensor([1.0, 1.0, 1.1])).norm(dim=1)
        energy = self.strength / r**2 * (1 - r / self.cutoff).clamp(min=0) ** 3
        if self.fault == "kink":
            energy = self.strength / r**2 * (1 - r / self.cutoff).clamp(min=0)
        if self.fault == "long":
            energy = self.strength * torch.exp(-r)
        if self.fault == "detached":
            energy = energy + (1 - r.detach() / self.cutoff).clamp(min=0) ** 3
        atomic = energy.new_zeros(graph.n_atoms).index_add(0, graph.edges[0], energy)
        arms = torch.stack(
            [
                graph.positions.new_zeros(graph.n_atoms, 3).index_add(0, graph.edges[0], vectors * (energy**k)[:, None])
                for k in (1, 2, 3)
            ],
            dim=1,
        )
        if self.fault == "handed":
            atomic = atomic + torch.linalg.det(arms)
        if self.fault == "batch":
            atomic = atomic - atomic.mean()
        if self.fault == "root":
            atomic = atomic + torch.sqrt(arms[:, 0].square().sum(dim=1))
        return atomic


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("axis", check_rotation),
        ("handed", check_reflection),
        ("kink", check_smoothness),
        ("long", check_locality),
        ("batch", check_batching),
        ("root", check_second_derivatives),
        ("detached", check_forces),
        ("detached", check_energy_conservation),
    ],
)
def test_the_checks_can_fail(fault, check):
    check(Faulty("none"), SPECIES)
    with pytest.raises(AssertionError):
        check(Faulty(fault), SPECIES)
