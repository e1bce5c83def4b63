"""Reports from made-up results: exact files and figures, comparability, and nothing from outside that acts as markup."""

import csv
import dataclasses
import errno
import io
import json
import math
from types import SimpleNamespace

import pytest
from matplotlib.image import imread
from rich.console import Console

from tl_keras import report
from tl_keras.config import RunConfig
from tl_keras.errors import ConfigError, DamagedError, UserError
from tl_keras.report import collection, figures, page, seeds, tables, text
from tl_keras.results import RunDirectory, wilson_interval

REPORTED = {("pre-trained", 0.1): 82.99, ("pre-trained", 0.2): 87.18, ("pre-trained", 0.5): 89.68,
            ("from scratch", 0.1): 12.89, ("from scratch", 0.2): 37.41, ("from scratch", 0.5): 51.06}  # fmt: skip
OURS = {("pre-trained", 0.1): 8342, ("pre-trained", 0.2): 8699, ("pre-trained", 0.5): 9011,
        ("from scratch", 0.1): 1031, ("from scratch", 0.2): 3522, ("from scratch", 0.5): 5240}  # fmt: skip
CURVES = {
    "pre-trained": {1: (1.1414, 59.68), 5: (0.3922, 86.78), 10: (0.2157, 92.82)},
    "from scratch": {1: (2.3024, 10.44), 5: (2.2999, 12.66), 10: (2.2823, 11.82)},
}
EXPERIMENT = SimpleNamespace(name="part_a", title="Part A", question="How much does pre-training help?")


def make_row(group, x, label=""):
    config = RunConfig().replace(fraction=x or 1.0, backbone="alexnet", weights="imagenet" if group == "pre-trained" else "none")
    return SimpleNamespace(
        label=label or f"{group}, {100 * x:g} %",
        group=group,
        x=x,
        config=config,
        reported={"test accuracy": REPORTED[group, x]} if (group, x) in REPORTED else {},
        reported_curve=CURVES.get(group, {}) if x == 0.1 else {},
    )


def make_history(final, seed):
    """Ten epochs that approach the share `final`."""
    reached = [0.1 + (final - 0.1) * (1 - math.exp(-(epoch + 0.3 * seed) / 2.5)) for epoch in range(1, 11)]
    return [
        {"epoch": epoch, "phase": "full", "loss": -math.log(min(0.99, share + 0.02)), "accuracy": min(1, share + 0.02),
         "images/s": 100.0, "val_loss": -math.log(share), "val_accuracy": share, "learning_rate": 1e-3, "seconds": 30.0}
        for epoch, share in enumerate(reached, start=1)
    ]  # fmt: skip


def make_result(row, seed, *, dataset="cifar10", embedded=False, limited=False, class_names=None, notes=(), num_right=None):
    num_right = (OURS.get((row.group, row.x), 7000) if num_right is None else num_right) + 40 * seed
    test = {"accuracy": num_right / 10000, "interval": list(wilson_interval(num_right, 10000)), "num": 10000, "loss": 0.5432109}
    return {
        "name": row.label,
        "config": row.config.replace(seed=seed).identity(),
        "data": {
            "dataset": dataset, "fingerprint": "abc123", "class_names": class_names or [f"class{i}" for i in range(10)],
            "num_train": round(50000 * (row.x or 1)), "num_validation": 5000, "num_test": 10000,
            "embedded": embedded, "limited": limited, "notes": list(notes),
        },
        "model": {"backbone": "alexnet", "parameters": 57044810, "image_size": 224, "crop_fraction": 1.0,
                  "normalization": "imagenet", "weights": row.config.model.weights,
                  "weights_account": {"source": "alexnet.pth", "loaded": 14, "left_out": 2}},
        "phases": [{"name": "full", "epochs": 10, "trainable_parameters": 57044810, "trainable_stages": ["conv1"], "seconds": 300.0,
                    "frozen_mode": "inference", "audit": {}}],
        "runtime": {"device": "1 x NVIDIA H200", "cpu": "AMD EPYC, 2 cores", "precision": "mixed_bfloat16", "xla": True, "replicas": 1,
                    "versions": {"python": "3.11.9", "tensorflow": "2.21.0"}, "git_revision": "d4bc3b5"},
        "selection": {"rule": "last", "epoch": 10},
        "metrics": {"test": test, "validation": {"epoch": 9, "accuracy": 0.83, "loss": 0.6}},
        "seconds": {"total": 400.0, "train": 367.0, "test": 5.0},
    }  # fmt: skip


