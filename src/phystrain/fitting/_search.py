"""The search for parameters: bounded linear least squares, and a quasi-Newton method within bounds.

Source: L-BFGS-B, Byrd, Lu, Nocedal, Zhu 1995, doi:10.1137/0916069. Levenberg and Marquardt's method was slower by a
factor of three on silica: the exponentials of a density are so much alike that its steps are damped all the way.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from scipy.optimize import lsq_linear, minimize
from torch import Tensor

from phystrain.fitting._parameters import SMALLEST, perturbed
from phystrain.fitting._problem import Normal, Problem

Vector = Float[Tensor, " parameters"]

Outcome = tuple[Vector, float]
"""A vector and its objective."""

TOLERANCE = 1e-7
"""The search ends when a step lowers the objective by less than this fraction."""

GAIN = 1e-4
"""The same for linear solves, of which the first is exact where no wall is in play."""

FLATTEST = 1e-3
"""Curvatures below this fraction of the largest count as this large when coordinates are scaled."""

MEMORY = 30
"""Steps that the quasi-Newton method remembers."""

ROUNDS = 5
"""Linear solves at most: more than one is needed only where walls come into play."""

SPREAD = {"minimum": 0.06, "sigma": 0.06, "decay": 0.3, "beta": 0.2, "amplitude": 0.5, "depth": 0.7, "curvature": 0.7}
"""Standard deviation of the logarithm of values in starts other than the first."""


def _quiet(_: float) -> None:
    """Tell nobody."""


def solve_linear(problem: Problem, vector: Vector) -> Vector:
    """The best values of the parameters in which the energy is affine, the others fixed.

    Positive ones stay positive. The walls are not affine: each solve sees the ones that are too low where it begins,
    and a step that makes the whole worse is shortened.

    Args:
        problem: what is made small.
        vector: (parameters,) raw, where to begin.
    """
    parameters = problem.parameters
    columns = torch.nonzero(parameters.linear & parameters.free).squeeze(1)
    if not len(columns):
        return vector
    best = problem.objective(vector)
    if not np.isfinite(best):
        return vector
    for _ in range(ROUNDS):
        normal = problem.normal(vector, columns)
        step = _bounded_step(problem, normal, vector, columns)
        for shorter in (1.0, 0.5, 0.1):
            values = parameters.values(vector).index_add(0, columns, shorter * step)
            trial = torch.where(parameters.linear & parameters.free, parameters.raw(values), vector)
            found = problem.objective(trial)
            if found < best:
                break
        else:
            return vector
        gain, best, vector = best - found, found, trial
        if gain < GAIN * best:
            break
    return vector


def _bounded_step(problem: Problem, normal: Normal, vector: Vector, columns: Tensor) -> Tensor:
    """(columns,) change of the values that minimises the quadratic model, positive values staying so."""
    parameters = problem.parameters
    positive = parameters.positive[columns]
    per_value = torch.where(positive, 1 / torch.sigmoid(vector[columns]), torch.ones(len(columns), dtype=torch.float64))
    gradient = (normal.gradient * per_value).numpy()
    hessian = (per_value[:, None] * normal.hessian * per_value).numpy()
    size = np.sqrt(np.diag(hessian))
    scaled = hessian / np.outer(size, size) + 1e-10 * np.eye(len(size))
    factor = np.linalg.cholesky(scaled)
    now = parameters.values(vector)[columns].numpy()
    low = np.where(positive.numpy(), SMALLEST - now, -np.inf) * size
    target = -np.linalg.solve(factor, gradient / size)
    found = lsq_linear(factor.T, target, bounds=(np.minimum(low, -1e-12), np.inf), method="bvls")
    return torch.from_numpy(found.x / size)


def scales(problem: Problem, vector: Vector) -> Vector:
    """(parameters,) by which raw parameters are multiplied so that the curvatures of the objective are alike."""
    columns = torch.nonzero(problem.parameters.free).squeeze(1)
    if not len(columns):
        return torch.ones_like(vector)
    diagonal = problem.normal(vector, columns).hessian.diagonal()
    return torch.ones_like(vector).index_copy(0, columns, (diagonal / diagonal.max()).clamp(min=FLATTEST).sqrt())


def minimise(
    problem: Problem,
    vector: Vector,
    evaluations: int,
    done: Callable[[float], None] = _quiet,
    scale: Vector | None = None,
) -> Outcome:
    """Lower the objective within the bounds by L-BFGS-B, in coordinates in which its curvatures are alike.

    Args:
        problem: what is made small.
        vector: (parameters,) raw, where to begin, within the bounds.
        evaluations: of objective and gradient, at most.
        done: told the objective after each.
        scale: what :func:`scales` gives, here or elsewhere; worked out at ``vector`` if not given.
    """
    parameters = problem.parameters
    columns = torch.nonzero(parameters.free).squeeze(1)
    best, lowest = vector, problem.objective(vector)
    if not len(columns) or not np.isfinite(lowest):
        return best, lowest
    scale = (scales(problem, vector) if scale is None else scale)[columns]

    def at(scaled: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        nonlocal best, lowest
        trial = vector.index_copy(0, columns, torch.from_numpy(scaled) / scale)
        value, gradient = problem.value_and_gradient(trial)
        if value < lowest:
            best, lowest = trial, value
        done(lowest)
        return value, (gradient[columns] / scale).numpy()

    start, lower, upper = ((t[columns] * scale).numpy() for t in (vector, parameters.lower, parameters.upper))
    minimize(
        at,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(lower, upper, strict=True)),
        options={"maxfun": evaluations, "maxiter": evaluations, "maxcor": MEMORY, "ftol": TOLERANCE, "gtol": 1e-10},
    )
    return torch.minimum(torch.maximum(best, parameters.lower), parameters.upper), lowest


def search(
    problem: Problem,
    starts: int,
    evaluations: int,
    seed: int,
    done: Callable[[float], None] = _quiet,
    others: Sequence[Vector] = (),
) -> Vector:
    """The best of several starts, continued.

    The first start is that of the model, which knows the bonds of the data; the second is the same with the best
    linear parameters (a better beginning where the energy scale is far off, a worse basin elsewhere); in others wells,
    decays and depths are changed at random. Each gets a quarter of the evaluations; the best one goes on with all.

    Args:
        problem: what is made small.
        starts: number of starts.
        evaluations: of the one that is continued.
        seed: of the starts.
        done: told the objective after each evaluation.
        others: further vectors to go on from, as they are.
    """
    parameters = problem.parameters
    generator = np.random.default_rng(seed)
    vectors = [parameters.start, solve_linear(problem, parameters.start)][:starts]
    for number in range(starts - 2):
        vector = perturbed(parameters, generator, SPREAD)
        vectors.append(solve_linear(problem, vector) if number % 2 else vector)
    if starts > 1 or others:
        scale = scales(problem, parameters.start)  # as dear as thirty evaluations
        tried = [minimise(problem, vector, max(evaluations // 4, 2), done, scale) for vector in vectors]
        tried += [(vector, problem.objective(vector)) for vector in others]
        vectors = [min(tried, key=lambda outcome: outcome[1])[0]]
    return solve_linear(problem, minimise(problem, vectors[0], evaluations, done)[0])
