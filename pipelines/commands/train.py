"""``earmark train``."""

from __future__ import annotations

from pathlib import Path

import click

# Steps that train the shipped bundles.
STEPS = {"siamese": 2800, "vae": 2200}


@click.command("train")
@click.argument("kind", type=click.Choice(["siamese", "vae"]))
@click.option(
    "--corpus", required=True, type=click.Path(exists=True, path_type=Path), metavar="CSV|DIR",
    help="CSV with the columns path, role (music, speech, noise, event) and split (train, dev); "
    "or a folder of music.",
)  # fmt: skip
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Gets the checkpoints, the TensorBoard logs, and in the end the bundle.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="[default: 2800; vae 2200]")
@click.option("--learning-rate", type=float, default=1e-3, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--loss", type=click.Choice(["nt-xent", "contrastive"]), default="nt-xent", show_default=True,
    help="Of the Siamese encoder.",
)  # fmt: skip
@click.option(
    "--dim", type=click.IntRange(min=2), help="Size of the vectors. [default: 128; vae 64]"
)
@click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Where decoded audio is kept. [default: OUT/pcm]",
)  # fmt: skip
def command(
    kind: str,
    corpus: Path,
    out: Path,
    steps: int | None,
    learning_rate: float,
    seed: int,
    loss: str,
    dim: int | None,
    cache: Path | None,
) -> None:
    """Train an encoder and write its bundle to OUT/bundle.

    Started again with the same options, it goes on from the last checkpoint.

    \b
    Examples:
      earmark train siamese --corpus corpus.csv --out runs/fingerprint
      earmark train vae --corpus ~/Music --out runs/vae --steps 2000
      tensorboard --logdir runs
    """
    from encoders import recipes
    from encoders.corpus import read_corpus
    from encoders.features import FeatureSpec
    from encoders.siamese import SiameseConfig
    from encoders.training import TrainingConfig
    from encoders.vae import VaeConfig
    from pipelines.progress import task_display

    recipes.require_training()
    config = TrainingConfig(steps or STEPS[kind], learning_rate, seed)
    spec, items = FeatureSpec(), read_corpus(corpus)
    with task_display("Decoding") as show:
        train, dev = (
            recipes.Caches.build(
                items, split, cache or out / "pcm", spec, lambda done, n: show(done, n, {})
            )
            for split in ("train", "dev")
        )
    with task_display("Training") as show:

        def progress(step: int, figures: dict[str, float]) -> None:
            show(step, config.steps, figures)

        if kind == "siamese":
            shape = SiameseConfig(dim=dim) if dim else SiameseConfig()
            bundle = recipes.train_siamese(train, dev, out, spec, config, shape, loss, progress)
        else:
            shape_vae = VaeConfig(dim=dim) if dim else VaeConfig()
            bundle = recipes.train_vae(train, dev, out, spec, config, shape_vae, progress)
    option = "--vae" if kind == "vae" else "--encoder"
    click.echo(f"The bundle is in {bundle}; use it with: earmark ingest … {option} {bundle}")
