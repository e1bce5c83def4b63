"""Runs every entry of tools/case_table.py, on this project and on an earlier checkout of it, and prints one table.

    git worktree add /tmp/before COMMIT
    python -m tools.try_cases --cases=DIR [--before=/tmp/before] [--only=PATTERN]

DIR holds the scripts NAME/make.py that make the inputs of the cases. They are copied to a temporary directory and run there. Without
`--cases`, entries that need one of them are left out.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tools.case_table import CASES, KINDS, Case, Outcome

PROJECT = Path(__file__).resolve().parents[1]
TIMEOUT = 900  # seconds of one entry, on a busy machine
SHOWN_LINES = 20  # of the output of a wrong entry
TAKE_OUTPUT = ("keras_files", "torch_checkpoints")  # scripts that are told where to write; the others write beside themselves
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "MPLBACKEND": "agg"}
# Commands of the entries, beside ordinary ones of the shell. `FAST` are settings that make a run a matter of seconds.
PRELUDE = """
FAST="--backbone=alexnet_narrow --weights=glyphs --image_size=64 --strategy=head --epochs=1 --batch_size=8 --cache=off --precision=float32"
DIGITS="--dataset=digits --limit_train=60 --limit_test=30 $FAST"
tl-keras() { "$PYTHON" -S "$PROJECT/tools/case_server.py" "$SERVER" -- "$@"; }
new-tl-keras() { PYTHONPATH="$CHECKOUT" "$PYTHON" -m tl_keras "$@"; }  # a process of its own, for limits and signals
make-input() { PYTHONPATH="$PROJECT" "$PYTHON" -m tools.case_inputs "$@"; }
check() { PYTHONPATH="$CHECKOUT" "$PYTHON" "$PROJECT/tools/case_commands.py" "$@"; }
export -f new-tl-keras
loss-in() { grep -o '[0-9.]* nats' "$1" || echo "no loss in $1"; }
same-images() { [ "$(loss-in first)" = "$(loss-in second)" ] && echo SAME IMAGES || echo OTHER IMAGES; }
"""


@dataclass(frozen=True)
class Row:
    """An entry, and what came of it in each checkout."""

    case: Case
    outcomes: Mapping[str, Outcome]

    def is_right(self, checkout: str) -> bool:
        """Return True if the entry did in `checkout` what is expected of it."""
        return self.case.is_right(self.outcomes[checkout])


def make_inputs(scripts: Path, directory: Path) -> None:
    """Copy the scripts below `scripts` to `directory`, and run them there."""
    for script in sorted(scripts.glob("*/make.py")):
        target = directory / script.parent.name
        target.mkdir(parents=True)
        shutil.copyfile(script, target / script.name)
        output = [str(target)] if target.name in TAKE_OUTPUT else []
        subprocess.run([sys.executable, script.name, *output], cwd=target, check=True, capture_output=True)


@contextmanager
def serving(checkout: Path, address: Path) -> Iterator[None]:
    """Start the server of a checkout, and end it after the block."""
    environment = {**os.environ, **QUIET}
    command = [sys.executable, str(PROJECT / "tools" / "case_server.py"), str(address), str(checkout)]
    server = subprocess.Popen(command, env=environment, cwd=address.parent, stderr=subprocess.DEVNULL)
    try:
        while not address.exists():
            if server.poll() is not None:
                raise SystemExit(f"{checkout} cannot be imported.")
            time.sleep(0.1)
        yield
    finally:
        server.kill()
        server.wait()


def run_case(case: Case, checkout: Path, inputs: Path, directory: Path, server: Path) -> Outcome:
    """Run the script of `case` in a new directory, with the project at `checkout`. Standard error is part of the text."""
    directory.mkdir(parents=True)
    environment = {
        **os.environ,
        **{"PYTHON": sys.executable, "PROJECT": str(PROJECT), "CHECKOUT": str(checkout), "CASES": str(inputs), "SERVER": str(server)},
        **{"XDG_CACHE_HOME": str(directory / ".cache"), **QUIET},
    }
    command = ["timeout", "--kill-after=5", str(TIMEOUT), "bash", "-c", PRELUDE + case.script]
    done = subprocess.run(
        command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
    )
    outcome = Outcome(done.returncode, done.stdout.decode(errors="backslashreplace"))
    shutil.rmtree(directory, ignore_errors=True)
    return outcome


def run_cases(cases: Sequence[Case], checkouts: Mapping[str, Path], scripts: Path | None, *, jobs: int = 1) -> list[Row]:
    """Run `cases` in every checkout, `jobs` at a time."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if scripts is not None:
            make_inputs(scripts, root / "inputs")
        for name, path in checkouts.items():
            stack.enter_context(serving(path, root / name))
        pool = stack.enter_context(ThreadPoolExecutor(jobs))
        return list(pool.map(partial(_run_row, checkouts=checkouts, root=root), cases))


