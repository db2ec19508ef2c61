"""``earmark train``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from encoders.cost import Cost

# About what the shipped bundles went through.
STEPS = {"siamese": 8000, "event": 1400, "detector": 4000, "vae": 2200}
_RATES = {"detector": 6e-4}

# Choices beside the shape of the network that each kind has.
_CHOICES = {
    "siamese": {
        "loss",
        "similarity",
        "inputs",
        "n_pairs",
        "temperature",
        "margin",
        "other_sounds",
    },
    "event": {"temperature", "teachers"},
    "detector": {"width", "members", "specialists", "n_special"},
    "vae": set[str](),
}

# How many networks a detector is made of.
_NETWORKS = ("members", "specialists", "n_special")

# How ingest is told of a bundle of each kind.
_OPTIONS = {
    "siamese": "earmark ingest … --encoder ",
    "event": "earmark ingest … --encoders event=",
    "detector": "earmark events detect CLIP --model ",
    "vae": "earmark ingest … --vae ",
}

# What is said of a run in the end, by the name of its figure.
_SAID = {
    "dev_accuracy": "held-back windows found in their batch: {:.1%}",
    "top_1": "among all held-back windows: {:.1%}",
    "equal_error_rate": "same sound or not: {:.1%} equal error",
    "dev_f1": "F1 of steps in held-back mixtures, at a score of 0.5: {:.3f}",
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
@click.argument("kind", type=click.Choice(["siamese", "event", "detector", "vae"]))
@click.option(
    "--corpus", required=True, type=click.Path(exists=True, path_type=Path), metavar="CSV|DIR",
    help="CSV with the columns path, role (music, speech, noise, event) and split (train, dev), "
    "for event and detector also label; or a folder of music.",
)  # fmt: skip
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Gets the checkpoints, the TensorBoard logs, and in the end the bundle and a line in "
    "experiment.json.",
)  # fmt: skip
@click.option(
    "--steps", type=click.IntRange(min=1), metavar="N",
    help="[default: 8000; event 1400; detector 4000; vae 2200]",
)  # fmt: skip
@click.option("--learning-rate", type=float, help="[default: 0.001; detector 0.0006]")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--dim", type=click.IntRange(min=2),
    help="Size of the vectors. [default: 128; event 256; vae 64]",
)  # fmt: skip
@click.option(
    "--channels", type=_Numbers(), metavar="N,N,…",
    help="Of the convolutions. [default: 32,48,96,192,384; event and detector "
    "24,48,96,192,384; vae 16,32,64,128]",
)  # fmt: skip
@click.option(
    "--hidden", type=click.IntRange(min=1), metavar="N",
    help="Width of the dense layer. [default: 512]",
)  # fmt: skip
@click.option(
    "--width", type=click.IntRange(min=1), metavar="N",
    help="Channels of the convolutions over time. [detector; default: 192]",
)  # fmt: skip
@click.option(
    "--members", type=click.IntRange(min=1), metavar="N",
    help="Networks that are trained one after the other; the bundle says the mean of what they "
    "say. [detector; default: 1]",
)  # fmt: skip
@click.option(
    "--specialists", type=click.IntRange(min=0), metavar="N",
    help="Networks besides, which know only the kinds of sound with most recordings in both "
    "splits. [detector; default: 2]",
)  # fmt: skip
@click.option(
    "--special", "n_special", type=click.IntRange(min=1), metavar="N",
    help="How many kinds of sound those know. [detector; default: 15]",
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
    help="Of nt-xent and of the loss of event. [siamese, event; default: 0.05; event 0.1]",
)  # fmt: skip
@click.option(
    "--margin", type=click.FloatRange(0.0, min_open=True),
    help="Of the other losses. [siamese; default: contrastive 0.8, triplet 0.25]",
)  # fmt: skip
@click.option(
    "--other-sounds", type=click.FloatRange(0.0, 1.0), metavar="SHARE",
    help="Share of the pairs that are speech, effects and ambience instead of music. "
    "[siamese; default: 0.2]",
)  # fmt: skip
@click.option(
    "--teacher", "teachers", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True, metavar="FILE",
    help="What another network says of the sounds, to be learned too: from benchmarks/teacher.py. "
    "May be given several times. [event]",
)  # fmt: skip
@click.option(
    "--mixed-precision", is_flag=True,
    help="Multiply in bfloat16: faster where the processor has instructions for it. "
    "[siamese, event, detector]",
)  # fmt: skip
@click.option(
    "--from", "start", metavar="DIR|BUNDLE",
    help="Start from the weights of an earlier run, its --out, or of a bundle: a folder, or "
    "'fingerprint' for the one that comes with earmark. Of a detector, the event encoder that its "
    "convolutions are from. [siamese, event, detector; default: of detector 'event']",
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
    learning_rate: float | None,
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
      earmark train event --corpus corpus.csv --out runs/event --teacher teacher.npz
      earmark train detector --corpus detection.csv --out runs/detector
      earmark train vae --corpus ~/Music --out runs/vae --steps 2000
      tensorboard --logdir runs
    """
    given = {name: value for name, value in choices.items() if value not in (None, ())}
    shape = {name: given.pop(name) for name in ("dim", "channels", "hidden") if name in given}
    foreign = set(given) - _CHOICES[kind]
    foreign |= set(shape) & {"dim", "hidden"} if kind == "detector" else set()
    if foreign or (kind == "vae" and (mixed_precision or start)):
        raise click.UsageError(f"options that are not marked [{kind}] are not for {kind}")

    from encoders import recipes
    from encoders.corpus import read_corpus
    from encoders.features import FeatureSpec
    from encoders.siamese import SiameseConfig
    from encoders.teacher import Teacher
    from encoders.training import TrainingConfig
    from encoders.vae import VaeConfig
    from pipelines.progress import task_display

    recipes.require_training()
    config = TrainingConfig(
        steps or STEPS[kind], learning_rate or _RATES.get(kind, 1e-3), seed,
        mixed_precision=mixed_precision,
    )  # fmt: skip
    teachers = given.pop("teachers", ())
    further = {"teacher": Teacher.read(teachers, corpus)} if teachers else {}
    recipe: Any = VaeConfig(**shape) if kind == "vae" else None
    if kind == "siamese":
        recipe = recipes.SiameseRecipe(SiameseConfig(**shape), **given)
    elif kind == "event":
        network = dataclasses.replace(recipes.EventRecipe().network, **shape)
        recipe = recipes.EventRecipe(network, **given)
    elif kind == "detector":
        recipe = recipes.DetectorRecipe()
        chosen = {name: given.pop(name) for name in _NETWORKS if name in given}
        network = dataclasses.replace(recipe.network, **shape, **given)
        recipe = dataclasses.replace(recipe, network=network, **chosen)
    origin = _origin(start) if start is not None else None
    spec, items = FeatureSpec(), read_corpus(corpus)
    audio: Any = {"event": recipes.EventClips, "detector": recipes.DetectorClips}.get(
        kind, recipes.Caches
    )
    with task_display("Decoding") as show:

        def read(split: str, **more: Any) -> Any:
            folder = cache or out / "pcm"
            return audio.build(
                items, split, folder, spec, lambda done, n: show(done, n, {}), **more
            )

        train, dev = read("train", **further), read("dev")
    with task_display("Training") as show:
        n_steps = recipe.n_steps(config) if kind == "detector" else config.steps

        def progress(step: int, figures: dict[str, float]) -> None:
            show(step, n_steps, figures)

        if kind == "vae":
            trained = recipes.train_vae(train, dev, out, spec, config, recipe, progress, _announce)
        else:
            fit: Any = {
                "siamese": recipes.train_siamese, "event": recipes.train_events,
                "detector": recipes.train_detector,
            }[kind]  # fmt: skip
            trained = fit(
                train, dev, out, spec, config, recipe, progress, origin, _announce, **further
            )
    if kind == "detector":
        _set_thresholds(trained.bundle, dev)
    for name, sentence in _SAID.items():
        if name in trained.figures:
            click.echo(sentence.format(trained.figures[name]).capitalize())
    click.echo(f"The bundle is in {trained.bundle}; use it with: {_OPTIONS[kind]}{trained.bundle}")


