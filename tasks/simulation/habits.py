"""How each year's observers named, sorted and labelled their files (from the archive's 2617 headers)."""

from __future__ import annotations

from typing import Literal

from models.base import Record

__all__ = ["HABITS", "Habit", "T080_HABIT", "habit_of", "moved"]


class Habit(Record):
    """A year's habits. Templates know ``object night date n tag exp`` (date: YYYY-MM-DD)."""

    year: int
    nights: tuple[str, ...]
    filters: dict[str, tuple[str, str]]
    used: tuple[str, ...]
    objects: dict[str, str]
    science: str
    bias: str
    flat: str
    bias_object: str
    flat_object: str
    flat_type: str
    positions: dict[str, bool]
    calibration_positions: bool
    temperature: float
    software: str
    airmass: Literal["right", "wrong for calibration", "absent"] = "right"
    calibration_night: int = 0


_MAXIM5, _MAXIM6 = "MaxIm DL Version 5.24 130909 1H0GA", "MaxIm DL Version 6.16 190822 1H0GA"

HABITS = {
    habit.year: habit
    for habit in (
        Habit(
            year=2018, nights=("20180107", "20180109"), used=("B", "V", "R", "i", "Ha"),
            filters={"B": ("B_Cousins", "B"), "V": ("V_Cousins", "V"), "R": ("R_Cousins", "R"), "g": ("g_Gunn", "g"),
                     "r": ("r_Gunn", "r"), "i": ("i_Gunn", "i"), "Ha": ("H_alpha", "Ha")},
            objects={"M51": "M51", "M67": "M67"},
            science="201801OHP_M2/DATA/OHP_T120_{night}/{object}-{n:03d}{tag}.fit",
            bias="201801OHP_M2/DATA/OHP_T120_{night}/Bias-{n:03d}R.fit", bias_object="Bias",
            flat="201801OHP_M2/DATA/OHP_T120_{night}/Flat_{tag}-{n:03d}{tag}.fit", flat_object="Flat_{tag}",
            flat_type="Flat Field", positions={"M51": True, "M67": True}, calibration_positions=True,
            temperature=-59.5, software=_MAXIM5,
        ),
        Habit(
            year=2019, nights=("20190106", "20190107"), used=("B", "r", "i", "Ha"),
            filters={"B": ("B Cousins", "B"), "V": ("V Cousins", "V"), "R": ("R Cousins", "R"), "g": ("g Gunn", "g"),
                     "r": ("r Gunn", "r"), "i": ("i Gunn", "i"), "Ha": ("H alpha OHP", "Ha")},
            objects={"M51": "Tourbillon", "M67": "NGC_2682_{exp}sec"},
            science="201901OHP_M2/DATA/OHP_T120_20190106/{date}-Imagerie/{object}-{n:03d}{tag}.fit",
            bias="201901OHP_M2/DATA/OHP_T120_20190106/OFFSET120-nuit1/offset-{n:03d}.fit", bias_object="offset",
            flat="201901OHP_M2/DATA/OHP_T120_20190106/Calibrations_2019/Flat_{tag}-{n:03d}{tag}.fit",
            flat_object="Flat_{tag}", flat_type="Light Frame", positions={"M51": True, "M67": True},
            calibration_positions=True, temperature=-59.6, software=_MAXIM5, airmass="wrong for calibration",
        ),
        Habit(
            year=2020, nights=("20200302", "20200305"), used=("V", "g", "r", "i"),
            filters={"B": ("B_Cousins", "B"), "V": ("v_Gunn", "V"), "R": ("R_Cousins", "Rc"), "g": ("g_Gunn", "G"),
                     "r": ("r_Gunn", "R"), "i": ("i_Gunn", "I"), "Ha": ("Halpha_OHP", "Ha")},
            objects={"M51": "M51_{exp}s", "M67": "M67_{exp}s"},
            science="202003OHP_M2/DATA/T120/{date}-M2AAIS/{object}-{n:04d}{tag}.fit",
            bias="202003OHP_M2/DATA/T120/calibration/bias/Bias-{n:04d}.fit", bias_object="Bias",
            flat="202003OHP_M2/DATA/T120/{date}-M2AAIS/Calib_Flat_{tag}-{n:04d}.fit", flat_object="Calib_Flat_{tag}",
            flat_type="Flat Field", positions={"M51": False, "M67": False}, calibration_positions=False,
            temperature=-59.5, software=_MAXIM6, airmass="absent",
        ),
        Habit(
            year=2023, nights=("20230314", "20230317"), used=("B", "V", "g", "r", "Ha"),
            filters={"B": ("B_cousins", "B"), "V": ("V_cousins", "V"), "R": ("R_cousins", "R"), "g": ("g", "g"),
                     "r": ("r", "r"), "i": ("i", "i"), "Ha": ("Halpha", "Ha")},
            objects={"M51": "M51", "M67": "M67"},
            science="202303OHP_M2/DATA/T120/{night}/{object}-{n:04d}{tag}_{exp}.fits",
            bias="202303OHP_M2/DATA/T120/{night}/bias-{n:04d}.fits", bias_object="bias",
            flat="202303OHP_M2/DATA/T120/{night}/flat-{n:04d}_{tag}.fits", flat_object="flat",
            flat_type="Light Frame", positions={"M51": True, "M67": False}, calibration_positions=True,
            temperature=-59.4, software=_MAXIM6,
        ),
        Habit(
            year=2025, nights=("20250317", "20250318"), used=("V", "g", "r", "i"),
            filters={"B": ("B", "B"), "V": ("V", "V"), "R": ("R", "R"), "g": ("G", "G"), "r": ("r", "r"),
                     "i": ("I", "I"), "Ha": ("Ha", "Ha")},
            objects={"M51": "M51_", "M67": "M67_"},
            science="202503OHP1_M2/DATA/T120/{night}/{object}-{n:04d}{tag}{exp}.fits",
            bias="202503OHP1_M2/DATA/T120/{night}/Calibration/BIAS-{n:04d}.fits", bias_object="BIAS",
            flat="202503OHP1_M2/DATA/T120/{night}/Calibration/Flat-{n:04d}{tag}.fits", flat_object="M49",
            flat_type="Flat Field", positions={"M51": True, "M67": True}, calibration_positions=True,
            temperature=-60.2, software=_MAXIM6, calibration_night=1,
        ),
    )
}  # fmt: skip
"""Real nights, trees, spellings and labels. M51's and M67's own frames are invented where that year had none."""

