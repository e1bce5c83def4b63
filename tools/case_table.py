"""The table of tools/try_cases.py: inputs that people really have, each with its source, what is tried, and a test of the outcome.

A case is one of the collection that `--cases` names; a neighbour is another instance of its kind, with a source of its own.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

KINDS = {
    1: "1 data that change under a run",
    2: "2 splits that can be trusted",
    3: "3 batch norm and small batches",
    4: "4 checkpoints as training scripts leave them",
    5: "5 images",
    6: "6 folders",
    7: "7 the last resort",
}
SUMMARY_LENGTH = 110
TELLING = re.compile(
    r"^(error: |note:? |[A-Za-z.]*(Error|Exception)\b|test accuracy|loss |SAME |OTHER |NOTHING )|nats|key|prefix|groups,|recall"
)


@dataclass(frozen=True)
class Outcome:
    """Exit code and text, standard error included, of a script."""

    code: int
    text: str

    @property
    def is_crash(self) -> bool:
        """True if the project ended in a traceback or by a signal."""
        return "Traceback (most recent call last)" in self.text or self.code in (134, 139)

    def has(self, pattern: str) -> bool:
        """Return True if the text matches a regular expression, with `.` for any character."""
        return re.search(pattern, self.text, re.DOTALL) is not None

    def summary(self) -> str:
        """Return the exit code and the most telling line, shortened."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        telling = [line for line in lines if TELLING.search(line)] or lines or [""]
        return f"exit {self.code}, {telling[-1][:SUMMARY_LENGTH]}"


Test = Callable[[Outcome], bool]


@dataclass(frozen=True)
class Case:
    """An entry of the table.

    Attributes:
        name: of a case that of the collection, e.g. `A1 delete`; of a neighbour N, its kind and a word, e.g. `N5 camera raw`.
        kind: key of KINDS.
        source: the thread (owner/repository#number), tool or format that the input is from.
        description: what is tried.
        expected: what is right, in words.
        script: Bash, run in an empty directory. `$CASES` holds the inputs of the collection; see PRELUDE in tools/try_cases.py.
        is_right: test of the outcome. A traceback is never right.
    """

    name: str
    kind: int
    source: str
    description: str
    expected: str
    script: str
    test: Test

    def is_right(self, outcome: Outcome) -> bool:
        """Return True if the outcome is what is expected."""
        return not outcome.is_crash and self.test(outcome)

    @property
    def is_neighbour(self) -> bool:
        """True if the entry is not of the collection."""
        return self.name.startswith("N")

    @property
    def needs_inputs(self) -> bool:
        """True if the script reads inputs of the collection."""
        return "$CASES" in self.script


def works(pattern: str = "") -> Test:
    """Return a test for exit code 0 and a text that matches."""
    return lambda outcome: outcome.code == 0 and outcome.has(pattern)


def refuses(pattern: str) -> Test:
    """Return a test for a message that matches."""
    return lambda outcome: outcome.code in (1, 2, 3, 4) and outcome.has(pattern) and "error: " in outcome.text


def either(*tests: Test) -> Test:
    """Return a test for one of several right outcomes."""
    return lambda outcome: any(test(outcome) for test in tests)


def without(pattern: str, test: Test) -> Test:
    """Return a test for `test`, and a text that does not match."""
    return lambda outcome: test(outcome) and not outcome.has(pattern)


def loss_below(limit: float) -> Test:
    """Return a test for a loss on the test split of less than `limit` nats."""

    def test(outcome: Outcome) -> bool:
        found = re.findall(r"loss +([0-9.]+|nan|inf) nats", outcome.text)
        return outcome.code == 0 and bool(found) and float(found[-1]) < limit

    return test


REFUSED_OR_SAME = either(refuses("added|removed|renamed|relabelled|changed"), works("SAME IMAGES"))
SAME_OR_REFUSED = "the test images of the run, or refused with what has changed"
TRAINED = "trained"


def _evaluate_after(change: str, evaluate: str = "tl-keras evaluate --run_dir=run") -> str:
    """Return a script that trains on `photos`, changes the folder, and compares the loss on the test images."""
    return f"""
make-input photos
tl-keras train --dataset=folder:photos $FAST --run_dir=run > first 2>&1 || exit 99
{change}
{evaluate} > second 2>&1; code=$?
cat second; [ $code = 0 ] && same-images; exit $code"""


def _shape(*names: str, flags: str = "") -> str:
    """Return a script that trains on folders of the collection, and ends with the exit code of the first that fails."""
    train = f'tl-keras train "--dataset=folder:$CASES/folder_shapes/photos/$name" $FAST {flags} --run_dir="run_$name"'
    return f'for name in {" ".join(names)}; do {train} || exit; check result "run_$name" data.class_names; done'


def _photos(change: str, flags: str = "") -> str:
    """Return a script that trains on `photos` after a change of the folder."""
    return f"make-input photos\n{change}\ntl-keras train --dataset=folder:photos $FAST {flags} --run_dir=run"


def _convert(*files: str, backbone: str = "resnet18") -> str:
    """Return a script that reads weights files into a backbone, and ends with the exit code of the last that fails."""
    commands = [
        f'tl-keras weights convert "{file}" --backbone={backbone} --output=out{i}.weights.h5 || code=$?' for i, file in enumerate(files)
    ]
    return "\n".join(["code=0", *commands, "exit $code"])


def _torch(*names: str) -> str:
    return _convert(*(f"$CASES/torch_checkpoints/{name}" for name in names))


