"""The Python interface: images in, a run out, and what is done with a run; settings by the names of the flags."""

import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import keras
import numpy as np
import pytest
from PIL import Image
from test_runtime import global_state

import tl_keras as tl
from tl_keras.errors import ConfigError, DamagedError, MissingError
from tl_keras.results.split_record import TEST, TRAIN, VALIDATION, read_split
from tools.make_settings_types import FILE, settings_module

SETTINGS = {"backbone": "tiny", "weights": "none", "epochs": 2, "batch_size": 16, "precision": "float32", "image_size": 16}


def write_photos(directory, *, number=12, classes=("cat", "dog"), seed=0):
    """Write dark cats and bright dogs, which are learned at once."""
    random = np.random.default_rng(seed)
    for label, name in enumerate(classes):
        (directory / name).mkdir(parents=True, exist_ok=True)
        for index in range(number):
            pixels = (random.integers(0, 100, (12, 10, 3)) + 150 * (label % 2)).astype(np.uint8)
            Image.fromarray(pixels).save(directory / name / f"{index:02}.png")
    return directory


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos") / "photos")


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    return tl.fit(photos, tmp_path_factory.mktemp("runs") / "run", verbose=0, **SETTINGS)


def contents(data, split):
    source = data.source
    examples = getattr(source, split)
    return sorted(examples.images.digests[examples.indices].tolist())


def test_a_folder_becomes_a_run_with_its_evaluation(run, photos):
    evaluation = run.evaluation
    assert run.is_finished and run.class_names == ("cat", "dog") and run.image_size == 16
    assert evaluation.num_examples == 5 and evaluation.interval_method == "wilson" and set(evaluation.recall) == {"cat", "dog"}
    assert evaluation.confusion_matrix.sum() == 5 and len(run.history) == 2
    assert f"n = {evaluation.num_examples}" in str(evaluation) and "cat" in evaluation._repr_html_()
    assert str(run.path) in str(run) and "finished" in repr(run)


@pytest.mark.parametrize("data", ["text", "path", "object"])
def test_the_same_call_returns_the_finished_run(run, photos, data, capsys):
    images = {"text": f"folder:{photos}", "path": photos, "object": tl.ImageData.from_directory(photos)}[data]
    before = (run.path / "result.json").stat().st_mtime_ns
    again = tl.fit(images, run.path, **SETTINGS)
    assert again.evaluation.accuracy == run.evaluation.accuracy and (run.path / "result.json").stat().st_mtime_ns == before
    assert "finished before" in capsys.readouterr().out
    tl.fit(images, run.path, verbose=0, **SETTINGS)
    assert not capsys.readouterr().out


