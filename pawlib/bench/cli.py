"""The command line, for what has no picture: fetch, twins, prepare, pretrain, embed.

Exit status: 0 done; 1 done, but some files could not be decoded (`prepare` only with --strict, `embed` always); 2 bad
input, told in one line; 130 stopped with Ctrl-C. Every command can be stopped and run again: only what is missing
is done.
"""

import argparse
import importlib
import sys
import warnings
from pathlib import Path

from pawlib import paths

DATASETS = ("mtat", "gtzan", "dcase2016", "shs100k", "covers80")  # of corpora, which imports too much to explain it


def main(argv=None):
    """Run one command; returns the exit status.

    Parameters
    ----------
    argv : list of str, optional
        The command line's own if not given.
    """
    arguments = _parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _show_warning
        try:
            return arguments.run(arguments)
        except KeyboardInterrupt:
            print("stopped; run the same command again to continue, what is finished is kept", file=sys.stderr)
            return 130
        except (ValueError, OSError) as error:
            if arguments.traceback:
                raise
            print(f"pawlib {arguments.command}: {_one_line(error)}", file=sys.stderr)
            return 2


def _parser():
    parser = argparse.ArgumentParser(
        prog="pawlib", description="Music-PAW workbook: data and long runs from the command line."
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error arose, not only what it says")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_fetch(commands)
    _add_twins(commands)
    _add_prepare(commands)
    _add_pretrain(commands)
    _add_embed(commands)
    return parser


def _add(commands, name, run, text, example):
    command = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def _add_corpus(command):
    command.add_argument(
        "--corpus", choices=paths.CORPORA, default="twin", help="made here, or the real audio (default: twin)"
    )
    command.add_argument(
        "--scale", choices=paths.SCALES, default="small", help="toy takes the twin's small sister (default: small)"
    )


# --- fetch ------------------------------------------------------------------------------------------------------------


def _add_fetch(commands):
    command = _add(
        commands,
        "fetch",
        _fetch,
        "Download a real dataset: resumed where it broke off, checked, unpacked.",
        "pawlib fetch mtat        (about 6 GB into data/raw/mtat)",
    )
    command.add_argument("dataset", help="mtat, gtzan, dcase2016, covers80, shs100k-sub or shs100k-full (lists)")
    command.add_argument("--root", type=Path, help="where to (default: data/raw/DATASET)")
    command.add_argument("--url", help="another address of the dataset's folder or file; checksums stay the same")
    command.add_argument(
        "--audio", action="store_true", help="only for shs100k-sub: gather the audio with yt-dlp, slowly, resumably"
    )
    command.add_argument("--limit", type=_count, help="with --audio: so many recordings now, then stop")


def _fetch(arguments):
    from pawlib.bench import fetch

    name = fetch.FOLDERS.get(arguments.dataset, arguments.dataset)
    root = arguments.root or paths.raw(name)
    remote = fetch.DATASETS.get(arguments.dataset)
    if (arguments.audio or arguments.limit is not None) and arguments.dataset != "shs100k-sub":
        raise ValueError(f"--audio and --limit belong to `pawlib fetch shs100k-sub`, not to {arguments.dataset}")
    elsewhere = {"remote": fetch.at(arguments.dataset, arguments.url)} if arguments.url else {}
    if remote:
        size = f"{remote.n_bytes / 1e9:.1f} GB" if remote.n_bytes > 1e8 else f"{remote.n_bytes / 1e6:.0f} MB"
        print(f"{arguments.dataset}: licence {remote.licence}, about {size}, into {root}")
    fetch.fetch(arguments.dataset, root, **elsewhere)
    print(f"complete: {root}")
    parts = [name for name in remote.archive if (root / name).is_file()]
    if parts:
        print(f"unpacked; {', '.join(parts)} are no longer needed and may be deleted")
    if arguments.dataset == "shs100k-sub":
        return _fetch_audio(root, arguments)
    print(f"next: pawlib prepare {name.split('/')[0]} --corpus real")
    return 0


def _fetch_audio(root, arguments):
    """Gather what SHS100K-SUB lists, if that is asked for; then what is there, and what is to be done."""
    from pawlib.bench import fetch, gather
    from pawlib.bench.datasets import shs100k

    folder = root / "audio"
    if arguments.audio:
        if not any((place / "list").is_file() for place in (root, root / "meta")):
            fetch.fetch("shs100k-full", root / "meta")  # the file `list` has the addresses
        about, lists = shs100k.info(root), shs100k.listed(root)
        wanted = {one: about.get(one, {}).get("url", "") for part in ("test", "valid", "train") for one in lists[part]}
        got = gather.gather(wanted, folder, limit=arguments.limit)
        print(f"{got.n_new:,} new, {got.n_there:,} of {len(wanted):,} there, {got.n_left:,} not tried yet")
        _list("failed", [{"path": one, "reason": told["reason"]} for one, told in got.failed.items()])
    if folder.is_dir() and any(folder.iterdir()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what is missing is said in the next line
            print(shs100k.surviving(shs100k.read(root)))
        print("next: pawlib prepare shs100k --corpus real")
        return 0
    print(
        f"these are lists: no audio is published. Place what you have into {folder} as <set>_<version>.mp3 (or wav, "
        "flac, ogg); or, with yt-dlp and ffmpeg installed, `pawlib fetch shs100k-sub --audio` gathers it, slowly, over "
        "days, and goes on where it was stopped. What is missing is counted and left out. Then: pawlib prepare "
        "shs100k --corpus real"
    )
    return 0


# --- twins ------------------------------------------------------------------------------------------------------------


def _add_twins(commands):
    command = _add(
        commands,
        "twins",
        _twins,
        "Make a dataset's stand-in from real scores: same layout, other audio, nothing downloaded.",
        "pawlib twins gtzan --size small",
    )
    command.add_argument("dataset", nargs="?", choices=DATASETS, default="mtat", help="(default: mtat)")
    command.add_argument(
        "--size", choices=("toy", "small"), default="small", help="a few dozen tracks, or the benchmark"
    )
    command.add_argument("--seed", type=int, default=0, help="rows of results belong to seed 0 (default)")


def _twins(arguments):
    maker = importlib.import_module(f"pawlib.bench.twins.{arguments.dataset}")
    root = paths.twins(arguments.dataset, arguments.size)
    maker.make(root, size=arguments.size, seed=arguments.seed)
    print(f"complete: {root} (licence: see twin.json there)")
    print(f"next: pawlib prepare {arguments.dataset} --corpus twin --scale {arguments.size}")
    return 0


# --- prepare ----------------------------------------------------------------------------------------------------------


def _add_prepare(commands):
    command = _add(
        commands,
        "prepare",
        _prepare,
        "Decode a dataset once, in parallel, into a memory-mapped store.",
        "pawlib prepare mtat --corpus twin --scale small\n         pawlib prepare folder ~/Music --name my_music",
    )
    command.add_argument("dataset", choices=(*DATASETS, "folder"))
    command.add_argument("path", nargs="?", type=Path, help="only for `folder`: your folder of wav, flac, ogg, mp3")
    _add_corpus(command)
    command.add_argument("--name", help="only for `folder`: the store's name (default: the folder's)")
    command.add_argument("--workers", type=_count, help="processes (default: all cores; 0: none beside this one)")
    command.add_argument("--min-seconds", type=float, default=0.0, help="list shorter files as failed (default: 0)")
    command.add_argument("--verify", action="store_true", help="compare the finished store with its checksums")
    command.add_argument("--strict", action="store_true", help="exit with 1 if a file is missing or cannot be decoded")


def _prepare(arguments):
    from pawlib.bench import store

    tracks, missing, name = _tracks(arguments)
    folder = paths.store(name)
    print(f"{name}: {len(tracks):,} tracks into {folder}", flush=True)
    made = store.prepare(tracks, folder, n_workers=arguments.workers, min_seconds=arguments.min_seconds)
    if arguments.verify:
        made.verify()
    _list("left out", missing)
    _list("not decoded", made.failed)
    print(f"complete: {len(made):,} of {len(tracks):,} tracks in {folder}")
    return 1 if arguments.strict and (made.failed or missing) else 0


def _tracks(arguments):
    """(tracks, what was left out, name of the store) of the dataset asked for."""
    from pawlib.bench.datasets import folder

    if arguments.dataset == "folder":
        if arguments.path is None:
            raise ValueError("no folder given, expected e.g. `pawlib prepare folder ~/Music --name my_music`")
        name = arguments.name or arguments.path.resolve().name
        if name != Path(name).name or name.startswith("."):
            raise ValueError(f"--name {name!r} is no plain folder name: give one without slashes or a leading dot")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what is no audio is listed below
            tracks = folder.read(arguments.path)
        return tracks, folder.left_out(arguments.path), name
    if arguments.path is not None or arguments.name is not None:
        raise ValueError(f"a path and --name belong to `pawlib prepare folder`, not to {arguments.dataset}")
    root, name = paths.corpus(arguments.dataset, arguments.corpus, arguments.scale)
    reader = importlib.import_module(f"pawlib.bench.datasets.{arguments.dataset}")
    if hasattr(reader, "all_tracks"):  # one store for all its splits
        return reader.all_tracks(root), [], name
    splits = reader.read(root)
    return splits.tracks, splits.missing, name


def _list(what, entries, n_shown=20):
    if entries:
        print(f"{what}: {len(entries):,}")
    for entry in entries[:n_shown]:
        print(f"  {entry['path']}: {entry['reason']}")
    if len(entries) > n_shown:
        print(f"  ... and {len(entries) - n_shown:,} more")


# --- pretrain ---------------------------------------------------------------------------------------------------------


def _add_pretrain(commands):
    command = _add(
        commands,
        "pretrain",
        _pretrain,
        "Pretrain Music-PAW or one of its variants on a prepared corpus, without a notebook.",
        "pawlib pretrain --scale small --variant music_paw --encoder fcn_4 --out data/runs/my_run",
    )
    _add_corpus(command)
    command.add_argument(
        "--variant",
        default="music_paw",
        help="music_paw (default), hc, pw_block, baseline; or a control: flat_multicrop, cousins, baseline_multicrop",
    )
    command.add_argument("--encoder", default="fcn_4", help="fcn_4 or fcn_7 (default: fcn_4)")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--out", type=Path, help="the run's folder (default: as the engine names it in data/runs)")


def _pretrain(arguments):
    from pawlib import model
    from pawlib.bench import corpora, engine

    def build():
        return model.MusicPAW(variant=arguments.variant, encoder=arguments.encoder)

    build()  # an unknown variant or encoder is refused before a twin is made
    opened = corpora.open_corpus("mtat", arguments.corpus, arguments.scale)
    _, _, folder = engine.pretrain_at_scale(
        build,
        opened,
        arguments.variant,
        arguments.encoder,
        scale=arguments.scale,
        seed=arguments.seed,
        out=arguments.out,
    )
    print(f"complete: {folder}")
    return 0


# --- embed ------------------------------------------------------------------------------------------------------------


def _add_embed(commands):
    command = _add(
        commands,
        "embed",
        _embed,
        "Turn a folder of your own music into vectors: one parquet row for every clip of every level of every track.",
        "pawlib embed ~/Music --out embeddings.parquet\n\n"
        "What cannot be embedded is listed with the reason in embeddings.failed.json. Exit status: 0 all embedded,\n"
        "1 some files left out, 2 nothing could be done. Run again after a stop, or when the folder has changed.",
    )
    command.add_argument("folder", type=Path, help="wav, flac, ogg and mp3 of any rate and length, subfolders too")
    command.add_argument("--out", type=Path, required=True, help="the parquet file to write")
    command.add_argument(
        "--model",
        default=paths.SMALL_WEIGHTS,
        help=f"a checkpoint file, or the name of a released one (default: {paths.SMALL_WEIGHTS})",
    )
    command.add_argument(
        "--levels",
        choices=("all", "shortest", "top"),
        default="all",
        help="every level, the shortest clips alone, or the wholes alone (default: all)",
    )


def _embed(arguments):
    import torch

    from pawlib import model
    from pawlib.bench import folders

    device = "cuda" if torch.cuda.is_available() else "cpu"
    paw = model.MusicPAW.load(arguments.model).to(device)
    made = folders.embed(arguments.folder, arguments.out, paw, arguments.levels)
    _list("left out", made.left_out)
    if made.n_new:
        told = f"{made.n_new:,} new, {made.audio_s / 3600:.2f} h of audio in {made.wall_s:.0f} s"
        print(f"embedded: {told}, {folders.speed(made.n_new, made.audio_s, made.wall_s)}")
    else:
        print("embedded: nothing new")
    print(f"complete: {made.n_tracks:,} tracks in {made.out}, reasons of those left out in {made.failed_json}")
    return 0 if made.complete else 1


# --- words ------------------------------------------------------------------------------------------------------------


def _count(text):
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is below 0")
    return value


def _show_warning(message, category, filename, lineno, file=None, line=None):
    print(f"warning: {_one_line(message)}", file=sys.stderr)


def _one_line(error):
    if isinstance(error, OSError) and error.strerror and error.filename:
        error = f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
