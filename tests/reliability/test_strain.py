import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from phystrain.data.structures import Structures
from phystrain.potentials import build
from phystrain.reliability.strain import Config
from phystrain.statistics import Statistics


def test_silver_is_as_stiff_as_it_was_fitted_to_be(subject_of, request):
    """Foiles, Baskes and Daw 1986 (universal functions 3): lattice constant 4.09 Å, bulk modulus 1.04 Mbar."""
    file = request.path.parents[1] / "data_files" / "eam" / "Ag_u3.eam"
    statistics = Statistics.bare((47,))
    potential = build({"kind": "eam_table", "file": str(file)}, statistics).double()
    stretched = Structures.from_ase([bulk("Ag", a=4.3, cubic=True)])
    result = Config()(subject_of(potential, start=stretched, statistics=statistics))
    assert result.passed
    assert result.figures["volume at rest, Å³/atom, Ag4 (1)"] == pytest.approx(4.09**3 / 4, rel=2e-3)
    assert result.figures["bulk modulus, GPa, Ag4 (1)"] == pytest.approx(104, rel=0.02)
    assert result.figures["sign changes, Ag4 (1)"] == 1


def test_hole_under_compression(with_hole, subject_of):
    result = Config(strain=0.45)(subject_of(with_hole))
    assert result.passed is False
    assert result.figures["sign changes, Ar32 (1)"] > 1
    (condition,) = result.conditions
    # the wall of a pair ends between 2.2 and 2.6 Å, of 3.75 Å at the start
    percent = int(condition.split("more than ")[1].split(" %")[0])
    assert 100 * (1 - 2.62 / 3.75) <= percent <= 100 * (1 - 2.3 / 3.75)
    assert result.grade == "limited"  # the wall before it is many eV high


def test_numbers_of_known_curves():
    config = Config()
    x = np.linspace(-1, 1, 41)
    well = config._measures(x**2)
    assert well["sign changes"] == 1
    assert well["tortuosity"] == pytest.approx(1)
    assert well["rank correlation, compression"] == pytest.approx(-1)
    assert well["rank correlation, tension"] == pytest.approx(1)
    double = config._measures((x**2 - 0.25) ** 2)
    assert double["sign changes"] == 3
    assert double["tortuosity"] > 1.1
    assert config._measures(1e-5 * np.sin(20 * x))["sign changes"] == 0  # less than a meV


def test_vacuum_does_not_apply(lennard_jones, subject_of):
    molecule = Structures.from_ase([Atoms("Ar2", [[0, 0, 0], [3.8, 0, 0]])])
    result = Config()(subject_of(lennard_jones, start=molecule))
    assert result.applies is False
    assert result.passed is None
