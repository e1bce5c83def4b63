"""Trains a ResNet18 in PyTorch across the switches of a run, and writes tests/data/torch_training_switches.json.

    python3 -m venv TORCH && TORCH/bin/pip install torch==2.13.0 numpy      # an environment of its own
    TORCH/bin/python -m tools.make_torch_training

The ten cases of tests/data/torch_training_losses.json are run first, and must give its values: they were recorded independently.
Weights and batches are those of tests/torch_reference.py. The loops below are written as in the source reports: `requires_grad`,
`train()`, `eval()`, a scheduler that steps once an epoch, a new optimizer.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, ReduceLROnPlateau, StepLR

from tests.torch_reference import DATA, TRAINING_FILES, training_batches, training_tensors

STAGES = ("conv1", "layer1", "layer2", "layer3", "layer4", "fc")  # bn1 counts as conv1
STATISTICS = ("bn1", "layer2.0.downsample.1", "layer4.1.bn2")
TOLERANCE = 5e-4  # of losses: Adam amplifies rounding, so another memory layout of the images moves the sixth loss by 1e-4


class BasicBlock(nn.Module):
    """The block of ResNet18 and ResNet34 (He et al. 2015), as in torchvision."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        shortcut = [nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)] if before != width else []
        self.downsample = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class ResNet18(nn.Module):
    """ResNet18 with CIFAR stem: a first convolution of 3x3 and stride 1, and no max-pool."""

    def __init__(self, num_logits: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256, 1))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))
        self.fc = nn.Linear(512, num_logits)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean(dim=(2, 3)))


OptimizerFn = Callable[[Iterable[Any]], Optimizer]


def all_stages(epoch: int) -> Sequence[str]:
    return STAGES


def train_mode(model: nn.Module, epoch: int) -> None:
    model.train()


def eval_after_first(model: nn.Module, epoch: int) -> None:
    """Set train mode before the first epoch, after which evaluation sets eval mode for good (source report D)."""
    model.train(epoch == 0)


def fixed_norms(model: nn.Module, epoch: int) -> None:
    """Set train mode with every BatchNorm on its running statistics."""
    model.train()
    for norm in norms(model):
        norm.eval()


def fixed_frozen_norms(model: nn.Module, epoch: int) -> None:
    """Set train mode with the BatchNorm of frozen stages on its running statistics."""
    model.train()
    for norm in norms(model):
        norm.train(norm.weight.requires_grad)


@dataclass
class Case:
    """One run: epochs of `steps` batches of 8 images.

    Attributes:
        optimizer: parameters -> optimizer. It gets all parameters, also frozen ones, which have no gradient.
        trained: epoch from 0 -> stages that are trained.
        mode: (model, epoch), called before each epoch: sets train or eval mode.
        only_norms: True if stages but the head train BatchNorm alone.
        groups: model -> parameter groups, if they are not all parameters.
        new_optimizer: epochs that begin with a new optimizer.
        scheduler: optimizer -> scheduler, stepped after each epoch.
        same_batches: True if every epoch has the batches of the first, so that the loss falls.
        bn_momentum: `momentum` of BatchNorm.
    """

    optimizer: OptimizerFn
    trained: Callable[[int], Sequence[str]] = all_stages
    mode: Callable[[ResNet18, int], None] = train_mode
    only_norms: bool = False
    epochs: int = 2
    steps: int = 3
    groups: Callable[[ResNet18], list[Any]] = lambda model: list(model.parameters())
    new_optimizer: Sequence[int] = ()
    scheduler: Callable[[Optimizer], LRScheduler] | None = None
    num_logits: int = 10
    same_batches: bool = False
    bn_momentum: float = 0.1


def stage_of(name: str) -> str:
    """Return the stage of the parameter `name`."""
    return name.partition(".")[0].replace("bn1", "conv1")


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def freeze(model: ResNet18, case: Case, epoch: int) -> None:
    """Set `requires_grad` of every parameter."""
    of_norms = {id(parameter) for norm in norms(model) for parameter in norm.parameters()}
    for name, parameter in model.named_parameters():
        is_selected = not case.only_norms or id(parameter) in of_norms or stage_of(name) == "fc"
        parameter.requires_grad = is_selected and stage_of(name) in case.trained(epoch)


