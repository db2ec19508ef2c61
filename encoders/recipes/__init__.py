"""From a corpus to a bundle: the whole training of each encoder."""

from __future__ import annotations

from encoders.recipes.common import Caches, Trained, require_training
from encoders.recipes.detector import (
    DetectorClips,
    DetectorRecipe,
    make_mixtures,
    train_detector,
)
from encoders.recipes.event import EventClips, EventRecipe, train_events
from encoders.recipes.fingerprint import SiameseRecipe, train_siamese
from encoders.recipes.latent import train_vae

__all__ = [
    "Caches",
    "DetectorClips",
    "DetectorRecipe",
    "EventClips",
    "EventRecipe",
    "SiameseRecipe",
    "Trained",
    "make_mixtures",
    "require_training",
    "train_detector",
    "train_events",
    "train_siamese",
    "train_vae",
]
