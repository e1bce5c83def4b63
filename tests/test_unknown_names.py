"""A wrong name is answered with the nearest known one, wherever it is given."""

import shlex

import pytest

import tl_keras
from experiments import part_a
from tl_keras import ImageData, RunConfig
from tl_keras.cli import experiment, verbs
from tl_keras.errors import MAX_KNOWN, ConfigError, nearest, unknown
from tl_keras.exports.formats import choose_formats

TRAIN = "tl-keras train --dataset=digits --backbone=tiny --weights=none"
# Command line, the wrong name in it, and the suggestion. RUN is a finished run, TABLE a CSV file.
COMMANDS = [
    ("tl-keras fitt photos", "fitt", "fit"),
    ("tl-keras train --learning-rate=3", "learning-rate", "--learning_rate"),
    ("tl-keras train --epoch=3", "epoch", "--epochs"),
    ("tl-keras fit photos --budgt=3min", "budgt", "--budget"),
    ("tl-keras report --runs_dri=runs", "runs_dri", "--runs_dir"),
    ("tl-keras weights convert a.pth --backbon=vgg16", "backbon", "--backbone"),
    ("tl-keras weights downlod vgg16", "downlod", "download"),
    ("tl-keras weights download resnet-18", "resnet-18", "resnet18"),
    ("tl-keras weights download vgg16:imagnet", "imagnet", "imagenet"),
    ("tl-keras list backbone", "backbone", "backbones"),
    ("tl-keras list experiments --settings --experiment=parta", "parta", "part_a"),
    ("tl-keras train --backbone=ResNet-18", "ResNet-18", "resnet18"),
    ("tl-keras train --dataset=digts", "digts", "digits"),
    ("tl-keras train --dataset=Digits!", "Digits!", "digits"),
    (f"{TRAIN} --label=paritty", "paritty", "parity"),
    ("tl-keras train --dataset=digits --backbone=vgg16 --weights=imagnet", "imagnet", "imagenet"),
    (f"{TRAIN} --normalization=imagenett", "imagenett", "imagenet"),
    (f"{TRAIN} --strategy=lasst:2", "lasst", "last"),
    (f"{TRAIN} --strategy=train:hed", "hed", "head"),
    (f"{TRAIN} --strategy=freeze:steem", "steem", "stem"),
    (f"{TRAIN} --strategy=lora:rnk=2", "rnk", "rank"),
    (f"{TRAIN} --strategy=lora:targets=steem --epochs=1", "steem", "stem"),
    (f"{TRAIN} --stage_learning_rates=hed=1e-2", "hed", "head"),
    (f"{TRAIN} --schedule=cosin", "cosin", "cosine"),
    (f"{TRAIN} --schedule=step:evry=3", "evry", "every"),
    (f"{TRAIN} --augmentation=flipp", "flipp", "flip"),
    (f"{TRAIN} --augmentation=rotate:degree=3", "degree", "degrees"),
    (f"{TRAIN} --optimizer=adm", "adm", "adam"),
    (f"{TRAIN} --split=stream", "stream", "streaming"),
    (f"{TRAIN} --precision=mixed-float16", "mixed-float16", "mixed_float16"),
    (f"{TRAIN} --strategy=head --grid=learning_rat=0.1|0.2", "learning_rat", "learning_rate"),
    (f"{TRAIN} --keep=evn:0.5", "evn", "even"),
    (f"{TRAIN} --on_missing=embeded", "embeded", "embedded"),
    ("tl-keras train --dataset=csv:TABLE --backbone=tiny --weights=none --image_column=immage", "immage", "image"),
    ("tl-keras train --dataset=csv:TABLE --backbone=tiny --weights=none --split_column=lable", "lable", "label"),
    ("tl-keras export --run_dir=RUN --output=EMPTY --format=onx", "onx", "onnx"),
    ("tl-keras export --run_dir=RUN --output=EMPTY --format=litert --quantize=int-8", "int-8", "int8"),
    ("tl-keras predict --run_dir=RUN TABLE --on_corrupt=skp", "skp", "skip"),
    ("tl-keras evaluate --run_dir=RUN --dataset=digts", "digts", "digits"),
    ("tl-keras compare --reference=haed head=RUN full=RUN", "haed", "head"),
]


