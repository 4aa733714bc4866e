"""Rotations of spherical harmonics into the frames of edges, and what is made of them."""

import sys

import pytest
import torch

from phystrain.errors import UserError
from phystrain.layers.edge_attention import edge_softmax
from phystrain.layers.edge_frames import EdgeFrames, join_orders, order_rows, split_orders
from phystrain.layers.so2 import SO2Linear, gated_orders
from phystrain.layers.sphere_grid import SphereGrid
from phystrain.layers.spherical import DegreeNorm, GatedFeedForward

o3 = pytest.importorskip("e3nn.o3")
POLES = torch.tensor([[0, 1, 0], [0, -1, 0], [1, 0, 0], [0, 0, -1], [0.6, 0, 0.8]], dtype=torch.float64)


def directions(count=40):
    random = torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return torch.cat([POLES, torch.nn.functional.normalize(random, dim=1)])


def harmonics(lmax, vectors):
    return o3.spherical_harmonics(list(range(lmax + 1)), vectors, normalize=False, normalization="norm")


TURN = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))).Q
TURN = TURN * torch.linalg.det(TURN)


def turned(x, lmax):
    """Coefficients after the rotation TURN, whose matrix follows from the harmonics of turned points."""
    points = directions(60)
    matrix = torch.linalg.lstsq(harmonics(lmax, points), harmonics(lmax, points @ TURN.T)).solution
    return torch.einsum("ba,nbc->nac", matrix, x)


@pytest.mark.parametrize(("lmax", "mmax"), [(1, 1), (2, 1), (4, 2), (6, 6)])
def test_frames_are_rotations_that_take_the_edge_to_the_axis(lmax, mmax):
    n = directions()
    matrix = EdgeFrames(lmax, mmax)(n)
    rows = order_rows(lmax, mmax)
    assert matrix.shape == (len(n), len(rows), (lmax + 1) ** 2)
    torch.testing.assert_close(matrix @ matrix.transpose(1, 2), torch.eye(len(rows)).double().expand(len(n), -1, -1))
    axial = torch.tensor([float(m == 0) for _, m in rows], dtype=torch.float64)
    torch.testing.assert_close(torch.einsum("erc,ec->er", matrix, harmonics(lmax, n)), axial.expand(len(n), -1))


def test_all_degrees_are_turned_by_the_same_rotation():
    n, lmax = directions(), 4
    matrix = EdgeFrames(lmax, lmax)(n)
    rows = order_rows(lmax, lmax)
    vector = [rows.index((1, m)) for m in (-1, 0, 1)]
    rotation = matrix[:, vector, 1:4]
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(len(n)).double())
    point = directions(7)[-7:]
    seen = torch.einsum("eab,pb->epa", rotation, point)
    expected = harmonics(lmax, seen.reshape(-1, 3)).reshape(len(n), 7, -1)
    columns = [degree * degree + degree + m for degree, m in rows]
    torch.testing.assert_close(torch.einsum("erc,pc->epr", matrix, harmonics(lmax, point)), expected[:, :, columns])


def test_frames_have_finite_derivatives_at_the_poles():
    frames = EdgeFrames(3, 2)
    weights = torch.randn(len(order_rows(3, 2)), 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def value(vectors):
        return (frames(vectors / vectors.norm(dim=1, keepdim=True)) * weights).sum()

    vectors = (1.7 * POLES + 1e-9).requires_grad_()
    (first,) = torch.autograd.grad(value(vectors), vectors, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), vectors)
    assert torch.isfinite(second).all()
    step = 1e-5 * torch.eye(3, dtype=torch.float64)
    numbers = [(value(vectors.detach()[:2] + h) - value(vectors.detach()[:2] - h)) / 2e-5 for h in step]
    torch.testing.assert_close(first[:2].sum(0), torch.stack(numbers), rtol=1e-6, atol=1e-6)


