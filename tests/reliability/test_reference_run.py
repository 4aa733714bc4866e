"""One run serves all tests beside a reference, as long as nothing that it depends on has changed."""

import numpy as np
import torch

from phystrain.reliability._reference_run import _simulated
from phystrain.reliability.angles import Config as Angles
from phystrain.reliability.rdf import Config as Distances


def test_tests_of_equal_settings_share_a_run(argon_of, argon_reference, subject_of):
    potential = argon_of(0.0103)
    subject = subject_of(potential, reference=argon_reference, start=None)
    equal = {"picoseconds": 0.1, "timestep": 5, "replicas": 2}
    first = Distances(**equal).compare(subject)
    before = _simulated.cache_info().hits
    assert Angles(**equal).compare(subject).run is first.run
    assert _simulated.cache_info().hits == before + 1
    assert Angles(**equal | {"replicas": 1}).compare(subject).run is not first.run
    again = Distances(**equal).compare(subject)
    with torch.no_grad():  # as in training: the same module, other weights
        next(iter(potential.parameters())).add_(1.0)
    assert Distances(**equal).compare(subject).run is not again.run


def test_frames_are_as_far_apart_as_those_of_the_reference(argon_of, argon_reference, subject_of):
    compared = Distances(picoseconds=0.2, timestep=4, replicas=2, burn_in=0.5).compare(
        subject_of(argon_of(0.0103), reference=argon_reference, start=None)
    )
    settings = compared.run.settings
    assert compared.interval == 10  # fs; three steps of at most 4 fs
    assert settings.frame_interval == 3
    assert settings.step == 10 / 3
    assert settings.temperature == 40
    assert np.allclose(compared.run.frames[0][:32], argon_reference.frames.positions[:32])
    ours, theirs = compared.paths()
    assert theirs.shape == (len(argon_reference.frames), 32, 3)
    assert [path.shape for path in ours] == [(11, 32, 3)] * 2
