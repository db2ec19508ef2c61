"""Make the tiny bundles in ``tests/data/bundles``: ``python tests/make_bundles.py [NAME…]``.

Small networks trained for a minute on the demo tracks: real bundles in every way but quality.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).parent.parent
sys.path.insert(0, str(REPO))

from encoders.corpus import Item, read_corpus  # noqa: E402
from encoders.features import FeatureSpec  # noqa: E402
from encoders.recipes import (  # noqa: E402
    Caches,
    EventClips,
    EventRecipe,
    SiameseRecipe,
    Trained,
    train_events,
    train_siamese,
    train_vae,
)
from encoders.siamese import SiameseConfig  # noqa: E402
from encoders.training import TrainingConfig  # noqa: E402
from encoders.vae import VaeConfig  # noqa: E402

# Kinds of sound among the demo tracks, for the event encoder.
LABELS = {
    "brandenburg-concerto-2": "acoustic", "morning-coffee": "acoustic", "palace": "acoustic",
    "chaos-god": "electronic", "hacienda": "electronic", "media-threat": "electronic",
}  # fmt: skip


def main(names: list[str]) -> None:
    spec, config = FeatureSpec(), TrainingConfig(steps=120, checkpoint_every=60)
    network = SiameseConfig(dim=32, channels=(8, 16, 24, 32), hidden=48)
    items = [
        Item(i.path, "music", "train", LABELS.get(i.path.stem, ""), i.path.stem)
        for i in read_corpus(REPO / "pipelines" / "demo_tracks")
    ]
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)

        def fingerprint() -> Trained:
            caches = Caches.build(items, "train", work, spec)
            return train_siamese(caches, caches, work / "s", spec, config, SiameseRecipe(network))

        def event() -> Trained:
            events = [dataclasses.replace(item, role="event") for item in items]
            clips = EventClips.build(events, "train", work, spec)
            recipe = EventRecipe(network, n_classes=2, n_others=8)
            return train_events(clips, clips, work / "e", spec, config, recipe)

        def vae() -> Trained:
            caches = Caches.build(items, "train", work, spec)
            shape = VaeConfig(8, (4, 8, 8, 8), 32)
            return train_vae(caches, caches, work / "v", spec, config, shape)

        for make in (fingerprint, event, vae):
            if names and make.__name__ not in names:
                continue
            target = REPO / "tests" / "data" / "bundles" / make.__name__
            trained = make()
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(trained.bundle, target)
            print(target, sum(p.stat().st_size for p in target.iterdir()), "bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
