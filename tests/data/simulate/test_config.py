import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grndist.config import ConfigError, validate
from grndist.data.simulate import SimulationConfig, simulate
from grndist.genes import NON_TARGETING
from tests.data.simulated import truth


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"regulators": 300}, "regulators=300 exceeds genes=200; lower regulators"),
        ({"regulators": 200}, "decoy_share=0.5 asks for 50 .* only 0 of the 200 genes are not regulators"),
        ({"cells": 100}, "cells=100 .* leaves 70 cells for 30 perturbed genes, but at least 150 are needed"),
        ({"control_share": 1}, "leaves 0 cells for 30 perturbed genes.*perturbed_share"),
        ({"difficulty": "brutal"}, "difficulty.*'easy', 'realistic' or 'hard'"),
        (
            {"genes": 40, "decoy_share": 0, "indirect_effects": "strong"},
            "strong .* nothing to regulate; lower regulators",
        ),
        ({"indirect_effects": "huge"}, "indirect_effects.*'weak' or 'strong'"),
        ({"library_effects": -0.1}, "library_effects.*greater than or equal to 0"),
        ({"seed": -1}, "seed.*greater than or equal to 0"),
        ({"control_share": 1.5}, "control_share.*less than or equal to 1"),
        ({"celss": 5}, "celss: unknown key; did you mean 'cells'"),
    ],
)
def test_settings_that_cannot_be_met_are_refused_in_words(setting: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        validate(SimulationConfig, setting, "simulate")


def test_without_perturbation_every_cell_is_a_control():
    simulation = simulate(SimulationConfig(cells=50, genes=20, regulators=20, perturbed_share=0))
    assert set(simulation.perturbation) == {NON_TARGETING}


@settings(max_examples=25, deadline=None)
@given(
    genes=st.integers(5, 40),
    regulated=st.floats(0, 1),
    perturbed_share=st.floats(0, 1),
    control_share=st.floats(0, 0.5),
    difficulty=st.sampled_from(["easy", "realistic", "hard"]),
    indirect_effects=st.sampled_from(["weak", "strong"]),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_small_simulation_is_consistent(
    *, genes, regulated, perturbed_share, control_share, difficulty, indirect_effects, seed
):
    config = SimulationConfig(
        cells=600,
        genes=genes,
        regulators=min(max(1, round(regulated * genes)), genes - (indirect_effects == "strong")),
        indirect_effects=indirect_effects,
        perturbed_share=perturbed_share,
        decoy_share=0,
        control_share=control_share,
        difficulty=difficulty,
        seed=seed,
    )
    simulation = simulate(config)
    edges = truth(simulation)
    assert simulation.counts.shape == (600, genes)
    assert not edges.diagonal().any()
    assert (edges.any(axis=1) == simulation.is_regulator).all()
    assert simulation.is_regulator.sum() == config.regulators
    labels = list(simulation.perturbation)
    assert labels.count(NON_TARGETING) == config.n_controls
    assert len(set(labels) - {NON_TARGETING}) == sum(config.n_perturbed)
    assert np.isfinite(simulation.network["weight"]).all()
