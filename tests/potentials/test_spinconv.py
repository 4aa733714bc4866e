"""SpinConv: harmonics about an edge, averages over all turns, what a message sees."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from pydantic import ValidationError
from scipy.special import eval_legendre, lpmv

from phystrain import registry
from phystrain.derive import evaluate
from phystrain.graph import AtomGraph
from phystrain.layers.spin import PolarFrame, SpinConvolution, mean_silu
from phystrain.potentials import build
from phystrain.potentials._network import warn_of_truncation
from phystrain.potentials.spinconv import Config, Mixture
from phystrain.statistics import Statistics
from phystrain.testing.potentials import perturbed

KNOWN = Statistics.bare((1, 6, 8))
SMALL = {"kind": "spinconv", "channels": 8, "hidden": 12, "layers": 2, "radial_count": 6, "cutoff": 4.0}


def directions(count, seed):
    vectors = torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return vectors / vectors.norm(dim=1, keepdim=True)


def by_degree(values, degree):
    return values.split([2 * n + 1 for n in range(degree + 1)], dim=-1)


def azimuths(pole, around, turn=0.0):
    """Cosine of the angle with the pole, and the angle about it from an arbitrary start."""
    start = torch.linalg.cross(pole, torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64))
    first = start / start.norm()
    second = torch.linalg.cross(pole, first)
    return (around @ pole).clamp(-1, 1).numpy(), np.arctan2((around @ second).numpy(), (around @ first).numpy()) + turn


def about(pole, around, degree, order, turn=0.0):
    """(directions, 1 or 2) harmonics of degree l and order m about the pole, by Legendre's functions of SciPy."""
    cosine, angle = azimuths(pole, around, turn)
    norm = math.sqrt(
        (2 * degree + 1) * (2 if order else 1) * math.factorial(degree - order) / math.factorial(degree + order)
    )
    waves = [np.cos(order * angle), np.sin(order * angle)] if order else [np.ones_like(angle)]
    return np.stack([norm * lpmv(order, degree, cosine) * wave for wave in waves], axis=1)


def test_harmonics_obey_the_addition_theorem():
    frame, u, v = PolarFrame(6, 2).double(), directions(20, 0), directions(20, 1)
    products = [(a * b).sum(1) for a, b in zip(*(by_degree(frame(x)[0], 6) for x in (u, v)), strict=True)]
    for n, product in enumerate(products):
        expected = (2 * n + 1) * eval_legendre(n, (u * v).sum(1).numpy())
        torch.testing.assert_close(product, torch.from_numpy(expected))


@pytest.mark.parametrize("order", [0, 1, 2])
def test_map_gives_the_components_about_the_pole_in_any_frame(order):
    """Products within an order are those of cosine and sine about the pole; they know nothing of the frame."""
    degree, frame = 5, PolarFrame(5, 2).double()
    pole, around = directions(1, 2), directions(7, 3)
    weights = torch.linspace(-1, 2, 7, dtype=torch.float64)
    sphere = weights @ frame(around)[0]
    rows = (frame(pole)[1][0] @ sphere).split([a * b for a, b in PolarFrame.sizes(degree, 2)])[order]
    seen = rows.unflatten(0, PolarFrame.sizes(degree, 2)[order])
    expected = np.stack([weights.numpy() @ about(pole[0], around, n, order, 1.7) for n in range(order, degree + 1)])
    torch.testing.assert_close(seen.T @ seen, torch.from_numpy(expected @ expected.T))


@pytest.mark.parametrize("order", [0, 1, 2])
def test_spin_convolution_is_the_mean_over_all_turns(order):
    """Filters turned about the pole in small steps, mean and variance of what they give taken by numbers."""
    degree, channels, hidden, count = 3, 4, 5, 6
    torch.manual_seed(0)
    sizes = PolarFrame.sizes(degree, order)
    layer = SpinConvolution(channels, hidden, sizes=sizes, groups=1, epsilon=0.1).double()
    frame, around = PolarFrame(degree, order).double(), directions(count, 4)
    messages = torch.randn(count, channels, dtype=torch.float64)
    values, maps = frame(around)
    everywhere = torch.zeros(count, dtype=torch.int64)
    found = layer(messages, values, maps, everywhere, everywhere, 1)
    for edge in range(count):
        turns = []
        for turn in np.linspace(0, 2 * np.pi, 12, endpoint=False):
            response = layer.filters[0].bias.detach().numpy().copy()
            for m in range(order + 1):
                weight = layer.filters[m].weight.detach().numpy().reshape(hidden, degree + 1 - m, channels)
                for n in range(m, degree + 1):
                    cosines = about(around[edge], around, n, m, turn)[:, 0]
                    response += weight[:, n - m] @ (messages.numpy().T @ cosines)
            turns.append(response)
        mean, variance = np.mean(turns, axis=0), np.var(turns, axis=0)
        pooled = mean_silu(*(torch.from_numpy(x[None]) for x in (mean, variance)))
        torch.testing.assert_close(found[edge : edge + 1], layer.norm(pooled))


def test_mean_of_the_activation_is_right_to_second_order():
    middle, turns = (torch.linspace(-3, 3, 13).double(), torch.arange(64).double() * (2 * math.pi / 64))
    errors = []
    for spread in (0.4, 0.2):
        exact = torch.nn.functional.silu(middle[:, None] + spread * torch.cos(turns)).mean(1)
        variance = torch.full_like(middle, spread**2 / 2)
        errors.append((mean_silu(middle[None], variance[None]) - exact).abs().max())
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.1), "the next term is of fourth order"