def _checkpoint(name: str, choice: str = "") -> str:
    """Return a script that writes a checkpoint of tools/case_inputs.py and reads it."""
    return f"make-input checkpoint $CASES '{name}'\n" + _convert(f"model.pth{choice}")


def _image(name: str) -> str:
    return f"make-input {name} && check decode {name}"


def _given_image(name: str) -> str:
    return f"check decode $CASES/image_files/files/{name}"


RESNET = (
    "--dataset=digits --limit_test=100 --backbone=resnet18 --weights=none --image_size=32 --strategy=full --optimizer=sgd "
    "--learning_rate=0.01 --weight_decay=0 --schedule=constant --batch_size=32 --cache=off --precision=float32 --epochs=6 "
    "--selection=last --seed=0 --save_model=false"
)
MEMORIZE = (
    "--backbone=alexnet_narrow --weights=glyphs --image_size=64 --strategy=full --optimizer=adam --learning_rate=5e-4 --batch_size=16 "
    "--cache=off --precision=float32"
)
KILLED = """
PYTHONPATH=$CHECKOUT $PYTHON -m tl_keras train $SETTINGS --run_dir=run > /dev/null 2>&1 & pid=$!
until [ "$(wc -l < run/history.csv 2> /dev/null || echo 0)" -ge 4 ]; do sleep 0.1; kill -0 $pid || exit 98; done
"""
CHANGED_RUN = "cp -r $CASES/data_changed .\nSETTINGS='--dataset=folder:data_changed/photos "
FLAG_TURNED = r"48 x 32: top red, bottom blue"
FLAG_UPRIGHT = r"32 x 48: .*left red, right blue"
HEAD_LEFT_OUT = works("head|logits|left out|other classes|not in the file")

