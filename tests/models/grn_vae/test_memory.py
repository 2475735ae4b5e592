import pytest
from hypothesis import given
from hypothesis import strategies as st

from grndist.models.grn_vae import GRNVAEConfig
from grndist.models.grn_vae.memory import StepSizes, bytes_of_step
from grndist.optim import OptimizerConfig

RMSPROP, ADAM, LION = (OptimizerConfig(optimizer=name, learning_rate=1.0) for name in ("rmsprop", "adam", "lion"))
MIB = 2**20


@pytest.mark.parametrize(
    ("optimizer", "form", "sizes", "measured"),
    [
        (RMSPROP, "fast", (3000, 3000, 3000, 64), 173),
        (ADAM, "fast", (3000, 3000, 3000, 64), 206),
        (RMSPROP, "fast", (3000, 3000, 3000, 512), 395),
        (RMSPROP, "fast", (3000, 1000, 3000, 64), 69),
        (RMSPROP, "fast", (4000, 4000, 4000, 2), 251),
        (RMSPROP, "fast", (4000, 4000, 2000, 2), 199),
        (ADAM, "fast", (4000, 4000, 1000, 64), 210),
        (RMSPROP, "fast", (3000, 3000, 1500, 64), 116),
        (RMSPROP, "fast", (1000, 1000, 1000, 2048), 357),
        (LION, "fast", (3000, 3000, 1500, 64), 236),
        (RMSPROP, "plain", (1500, 1500, 1500, 2), 160),
    ],
)
def test_it_is_about_the_peak_that_was_measured(optimizer, form, sizes, measured):
    """Peak of the resident memory over three steps, in MiB, above what was resident before the model was built."""
    genes, regulators, genes_per_step, cells = sizes
    found = bytes_of_step(GRNVAEConfig(form=form), optimizer, StepSizes(genes, regulators, genes_per_step, cells))
    assert found.total / MIB == pytest.approx(measured, rel=0.15)


@given(genes=st.integers(2, 20_000), data=st.data())
def test_it_grows_with_every_size(genes: int, data: st.DataObject):
    regulators, subset, cells = (data.draw(st.integers(1, most)) for most in (genes, genes, 512))
    sizes, config = StepSizes(genes, regulators, subset, cells), GRNVAEConfig()
    found = bytes_of_step(config, RMSPROP, sizes)
    assert found.adjacency == found.optimiser == 4 * regulators * genes
    assert bytes_of_step(config, ADAM, sizes).total == found.total + found.adjacency
    assert found.total <= bytes_of_step(config, RMSPROP, StepSizes(genes, regulators, subset, cells + 1)).total
