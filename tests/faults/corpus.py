"""Damaged inputs, made from valid frames: a seeded corpus of named kinds.

Each `Damage` writes one file (or something that looks like one) beside the good frames. What it does to the name is
part of it. Nothing here knows how the pipeline reads files.
"""

from __future__ import annotations

import gzip
import math
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from scipy import ndimage

__all__ = ["Damage", "Originals", "corpus", "write_corpus"]

BLOCK = 2880
Image = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Originals:
    """Valid raw files that are damaged."""

    science: tuple[Path, ...]
    other_field: tuple[Path, ...]
    flat: Path
    bias: Path


@dataclass(frozen=True)
class Damage:
    """One damaged input.

    Attributes
    ----------
    kind
        Class it belongs to.
    what
        What was done, in words.
    name
        Of the file, relative to its folder.
    write
        Writes it at a path.
    """

    kind: str
    what: str
    name: str
    write: Callable[[Path], None]


class _Raw:
    """A valid file in parts that can be taken apart."""

    def __init__(self, whole: bytes, draw: random.Random) -> None:
        self.whole = whole
        self.end = _header_length(whole)
        self.header = fits.Header.fromstring(whole[: self.end].decode("ascii"))
        self.shape = int(self.header["NAXIS2"]), int(self.header["NAXIS1"])
        self.draw = draw

    @property
    def values(self) -> Image:
        """The pixels, ADU."""
        ny, nx = self.shape
        return np.frombuffer(self.whole, ">i2", ny * nx, self.end).astype(float).reshape(self.shape) + 32768

    def card(self, keyword: str, value: str | None) -> bytes:
        """The file with the text of a card's value replaced; None: without the card."""
        cards = [self.whole[at : at + 80] for at in range(0, self.end, 80)]
        last = next(i for i, card in enumerate(cards) if card.startswith(b"END "))
        kept = []
        for card in cards[:last]:
            if card[:8].rstrip() == keyword.encode():
                if value is None:
                    continue
                card = f"{keyword:8}= {value}".encode()[:80].ljust(80)
            kept.append(card)
        return self.joined(kept)

    def added(self, *cards: str) -> bytes:
        """The file with cards more before END."""
        old = [self.whole[at : at + 80] for at in range(0, self.end, 80)]
        last = next(i for i, card in enumerate(old) if card.startswith(b"END "))
        return self.joined(old[:last] + [card.encode("utf-8")[:80].ljust(80) for card in cards])

    def joined(self, cards: list[bytes]) -> bytes:
        head = b"".join(cards) + b"END".ljust(80)
        return head.ljust(math.ceil(len(head) / BLOCK) * BLOCK) + self.whole[self.end :]

    def when(self, seconds: float) -> str:
        """Another start of the exposure: a copy in all but the pixels would be seen as such."""
        stamp = str(self.header["DATE-OBS"])
        hours, minutes, rest = stamp[11:].split(":")
        later = (int(hours) * 3600 + int(minutes) * 60 + float(rest) + seconds) % 86400
        return f"'{stamp[:11]}{int(later // 3600):02d}:{int(later // 60 % 60):02d}:{later % 60:06.3f}'"

    def pixels(self, change: Callable[[Image], Image]) -> bytes:
        """The file with other pixel values (ADU), taken at another time."""
        new = np.clip(change(self.values), 0, 65535) - 32768
        moved = self.card("DATE-OBS", self.when(self.draw.uniform(1, 600)))
        data = np.rint(new).astype(">i2").tobytes()
        return moved[: _header_length(moved)] + data.ljust(math.ceil(len(data) / BLOCK) * BLOCK, b"\0")


def _header_length(whole: bytes) -> int:
    for at in range(0, len(whole), 80):
        if whole[at : at + 8] == b"END     ":
            return math.ceil((at + 80) / BLOCK) * BLOCK
    raise ValueError("no END card")