def require_suggestion(message, wrong, suggestion):
    assert wrong in message, message
    assert any(
        text in message for text in (f"Did you mean {suggestion!r}?", f"Did you mean {suggestion}", f"; the nearest is {suggestion}")
    ), message


@pytest.mark.parametrize(("command", "wrong", "suggestion"), COMMANDS, ids=[command for command, _, _ in COMMANDS])
def test_a_wrong_name_on_the_command_line(command, wrong, suggestion, finished_run, tmp_path, capsys, offline):
    table = tmp_path / "table.csv"
    table.write_text("image,label\na.png,cat\n")
    replaced = {"RUN": finished_run.directory, "TABLE": table, "EMPTY": tmp_path / "empty"}
    for name, path in replaced.items():
        command = command.replace(name, str(path))
    arguments = shlex.split(command)[1:]
    if arguments[0] == "train":
        arguments.append(f"--run_dir={tmp_path / 'run'}")
    assert verbs.main(arguments) == ConfigError.exit_code
    require_suggestion(capsys.readouterr().err, wrong, suggestion)
    assert not (tmp_path / "run" / "history.csv").exists() and not (tmp_path / "empty").exists()


@pytest.mark.parametrize(
    ("flag", "wrong", "suggestion"),
    [("--rows=pretrained 10 %", "pretrained 10 %", "pre-trained 10 %"), ("--profile=smok", "smok", "smoke"), ("--row=a", "row", "--rows")],
)
def test_a_wrong_name_for_an_experiment(flag, wrong, suggestion, tmp_path, capsys):
    assert experiment.experiment_main(part_a.EXPERIMENT, "", [flag, f"--runs_dir={tmp_path}"]) == ConfigError.exit_code
    require_suggestion(capsys.readouterr().err, wrong, suggestion)


@pytest.mark.parametrize("flag", ["--rows=vgg16-stp", "--profile=quik", "--result_dir=x"])
def test_a_wrong_name_for_the_benchmarks(flag, capsys):
    from benchmarks.__main__ import main

    assert main([flag]) == ConfigError.exit_code
    assert "Did you mean" in capsys.readouterr().err


CALLS = [
    (lambda: RunConfig().replace(epohcs=3), "epohcs", "epochs"),
    (lambda: RunConfig().replace(loss="crossentropy"), "crossentropy", "cross_entropy"),
    (lambda: tl_keras.fit("digits", "nowhere", learningrate=1), "learningrate", "learning_rate"),
    (lambda: tl_keras.list_available("backbone"), "backbone", "backbones"),
    (lambda: tl_keras.build_model("resnet-50", 3), "resnet-50", "resnet50"),
    (lambda: ImageData.from_tfds("digits").to_tf_dataset("tran", image_size=8), "tran", "train"),
    (lambda: ImageData.from_dataframe({"immage": ["a"], "label": ["b"]}), "image", "immage"),
    (lambda: ImageData.from_dataframe({"image": ["a"], "label": ["cta"]}, class_names=["cat", "dog"]), "cta", "cat"),
    (lambda: choose_formats("tflite-rt", "none"), "tflite-rt", "litert"),
]


@pytest.mark.parametrize(("call", "wrong", "suggestion"), CALLS, ids=[suggestion for _, _, suggestion in CALLS])
def test_a_wrong_name_in_python(call, wrong, suggestion):
    with pytest.raises(ConfigError) as error:
        call()
    require_suggestion(str(error.value), wrong, suggestion)


def test_case_and_hyphens_do_not_matter():
    assert nearest("EfficientNet-Lite0", ["efficientnet_lite1", "efficientnet_lite0"])[0] == "efficientnet_lite0"
    assert nearest("Siamese Cat", ["siamese_cat", "persian_cat"])[0] == "siamese_cat"


def test_of_a_long_table_the_nearest_are_named_alone():
    known = [f"class {number}" for number in range(10 * MAX_KNOWN)]
    message = str(unknown("class", "clas 17", known))
    assert "Did you mean 'class 17'? 800 are known, e.g. class 17, " in message and len(message) < 200
