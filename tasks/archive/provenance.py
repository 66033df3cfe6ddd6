"""What made each product of a release, and of what: by the records of stages, the ledger of runs, the years' frames."""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from models.base import Roots
from models.frame import FrameRecord
from models.provenance import Activity, Agent, Entity, Product, Provenance
from models.release import COMPRESSED
from models.settings import Settings
from models.telescope import Telescope
from tasks.archive.compressed import image_of, weight_of
from tasks.archive.products import list_products
from tasks.core.ledger import Made, read_made

__all__ = ["gather_provenance"]

_log = logging.getLogger("ohp.archive")


class _Stage(NamedTuple):
    """A recorded stage: which of the files in its result it made, and the settings' sections it depends on."""

    makes: str
    settings: tuple[str, ...]
    tools: tuple[str, ...] = ()


_STAGES: dict[str, _Stage] = {
    "master-bias": _Stage(r"/master_bias/", ("bias",)),
    "master-flat": _Stage(r"/master_flat/", ("flat",)),
    "publish": _Stage(r"/reduced/.*\.fits$", ("reduction", "quality", "astrometry", "photometry", "psf"),
                      ("solve-field", "source-extractor", "psfex")),
    "align-group": _Stage(r"/reduced/.*\.head$", ("scamp",), ("scamp",)),
    "model-psf": _Stage(r"/psf/.*\.psf$", ("psf",), ("source-extractor", "psfex")),
    "psf-of-stack": _Stage(r"^stacks/.*_psf\.fits$", ("psf",), ("source-extractor", "psfex")),
    "finish-stack": _Stage(r"^stacks/.*(?<!_psf)(?<!_ext)\.fits$",
                           ("selection", "stack", "photometry", "scamp", "validation", "psf"), ("SWarp",)),
    "finish-extended": _Stage(r"^stacks/.*_ext\.fits$", ("stack",), ("SWarp",)),
    "source-list": _Stage(r"_cat\.(fits|parquet)$", ("sources",)),
    "validation-plot": _Stage(r"_phot\.png$", ("validation",)),
    "picture-of-stack": _Stage(r"\.png$", ()),
    "picture-of-extended": _Stage(r"_ext\.png$", ()),
    "colour-picture": _Stage(r"\.png$", ()),
    "mean-psf": _Stage(r"_mean_psf\.fits$", ()),
    "compressed-copy": _Stage(r"^compressed/", ("release",), ("astropy",)),
}  # fmt: skip


def _refs(value: Any) -> Iterator[tuple[str, str]]:
    """Path and digest of every file that a recorded result names."""
    if isinstance(value, dict):
        if isinstance(value.get("path"), str) and isinstance(value.get("digest"), str) and "scope" in value:
            yield value["path"], value["digest"]
            return
        for each in value.values():
            yield from _refs(each)
    elif isinstance(value, list):
        for each in value:
            yield from _refs(each)


def _recorded(roots: Roots) -> Iterator[tuple[str, str, Any, float]]:
    """Key, stage, plain result and time of each record of a stage that makes products, oldest first."""
    folder = roots.data / ".cache" / "results"
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        stage = path.name.rpartition("-")[0].lower()
        if stage in _STAGES:
            found.append((path.stat().st_mtime, path, stage))
    for written, path, stage in sorted(found, key=lambda each: (each[0], each[1].name)):
        try:
            record = json.loads(path.read_bytes().partition(b"\n")[0])
            yield path.name, stage, json.loads(record["result"]), written
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s cannot be read and tells nothing of its products: %s", path, error)


class _Step(NamedTuple):
    key: str
    stage: str
    paths: tuple[str, ...]


def _steps(roots: Roots) -> dict[str, _Step]:
    """The step that last made each path."""
    of_path: dict[str, _Step] = {}
    for key, stage, result, _ in _recorded(roots):
        pattern = re.compile(_STAGES[stage].makes)
        paths = tuple(sorted({path for path, _ in _refs(result) if pattern.search(path)}))
        step = _Step(key, stage, paths)
        of_path |= dict.fromkeys(paths, step)
    return of_path