def test_frames_keep_their_precision():
    single, double = EdgeFrames(4, 2).float(), EdgeFrames(4, 2).double()
    assert torch.equal(single(directions()), double(directions()))
    torch.testing.assert_close(single(directions().float()).double(), double(directions()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("chiral", [False, True])
@pytest.mark.parametrize("degrees", [(0, 3), (1, 1)])
def test_convolutions_do_not_depend_on_the_frame_about_the_edge(chiral, degrees):
    lmax, mmax, x = 3, 2, torch.randn(1, 16, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(0)
    linear = SO2Linear(lmax, mmax, 4, 5, degrees=degrees, extra=3, chiral=chiral).double()
    frames, n = EdgeFrames(lmax, mmax), torch.tensor([[1.0, 2.0, 2.0]], dtype=torch.float64) / 3
    rows = [
        row
        for row, (degree, m) in enumerate(order_rows(lmax, mmax))
        if degrees[0] <= degree <= degrees[1] and abs(m) < len(linear.counts)
    ]
    columns = slice(degrees[0] ** 2, (degrees[1] + 1) ** 2)

    def convolved(x, n):
        matrix = frames(n)
        extra, parts = linear(split_orders(matrix @ x, lmax, mmax))
        return extra, (matrix[:, rows].transpose(1, 2) @ join_orders(parts))[:, columns]

    scalars, before = convolved(x, n)
    extra, after = convolved(turned(x, lmax), n @ TURN.T)
    torch.testing.assert_close(extra, scalars)
    padded = torch.zeros(1, 16, 5, dtype=torch.float64)
    padded[:, columns] = before
    torch.testing.assert_close(after, turned(padded, lmax)[:, columns])

    mirror = torch.tensor([(-1.0) ** (degree + (m < 0)) for degree in range(4) for m in range(-degree, degree + 1)])
    mirror = mirror.double() * torch.tensor([(-1.0) ** degree for degree in range(4) for _ in range(2 * degree + 1)])
    extra, after = convolved(mirror[:, None] * x, n * torch.tensor([-1.0, 1.0, 1.0]))  # x to -x: sines change sign
    torch.testing.assert_close(extra, scalars)
    same = torch.allclose(after, mirror[columns, None] * before)
    assert same != chiral


def test_order_parts_join_again():
    rows = torch.randn(3, len(order_rows(3, 2)), 4)
    parts = split_orders(rows, 3, 2)
    assert [part.shape[1:] for part in parts] == [(1, 4, 4), (2, 3, 4), (2, 2, 4)]
    assert torch.equal(join_orders(parts), rows)
    gated = gated_orders(parts, torch.full((3, 12), 40.0))  # open gates
    torch.testing.assert_close(join_orders(gated)[:, 1:], rows[:, 1:])


@pytest.mark.parametrize("make", [lambda: DegreeNorm(3, 4, 1e-2), lambda: GatedFeedForward(3, 4, 5, 4)])
def test_blocks_on_atoms_are_equivariant(make):
    torch.manual_seed(0)
    block, x = make().double(), torch.randn(6, 16, 4, dtype=torch.float64)
    torch.testing.assert_close(block(turned(x, 3)), turned(block(x), 3))


@pytest.mark.parametrize(("lmax", "mmax"), [(2, 1), (3, 3), (4, 2)])
@pytest.mark.parametrize("resolution", [None, 14])
def test_the_grid_gives_back_what_it_was_given(lmax, mmax, resolution):
    grid = SphereGrid(lmax, mmax, resolution, normalization="component", by_order=mmax < lmax)
    x = torch.randn(2, len(order_rows(lmax, mmax)), 3, dtype=torch.float64)
    torch.testing.assert_close(grid.coefficients(grid.values(x)), x)


def test_attention_forgets_neighbours_smoothly():
    logits, centre = torch.tensor([[0.3], [-0.2], [90.0]], dtype=torch.float64), torch.tensor([0, 0, 1])
    decay = torch.tensor([[1.0], [0.5], [1e-60]], dtype=torch.float64)
    weights = edge_softmax(logits, decay, centre, 3, sink=True)
    part = decay[:2] * logits[:2].exp()
    torch.testing.assert_close(weights[:2], part / (1 + part.sum()))
    assert weights[2] < 1e-20, "the last neighbour must go, too"
    whole = edge_softmax(logits, decay, centre, 3, sink=False)
    torch.testing.assert_close(whole[:2].sum(), torch.tensor(1.0).double())
    assert whole[2] == 1
    assert not edge_softmax(logits, 0 * decay, centre, 3, sink=False).any()
    huge = edge_softmax(torch.tensor([[1e4], [1e4], [-1e4]]).double(), torch.ones(3, 1).double(), centre, 3, sink=True)
    torch.testing.assert_close(huge, torch.tensor([[0.5], [0.5], [0.0]]).double())


@pytest.mark.parametrize("version", ["0.4.4", None])
def test_an_old_or_missing_e3nn_is_explained(version, monkeypatch):
    if version is None:
        monkeypatch.setitem(sys.modules, "e3nn", None)
    else:
        monkeypatch.setattr(sys.modules["e3nn"], "__version__", version)
    with pytest.raises(UserError, match=r"needs e3nn 0\.5 or later.*install") as caught:
        SphereGrid(2, 2, None, normalization="integral")
    assert "\n" not in str(caught.value)
