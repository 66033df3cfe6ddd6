"""Where a frame is looked for: near its hints, then in all known fields at once, then blind over the index at hand.

Each step has a limit and leaves a record. The first two look where this run's other frames are; the last over every
index file under the data root, whichever year it was built for, and over installed ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flows._way import Way
from models.astrometry import IndexSet
from models.catalog import Cone
from models.field import Field, FieldCatalogs
from models.frame import FrameFailure, MeasuredFrame, SearchStep, SolvedFrame
from models.run import RunContext
from tasks.astrometry import gathered_index, index_at_hand, installed_index
from tasks.astrometry.tasks import located_frame, solved_frame
from tasks.catalogs import known_names, separation, stored_cones
from tasks.fields import field_at, hinted_fields

__all__ = ["Search"]

_MOST_FIELDS = 5
"""So many fields, the busiest first, are looked at one by one."""


class Search:
    """The search for one frame; done when it is made.

    Parameters
    ----------
    measured
        The frame.
    fields
        Of this run.
    catalogues_of
        Asks for the catalogues of a field that is none of them.

    Attributes
    ----------
    solved, field
        The plate solution and the field it was found in; None: it was not found.
    steps
        What was tried, in order.
    failure
        Why it was not found; pending while a field it may lie in waits for its catalogue.
    """

    def __init__(
        self,
        measured: MeasuredFrame,
        fields: Sequence[FieldCatalogs],
        run: RunContext,
        catalogues_of: Callable[[Field, RunContext], FieldCatalogs],
    ) -> None:
        self._measured, self._run, self._file = measured, run, measured.raw.path
        self._fields = {each.field.name: each for each in fields}
        self._catalogues_of = catalogues_of
        self._tries: list[FrameFailure] = []
        self.solved: SolvedFrame | None = None
        self.field: FieldCatalogs | None = None
        self.steps: list[SearchStep] = []
        self._near_hints()
        limit = run.settings.astrometry.blind_limit_s
        if self.solved is None and limit > 0:
            self._known_fields(limit)
        if self.solved is None and limit > 0:
            self._blind(limit)

    @property
    def failure(self) -> FrameFailure | None:
        """One failure for all places looked at."""
        if self.solved is not None:
            return None
        if not self._tries:
            return _nowhere(self._file)
        first = next((each for each in self._tries if each.pending), self._tries[0])
        first = first.model_copy(update={"file": self._file})
        if len(self._tries) == 1:
            return first
        places = "; ".join(dict.fromkeys(_told(step) for step in self.steps)) or ", ".join(self._fields)
        return first.model_copy(update={"reason": f"looked {places}: {first.reason}"})

    def _usable(self, field: FieldCatalogs) -> bool:
        return field.index is not None and (
            field.gaia is not None or self._run.settings.astrometry.reference == "index"
        )

    def _near_hints(self) -> None:
        raw, settings = self._measured.raw, self._run.settings.astrometry
        fields = [each.field for each in self._fields.values()]
        for hint, place in hinted_fields(raw, fields, self._run.targets, known_names(self._run.roots)):
            field = self._fields[place.name]
            cone = Cone(ra=place.cone.ra, dec=place.cone.dec, radius=settings.search_radius_deg)
            if not self._usable(field):
                self._tries.append(field.failure("gaia") or _nowhere(self._file))
                self._note(hint, place.name, settings.cpu_limit_s, self._tries[-1])
            elif self._solve(field, cone, hint, settings.cpu_limit_s):
                return

    def _known_fields(self, limit: float) -> None:
        """All fields of the run in one look: with their index files together it takes hardly longer than with one."""
        tried = {step.where for step in self.steps}
        others = [each for name, each in self._fields.items() if name not in tried and self._usable(each)]
        index = gathered_index([each.index for each in others if each.index is not None])
        if index is None and others:  # an installed index, which is the same for all: near one field after the other
            settings = self._run.settings.astrometry
            for each in others[:_MOST_FIELDS]:
                cone = Cone(ra=each.field.cone.ra, dec=each.field.cone.dec, radius=settings.search_radius_deg)
                if self._solve(each, cone, "known fields", settings.cpu_limit_s):
                    return
            return
        if index is None:
            waiting = [each.failure("gaia") for name, each in self._fields.items() if name not in tried]
            self._tries += [each for each in waiting if each is not None]
            return
        names = ", ".join(each.field.name for each in others)
        self._look(index, limit, "known fields", names)

    def _blind(self, limit: float) -> None:
        run = self._run
        known = gathered_index([each.index for each in self._fields.values() if each.index is not None])
        others = index_at_hand(run.roots, without=known)
        if others is not None:
            self._look(others, limit, "blind", f"{len(others.files)} more index files under the data root")
        folder = run.settings.astrometry_index_dir
        if self.solved is None and folder is not None:
            way = Way(self._file, run.roots)
            installed = way.step(installed_index, folder)
            self._tries += way.failures
            if installed is not None:
                self._look(installed, limit, "blind", "the installed index files")

    def _look(self, index: IndexSet, limit: float, step: str, where: str) -> None:
        run, way = self._run, Way(self._file, self._run.roots)
        found = way.step(located_frame, self._measured, index, limit, run.roots, run.telescope, run.settings.astrometry)
        if found is None:
            self._tries += way.failures
            self._note(step, where, limit, way.failures[-1])
            return
        field = self._field_around(found)
        if not self._usable(field):
            self._tries.append(field.failure("gaia") or _nowhere(self._file))
            self._note(step, where, limit, self._tries[-1])
            return
        self._solve(field, found, step, limit, where)

    def _field_around(self, place: Cone) -> FieldCatalogs:
        """The field whose catalogues cover a frame; where there is none, they are asked for."""
        covering = [
            (apart, each.field.name)
            for each in self._fields.values()
            if (apart := float(separation(place.ra, place.dec, each.field.cone.ra, each.field.cone.dec))) + place.radius
            <= each.field.cone.radius
        ]
        if covering:
            return self._fields[min(covering)[1]]
        run = self._run
        known = [stored.cone for stored in stored_cones("gaia", run.roots)]
        new = field_at(place.ra, place.dec, run.telescope, run.settings.astrometry, known)
        return self._catalogues_of(new, run)

    def _solve(self, field: FieldCatalogs, hint: Cone, step: str, limit: float, where: str = "") -> bool:
        run, way = self._run, Way(self._file, self._run.roots)
        assert field.index is not None
        solved = way.step(
            solved_frame, self._measured, hint, field.index, field.gaia, run.roots, run.telescope,
            run.settings.astrometry,
        )  # fmt: skip
        self._note(step, where or field.field.name, limit, None if solved is not None else way.failures[-1])
        if solved is None:
            self._tries += way.failures
            return False
        self.solved, self.field = solved, field
        return True

    def _note(self, step: str, where: str, limit: float, failure: FrameFailure | None) -> None:
        reason = f"{failure.stage}: {failure.reason}" if failure is not None else ""
        self.steps.append(
            SearchStep.model_validate(
                {"step": step, "where": where, "limit_s": limit, "found": failure is None, "reason": reason}
            )
        )


def _told(step: SearchStep) -> str:
    if step.step == "header":
        return f"near the header's position ({step.where})"
    if step.step == "name":
        return f"where OBJECT says ({step.where})"
    return f"in {step.where}" if step.step == "known fields" else f"over {step.where}"


def _nowhere(file: str) -> FrameFailure:
    return FrameFailure(
        file=file,
        stage="plate solution",
        reason="neither the header's position nor OBJECT says where to look, and no field is known",
        remedy="name the target in targets.toml, or set OHP_ASTROMETRY_INDEX_DIR to index files of the whole sky",
    )