class _Inputs:
    """What a product is made of."""

    def __init__(self, years: Mapping[int, Sequence[FrameRecord]], roots: Roots, telescope: Telescope) -> None:
        self.telescope = telescope
        self.entities: dict[str, Entity] = {}
        self.records = {}
        for record in (record for records in years.values() for record in records):
            if record.published is not None:
                self.records[record.published.path] = record
        self.by_label = {record.raw.label: path for path, record in self.records.items()}
        self.catalogues = self._catalogues(roots)

    def _catalogues(self, roots: Roots) -> list[str]:
        found = []
        for path in sorted((roots.data / "catalogs").glob("*/*.json")):
            try:
                stored = json.loads(path.read_bytes())
                file = stored["file"]
                entity = Entity(id=file["path"], kind="catalogue", sha256=file["digest"], location=file["path"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
            self.entities[entity.id] = entity
            found.append(entity.id)
        return found

    def raw(self, record: FrameRecord) -> str:
        """The raw frame of a record."""
        name = f"raw:{record.raw.path}"
        self.entities[name] = Entity(
            id=name, kind="raw frame", sha256=record.raw.digest, location=f"RAW_ROOT/{record.raw.path}"
        )
        return name

    def of(self, path: str, labels: Mapping[str, tuple[str, ...]], present: Mapping[str, str]) -> set[str]:
        """Paths and entities that a product is made of; `present`: products by digest and by path."""
        if path in self.records:
            record = self.records[path]
            reduced = record.reduced
            digests = (reduced.bias, reduced.flat) if reduced is not None else ()
            masters = [present[each] for each in digests if each is not None and each in present]
            return {self.raw(record), *masters}
        if path.startswith(f"{COMPRESSED}/"):
            image = image_of(path)
            # What an image lost is measured where it has data.
            sky = image in labels or image.removesuffix("_ext.fits") + ".fits" in labels
            return {image, weight_of(image)} if sky else {image}
        if path.endswith(".psf") or path.endswith(".head"):
            frame = re.sub(r"/psf/", "/reduced/", path)
            frame = re.sub(r"\.(psf|head)$", ".fits", frame)
            return {frame} if frame in self.records else set()
        folder = "/".join(path.split("/")[:3])
        stem = path.rpartition("/")[2]
        own = {image for image in labels if image.startswith(f"{folder}/")}
        if re.search(r"_cat\.(fits|parquet)$", stem):
            beside = {each.replace(".fits", ending) for each in own for ending in (".weight.fits", "_psf.fits")}
            return own | {each for each in beside if each in present} | set(self.catalogues)
        for image in own:
            start = image.rpartition("/")[2].removesuffix(".fits")
            if stem in (f"{start}.fits", f"{start}.weight.fits", f"{start}_ext.fits"):
                frames = {self.by_label[label] for label in labels[image] if label in self.by_label}
                heads = {frame.removesuffix(".fits") + ".head" for frame in frames}
                return frames | {head for head in heads if head in present}
            if stem.startswith(f"{start}_") or stem == f"{start}.png":
                return {image}
        if stem.endswith("_rgb.png"):
            return own
        if stem.endswith("_mean_psf.fits"):
            return {each for each in present if each.endswith(".psf")}
        return set()


def _labels(roots: Roots) -> dict[str, tuple[str, ...]]:
    """Of each stack on record, the frames in it."""
    found: dict[str, tuple[str, ...]] = {}
    for _, stage, result, _ in _recorded(roots):
        if stage != "finish-stack":
            continue
        data = result.get("data", {}) if isinstance(result, dict) else {}
        image = data.get("image", {})
        image = image.get("data", image)
        if isinstance(image.get("path"), str):
            found[image["path"]] = tuple(data.get("inputs", ()))
    return found


def _made_by(steps: Mapping[str, _Step]) -> dict[str, str]:
    return {path: step.key for path, step in steps.items()}


def gather_provenance(
    roots: Roots,
    telescope: Telescope,
    settings: Settings,
    software: Mapping[str, str],
    years: Mapping[int, Sequence[FrameRecord]],
) -> Provenance:
    """Every product of a release with its digest, and what made it of what.

    Parameters
    ----------
    roots, telescope
        Whose products.
    settings
        Of the run; each activity names the sections that it depends on.
    software
        Name and version, of ourselves, the libraries and the tools.
    years
        Records of the years' science frames: they know raw frames and masters.

    Returns
    -------
    Provenance
        What no record tells is said in its notes.

    Raises
    ------
    OSError
        If a product cannot be read.
    """
    steps = _steps(roots)
    products = list_products(telescope, roots, _made_by(steps))
    inputs, labels = _Inputs(years, roots, telescope), _labels(roots)
    present = {product.path: product.path for product in products}
    present |= {product.sha256: product.path for product in products}
    made = {line.key: line for line in read_made(roots)}
    of_step: dict[str, list[Product]] = defaultdict(list)
    for product in products:
        if product.was_generated_by is not None:
            of_step[product.was_generated_by].append(product)
    stages = {step.key: step.stage for step in steps.values()}
    agents = [Agent(id=name, version=version) for name, version in software.items()]
    known = {agent.id for agent in agents}
    ours = next(iter(software))
    activities = []
    for key in sorted(of_step):
        stage = _STAGES[stages[key]]
        used = {each for product in of_step[key] for each in inputs.of(product.path, labels, present)}
        used -= {product.path for product in of_step[key]}
        agents_of = (ours, *(tool for tool in stage.tools if tool in known))
        activities.append(_activity(key, stages[key], stage, used, made.get(key), agents_of))
    notes = []
    without = sum(product.was_generated_by is None for product in products)
    if without:
        notes.append(f"{without} of {len(products)} products (pages, reports, tables) are written by the flow itself")
    lost = sum(activity.run is None for activity in activities)
    if lost:
        notes.append(f"of {lost} of {len(activities)} activities logs/made.jsonl does not tell the run")
    sections = sorted({name for activity in activities for name in activity.settings})
    used_ids = {each for activity in activities for each in activity.used}
    return Provenance(
        products=products,
        entities=tuple(inputs.entities[name] for name in sorted(inputs.entities) if name in used_ids),
        activities=tuple(activities),
        agents=tuple(agents),
        settings={name: getattr(settings, name).model_dump(mode="json") for name in sections},
        notes=tuple(notes),
    )


def _activity(
    key: str, name: str, stage: _Stage, used: set[str], line: Made | None, agents: tuple[str, ...]
) -> Activity:
    return Activity(
        id=key,
        name=name,
        used=tuple(sorted(used)),
        settings=stage.settings,
        ended=line.at if line else None,
        seconds=line.seconds if line else None,
        run=(line.run or None) if line else None,
        was_associated_with=agents,
    )
