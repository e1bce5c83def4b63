"""Reports from made-up results: exact files and values, comparability, and escaping of untrusted text."""

import base64
import csv
import dataclasses
import errno
import hashlib
import io
import json
import math
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image
from report_builder import make_experiment, make_row
from rich.console import Console

from tl_keras import report
from tl_keras.errors import ConfigError, DamagedError, UserError
from tl_keras.report import best_row, document, experiment_results, page, plots, settings_tables, style, tables, text, web_page
from tl_keras.results.inspection_record import Inspection, SuspectedLabel, write_inspection
from tl_keras.results.metrics import SCALAR_METRICS
from tl_keras.results.predictions import IMAGES_PER_CELL, read_predictions
from tl_keras.results.split_record import TEST, SplitRecord, write_split

PLOTS = ["accuracy_against_cost.png", "learning_curves.png", "confusion_matrix.png", "reliability.png", "mistakes.jpg"]
FEW = 200  # test images, where values do not matter
pytestmark = pytest.mark.usefixtures("low_resolution")


@pytest.fixture
def no_plots(monkeypatch):
    """Reports without plots, which take most of the time."""
    monkeypatch.setattr(plots, "write_plots", lambda results, directory: [])


def rendered(results, width=200):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(tables.terminal_table(results))
    return console.export_text()


def test_a_report_writes_exactly_these_files(tmp_path):
    results = make_experiment(tmp_path, num_test=FEW)
    runs = {path.name for path in tmp_path.iterdir()}
    written = report.write_report(results, tmp_path)
    names = ["report.md", "report.html", "results.csv", "accuracy_against_fraction.png", *PLOTS]
    assert [path.name for path in written] == names
    assert {path.name for path in tmp_path.iterdir()} == runs | set(names) and "experiment.json" in runs


def test_equal_results_give_identical_files(tmp_path):
    results = make_experiment(tmp_path, seeds=(0, 1), num_test=FEW)
    first = [path.read_bytes() for path in report.write_report(results, tmp_path)]
    again = report.load_experiment(tmp_path / report.EXPERIMENT_FILE)
    assert again == results
    assert [path.read_bytes() for path in report.write_report(again, tmp_path)] == first


def test_table_with_one_seed_has_wilsons_interval_and_the_difference(tmp_path):
    results = make_experiment(tmp_path)
    table = tables.make_table(results, tables.COLUMNS)
    assert table.headings == list(tables.COLUMNS)
    # 8342 of 10,000: Wilson's interval is 82.68 to 84.14.
    assert table.rows[0] == ["pre-trained, 10 %", "5,000", "83.42 [82.68, 84.14]", "82.99", "+0.43", "57,044,810", "6 min 7 s"]
    assert table.rows[3][3:5] == ["12.89", "-2.58"]
    shown = rendered(results)
    assert "83.42 [82.68, 84.14]" in shown and "+0.43" in shown and "EMBEDDED" not in shown


def test_table_with_three_seeds_has_students_interval_of_the_mean(tmp_path):
    results = make_experiment(tmp_path, seeds=(0, 1, 2))
    # 83.42, 83.82, 84.22: mean 83.82, standard deviation 0.40; 4.303 * 0.40 / sqrt(3) = 0.99.
    assert tables.make_table(results, tables.COLUMNS).rows[0][2:5] == ["83.82 ± 0.99", "82.99", "+0.83"]
    further = tables.make_table(results, tables.FURTHER_COLUMNS)
    assert further.rows[0][further.headings.index("std over seeds (points)")] == "0.40"
    assert "seeds 0, 1, 2" in tables.table_caption(results) and "Student" in tables.table_caption(results)


def test_caption_has_data_model_and_hardware(tmp_path):
    caption = tables.table_caption(make_experiment(tmp_path))
    for fact in ("cifar10", "n train 5,000 to 25,000", "n test 10,000", "seed 0", "10 epochs", "224 px", "mixed_bfloat16", "NVIDIA H200"):
        assert fact in caption


def test_caption_lists_settings_that_differ_from_the_source_report(tmp_path):
    results = make_experiment(tmp_path)
    assert "differ from the source" not in tables.table_caption(results) and "paper profile" in tables.table_caption(results)
    other = dataclasses.replace(results, changed_settings=("backbone resnet18", "epochs 6"))
    consequence = "; the difference is not a test of reproduction. "
    assert tables.table_caption(other).startswith(f"Settings differ from the source report: backbone resnet18, epochs 6{consequence}")
    quick = dataclasses.replace(other, profile="quick")
    expected = f"Quick profile: settings differ from the source report: backbone resnet18, epochs 6{consequence}"
    assert tables.table_caption(quick).startswith(expected) and "paper profile" not in tables.table_caption(quick)
    assert expected in page_of(quick)
    assert "differ from the source" not in tables.table_caption(dataclasses.replace(results, embedded=True))