def made(seed=0, **settings):
    torch.manual_seed(seed)
    return perturbed(build({**SMALL, **settings}, KNOWN))


@pytest.mark.parametrize(("order", "sees"), [(0, False), (1, True), (2, True)])
def test_order_zero_is_blind_to_turns_about_the_edge(order, sees):
    """A looks at B, which has two more neighbours; one of them is turned about the line from A to B."""
    tilt = math.radians(100)
    energies = []
    for turn in (2.0, 3.0):
        arms = [[math.sin(tilt) * math.cos(a), math.sin(tilt) * math.sin(a), math.cos(tilt)] for a in (0.0, turn)]
        graph = AtomGraph.from_ase(Atoms("HCOO", [[0, 0, 1], [0, 0, 0], *arms]), 1.3)
        assert graph.edges.shape[1] == 6, "neighbours of B only"
        energies.append(made(order=order, layers=1, cutoff=1.3).atomic_energies(graph)[0].item())
    assert (abs(energies[1] - energies[0]) > 1e-9) == sees


def test_an_edge_sees_its_sender_and_a_round_reaches_one_atom_further():
    """On a chain, messages start from pairs, so after n rounds an atom feels atoms n + 1 bonds away."""
    for layers in (1, 2):
        graph = AtomGraph.from_ase(Atoms("H5", [[0, 0, z] for z in (0.0, 1.0, 2.0, 3.0, 4.0)]), 1.5)
        positions = graph.positions.clone().requires_grad_()
        graph = AtomGraph(**{**graph.__dict__, "positions": positions})
        made(layers=layers, cutoff=1.5).atomic_energies(graph)[0].backward()
        felt = positions.grad.abs().sum(1) > 0
        assert felt.tolist() == [atom <= layers + 1 for atom in range(5)]


def test_mixture_is_that_of_the_paper():
    config = Config(hidden=12, mixtures=3, embedding=5)
    torch.manual_seed(1)
    block = Mixture(config, 7, 2, 3).double()
    features, sender, receiver = torch.randn(4, 7).double(), torch.tensor([0, 2, 1, 1]), torch.tensor([0, 1, 2, 1])
    silu = torch.nn.functional.silu
    weights = torch.softmax(block.choice(torch.cat([block.sender(sender), block.receiver(receiver)], dim=1)), dim=1)
    second = silu(block.second(silu(block.first(features)))).view(4, 3, 12)
    expected = block.last(torch.einsum("eb,ebh->eh", weights, second))
    torch.testing.assert_close(block(features, sender * 3 + receiver), expected)


def test_every_parameter_matters():
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=0)
    network = made(head="direct", order=2)
    prediction = evaluate(network, AtomGraph.from_ase(atoms, 4.0), create_graph=True)
    (prediction.forces.square().sum() + prediction.energy.square().sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_constants_keep_their_digits_in_a_cast_and_back():
    u = directions(5, 7)
    before, after = PolarFrame(4, 2).double(), PolarFrame(4, 2).float().double()
    for one, other in zip(before(u), after(u), strict=True):
        assert torch.equal(one, other)


def test_direct_force_of_a_pair_lies_along_it():
    atoms = Atoms("CO", [[0, 0, 0], [0.7, 0.6, -0.5]])
    forces = evaluate(made(head="direct"), AtomGraph.from_ase(atoms, 4.0)).forces
    along = torch.from_numpy(atoms.positions[1] / np.linalg.norm(atoms.positions[1]))
    torch.testing.assert_close(forces, (forces @ along)[:, None] * along)
    assert forces.abs().max() > 1e-3


def test_a_limited_number_of_neighbours_is_warned_of_and_leaves_the_farther_out(caplog):
    warn_of_truncation.cache_clear()
    limited = made(max_neighbours=1)
    assert "energies jump" in caplog.text
    unlimited = made()
    pairs = Atoms("H4", [[0, 0, 0], [0, 0, 1.0], [0, 0, 2.5], [0, 0, 3.6]])
    apart = [Atoms("H2", [[0, 0, 0], [0, 0, length]]) for length in (1.0, 1.1)]
    energy = [
        evaluate(network, AtomGraph.from_ase(a, 4.0)).energy.sum()
        for network, a in ((limited, pairs), (unlimited, apart), (unlimited, pairs))
    ]
    torch.testing.assert_close(energy[0], energy[1])
    assert (energy[0] - energy[2]).abs() > 1e-6


def test_preset_of_the_paper():
    config = registry.parse("potentials", {"kind": "spinconv", "preset": "piwsl"})
    assert (config.channels, config.hidden, config.layers, config.radial_count) == (32, 256, 3, 512)
    assert (config.cutoff, config.head, config.groups) == (6.0, "direct", 4)
    network = config.build(Statistics.bare((1, 6, 7, 8)))
    # the published block has the same weights, but for rows of elements that the data do not have
    first, second, last = 32 * 256 + 256, 256 * 8 * 256 + 8 * 256, 256 + 1
    chosen, elements = 2 * 32 * 8 + 8, 2 * 4 * 32
    assert sum(p.numel() for p in network.readout.parameters()) == first + second + last + chosen + elements


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"channels": 24, "hidden": 32}, "no multiple of channels / 8"), ({"degree": 1, "order": 2}, "have no order 2")],
)
def test_sizes_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        registry.parse("potentials", {"kind": "spinconv", **settings})