def test_other_settings_in_the_directory_are_refused_with_the_difference(run, photos):
    with pytest.raises(ConfigError, match="epochs: 2 there, 3 here"):
        tl.fit(photos, run.path, verbose=0, **{**SETTINGS, "epochs": 3})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epohcs": 3}, "Unknown setting 'epohcs'. Did you mean 'epochs'"),
        ({"dataset": "digits"}, "`dataset` belongs to `data`"),
        ({"on_corrupt": "skip"}, "`on_corrupt` belongs to `data`"),
        ({"strategy": "heads"}, "Did you mean 'head'"),
        ({"verbose": 3}, "expected auto, 0, 1 or 2"),
        ({"grid": "learning_rate=0.1:1:2", "strategy": "head", "callbacks": [keras.callbacks.Callback()]}, "calls no `callbacks`"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_settings_are_refused_before_anything_is_written(photos, tmp_path, settings, words):
    with pytest.raises(ConfigError) as error:
        tl.fit(photos, tmp_path / "run", **{"verbose": 0, **SETTINGS, **settings})
    assert words in str(error.value) and not (tmp_path / "run").exists()


def test_a_wrong_kind_of_data_is_a_type_error(tmp_path):
    with pytest.raises(TypeError, match="received int"):
        tl.fit(3, tmp_path / "run")


def test_settings_win_over_the_configuration(photos, tmp_path):
    config = tl.RunConfig().replace(**SETTINGS).replace(dataset="digits", epochs=1, weights="imagenet")
    run = tl.fit(photos, tmp_path / "run", config=config, verbose=0, strategy=tl.strategies.Last(1), weights=None)
    assert run.config.train.epochs == 1 and run.config.train.strategy == "last:1" and run.config.data.dataset == f"folder:{photos}"


def test_evaluate_without_data_gives_the_scores_of_the_run(run):
    again = run.evaluate()
    assert again.accuracy == run.evaluation.accuracy and again.num_examples == run.evaluation.num_examples
    assert again.loss == pytest.approx(run.evaluation.loss, rel=1e-5)


def test_forty_new_images_are_forty_scored_by_class_name(run, tmp_path):
    """The new folder has the classes in another order, and one that the run does not know."""
    new = write_photos(tmp_path / "new", number=20, seed=1)
    assert run.evaluate(new).num_examples == 40
    dogs = write_photos(tmp_path / "dogs", number=4, seed=2)
    shutil.rmtree(dogs / "cat")
    found = run.evaluate(f"folder:{dogs}")
    assert found.num_examples == 4 and found.recall["cat"] is None and "have no test image" in found.notes[0]
    with pytest.raises(ConfigError, match="also has fox"):
        run.evaluate(write_photos(tmp_path / "foxes", classes=("dog", "fox"), number=2))


def test_images_that_the_run_was_trained_on_are_counted(run, photos, tmp_path):
    new = write_photos(tmp_path / "new", number=3, seed=3)
    shutil.copy(photos / "cat" / "00.png", new / "cat" / "known.png")
    shutil.copy(photos / "dog" / "00.png", new / "dog" / "known.png")
    trained = set(contents(run.load_data(), "train")) | set(contents(run.load_data(), "validation"))
    known = sum(
        digest in trained
        for digest in contents(tl.ImageData.from_directory(new), "train") + contents(tl.ImageData.from_directory(new), "test")
    )
    note = f"{known} of the 8 images were in the training or validation split of the run"
    assert (note in run.evaluate(new).notes) == bool(known)


def test_a_moved_folder_is_scored_on_the_test_images_of_the_run(photos, tmp_path):
    copy = shutil.copytree(photos, tmp_path / "first")
    run = tl.fit(copy, tmp_path / "run", verbose=0, **{**SETTINGS, "epochs": 1})
    copy.rename(tmp_path / "second")
    assert run.evaluate(tmp_path / "second").num_examples == run.evaluation.num_examples


def test_predictions_are_those_of_the_saved_model(run, photos):
    files = sorted((photos / "cat").iterdir())[:3]
    found = run.predict(files)
    images = np.stack([np.asarray(Image.open(file)) for file in files])
    serving = run.load_model(serving=True)
    np.testing.assert_allclose(found.probabilities, serving(images), atol=1e-5)
    np.testing.assert_allclose(run.predict(images).probabilities, found.probabilities, atol=1e-6)
    assert found.class_names == run.class_names and len(run.predict(files[0]).labels) == 1
    assert len(run.embed(files)) == 3


def test_sixteen_threads_predict_with_one_model(run, photos, monkeypatch):
    fresh, expected = tl.load_run(run.path), run.predict(photos).probabilities
    from tl_keras.runs.predict import Predictor

    loaded = []
    of_run = Predictor.of_run
    monkeypatch.setattr(Predictor, "of_run", lambda path: loaded.append(path) or of_run(path))
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: fresh.predict(photos).probabilities, range(16)))
    assert len(loaded) == 1
    for probabilities in found:
        np.testing.assert_array_equal(probabilities, expected)


def test_an_export_is_loaded_without_tl_keras(run, tmp_path, photos):
    before = (global_state(), dict(os.environ), os.getcwd())
    directory = run.export(tmp_path / "export")
    assert (global_state(), dict(os.environ), os.getcwd()) == before
    model = keras.models.load_model(directory / "model.keras")
    image = np.asarray(Image.open(photos / "cat" / "00.png"))[None]
    np.testing.assert_allclose(model(image), run.predict(image[0]).probabilities, atol=1e-4)


