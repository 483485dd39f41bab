"""The commands of `ovseg` about captions and images: what each does with its parsed options; its text is its help."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from flows.settings import with_settings

# Rooms are imported by the command that needs them: `ovseg --help` and `ovseg entities` should not load torch.


def ingest(options: argparse.Namespace) -> None:
    """Read a caption table into DIR/captions.

    Examples:
        ovseg ingest captions.tsv --out data
        ovseg ingest cc12m --out cc12m --plan
        ovseg ingest captions.tsv --remove removed.txt --out cleaned
    """
    from curation.captions import IngestConfig, ingest

    files = {name: getattr(options, name) for name in ("removed", "subset") if getattr(options, name)}
    config = replace(with_settings(IngestConfig(), options.settings), **files)
    if options.plan:
        from flows.plan import plan_ingest, show

        print(show([plan_ingest(options.table, options.out, config)]))
        return
    _print_counts(ingest(options.table, options.out, config).counts)


def parse(options: argparse.Namespace) -> None:
    """Find the entities of DIR/captions; writes DIR/entities and DIR/postings.

    Examples:
        ovseg parse data
        ovseg parse data --set vocabulary=mine.toml --nouns
    """
    from curation.parse import ParseConfig, parse
    from flows.parts import map_by_ray

    if options.plan:
        from flows.plan import plan_parse, show

        print(show([plan_parse(options.data_dir)]))
        return
    config = with_settings(ParseConfig(), options.settings)
    counts = parse(options.data_dir, replace(config, nouns=config.nouns or options.nouns), map_by_ray).counts
    # Counts of each entity under each rule are for the data card.
    _print_counts({name: count for name, count in counts.items() if ": " not in name})


def vocabulary(options: argparse.Namespace) -> None:
    """Propose a vocabulary from the nouns of DIR/captions.

    Examples:
        ovseg vocabulary data --top 50 --out mine.toml
    """
    from curation.vocabulary_mining import propose_vocabulary

    text = propose_vocabulary(options.data_dir, options.top, options.captions)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
        print(f"{options.out}: edit it, then parse with --set vocabulary={options.out}")
    else:
        print(text, end="")


def download(options: argparse.Namespace) -> None:
    """Fetch the images of DIR/entities into DIR/images.

    Examples:
        ovseg download data
        ovseg download data --image-root photos --set in_place=true
        ovseg download data --verify
    """
    from curation.check import check_images
    from curation.download import DownloadConfig, download

    if options.verify:
        print(f"{options.data_dir / 'images'}: {check_images(options.data_dir)} shards, all whole")
        return
    if options.shards:
        from curation.adopt import adopt

        adopted = adopt(options.data_dir, options.shards, with_settings(DownloadConfig(), options.settings))
        _print_counts(adopted.counts)
        return
    config = with_settings(DownloadConfig(), options.settings)
    if options.plan:
        from flows.plan import plan_download, show

        print(show([plan_download(options.data_dir, config, image_root=options.image_root)]))
        return
    run_shards = None
    if options.ray:
        from flows.parts import shards_by_ray

        run_shards = shards_by_ray(config)
    _print_counts(download(options.data_dir, config, options.image_root, run_shards).counts)


def embed(options: argparse.Namespace) -> None:
    """Embed the captions or images of DIR/images by a model, for pairs and searches.

    Examples:
        ovseg embed data runs/demo/phase2/model --of images
    """
    from curation.embeddings import EmbedConfig
    from flows.embed import embed

    config = replace(with_settings(EmbedConfig(), options.settings), of=options.of)
    manifest = embed.fn(options.data_dir, options.model, config, options.device, options.batch_size)
    _print_counts({"images": manifest.rows, **manifest.counts})


def pairs(options: argparse.Namespace) -> None:
    """Draw cross-image partners into DIR/pairs.

    Examples:
        ovseg pairs data --set kind=similar
    """
    from curation.contact_sheet import SHEET_FILE
    from curation.pairs import PairsConfig, build_pairs

    build_pairs(options.data_dir, with_settings(PairsConfig(), options.settings))
    _print_card(options.data_dir / "pairs")
    sheet = options.data_dir / "pairs" / SHEET_FILE
    if sheet.exists():
        print(f"example pairs: {sheet}")


def _print_card(folder: Path) -> None:
    from curation.datacard import read_datacard

    card = read_datacard(folder)
    _print_counts(card["figures"])
    _print_counts({f"without: {reason}": count for reason, count in card["drops"].items()})


def _print_counts(counts: Mapping[str, int | float]) -> None:
    for name, count in counts.items():
        print(f"{count:>12,.4g}  {name}" if isinstance(count, float) else f"{count:>12,}  {name}")


def entities(options: argparse.Namespace) -> None:
    """Count entities, or list the captions that match a query.

    Examples:
        ovseg entities data
        ovseg entities data "cat and (sofa or bed) and not dog" --format jsonl
    """
    from curation.entities import EntityIndex

    index = EntityIndex(options.data_dir)
    if options.together:
        table = index.together(options.query)
    elif options.sample is not None:
        table = index.sample(options.sample, options.seed, options.query)
    elif options.count and options.query:
        print(index.count(options.query))
        return
    else:
        table = index.query(options.query, limit=options.limit) if options.query else index.counts()
    if options.format == "jsonl":
        print(table.to_pandas().to_json(orient="records", lines=True, force_ascii=False), end="")
    elif options.format == "csv":
        print(table.to_pandas().to_csv(index=False), end="")
    else:
        print(table.to_pandas().to_string(index=False, max_colwidth=80))


def subset(options: argparse.Namespace) -> None:
    """Write which captions DIR/entities holds, so that others can rebuild it.

    Examples:
        ovseg subset data --out subset.parquet
    """
    from curation.subset import write_subset

    print(f"{options.out}: {write_subset(options.data_dir, options.out):,} captions")


def card(options: argparse.Namespace) -> None:
    """Print what all stages read, kept and left out; writes DIR/datacard.md.

    Examples:
        ovseg card data
    """
    from curation.datacard import join_datacards

    print(join_datacards(options.data_dir).read_text(encoding="utf-8"))
