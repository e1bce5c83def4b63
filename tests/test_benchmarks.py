"""The benchmark: every type runs at toy size, the plain models equal torchvision's, and measurements are summarised correctly."""

import builtins
import json
import math
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import arrays, measure, registry, startup, table, work
from benchmarks.measure import Measured, Side
from benchmarks.registry import KERAS, OURS, TORCH
from tl_keras.backbones import BACKBONES, build_classifier, stage_layers
from tl_keras.errors import ConfigError
from tl_keras.runs.resolve import resolve
from tl_keras.strategies import Phase


def smoke_benchmarks():
    """Return one benchmark for each job that differs at smoke size, where all backbones are alexnet_narrow."""
    found = {}
    for benchmark in registry.select_benchmarks(registry.SMOKE):
        found.setdefault((benchmark.benchmark_type.title, benchmark.work.strategy == "gradual"), benchmark)
    slow = {"startup", "gradual"}
    return [
        pytest.param(benchmark, id=name, marks=pytest.mark.slow if slow & {*name.split("-")} else ())
        for benchmark in found.values()
        for name in [benchmark.name]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", smoke_benchmarks())
def test_every_type_of_benchmark_runs(benchmark):
    benchmark = replace(benchmark, rounds=1)
    measured = measure.measure(benchmark, arrays.random(10, 10))
    if benchmark.name in measured.skipped:
        pytest.skip(measured.skipped[benchmark.name])
    assert {*measured.sides, *measured.skipped} == {*benchmark.jobs} and OURS in measured.sides
    for side in measured.sides:
        assert len(measured.sides[side].seconds) == 1 and measured.value(side).median > 0


TINY = work.Work("tiny", 16, "head", precision=work.FLOAT32, batch_size=5, num_train=10, num_test=10)


@pytest.mark.parametrize("path", ["ours:train", "ours:train_in_little_memory"])
def test_our_whole_jobs_run(path):
    """The jobs that call the package as a user does, on the smallest model."""
    with measure.find_job(path)(TINY, arrays.random(10, 10)) as job:
        outcome = job()
    assert outcome.seconds > 0 and 0 <= outcome.accuracy <= 1


def test_our_first_step_is_the_only_one():
    from benchmarks import ours

    with patch.object(ours.Trainer, "take_step", autospec=True, side_effect=ours.Trainer.take_step) as steps:
        ours.first_step(replace(TINY, strategy="full"), arrays.random(10, 10))
    assert steps.call_count == 1


def record_of(measured):
    machine = {
        "device": "CPU", "cpu": "A Processor, 2 cores", "versions": {"keras": "3"}, "torch_threads": 2, "matrix_size": 2048,
        "peaks": {"tensorflow": {"float32": 1e11}}, "import_seconds": {OURS: 5.0},
    }  # fmt: skip
    return table.Results("quick", "2030-01-01T00:00+00:00", machine, "random", [measured])


@pytest.fixture
def measured():
    (benchmark,) = registry.select_benchmarks(registry.QUICK, ["alexnet-step"])
    sides = {OURS: Side((1.0, 2.0, 4.0), 2**20), KERAS: Side((2.0, 6.0, 8.0), 2**21), TORCH: Side((4.0, 8.0, 20.0), 0)}
    return Measured(benchmark, sides, {}, "mixed_bfloat16", {OURS: 0.25})


def test_ratios_compare_the_same_round(measured):
    ratio = measured.ratio(TORCH)
    assert (ratio.median, ratio.low, ratio.high) == (4.0, 4.0, 5.0)
    assert measured.value(OURS).median == measured.benchmark.num_images / 2 and measured.benchmark.num_images == 128


def test_the_table_marks_reached_targets(measured, capsys):
    results = record_of(measured)
    lines = table.markdown(results).splitlines()
    assert [line.split(" | ")[4] for line in lines if "alexnet-step" in line] == [KERAS, TORCH]
    against = {line.split(" | ")[4]: line for line in lines if "alexnet-step" in line}
    assert "| 2 [2, 3] | 5 MISSED | 1 / 2 | 25 % / - |" in against[KERAS]
    assert "| 4 [4, 5] | 4 reached | 1 / - |" in against[TORCH]
    table.print_table(results)
    assert "MISSED" in capsys.readouterr().out


def test_targets_are_those_of_the_precision(measured):
    """A processor without units for bfloat16 has targets of its own."""
    in_float32 = replace(measured, precision="float32")
    assert (in_float32.target(TORCH), in_float32.target(KERAS)) == (1.6, 1.2)
    assert (measured.target(TORCH), measured.target(KERAS)) == (4, 5)
    assert "| 2 [2, 3] | 1.2 reached |" in table.markdown(record_of(in_float32))


def test_the_profile_of_steps_has_the_steps_of_full():
    full = {benchmark.name: benchmark.work for benchmark in registry.select_benchmarks(registry.FULL)}
    steps = {benchmark.name: benchmark.work for benchmark in registry.select_benchmarks(registry.STEPS)}
    assert steps == {name: work for name, work in full.items() if "-step" in name} and len(steps) == 11


def test_profiles_have_a_table_with_the_ratio_of_a_perfect_rest(measured):
    profiled = replace(measured, shares={registry.PRODUCTS: 0.5, "cast": 0.485, "other": 0.015})
    lines = table.markdown(record_of(profiled)).splitlines()
    start = lines.index("## Where the time of a step goes")
    assert f"| alexnet-step | bfloat16 | {registry.PRODUCTS} 50, cast 48 | 25 % | {KERAS} | 2 [2, 3] | 4 |" in lines[start:]
    assert table.PROFILE_MEANING in table.notes(record_of(profiled))
    assert "Where the time of a step goes" not in table.markdown(record_of(measured))


def test_the_table_marks_limits_of_seconds(capsys):
    (benchmark,) = registry.select_benchmarks(registry.QUICK, ["alexnet-startup"])
    for seconds, said in ((7.9, "in 8 s reached"), (8.1, "in 8 s MISSED")):
        lines = table.markdown(record_of(Measured(benchmark, {OURS: Side((seconds,), 0), KERAS: Side((9.0,), 0)}, {}))).splitlines()
        assert [said in line for line in lines if "alexnet-startup" in line] == [True]


def test_measured_accuracies_are_in_the_table():
    (benchmark,) = registry.select_benchmarks(registry.FULL, ["views"])
    sides = {OURS: Side((1.0, 1.0), 0, (0.5, 0.75)), "new views": Side((3.0, 2.0), 0, (None, None))}
    results = record_of(Measured(benchmark, sides, {}))
    (line,) = [line for line in table.markdown(results).splitlines() if line.startswith("| views")]
    assert "62.5 [50, 75] / -" in line
    assert json.loads(json.dumps(table.record(results)))["rows"][0]["sides"]["new views"]["accuracies"] == [None, None]


def test_both_files_are_named_after_the_processor(measured, tmp_path):
    paths = table.write(record_of(measured), tmp_path)
    assert [path.name for path in paths] == ["a-processor-2-cores-quick.md", "a-processor-2-cores-quick.json"]
    record = json.loads(paths[1].read_text())
    assert record["rows"][0]["ratios"][TORCH] == {"median": 4.0, "low": 4.0, "high": 5.0, "target": 4}
    assert record["rows"][0]["sides"][KERAS]["seconds"] == [2.0, 6.0, 8.0]


def test_the_command_measures_prints_and_writes(tmp_path, capsys):
    assert command.main(["--profile=smoke", "--rows=alexnet-step", "--rounds=1", f"--results_dir={tmp_path}"]) == 0
    assert "times faster" in capsys.readouterr().out
    (record,) = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    fractions = [side["peak_share"] for side in record["rows"][0]["sides"].values()]
    assert fractions and all(0 < fraction < 1 for fraction in fractions)
    assert all(len(side["seconds"]) == 1 for side in record["rows"][0]["sides"].values())
    shares = record["rows"][0]["shares"]
    assert registry.PRODUCTS in shares and sum(shares.values()) == pytest.approx(1)
    assert record["machine"]["peaks"]["tensorflow"]["float32"] > 0 and record["images"] == "random"


@pytest.mark.parametrize("flags, said", [("--rows=alexnet-hed", "alexnet-head"), ("--profile=small", "full, quick, smoke")])
def test_a_wrong_flag_is_one_message(flags, said, capsys):
    assert command.main([flags]) == ConfigError.exit_code
    assert said in capsys.readouterr().err


def test_without_torch_its_side_is_skipped_with_a_note(monkeypatch):
    original = measure.find_job

    def without_torch(path):
        if "torch" in path:
            raise ImportError("No module named 'torch'", name="torch")
        return original(path)

    monkeypatch.setattr(measure, "find_job", without_torch)
    (benchmark,) = registry.select_benchmarks(registry.SMOKE, ["input"])
    measured = measure.measure(benchmark, arrays.random(10, 10))
    assert measured.skipped == {TORCH: "torch is not importable"} and set(measured.sides) == {OURS, KERAS}
    assert f"Not run: {TORCH}: torch is not importable." in table.notes(record_of(measured))


def test_only_its_own_side_imports_torch(monkeypatch):
    """A machine without torch imports everything else."""
    real = builtins.__import__

    def refuse(name, *arguments, **options):
        if name.partition(".")[0] == "torch":
            raise ImportError("No module named 'torch'", name="torch")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(__import__("sys").modules, "benchmarks.plain_torch", raising=False)
    with pytest.raises(ImportError) as error:
        measure.find_job("plain_torch:train")
    assert error.value.name == "torch"
    assert measure.find_job("ours:train") and measure.find_job("plain_keras:train") and measure.find_job("startup:plain_torch")


def test_omitted_epochs_count_as_the_last_one(monkeypatch):
    ticks = iter([0.0, 10.0, 13.0, 13.0, 15.0, 16.0])  # start; two epochs of 3 and 2 seconds; the end
    monkeypatch.setattr(work, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    clock = work.Clock(work.Work("alexnet", epochs=10, measured_epochs=2))
    assert list(clock.epochs(Phase("full", 10, {}))) == [0, 1]
    assert clock.outcome(0.5) == work.Outcome(16.0 + 8 * 2.0, accuracy=None)  # of a model that was trained for two epochs of ten


def test_titles_state_scaled_epochs():
    (benchmark,) = registry.select_benchmarks(registry.FULL, ["alexnet-head"])
    assert "measured 2 of 10 epochs, scaled" in benchmark.title and "5,000 + 10,000 images" in benchmark.title
    (benchmark,) = registry.select_benchmarks(registry.FULL, ["resnet18-gradual"])
    assert benchmark.work.measured() == 10 and "scaled" not in benchmark.title


@pytest.mark.parametrize("profile", registry.PROFILES)
def test_every_benchmark_is_possible(profile):
    """The plan of every benchmark fits its backbone, in every profile, and every target has a side."""
    from benchmarks import ours

    for benchmark in registry.select_benchmarks(profile):
        assert resolve(ours.configure(benchmark.work)).phases == benchmark.work.phases()
        assert all(set(targets) <= set(benchmark.jobs) for targets in benchmark.targets.values()) and OURS in benchmark.jobs
        assert benchmark.benchmark_type.counts != "steps" or benchmark.work.num_train >= benchmark.work.batch_size


def test_the_quick_profile_is_a_part_of_the_full_one():
    full, quick = (
        {benchmark.name: benchmark for benchmark in registry.select_benchmarks(profile)} for profile in (registry.FULL, registry.QUICK)
    )
    assert set(quick) < set(full) and {name for name, benchmark in full.items() if benchmark.targets} - {
        "resnet18-loop",
        "resnet18-heads",
    } <= set(quick)
    assert all(
        benchmark.work.epochs == full[name].work.epochs and benchmark.targets == full[name].targets for name, benchmark in quick.items()
    )


def test_every_source_has_a_new_fingerprint():
    images = arrays.random(4, 2)
    assert images.source().fingerprint != images.source().fingerprint
    np.testing.assert_array_equal(images.source().test.load_batch([0, 1]), images.test)


def test_images_may_be_those_of_cifar10(shared):
    images = arrays.cifar10(str(shared / "data" / "tfds"), 5, 3)
    assert images.train.shape == (5, 32, 32, 3) and images.test.shape == (3, 32, 32, 3) and images.train.dtype == np.uint8
    assert images.origin == "CIFAR-10" and len(set(images.train_labels.tolist())) > 1


def test_a_step_counts_three_passes_minus_one_of_the_first_stage():
    from benchmarks import ours

    forward, step = ours.multiply_adds("alexnet", 224)
    first = 55 * 55 * 64 * 11 * 11 * 3
    assert forward == pytest.approx(714e6, rel=0.01) and step == 3 * forward - first


@pytest.mark.slow
def test_only_whole_commands_include_imports(monkeypatch):
    monkeypatch.setattr(measure, "import_seconds", lambda side: 100.0)
    (benchmark,) = registry.select_benchmarks(registry.SMOKE, ["input"])
    for whole in (True, False):
        measured = measure.measure(replace(benchmark, whole_command=whole, rounds=1), arrays.random(10, 10))
        assert (measured.sides[OURS].seconds[0] > 100) is whole


class TestPlainTorch:
    """The networks written by hand against torchvision's."""

    @pytest.fixture
    def plain_torch(self):
        pytest.importorskip("torch")
        from benchmarks import plain_torch

        return plain_torch

    @pytest.mark.parametrize("name, expected", [("alexnet", 61_100_840), ("resnet18", 11_689_512), ("vit_b16", 86_567_656)])
    def test_parameters_equal_torchvision(self, plain_torch, name, expected):
        assert sum(weight.numel() for weight in plain_torch.MODELS[name](1000).parameters()) == expected

    @pytest.mark.parametrize("name", registry.PLAIN_TORCH_HAS)
    def test_every_stage_has_as_many_parameters_as_ours(self, plain_torch, name):
        model = build_classifier(name, 10)
        expected = {
            stage: sum(math.prod(weight.shape) for layer in layers for weight in layer.trainable_weights)
            for stage, layers in stage_layers(model, name).items()
        }
        stages = plain_torch.MODELS[name](10).stages()
        assert expected == {stage: sum(weight.numel() for module in stages[stage] for weight in module.parameters()) for stage in expected}

    @pytest.mark.parametrize("name", registry.PLAIN_TORCH_HAS)
    def test_a_forward_pass_has_as_many_multiply_adds_as_ours(self, plain_torch, name):
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.utils.flop_counter import FlopCounterMode

        from benchmarks import ours

        # The counter does not know the fused kernel of attention.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            plain_torch.MODELS[name](10)(torch.zeros(1, 3, 224, 224))
        assert counter.get_total_flops() / 2 == pytest.approx(ours.multiply_adds(name, 224)[0], rel=1e-3)

    @pytest.mark.parametrize("case, name", [("alexnet_64", "alexnet"), ("alexnet_224", "alexnet"), ("resnet18_224", "resnet18")])
    def test_logits_equal_torchvision(self, plain_torch, case, name):
        import torch
        from torch_reference import make_images, make_tensor, torchvision_logits

        model = plain_torch.MODELS[name](1000).eval()
        weights = {key: torch.from_numpy(np.asarray(make_tensor(key, tuple(value.shape)))) for key, value in model.state_dict().items()}
        model.load_state_dict(weights)
        size = int(case.rpartition("_")[2])
        expected = torchvision_logits()[case]
        with torch.no_grad():
            found = model(torch.from_numpy(make_images(size)).permute(0, 3, 1, 2)).numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * expected.std())

    @pytest.mark.parametrize("name", registry.PLAIN_TORCH_HAS)
    def test_stages_equal_ours_and_cover_every_weight(self, plain_torch, name):
        model = plain_torch.MODELS[name](10)
        stages = model.stages()
        assert [*stages] == [*(stage for stage, _ in BACKBONES[name].stages), "head"]
        covered = [id(weight) for modules in stages.values() for module in modules for weight in module.parameters()]
        assert sorted(covered) == sorted(id(weight) for weight in model.parameters())

    def test_frozen_weights_do_not_change(self, plain_torch):
        import torch

        job = work.Work("alexnet_narrow", 64, "head", batch_size=5)
        model = plain_torch.MODELS[job.backbone](10)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        images = arrays.random(5, 0)
        plain_torch._train(model, plain_torch._optimizer(model, job.phases()[0]), [plain_torch._batch(job, images)])
        moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert moved == {"classifier.6.weight", "classifier.6.bias"}

    def test_a_fresh_process_is_timed(self, plain_torch):
        assert 0 < startup.import_seconds("plain_torch") < 600