def test_a_killed_run_goes_on_with_the_same_call(photos, tmp_path):
    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    data = tl.ImageData.from_directory(photos)
    with pytest.raises(KeyboardInterrupt):
        tl.fit(data, tmp_path / "run", verbose=0, callbacks=[Kill()], **SETTINGS)
    killed = tl.load_run(tmp_path / "run")
    assert not killed.is_finished and len(killed.history) == 1 and killed.class_names == ("cat", "dog")
    with pytest.raises(ConfigError, match="unfinished run"):
        _ = killed.evaluation
    done = tl.fit(killed.load_data(), killed.path, config=killed.config, verbose=0)
    assert done.is_finished and len(done.history) == 2


def test_a_run_is_read_where_it_was_moved(run, tmp_path):
    moved = tl.load_run(shutil.copytree(run.path, tmp_path / "moved"))
    assert moved.evaluation.accuracy == run.evaluation.accuracy and moved.evaluate().num_examples == 5


@pytest.mark.parametrize(("directory", "error"), [("absent", MissingError), ("empty", ConfigError)])
def test_a_directory_without_a_run_is_refused(tmp_path, directory, error):
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=directory):
        tl.load_run(tmp_path / directory)


def test_fixed_splits_are_those_of_the_run(photos, tmp_path):
    data = tl.ImageData.from_directory(photos)
    first, second = (data.split(validation_fraction=0.25, test_fraction=0.25, seed=seed) for seed in (0, 1))
    assert contents(first, "test") == contents(second, "test") and contents(first, "validation") != contents(second, "validation")
    run = tl.fit(first, tmp_path / "run", verbose=0, **SETTINGS)
    record = read_split(run.path)
    for split, number in {"train": TRAIN, "validation": VALIDATION, "test": TEST}.items():
        assert contents(first, split) == sorted(record.digests[record.splits == number].tolist())
    assert contents(run.load_data(), "train") == contents(first, "train")
    with pytest.raises(ConfigError, match="other splits of these images"):
        tl.fit(second, run.path, verbose=0, **SETTINGS)


@pytest.fixture
def table(photos):
    files = sorted(photos.rglob("*.png"))
    return {
        "file": [str(file.relative_to(photos)) for file in files],
        "diagnosis": [file.parent.name for file in files],
        "patient": [f"{file.parent.name}{int(file.stem) // 2}" for file in files],
    }


COLUMNS = {"image_column": "file", "label_column": "diagnosis", "group_column": "patient"}


def test_a_table_with_groups(photos, table, tmp_path):
    data = tl.ImageData.from_dataframe(table, directory=photos, **COLUMNS)
    run = tl.fit(data, tmp_path / "run", verbose=0, **SETTINGS)
    assert run.evaluation.interval_method == "bootstrap_groups" and "bootstrap over groups" in str(run.evaluation)
    record = read_split(run.path)
    for group in np.unique(record.groups):
        assert len(set(record.splits[record.groups == group].tolist())) == 1
    accuracy = run.evaluation.accuracy
    moved = tl.load_run(run.path.rename(tmp_path / "moved"))
    assert moved.evaluate().accuracy == accuracy
    assert tl.fit(data, moved.path, verbose=0, **SETTINGS).evaluation.accuracy == accuracy


def test_a_table_gives_what_its_csv_file_gives(photos, table, tmp_path):
    path = photos.parent / "photos.csv"
    rows = zip(*table.values(), strict=True)
    path.write_text("\n".join([",".join(table), *(",".join([f"photos/{file}", *cells]) for file, *cells in rows)]))
    frame, file = tl.ImageData.from_dataframe(table, directory=photos, **COLUMNS), tl.ImageData.from_csv(path, **COLUMNS)
    assert frame.counts == file.counts and contents(frame, "test") == contents(file, "test")


