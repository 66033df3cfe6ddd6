"""The tile-compressed copy of a release's images, as far as it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from flows._progress import RunProgress
from flows._way import as_failure
from models.base import FileRef
from models.frame import FrameFailure
from models.provenance import Product
from models.release import COMPRESSED, CompressedImage
from models.run import RunContext
from tasks.archive import copy_of, list_products, weight_of
from tasks.archive.tasks import compressed_copy
from tasks.core.records import recording

__all__ = ["compress_group", "compress_release"]

_KINDS = ("stack", "extended stack", "weight", "map", "stack psf")


def _ref(product: Product) -> FileRef:
    return FileRef(path=product.path, digest=product.sha256)


def _compress(products: Sequence[Product], run: RunContext, progress: RunProgress) -> list[FrameFailure]:
    images = {each.path: each for each in products if each.kind in _KINDS}
    calls = []
    for path, product in images.items():
        weight = images.get(weight_of(path)) if product.kind in ("stack", "extended stack") else None
        calls.append((_ref(product), _ref(weight) if weight else None, copy_of(path), run.roots, run.settings.release))
    results = progress.each("compressed copy", compressed_copy, calls)
    return [
        as_failure(result, call[2], "compressed copy", run.roots) if isinstance(result, BaseException) else result
        for call, result in zip(calls, results, strict=True)
        if not isinstance(result, CompressedImage)
    ]


def compress_group(group: str, run: RunContext, progress: RunProgress) -> list[FrameFailure]:
    """Compress the images beside a group's stacks, before its page is written, which links to the copies.

    Nothing is done without the setting.
    """
    if not run.settings.release.compressed:
        return []
    return _compress(list_products(run.telescope, run.roots, group=group), run, progress)


def compress_release(run: RunContext) -> list[FrameFailure]:
    """Compress every image of the stacks anew that has changed; what could not be is returned.

    Copies of images that are no more go. Without the setting nothing is done: what an earlier run made stays, and is
    of the release as long as its image is the same.
    """
    if not run.settings.release.compressed:
        return []
    products = list_products(run.telescope, run.roots)
    title = f"compressed copy {run.telescope.name}"
    with recording(run.roots, run.refresh, run.started), RunProgress(title, title) as progress:
        failures = _compress(products, run, progress)
    wanted = {run.roots.data / copy_of(each.path) for each in products if each.kind in _KINDS}
    for old in (run.roots.data / COMPRESSED).glob(f"*/{run.telescope.name}/*.fits.fz"):
        if old not in wanted:
            old.unlink()
    return failures
