"""`tl-keras fit`: from a folder to a tested and exported classifier, its plan, and folders as people have them."""

import html
import os
import re

import numpy as np
import pytest
from PIL import Image

import tl_keras
from tl_keras.cli import fit as fit_module
from tl_keras.cli import verbs
from tl_keras.data import load_source
from tl_keras.results.inspection_record import read_inspection

FAST = ("--backbone=tiny", "--weights=none", "--image_size=8", "--epochs=2", "--precision=float32")


def write_classes(root, names, num_images=6, seed=0):
    """Write images of 8 px, a folder for each of `names`. The names are bytes or text."""
    rng = np.random.default_rng(seed)
    for name in names:
        folder = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(folder)
        for number in range(num_images):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(
                os.path.join(folder, b"%d.png" % number).decode("utf-8", "surrogateescape")
            )
    return root


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Three digits with 40 images each, of which one is in the wrong folder, and a file that is no image."""
    root, images = tmp_path_factory.mktemp("data") / "digits", load_source(tl_keras.RunConfig().replace(dataset="digits").data).train
    names = ("zero", "one", "two")
    for name in names:
        (root / name).mkdir(parents=True)
    for label, name in enumerate(names):
        for number, position in enumerate(np.flatnonzero(images.labels == label)[:40].tolist()):
            folder = "two" if (label, number) == (0, 7) else name
            Image.fromarray(images.image(position)).save(root / folder / f"{name}_{number}.png")
    (root / "one" / "broken.png").write_text("no image")
    return root


@pytest.fixture
def no_plots(monkeypatch):
    """Pages without plots, which take a tenth of the time."""
    monkeypatch.setattr("tl_keras.report.plots.write_plots", lambda *arguments, **options: [])


def fit(*arguments):
    return verbs.main(["fit", *map(str, arguments)])


def test_a_dry_run_prints_findings_plan_and_command(digits, tmp_path, capsys):
    run_dir = tmp_path / "run"
    flags = ("--backbone=alexnet_narrow", "--weights=glyphs", "--image_size=64", "--budget=1h", "--strategy=head")
    assert fit(digits, *flags, f"--run_dir={run_dir}", "--dry_run") == 0
    text = capsys.readouterr().out
    assert "120 images in 3 classes (96 train, 24 test): one, two, zero" in text
    assert "sizes: 8 x 8 pixels" in text and "broken.png: expected an image" in text
    assert re.search(r"labels are doubtful.*\n.*two/zero_7\.png: zero has probability", text)
    assert re.search(r"--backbone=alexnet_narrow +given\n", text) and re.search(r"--on_corrupt=skip +files that are not images", text)
    for flag in ("validation_fraction", "batch_size", "grid", "time_limit"):
        assert re.search(rf"^  --{flag}=\S+ +\w+", text, re.MULTILINE)
    assert re.search(r"^tl-keras train --dataset=folder:\S+ .*--time_limit=\d+.* --run_dir=\S+$", text, re.MULTILINE)
    assert not run_dir.exists()


def test_a_folder_becomes_a_tested_and_exported_classifier(digits, tmp_path, capsys, no_plots):
    run_dir = tmp_path / "run"
    assert fit(digits, *FAST, "--budget=1h", f"--run_dir={run_dir}") == 0
    text = capsys.readouterr().out
    run = tl_keras.load_run(run_dir)
    assert run.is_finished and run.config.train.strategy == "full" and run.config.train.time_limit > 0
    assert re.search(r"reported after \d+ s of 3600 s", text) and "must all be trained" in text and "test accuracy" in text
    assert [line.split()[0] for line in text.splitlines()[-5:]] == ["report", "predict", "score", "use", "export"]
    plan = (run_dir / "plan.txt").read_text()
    assert "120 images in 3 classes" in plan and "--strategy=full" in plan and "tl-keras train" in plan
    page = (run_dir / "report" / "report.html").read_text()
    assert "tl-keras train" in page and f"{run.evaluation.num_examples:,}" in page
    assert page.count("broken.png") == 1 and "skipped 1 unreadable files" in run.result["data"]["notes"][0]
    inspection = read_inspection(run_dir)
    assert [path for path, reason in inspection.corrupt if reason.startswith("expected an image")] == ["one/broken.png"]
    assert any("120 images in 3 classes" in note for note in inspection.notes)
    assert "near duplicates and labels are not judged: that needs a pre-trained network" in inspection.notes
    predictions = tl_keras.load_run(run_dir).predict(digits / "one" / "one_0.png")
    assert predictions.class_names == ("one", "two", "zero")
    result = (run_dir / "result.json").read_bytes()
    assert fit(digits, *FAST, f"--run_dir={run_dir}") == 0  # a finished run is shown again
    assert "holds a run with a plan" in capsys.readouterr().out and (run_dir / "result.json").read_bytes() == result
    assert fit(digits, "--epochs=3", f"--run_dir={run_dir}") == 2
    assert "epochs: 2 there, 3 here" in capsys.readouterr().err


@pytest.mark.slow
def test_the_better_of_two_trainings_on_validation_is_used(digits, tmp_path, capsys, no_plots):
    run_dir = tmp_path / "run"
    flags = ("--backbone=alexnet_narrow", "--weights=glyphs", "--image_size=64", "--budget=1h", "--save_model=false")
    assert fit(digits, *flags, f"--run_dir={run_dir}") == 0
    text = capsys.readouterr().out
    assert len(re.findall(r"^tl-keras train .*--run_dir=", text, re.MULTILINE)) == 2
    stages, head = (tl_keras.load_run(path) for path in (run_dir, run_dir / "head"))
    assert stages.config.train.strategy.startswith("gradual:end=") and head.config.train.grid
    scores = [(run.result["metrics"]["validation"]["accuracy"], -run.result["metrics"]["validation"]["loss"]) for run in (stages, head)]
    best = head if scores[1] > scores[0] else stages
    assert f"{best.path} is used" in text and (best.path / "report" / "report.html").exists()
    for run in (stages, head):
        found = {suspect.file: (suspect.label, suspect.suggested) for suspect in read_inspection(run.path).suspected_labels}
        assert found["two/zero_7.png"] == ("two", "zero")
    (run_dir / "head" / "result.json").unlink()  # interrupted: the plan goes on with both
    assert fit(digits, *flags, f"--run_dir={run_dir}") == 0
    assert f"{best.path} is used" in capsys.readouterr().out and head.is_finished


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "expected sub-folders of images for two or more classes, found no sub-folder"),
        (lambda root: write_classes(root, ["only"]), "for two or more classes, found only"),
        (lambda root: write_classes(root, ["a", "b"], num_images=0), "holds no images|is empty"),
        (lambda root: write_classes(root, ["a", "b"], num_images=1), "every class has one image only"),
    ],
)
def test_impossible_folders_have_a_message(make, message, tmp_path, capsys):
    make(tmp_path)
    assert fit(tmp_path, *FAST) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["absent"], ["absent.csv"]])
def test_impossible_arguments_have_a_message(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert fit(*arguments) in (2, 3)
    assert "folder" in capsys.readouterr().err


HOSTILE = [
    "a b",
    "it's",
    'say "x"',
    "line\nbreak",
    "Käse",
    b"latin-\xe9",
    "<script>alert(1)</script>".replace("/", "|"),
    "`rm`$HOME",
    "--epochs=9",
    "=1+1",
    "long" * 63,
]


def test_hostile_names_have_a_result(tmp_path, capsys, no_plots):
    root = write_classes(tmp_path / "phot'os\n<b>", HOSTILE, num_images=4)
    for number, name in enumerate(("-rf", "a\nb", "<img src=x onerror=alert(1)>", "Ü" * 120, "'\"&;|`")):
        os.rename(root / "a b" / f"{number % 4}.png" if number < 4 else root / "it's" / "0.png", root / "a b" / f"{name}.png")
    (root / "it's" / "<b>broken\n.png").write_text("no image")
    assert fit(root, *FAST, "--save_model=false", f"--run_dir={tmp_path / 'r n'}") == 0
    text = capsys.readouterr().out
    assert "line break" in text and "Käse" in text and f"'{tmp_path}/r n'" in text
    page = (tmp_path / "r n" / "report" / "report.html").read_text()
    assert "<script>alert" not in page and html.escape("<script>alert") in page and "<b>broken" not in page
    assert html.escape('say "x"') in page and "line break" in page and "long" * 63 in page
    assert read_inspection(tmp_path / "r n").corrupt[0][0] == "it's/<b>broken .png"


def test_folders_of_links_are_read_on_request(tmp_path, capsys):
    write_classes(tmp_path / "elsewhere", ["a", "b"], num_images=4)
    for name in ("a", "b"):
        (tmp_path / "links" / name).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "links" / name / f"{number}.png").symlink_to(tmp_path / "elsewhere" / name / f"{number}.png")
    assert fit(tmp_path / "links", *FAST, "--dry_run") == 2
    assert "a link to outside" in (error := capsys.readouterr().err) and "--links=anywhere" in error
    assert fit(tmp_path / "links", *FAST, "--links=anywhere", "--dry_run") == 0
    assert "8 images in 2 classes" in capsys.readouterr().out


def test_a_folder_around_the_classes_is_passed_through_and_one_inside_a_class_is_named(tmp_path, capsys):
    write_classes(tmp_path / "outer" / "inner", ["a", "b"], num_images=4)
    assert fit(tmp_path / "outer", *FAST, "--dry_run") == 0
    assert "the images are those of inner/" in capsys.readouterr().out
    write_classes(tmp_path / "outer" / "inner" / "a", ["nested"])
    assert fit(tmp_path / "outer", *FAST, "--dry_run") == 2
    assert re.search(r"inner/a/nested: expected an image, found a folder", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("my.photos", "my.photos"),
        ("table.csv", "table"),
        ("a b's", "a-b-s"),
        ("/", "images"),
        (".hidden", "hidden"),
        ("日本", "日本"),
        ("photos/..", "cwd"),
    ],
)
def test_a_run_has_the_name_of_its_folder_or_table(path, name, tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    (tmp_path / "cwd" / "table.csv").touch()
    assert fit_module._name(fit_module._dataset([path])) == name


def test_a_finished_run_of_other_images_is_not_shown(tmp_path, capsys, no_plots):
    root = write_classes(tmp_path / "images", ["a", "b"])
    command = (root, *FAST, "--save_model=false", f"--run_dir={tmp_path / 'run'}")
    assert fit(*command) == 0
    os.rename(root / "a" / "0.png", root / "b" / "6.png")
    capsys.readouterr()
    assert fit(*command) == 2
    captured = capsys.readouterr()
    assert "has changed since it began" in captured.err and "finished before" not in captured.out


@pytest.mark.slow
def test_a_thousand_classes_have_a_plan(tmp_path, capsys):
    root = write_classes(tmp_path / "many", [f"class {number:04d}" for number in range(1000)], num_images=3)
    assert fit(root, "--backbone=alexnet_narrow", "--weights=glyphs", "--image_size=64", "--strategy=head", "--dry_run") == 0
    text = capsys.readouterr().out
    assert "3,000 images in 1,000 classes" in text and "1,000 classes have fewer than 20 images" in text
    assert len(text) < 20_000


@pytest.mark.slow
@pytest.mark.parametrize("train", ["train", ""])
def test_very_few_images_have_a_result(train, tmp_path, capsys, no_plots):
    """One image a class beside a test split, and two images a class: nothing is left to choose by."""
    root = tmp_path / "few"
    write_classes(root / train, ["a", "b"], num_images=1 if train else 2)
    if train:
        write_classes(root / "test", ["a", "b"], num_images=2, seed=1)
    flags = ("--backbone=alexnet_narrow", "--weights=glyphs", "--image_size=64", "--epochs=2", "--save_model=false")
    assert fit(root, *flags, f"--run_dir={tmp_path / 'run'}") == 0
    run = tl_keras.load_run(tmp_path / "run")
    assert run.config.train.strategy == "head" and not run.config.train.grid and run.result["data"]["num_validation"] == 0
    assert "a grid of heads needs features in memory and validation images" in capsys.readouterr().out


def test_classes_that_are_named_like_splits_are_named(tmp_path, capsys):
    root = write_classes(tmp_path / "splits", ["train", "test"])
    assert fit(root, *FAST, "--dry_run") == 0
    assert "classes are named like splits: test, train; a split holds a folder for each class" in capsys.readouterr().out