def page_of(results):
    return document.to_markdown(page.experiment_blocks(results, page.Path(), set()), page.Path())


@pytest.mark.parametrize("key", experiment_results.CAVEATS)
def test_results_that_are_not_comparable_have_the_caveat_everywhere_and_no_difference(tmp_path, no_plots, key, capsys):
    results = make_experiment(tmp_path, num_test=FEW, **{key: True})
    caveat = experiment_results.CAVEATS[key]
    report.write_report(results, tmp_path)
    for name in ("report.md", "report.html"):
        assert (tmp_path / name).read_text().count(caveat) == 3  # headline, caption, and how to read the report
    assert "(82.99) | – |" in (tmp_path / "report.md").read_text()
    assert caveat in rendered(results) and "(82.99)" in rendered(results)
    lines = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert {line["difference_accuracy"] for line in lines} == {""}
    print(report.describe_result(results.runs[0].result, tmp_path))
    assert caveat in capsys.readouterr().out


PLOTS_BY_FILE = {plot.file: plot for plot in (*plots.ROW_PLOTS, *plots.BEST_ROW_PLOTS)}
LONG = "augmentation (flip, rotation 20 degrees, colour jitter) of all training images"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Return results by their number of rows: 6 with fractions, 2 with a fallback, and 18 with long names and two seeds."""
    directory = tmp_path_factory.mktemp("shapes")
    many = [
        make_row(f"group {i}", None, f"{LONG} {i}", fallbacks=("a, b",) * (i % 2), published={"test accuracy": 70.0}) for i in range(18)
    ]
    few = [make_row("one", None, "head"), make_row("two", None, "full $x$", fallbacks=("random weights for imagenet",))]
    settings = {"num_test": FEW, "class_names": [f"{LONG} {i}" for i in range(37)]}
    return {
        6: make_experiment(directory / "6", num_test=FEW),
        2: make_experiment(directory / "2", few, num_test=FEW, class_names=["a", "b"]),
        18: make_experiment(directory / "18", many, seeds=(0, 1), changed_settings=["epochs 6"] * 30, **settings),
    }


@pytest.mark.parametrize(("num_rows", "has_caveat"), [(2, False), (6, True), (18, True)])
@pytest.mark.parametrize("file", PLOTS_BY_FILE)
def test_plots_have_a_white_margin_and_the_caveat(tmp_path, monkeypatch, shapes, file, num_rows, has_caveat):
    """Nothing is cut off: the outermost pixels are white."""
    monkeypatch.undo()  # full resolution
    results, plot = dataclasses.replace(shapes[num_rows], embedded=has_caveat), PLOTS_BY_FILE[file]
    if not plot.applies(results):
        pytest.skip("another plot shows these rows")
    image = imread(plot.draw(results, tmp_path / file))[..., :3]
    image = image if image.dtype == np.uint8 else (255 * image).round().astype(np.uint8)
    assert image.shape[1] >= 900
    for edge in (image[:4], image[-4:], image[:, :4], image[:, -4:]):
        assert (edge >= 250).all()
    assert (image < 128).any() and (count_red(image) > 300) == has_caveat


def count_red(image):
    """Return the number of pixels in the colour of the caveat, within the tolerance of palettes and JPEG."""
    colour = [int(style.CAVEAT_COLOUR[start : start + 2], 16) for start in (1, 3, 5)]
    return int((abs(image.astype(int) - colour) < 24).all(axis=-1).sum())


def test_rows_without_fractions_are_plotted_row_by_row(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "BEST_ROW_PLOTS", ())
    rows = [make_row(name, None, name) for name in ("head", "last:1", "last:2", "full")]
    (tmp_path / "accuracy_against_fraction.png").write_bytes(b"of an earlier report")
    written = report.write_report(make_experiment(tmp_path, rows, num_test=FEW), tmp_path)
    assert [path.name for path in written][3:] == ["accuracy_of_rows.png", *PLOTS[:2]]
    assert "accuracy_against_fraction.png" not in (tmp_path / "report.md").read_text()
    assert not (tmp_path / "accuracy_against_fraction.png").exists()


def test_without_errors_there_is_no_plot_of_errors(tmp_path):
    rows = [make_row("a", None, "a")]
    written = report.write_report(make_experiment(tmp_path, rows, num_test=FEW, accuracies=[1.0]), tmp_path)
    assert "mistakes.jpg" not in {path.name for path in written}


def test_of_many_classes_only_those_with_the_lowest_f1_are_listed(tmp_path, no_plots):
    names = [f"class number {i}" for i in range(60)]
    results = make_experiment(tmp_path, [make_row("a", None, "a")], num_test=600, class_names=names)
    report.write_report(results, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert (
        len([line for line in text.partition("## Misclassified")[0].splitlines() if line.startswith("| class number ")]) == 40 + 12
        and "Only the 40 of 60 classes with the lowest F1 are shown." in text
    )


def test_rows_with_fallbacks_are_marked_and_never_compared(tmp_path, no_plots):
    fallbacks = ("random weights for imagenet", "digits for cifar10")
    rows = [make_row("from scratch", 0.5), make_row("pre-trained", 0.1, fallbacks=fallbacks)]
    results = make_experiment(tmp_path, rows, num_test=FEW)
    assert results.rows[1].fallbacks == fallbacks and results.best_row is results.rows[0]
    assert results.difference(results.rows[0]) is not None and results.difference(results.rows[1]) is None
    cells = tables.make_table(results, tables.COLUMNS).rows
    assert cells[0][0] == "from scratch, 50 %" and cells[0][3] == "51.06"
    assert cells[1][0] == "pre-trained, 10 % †" and cells[1][3:5] == ["(82.99)", "–"]
    report.write_report(results, tmp_path)
    note = "† fallback: random weights for imagenet, digits for cifar10; not compared with the source report"
    assert note in tables.table_caption(results) and note in (tmp_path / "report.html").read_text()
    lines = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [line["fallbacks"] for line in lines] == ["", "random weights for imagenet; digits for cifar10"]
    assert lines[0]["difference_accuracy"] and not lines[1]["difference_accuracy"]


def test_losses_are_compared_and_times_are_not(tmp_path):
    published = {"test accuracy": 79.69, "test loss": 0.6, "seconds": 1423.19, "seconds per epoch": 142.0}
    rows = [make_row("a", None, "a", published=published), make_row("b", None, "b")]
    results = make_experiment(tmp_path, rows, num_test=FEW)
    table = tables.make_table(results, tables.FURTHER_COLUMNS)
    first = dict(zip(table.headings, table.rows[0], strict=True))
    assert (first["published loss (nats)"], first["published seconds"], first["published seconds per epoch"]) == (
        "0.6000",
        "1423.19",
        "142",
    )
    assert float(first["difference (nats)"]) == pytest.approx(float(first["test loss (nats)"]) - 0.6, abs=1e-4)
    assert first["seconds per epoch"] == "36.7" and "std over seeds (points)" not in first
    assert results.difference(results.rows[0], "seconds") is None


RATIOS = {"accuracy difference": -1.0, "parameter ratio": 12.0, "speed ratio": 15.0}


def cells_of(table, row):
    """Return heading -> cell of a row of a table."""
    return dict(zip(table.headings, table.rows[row], strict=True))


def test_rows_are_compared_with_the_reference_row(tmp_path):
    rows = [make_row("a", None, "full"), make_row("b", None, "head", published=RATIOS | {"parameters": 11.7e6})]
    results = make_experiment(tmp_path, rows, seeds=(0, 1), num_test=1000, accuracies=[0.9, 0.85], reference="full")
    full, head = results.rows
    assert results.reference_row(head) is results.reference_row(full) is full
    assert results.value(head, "accuracy difference") == pytest.approx(-5) and results.value(full, "accuracy difference") == 0
    assert results.difference(head, "accuracy difference") == pytest.approx(-4)
    # The rows have 367 and 360 s, and equally many parameters.
    assert results.value(head, "speed ratio") == pytest.approx(367 / 360) and results.value(head, "parameter ratio") == 1
    assert not any(results.difference(head, metric) for metric in ("parameters", "parameter ratio", "speed ratio"))
    assert cells_of(tables.make_table(results, tables.REFERENCE_COLUMNS), 1) == {
        "row": "head",
        "accuracy difference (points)": "-5.00",
        "published accuracy difference (points)": "-1.00",
        "ours minus published (points)": "-4.00",
        "parameter ratio": "1.00",
        "published parameter ratio": "12",
        "speed ratio": "1.02",
        "published speed ratio": "15",
    }
    further = cells_of(tables.make_table(results, tables.FURTHER_COLUMNS), 1)
    assert (further["parameters"], further["published parameters"]) == ("57,044,810", "11,700,000")


def test_parameters_and_times_of_two_rows_give_ratios(tmp_path):
    results = make_experiment(tmp_path, [make_row("a", None, "small"), make_row("b", None, "large")], num_test=FEW, reference="large")
    for run, parameters, seconds in zip(results.runs, (11e6, 132e6), (20.0, 300.0), strict=True):
        run.result["model"]["parameters"], run.result["seconds"]["train"] = parameters, seconds
    small, large = results.rows
    assert results.value(small, "parameter ratio") == 12 and results.value(small, "speed ratio") == 15
    assert results.value(large, "parameter ratio") == results.value(large, "speed ratio") == 1
    results.runs[0].result["seconds"]["train"] = 0.0
    assert results.value(small, "speed ratio") is None


def test_a_line_as_reference_is_its_row_with_the_same_fraction(tmp_path):
    results = make_experiment(tmp_path, reference="from scratch")
    # 8342 and 1031, 9011 and 5240 of 10,000.
    assert results.value(results.rows[0], "accuracy difference") == pytest.approx(73.11)
    assert results.value(results.rows[2], "accuracy difference") == pytest.approx(37.71)
    assert "## Against the reference row: from scratch" in page_of(results) and "of its fraction" in page_of(results)


@pytest.mark.parametrize("reference", ["", "a row that was not run"])
def test_without_a_reference_row_nothing_is_compared_with_it(tmp_path, reference):
    results = make_experiment(tmp_path, [make_row("a", None, "head", published=RATIOS)], num_test=FEW, reference=reference)
    assert {results.value(results.rows[0], metric) for metric in RATIOS} == {None}
    assert results.difference(results.rows[0], "accuracy difference") is None and "reference row" not in page_of(results)


def test_a_reference_row_with_fallbacks_is_not_comparable(tmp_path):
    rows = [make_row("a", None, "full", fallbacks=("digits for pets",)), make_row("b", None, "head", published=RATIOS)]
    results = make_experiment(tmp_path, rows, num_test=FEW, reference="full")
    assert results.difference(results.rows[1], "accuracy difference") is None
    cells = cells_of(tables.make_table(results, tables.REFERENCE_COLUMNS), 1)
    assert cells["published accuracy difference (points)"] == "(-1.00)" and "ours minus published (points)" not in cells


def test_a_published_curve_may_lack_its_losses(tmp_path):
    curve = {1: (None, 79.94), 10: (None, 98.88)}
    rows = [make_row("a", None, "full", published_curve=curve), make_row("b", None, "head", published_curve={1: (0.7, 78.5)})]
    results = make_experiment(tmp_path, rows, num_test=FEW)
    assert results.rows[0].published_curve == curve
    assert PLOTS_BY_FILE["learning_curves.png"].draw(results, tmp_path / "curves.png").exists()


SETTINGS_BY_ROW = [
    {"dataset": ("pets", "said"), "strategy": ("head", "said"), "image_size": (0, "chosen"), "l2": (0.0, "said"), "keep": ("", "chosen")},
    {"dataset": ("pets", "said"), "strategy": ("full", "said"), "image_size": (224, "chosen"), "l2": (0.0, "said"), "keep": ("", "chosen")},
    {"dataset": ("pets", "said"), "strategy": ("last", "said"), "image_size": (0, "chosen"), "l2": (0.01, "shown"), "keep": ("", "chosen")},
]


def test_settings_are_those_of_most_rows_and_then_the_changes_of_each_row(tmp_path):
    rows = [make_row(name, None, name, settings=settings) for name, settings in zip("abc", SETTINGS_BY_ROW, strict=True)]
    results = make_experiment(tmp_path, rows, num_test=FEW)
    common, changes = [block for block in settings_tables.settings_blocks(results, 2) if isinstance(block, document.Table)]
    assert common.rows == [
        ("dataset", "pets", "said"),
        ("image_size", "0 (224)", "chosen"),
        ("l2", "0.0", "said"),
        ("keep", "(empty)", "chosen"),
    ]
    assert changes.rows == [
        ("a", "strategy", "head", "said"),
        ("b", "strategy", "full", "said"),
        ("", "image_size", "224", "chosen"),
        ("c", "strategy", "last", "said"),
        ("", "l2", "0.01", "shown"),
    ]


def test_rows_that_change_nothing_are_listed_as_such(tmp_path):
    settings = [{"l2": (0.0, "said")}, {"l2": (0.0, "said")}, {"l2": (0.1, "said")}]
    rows = [make_row(name, None, name, settings=each) for name, each in zip("abc", settings, strict=True)]
    results = make_experiment(tmp_path / "three", rows, num_test=FEW)
    changes = settings_tables.settings_blocks(results, 2)[-1]
    assert changes.rows == [("a", "–", "–", "–"), ("b", "–", "–", "–"), ("c", "l2", "0.1", "said")]
    alone = make_experiment(tmp_path / "one", rows[:1], num_test=FEW)
    assert [block.rows for block in settings_tables.settings_blocks(alone, 2) if isinstance(block, document.Table)] == [
        [("l2", "0.0", "said")]
    ]


def test_errors_are_shown_by_cell_of_the_confusion_matrix_with_their_files(tmp_path):
    results = make_experiment(tmp_path, [make_row("a", None, "a")], num_test=FEW, class_names=["cat", "dog", "<b>"], accuracies=[0.8])
    (run,) = results.runs
    paths = np.array([f"test/{index} é.png" for index in range(FEW)])
    numbers = np.zeros(FEW, np.uint64), np.zeros(FEW, np.int64), np.full(FEW, TEST, np.uint8)
    write_split(run.path, SplitRecord("abc", ("cat", "dog", "<b>"), *numbers, paths))
    heading, _, *cells = best_row.misclassified_blocks(results, 2)
    assert heading.text == "Misclassified images"
    logits, labels = read_predictions(run.path)
    predicted = logits.argmax(axis=1)
    counts = []
    for title, gallery in zip(cells[::2], cells[1::2], strict=True):
        true, other = title.text.partition(":")[0].split(" → ")
        cell = (labels == run.class_names.index(true)) & (predicted == run.class_names.index(other))
        counts.append(cell.sum())
        assert title.text.endswith(f": {cell.sum()} of {(labels == run.class_names.index(true)).sum()} images")
        assert 0 < len(gallery.pictures) <= IMAGES_PER_CELL
        for picture in gallery.pictures:
            name, confidence, file = picture.lines
            index = int(confidence.partition("#")[2])
            assert cell[index] and file == paths[index] and name == f"{true} → {other}" and picture.alt == f"{true}, taken for {other}"
    assert counts == sorted(counts, reverse=True) and len(counts) > 1
    assert r"- \<b\> → cat; " in document.to_markdown(cells, tmp_path)


def test_classes_and_confusions_are_sorted_by_what_needs_attention(tmp_path):
    results = make_experiment(tmp_path, [make_row("a", None, "a")], num_test=FEW, accuracies=[0.7])
    classes, confusions = [block for block in best_row.best_row_blocks(results, 2) if isinstance(block, document.Table)]
    scores = [float(row[classes.headings.index("F1 (%)")]) for row in classes.rows]
    counts = [int(row[2]) for row in confusions.rows]
    assert scores == sorted(scores) and len(set(scores)) > 3 and counts == sorted(counts, reverse=True) and min(counts) > 0
    first = confusions.rows[0]
    assert float(first[3]) == pytest.approx(100 * counts[0] / (FEW / 10), abs=0.01) and first[0] != first[1]


def test_a_page_without_a_source_report_does_not_mention_one(tmp_path, no_plots):
    rows = [make_row("a", None, "a", settings={"epochs": (3, "chosen")}, fallbacks=("digits for pets",)), make_row("b", None, "b")]
    rows[1].settings = rows[0].settings
    results = make_experiment(tmp_path, rows, num_test=FEW, limited=True)
    assert not results.has_source
    report.write_report(results, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "source report" not in text and "paper" not in text and "ublished" not in text and "origin" not in text
    assert "LIMITED number of images: a trial, NOT a result" in text and "† fallback: digits for pets" in text
    quick = dataclasses.replace(results, profile="quick", changed_settings=("epochs 3",))
    assert "Quick profile: settings differ from the full experiment: epochs 3" in tables.table_caption(quick)


def test_the_page_of_one_run_has_no_plots_that_compare_rows(tmp_path):
    results = make_experiment(tmp_path, [make_row("a", None, "a")], num_test=FEW)
    names = {path.name for path in report.write_report(results, tmp_path)}
    assert names == {"report.md", "report.html", "results.csv", "learning_curves.png", *PLOTS[2:]}
    assert "Best row" not in (tmp_path / "report.md").read_text()


def test_the_page_has_the_findings_of_an_inspection(tmp_path, no_plots):
    skipped = "skipped 1 unreadable files:\nphotos/cat/3.png: no image"
    results = make_experiment(tmp_path, [make_row("a", None, "a")], num_test=FEW, notes=[skipped, "3 copies"])
    report.write_report(results, tmp_path)
    assert "photos/cat/3.png: no image" in (tmp_path / "report.md").read_text()  # there are no findings that list it
    photo = np.full((20, 30, 3), 128, np.uint8)
    suspects = [SuspectedLabel(f"cat/{index}.png", "cat", HOSTILE, 0.97, photo) for index in range(30)]
    pairs = tuple((f"a/{index}.png", "b/1.png", 0.98) for index in range(21))
    found = Inspection(tuple(suspects), pairs, (("cat/3.png", "no image"),), (("x.png", "y.png", "z.png"),), ("a remark",))
    write_inspection(results.runs[0].path, found)
    report.write_report(results, tmp_path)
    text, page_text = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    for line in ("- a remark", "### Suspected labels: 30", "| a/19.png | b/1.png | 0.980 |", "And 1 more.", "- x.png = y.png = z.png"):
        assert line in text
    assert (
        text.count("cat/3.png: no image") == 1
        and "- 3 copies" in text
        and "| a/20.png" not in text
        and "97.0 % for =1+1" in text
        and "And 6 more." in text
    )
    assert page_text.count('alt="labelled cat, looks like') == 24 and page_text.count("<script") == 1
    (results.runs[0].path / "inspection.json").write_text("{}")
    with pytest.raises(DamagedError, match=r"run0-seed0/inspection\.json"):
        report.write_report(results, tmp_path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "large"])
def test_the_picture_of_augmented_images_is_encoded_again_or_refused(tmp_path, kind):
    results = make_experiment(tmp_path, [make_row("a", None, "a")], num_test=FEW)
    plot, source = PLOTS_BY_FILE["augmentation.jpg"], results.runs[0].path / "augmentation.jpg"
    assert not plot.applies(results)
    size = (3000, 10) if kind == "large" else (60, 40)
    Image.new("RGB", size, "red").save(source, "PNG" if kind == "PNG" else "JPEG", comment=b"<script>")
    assert plot.applies(results)
    if kind == "JPEG":
        content = plot.draw(results, tmp_path / "copy.jpg").read_bytes()
        assert Image.open(io.BytesIO(content)).size == size and b"script" not in content and b"script" in source.read_bytes()
    else:
        with pytest.raises(DamagedError, match=r"run0-seed0/augmentation\.jpg cannot be read"):
            plot.draw(results, tmp_path / "copy.jpg")


def test_results_csv_has_one_line_per_run(tmp_path, no_plots):
    results = make_experiment(tmp_path, seeds=(0, 1))
    report.write_report(results, tmp_path)
    lines = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert ",".join(lines[0]) == (
        "experiment,profile,row,seed,dataset,embedded,backbone,weights,strategy,num_train,num_validation,num_test,image_size,epochs,"
        "precision,xla,device,trained_parameters,accuracy,interval_low,interval_high,"
        f"{','.join(SCALAR_METRICS)},balanced_accuracy,calibration_error,"
        "loss,seconds,seconds_per_epoch,parameters,published_accuracy,published_loss,published_seconds,"
        "published_seconds_per_epoch,published_parameters,published_accuracy_difference,published_parameter_ratio,published_speed_ratio,"
        "difference_accuracy,difference_loss,fallbacks,run"
    )
    assert len(lines) == 12 and [line["seed"] for line in lines[:2]] == ["0", "1"]
    first = lines[0]
    assert (first["accuracy"], first["published_accuracy"], first["difference_accuracy"]) == ("83.42", "82.99", "0.43")
    assert (first["seconds"], first["seconds_per_epoch"], first["run"]) == ("367.0", "36.7", "run0-seed0")


def test_the_page_has_command_settings_runtime_and_notes(tmp_path, no_plots):
    report.write_report(make_experiment(tmp_path, num_test=FEW, notes=["3 files were unreadable"]), tmp_path)
    text = (tmp_path / "report.md").read_text()
    for fact in ("    python -m experiments.part_a\n", "| run0-seed0 |", "| tensorflow | 2.21.0 |", "| source revision | d4bc3b5 |"):
        assert fact in text
    assert "3 files were unreadable" in text and "| pre-trained, 20 % | fraction | 0.2 | said |" in text
    assert [line[3:].partition(",")[0].partition(":")[0] for line in text.splitlines() if line.startswith("## ")] == [
        "Paired tests against the best row", "Best row", "Misclassified images", "How to read this report", "Data", "Settings",
        "Provenance", "Runs",
    ]  # fmt: skip


HOSTILE = "=1+1|<script>alert(1)</script>\n# [x](y) `z` $\\frac$ [red] \" onload='x"


def test_untrusted_text_is_escaped(tmp_path, no_plots, capsys):
    experiment = SimpleNamespace(name="part_a", title=HOSTILE, question=HOSTILE)
    row_settings = {HOSTILE: (HOSTILE, "said")}
    rows = [
        make_row(HOSTILE, 0.1, label=HOSTILE, fallbacks=(HOSTILE,), settings=row_settings),
        make_row(HOSTILE, 0.1, label=f"{HOSTILE} 2", settings={"epochs": (3, "said")}),
    ]
    settings = {"class_names": [HOSTILE, "b"], "notes": [HOSTILE], "dataset": HOSTILE, "changed_settings": [HOSTILE], "profile": HOSTILE}
    results = make_experiment(tmp_path, rows, experiment=experiment, command="python\n# x", num_test=FEW, **settings)
    report.write_report(results, tmp_path)
    page_text = (tmp_path / "report.md").read_text()
    assert "<script" not in page_text.replace(r"\<script", "")
    assert "[x]" not in page_text and "\n# [" not in page_text and "\n# x" not in page_text
    table = [line for line in page_text.splitlines() if line.startswith("| ")]
    assert table[2].replace(r"\|", "").count("|") == len(tables.COLUMNS) + 1
    line = next(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert line["row"].startswith("'=1+1|") and line["dataset"].startswith("'=")
    assert "[red]" in rendered(results)
    print(report.describe_result(results.runs[0].result, tmp_path))
    assert "[red]" in capsys.readouterr().out


class Page(HTMLParser):
    """The tags of a page with their attributes, in order. Each tag must be closed in the right order."""

    VOID = {"meta", "img", "link", "wbr", "!doctype"}

    def __init__(self, text):
        super().__init__()
        self.tags, self._open = [], []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag


def test_the_html_page_is_self_contained_and_has_one_script(tmp_path):
    experiment = SimpleNamespace(name="part_a", title=HOSTILE, question=HOSTILE)
    row = make_row(HOSTILE, None, label=HOSTILE, fallbacks=(HOSTILE,), settings={HOSTILE: (HOSTILE, "said")})
    report.write_report(make_experiment(tmp_path, [row], experiment=experiment, num_test=FEW, class_names=[HOSTILE, "b"]), tmp_path)
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    tags = [tag for tag, _ in page.tags]
    head = ["html", "head", "meta", "meta", "meta", "title", "link", "style", "body", "main", "h1", "nav"]
    texts = "p a h2 h3 pre ul li div table thead tbody tr th td figure img figcaption span wbr".split()
    assert tags[: len(head)] == head and set(tags) == {*head, *texts, "script"} and tags.count("script") == tags.count("style") == 1
    names = {"lang", "charset", "http-equiv", "content", "name", "class", "alt", "src", "width", "height", "id", "scope", "aria-labelledby"}
    assert {name for _, attributes in page.tags for name in attributes} == {*names, "rel", "href", "aria-label"}
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    anchors = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(anchors)) == len(anchors) and {link[1:] for link in links} < set(anchors) and set("".join(links)) < set(SLUG)
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert [image.partition(";")[0] for image in images] == ["data:image/png"] * 3 + ["data:image/jpeg"] * (len(images) - 3)
    assert base64.b64decode(images[0].partition(",")[2]) == (tmp_path / "learning_curves.png").read_bytes()


SLUG = "#abcdefghijklmnopqrstuvwxyz0123456789-"


@pytest.mark.parametrize("tag", ["style", "script"])
def test_the_policy_of_the_page_allows_its_style_and_its_script_by_their_hashes(tmp_path, tag):
    text = web_page.to_html([document.Heading(1, "<script>x</script>")], tmp_path)
    start, content, _ = re.split(f"<{tag}>|</{tag}>", text)
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', start)[1]
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    assert f"{tag}-src 'sha256-{digest}'" in policy and "unsafe" not in policy and policy.startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=A1", "'=A1"),
        ("+1", "'+1"),
        ("-x", "'-x"),
        ("@x", "'@x"),
        (-0.5, -0.5),
        (None, None),
        (True, True),
        ("a\n\tb", "a b"),
        ("a=b", "a=b"),
    ],
)
def test_csv_cells_are_no_formulas(value, cell):
    assert text.csv_cell(value) == cell


@pytest.mark.parametrize(("seconds", "shown"), [(0.44, "0.4 s"), (43, "43 s"), (367.9, "6 min 7 s"), (10925, "3 h 2 min")])
def test_durations_are_shown_in_two_units_at_most(seconds, shown):
    assert text.format_duration(seconds) == shown


def test_the_table_fits_in_80_columns(tmp_path):
    shown = rendered(make_experiment(tmp_path), width=80)
    assert max(map(len, shown.splitlines())) <= 80
    for whole in ("57,044,810", "6 min 7 s", "difference", "+0.43"):
        assert whole in shown


def test_the_result_of_a_run_fits_in_80_columns(tmp_path, capsys):
    result = make_experiment(tmp_path, [make_row("pre-trained", 0.1)]).runs[0].result
    print(report.describe_result(result, page.Path("runs/photos")))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and any("top-5 accuracy" in line for line in lines)
    two_classes = {**result, "metrics": {"test": {**result["metrics"]["test"], "top5_accuracy": None}}}
    print(report.describe_result(two_classes, page.Path("runs/photos")))
    assert "top-5" not in capsys.readouterr().out


def test_a_missing_run_is_an_error_with_its_name(tmp_path):
    make_experiment(tmp_path, [make_row("pre-trained", 0.1)])
    (tmp_path / "run0-seed0" / "result.json").unlink()
    with pytest.raises(ConfigError, match="run0-seed0 holds an unfinished run"):
        report.load_experiment(tmp_path / report.EXPERIMENT_FILE)


def begin_experiment(directory, finished, **options):
    """Return the experiment of two rows with two seeds each, of which only the runs named `finished` have a result."""
    rows = [make_row("a", None, "head", published=RATIOS), make_row("b", None, HOSTILE)]
    make_experiment(directory, rows, seeds=(0, 1), num_test=FEW, reference="head", **options)
    for result in directory.glob("*/result.json"):
        if result.parent.name not in finished:
            result.unlink()
    return report.load_experiment(directory / report.EXPERIMENT_FILE, allow_pending=True)


def test_an_experiment_that_runs_has_a_page_of_the_finished_runs(tmp_path, no_plots):
    results = begin_experiment(tmp_path, ["run0-seed0"])
    assert [run.name for run in results.runs] == ["run0-seed0"] and list(results.pending.values()) == [1, 2]
    report.write_report(results, tmp_path, refresh_seconds=30)
    page_text = (tmp_path / "report.md").read_text()
    assert "1 of 4 runs finished; to come: head (1), =1+1" in page_text and "| head | " in page_text
    assert '<meta http-equiv="refresh" content="30">' in (tmp_path / "report.html").read_text()
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 2


def test_an_experiment_that_has_just_begun_has_a_page(tmp_path, capsys):
    results = begin_experiment(tmp_path / "a", [], embedded=True)
    assert not results.rows
    assert [path.name for path in report.write_report(results, tmp_path / "a")] == ["report.md", "report.html"]
    text = (tmp_path / "a" / "report.md").read_text()
    assert "0 of 4 runs finished" in text and "python -m experiments.part_a" in text and "EMBEDDED" in text
    report.write_reports(tmp_path)
    assert "0 of 4 runs finished" in (tmp_path / "report.md").read_text()


def test_a_finished_experiment_has_no_pending_runs_and_its_page_stays(tmp_path, no_plots):
    results = begin_experiment(tmp_path, [f"run{row}-seed{seed}" for row in (0, 1) for seed in (0, 1)])
    assert not results.pending and results == report.load_experiment(tmp_path / report.EXPERIMENT_FILE)
    report.write_report(results, tmp_path)
    assert "runs finished" not in (tmp_path / "report.md").read_text() and "refresh" not in (tmp_path / "report.html").read_text()


def test_other_directories_beside_the_runs_are_ignored(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "result.json").write_text("{")
    assert len(make_experiment(tmp_path, num_test=FEW).runs) == 6


@pytest.mark.parametrize("name", ["../elsewhere", "/etc", "..", "", ".", "a/b", 3, None])
def test_an_experiment_file_may_not_name_runs_in_other_directories(tmp_path, name):
    make_experiment(tmp_path)
    change_index(tmp_path, lambda index: index["rows"][0].update(runs=[name]))
    with pytest.raises(DamagedError, match="not the file of an experiment"):
        report.load_experiment(tmp_path / report.EXPERIMENT_FILE)


def change_index(directory, change):
    path = directory / report.EXPERIMENT_FILE
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.clear(),
        lambda index: index.update(schema="4"),
        lambda index: index.pop("profile"),
        lambda index: index["rows"][0].pop("fallbacks"),
        lambda index: index["rows"][0].update(published={"accuracy": 82.99}),
        lambda index: index.update(rows=[]),
        lambda index: index["rows"][0].update(runs=[]),
        lambda index: index["rows"][0].update(train_fraction="much"),
        lambda index: index["rows"][0].update(published={"test accuracy": math.nan}),
        lambda index: index["rows"][0].update(published_curve={"1": 2}),
        lambda index: index["rows"][0].update(published_curve={"1": [0.5, None]}),
        lambda index: index.pop("reference"),
        lambda index: index["rows"][0].pop("settings"),
        lambda index: index["rows"][0].update(settings=["epochs"]),
        lambda index: index["rows"][0].update(settings={"epochs": 10}),
        lambda index: index["rows"][0].update(settings={"epochs": [10, "guessed"]}),
        lambda index: index["rows"][0].update(settings={"epochs": [10, ["said"]]}),
        lambda index: index["rows"][0].update(settings={"epochs": [[10], "said"]}),
        lambda index: index["rows"][0].update(settings={"epochs": [None, "said"]}),
        lambda index: index["rows"][0].update(settings={"epochs": [math.inf, "said"]}),
    ],
)
def test_a_damaged_experiment_file_is_an_error_with_its_name(tmp_path, change):
    make_experiment(tmp_path)
    change_index(tmp_path, change)
    with pytest.raises(DamagedError, match=r"experiment\.json is not the file of an experiment"):
        report.load_experiment(tmp_path / report.EXPERIMENT_FILE)


@pytest.mark.parametrize("schema", [3, 5])
def test_an_experiment_file_of_another_version_is_refused(tmp_path, schema):
    make_experiment(tmp_path, num_test=FEW)
    change_index(tmp_path, lambda index: index.update(schema=schema))
    with pytest.raises(ConfigError, match=f"schema {schema}.*Run the experiment again"):
        report.load_experiment(tmp_path / report.EXPERIMENT_FILE)


def test_a_full_disk_is_a_user_error_and_leaves_no_partial_file(tmp_path, monkeypatch):
    results = make_experiment(tmp_path, num_test=FEW)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        report.write_report(results, tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_missing_predictions_are_an_error_with_the_name_of_the_run(tmp_path, no_plots):
    results = make_experiment(tmp_path, num_test=FEW)
    (tmp_path / "run3-seed0" / "predictions.npz").unlink()
    with pytest.raises(DamagedError, match=r"run3-seed0/predictions\.npz cannot be read"):
        report.write_report(results, tmp_path)


def full_disk(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")
