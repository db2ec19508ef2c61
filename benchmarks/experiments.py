"""Short trainings of the fingerprint encoder that differ in one choice each, in one table.

Every run sees the same batches of the same seed for the same number of steps; what differs is the
loss, the similarity, the input, the size of the vectors or the network. What counts is *top 1*: how
often a degraded window of held-back music finds its clean self among all held-back windows. A run
that is done is not done again, and one that was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gc
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from _common import json_option, report

from encoders.corpus import read_corpus
from encoders.degrade import simulate_rooms
from encoders.experiment import LOG_FILE
from encoders.features import FeatureSpec
from encoders.recipes import Caches, SiameseRecipe, fingerprint, require_training, train_siamese
from encoders.siamese import SiameseConfig
from encoders.training import TrainingConfig
from pipelines.progress import task_display

# What all runs share where they do not say otherwise: the network before it was widened, and music.
_BASE = {"channels": (32, 48, 96, 192, 320), "hidden": 256, "other_sounds": 0.0}

RUNS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "contrastive": {"loss": "contrastive"},
    "contrastive-euclidean": {"loss": "contrastive", "similarity": "euclidean"},
    "triplet": {"loss": "triplet"},
    "triplet-euclidean": {"loss": "triplet", "similarity": "euclidean"},
    "euclidean": {"similarity": "euclidean"},
    "learned": {"similarity": "learned"},
    "temperature-0.1": {"temperature": 0.1},
    "mfcc": {"inputs": "mfcc"},
    "64-d": {"dim": 64},
    "256-d": {"dim": 256},
    # At the cost of the baseline: fewer and wider, more and deeper, narrow at first.
    "4-layers": {"channels": (28, 56, 112, 224)},
    "6-layers": {"channels": (32, 48, 96, 160, 256, 384)},
    "wide-end": {"channels": (24, 44, 96, 224, 448)},
}

COLUMNS = (
    "run", "top 1", "held-back accuracy", "equal error", "held-back loss", "s/step", "waited",
    "M multiply-adds", "M parameters",
)  # fmt: skip


def recipe_of(choices: dict[str, Any], n_pairs: int) -> SiameseRecipe:
    """A recipe from choices of the network and of the training together."""
    choices = _BASE | choices
    shape = {name: choices[name] for name in ("dim", "channels", "hidden") if name in choices}
    rest = {name: value for name, value in choices.items() if name not in shape}
    return SiameseRecipe(SiameseConfig(**shape), n_pairs=n_pairs, **rest)


def finished(folder: Path) -> dict[str, Any] | None:
    """What a run wrote in its end, if it came to it."""
    log = folder / LOG_FILE
    if not log.exists():
        return None
    result: dict[str, Any] = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
    return result


def run_all(
    corpus: Path,
    out: Path,
    names: Sequence[str],
    config: TrainingConfig,
    n_pairs: int,
    cache: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Do what is not done yet; gives the results by name.

    Parameters
    ----------
    names : sequence of str
        Keys of :data:`RUNS`.
    config : TrainingConfig
        Of every run.
    n_pairs : int
        Pairs in a batch.
    cache : Path, optional
        Where decoded audio is kept. [default: in ``out``]
    """
    precision = "-bfloat16" if config.mixed_precision else ""
    rate = f"{config.learning_rate:g}"
    group = out / f"{config.steps}x{n_pairs}-rate{rate}-seed{config.seed}{precision}"
    missing = [name for name in names if finished(group / name) is None]
    if missing:
        require_training()
        spec, items = FeatureSpec(), read_corpus(corpus)
        train, dev = (Caches.build(items, s, cache or out / "pcm", spec) for s in ("train", "dev"))
        rooms = simulate_rooms(fingerprint.N_ROOMS, spec.sample_rate, seed=config.seed)
        for name in missing:
            _run(name, train, dev, group / name, config, n_pairs, rooms)
    return {name: finished(group / name) or {} for name in names}


def _run(
    name: str,
    train: Caches,
    dev: Caches,
    folder: Path,
    config: TrainingConfig,
    n_pairs: int,
    rooms: np.ndarray,
) -> None:
    import keras

    with task_display(name) as show:
        train_siamese(
            train,
            dev,
            folder,
            FeatureSpec(),
            config,
            recipe_of(RUNS[name], n_pairs),
            lambda step, figures: show(step, config.steps, figures),
            rooms=rooms,
        )
    # Or every run would keep its graphs.
    keras.backend.clear_session()
    gc.collect()


def row(name: str, result: dict[str, Any]) -> list[str]:
    """A line of the table; a run that was resumed after its last step lacks some figures."""
    figures, cost = result["figures"], result["cost"]

    def cell(figure: str, form: str) -> str:
        return form.format(figures[figure]) if figure in figures else "–"

    return [
        name,
        cell("top_1", "{:.1%}"),
        cell("dev_accuracy", "{:.1%}"),
        cell("equal_error_rate", "{:.2%}"),
        cell("dev_loss", "{:.3f}"),
        cell("seconds_per_step", "{:.2f}"),
        cell("waited", "{:.0%}"),
        f"{cost['multiply_adds'] / 1e6:.1f}",
        f"{cost['parameters'] / 1e6:.2f}",
    ]


@click.command(help=__doc__)
@click.argument("corpus", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Gets a folder for each run.",
)  # fmt: skip
@click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Where decoded audio is kept; may be that of `earmark train`. [default: OUT/pcm]",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(min=1), default=400, show_default=True)
@click.option("--pairs", type=click.IntRange(min=16), default=128, show_default=True)
@click.option("--learning-rate", type=float, default=1e-3, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--mixed-precision", is_flag=True, help="Multiply in bfloat16.")
@click.option(
    "--run", "names", multiple=True, type=click.Choice(list(RUNS)), metavar="NAME",
    help=f"Only this one; may be repeated. One of: {', '.join(RUNS)}.",
)  # fmt: skip
@json_option
def main(
    corpus: Path,
    out: Path,
    cache: Path | None,
    steps: int,
    pairs: int,
    learning_rate: float,
    seed: int,
    mixed_precision: bool,
    names: tuple[str, ...],
    json_path: Path | None,
) -> None:
    config = TrainingConfig(steps, learning_rate, seed, mixed_precision=mixed_precision)
    results = run_all(corpus, out, names or tuple(RUNS), config, pairs, cache)
    best_first = sorted(results.items(), key=lambda item: -item[1]["figures"]["top_1"])
    among = {int(result["figures"]["top_1_among"]) for result in results.values()}
    report(
        f"{steps} steps of {pairs} pairs, seed {seed}; top 1 among {max(among):,} windows",
        COLUMNS,
        [row(name, result) for name, result in best_first],
        {"runs": results},
        json_path,
    )


if __name__ == "__main__":
    main()