def test_batches_are_those_that_keras_fits(photos):
    data = tl.ImageData.from_directory(photos).split(seed=0)
    batches = data.to_tf_dataset("train", image_size=16, batch_size=4, augmentation="flip", shuffle_seed=0)
    first, second = ([labels.numpy().tolist() for _, labels in batches] for _ in range(2))
    assert sum(first, []) != sum(second, []) and sorted(sum(first, [])) == sorted(sum(second, [])) and len(batches) == len(first)
    images, labels = next(iter(data.to_tf_dataset("test", image_size=16)))
    assert images.shape[1:] == (16, 16, 3) and images.dtype == "float32" and labels.dtype == "int32" and float(images.numpy().max()) > 1
    with pytest.raises(ConfigError, match="Unknown split 'tests'. Did you mean 'test'"):
        data.to_tf_dataset("tests", image_size=16)
    with pytest.raises(ConfigError, match="mixes labels"):
        data.to_tf_dataset("train", image_size=16, augmentation="mixup", shuffle_seed=0)
    with pytest.raises(ConfigError, match="need a seed"):
        data.to_tf_dataset("train", image_size=16, augmentation="flip")


def test_runs_are_compared_with_a_reference(photos, tmp_path):
    def fit(strategy, seed):
        return tl.fit(photos, tmp_path / f"{strategy}-{seed}", verbose=0, strategy=strategy, seed=seed, **{**SETTINGS, "epochs": 1})

    runs = {strategy: [fit(strategy, seed) for seed in (0, 1)] for strategy in ("head", "full")}
    found = tl.compare(runs, reference="head")
    assert found.seeds == (0, 1) and found.test == "McNemar" and 0 <= found.table["full"]["p"] <= found.table["full"]["p_holm"] <= 1
    accuracies = {name: np.mean([100 * run.evaluation.accuracy for run in own]) for name, own in runs.items()}
    assert found.table["full"]["difference"] == pytest.approx(accuracies["full"] - accuracies["head"])
    assert "reference head" in str(found) and found.to_dict()["table"]["head"]["p"] is None
    with pytest.raises(ConfigError, match="Unknown reference 'heads'"):
        tl.compare(runs, reference="heads")
    with pytest.raises(ConfigError, match="same seeds"):
        tl.compare({"head": runs["head"], "full": runs["full"][:1]}, reference="head")
    with pytest.raises(ConfigError, match="different seeds"):
        tl.compare({"head": [runs["head"][0]] * 2}, reference="head")


def test_runs_on_other_images_are_not_compared(run, tmp_path):
    other = tl.fit(write_photos(tmp_path / "other", seed=9), tmp_path / "run", verbose=0, **SETTINGS)
    with pytest.raises(ConfigError, match="other images"):
        tl.compare({"one": [run], "two": [other]}, reference="one")


def test_everything_is_pickled(run, photos):
    for value in (run, tl.ImageData.from_directory(photos), run.load_data(), run.config, run.evaluation, run.predict(photos)):
        copy = pickle.loads(pickle.dumps(value))
        assert repr(copy) == repr(value)


FRESH = """
import sys
import tl_keras as tl
photos, run_dir = sys.argv[1:]
def check(what):
    assert not {"tensorflow", "keras"} & set(sys.modules), what
data = tl.ImageData.from_directory(photos); check("from_directory")
data.class_names, data.counts, data.fingerprint, data.split(); check("data")
run = tl.load_run(run_dir); check("load_run")
run.config, run.is_finished, run.class_names, run.image_size, run.evaluation, run.history, run.result, run.temperature; check("run")
run.load_data().counts; check("load_data")
tl.compare({"a": [run], "b": [run]}, reference="a"); check("compare")
[tl.list_available(kind) for kind in ("backbones", "strategies", "augmentations", "datasets", "schedules", "weights")]; check("list")
tl.RunConfig().replace(epochs=2); check("config")
"""