def make_experiment(
    directory, rows=None, seeds=(0,), experiment=EXPERIMENT, embedded=False, command="python -m experiments.part_a", **facts
):
    rows = rows or [make_row(group, x) for group, x in REPORTED]
    for number, row in enumerate(rows):
        for seed in seeds:
            result = make_result(row, seed, embedded=embedded, **facts)
            place = RunDirectory(directory / f"run{number}-seed{seed}")
            place.prepare(row.config.replace(seed=seed))
            place.write_history(make_history(result["metrics"]["test"]["accuracy"], seed))
            place.write_result(result)
    return report.collect(experiment, rows, seeds, directory, embedded=embedded, command=command)


def rendered(results, width=200):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(tables.terminal_table(results))
    return console.export_text()


def test_exactly_these_files_are_written_and_no_other(tmp_path):
    results = make_experiment(tmp_path)
    runs = {path.name for path in tmp_path.iterdir()}
    written = report.write_report(results, tmp_path)
    names = ["report.md", "results.csv", "accuracy_against_fraction.png", "learning_curves.png"]
    assert [path.name for path in written] == names
    assert {path.name for path in tmp_path.iterdir()} == runs | set(names) and "experiment.json" in runs


def test_the_same_results_give_the_same_bytes(tmp_path):
    results = make_experiment(tmp_path, seeds=(0, 1, 2))
    first = [path.read_bytes() for path in report.write_report(results, tmp_path)]
    again = report.load_experiment(tmp_path / report.EXPERIMENT_FILE)
    assert again == results
    assert [path.read_bytes() for path in report.write_report(again, tmp_path)] == first


def test_table_with_one_seed_has_wilsons_interval_and_the_difference(tmp_path):
    results = make_experiment(tmp_path)
    cells = [line.strip("| ").split(" | ") for line in tables.markdown_table(results).splitlines()]
    assert cells[0] == list(tables.COLUMNS)
    # 8342 of 10,000: Wilson's interval is 82.68 to 84.14.
    assert cells[2] == ["pre-trained, 10 %", "5,000", r"83.42 \[82.68, 84.14\]", "82.99", "+0.43", "57,044,810", "6 min 7 s"]
    assert cells[5][3:5] == ["12.89", "-2.58"]
    shown = rendered(results)
    assert "83.42 [82.68, 84.14]" in shown and "+0.43" in shown and "EMBEDDED" not in shown


def test_table_with_three_seeds_has_students_interval_of_the_mean(tmp_path):
    results = make_experiment(tmp_path, seeds=(0, 1, 2))
    # 83.42, 83.82, 84.22: mean 83.82, deviation 0.40; 4.303 * 0.40 / sqrt(3) = 0.99.
    assert "| 83.82 ± 0.99 | 82.99 | +0.83 |" in tables.markdown_table(results)
    assert "seeds 0, 1, 2" in tables.caption(results) and "Student" in tables.caption(results)


def test_caption_says_on_what_and_how(tmp_path):
    caption = tables.caption(make_experiment(tmp_path))
    for fact in ("cifar10", "n train 5,000 to 25,000", "n test 10,000", "seed 0", "10 epochs", "224 px", "mixed_bfloat16", "NVIDIA H200"):
        assert fact in caption


def test_settings_that_are_not_the_reports_are_named(tmp_path):
    results = make_experiment(tmp_path)
    assert "differs from the report" not in tables.caption(results)
    other = dataclasses.replace(results, departures=("backbone resnet18", "epochs 6"))
    assert "differs from the report in backbone resnet18, epochs 6" in tables.caption(other)


