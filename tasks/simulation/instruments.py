"""The telescopes that are simulated: what is different about each, and how its observers name things."""

from __future__ import annotations

from models.base import Record
from models.simulation import SimulationOptions
from tasks.simulation.bands import BANDS, T080_BANDS, Band
from tasks.simulation.camera import READ_NOISE
from tasks.simulation.habits import T080_HABIT, Habit, habit_of, moved

__all__ = ["Instrument", "habit_for", "instrument_of"]


class Instrument(Record):
    """Optics and camera of a telescope."""

    scale: float
    parity: int
    rotation_deg: float
    read_noise: float
    stretch: tuple[float, float] = (0.0, 0.0)
    bands: dict[str, Band]
    cards: tuple[tuple[str, str | float | int | None], ...] = ()


_INSTRUMENTS = {
    "T120": Instrument(scale=0.770, parity=-1, rotation_deg=-90.0, read_noise=READ_NOISE, bands=BANDS),
    "T080": Instrument(
        scale=0.484, parity=1, rotation_deg=136.0, read_noise=11.0, stretch=(0.22, 0.22), bands=T080_BANDS,
        cards=(
            ("SET-TEMP", -25.0), ("XPIXSZ", 18.0), ("YPIXSZ", 18.0), ("FOCALLEN", 7670.0), ("APTDIA", 800.0),
            ("APTAREA", 502654.825), ("INSTRUME", "SBIG STXL-6303 3 CCD Camera"),
        ),
    ),
}  # fmt: skip
"""T080: `parameters.md` of the release; its stars are a third longer than wide (``stretch``: e1, e2 of every frame)."""


def instrument_of(options: SimulationOptions) -> Instrument:
    """The telescope of a campaign."""
    return _INSTRUMENTS[options.telescope]


def habit_for(options: SimulationOptions, year: int) -> Habit:
    """How the observers of a campaign's telescope worked in a year."""
    return habit_of(year) if options.telescope == "T120" else moved(T080_HABIT, year)
