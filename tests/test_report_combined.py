"""The combined report of all experiments: order, overview, relative paths of plots, and damaged experiments."""

from types import SimpleNamespace

import pytest
from report_builder import make_experiment, make_row

from tl_keras import report
from tl_keras.cli import verbs
from tl_keras.errors import ConfigError, DamagedError
from tl_keras.report import plots

FEW = 100
pytestmark = pytest.mark.usefixtures("low_resolution")


@pytest.fixture
def two(tmp_path):
    """Experiments b and a with two rows each; one row of a has fallbacks."""
    for name in ("b", "a"):
        experiment = SimpleNamespace(name=name, title=f"Experiment {name}", question="What helps?")
        fallbacks = ("digits for pets",) if name == "a" else ()
        rows = [make_row("x", None, "full <b>", published={"test accuracy": 88.0}), make_row("y", None, "head", fallbacks=fallbacks)]
        make_experiment(tmp_path / name, rows, experiment=experiment, num_test=FEW, accuracies=[0.7, 0.6], profile="quick")
    return tmp_path


@pytest.fixture
def one_plot(monkeypatch):
    """One plot per experiment, because plots take most of the time."""
    monkeypatch.setattr(plots, "ROW_PLOTS", plots.ROW_PLOTS[1:2])
    monkeypatch.setattr(plots, "BEST_ROW_PLOTS", ())


def test_experiments_are_combined_in_the_order_of_their_names(two, one_plot, capsys):
    files = report.write_reports(two)
    pages = [two / "a", two / "b", two]
    assert files == [page / name for page in pages for name in ("report.md", "report.html")]
    text = (two / "report.md").read_text()
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings[:2] == ["# All experiments", "## Experiment a"] and headings.index("## Experiment b") > 2
    overview = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][2:4]
    assert [line[:4] for line in overview] == [["a", "quick", "2", r"full \<b\>"], ["b", "quick", "2", r"full \<b\>"]]
    assert [line[-1] for line in overview] == ["rows with fallbacks: 1", "–"]
    assert overview[0][4].startswith("70.00") and overview[0][5:7] == [r"full \<b\>", "88.00"]
    assert "](a/accuracy_of_rows.png)" in text and "](accuracy_of_rows.png)" in (two / "a" / "report.md").read_text()
    html = (two / "report.html").read_text()
    assert html.count('src="data:image/png;base64,') == 2 and "<b>" not in html and "src=" not in html.replace('src="data:', "")
    assert "Experiment a" in capsys.readouterr().out


def test_the_command_prints_the_combined_page(two, one_plot, capsys):
    assert verbs.main(["report", f"--runs_dir={two}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(two / "report.html")


@pytest.mark.parametrize("damage", ["experiment.json", "run0-seed0/result.json", "run1-seed0/history.csv", "run1-seed0/predictions.npz"])
def test_a_damaged_experiment_is_named_and_the_others_are_written(two, one_plot, damage, capsys):
    (two / "a" / damage).write_bytes(b"broken <script>")
    assert verbs.main(["report", f"--runs_dir={two}"]) in (DamagedError.exit_code, ConfigError.exit_code)
    assert "combines 1 of 2 experiments" in capsys.readouterr().err
    for name in ("report.md", "report.html"):
        text = (two / name).read_text()
        assert "no report; see below" in text and "No report: " in text and "Experiment b" in text and "broken <script>" not in text


def test_the_directory_of_one_experiment_gets_only_its_report(two, one_plot):
    files = report.write_reports(two / "a")
    assert {file.name for file in files} == {"report.md", "report.html", "results.csv", "accuracy_of_rows.png"}
    assert (two / "a" / "report.md").read_text().startswith("# Experiment a") and not (two / "report.md").exists()


def test_a_directory_without_experiments_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"expected experiment\.json in it or one directory below"):
        report.write_reports(tmp_path)


def test_the_page_of_many_experiments_stays_small(two, monkeypatch):
    """Fifteen experiments with images of 96 pixels take less than 15 MB."""
    monkeypatch.undo()  # full resolution
    results = report.load_experiment(two / "b" / report.EXPERIMENT_FILE)
    report.write_report(results, two / "b")
    assert 15 * (two / "b" / "report.html").stat().st_size < 15e6
