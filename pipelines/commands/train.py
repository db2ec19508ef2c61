"""``earmark train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from encoders.cost import Cost

# About what the shipped bundles went through.
STEPS = {"siamese": 8000, "vae": 2200}

# What is said of a run in the end, by the name of its figure.
_SAID = {
    "dev_accuracy": "held-back windows found in their batch: {:.1%}",
    "top_1": "among all held-back windows: {:.1%}",
    "equal_error_rate": "same sound or not: {:.1%} equal error",
    "waited": "waiting for the degradations: {:.0%} of the time",
}


class _Numbers(click.ParamType):
    """Whole numbers of at least 1, with commas between."""

    name = "numbers"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        try:
            numbers = tuple(int(number) for number in value.split(","))
        except ValueError:
            numbers = ()
        if not numbers or min(numbers) < 1:
            self.fail(f"{value!r} is not like 32,48,96", param, ctx)
        return numbers


@click.command("train")
@click.argument("kind", type=click.Choice(["siamese", "vae"]))
@click.option(
    "--corpus", required=True, type=click.Path(exists=True, path_type=Path), metavar="CSV|DIR",
    help="CSV with the columns path, role (music, speech, noise, event) and split (train, dev); "
    "or a folder of music.",
)  # fmt: skip
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Gets the checkpoints, the TensorBoard logs, and in the end the bundle and a line in "
    "experiment.json.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="[default: 8000; vae 2200]")
@click.option("--learning-rate", type=float, default=1e-3, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--dim", type=click.IntRange(min=2), help="Size of the vectors. [default: 128; vae 64]"
)
@click.option(
    "--channels", type=_Numbers(), metavar="N,N,…",
    help="Of the convolutions. [default: 32,48,96,192,320; vae 16,32,64,128]",
)  # fmt: skip
@click.option(
    "--hidden", type=click.IntRange(min=1), metavar="N",
    help="Width of the dense layer. [default: 256]",
)  # fmt: skip
@click.option(
    "--loss", type=click.Choice(["nt-xent", "contrastive", "triplet", "triplet-hard"]),
    help="[siamese; default: nt-xent]",
)  # fmt: skip
@click.option(
    "--similarity", type=click.Choice(["cosine", "euclidean", "learned"]),
    help="What the loss compares vectors by. [siamese; default: cosine]",
)  # fmt: skip
@click.option(
    "--input", "inputs", type=click.Choice(["log-mel", "mfcc"]),
    help="What the network sees. [siamese; default: log-mel]",
)  # fmt: skip
@click.option(
    "--pairs", "n_pairs", type=int, metavar="N",
    help="In a batch, a multiple of 8. [siamese; default: 256]",
)  # fmt: skip
@click.option(
    "--temperature", type=click.FloatRange(0.0, min_open=True),
    help="Of nt-xent. [siamese; default: 0.05]",
)  # fmt: skip
@click.option(
    "--margin", type=click.FloatRange(0.0, min_open=True),
    help="Of the other losses. [siamese; default: contrastive 0.8, triplet 0.25]",
)  # fmt: skip
@click.option(
    "--mixed-precision", is_flag=True,
    help="Multiply in bfloat16: faster where the processor has instructions for it. [siamese]",
)  # fmt: skip
@click.option(
    "--from", "start", metavar="DIR|BUNDLE",
    help="Start from the weights of an earlier run, its --out, or of a bundle: a folder, or "
    "'fingerprint' for the one that comes with earmark. [siamese]",
)  # fmt: skip
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
    mixed_precision: bool,
    start: str | None,
    cache: Path | None,
    **choices: Any,
) -> None:
    """Train an encoder and write its bundle to OUT/bundle.

    Started again with the same options, it goes on from the last checkpoint.

    \b
    Examples:
      earmark train siamese --corpus corpus.csv --out runs/fingerprint
      earmark train siamese --corpus corpus.csv --out runs/triplet --loss triplet --dim 64
      earmark train siamese --corpus ~/Music --out runs/mine --from fingerprint --steps 1000
      earmark train vae --corpus ~/Music --out runs/vae --steps 2000
      tensorboard --logdir runs
    """
    given = {name: value for name, value in choices.items() if value is not None}
    shape = {name: given.pop(name) for name in ("dim", "channels", "hidden") if name in given}
    if kind == "vae" and (given or mixed_precision or start):
        raise click.UsageError("the options marked [siamese] are not for vae")

    from encoders import recipes
    from encoders.corpus import read_corpus
    from encoders.features import FeatureSpec
    from encoders.siamese import SiameseConfig
    from encoders.training import TrainingConfig
    from encoders.vae import VaeConfig
    from pipelines.progress import task_display

    recipes.require_training()
    config = TrainingConfig(
        steps or STEPS[kind], learning_rate, seed, mixed_precision=mixed_precision
    )
    if kind == "siamese":
        recipe = recipes.SiameseRecipe(SiameseConfig(**shape), **given)
    origin = _origin(start) if start is not None else None
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
            trained = recipes.train_siamese(
                train, dev, out, spec, config, recipe, progress, origin, _announce
            )
        else:
            trained = recipes.train_vae(
                train, dev, out, spec, config, VaeConfig(**shape), progress, _announce
            )
    for name, sentence in _SAID.items():
        if name in trained.figures:
            click.echo(sentence.format(trained.figures[name]).capitalize())
    option = "--vae" if kind == "vae" else "--encoder"
    click.echo(
        f"The bundle is in {trained.bundle}; use it with: "
        f"earmark ingest … {option} {trained.bundle}"
    )


def _origin(start: str) -> Path:
    from encoders.bundle import SHIPPED

    folder = next((f for f in (Path(start), SHIPPED / start) if f.is_dir()), None)
    if folder is None:
        raise click.BadParameter(f"there is no folder or bundle {start!r}", param_hint="--from")
    return folder


def _announce(cost: Cost) -> None:
    click.echo(f"The encoder: {cost}")
