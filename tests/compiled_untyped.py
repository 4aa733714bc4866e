"""What test_compiled.py runs in a process of its own: checks of types at run time cannot be compiled."""

import numpy as np
import pytest
import torch

from phystrain import compiled, config, datasets, objectives
from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Structures
from phystrain.derive import evaluate
from phystrain.dynamics import Settings, simulate
from phystrain.graph import AtomGraph
from phystrain.interfaces.ase import PhystrainCalculator
from phystrain.potentials import build
from phystrain.saving import read_state
from phystrain.statistics import Statistics
from phystrain.train.run import Run
from phystrain.train.step import TrainingStep
from tests.test_compiled import CUTOFF, TERMS, make_crystal, make_network


def graph_of(*frames):
    return AtomGraph.from_ase(list(frames), CUTOFF, dtype=torch.float32)


def direct_network():
    torch.manual_seed(0)
    model = {"kind": "painn", "channels": 8, "layers": 2, "cutoff": CUTOFF, "head": "direct"}
    return build(
        {"kind": "sum", "terms": {**TERMS, "model": model, "prior": TERMS["reference"]}}, Statistics.bare((8, 14))
    )


NETWORKS = {"conservative": make_network, "confined": lambda: make_network(confined=True), "direct": direct_network}


@pytest.mark.parametrize("kind", NETWORKS)
def test_compiled_equals_plain_for_any_size(kind, caplog):
    network, crystal = NETWORKS[kind](), make_crystal()
    fast = compiled.faster(network)
    evaluate(fast, graph_of(crystal))
    for frames in ([crystal], [crystal.repeat((2, 1, 1))], [crystal, crystal.repeat((1, 2, 1)), crystal]):
        for wanted in (("energy", "forces", "stress"), ("energy", "forces")):
            found, plain = (evaluate(potential, graph_of(*frames), wanted) for potential in (fast, network))
            for one, other in zip(found[: len(wanted)], plain[: len(wanted)], strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert not torch.equal(found.forces, plain.forces), "nothing was compiled"
    assert not [record for record in caplog.records if record.name.startswith("phystrain")]


def test_compiled_code_for_dynamics_knows_one_gradient_only():
    fast = compiled.faster(make_network())
    graph = graph_of(make_crystal())
    evaluate(fast, graph)
    graph.positions.requires_grad_()
    with pytest.raises(RuntimeError, match="sum of its energies only"):
        (2 * fast.atomic_energies(graph)).sum().backward()


def test_dynamics_are_the_same():
    crystal = make_crystal()
    start = Structures.from_ase([crystal, crystal.repeat((2, 1, 1))])
    settings = {"picoseconds": 0.02, "temperature": 50, "guards": {"contact": None}}
    plain, fast = (simulate(make_network(), start, Settings(**settings, compiled=asked)) for asked in (False, True))
    np.testing.assert_allclose(plain.potential, fast.potential, rtol=1e-5)
    assert not np.array_equal(plain.final.positions, fast.final.positions), "nothing was compiled"


EVERY_TERM = {
    "energy": {},
    "forces": {"weight": 10.0},
    "stress": {},
    "pitc": {"weight": "auto"},
    "antithetic": {"weight": 1.0},
    "pisc": {"weight": 1.0, "distribution": "adversarial_gradient"},
}


def batches(reach):
    """Batches of several sizes with made-up labels."""
    crystal, rng = make_crystal(), np.random.default_rng(0)
    frames = [crystal, crystal.repeat((2, 1, 1)), crystal.repeat((1, 2, 1))]
    structures = Structures.from_ase(frames)
    structures = structures.with_labels(
        rng.normal(size=3), rng.normal(size=structures.positions.shape), rng.normal(size=(3, 3, 3))
    )
    store = GraphStore(structures, CUTOFF + 2 * reach)
    return [store.batch(chosen) for chosen in ([0], [1, 2], [0, 1, 2])]


def test_the_ase_calculator_compiles_where_it_is_asked_to():
    network = make_network()
    forces = []
    for asked in (False, True):
        crystal = make_crystal()
        crystal.calc = PhystrainCalculator(network, compiled=asked)
        crystal.get_forces()
        crystal.rattle(1e-3, seed=3)  # the first evaluation is spent on comparing
        forces.append(crystal.get_forces())
    np.testing.assert_allclose(*forces, rtol=1e-4, atol=1e-5)
    assert not np.array_equal(*forces), "nothing was compiled"


@pytest.mark.parametrize("head", ["conservative", "direct", "direct, gradient", "direct, gradient and stress"])
def test_compiled_training_steps_have_the_gradients_of_plain_ones(head, caplog):
    network = make_network(confined=True) if head == "conservative" else direct_network()
    terms = objectives.parse(EVERY_TERM if head == "conservative" else EVERY_TERM | {"gradient": {"anchor": "model"}})
    if head in ("direct", "direct, gradient"):  # stress would ask for derivatives by positions, too
        del terms["stress"]
    if head == "direct":
        del terms["gradient"]
    plain, fast = TrainingStep(network, terms), TrainingStep(network, terms)
    assert fast.compile_passes()
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]

    def gradient(step, batch):
        loss, means = step(batch)
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, trained)]), means

    different = False
    reach = max(term.reach for term in terms.values())
    for batch in [batches(reach)[0], *batches(reach)]:  # the first one is spent on comparing
        (expected, means), (found, others) = gradient(plain, batch), gradient(fast, batch)
        assert float((found - expected).norm()) < 1e-4 * float(expected.norm())
        assert {name: float(mean) for name, mean in means.items()} == pytest.approx(
            {name: float(mean) for name, mean in others.items()}, rel=1e-4
        )
        different = different or not torch.equal(found, expected)
    assert different, "nothing was compiled"
    assert not [record for record in caplog.records if record.name.startswith("phystrain")]


def test_a_run_is_compiled_and_goes_on_compiled(tmp_path):
    stage = {
        "name": "only",
        "objectives": {"energy": {}, "forces": {"weight": 10.0}},
        "steps": 6,
        "batch_size": 2,
        "optimiser": {"learning_rate": 0.01},
    }
    settings = {
        "potential": {"kind": "schnet", "channels": 8, "layers": 1, "cutoff": 3.5},
        "data": {"train": str(datasets.path("silica")), "use": 6, "valid_fraction": 0.34},
        "reliability": {"enabled": False},
    }
    said, models = [], []
    for compiling in (False, True):
        run = config.check({**settings, "stages": [{**stage, "compiled": compiling}]})
        models.append(read_state(Run(run, tmp_path / str(compiling), say=said.append).train())[0])
    assert [line for line in said if "compiled from step 0" in line]
    for name, expected in models[0].items():
        torch.testing.assert_close(models[1][name], expected, rtol=1e-3, atol=1e-5)
    assert any(not torch.equal(models[1][name], expected) for name, expected in models[0].items())
    _, header = read_state(tmp_path / "True" / "checkpoints" / "last.safetensors")
    assert header["compiled"] is True
