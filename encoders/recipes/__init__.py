"""From a corpus to a bundle: the whole training of each encoder."""

from __future__ import annotations

from encoders.recipes.common import Caches, Trained, require_training
from encoders.recipes.event import EventClips, EventRecipe, train_events
from encoders.recipes.fingerprint import SiameseRecipe, train_siamese
from encoders.recipes.latent import train_vae

__all__ = [
    "Caches",
    "EventClips",
    "EventRecipe",
    "SiameseRecipe",
    "Trained",
    "require_training",
    "train_events",
    "train_siamese",
    "train_vae",
]