_CASES = (
    Case(
        "A1 add first",
        1,
        "TensorAuto/OpenTau#502",
        "noise learnt by heart, then one more picture, then evaluate",
        SAME_OR_REFUSED,
        f"{CHANGED_RUN}{MEMORIZE} --epochs=40 --validation_fraction=0'\ntl-keras train $SETTINGS --run_dir=run > first 2>&1\n"
        "$PYTHON data_changed/make.py more\ntl-keras evaluate --run_dir=run > second 2>&1; code=$?\n"
        "cat second; [ $code = 0 ] && same-images; exit $code",
        REFUSED_OR_SAME,
    ),
    Case(
        "A1 add last",
        1,
        "aiqm/torchani#443",
        "one more picture at the end, then evaluate",
        SAME_OR_REFUSED,
        _evaluate_after("make-input photos new cat 1 9; mv new/cat/000.png photos/dog/zzz.png"),
        REFUSED_OR_SAME,
    ),
    Case(
        "A1 delete",
        1,
        "aiqm/torchani#443",
        "a picture deleted, then evaluate",
        SAME_OR_REFUSED,
        _evaluate_after("rm photos/cat/000.png"),
        REFUSED_OR_SAME,
    ),
    Case(
        "A1 rename",
        1,
        "keras-team/keras#6152",
        "a picture renamed, then evaluate",
        SAME_OR_REFUSED,
        _evaluate_after("mv photos/cat/000.png photos/cat/zzz.png"),
        REFUSED_OR_SAME,
    ),
    Case(
        "A1 move",
        1,
        "aiqm/torchani#443",
        "a picture moved to the other class, then evaluate",
        SAME_OR_REFUSED,
        _evaluate_after("mv photos/cat/000.png photos/dog/zzz.png"),
        REFUSED_OR_SAME,
    ),
    Case(
        "A1 unreadable",
        1,
        "aiqm/torchani#443",
        "a picture damaged, then evaluate --on_corrupt=skip",
        SAME_OR_REFUSED,
        _evaluate_after("echo bad > photos/cat/000.png", "tl-keras evaluate --run_dir=run --on_corrupt=skip"),
        REFUSED_OR_SAME,
    ),
    Case(
        "A2 resume",
        1,
        "baudm/parseq#160",
        "training killed, a picture added, the same command",
        "refused, or goes on with the split of the run",
        f"{CHANGED_RUN}{MEMORIZE} --validation_fraction=0.2 --epochs=30'\n{KILLED}kill -9 $pid; $PYTHON data_changed/make.py more\n"
        "tl-keras train $SETTINGS --run_dir=run",
        either(refuses("changed"), works("recorded split")),
    ),
    Case(
        "A3 finished",
        1,
        "huggingface/datasets#444",
        "finished run, a picture added, the same command",
        "refused: the folder has changed",
        _evaluate_after(
            "make-input photos new cat 1 9; mv new/cat/000.png photos/cat/new.png",
            "tl-keras train --dataset=folder:photos $FAST --run_dir=run",
        ),
        refuses("1 added"),
    ),
    Case(
        "A3 weights",
        1,
        "huggingface/datasets#2956",
        "finished run, the weights file replaced, the same command",
        "refused: another content",
        "SETTINGS='--dataset=digits --limit_train=40 --limit_test=20 --backbone=resnet18 --weights=my.pth --image_size=32 --strategy=head "
        "--epochs=1'\n"
        "cp $CASES/torch_checkpoints/plain.pth my.pth; tl-keras train $SETTINGS --run_dir=run > /dev/null || exit 99\n"
        "cp $CASES/torch_checkpoints/half.pth my.pth; tl-keras train $SETTINGS --run_dir=run",
        refuses("content|weights"),
    ),
    Case(
        "B6 failed start",
        1,
        "met on the way",
        "a start refused for its weights, then the right ones",
        TRAINED,
        "echo '<html>' > bad.pth\ntl-keras train $DIGITS --weights=bad.pth --run_dir=run && exit 99\ntl-keras train $DIGITS --run_dir=run",
        works(),
    ),
    Case(
        "B7 export",
        1,
        "timeseriesAI/tsai#642",
        "the folder of a finished run is gone, then export",
        "exported, checked on kept images",
        _evaluate_after("mv photos elsewhere", "tl-keras export --run_dir=run --format=keras --output=out"),
        works("compared on"),
    ),
    Case(
        "B8 slash",
        1,
        "timeseriesAI/tsai#642",
        "the same folder with a slash at its end, and by its absolute path",
        "the same run",
        _evaluate_after(
            "tl-keras train --dataset=folder:photos/ $FAST --run_dir=run || exit",
            'tl-keras train "--dataset=folder:$PWD/photos" $FAST --run_dir=run',
        ),
        works("SAME IMAGES"),
    ),
    Case(
        "A4 imbalanced",
        2,
        "davidsandberg/facenet#12",
        "classes of 200 and of 3 pictures",
        "both tested, or a note",
        "tl-keras train --dataset=folder:$CASES/many_classes/imbalanced $FAST --run_dir=run; check result run metrics.test.recall",
        either(works("no test image"), without("None", works("recall"))),
    ),
    Case(
        "A4 long tail",
        2,
        "trent-b/iterative-stratification#6",
        "60 classes of 30 to 1 pictures",
        "untested classes are named",
        "tl-keras train --dataset=folder:$CASES/many_classes/long_tail $FAST --run_dir=run",
        works("classes have no test image"),
    ),
    Case(
        "A4 one image",
        2,
        "huggingface/pytorch-image-models#211",
        "six classes of one picture",
        "trained on, and named as untested",
        _shape("rare_many"),
        without("have no images", works("6 of 8 classes have no test image")),
    ),
    Case(
        "A5 flat",
        2,
        "fastai/fastai#1552",
        "50 new labelled pictures, evaluated",
        "all 50 are scored",
        "tl-keras train --dataset=folder:$CASES/data_changed/photos $FAST --run_dir=run > /dev/null\n"
        "tl-keras evaluate --run_dir=run --dataset=folder:$CASES/evaluate_new/new",
        works("n = 50"),
    ),
    Case(
        "A5 only test",
        2,
        "fastai/fastai#1552",
        "a folder with test/ alone, and one of a single class",
        "10 pictures are scored of each",
        "tl-keras train --dataset=folder:$CASES/data_changed/photos $FAST --run_dir=run > /dev/null\n"
        "tl-keras evaluate --run_dir=run --dataset=folder:$CASES/evaluate_new/test_only &&"
        "tl-keras evaluate --run_dir=run --dataset=folder:$CASES/evaluate_new/only_cats",
        works("n = 10.*n = 10"),
    ),
    Case(
        "A6 copies",
        2,
        "stefyste/RIAWELC#2",
        "every picture twice, in a folder without splits",
        "copies are kept together, with a note",
        "tl-keras train --dataset=folder:$CASES/duplicates/photos_bytes $FAST --run_dir=run",
        works("are copies of"),
    ),
    Case(
        "C11 test lacks a class",
        2,
        "ultralytics/ultralytics#13936",
        "test/ without one class, or with it empty",
        "scored by name, with a note",
        _shape("test_lacks_class", "test_class_empty"),
        works("no test image.*no test image"),
    ),
    Case(
        "A7 two left",
        3,
        "fastai/fastai#1352",
        "resnet18 from scratch, 130 pictures in batches of 32",
        "a loss as without the last batch (4 to 9)",
        f"tl-keras train {RESNET} --limit_train=130 --run_dir=run",
        loss_below(30),
    ),
    Case(
        "A7 one left",
        3,
        "pytorch/pytorch#7716",
        "the same with 129 pictures",
        "a loss as without the last batch",
        f"tl-keras train {RESNET} --limit_train=129 --run_dir=run",
        loss_below(30),
    ),
    Case(
        "A8 timm",
        4,
        "lightly-ai/lightly-train#484",
        "averaged weights beside the plain ones, as timm saves them",
        "named",
        _torch("timm_noargs.pth"),
        works("state_dict_ema"),
    ),
    Case(
        "A8 torchvision",
        4,
        "facebookresearch/fairchem#289",
        "averaged weights beside the plain ones, as torchvision saves them",
        "named",
        _torch("tv_noargs.pth"),
        works("model_ema"),
    ),
    Case(
        "C1 prefixes",
        4,
        "karpathy/nanoGPT#325",
        "names behind module., _orig_mod., model. and backbone.",
        "read, and the prefix said",
        _torch("module.pth", "orig_mod.pth", "lightning_model.pth", "backbone_prefix.pth"),
        works("module.*_orig_mod.*model.*backbone"),
    ),
    Case(
        "C2 arguments",
        4,
        "mlcommons/mlperf-automations#465",
        "an argparse.Namespace and NumPy values beside the weights",
        "read",
        _torch("timm_ema.pth", "torchvision_ema.pth", "numpy_scalar.pth"),
        works(),
    ),
    Case(
        "C3 wrappers",
        4,
        "OpenGVLab/InternImage#297",
        "the state dict under net, params, weights, model_state, network or module",
        "read",
        _torch(*(f"under_{name}.pth" for name in "net params weights model_state network module".split())),
        works(),
    ),
    Case(
        "C4 names",
        4,
        "penincillin/DREAM#61",
        "model_best.pth.tar, lightning.ckpt, pytorch_model.bin, UPPER.PTH",
        "read by content",
        _torch("model_best.pth.tar", "lightning.ckpt", "pytorch_model.bin", "UPPER.PTH"),
        works(),
    ),
    Case(
        "C5 heads of torch",
        4,
        "huggingface/pytorch-image-models#2142",
        "a head of two layers, and one behind a dropout",
        "the head is left out",
        _torch("head_sequential.pth", "head_mlp.pth"),
        HEAD_LEFT_OUT,
    ),
    Case(
        "C5 models of Keras",
        4,
        "open-mmlab/mmdetection#8731",
        "functional, nested, augmented and custom models",
        "the head is left out",
        _convert(
            *(
                f"$CASES/keras_files/{name}.{end}"
                for name in "functional nested augmented custom".split()
                for end in ("keras", "weights.h5")
            ),
            backbone="mobilenet_0.75",
        ),
        HEAD_LEFT_OUT,
    ),
    Case(
        "C7 whole models",
        4,
        "keras-team/keras#3359",
        "model.save('x.h5') of a bare and of a nested model",
        "read",
        _convert("$CASES/keras_files/bare.h5", "$CASES/keras_files/nested.h5", backbone="mobilenet_0.75"),
        works(),
    ),
    Case(
        "C8 rational",
        5,
        "python-pillow/Pillow#8965",
        "EXIF data that cannot be written again",
        "turned",
        _given_image("exif_o6_bad_rational.jpg"),
        works(FLAG_TURNED),
    ),
    Case(
        "C10 no end",
        5,
        "neighbour of truncated files",
        "a JPEG without its two last bytes",
        "all pixels, with a note",
        _given_image("jpeg_no_eoi.jpg"),
        works(FLAG_UPRIGHT + ".*end marker"),
    ),
    Case(
        "C13 HEIC",
        5,
        "replicate/dreambooth#23",
        "a photograph of an iPhone, called .jpg",
        "named, with what to install",
        _given_image("heic.jpg"),
        refuses("HEIC.*pillow-heif"),
    ),
    Case(
        "C13 pointer",
        5,
        "replicate/dreambooth#23",
        "a pointer of Git LFS in place of the image",
        "named",
        _given_image("lfs_pointer.jpg"),
        refuses("Git LFS"),
    ),
    Case(
        "C15 twelve bits",
        5,
        "neighbour",
        "12 bits in 16",
        "a note",
        _given_image("grey12in16.png") + " && " + _given_image("grey12in16.tif"),
        works("12 .*12 "),
    ),
    Case(
        "A10 root",
        6,
        "photoview/photoview#430",
        "@eaDir beside the classes",
        "ignored",
        _shape("synology_root"),
        works(r"class_names = \['cat', 'dog'\]"),
    ),
    Case(
        "A10 inside",
        6,
        "pytorch/vision#2831",
        "@eaDir in a class; lost+found; Icon\\r",
        "ignored",
        _shape("synology", "lost_found", "icon_cr"),
        works(),
    ),
    Case("B1 file", 6, "hooram/ownphotos#112", "a file name in Latin-1", TRAINED, _shape("latin1_file"), works("class_names")),
    Case("B1 class", 6, "hooram/ownphotos#112", "a class name in Latin-1", TRAINED, _shape("latin1_class"), works("class_names")),
    Case(
        "B2 loop",
        6,
        "python/cpython#109187",
        "a link that leads to itself",
        "an unreadable file, by name",
        _shape("loop"),
        refuses("loop.png"),
    ),
    Case(
        "B11 capitals", 6, "fastai/fastai#1552", "Train/ and Test/", "taken as splits", _shape("capital_splits"), works(r"\['cat', 'dog'\]")
    ),
    Case(
        "B11 training",
        6,
        "fastai/fastai#1552",
        "training/ and validation/",
        "taken as splits",
        _shape("training_validation"),
        works(r"\['cat', 'dog'\]"),
    ),
    Case(
        "C12 links",
        6,
        "huggingface/datasets#6853",
        "links out of the folder",
        "allowed by a flag",
        _shape("link_outside", "link_class_outside", flags="--links=anywhere"),
        works("bird|cat"),
    ),
    Case(
        "C14 path",
        6,
        "usual slip",
        "--dataset=photos where such a folder exists",
        "did you mean folder:photos",
        "make-input photos; tl-keras train --dataset=photos $FAST --run_dir=run",
        refuses("folder:photos"),
    ),
    Case(
        "C14 names",
        6,
        "usual slip",
        "CIFAR10, and cifar10:3.0.2",
        "the right name is given",
        "tl-keras train --dataset=CIFAR10 $FAST --run_dir=a; tl-keras train --dataset=cifar10:3.0.2 $FAST --run_dir=b",
        refuses("dataset=cifar10.*dataset=cifar10"),
    ),
    Case(
        "B3 full disk",
        7,
        "tensorflow/tensorflow#4350",
        "export of a SavedModel to a full disk",
        "no space left",
        "tl-keras train $DIGITS --run_dir=run > /dev/null\n"
        "unshare -m bash -c 'mount -t tmpfs -o size=3m tmpfs /mnt && "
        "new-tl-keras export --run_dir=run --format=saved_model --output=/mnt/x'",
        refuses("No space left"),
    ),
    Case(
        "B4 file",
        7,
        "met on the way",
        "export below a file, and below /proc; a cache directory that is a file",
        "one line each",
        "tl-keras train $DIGITS --run_dir=run > /dev/null; touch FILE\ntl-keras export --run_dir=run --output=FILE/x\n"
        "tl-keras export --run_dir=run --output=/proc/x; tl-keras train $DIGITS --cache=disk --cache_dir=FILE --run_dir=new",
        refuses("error: .*FILE.*error: .*/proc.*error: .*FILE"),
    ),
    Case(
        "B4 limit",
        7,
        "met on the way",
        "a limit of the size of files, during export",
        "named",
        "tl-keras train $DIGITS --run_dir=run > /dev/null; ulimit -f 1000\n"
        "new-tl-keras export --run_dir=run --format=saved_model --output=out",
        refuses("File too large"),
    ),
    Case(
        "B5 home",
        7,
        "choosehappy/HistoQC#197",
        "--run_dir=~/runs/a, which the shell leaves as it is",
        "in the home directory",
        "export HOME=$PWD/home; tl-keras train $DIGITS '--run_dir=~/runs/a' && ls home/runs/a/result.json && ! ls -d './~'",
        works("result.json"),
    ),
)

