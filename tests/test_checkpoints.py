"""Checkpoints as training scripts leave them: found by content, read without building anything, and what is not read is named."""

import numpy as np
import pytest
from torch_builder import Call, Name, storage, tensor, zip_file
from torch_reference import make_tensors, resnet

from tl_keras.backbones import build_classifier, feature_extractor
from tl_keras.errors import ConfigError, DamagedError
from tl_keras.weights import LoadingInfo, load_weights, torch_file
from tl_keras.weights.from_publisher import assign_published
from tl_keras.weights.torch_file import inspect_file, read_tensors

PLAIN = {"a": tensor(), "b": tensor((6,), (1,))}
AVERAGED = {"a": tensor(), "b": tensor((6,), (1,)), "n_averaged": tensor((1,), (1,))}
NAMESPACE = Call(Name("argparse", "Namespace"), ())
SCALAR = Call(Name("numpy.core.multiarray", "scalar"), (Call(Name("numpy", "dtype"), ("f8",)), b"\0" * 8))
PATH = Call(Name("pathlib", "PosixPath"), ("runs", "model"))
OPTIMIZER = {"state": {0: {"step": tensor((1,), (1,)), "exp_avg": tensor()}}, "param_groups": [{"lr": 0.1}]}

# Names of the scripts or frameworks -> what they save.
SAVED = {
    "torch examples": {"epoch": 3, "arch": "resnet18", "state_dict": PLAIN, "best_acc1": SCALAR, "optimizer": OPTIMIZER},
    "torchvision references": {"model": PLAIN, "optimizer": OPTIMIZER, "lr_scheduler": {"last_epoch": 1}, "args": NAMESPACE},
    "timm": {"arch": "x", "state_dict": PLAIN, "state_dict_ema": AVERAGED, "args": NAMESPACE, "amp_scaler": {"scale": 1.0}},
    "Lightning": {"state_dict": PLAIN, "callbacks": {"a": {"best": PATH}}, "hyper_parameters": {"lr": 0.1}, "loops": {"x": {"y": 1}}},
    "MMPretrain": {
        "meta": {"time": "now", "env": NAMESPACE},
        "state_dict": PLAIN,
        "message_hub": Call(Name("mmengine.logging", "MessageHub"), ()),
    },
    "detectron2": {"model": PLAIN, "trainer": {"iteration": 3, "hooks": {"x": 1}}},
    "DINO": {"student": PLAIN, "epoch": 3, "dino_loss": {"center": 1}},
    "fastai": {"model": PLAIN, "opt": OPTIMIZER},
    "nested twice": {"checkpoint": {"net": PLAIN, "config": {"path": PATH}}},
    "a device and a dtype": {"weights": PLAIN, "device": Call(Name("torch", "device"), ("cuda", 0)), "dtype": Name("torch", "float32")},
    "a default dict": {"params": PLAIN, "history": Call(Name("collections", "defaultdict"), (Name("__builtin__", "list"),))},
}


@pytest.mark.parametrize("name", SAVED)
def test_the_state_dict_is_found_by_content(name, tmp_path):
    path = tmp_path / "file.pth"
    path.write_bytes(zip_file(SAVED[name]))
    tensors = read_tensors(path)
    assert list(tensors) == ["a", "b"]
    np.testing.assert_array_equal(tensors["a"], np.arange(6, dtype=np.float32).reshape(2, 3))


def test_averaged_weights_are_named_and_can_be_chosen(tmp_path):
    path = tmp_path / "file.pth"
    path.write_bytes(zip_file(SAVED["timm"]))
    assert inspect_file(path).others == {"state_dict_ema": 3}
    for choice in ("ema", "state_dict_ema"):
        assert len(read_tensors(path, choice)) == 3
    with pytest.raises(ConfigError, match=r"no weights 'swa'; it has state_dict, state_dict_ema"):
        read_tensors(path, "swa")


def test_one_dict_in_many_places_is_read_once(tmp_path):
    """Nested four times a thousand times over, it would never end."""
    pickle = b"\x80\x02}q\x00X\x01\x00\x00\x00wNs" + b"".join(
        b"}q%c(" % depth + b"".join(b"X\x04\x00\x00\x00%04dh%c" % (key, depth - 1) for key in range(200)) + b"u" for depth in range(1, 5)
    )
    (tmp_path / "file.pth").write_bytes(zip_file(pickle + b"."))
    with pytest.raises(Exception, match="no dict of tensors"):
        read_tensors(tmp_path / "file.pth")


# Whole networks


@pytest.fixture(scope="module")
def model():
    return build_classifier("resnet18", 5, image_size=64)


@pytest.fixture(scope="module")
def tensors():
    return make_tensors(resnet(7))


def headless(tensors):
    return {name: array for name, array in tensors.items() if not name.startswith("fc.")}


def assert_backbone_loaded(model, tensors):
    kernel = feature_extractor(model).get_layer("layer4_1_conv2").kernel.numpy()
    np.testing.assert_array_equal(kernel, tensors["layer4.1.conv2.weight"].transpose(2, 3, 1, 0))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "backbone.", "module.model.backbone.", "net.0.", "encoder_q."])