def _set_thresholds(bundle: Path, dev: Any) -> None:
    # One for the classes that have networks of their own, who is told of them alone; another for
    # all others.
    from encoders.detector import Detector, write_thresholds
    from encoders.mixtures import PLAIN
    from encoders.recipes import DetectorRecipe, make_mixtures
    from index.event_detector import NetworkDetector
    from index.event_thresholds import CANDIDATES, try_thresholds

    network, recipe = Detector(bundle), DetectorRecipe(mixtures=PLAIN)
    thresholds: dict[str, float] = {}
    f1: dict[str, float | None] = {}
    for told in (network.classes, network.special):
        if not told:
            continue
        mixtures = make_mixtures(dev, told, network.spec, recipe)
        tried = try_thresholds(NetworkDetector(network, told), mixtures)
        best = tried.choose()
        thresholds |= dict.fromkeys(told, float(CANDIDATES[best]))
        f1 |= {
            k: f if n else None for k, f, n in zip(told, tried.f1[best], tried.n_true, strict=True)
        }
    names = network.classes
    write_thresholds(bundle, [thresholds[k] for k in names], [f1[k] for k in names])


def _origin(start: str) -> Path:
    from encoders.bundle import SHIPPED

    folder = next((f for f in (Path(start), SHIPPED / start) if f.is_dir()), None)
    if folder is None:
        raise click.BadParameter(f"there is no folder or bundle {start!r}", param_hint="--from")
    return folder


def _announce(cost: Cost) -> None:
    click.echo(f"The encoder: {cost}")