def _truncated(raw: _Raw) -> Iterator[tuple[str, bytes]]:
    draw, whole, end = raw.draw, raw.whole, raw.end
    places = {
        "in the first card": draw.randrange(1, 80),
        "within a card": draw.randrange(2, 20) * 80 + 37,
        "between two cards": draw.randrange(2, 20) * 80,
        "before END": end - BLOCK + 1,
        "after the header": end,
        "in the first row": end + draw.randrange(1, raw.shape[1]),
        "in the middle of the pixels": end + draw.randrange(raw.shape[1], raw.shape[1] * raw.shape[0]),
        "in the last row": end + 2 * raw.shape[0] * raw.shape[1] - draw.randrange(1, 2 * raw.shape[1]),
        "in the padding": len(whole) - 1,
        "to nothing": 0,
    }
    for what, length in places.items():
        yield f"truncated {what}", whole[:length]


def _bits(raw: _Raw) -> Iterator[tuple[str, bytes]]:
    for where, low, high, count in (
        ("header", 0, raw.end, 1), ("header", 0, raw.end, 40), ("mandatory cards", 0, 480, 3),
        ("pixels", raw.end, len(raw.whole), 1), ("pixels", raw.end, len(raw.whole), 5000),
    ):  # fmt: skip
        damaged = bytearray(raw.whole)
        for _ in range(count):
            damaged[raw.draw.randrange(low, high)] ^= 1 << raw.draw.randrange(8)
        yield f"{count} bits flipped in the {where}", bytes(damaged)


