"""docs/: every page is in the table of contents, links lead somewhere, figures have a source, and the tutorial and the notebook run."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, check_step, parameters, steps, with_bundled_model, without_blocks
from scipy.stats import binomtest

import tl_keras

DOCS = ROOT / "docs"
TUTORIAL = (DOCS / "tutorial.md").read_text()
NOTEBOOK = DOCS / "first-steps.ipynb"
PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md")])
FIGURE = re.compile(r"(?<![\w.])[+-]?\d+\.\d+(?![\w.])")  # a number with decimals

pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # programs run again in this process


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> list[str]:
    """Return the links of a page that lead to no file, or to no heading of one."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_blocks(text)):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not link.startswith("https://") and not (target.exists() and (not anchor or anchor in anchors(target.read_text()))):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    assert not broken_links(page, page.read_text())


def test_a_broken_link_is_found():
    text = "# One\n[a](#one) [b](modes.md) [c](modes.md#statistics) [d](#two) [e](absent.md) [f](modes.md#absent)\n"
    assert broken_links(DOCS / "page.md", text.replace("(#one)", "(modes.md)")) == ["#two", "absent.md", "modes.md#absent"]
    assert anchors(text) == {"one"}


def test_every_page_is_in_the_table_of_contents():
    index = (DOCS / "index.md").read_text()
    entries = [line for block in re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL) for line in block.splitlines() if line]
    pages = sorted(entry for entry in entries if not entry.startswith(":"))
    assert pages == sorted(page.stem for page in DOCS.glob("*.md") if page.stem != "index")
    assert NOTEBOOK.name in index


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_has_one_title(page):
    """Pages of one inclusion have that of the included file."""
    text = page.read_text()
    included = re.match(r"```\{include\} (\S+)", text)
    titles = re.findall(r"^# ", without_blocks((page.parent / included[1]).read_text() if included else text), re.MULTILINE)
    assert len(titles) == 1


def test_figures_of_the_guide_to_strategies_are_those_of_their_source():
    sources = "".join((ROOT / name).read_text() for name in ("README.md", "docs/defaults.md", "docs/what-the-reports-ran.md"))
    figures = set(FIGURE.findall((DOCS / "choosing-a-strategy.md").read_text())) - {"0.75"}  # of MobileNet 0.75 and layer_decay
    assert len(figures) > 50
    assert figures <= set(FIGURE.findall(sources))


@pytest.mark.parametrize(("correct", "num_examples", "half_width"), [(8000, 10_000, "0.8"), (3302, 3669, "1.0")])
def test_the_half_widths_of_intervals_on_the_page_on_reproducing(correct, num_examples, half_width):
    interval = binomtest(correct, num_examples).proportion_ci(method="wilson")
    assert f"{50 * (interval.high - interval.low):.1f}" == half_width


def listed_names() -> dict[str, list[str]]:
    """Return module -> names that the reference documents."""
    parts = re.split(r"currentmodule:: (\S+)", (DOCS / "api.md").read_text())[1:]
    return {module: re.findall(r"auto\w+:: (\w+)", text) for module, text in zip(parts[::2], parts[1::2], strict=True)}


def test_every_public_name_is_in_the_reference():
    names = listed_names()
    assert {*names["tl_keras"], "UserError"} == set(tl_keras.PUBLIC)
    assert set(names) == {"tl_keras", *(f"tl_keras.{name}" for name in tl_keras.NAMESPACES)}
    classes = {name for name in tl_keras.strategies.__all__ if isinstance(getattr(tl_keras.strategies, name), type)}
    assert {*names["tl_keras.strategies"], "Phase", "Strategy"} == {*classes, "Phase", "Strategy", "parse"}
    assert set(names["tl_keras.weights"]) <= set(tl_keras.weights.__all__)


def test_exit_codes_of_the_reference_are_those_of_the_errors():
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|$", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert {name: int(code) for name, code in rows} == {name: getattr(tl_keras.errors, name).exit_code for name, _ in rows}
    assert [name for name, _ in rows] == listed_names()["tl_keras.errors"]


@pytest.mark.parametrize("step", parameters(TUTORIAL))
def test_the_tutorial(step, reader, namespace):
    check_step(step, reader, namespace, with_bundled_model)


def test_the_tutorial_has_blocks_of_known_languages():
    assert {step.language for step in steps(TUTORIAL)} == {"sh", "python", "text"}


def test_the_notebook_is_stored_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 4 and not any(cell["outputs"] or cell["execution_count"] for cell in code)


def test_the_notebook_runs(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    texts = [output.data["text/plain"] for output in outputs if output.output_type == "execute_result"]
    assert "95 % Wilson" in texts[0] and texts[-1] == "('1', True)"
    assert (tmp_path / "digits-model" / "model.keras").exists()


@pytest.mark.slow
def test_the_pages_are_built_without_a_warning_and_load_nothing_from_elsewhere(tmp_path):
    for package in ("sphinx", "myst_parser", "furo"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}: pip install '.[docs]'")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "-q", "docs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.glob("*.html"))
    assert len(pages) > 15
    for page in pages:
        assert not re.search(r'<(?:script|img|iframe)[^>]+src="https?:|<link[^>]+href="https?:', page.read_text()), page.name
