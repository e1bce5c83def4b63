"""The verb `fit`: from a folder of images to a trained, tested and exported classifier, within a budget of time."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tl_keras
from tl_keras.cli.flags import CommandFlags, as_flags
from tl_keras.config import SETTINGS, RunConfig
from tl_keras.errors import ConfigError
from tl_keras.planning import plan
from tl_keras.utils.files import read_json, write_json, write_text
from tl_keras.utils.tensorflow_import import quiet_tensorflow
from tl_keras.utils.text import join_names, printable

if TYPE_CHECKING:
    from tl_keras.planning.planner import Plan

PLAN, HEAD_SETTINGS, HEAD, EXPORT = "plan.txt", "head.json", "head", "export"
PLANNED = [name for name in SETTINGS if name != "dataset"]


def fit(arguments: Sequence[str]) -> None:
    """Inspect a folder of images, plan a training that fits a budget of time, train, report and export."""
    command = CommandFlags(
        "tl-keras fit DIR --budget=5min\n\n"
        "Inspect the images in DIR, plan a training that fits the budget, train, report and export. DIR is a folder with a folder of\n"
        "images for each class, or a CSV file. Every choice is printed with its reason and its flag; flags of `train` win over the plan.\n"
        "The same command with the same --run_dir resumes an interrupted run by its plan.",
        settings=PLANNED,
        examples=("tl-keras fit photos --dry_run", "tl-keras fit photos --budget=20min --run_dir=runs/photos"),
        extra={
            "budget": (
                "5min",
                "time until the report, e.g. 90s, 5min or 1h; the training ends in time with its best epoch, and the export comes after it",
            ),
            "run_dir": ("", "directory of the run; empty: runs/fit/ and the name of DIR"),
            "dry_run": (False, "print the plan and the command of `train` that follows it; train nothing"),
        },
        takes_operands=True,
    )
    given = command.parse(arguments)
    if given is None:
        return
    clock = plan.Clock(plan.parse_budget(command.value("budget")))
    dataset = _dataset(command.operands)
    run_dir = Path(command.value("run_dir") or Path("runs") / "fit" / _name(dataset))
    given = {name: value for name, value in given.items() if name in PLANNED}
    printed: list[str] = []
    recorded = _recorded(run_dir, dataset, given)
    made = None if recorded else _plan(dataset, given, clock, printed.append)
    configs = _configs(run_dir, made) if made else recorded
    lines = [plan.train_command(config, directory) for directory, config in configs.items()]
    choice = ", of which the better one on validation is used" if len(lines) > 1 else ""
    print("\n".join(["", f"the same by `train`{choice}:", *lines, ""]), flush=True)
    if command.value("dry_run"):
        return
    if made:
        _keep_plan(run_dir, made, [*printed, *lines, ""])
    best = _train(configs)
    page = _report(best, plan.train_command(configs[best], best))
    print(f"\nreported after {clock.seconds():.0f} s of {clock.budget:.0f} s\nreport   {printable(page)}", flush=True)
    if configs[best].runtime.save_model:
        print("\n".join(_next_steps(best, _export(best))))


def _dataset(operands: Sequence[str]) -> str:
    if len(operands) != 1:
        raise ConfigError(f"expected one folder or CSV file, e.g. `tl-keras fit photos`; received {len(operands)}. See --help.")
    path = Path(operands[0]).expanduser()
    return f"csv:{path}" if path.is_file() and path.suffix.lower() in (".csv", ".tsv") else f"folder:{path}"


def _name(dataset: str) -> str:
    """Return the name of a folder, or of a file without its suffix, with letters, digits and `._-` alone."""
    kind, _, path = RunConfig().replace(dataset=dataset).data.dataset.partition(":")
    name = Path(path).stem if kind == "csv" else Path(path).name
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "images"


def _recorded(run_dir: Path, dataset: str, given: Mapping[str, Any]) -> dict[Path, RunConfig]:
    """Return run directory -> settings of a plan that has begun in `run_dir`, with those that are given; empty if there is none."""
    if not (run_dir / "split.npz").exists():
        return {}
    print(f"{printable(run_dir)} holds a run with a plan, which goes on.", flush=True)
    configs = {run_dir: tl_keras.load_run(run_dir).config}
    if head := read_json(run_dir / HEAD_SETTINGS):
        configs[run_dir / HEAD] = RunConfig.from_dict(head)
    return {directory: config.replace(dataset=dataset, **given) for directory, config in configs.items()}


def _plan(dataset: str, given: Mapping[str, Any], clock: plan.Clock, keep: Callable[[str], None]) -> "Plan":
    """Make a plan, print the findings and the choices, and call `keep` with each line."""
    quiet_tensorflow()
    from tl_keras.planning.planner import make_plan

    def show(line: str) -> None:
        line = as_flags(line).replace("\n", "\n    ")
        keep(line)
        print(line, flush=True)

    show("images")
    made = make_plan(dataset, given, clock, lambda line: show(f"  {line}"))
    show("plan")
    for line in plan.describe(made.choices, given):
        show(f"  {line}")
    return made


def _configs(run_dir: Path, made: "Plan") -> dict[Path, RunConfig]:
    """Return run directory -> settings of a plan."""
    return {run_dir: made.config, **({run_dir / HEAD: made.head} if made.head else {})}


def _keep_plan(run_dir: Path, made: "Plan", lines: Sequence[str]) -> None:
    """Write what was printed, the findings for the report of each run, and the settings that a resumed command needs besides."""
    write_text(run_dir / PLAN, "\n".join(lines))
    made.write_findings(_configs(run_dir, made))
    if made.head:
        write_json(run_dir / HEAD_SETTINGS, made.head.to_dict())


def _train(configs: Mapping[Path, RunConfig]) -> Path:
    """Train and test the runs, and return the directory of the best one on validation."""
    runs = {path: tl_keras.fit(tl_keras.ImageData(config.data), path, config=config) for path, config in configs.items()}
    scores = {path: run.result["metrics"]["validation"] for path, run in runs.items()}
    best = max(runs, key=lambda path: (scores[path]["accuracy"], -scores[path]["loss"])) if len(runs) > 1 else next(iter(runs))
    if len(runs) > 1:
        texts = [f"{printable(path)} {100 * score['accuracy']:.2f} %" for path, score in scores.items()]
        print(f"\non validation: {', '.join(texts)}; {printable(best)} is used", flush=True)
    print(f"\n{runs[best]}", flush=True)
    return best


def _report(run_dir: Path, line: str) -> Path:
    """Write the report, and return its page."""
    from tl_keras.planning.page import write_run_report

    run = tl_keras.load_run(run_dir)
    question = f"How well does a classifier of the images in {run.config.data.dataset} do, trained by a plan that fits a budget of time?"
    return write_run_report(run_dir, f"Classifier of {join_names(run.class_names)}", question, line)[1]


def _export(run_dir: Path) -> Path:
    """Export the model, unless that was done before, and return the directory."""
    run, directory = tl_keras.load_run(run_dir), run_dir / EXPORT
    if not directory.exists():
        run.export(directory, calibrated=run.temperature is not None)
    return directory


def _next_steps(run_dir: Path, export: Path) -> list[str]:
    directory = plan.quote(str(run_dir))
    return [
        f"predict  tl-keras predict --run_dir={directory} photo.jpg",
        f"score    tl-keras evaluate --run_dir={directory} --dataset=folder:NEW_PHOTOS",
        f"use      {printable(export / 'model.keras')}, a Keras model from uint8 images to probabilities, without tl_keras",
        f"export   tl-keras export --run_dir={directory} --format=litert --output=DIR, also onnx, openvino and saved_model",
    ]
