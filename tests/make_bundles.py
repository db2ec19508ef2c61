"""Make the tiny bundles in ``tests/data/bundles``: ``python tests/make_bundles.py``.

Small networks trained for a minute on the demo tracks: real bundles in every way but quality.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).parent.parent
sys.path.insert(0, str(REPO))

from encoders.corpus import read_corpus  # noqa: E402
from encoders.features import FeatureSpec  # noqa: E402
from encoders.recipes import Caches, SiameseRecipe, train_siamese, train_vae  # noqa: E402
from encoders.siamese import SiameseConfig  # noqa: E402
from encoders.training import TrainingConfig  # noqa: E402
from encoders.vae import VaeConfig  # noqa: E402


def main() -> None:
    spec, config = FeatureSpec(), TrainingConfig(steps=120, checkpoint_every=60)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        items = read_corpus(REPO / "pipelines" / "demo_tracks")
        caches = Caches.build(
            [i.__class__(i.path, i.role, "train") for i in items], "train", work, spec
        )
        tiny = SiameseRecipe(SiameseConfig(dim=32, channels=(8, 16, 24, 32), hidden=48))
        made = {
            "fingerprint": train_siamese(caches, caches, work / "s", spec, config, tiny),
            "vae": train_vae(
                caches, caches, work / "v", spec, config, VaeConfig(8, (4, 8, 8, 8), 32)
            ),
        }
        for name, trained in made.items():
            target = REPO / "tests" / "data" / "bundles" / name
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(trained.bundle, target)
            print(target, sum(p.stat().st_size for p in target.iterdir()), "bytes")


if __name__ == "__main__":
    main()
