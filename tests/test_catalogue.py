"""What is listed about potentials is what they are."""

import sys
import time

import pytest
import torch

from phystrain import registry
from phystrain.catalogue import DEFAULT, Entry, describe_kinds, potentials
from phystrain.errors import UserError
from phystrain.potentials import build
from phystrain.potentials._network import NetworkConfig
from phystrain.statistics import Statistics

NETWORKS = [entry.kind for entry in potentials() if entry.is_network]


def test_every_potential_is_listed_once():
    lines = describe_kinds().splitlines()
    for kind in registry.kinds("potentials"):
        assert sum(line.startswith(f"  {kind} ") and Entry(kind).summary in line for line in lines) == 1, kind


@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_say_what_they_are(kind):
    entry = Entry(kind)
    assert issubclass(entry.config, NetworkConfig)
    assert len(entry.summary) < 160
    assert entry.summary.endswith(".")
    assert "arXiv" in entry.source or "doi" in entry.source
    assert "small" in entry.presets
    assert all(setting.description for setting in entry.settings), "a field without description"


@pytest.mark.parametrize("kind", NETWORKS)
def test_counts_are_those_of_the_network_that_is_built(kind):
    entry = Entry(kind)
    if entry.obstacle:
        pytest.skip(entry.obstacle)
    potential = build({"kind": kind, "preset": "small"}, Statistics.bare((8, 14)))
    assert entry.parameters["small"] == sum(parameter.numel() for parameter in potential.parameters())


def test_counting_draws_no_weights_and_takes_no_time():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    began = time.process_time()
    for entry in potentials():
        assert entry.parameters or entry.obstacle
    assert torch.equal(torch.rand(3), expected), "numbers of the generator were used"
    assert time.process_time() - began < 20


def test_what_cannot_be_built_is_listed_with_the_reason(monkeypatch):
    def refuse(*_):
        raise UserError("painn needs a package: pip install 'phystrain[networks]'\nand more")

    monkeypatch.setattr(registry.find("potentials", "painn"), "PaiNN", refuse)
    assert Entry("painn").obstacle == "painn needs a package: pip install 'phystrain[networks]'"
    assert "painn needs a package" in describe_kinds()


def test_sizes_that_depend_on_settings_are_said_so():
    assert Entry("sum").obstacle == "size depends on its settings (terms)"
    assert Entry("morse").parameters == {DEFAULT: 9}


def test_listing_imports_no_e3nn(monkeypatch):
    """Where it is missing the list still works."""
    monkeypatch.setitem(sys.modules, "e3nn", None)
    told = describe_kinds()
    assert "painn" in told
    assert "piwsl, 31M with phystrain[networks]" in told


def test_settings_are_told_in_words():
    told = {setting.name: setting for setting in Entry("painn").settings}
    assert told["head"].values == "`conservative` or `direct`"
    assert (told["cutoff"].values, told["cutoff"].default) == ("number > 0", "5.0")
    assert told["channels"].values == "whole number ≥ 2"
    assert Entry("sum").settings[0].default == ""