def test_one_common_prefix_is_taken_off_and_said(prefix, model, tensors):
    info = assign_published(model, "resnet18", {prefix + name: array for name, array in tensors.items()}, "file.pth")
    assert info.loaded == 100 and info.notes == (f"names without their prefix {prefix!r}",)
    assert_backbone_loaded(model, tensors)


def test_of_two_networks_in_one_dict_the_first_is_read_and_the_other_said(model, tensors):
    """Momentum contrast saves the trained encoder, its average and a queue (facebookresearch/moco#84)."""
    average = {f"module.encoder_k.{name}": np.zeros_like(array) for name, array in tensors.items()}
    trained = {f"module.encoder_q.{name}": array for name, array in tensors.items()}
    info = assign_published(model, "resnet18", {**trained, **average, "module.queue": np.zeros((2, 2))}, "file.pth")
    assert info.loaded == 100 and "'module.encoder_q.'" in info.notes[0] and "'module.encoder_k.'" in info.notes[1]
    assert_backbone_loaded(model, tensors)


HEADS = {
    "none": {},
    "Sequential(Dropout, Linear)": {"fc.1.weight": np.zeros((5, 512)), "fc.1.bias": np.zeros(5)},
    "of two layers": {
        "fc.0.weight": np.zeros((9, 512)),
        "fc.0.bias": np.zeros(9),
        "fc.3.weight": np.zeros((5, 9)),
        "fc.3.bias": np.zeros(5),
    },
    "called head": {"head.weight": np.zeros((5, 512)), "head.bias": np.zeros(5)},
    "of a projection beside it": {"projector.0.weight": np.zeros((9, 512)), "queue": np.zeros((2, 2))},
}


@pytest.mark.parametrize("head", HEADS)
def test_another_head_is_left_out_and_said(head, model, tensors):
    info = assign_published(model, "resnet18", headless(tensors) | HEADS[head], "file.pth")
    assert info.loaded == 100 and set(info.missing) == {"logits/kernel", "logits/bias"}
    assert sum("of no layer of the backbone, left out" in reason for reason in info.unexpected.values()) == bool(HEADS[head])
    assert_backbone_loaded(model, tensors)


def test_a_longer_network_is_not_taken_for_a_head(model):
    longer = make_tensors(resnet(7, (3, 4, 6, 3)))
    with pytest.raises(ConfigError, match=r"only in the file .*They are those of resnet34"):
        assign_published(model, "resnet18", longer, "file.pth")


def test_names_of_files_do_not_matter(model, tensors, tmp_path):
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, tmp_path / "pytorch_model.bin")
    assert load_weights(model, "resnet18", tmp_path / "pytorch_model.bin").loaded == 100
    for name in ("model_best.pth.tar", "lightning.ckpt", "UPPER.PTH", "weights"):
        (tmp_path / name).write_bytes(zip_file({"conv1.weight": tensor(over=storage())}))
        with pytest.raises(ConfigError, match="cannot become conv1.kernel"):
            load_weights(model, "resnet18", tmp_path / name)


def test_a_file_is_unpickled_once_and_weights_that_are_not_read_are_noted(model, tmp_path, monkeypatch):
    calls, read = [], torch_file.read_container
    monkeypatch.setattr(torch_file, "read_container", lambda *arguments: calls.append(arguments) or read(*arguments))
    monkeypatch.setattr("tl_keras.weights.load.assign_published", lambda *arguments: LoadingInfo("file.pth", 2))
    (tmp_path / "file.pth").write_bytes(zip_file(SAVED["timm"]))
    info = load_weights(model, "resnet18", tmp_path / "file.pth")
    assert info.notes == ("3 more tensors under state_dict_ema, not read; `weights=file.pth#state_dict_ema` reads them",)
    assert len(calls) == 1


def test_a_pointer_of_git_lfs_is_named(model, tmp_path):
    (tmp_path / "model.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n")
    with pytest.raises(DamagedError, match="Git LFS.*git lfs pull"):
        load_weights(model, "resnet18", tmp_path / "model.pth")


def test_whole_models_of_keras_give_their_backbone(tmp_path):
    import keras

    keras.utils.set_random_seed(1)
    inner = keras.applications.MobileNet(alpha=0.25, include_top=False, weights=None, input_shape=(32, 32, 3))
    layers = keras.layers
    whole = keras.Sequential([keras.Input((32, 32, 3)), inner, layers.GlobalAveragePooling2D(), layers.Dense(9), layers.Dense(5)])
    for name in ("whole.keras", "whole.h5", "whole.weights.h5"):
        (whole.save_weights if name.endswith("weights.h5") else whole.save)(tmp_path / name)
        model = build_classifier("mobilenet_0.25", 5, image_size=32)
        info = load_weights(model, "mobilenet_0.25", tmp_path / name)
        assert set(info.missing) == {"logits/kernel", "logits/bias"} and len(info.unexpected) == 1
        for one, other in zip(feature_extractor(model).get_weights(), inner.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
