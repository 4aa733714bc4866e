"""What test_compiled.py runs in a process of its own: checks of types at run time cannot be compiled."""

import numpy as np
import pytest
import torch

from phystrain import compiled
from phystrain.data.structures import Structures
from phystrain.derive import evaluate
from phystrain.dynamics import Settings, simulate
from phystrain.graph import AtomGraph
from tests.test_compiled import CUTOFF, make_crystal, make_network


def graph_of(*frames):
    return AtomGraph.from_ase(list(frames), CUTOFF, dtype=torch.float32)


@pytest.mark.parametrize("confined", [False, True])
def test_compiled_equals_plain_for_any_size(confined, caplog):
    network, crystal = make_network(confined), make_crystal()
    fast = compiled.faster(network)
    evaluate(fast, graph_of(crystal))
    for frames in ([crystal], [crystal.repeat((2, 1, 1))], [crystal, crystal.repeat((1, 2, 1)), crystal]):
        wanted = ("energy", "forces", "stress")
        found, plain = (evaluate(potential, graph_of(*frames), wanted) for potential in (fast, network))
        for one, other in zip(found, plain, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert not torch.equal(found.forces, plain.forces), "nothing was compiled"
    assert not [record for record in caplog.records if record.name.startswith("phystrain")]

    graph = graph_of(crystal)
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