_NEIGHBOURS = (
    Case(
        "N1 new class",
        1,
        "facebookresearch/deit#130",
        "a folder of another class is added, then evaluate",
        "refused: other classes, or the test images",
        _evaluate_after("make-input photos photos bird 10 7"),
        either(refuses("classes.*bird"), works("SAME IMAGES")),
    ),
    Case(
        "N1 class renamed",
        1,
        "experiencor/keras-yolo3#82",
        "a class is renamed, then evaluate",
        "refused: other classes",
        _evaluate_after("mv photos/dog photos/dogs"),
        refuses("classes.*dogs"),
    ),
    Case(
        "N1 classes swapped",
        1,
        "mshahbazi72/transitional-cGAN#3",
        "two folders of classes are swapped, then evaluate",
        "refused: relabelled",
        _evaluate_after("mv photos/dog x; mv photos/cat photos/dog; mv x photos/cat"),
        refuses("relabelled|changed"),
    ),
    Case(
        "N1 described",
        1,
        "tool: exiftool",
        "a text is written into every picture, then evaluate",
        "the same images: pixels count",
        _evaluate_after("make-input describe photos"),
        works("SAME IMAGES"),
    ),
    Case(
        "N1 recompressed",
        1,
        "ajslater/picopt#33",
        "an optimizer saves every picture again, with other pixels, then evaluate",
        "refused",
        _evaluate_after("make-input recompress photos"),
        refuses("changed"),
    ),
    Case(
        "N1 moved",
        1,
        "tool: rsync",
        "the folder is moved and evaluated by its new path",
        "its own test images, none that was trained on",
        _evaluate_after("mv photos elsewhere", "tl-keras evaluate --run_dir=run --dataset=folder:elsewhere"),
        works("SAME IMAGES"),
    ),
    Case(
        "N1 moved and grown",
        1,
        "tool: rsync",
        "the folder is copied, one picture is added, and the copy evaluated",
        "no image that was trained on, or a note",
        _evaluate_after(
            "cp -r photos copy; make-input photos new cat 1 9; mv new/cat/000.png copy/cat/zzz.png",
            "tl-keras evaluate --run_dir=run --dataset=folder:copy",
        ),
        either(works("SAME IMAGES"), works("were (trained on|in the training)"), refuses("changed")),
    ),
    Case(
        "N1 preempted",
        1,
        "EveryVoiceTTS/EveryVoice#183",
        "training killed, a picture renamed, the same command",
        "goes on with its split",
        f"{CHANGED_RUN}{MEMORIZE} --validation_fraction=0.2 --epochs=12'\n{KILLED}kill -9 $pid\n"
        "(cd data_changed/photos/cat; mv 000.png x.png)\n"
        "tl-keras train $SETTINGS --run_dir=run",
        works("renamed"),
    ),
    Case(
        "N1 preempted and deleted",
        1,
        "EveryVoiceTTS/EveryVoice#183",
        "training killed, pictures deleted, the same command",
        "refused",
        f"{CHANGED_RUN}{MEMORIZE} --validation_fraction=0.2 --epochs=12'\n{KILLED}kill -9 $pid; rm data_changed/photos/cat/00*.png\n"
        "tl-keras train $SETTINGS --run_dir=run",
        refuses("removed"),
    ),
    Case(
        "N2 patients",
        2,
        "UCSD-AI4H/COVID-CT#11",
        "several pictures of a patient, --group_by",
        "each patient is in one split",
        "make-input photos a cat 8 1; make-input photos b dog 8 2; mkdir -p photos/cat photos/dog\n"
        "for i in $(seq 0 7); do mv a/cat/00$i.png photos/cat/p$((i / 2))_$i.png; mv b/dog/00$i.png photos/dog/q$((i / 2))_$i.png; done\n"
        "tl-keras train --dataset=folder:photos '--group_by=([pq]\\d+)_' $FAST --run_dir=run && check apart run '([pq]\\d+)_'",
        works("8 groups, 0 in several"),
    ),
    Case(
        "N2 augmented before",
        2,
        "rsarka34/RDLINet#1",
        "three versions of each picture, as annotation tools export them, --group_by",
        "all versions are in one split",
        "make-input augment_before_split; tl-keras train --dataset=folder:photos '--group_by=(IMG_\\d+)' $FAST --run_dir=run "
        "&& check apart run '(IMG_\\d+)'",
        works("24 groups, 0 in several"),
    ),
    Case(
        "N2 unlabelled test",
        2,
        "fastai/fastai#1056",
        "train/ with classes, test/ with pictures alone",
        "a split is carved, with a note, or test/ named",
        "make-input photos photos/train; make-input photos x test 4 3; mv x/test photos/test\n"
        "tl-keras train --dataset=folder:photos $FAST --run_dir=run",
        either(
            works("test.*(no classes|not labelled|not used|no labels)"),
            refuses("test.*(no classes|not labelled|without classes|no labels)"),
        ),
    ),
    Case(
        "N2 unknown test",
        2,
        "huggingface/pytorch-image-models#2323",
        "train/ with classes, test/unlabeled/ with pictures",
        "refused: no such class",
        "make-input photos photos/train; make-input photos photos/test unlabeled 4 3\n"
        "tl-keras train --dataset=folder:photos $FAST --run_dir=run",
        either(refuses("unlabeled"), works("unlabeled")),
    ),
    Case(
        "N2 copies across",
        2,
        "sergeywong/cp-vton#42",
        "training pictures in test/, in another format",
        "a note with their number",
        "make-input photos photos/train; make-input photos photos/test cat,dog 3 5; make-input mirror_split photos train test\n"
        "tl-keras train --dataset=folder:photos $FAST --run_dir=run",
        works("20 images outside train are copies"),
    ),
    Case(
        "N2 validation is test",
        2,
        "ArnabKumarRoy02/ResEmoteNet#44",
        "pictures of test/ in validation/ too",
        "a note: the best epoch is chosen on them",
        "make-input photos photos/train; make-input photos photos/test cat,dog 4 5; make-input mirror_split photos test validation\n"
        "tl-keras train --dataset=folder:photos $FAST --run_dir=run",
        works("test images are copies of validation images"),
    ),
    Case(
        "N2 smaller copies",
        2,
        "tool: WordPress (NAME-16x16.png)",
        "every picture twice, the second resized",
        "a note, or kept together",
        "make-input resized_copies; tl-keras train --dataset=folder:photos $FAST --run_dir=run",
        works(r"note [^\n]*(copies of|similar|alike)"),
    ),
    Case(
        "N3 fewer than a batch",
        3,
        "arm/neural-graphics-model-gym#147",
        "24 pictures in batches of 64",
        "one batch an epoch",
        f"tl-keras train {RESNET} --limit_train=24 --batch_size=64 --run_dir=run",
        loss_below(30),
    ),
    Case(
        "N3 one left of 33",
        3,
        "azavea/raster-vision#1029",
        "33 pictures in batches of 32",
        "a loss as with 32",
        f"tl-keras train {RESNET} --limit_train=33 --run_dir=run",
        loss_below(30),
    ),
    Case(
        "N3 accumulated",
        3,
        "huggingface/transformers#39659",
        "33 pictures, four batches of 8 an update",
        "a loss as with 32",
        f"tl-keras train {RESNET} --limit_train=33 --batch_size=8 --accumulate_steps=4 --run_dir=run",
        loss_below(30),
    ),
    Case(
        "N3 mixed",
        3,
        "RasmussenLab/vamb#425",
        "mixup with a last batch of one",
        "a loss as with 32",
        f"tl-keras train {RESNET} --limit_train=33 --augmentation=mixup --run_dir=run",
        loss_below(30),
    ),
    Case(
        "N3 cached",
        3,
        "fastai/fastai#1557",
        "a head on cached features, with a last batch of one",
        TRAINED,
        "tl-keras train --dataset=digits $FAST --cache=memory --limit_train=33 --batch_size=32 --limit_test=30 --run_dir=run",
        loss_below(10),
    ),
    Case(
        "N3 evaluation",
        3,
        "tensorflow/tensorflow#27993",
        "evaluate with batches of 7 and of 64 of 30 pictures",
        "one loss",
        "tl-keras train $DIGITS --run_dir=run > /dev/null; tl-keras evaluate --run_dir=run --batch_size=7 > first\n"
        "tl-keras evaluate --run_dir=run --batch_size=64 > second; cat second; same-images",
        works("SAME IMAGES"),
    ),
    Case(
        "N4 compiled in parallel",
        4,
        "FareedKhan-dev/train-llm-from-scratch#36",
        "names behind module._orig_mod.",
        "read, and the prefix said",
        _checkpoint("compiled in parallel"),
        works("module._orig_mod."),
    ),
    Case(
        "N4 average",
        4,
        "sming256/OpenTAD#44",
        "averaged weights with another prefix, chosen by #ema",
        "read, and the prefix said",
        _checkpoint("average in parallel", "#ema"),
        works("module."),
    ),
    Case(
        "N4 weights of a loss",
        4,
        "Lightning-AI/pytorch-lightning#2617",
        "criterion.pos_weight beside model.*",
        "read",
        _checkpoint("weights of a loss"),
        works("criterion"),
    ),
    Case(
        "N4 states of metrics",
        4,
        "Lightning-AI/pytorch-lightning#4361",
        "a metric's confusion matrix beside model.*",
        "read",
        _checkpoint("states of metrics"),
        works("val_acc"),
    ),
    Case(
        "N4 online probe",
        4,
        "Lightning-Universe/paper-AAVAE#2",
        "online_finetuner.weight beside model.*",
        "read",
        _checkpoint("online probe"),
        works("online_finetuner"),
    ),
    Case(
        "N4 momentum contrast",
        4,
        "facebookresearch/moco#84",
        "encoder_q, encoder_k and a queue in one dict",
        "encoder_q is read, and said",
        _checkpoint("momentum contrast"),
        works("encoder_q"),
    ),
    Case(
        "N4 sequential encoder",
        4,
        "open-mmlab/mmselfsup#74",
        "encoder_q.0.*, a neck and a queue",
        "read",
        _checkpoint("sequential encoder"),
        works("encoder_q.0"),
    ),
    Case(
        "N4 average in one dict",
        4,
        "MeteoSwiss/ldcast#12",
        "model.* and model_ema.* in one dict",
        "model.* is read, the rest named",
        _checkpoint("average in one dict"),
        works("model_ema"),
    ),
    Case(
        "N4 pointer",
        4,
        "hhj1897/face_parsing#3",
        "a pointer of Git LFS in place of the weights",
        "named",
        "printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:%064d\\nsize 12345\\n' 0 > model.pth\n" + _convert("model.pth"),
        refuses("LFS"),
    ),
    Case("N5 large text", 5, "python-pillow/Pillow#8363", "a PNG with a text of 3 MB", "read", _image("large_text"), works(FLAG_UPRIGHT)),
    Case(
        "N5 large profile",
        5,
        "python-pillow/Pillow#2445",
        "a PNG with a profile of 3 MB",
        "read",
        _image("large_profile"),
        works(FLAG_UPRIGHT),
    ),
    Case(
        "N5 turned PNG",
        5,
        "format: PNG 3, chunk eXIf",
        "orientation in a PNG's EXIF chunk",
        "turned",
        _image("png_exif"),
        works(FLAG_TURNED),
    ),
    Case(
        "N5 turned PNG, text",
        5,
        "w3c/png#310",
        "orientation in a PNG's text, as ImageMagick writes it",
        "turned",
        _image("png_raw_profile"),
        works(FLAG_TURNED),
    ),
    Case(
        "N5 turned PNG, XMP",
        5,
        "python-pillow/Pillow#4529",
        "orientation in a PNG's XMP alone, as macOS Preview writes it",
        "turned",
        _image("png_xmp"),
        works(FLAG_TURNED),
    ),
    Case("N5 turned WebP", 5, "format: WebP, chunk EXIF", "orientation in a WebP", "turned", _image("webp_exif"), works(FLAG_TURNED)),
    Case(
        "N5 camera raw",
        5,
        "libvips/libvips#1416",
        "a DNG, whose first image is a preview of 16 x 12",
        "named: not a picture to train on",
        _image("dng"),
        refuses("raw"),
    ),
    Case(
        "N5 scanner",
        5,
        "python-pillow/Pillow#1885",
        "a TIFF of three channels of 16 bits",
        "named, with what to do",
        _image("tiff_rgb16"),
        either(works(FLAG_UPRIGHT), refuses("TIFF.*onvert")),
    ),
    Case(
        "N5 Xcode",
        5,
        "format: CgBI, Xcode's pngcrush",
        "a PNG as iPhone apps hold it",
        "named, with what to do",
        _image("apple_png"),
        either(works(FLAG_UPRIGHT), refuses("iPhone|Xcode|CgBI")),
    ),
    Case(
        "N5 heights",
        5,
        "python-pillow/Pillow#4819",
        "a TIFF of signed 16 bits",
        "refused with the reason",
        _image("signed_tiff"),
        refuses("bits|range|signed"),
    ),
    Case(
        "N6 snapshots",
        6,
        "nova-video-player/aos-AVP#1308",
        "@Recently-Snapshot of a QNAP beside the classes",
        "ignored",
        _photos("make-input photos photos @Recently-Snapshot 3") + "; check result run data.class_names",
        works(r"\['cat', 'dog'\]"),
    ),
    Case(
        "N6 thumbnails",
        6,
        "MediaBrowser/Emby#3246",
        ".@__thumb of a QNAP in a class",
        "ignored",
        _photos("make-input photos photos/cat .@__thumb 3") + "; check result run data.class_names",
        works(r"\['cat', 'dog'\]"),
    ),
    Case(
        "N6 two normal forms",
        6,
        "uewepuep/FPVTracksideCore#75",
        "a class's accent composed in train/, decomposed in test/",
        "one class",
        "make-input two_normal_forms; tl-keras train --dataset=folder:photos $FAST --run_dir=run; check result run data.num_test",
        works("num_test = 20"),
    ),
    Case(
        "N6 live photos",
        6,
        "LibrePhotos/librephotos#531",
        "a .MOV beside a picture",
        "named as a video; with skip, trained",
        _photos("printf '\\0\\0\\0\\x14ftypqt  \\0\\0\\0\\0qt  ' > photos/cat/000.MOV") + "\n"
        "tl-keras train --dataset=folder:photos $FAST --on_corrupt=skip --run_dir=run2",
        works("a video.*skipped"),
    ),
    Case(
        "N6 detection",
        6,
        "format: YOLO (images/, labels/)",
        "train/images and train/labels with texts",
        "refused: labels/ holds no images, but texts",
        "make-input photos photos/train images,labels 4; rm photos/train/labels/*\n"
        "for i in 0 1 2 3; do echo 0 0.5 > photos/train/labels/$i.txt; done\n"
        "tl-keras train --dataset=folder:photos $FAST --run_dir=run",
        refuses("labels.*(txt|no images)"),
    ),
    Case(
        "N6 archive",
        6,
        "tool: Kaggle's downloads",
        "folder:photos.zip",
        "refused: unpack it",
        "make-input photos; $PYTHON -m zipfile -c photos.zip photos; tl-keras train --dataset=folder:photos.zip $FAST --run_dir=run",
        refuses("npack"),
    ),
    Case(
        "N6 takeout",
        6,
        "tool: Google Takeout",
        "NAME.png.supplemental-metadata.json beside each picture",
        "not read, with a note",
        _photos("for f in photos/*/*.png; do echo '{}' > $f.supplemental-metadata.json; done"),
        works("20 .json"),
    ),
    Case(
        "N6 saved models",
        6,
        "tool: fastai (Learner.save)",
        "models/ with weights beside the classes",
        "refused with the file's name",
        _photos("mkdir photos/models; $PYTHON -m zipfile -c photos/models/stage-1.pth photos/cat/000.png"),
        refuses("stage-1.pth"),
    ),
    Case(
        "N7 directory gone",
        7,
        "pypa/pip#4255",
        "the current directory is deleted",
        "one line, or the command works",
        "make-input photos; A=$PWD; mkdir gone; cd gone; rmdir ../gone\n"
        "PYTHONSAFEPATH=1 new-tl-keras train --dataset=folder:$A/photos $FAST --run_dir=$A/run ||"
        " PYTHONSAFEPATH=1 new-tl-keras list backbones",
        either(works(), refuses("directory")),
    ),
    Case(
        "N7 no home",
        7,
        "astral-sh/uv#9962",
        "a home directory that cannot be written to",
        TRAINED,
        "make-input photos; export HOME=/proc/none XDG_CACHE_HOME=; new-tl-keras train --dataset=folder:photos $FAST --run_dir=run",
        works(),
    ),
    Case(
        "N7 channels first",
        7,
        "tensorflow/tensorflow#44126",
        "keras.json says channels_first",
        "the same loss, or refused",
        "tl-keras train $DIGITS --run_dir=a > first 2>&1; mkdir keras\n"
        'echo \'{"image_data_format": "channels_first", "floatx": "float32", "backend": "tensorflow"}\' > keras/keras.json\n'
        "KERAS_HOME=$PWD/keras new-tl-keras train $DIGITS --run_dir=b > second 2>&1; code=$?; cat second; same-images; exit $code",
        either(works("SAME IMAGES"), refuses("channels")),
    ),
    Case(
        "N7 other backend",
        7,
        "tensorflow/tensorflow#44126",
        "KERAS_BACKEND=jax, which is not installed",
        "the same loss, or refused",
        "KERAS_BACKEND=jax new-tl-keras train $DIGITS --run_dir=run",
        either(works(), refuses("backend|KERAS_BACKEND")),
    ),
    Case(
        "N7 few files",
        7,
        "ultralytics/ultralytics#4413",
        "a limit of 40 open files",
        "trained, or named",
        "make-input photos; ulimit -n 40; new-tl-keras train --dataset=folder:photos $FAST --run_dir=run",
        either(works(), refuses("open files|ulimit")),
    ),
    Case(
        "N7 terminated",
        7,
        "kyutai-labs/pocket-tts#277",
        "SIGTERM in training, then the same command",
        "resumed",
        f"SETTINGS='{MEMORIZE} --dataset=digits --limit_train=100 --limit_test=30 --epochs=12'\n{KILLED}kill -TERM $pid; wait $pid\n"
        "tl-keras train $SETTINGS --run_dir=run",
        works("resum"),
    ),
    Case(
        "N7 read-only run",
        7,
        "verl-project/verl#3354",
        "evaluate of a run on a read-only file system",
        "scored",
        "tl-keras train $DIGITS --run_dir=run > /dev/null\n"
        "unshare -m bash -c 'mount --bind run run && mount -o remount,ro,bind run && new-tl-keras evaluate --run_dir=run'",
        works("nats"),
    ),
    Case(
        "N7 half a result",
        7,
        "mozilla/TTS#359",
        "result.json and the checkpoint cut in half by a power failure",
        "one line",
        "tl-keras train $DIGITS --run_dir=run > /dev/null; truncate -s 100 run/result.json; tl-keras evaluate --run_dir=run",
        refuses("result|finish"),
    ),
    Case(
        "N7 half a checkpoint",
        7,
        "mozilla/TTS#359",
        "every file of the checkpoint cut in half, then the same command",
        "one line, or trained anew",
        f"SETTINGS='{MEMORIZE} --dataset=digits --limit_train=100 --limit_test=30 --epochs=12'\n{KILLED}kill -9 $pid\n"
        "wait $pid 2> /dev/null\n"
        "find run -type f -path '*checkpoint*' -exec sh -c 'truncate -s $(($(stat -c %s \"$1\") / 2)) \"$1\"' _ {} \\;\n"
        "tl-keras train $SETTINGS --run_dir=run",
        either(works(), refuses("checkpoint")),
    ),
    Case(
        "N7 closed pipe",
        7,
        "tool: head",
        "the reader of the output goes away",
        "no traceback",
        "new-tl-keras list | head -1; new-tl-keras train $DIGITS --run_dir=run 2> err | head -1; cat err; ls run/config.json",
        works("config.json"),
    ),
    Case(
        "N7 unusual temporary",
        7,
        "tool: HPC schedulers (TMPDIR of another job)",
        "TMPDIR names a directory that is gone",
        "exported",
        "tl-keras train $DIGITS --run_dir=run > /dev/null\n"
        "TMPDIR=/nonexistent new-tl-keras export --run_dir=run --format=keras --output=out",
        works("compared on"),
    ),
)

CASES: tuple[Case, ...] = (*_CASES, *_NEIGHBOURS)
