"""``earmark calibrate``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("calibrate")
@click.argument("catalog_dir", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--corpus", required=True, type=click.Path(exists=True, path_type=Path), metavar="CSV|DIR",
    help="As for train; about half of its music is in the catalog, the rest is not.",
)  # fmt: skip
@click.option(
    "--bundle", required=True, type=click.Path(exists=True, path_type=Path), metavar="DIR",
    help="Encoder whose calibration is written: the one that made the catalog.",
)  # fmt: skip
@click.option("--split", default="train", show_default=True, help="Split of the corpus to use.")
@click.option("--clips", type=click.IntRange(min=20), default=2000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--false-accepts", type=click.FloatRange(0, 1), default=0.002, show_default=True,
    help="Share of absent clips that the threshold lets pass.",
)  # fmt: skip
@click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path), default=Path("pcm"),
    show_default=True, metavar="DIR", help="Where decoded background sound is kept.",
)  # fmt: skip
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="PNG",
    help="Draw how the score tells right from wrong.",
)  # fmt: skip
def command(
    catalog_dir: Path,
    corpus: Path,
    bundle: Path,
    split: str,
    clips: int,
    seed: int,
    false_accepts: float,
    cache: Path,
    plot: Path | None,
) -> None:
    """Fit the score of matches, and its default threshold, to real clips.

    Cuts clips of 1 to 10 s from recordings of the catalog in DIR and from music that is not in
    it, sends them through noise, rooms, microphones and codecs, and fits the score so that it is
    the probability that a match is right, and a threshold that few absent clips pass.

    \b
    Example:
      earmark calibrate half-of-it --corpus corpus.csv --bundle runs/fingerprint/bundle
    """
    from encoders.bundle import write_calibration
    from encoders.corpus import read_corpus
    from index.identify import Identifier
    from pipelines.calibrate import calibrate
    from pipelines.progress import task_display

    identifier = Identifier(catalog_dir, bundle)
    with task_display("Identifying clips") as show:
        outcome = calibrate(
            identifier, read_corpus(corpus), split, cache, clips, seed, false_accepts,
            lambda done, n: show(done, n, {}),
        )  # fmt: skip
    write_calibration(bundle, outcome.calibration)
    if plot is not None:
        from pipelines.plots import plot_calibration

        plot_calibration(outcome.judged, outcome.calibration, plot)
    click.echo(
        f"{outcome.n_present} clips in the catalog: {outcome.top1:.1%} have the right recording on "
        f"top, {outcome.accepted:.1%} at the threshold {outcome.calibration.threshold}. "
        f"{outcome.n_absent} clips that are not: {outcome.false_accepts} accepted."
    )
    click.echo(f"Written to {bundle / 'bundle.json'}: {outcome.calibration}")
