"""`inspection.json`: written and read back, and content that nothing here writes is refused."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from tl_keras.errors import DamagedError
from tl_keras.results.inspection_record import INSPECTION, Inspection, SuspectedLabel, read_inspection, write_inspection

PHOTO = np.linspace(0, 255, 200 * 300 * 3).reshape(200, 300, 3).astype(np.uint8)
FOUND = Inspection(
    suspected_labels=(SuspectedLabel("cat/7 é.png", "cat", "dog", 0.97, PHOTO),),
    near_duplicates=(("cat/1.png", "cat/8.png", 0.98),),
    corrupt=(("cat/3.png", "no image"),),
    copies=(("a.png", "b.png", "c.png"),),
    notes=("12 images are small",),
)


def test_findings_are_read_back_with_small_thumbnails(tmp_path):
    assert read_inspection(tmp_path) is None
    write_inspection(tmp_path, FOUND)
    found = read_inspection(tmp_path)
    lists = ("near_duplicates", "corrupt", "copies", "notes")
    assert all(getattr(found, name) == getattr(FOUND, name) for name in lists)
    (suspect,) = found.suspected_labels
    assert (suspect.file, suspect.label, suspect.suggested, suspect.confidence) == ("cat/7 é.png", "cat", "dog", 0.97)
    assert suspect.thumbnail.shape == (64, 96, 3) and suspect.thumbnail.dtype == np.uint8
    assert abs(suspect.thumbnail.astype(int).mean() - PHOTO.mean()) < 3


def image(size, kind="JPEG"):
    file = io.BytesIO()
    Image.effect_noise(size, 80).convert("RGB").save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def suspect_with(**changes):
    return lambda record: record["suspected_labels"][0].update(changes)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("notes"),
        lambda record: record.update(notes=["x" * 5_000_000]),
        lambda record: record.update(near_duplicates=[["a", "b", float("nan")]]),
        lambda record: record.update(corrupt=[["a"]]),
        lambda record: record.update(suspected_labels=["a"]),
        suspect_with(confidence="high"),
        suspect_with(thumbnail="<svg onload=alert(1)>"),
        suspect_with(thumbnail=image((40, 40), "PNG")),
        suspect_with(thumbnail=image((40, 40))[:200]),
        suspect_with(thumbnail=image((300, 10))),
        suspect_with(thumbnail=image((250, 250))),
        suspect_with(thumbnail=None),
    ],
    ids=["key", "size", "nan", "pair", "record", "number", "text", "png", "truncated", "wide", "bytes", "none"],
)
def test_content_that_nothing_writes_is_refused(tmp_path, change):
    write_inspection(tmp_path, FOUND)
    record = json.loads((tmp_path / INSPECTION).read_text())
    change(record)
    (tmp_path / INSPECTION).write_text(json.dumps(record))
    with pytest.raises(DamagedError, match=r"inspection\.json is not a record of an inspection.*Delete it"):
        read_inspection(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "3", "{", "[" * 100_000])
def test_a_file_that_is_no_record_is_refused(tmp_path, content):
    (tmp_path / INSPECTION).write_text(content)
    with pytest.raises(DamagedError, match=r"inspection\.json"):
        read_inspection(tmp_path)