T080_HABIT = Habit(
    year=2024, nights=("20240311", "20240313"), used=("g", "r", "Clear"),
    filters={"B": ("B", "B"), "V": ("V", "V"), "R": ("R", "R"), "g": ("g''", "g"), "r": ("r''", "r"),
             "i": ("i''", "i"), "Ha": ("Halpha", "Ha"), "Clear": ("CLEAR", "L")},
    objects={"M51": "M51", "M67": "M67"},
    science="202403OHP_M2/DATA/T080/{night}/{object}-{n:04d}_{tag}.fit",
    bias="202403OHP_M2/DATA/T080/{night}/Bias-{n:04d}.fit", bias_object="Bias",
    flat="202403OHP_M2/DATA/T080/{night}/Flat-{n:04d}_{tag}.fit", flat_object="Flat",
    flat_type="Flat Field", positions={"M51": True, "M67": True}, calibration_positions=False,
    temperature=-25.0, software=_MAXIM6,
)  # fmt: skip
"""The 0.8 m telescope's: its filters' primes as MaxIm writes them, two apostrophes."""


def habit_of(year: int) -> Habit:
    """The habits of a year; of the nearest known one, moved to that year, where there is none."""
    if year in HABITS:
        return HABITS[year]
    return moved(HABITS[min(HABITS, key=lambda known: (abs(known - year), known))], year)


def moved(habit: Habit, year: int) -> Habit:
    """The same habits in another year."""
    there = habit.model_dump()
    for key in ("science", "bias", "flat"):
        there[key] = there[key].replace(str(habit.year), str(year))
    there |= {"year": year, "nights": tuple(night.replace(str(habit.year), str(year)) for night in habit.nights)}
    return Habit.model_validate(there)
