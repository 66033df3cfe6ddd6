"""The tile-compressed copy of a release's images, as far as it is asked for."""

from __future__ import annotations

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

__all__ = ["compress_release"]

_KINDS = ("stack", "extended stack", "weight", "map", "stack psf")


def _ref(product: Product) -> FileRef:
    return FileRef(path=product.path, digest=product.sha256)


def compress_release(run: RunContext) -> list[FrameFailure]:
    """Compress every image of the stacks anew that has changed; what could not be is returned.

    Copies of images that are no more go. Without the setting nothing is done: what an earlier run made stays, and is
    of the release as long as its image is the same.
    """
    settings = run.settings.release
    if not settings.compressed:
        return []
    products = {each.path: each for each in list_products(run.telescope, run.roots) if each.kind in _KINDS}
    calls = []
    for path, product in products.items():
        weight = products.get(weight_of(path)) if product.kind in ("stack", "extended stack") else None
        calls.append((_ref(product), _ref(weight) if weight else None, copy_of(path), run.roots, settings))
    title = f"compressed copy {run.telescope.name}"
    with recording(run.roots, run.refresh, run.started), RunProgress(title, title) as progress:
        results = progress.each("compressed copy", compressed_copy, calls)
    wanted = {run.roots.data / call[2] for call in calls}
    for old in (run.roots.data / COMPRESSED).glob(f"*/{run.telescope.name}/*.fits.fz"):
        if old not in wanted:
            old.unlink()
    return [
        as_failure(result, call[2], "compressed copy", run.roots) if isinstance(result, BaseException) else result
        for call, result in zip(calls, results, strict=True)
        if not isinstance(result, CompressedImage)
    ]