def _run_row(case: Case, *, checkouts: Mapping[str, Path], root: Path) -> Row:
    directory = Path(tempfile.mkdtemp(dir=root))  # a random name, which no test of an outcome can match
    outcomes = {name: run_case(case, path, root / "inputs", directory / name, root / name) for name, path in checkouts.items()}
    row = Row(case, outcomes)
    print(f"{case.name}: {', '.join(_verdict(row.is_right(name)) for name in checkouts)}", file=sys.stderr, flush=True)
    return row


def _verdict(is_right: bool) -> str:
    return "right" if is_right else "WRONG"


def format_table(rows: Sequence[Row]) -> str:
    """Return a table in Markdown with one line for each entry, and one with the numbers of each kind."""
    checkouts = list(rows[0].outcomes)
    lines = [_line("case", "source", *checkouts, "expected", "verdict"), _line(*["---"] * (len(checkouts) + 4))]
    for row in rows:
        cells = [f"{_verdict(row.is_right(name))}: {row.outcomes[name].summary()}" for name in checkouts]
        name = f"{row.case.name}: {row.case.description}"
        lines.append(_line(name, row.case.source, *cells, row.case.expected, _verdict(row.is_right(checkouts[-1]))))
    lines += ["", _line("kind", "entries", *(f"wrong {name}" for name in checkouts)), _line(*["---"] * (len(checkouts) + 2))]
    for kind, title in KINDS.items():
        lines.append(_counts(title, [row for row in rows if row.case.kind == kind], checkouts))
    lines += [_counts("cases", [row for row in rows if not row.case.is_neighbour], checkouts)]
    lines += [_counts("neighbours", [row for row in rows if row.case.is_neighbour], checkouts)]
    return "\n".join(lines)


def _counts(title: str, rows: Sequence[Row], checkouts: Sequence[str]) -> str:
    return _line(title, len(rows), *(sum(not row.is_right(name) for row in rows) for name in checkouts))


def _line(*cells: object) -> str:
    return f"| {' | '.join(str(cell).replace('|', '&#124;') for cell in cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, help="directory of the scripts NAME/make.py")
    parser.add_argument("--before", type=Path, help="an earlier checkout of the project")
    parser.add_argument("--now", type=Path, default=PROJECT, help="the checkout to judge; default: this one")
    parser.add_argument("--only", default="", help="regular expression that names of entries must match")
    parser.add_argument("--jobs", type=int, default=2, help="entries that run at a time")
    parser.add_argument(
        "--verbose", action="store_true", help="print the script and the end of the output of every entry that is wrong now"
    )
    arguments = parser.parse_args()
    checkouts = {"before": arguments.before, "now": arguments.now}
    cases = [case for case in CASES if re.search(arguments.only, case.name) and (arguments.cases or not case.needs_inputs)]
    if not cases:
        parser.error("no entry is left: see --only and --cases")
    found = {name: path.resolve() for name, path in checkouts.items() if path}
    rows = run_cases(cases, found, arguments.cases, jobs=arguments.jobs)
    for row in rows if arguments.verbose else []:
        if not row.is_right("now"):
            end = "\n".join(row.outcomes["now"].text.splitlines()[-SHOWN_LINES:])
            print(f"=== {row.case.name}\n{row.case.script.strip()}\n--- exit code {row.outcomes['now'].code}\n{end}")
    print(format_table(rows))
    return 0 if all(row.is_right("now") for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
