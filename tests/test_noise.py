import torch

from phystrain import noise


def test_uniform_and_normal_have_their_moments():
    keys = torch.arange(200_000)
    uniform, normal = noise.uniform(keys, 3), noise.normal(keys, 3)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.003
    assert abs(uniform.var() - 1 / 12) < 0.001
    assert abs(normal.mean()) < 0.01
    assert abs(normal.var() - 1) < 0.02
    assert abs((normal**4).mean() - 3) < 0.15


def test_neighbouring_keys_are_unrelated():
    keys = torch.arange(100_000)
    first, second, other = noise.uniform(keys), noise.uniform(keys + 1), noise.uniform(keys, 1)
    for one, two in ((first, second), (first, other)):
        assert abs(torch.corrcoef(torch.stack([one, two]))[0, 1]) < 0.02


def test_numbers_are_a_function_of_their_integers():
    keys = torch.tensor([5, -7, 2**62])
    assert torch.equal(noise.uniform(keys, 4)[1:], noise.uniform(keys[1:], 4))
    assert len({int(value) for value in noise.mix(torch.arange(1000)[:, None], torch.arange(50)).flatten()}) == 50_000
