"""Perturb-seq counts from a known network; `simulation_file` writes them.

A signed, directed, scale-free network regulates the production of every gene; each cell follows a chemical
Langevin equation to its steady state, perturbed cells with one gene's production cut to a residual fraction;
its levels are then counted through a lossy assay. Equations, settings and measured difficulty: docs/simulator.md.

    dy_g = (P_g - y_g) dt + sqrt((P_g + y_g) / molecules) dB_g      y_g: level relative to basal, t in mRNA lifetimes
    P_g  = residual_g exp(BOUND tanh(sum_r w_rg (y_r^2 / (1 + y_r^2) - 1/2) / BOUND) + sum_k loading_gk state_k)
    count_g ~ Poisson(Gamma(mean = capture * basal_g * y_g)), lost with a probability falling with its mean

Cells are simulated in blocks of fixed size, each from random streams of its own, so memory for the dynamics is
bounded and any block can be computed alone. It knows nothing of files, stores, models or scores.
"""

from grndist.data.simulate.config import CONDITIONS, Conditions, SimulationConfig
from grndist.data.simulate.simulation import CELLS_PER_BLOCK, Simulation, numbered, simulate

__all__ = ["CELLS_PER_BLOCK", "CONDITIONS", "Conditions", "Simulation", "SimulationConfig", "numbered", "simulate"]