def test_reading_loads_no_tensorflow(run, photos):
    done = subprocess.run([sys.executable, "-c", FRESH, str(photos), str(run.path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_another_backend_is_refused():
    code = "import tl_keras as tl\ntl.fit('digits', 'never', backbone='tiny', weights='none')"
    environment = {"KERAS_BACKEND": "jax", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "ConfigError: Keras runs on jax; tl_keras needs TensorFlow" in done.stderr


def test_the_settings_for_type_checkers_are_those_of_the_configuration():
    assert FILE.read_text() == settings_module(), "run python -m tools.make_settings_types"


def test_unknown_tables_are_refused():
    with pytest.raises(ConfigError, match="Unknown table 'backbone'. Did you mean 'backbones'"):
        tl.list_available("backbone")


def test_a_built_model_has_the_loaded_weights():
    model = tl.build_model("alexnet_narrow", 3, weights="glyphs")
    other = tl.build_model("alexnet_narrow", 3, weights=None)
    first = [layer for layer in model.layers if layer.weights][0].name
    assert not np.array_equal(model.get_layer(first).get_weights()[0], other.get_layer(first).get_weights()[0])


class Failure(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise RuntimeError("stop")


def check_dry_run(run, photos, tmp_path):
    assert "phase 1 of 1: full" in tl.dry_run(photos, **SETTINGS, strategy="full")


def check_lr_find(run, photos, tmp_path):
    found = tl.lr_find(photos, output=tmp_path / "lr", **SETTINGS)
    assert all(0 < rate < 10 for rate in found.values()) and (tmp_path / "lr" / "lr_find.csv").exists()


GLOBAL_STATE_CALLS = {
    "fit": lambda run, photos, tmp_path: tl.fit(photos, tmp_path / "run", verbose=0, **{**SETTINGS, "precision": "mixed_bfloat16"}),
    "fit that fails": lambda run, photos, tmp_path: tl.fit(photos, tmp_path / "run", verbose=0, callbacks=[Failure()], **SETTINGS),
    "evaluate": lambda run, photos, tmp_path: run.evaluate(),
    "evaluate that fails": lambda run, photos, tmp_path: run.evaluate("digits"),
    "predict": lambda run, photos, tmp_path: tl.load_run(run.path).predict(photos),
    "predict that fails": lambda run, photos, tmp_path: tl.load_run(run.path).predict(__file__),
    "lr_find": check_lr_find,
    "dry_run": check_dry_run,
}


@pytest.mark.parametrize("name", GLOBAL_STATE_CALLS)
def test_global_state_is_left_as_it_was(name, run, photos, tmp_path):
    before = (global_state(), dict(os.environ), os.getcwd())
    with pytest.raises((ConfigError, RuntimeError, DamagedError)) if name.endswith("fails") else nullcontext():
        GLOBAL_STATE_CALLS[name](run, photos, tmp_path)
    assert (global_state(), dict(os.environ), os.getcwd()) == before


def test_two_calls_in_one_process_give_what_two_processes_give(run, photos, tmp_path):
    code = f"import sys, tl_keras as tl; tl.fit(sys.argv[1], sys.argv[2], verbose=0, **{SETTINGS!r})"
    subprocess.run([sys.executable, "-c", code, f"folder:{photos}", str(tmp_path / "process")], check=True)
    there, second = tl.load_run(tmp_path / "process"), tl.fit(photos, tmp_path / "second", verbose=0, **SETTINGS)
    assert [here.evaluation.loss for here in (run, second)] == pytest.approx([there.evaluation.loss] * 2, rel=1e-4)


TYPED = """
import tl_keras as tl
run = tl.fit("digits", "runs/a", epochs=3, strategy=tl.strategies.Lora(rank=8), optimizer="adam", verbose=1)
reveal_type(run.evaluation.accuracy)
tl.fit("digits", "runs/a", epohcs=3)
tl.fit("digits", "runs/a", verbose="3")
tl.fit("digits", "runs/a", optimizer="lamb")
tl.fit("digits", "runs/a", epochs="3")
"""


@pytest.mark.slow
def test_a_type_checker_finds_wrong_settings(tmp_path):
    (tmp_path / "script.py").write_text(TYPED)
    root = FILE.parents[2]
    command = [sys.executable, "-m", "mypy", "--config-file", str(root / "pyproject.toml"), str(tmp_path / "script.py")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    errors = [line for line in done.stdout.splitlines() if "script.py" in line and "defined in" not in line]
    assert [int(line.split(":")[1]) for line in errors] == [4, 5, 6, 7, 8], done.stdout
    assert "Revealed type" in errors[0] and "float" in errors[0]


def test_fixed_splits_are_checked_before_anything_is_written(photos, tmp_path):
    data = tl.ImageData.from_directory(photos).split(seed=0)
    with pytest.raises(ConfigError, match="has a validation split of its own"):
        tl.fit(data, tmp_path / "run", verbose=0, **SETTINGS, split="streaming")
    assert not (tmp_path / "run").exists()