def fixed(*stages: str) -> Callable[[int], Sequence[str]]:
    """Return a function from the epoch to the trained stages: the same in every epoch."""
    return lambda epoch: stages


def unfrozen(every: int = 1) -> Callable[[int], Sequence[str]]:
    """Return a function from the epoch to the trained stages: fc and layer4, and one more before them every `every` epochs."""
    return lambda epoch: ("fc", *(f"layer{number}" for number in range(max(1, 4 - epoch // every), 5)))


def by_stage(learning_rates: dict[str, float], *, without: str = "") -> Callable[[ResNet18], list[Any]]:
    """Return the parameter groups of stages with learning rates of their own, without the parameters of one module."""
    return lambda model: [
        {"params": [p for name, p in model.named_parameters() if stage_of(name) == stage and name.partition(".")[0] != without], "lr": lr}
        for stage, lr in learning_rates.items()
    ]


def sgd(params: Iterable[Any]) -> Optimizer:
    return SGD(params, lr=0.03, momentum=0.9)


def sgd_nesterov_l2(params: Iterable[Any]) -> Optimizer:
    return SGD(params, lr=0.03, momentum=0.9, nesterov=True, weight_decay=0.01)


def adam(params: Iterable[Any]) -> Optimizer:
    return Adam(params, lr=1e-3)


def adamw(params: Iterable[Any]) -> Optimizer:
    return AdamW(params, lr=1e-3, weight_decay=0.01)


def adamw_small(params: Iterable[Any]) -> Optimizer:
    return AdamW(params, lr=1e-4, weight_decay=0.01)


OPTIMIZERS: dict[str, OptimizerFn] = {"sgd": sgd, "sgd_nesterov_l2": sgd_nesterov_l2, "adam": adam, "adamw": adamw}
RECORDED = {
    **{f"full/{name}": Case(optimizer) for name, optimizer in OPTIMIZERS.items()},
    "head/sgd": Case(sgd, fixed("fc")),
    "head_bn_eval/sgd": Case(sgd, fixed("fc"), fixed_frozen_norms),
    "freeze_early/sgd": Case(sgd, fixed("conv1", "layer3", "layer4", "fc")),
    "bn_only/sgd": Case(sgd, only_norms=True),
    "layer1_layer4/sgd": Case(sgd, fixed("conv1", "layer1", "layer4", "fc")),
    "discriminative/sgd": Case(sgd, groups=by_stage(dict.fromkeys(STAGES, 0.01) | {"conv1": 0.02, "fc": 0.03})),
}
SWITCHES = {
    "eval_mode_after_1/sgd": Case(sgd, mode=eval_after_first),
    "eval_mode_after_1/adamw_small": Case(adamw_small, mode=eval_after_first),
    "eval_mode_after_1_last_2_step_1/sgd_nesterov_l2": Case(
        sgd_nesterov_l2, fixed("layer3", "layer4", "fc"), eval_after_first, scheduler=lambda optimizer: StepLR(optimizer, 1, 0.1)
    ),
    "batch_norm_inference/sgd": Case(sgd, mode=fixed_norms),
    "batch_norm_momentum_eval_mode_after_1/sgd": Case(sgd, mode=eval_after_first, bn_momentum=0.3),
    "step_1/sgd": Case(sgd, scheduler=lambda optimizer: StepLR(optimizer, 1, 0.1)),
    "step_2/adam": Case(adam, fixed("layer4", "fc"), epochs=4, scheduler=lambda optimizer: StepLR(optimizer, 2, 0.1)),
    "cosine_by_epoch/sgd_nesterov_l2": Case(sgd_nesterov_l2, epochs=3, scheduler=lambda optimizer: CosineAnnealingLR(optimizer, 3)),
    "plateau_threshold/sgd": Case(
        sgd,
        fixed("layer4", "fc"),
        epochs=3,
        same_batches=True,
        scheduler=lambda optimizer: ReduceLROnPlateau(optimizer, patience=0, threshold=0.2),
    ),
    "one_logit/sgd": Case(sgd, num_logits=1),
    "one_logit_head/adam": Case(adam, fixed("fc"), eval_after_first, num_logits=1),
    "gradual/sgd": Case(sgd, unfrozen(), eval_after_first),
    "gradual_reset_by_phase/sgd_nesterov_l2": Case(sgd_nesterov_l2, unfrozen(), new_optimizer=[1]),
    "gradual_reset_by_epoch/adam": Case(adam, unfrozen(every=2), epochs=3, new_optimizer=[1, 2]),
    "gradual_as_report_d/sgd_nesterov_l2": Case(sgd_nesterov_l2, unfrozen(), eval_after_first, epochs=4, new_optimizer=[1, 2, 3]),
    "stage_rates_without_bn1/sgd": Case(sgd, groups=by_stage(dict.fromkeys(STAGES, 5e-3) | {"conv1": 7e-3, "fc": 1e-2}, without="bn1")),
}


def train(case: Case) -> dict[str, Any]:
    """Run `case`. Return losses, learning rates, changes and statistics."""
    torch.manual_seed(0)
    model = ResNet18(case.num_logits)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in training_tensors(case.num_logits).items()})
    for norm in norms(model):
        norm.momentum = case.bn_momentum
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    images, labels = batches(case)
    losses, learning_rates = [], []
    for epoch in range(case.epochs):
        freeze(model, case, epoch)
        case.mode(model, epoch)
        if epoch == 0 or epoch in case.new_optimizer:
            optimizer = case.optimizer(case.groups(model))
            scheduler = case.scheduler(optimizer) if case.scheduler else None
        learning_rates.append(optimizer.param_groups[-1]["lr"])
        for step in range(epoch * case.steps, (epoch + 1) * case.steps):
            optimizer.zero_grad()
            loss = loss_of(model(images[step % len(images)]), labels[step % len(images)])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(float(np.mean(losses[-case.steps :])))
        elif scheduler:
            scheduler.step()
    return {
        "num_batches": len(images),
        "loss_before_each_step": losses,
        "learning_rate_of_each_epoch": learning_rates,
        "l2_norm_of_parameter_change_per_stage": {stage: change(model, before, stage) for stage in STAGES},
        "running_mean_after": {name: model.get_submodule(name).running_mean[:4].tolist() for name in STATISTICS},
        "running_variance_after": {name: model.get_submodule(name).running_var[:4].tolist() for name in STATISTICS},
        "trainable_parameters": num_trained(model, optimizer),
    }


def batches(case: Case) -> tuple[Tensor, Tensor]:
    """Return images (num_batches, 8, 3, 32, 32) and labels (num_batches, 8). Steps beyond them begin again."""
    images, labels = training_batches(case.steps * (1 if case.same_batches else case.epochs), max(2, case.num_logits))
    return torch.from_numpy(images).permute(0, 1, 4, 2, 3).contiguous(), torch.from_numpy(labels).long()


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.shape[1] == 1:
        return nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
    return nn.functional.cross_entropy(logits, labels)


def change(model: ResNet18, before: dict[str, Tensor], stage: str) -> float:
    differences = [parameter.detach() - before[name] for name, parameter in model.named_parameters() if stage_of(name) == stage]
    return float(np.sqrt(sum(float((difference.double() ** 2).sum()) for difference in differences)))


def num_trained(model: ResNet18, optimizer: Optimizer) -> int:
    given = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad and id(parameter) in given)


def check_recorded() -> None:
    """Raise AssertionError unless the recorded cases give their values."""
    for name, expected in json.loads((DATA / TRAINING_FILES[0]).read_text()).items():
        record, changes = train(RECORDED[name]), "l2_norm_of_parameter_change_per_stage"
        losses, recorded = record["loss_before_each_step"], expected["loss_before_each_step"]
        print(f"{name}: losses within {np.abs(np.subtract(losses, recorded)).max():.1e} of the recorded ones", flush=True)
        np.testing.assert_allclose(losses, recorded, atol=TOLERANCE, rtol=0)
        np.testing.assert_allclose([record[changes][stage] for stage in STAGES], [expected[changes][stage] for stage in STAGES], rtol=5e-3)
        np.testing.assert_allclose(record["running_mean_after"]["bn1"], expected["bn1_running_mean_after"], atol=5e-5)
        np.testing.assert_equal(record["trainable_parameters"], expected["trainable_parameters"])


def main() -> None:
    """Check the recorded cases, and write the others."""
    check_recorded()
    records = {}
    for name, case in SWITCHES.items():
        records[name] = train(case)
        print(f"{name}: {', '.join(f'{loss:.4f}' for loss in records[name]['loss_before_each_step'])}", flush=True)
    (DATA / TRAINING_FILES[1]).write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
