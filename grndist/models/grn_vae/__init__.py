"""GRN-VAE and its relatives, DeepSEM and DAZZLE: a variational autoencoder whose latent layer is the network."""

from grndist.models.grn_vae.config import GRNVAEConfig
from grndist.models.grn_vae.model import GRNVAE

__all__ = ["GRNVAE", "GRNVAEConfig"]
