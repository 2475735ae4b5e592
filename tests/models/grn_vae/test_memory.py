import pytest
from hypothesis import given
from hypothesis import strategies as st

from grndist.models.grn_vae import GRNVAEConfig
from grndist.models.grn_vae.memory import StepSizes, bytes_of_step
from grndist.optim import OptimizerConfig

RMSPROP, ADAM, LION = (OptimizerConfig(optimizer=name, learning_rate=1.0) for name in ("rmsprop", "adam", "lion"))
MIB = 2**20


PLAIN, DAZZLE = GRNVAEConfig(form="plain"), GRNVAEConfig(classifier_weight=0.5)
DEEPSEM = GRNVAEConfig(prior="networks", kl="one_sample")


@pytest.mark.parametrize(
    ("config", "optimizer", "sizes", "measured"),
    [
        (GRNVAEConfig(), RMSPROP, (1000, 1000, 1000, 64), 32),
        (GRNVAEConfig(), RMSPROP, (3000, 3000, 3000, 64), 184),
        (GRNVAEConfig(), RMSPROP, (8000, 8000, 8000, 64), 1088),
        (GRNVAEConfig(), ADAM, (3000, 3000, 3000, 64), 216),
        (GRNVAEConfig(), RMSPROP, (3000, 3000, 3000, 512), 404),
        (GRNVAEConfig(), RMSPROP, (1000, 1000, 1000, 2048), 391),
        (GRNVAEConfig(), RMSPROP, (1000, 1000, 1000, 8192), 1388),
        (GRNVAEConfig(), RMSPROP, (3000, 1000, 3000, 64), 77),
        (GRNVAEConfig(), RMSPROP, (8000, 1600, 8000, 64), 250),
        (GRNVAEConfig(), RMSPROP, (4000, 4000, 2000, 2), 192),
        (GRNVAEConfig(), ADAM, (4000, 4000, 1000, 64), 211),
        (GRNVAEConfig(), RMSPROP, (3000, 3000, 1500, 64), 119),
        (GRNVAEConfig(), RMSPROP, (8000, 8000, 4000, 64), 729),
        (GRNVAEConfig(), LION, (3000, 3000, 1500, 64), 221),
        (DAZZLE, ADAM, (1000, 1000, 1000, 8192), 1888),
        (DAZZLE, ADAM, (3000, 3000, 1500, 64), 159),
        (DAZZLE, RMSPROP, (20_000, 20_000, 7100, 64), 4041),
        (DEEPSEM, RMSPROP, (1000, 1000, 1000, 8192), 1663),
        (PLAIN, RMSPROP, (1500, 1500, 1500, 2), 172),
        (PLAIN, RMSPROP, (1500, 1500, 1500, 64), 405),
        (PLAIN, RMSPROP, (1000, 1000, 1000, 256), 830),
    ],
)
def test_it_is_about_the_peak_that_was_measured(config, optimizer, sizes, measured):
    """Peak of the resident memory over some steps, in MiB, above what was resident before the model was built."""
    found = bytes_of_step(config, optimizer, StepSizes(*sizes))
    assert found.total / MIB == pytest.approx(measured, rel=0.15)


@given(genes=st.integers(2, 20_000), data=st.data())
def test_it_grows_with_every_size(genes: int, data: st.DataObject):
    regulators, subset, cells = (data.draw(st.integers(1, most)) for most in (genes, genes, 512))
    sizes, config = StepSizes(genes, regulators, subset, cells), GRNVAEConfig()
    found = bytes_of_step(config, RMSPROP, sizes)
    assert found.adjacency == found.optimiser == 4 * regulators * genes
    assert bytes_of_step(config, ADAM, sizes).total == found.total + found.adjacency
    assert found.total <= bytes_of_step(config, RMSPROP, StepSizes(genes, regulators, subset, cells + 1)).total