@pytest.mark.parametrize("kind", collection.MARKS)
def test_figures_that_are_not_comparable_are_marked_everywhere_and_have_no_difference(tmp_path, kind, capsys):
    results = make_experiment(tmp_path, **{kind: True})
    mark = collection.MARKS[kind]
    report.write_report(results, tmp_path)
    page = (tmp_path / "report.md").read_text()
    assert page.count(mark) == 3  # head, caption, how to read it
    assert "(82.99) | – |" in page
    assert mark in rendered(results) and "(82.99)" in rendered(results)
    lines = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert {line["difference"] for line in lines} == {""}
    report.print_result(results.runs[0].result, tmp_path)
    assert mark in capsys.readouterr().out


def test_the_mark_is_drawn_in_the_figures(tmp_path):
    plain, marked = make_experiment(tmp_path / "plain"), make_experiment(tmp_path / "marked", embedded=True)
    for draw in (figures.draw_accuracy, figures.draw_curves):
        reds = [count_red(draw(results, tmp_path / "figure.png")) for results in (plain, marked)]
        assert reds[0] == 0 and reds[1] > 1000


def count_red(path):
    """Pixels of exactly the mark's colour."""
    colour = [int(figures.MARK_COLOUR[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    return int((abs(imread(path)[..., :3] - colour) < 1e-3).all(axis=-1).sum())


@pytest.mark.parametrize("num_seeds", [1, 3])
@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("num_rows", [1, 2, 6])
def test_figures_have_a_clear_margin(tmp_path, num_rows, embedded, num_seeds):
    """Nothing is cut off: the outermost pixels are white. 200 pixels an inch."""
    rows = [make_row(group, x) for group, x in REPORTED][:num_rows]
    results = make_experiment(tmp_path, rows, seeds=range(num_seeds), embedded=embedded)
    for draw in (figures.draw_accuracy, figures.draw_curves):
        image = imread(draw(results, tmp_path / "figure.png"))[..., :3]
        assert image.shape[1] >= 1300
        assert all((edge == 1).all() for edge in (image[:4], image[-4:], image[:, :4], image[:, -4:]))
        assert (image < 0.5).any()


def test_rows_without_a_share_have_curves_alone(tmp_path):
    rows = [make_row(name, None, name) for name in ("head", "last:1", "last:2", "full")]
    written = report.write_report(make_experiment(tmp_path, rows), tmp_path)
    assert [path.name for path in written] == ["report.md", "results.csv", "learning_curves.png"]
    assert "accuracy_against_fraction.png" not in (tmp_path / "report.md").read_text()


def test_results_csv_has_a_line_for_each_run(tmp_path):
    results = make_experiment(tmp_path, seeds=(0, 1))
    report.write_report(results, tmp_path)
    lines = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert ",".join(lines[0]) == (
        "experiment,row,seed,dataset,embedded,backbone,weights,strategy,num_train,num_validation,num_test,image_size,epochs,"
        "precision,xla,device,accuracy,interval_low,interval_high,loss,reported,difference,seconds,run"
    )
    assert len(lines) == 12 and [line["seed"] for line in lines[:2]] == ["0", "1"]
    first = lines[0]
    assert (first["accuracy"], first["reported"], first["difference"]) == ("83.42", "82.99", "0.43")
    assert (first["loss"], first["seconds"], first["run"]) == ("0.543211", "367.0", "run0-seed0")


def test_the_page_says_how_it_was_made(tmp_path):
    page_text = page.page(make_experiment(tmp_path, notes=["3 files were unreadable"]), [])
    for fact in ("    python -m experiments.part_a\n", "[run0-seed0](run0-seed0/)", "tensorflow: 2.21.0", "source revision: d4bc3b5"):
        assert fact in page_text
    assert "3 files were unreadable" in page_text and "fraction: 0.1, 0.2, 0.5 (differs by run)" in page_text
    assert [line[3:] for line in page_text.splitlines() if line.startswith("## ")] == list(page.SECTIONS)


HOSTILE = "=1+1|<script>\n# [x](y) `z` $\\frac$ [red]"


def test_text_from_outside_acts_as_no_markup(tmp_path, capsys):
    experiment = SimpleNamespace(name="part_a", title=HOSTILE, question=HOSTILE)
    row = make_row(HOSTILE, 0.1, label=HOSTILE)
    facts = {"class_names": [HOSTILE, "b"], "notes": [HOSTILE], "dataset": HOSTILE}
    results = make_experiment(tmp_path, [row], experiment=experiment, command="python\n# x", **facts)
    report.write_report(results, tmp_path)
    page_text = (tmp_path / "report.md").read_text()
    assert "<script" not in page_text.replace(r"\<script", "")
    assert "[x]" not in page_text and "\n# [" not in page_text and "\n# x" not in page_text
    table = [line for line in page_text.splitlines() if line.startswith("| ")]
    assert len(table) == 3 and table[2].replace(r"\|", "").count("|") == len(tables.COLUMNS) + 1
    line = next(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert line["row"].startswith("'=1+1|") and line["dataset"].startswith("'=")
    assert "[red]" in rendered(results)
    report.print_result(results.runs[0].result, tmp_path)
    assert "[red]" in capsys.readouterr().out


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
def test_csv_cell(value, cell):
    assert text.csv_cell(value) == cell


@pytest.mark.parametrize(("seconds", "shown"), [(0.44, "0.4 s"), (43, "43 s"), (367.9, "6 min 7 s"), (10925, "3 h 2 min")])
def test_duration(seconds, shown):
    assert text.duration(seconds) == shown


# The quantile 0.975 of Student's distribution, from the printed tables.
@pytest.mark.parametrize(("degrees", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (100, 1.984)])
def test_student_quantile(degrees, quantile):
    assert seeds.student_quantile(degrees) == pytest.approx(quantile, abs=5e-4)


def test_summarize():
    summary = seeds.summarize([0.80, 0.81, 0.83])
    assert (summary.num, summary.mean) == (3, pytest.approx(0.813333, abs=1e-6))
    assert summary.std == pytest.approx(0.0152753, abs=1e-6)
    assert summary.interval == pytest.approx((0.775388, 0.851279), abs=1e-5)
    alone = seeds.summarize([0.5])
    assert alone.mean == 0.5 and math.isnan(alone.std) and math.isnan(alone.interval[0])


def test_the_table_fits_a_narrow_terminal(tmp_path):
    shown = rendered(make_experiment(tmp_path), width=80)
    assert max(map(len, shown.splitlines())) <= 80
    for whole in ("57,044,810", "6 min 7 s", "difference", "+0.43"):
        assert whole in shown


def test_a_missing_run_is_named(tmp_path):
    make_experiment(tmp_path, [make_row("pre-trained", 0.1)])
    with pytest.raises(ConfigError, match="no finished run of 'pre-trained, 10 %' with seed 1"):
        report.collect(EXPERIMENT, [make_row("pre-trained", 0.1)], [0, 1], tmp_path, embedded=False, command="")


def test_damaged_and_foreign_directories_beside_the_runs_do_not_matter(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "result.json").write_text("{")
    assert len(make_experiment(tmp_path).runs) == 6


@pytest.mark.parametrize("name", ["../elsewhere", "/etc", "..", "", ".", "a/b", 3, None])
def test_an_experiment_file_names_no_run_elsewhere(tmp_path, name):
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
        lambda index: index.update(schema=2),
        lambda index: index.update(rows=[]),
        lambda index: index["rows"][0].update(runs=[]),
        lambda index: index["rows"][0].update(x="much"),
        lambda index: index["rows"][0].update(reported={"test accuracy": math.nan}),
        lambda index: index["rows"][0].update(reported_curve={"1": 2}),
    ],
)
def test_a_damaged_experiment_file_is_named(tmp_path, change):
    make_experiment(tmp_path)
    change_index(tmp_path, change)
    with pytest.raises(DamagedError, match=r"experiment\.json is not the file of an experiment"):
        report.load_experiment(tmp_path / report.EXPERIMENT_FILE)


def test_a_full_disk_is_a_user_error_and_leaves_no_half_file(tmp_path, monkeypatch):
    results = make_experiment(tmp_path)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        report.write_report(results, tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def full_disk(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")
