"""Where each product of a release comes from, in the terms of the IVOA Provenance Data Model 1.0."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from models.base import Record, RelativePath

__all__ = ["Activity", "Agent", "Entity", "Product", "Provenance"]

Kind = Literal[
    "stack", "weight", "stack psf", "extended stack", "map", "source list", "coverage", "mean psf", "master bias",
    "master flat", "reduced frame", "frame head", "frame psf", "compressed copy", "plot", "page", "report", "table",
]  # fmt: skip


class Product(Record):
    """A file of the release."""

    path: RelativePath = Field(description="under the data root")
    kind: Kind
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    was_generated_by: str | None = Field(description="id of an activity; null: no record tells")


class Entity(Record):
    """What was used and is no file of the release: a raw frame, a catalogue's answer."""

    id: str
    kind: Literal["raw frame", "catalogue"]
    sha256: str | None
    location: str = Field(description="relative to the raw root, or under the data root")


class Activity(Record):
    """A step that made products."""

    id: str = Field(description="the record's key: a digest of all that the result depends on")
    name: str = Field(description="the stage")
    used: tuple[str, ...] = Field(description="paths of products and ids of entities")
    settings: tuple[str, ...] = Field(description="sections of `Provenance.settings` that it depends on")
    ended: str | None = Field(description="UTC; null: the ledger of runs does not tell")
    seconds: float | None
    run: str | None = Field(description="id of the flow run that made it")
    was_associated_with: tuple[str, ...] = Field(description="ids of agents")


class Agent(Record):
    """Software that did the work."""

    id: str
    type: Literal["SoftwareAgent"] = "SoftwareAgent"
    version: str


class Provenance(Record):
    """All products, what made them, and of what."""

    model: str = "IVOA Provenance Data Model 1.0 (entity, activity, agent; used, wasGeneratedBy, wasAssociatedWith)"
    products: tuple[Product, ...]
    entities: tuple[Entity, ...]
    activities: tuple[Activity, ...]
    agents: tuple[Agent, ...]
    settings: dict[str, dict[str, Any]] = Field(description="of the run that wrote this, by section")
    notes: tuple[str, ...] = ()
