"""From a corpus to a bundle: the whole training of each encoder."""

from __future__ import annotations

from encoders.recipes.common import Caches, Trained, require_training
from encoders.recipes.fingerprint import SiameseRecipe, train_siamese
from encoders.recipes.latent import train_vae

__all__ = [
    "Caches",
    "SiameseRecipe",
    "Trained",
    "require_training",
    "train_siamese",
    "train_vae",
]