def _blocks(raw: _Raw) -> Iterator[tuple[str, bytes]]:
    whole, n, draw = raw.whole, len(raw.whole) // BLOCK, raw.draw
    parts = [whole[i * BLOCK : (i + 1) * BLOCK] for i in range(n)]
    first_data = raw.end // BLOCK

    def swapped(i: int, j: int) -> bytes:
        new = list(parts)
        new[i], new[j] = new[j], new[i]
        return b"".join(new)

    yield "header and pixels swapped", swapped(0, draw.randrange(first_data, n))
    yield "two blocks of pixels swapped", swapped(*draw.sample(range(first_data, n), 2))
    yield "a block twice", whole + parts[draw.randrange(first_data, n)]
    yield "a block of the pixels missing", b"".join(parts[:first_data] + parts[first_data + 1 :])
    yield "a block of zeros in the header", b"\0" * BLOCK + whole[BLOCK:]
    yield "blocks of zeros for the second half", whole[: len(whole) // 2].ljust(len(whole), b"\0")


def _axes(raw: _Raw) -> Iterator[tuple[str, bytes]]:
    for keyword, value in (
        ("NAXIS", "0"), ("NAXIS", "-1"), ("NAXIS", "1"), ("NAXIS", "3"), ("NAXIS", "999"), ("NAXIS", "2147483648"),
        ("NAXIS", "'two'"), ("NAXIS1", "0"), ("NAXIS1", "-512"), ("NAXIS1", "2147483648"), ("NAXIS1", "4294967297"),
        ("NAXIS2", "1"), ("NAXIS2", "999999999"), ("NAXIS2", "512.5"), ("NAXIS1", "T"),
    ):  # fmt: skip
        yield f"{keyword} = {value}", raw.card(keyword, f"{value:>20}")
    yield "no NAXIS1", raw.card("NAXIS1", None)


def _types(raw: _Raw) -> Iterator[tuple[str, bytes]]:
    for value in ("0", "7", "8", "32", "64", "-16", "-32", "-64", "1000000", "'16'", "16.5"):
        yield f"BITPIX = {value}", raw.card("BITPIX", f"{value:>20}")
    for keyword, values in (
        ("BZERO", ("NaN", "1E300", "-32768", "'zero'", "1E39")),
        ("BSCALE", ("0", "-1", "1E300", "NaN", "Inf", "1E-300", "''")),
    ):
        for value in values:
            yield f"{keyword} = {value}", raw.card(keyword, f"{value:>20}")


def _reals(raw: _Raw) -> Iterator[tuple[str, bytes]]:
    """The same frame in real numbers, as some programs save it, and what no camera counts."""
    scaled = _Raw(_Raw(raw.card("BZERO", None), raw.draw).card("BSCALE", None), raw.draw)
    draw = np.random.default_rng(raw.draw.randrange(2**31))
    values = raw.values.astype(">f4")
    some = draw.random(values.shape)
    for what, image in (
        ("all NaN", np.full_like(values, np.nan)),
        ("half of it NaN", np.where(np.arange(values.shape[1]) < values.shape[1] // 2, values, np.nan)),
        ("a NaN here and there", np.where(some < 1e-3, np.nan, values)),
        ("infinite", np.full_like(values, np.inf)),
        ("infinities here and there", np.where(some < 1e-3, -np.inf, values)),
        ("1e38 everywhere", np.full_like(values, 1e38)),
        ("negative", -values),
    ):
        moved = _Raw(scaled.card("DATE-OBS", raw.when(raw.draw.uniform(1, 600))), raw.draw)
        head = moved.card("BITPIX", f"{-32:>20}")
        data = image.astype(">f4").tobytes()
        yield (
            f"{what} in real numbers",
            head[: _header_length(head)] + data.ljust(-(-len(data) // BLOCK) * BLOCK, b"\0"),
        )


def _cards(raw: _Raw) -> Iterator[tuple[str, bytes]]:
    for keyword in ("SIMPLE", "BITPIX", "DATE-OBS", "EXPTIME", "FILTER", "IMAGETYP", "OBJECT", "XBINNING", "CCD-TEMP"):
        yield f"no {keyword}", raw.card(keyword, None)
    yield "two DATE-OBS", raw.added("DATE-OBS= '2001-01-01T00:00:00'")
    yield "two FILTER", raw.added("FILTER  = 'B'")
    yield "no EXPTIME, no EXPOSURE", _twice(raw, None, "EXPTIME", "EXPOSURE")
    yield "an object with accents", raw.card("OBJECT", "'Nébuleuse de la Chouette'")
    yield "control characters in the object", raw.card("OBJECT", "'M67\x07\x1b[31m\x00'")
    yield "a newline in the observer", raw.card("OBSERVER", "'a\nb'")
    yield "bytes that are no text", raw.card("OBJECT", "'M67'").replace(b"'M67'", b"'M\xff\xfe'", 1)
    yield "a quote that never ends", raw.card("OBJECT", "'M67")
    yield "no equals sign", raw.added("OBSERVERsomebody")
    yield "lower-case keywords", raw.card("FILTER", None).replace(b"OBJECT  =", b"object  =", 1)
    yield "ten thousand cards", raw.added(*[f"HISTORY {i}" for i in range(10_000)])
    yield "CONTINUE without a string", raw.added("CONTINUE  'and so on&'")
    yield "a card of spaces as keyword", raw.added("        = 5")
    for keyword in ("OBJECT", "FILTER"):
        for text in (
            "..", "../../etc/passwd", "/", "a/b", "$(touch x)", "`id`", "-rf", "@list", "<script>alert(1)</script>",
            "x" * 66, "", " ", "M67; rm -rf ~", "%s%n", "{0}",
        ):  # fmt: skip
            yield f"{keyword} is {text[:12]!r}", raw.card(keyword, f"'{text}'")


def _twice(raw: _Raw, value: str | None, *keywords: str) -> bytes:
    """Several cards changed."""
    for keyword in keywords:
        raw = _Raw(raw.card(keyword, value), raw.draw)
    return raw.whole


def _dates(raw: _Raw) -> Iterator[tuple[str, bytes]]:
    day = str(raw.header["DATE-OBS"])[:10]
    for text in ("2093-03-17T22:00:00", "17/03/2023", f"{day}", f"{day} 22:00:00", f"{day}T22:00:00,52", "22:00:00", "",
                 "0000-00-00T00:00:00", f"{day}T25:61:61", "2023-02-30T00:00:00", "hier soir", f"{day}T22:00:00+01:00",
                 "1858-11-17T00:00:00", f"{day}T22h00", "99999-01-01T00:00:00"):  # fmt: skip
        yield f"DATE-OBS = {text!r}", raw.card("DATE-OBS", f"'{text}'")
    for text in ("LOCAL", "CEST", "TAI"):
        yield f"TIMESYS = {text!r}", raw.added(f"TIMESYS = '{text}'")
    for text in ("45002.9", "NaN", "T"):
        yield f"DATE-OBS = {text}", raw.card("DATE-OBS", f"{text:>20}")


def _exposures(raw: _Raw) -> Iterator[tuple[str, bytes]]:
    for text in ("0", "-60", "NaN", "Inf", "1E9", "1E-9", "'sixty'", "'60 s'", "60,0", "T", "'60'"):
        yield f"EXPTIME = {text}", _twice(raw, f"{text:>20}", "EXPTIME", "EXPOSURE")
    for text in ("0", "-2", "3", "'2x2'", "NaN", "1000000"):
        yield f"binning {text}", _twice(raw, f"{text:>20}", "XBINNING", "YBINNING")
    for text in ("NaN", "-273.16", "400", "'cold'"):
        yield f"CCD-TEMP = {text}", raw.card("CCD-TEMP", f"{text:>20}")


def _exposed(raw: _Raw) -> Iterator[tuple[str, bytes]]:
    rng = np.random.default_rng(raw.draw.randrange(2**31))
    ny, nx = raw.shape
    sky = float(np.median(raw.values))
    y, x = np.mgrid[:ny, :nx]

    def trailed(image: Image) -> Image:
        return np.asarray(ndimage.uniform_filter1d(image, int(rng.integers(25, 60)), axis=int(rng.integers(2))))

    def defocused(image: Image) -> Image:
        radius = int(rng.integers(9, 15))
        dy, dx = np.ogrid[-radius : radius + 1, -radius : radius + 1]
        ring = (dx**2 + dy**2 <= radius**2) & (dx**2 + dy**2 > (radius / 2) ** 2)
        return np.asarray(ndimage.convolve(image - sky, ring / ring.sum()) + sky)

    def moon(image: Image) -> Image:
        return image + 55000 * np.exp(-np.hypot(x - rng.uniform(0, nx), y - rng.uniform(0, ny)) / (0.4 * nx))

    made: dict[str, Callable[[Image], Image]] = {
        "all zero": np.zeros_like,
        "all saturated": lambda image: np.full_like(image, 65535),
        "one value": lambda image: np.full_like(image, 1234),
        "noise only": lambda image: rng.normal(sky, 10, image.shape),
        "shutter closed": lambda image: rng.normal(300, 6, image.shape),
        "half read out": lambda image: np.where(y < ny // 2, image, 0),
        "every second row missing": lambda image: np.where(y % 2, image, 0),
        "trailed": trailed,
        "doubled": lambda image: (
            image + np.roll(image, (int(rng.integers(8, 30)), int(rng.integers(8, 30))), (0, 1)) - sky
        ),
        "defocused": defocused,
        "the Moon": moon,
        "upside down": lambda image: image[::-1],
        "mirrored": lambda image: image[:, ::-1],
        "turned by a quarter": lambda image: np.rot90(image),
        "a cloud over half": lambda image: np.where(x < nx // 2, image, (image - sky) * 0.1 + sky),
        "ten thousand cosmic rays": lambda image: np.where(rng.random(image.shape) < 0.04, 30000, image),
    }
    for what, change in made.items():
        yield what, raw.pixels(change)


_BYTES: dict[str, Callable[[_Raw], Iterator[tuple[str, bytes]]]] = {
    "truncated": _truncated,
    "bits flipped": _bits,
    "blocks": _blocks,
    "axes": _axes,
    "number format": _types,
    "real numbers": _reals,
    "cards": _cards,
    "dates": _dates,
    "exposure": _exposures,
    "exposed badly": _exposed,
}


def _strange_names(whole: bytes, draw: random.Random) -> Iterator[tuple[str, str, bytes]]:
    """A valid file under names that hurt: what, name, contents."""
    names = {
        "the longest name": "M67" + "x" * (255 - len("M67.fits")) + ".fits",
        "a path of 300 characters": "/".join(["M67" + "y" * 72] * 4) + "/M67.fits",
        "a newline in the name": "M67\nbad.fits",
        "quotes in the name": "M67 'and' \"so\".fits",
        "a command in the name": "M67$(touch pwned).fits",
        "a backquote in the name": "M67`id`.fits",
        "a leading dash": "-rf.fits",
        "a leading at sign": "@list.fits",
        "a semicolon": "M67;ls.fits",
        "a name that is no UTF-8": os.fsdecode(b"M67\xff\xfe.fits"),
        "only blanks": "   .fits",
        "an extension in brackets": "M67[1].fits",
        "an accent": "Nébuleuse.fits",
        "a pipe": "M67|cat.fits",
        "two dots": "M67..fits",
        "a hidden file": ".M67.fits",
        "percent signs": "M67%s%n%d.fits",
    }
    for what, name in names.items():
        raw = _Raw(whole, draw)
        yield what, name, raw.pixels(lambda image: image + draw.choice((0, 1)))


def _link(target: str, path: Path) -> None:
    path.symlink_to(target)


def _bomb(megabytes: int, whole: bytes, path: Path) -> None:
    """A header that promises little and a stream that does not end."""
    with gzip.open(path, "wb", compresslevel=9) as stream:
        stream.write(whole)
        for _ in range(megabytes):
            stream.write(b"\0" * 1_000_000)


def _endless_header(megabytes: int, path: Path) -> None:
    """A header without END."""
    with gzip.open(path, "wb", compresslevel=9) as stream:
        stream.write("SIMPLE  =                    T".ljust(80).encode())
        for _ in range(megabytes):
            stream.write(b"HISTORY ".ljust(80) * 12_500)


def _extensions(number: int, path: Path) -> None:
    """A primary header without pixels and many small extensions."""
    axes = ("NAXIS   =                    1", "NAXIS1  =                    1")
    kept = ("PCOUNT  =                    0", "GCOUNT  =                    1", "END")
    primary = (
        "SIMPLE  =                    T",
        "BITPIX  =                   16",
        "NAXIS   =                    0",
        "END",
    )
    extension = ("XTENSION= 'IMAGE   '", "BITPIX  =                    8", *axes, *kept)
    one, more = ("".join(card.ljust(80) for card in cards).ljust(BLOCK).encode() for cards in (primary, extension))
    path.write_bytes(one + (more + bytes(BLOCK)) * number)


def _unreadable(whole: bytes, path: Path) -> None:
    path.write_bytes(whole)
    path.chmod(0)


def _folder(path: Path) -> None:
    path.mkdir()


def _containers(whole: bytes) -> Iterator[tuple[str, str, Callable[[Path], None]]]:
    yield "a FIFO", "fifo.fits", os.mkfifo
    yield "a folder with a frame's name", "folder.fits", _folder
    yield "a link out of the tree", "passwd.fits", partial(_link, "/etc/passwd")
    yield "a link to a folder out of the tree", "etc", partial(_link, "/etc")
    yield "a link to itself", "self.fits", partial(_link, "self.fits")
    yield "a link to its own folder", "circle", partial(_link, ".")
    yield "a link to its parent", "parent", partial(_link, "..")
    yield "a link to nothing", "nothing.fits", partial(_link, "gone.fits")
    yield "a link to a device", "zero.fits", partial(_link, "/dev/zero")
    yield "unreadable", "closed.fits", partial(_unreadable, whole)
    yield "ten thousand extensions", "extensions.fits", partial(_extensions, 10_000)
    yield "a gzip bomb", "bomb.fits.gz", partial(_bomb, 4000, whole)
    yield "a gzip bomb of a header", "header.fits.gz", partial(_endless_header, 2000)
    yield "gzip of half a file", "half.fits.gz", lambda path: path.write_bytes(gzip.compress(whole)[:5000]) and None
    yield "gzip by name only", "plain.fits.gz", lambda path: path.write_bytes(whole) and None
    yield "gzip without the ending", "packed.fits", lambda path: path.write_bytes(gzip.compress(whole)) and None
    yield "an empty gzip", "empty.fits.gz", lambda path: path.write_bytes(gzip.compress(b"")) and None
    yield "a text", "notes.fits", lambda path: path.write_text("Seeing was bad, went to bed.\n") and None
    yield "HTML", "page.fits", lambda path: path.write_text("<html><body>503</body></html>") and None
    yield "a JPEG", "preview.fits", lambda path: path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(5000)) and None


def _calibration(originals: Originals, draw: random.Random) -> Iterator[tuple[str, bytes]]:
    flat, bias = _Raw(originals.flat.read_bytes(), draw), _Raw(originals.bias.read_bytes(), draw)
    ny, nx = flat.shape
    y, x = np.mgrid[:ny, :nx]
    yield "a flat with a cloud", flat.pixels(lambda im: im * (0.6 + 0.4 * np.sin(x / nx * 5) * np.cos(y / ny * 3)))
    yield "a flat with stars", flat.pixels(lambda im: np.where((x % 97 < 4) & (y % 83 < 4), im + 20000, im))
    yield "a flat of zeros", flat.pixels(np.zeros_like)
    yield "a saturated flat", flat.pixels(lambda im: np.full_like(im, 65535))
    yield "half a flat", flat.pixels(lambda im: np.where(y < ny // 2, im, 0))
    yield "a bias with light", bias.pixels(lambda im: im + 4000 * np.exp(-np.hypot(x - nx / 3, y) / nx))
    yield "a bias of zeros", bias.pixels(np.zeros_like)
    yield "a saturated bias", bias.pixels(lambda im: np.full_like(im, 65535))
    yield "a flat called bias", _Raw(flat.card("IMAGETYP", "'Bias Frame'"), draw).pixels(lambda im: im)
    yield "a bias called flat", _Raw(bias.card("IMAGETYP", "'Flat Field'"), draw).pixels(lambda im: im)


def corpus(originals: Originals, number: int, seed: int = 1) -> list[Damage]:
    """At least one of every damage, then more of the seeded ones from other frames until there are `number`."""
    draw = random.Random(seed)
    found: list[Damage] = []

    def add(kind: str, what: str, write: Callable[[Path], None], name: str | None = None) -> None:
        # A name that tells nothing: words in it count where the header says nothing.
        found.append(Damage(kind, what, name or f"x{len(found):04d}.fits", write))

    turn = 0
    while turn == 0 or len(found) < number:
        frame = originals.science[turn % len(originals.science)]
        for kind, damages in _BYTES.items():
            raw = _Raw(frame.read_bytes(), draw)
            moved = _Raw(raw.card("DATE-OBS", raw.when(draw.uniform(1, 600))), draw)
            for what, contents in damages(moved):
                add(kind, what, partial(_write, contents))
        for what, contents in _calibration(originals, draw):
            add("calibration", what, partial(_write, contents))
        if turn == 0:
            whole = frame.read_bytes()
            for what, name, contents in _strange_names(whole, draw):
                add("names", what, partial(_write, contents), name)
            for what, name, write in _containers(whole):
                add("containers", what, write, name)
        for other in originals.other_field[turn : turn + 1]:
            raw = _Raw(other.read_bytes(), draw)
            add("exposed badly", "another field under this name", partial(_write, raw.card("OBJECT", "'M67'")))
        turn += 1
    return found


def _write(contents: bytes, path: Path) -> None:
    path.write_bytes(contents)


def write_corpus(damages: list[Damage], folder: Path) -> None:
    """Write them; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for damage in damages:
        path = folder / damage.name
        path.parent.mkdir(parents=True, exist_ok=True)
        damage.write(path)
