"""The benchmarks: the work of each, its size in each profile, and its targets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.work import AUTO, BFLOAT16, FLOAT32, Work
from tl_keras.errors import unknown

OURS, KERAS, TORCH = "ours", "plain Keras", "plain torch"
TRAIN_ON_BATCH, ONE_HEAD, ONE_RUN = "train_on_batch", "one head, same loop", "one head, a run"
IN_MEMORY, LIVE = "all in memory", "new views"
FULL, STEPS, QUICK, SMOKE = PROFILES = ("full", "steps", "quick", "smoke")
EPOCHS = 10  # of a whole job
PRODUCTS = "convolution and matrix product"  # the kind of operation in a profile that is arithmetic
MODULES = {OURS: "ours", KERAS: "plain_keras", TORCH: "plain_torch"}
PLAIN_TORCH_HAS = ("alexnet", "resnet18", "resnet50", "mobilenet", "vit_b16")  # those of torch_models.py
Targets = Mapping[str, Mapping[str, float]]  # precision of ours -> side -> how many times faster than it ours is to be, at least


@dataclass(frozen=True)
class BenchmarkType:
    """The common part of all benchmarks of a type.

    Attributes:
        title: with the fields of `Work`.
        jobs: side -> `module:function` of its job.
        counts: the images that the value counts: of `steps` or of `train`; empty: the value is in seconds.
        warm_up: whether every side does the work once before it counts.
        passes: the cost of an image, for the fraction of the matrix-product peak: `forward`, `step` or empty.
    """

    title: str
    jobs: Mapping[str, str]
    counts: str = ""
    warm_up: bool = True
    passes: str = ""


def _three(job: str) -> dict[str, str]:
    """Return the function `job` in the module of every side."""
    return {side: f"{module}:{job}" for side, module in MODULES.items()}


BENCHMARK_TYPES: Mapping[str, BenchmarkType] = {
    "whole": BenchmarkType("{strategy}, {epochs} epochs, {num_train:,} + {num_test:,} images", _three("train"), warm_up=False),
    "step": BenchmarkType("full fine-tuning, steps of {batch_size}", _three("step"), counts="steps", passes="step"),
    "predict": BenchmarkType("inference, batches of {batch_size}", _three("predict"), counts="steps", passes="forward"),
    "feed": BenchmarkType("input alone, to {image_size} px, batches of {batch_size}", _three("feed"), counts="train"),
    "startup": BenchmarkType(
        "command to first step of {batch_size}", {side: f"startup:{module}" for side, module in MODULES.items()}, warm_up=False
    ),
    "loop": BenchmarkType(
        "training loop, steps of {batch_size}, same precision",
        {OURS: "ours:loop", TRAIN_ON_BATCH: "ours:train_on_batch"},
        counts="steps",
    ),
    "heads": BenchmarkType(
        "21 heads, the last 9 of {epochs} epochs on {num_train:,} features",
        {OURS: "heads:grid", ONE_HEAD: "heads:one", ONE_RUN: "heads:run"},
    ),
    "budget": BenchmarkType(
        "{strategy}, {epochs} epochs, {num_train:,} + {num_test:,} images, a cache of 200 MB and the rest on disk",
        {OURS: "ours:train_in_little_memory", IN_MEMORY: "ours:train"},
        warm_up=False,
    ),
    "views": BenchmarkType(
        "{strategy}, {epochs} epochs of randaugment, digits: 4 views of an image, made once",
        {OURS: "views:kept", LIVE: "views:live"},
        warm_up=False,
    ),
}


@dataclass(frozen=True)
class Size:
    """The size of the work of a benchmark in one profile; see `Work`."""

    rounds: int
    num_train: int = 0
    num_test: int = 0
    measured_epochs: int = 0
    batch_size: int = 64
    steps: int = 1


@dataclass(frozen=True)
class Spec:
    """A benchmark before its profile is chosen.

    Attributes:
        targets: for processors with and without units for bfloat16, which decide the precision of ours.
        seconds: what ours is to take at most; 0: there is no such limit.
        full: its size in the profile `full`, the task's own. The profile `steps` has the training steps of `full` in fewer rounds.
        quick: its size in `quick`, if it has one. All benchmarks of it take five to six minutes on two cores with torch.
    """

    name: str
    benchmark_type: str
    backbone: str
    targets: Targets
    full: Size
    quick: Size | None = None
    strategy: str = "full"
    seconds: float = 0.0
    precision: str = AUTO


@dataclass(frozen=True)
class Benchmark:
    """A benchmark of one profile.

    Attributes:
        whole_command: whether the imports of each side, measured in fresh processes, are added to its seconds.
    """

    name: str
    benchmark_type: BenchmarkType
    work: Work
    jobs: Mapping[str, str]
    targets: Targets
    seconds: float
    rounds: int
    whole_command: bool

    @property
    def title(self) -> str:
        """Return a description of the work with its sizes."""
        precision = "" if self.work.precision == AUTO else f", {self.work.precision}"
        title = f"{self.work.backbone}: {self.benchmark_type.title.format(**vars(self.work))}{precision}"
        return f"{title}{self.scaled}"

    @property
    def scaled(self) -> str:
        """Return a note on the epochs that the plain sides really ran, or an empty string if they ran all."""
        measured = (
            self.work.measured() if self.work.measured_epochs and self.benchmark_type is BENCHMARK_TYPES["whole"] else self.work.epochs
        )
        return f" (plain sides: measured {measured} of {self.work.epochs} epochs, scaled)" if measured < self.work.epochs else ""

    @property
    def num_images(self) -> int:
        """Return the number of images per sample, or 0 if the benchmark measures seconds."""
        return {"steps": self.work.steps * self.work.batch_size, "train": self.work.num_train, "": 0}[self.benchmark_type.counts]


def _always(targets: Mapping[str, float]) -> Targets:
    """Return targets that do not depend on the precision of ours."""
    return {FLOAT32: targets, BFLOAT16: targets}


TWICE_THE_TIME = 1 / 2
AT_MOST_TWICE = _always({ONE_HEAD: TWICE_THE_TIME, ONE_RUN: TWICE_THE_TIME})
SAME_LOOP = _always({TRAIN_ON_BATCH: 1 / 1.03})  # 3 % slower
ALEXNET_STEP: Targets = {FLOAT32: {TORCH: 1.6, KERAS: 1.2}, BFLOAT16: {TORCH: 4, KERAS: 5}}
RESNET18_STEP: Targets = {FLOAT32: {TORCH: 1.6, KERAS: 1.25}, BFLOAT16: {TORCH: 3, KERAS: 2}}

# Every image of a whole job belongs to an epoch or to the test. A step of a second or more is long enough for a sample.
SPECS = (
    Spec("alexnet-head", "whole", "alexnet", _always({TORCH: 10, KERAS: 10}), Size(2, 5000, 10_000, 2), Size(1, 1000, 500, 1), "head"),
    Spec("resnet18-head", "whole", "resnet18", _always({TORCH: 12, KERAS: 8}), Size(1, 5000, 10_000, 1), Size(1, 256, 128, 1), "head"),
    Spec("resnet50-head", "whole", "resnet50", {}, Size(2, 500, 500, 2), strategy="head"),
    Spec("vgg16-head", "whole", "vgg16", {}, Size(2, 200, 200, 2), strategy="head"),
    Spec("vit_b16-head", "whole", "vit_b16", {}, Size(2, 200, 200, 2), strategy="head"),
    Spec("mobilenet-head", "whole", "mobilenet", {}, Size(2, 1000, 1000, 2), strategy="head"),
    Spec("alexnet-last2", "whole", "alexnet", {}, Size(2, 2000, 2000, 2), strategy="last:2"),
    Spec("resnet18-last2", "whole", "resnet18", {}, Size(2, 500, 500, 2), strategy="last:2"),
    Spec("resnet18-gradual", "whole", "resnet18", _always({TORCH: 2, KERAS: 2}), Size(1, 500, 500), Size(1, 32, 32), "gradual"),
    Spec("alexnet-step", "step", "alexnet", ALEXNET_STEP, Size(5, steps=3), Size(3, steps=2)),
    Spec("alexnet-step-float32", "step", "alexnet", ALEXNET_STEP, Size(5, steps=3), Size(3, steps=2), precision=FLOAT32),
    Spec("resnet18-step", "step", "resnet18", RESNET18_STEP, Size(5, steps=2), Size(3, batch_size=32)),
    Spec("resnet18-step-float32", "step", "resnet18", RESNET18_STEP, Size(5, steps=2), Size(3, batch_size=32), precision=FLOAT32),
    Spec("resnet50-step", "step", "resnet50", {}, Size(5, batch_size=32)),
    Spec("resnet50-step-float32", "step", "resnet50", {}, Size(5, batch_size=32), precision=FLOAT32),
    Spec("vgg16-step", "step", "vgg16", {}, Size(5, batch_size=16)),
    Spec("vit_b16-step", "step", "vit_b16", {}, Size(5, batch_size=16)),
    Spec("vit_b16-step-float32", "step", "vit_b16", {}, Size(5, batch_size=16), precision=FLOAT32),
    Spec("mobilenet-step", "step", "mobilenet", {}, Size(5, steps=2)),
    Spec("mobilenet-step-bfloat16", "step", "mobilenet", {}, Size(5, steps=2), precision=BFLOAT16),
    Spec("alexnet-predict", "predict", "alexnet", {}, Size(5, steps=5), Size(3, steps=2)),
    Spec("resnet18-predict", "predict", "resnet18", {}, Size(5, steps=3), Size(3)),
    Spec("resnet50-predict", "predict", "resnet50", {}, Size(5)),
    Spec("vgg16-predict", "predict", "vgg16", {}, Size(5, batch_size=32)),
    Spec("vit_b16-predict", "predict", "vit_b16", {}, Size(5, batch_size=32)),
    Spec("mobilenet-predict", "predict", "mobilenet", {}, Size(5, steps=3)),
    Spec("input", "feed", "alexnet", {}, Size(5, 10_000), Size(3, 2000)),
    Spec("alexnet-startup", "startup", "alexnet", {}, Size(5), Size(1), seconds=8.0),
    Spec("alexnet-loop", "loop", "alexnet", SAME_LOOP, Size(5, steps=5), Size(3, batch_size=32, steps=3)),
    Spec("resnet18-loop", "loop", "resnet18", SAME_LOOP, Size(5, steps=3)),
    Spec("alexnet-heads", "heads", "alexnet", AT_MOST_TWICE, Size(5, 5000, 500), Size(1, 500, 64), "head"),
    Spec("resnet18-heads", "heads", "resnet18", AT_MOST_TWICE, Size(5, 5000, 500), strategy="head"),
    Spec("alexnet-budget", "budget", "alexnet", {}, Size(1, 5000, 10_000), strategy="last:3"),
    Spec("views", "views", "alexnet_narrow", {}, Size(5), strategy="head"),
)  # fmt: skip

# A little of everything, in seconds: a trial run, not a measurement.
SMOKE_SIZE = Size(2, 10, 10, measured_epochs=1, batch_size=5)
SMOKE_MODEL = {"backbone": "alexnet_narrow", "image_size": 64}


def select_benchmarks(profile: str, names: Sequence[str] = ()) -> list[Benchmark]:
    """Return the benchmarks of `profile`, or those with `names`. Raise ConfigError for an unknown name."""
    found = {spec.name: _make_benchmark(spec, profile) for spec in SPECS if _size(spec, profile)}
    for name in names:
        if name not in found:
            raise unknown(f"benchmark of the profile {profile}", name, found)
    return [benchmark for name, benchmark in found.items() if name in names or not names]


def _size(spec: Spec, profile: str) -> Size | None:
    steps = replace(spec.full, rounds=3) if spec.benchmark_type == "step" else None
    return {FULL: spec.full, STEPS: steps, QUICK: spec.quick, SMOKE: SMOKE_SIZE}[profile]


def _make_benchmark(spec: Spec, profile: str) -> Benchmark:
    size, benchmark_type = vars(_size(spec, profile)).copy(), BENCHMARK_TYPES[spec.benchmark_type]
    rounds, model = size.pop("rounds"), SMOKE_MODEL if profile == SMOKE else {"backbone": spec.backbone}
    # A benchmark that counts in steps needs the images of one batch, and start-up those of one and of a test split.
    size |= {name: size[name] or size["batch_size"] for name in ("num_train", "num_test")}
    epochs = EPOCHS if spec.strategy != "full" else 1
    return Benchmark(
        name=spec.name,
        benchmark_type=benchmark_type,
        work=Work(strategy=spec.strategy, precision=spec.precision, epochs=epochs, **size, **model),
        jobs={side: job for side, job in benchmark_type.jobs.items() if side != TORCH or spec.backbone in PLAIN_TORCH_HAS},
        targets=spec.targets,
        seconds=spec.seconds,
        rounds=rounds,
        whole_command=spec.benchmark_type == "whole" and profile == FULL,
    )
