"""Other publishers' files: torchvision's names and Flax's, in every format, all accounted for."""

import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch_builder
from safetensors.numpy import save_file
from test_backbones import pixels
from torch_reference import BOTTLENECK, CASES, make_tensors, resnet, vit_b_16

from tl_keras.backbones import build_classifier, feature_extractor, get_backbone
from tl_keras.errors import ConfigError, DamagedError, MissingError
from tl_keras.weights import load_weights
from tl_keras.weights.from_publisher import LaidOut, from_tensors, naming_of
from tl_keras.weights.mapped import release
from tl_keras.weights.name_maps import FLAX, TORCHVISION
from tl_keras.weights.position_embedding import resize_positions
from tl_keras.weights.torch_file import read_tensors

POSITIONS = Path(__file__).parent / "fixtures" / "positions_bicubic.npz"  # made with torch.nn.functional.interpolate, align_corners=True


# Position embeddings


@pytest.mark.parametrize("case", ["4_to_6", "6_to_4", "14_to_24", "3_to_1", "1_to_3", "2_to_5"])
def test_positions_are_interpolated_as_torch_does(case):
    with np.load(POSITIONS) as file:
        before, after = file[f"{case}/before"], file[f"{case}/after"]
    np.testing.assert_allclose(resize_positions(before, after.shape[1]), after, atol=1e-5)


def test_positions_of_the_same_grid_are_kept():
    embedding = np.random.default_rng(0).standard_normal((1, 17, 3)).astype("float32")
    np.testing.assert_allclose(resize_positions(embedding, 17), embedding, atol=1e-6)


@pytest.mark.parametrize("num_tokens", [0, 1, 196, 198])
def test_positions_without_a_square_grid_are_refused(num_tokens):
    with pytest.raises(ValueError, match="not a class token and a square grid"):
        resize_positions(np.zeros((1, 197, 2)), num_tokens)


@pytest.mark.parametrize("size, side", [(32, 2), (384, 24)])
def test_vit_loads_at_another_image_size(size, side):
    model = build_classifier("vit_b16", 1000, image_size=size)
    given = make_tensors(vit_b_16())
    account = from_tensors(model, "vit_b16", given, "vit.pth")
    assert account["resized"] == {"pos_embedding/kernel": f"14 x 14 patches in the file, interpolated to {side} x {side}"}
    kernel = np.asarray(model.get_layer("pos_embedding").kernel)
    expected = resize_positions(given["encoder.pos_embedding"], 1 + side * side)
    np.testing.assert_array_equal(kernel, expected)
    np.testing.assert_array_equal(kernel[:, 0], given["encoder.pos_embedding"][:, 0])


def test_positions_that_cannot_be_resized_are_named():
    model = build_classifier("vit_b16", 10, image_size=32)
    given = make_tensors(vit_b_16()) | {"encoder.pos_embedding": np.zeros((1, 196, 768), "float32")}
    with pytest.raises(ConfigError, match=r"pos_embedding/kernel \(1, 196, 768\) in the file, \(1, 5, 768\) in the model"):
        from_tensors(model, "vit_b16", given, "vit.pth")


# Flax


def flax_vit(num_classes=7, tokens=5, *, pre_logits=False):
    """Names and shapes of a ViT-B/16 as Vision Transformer's repository publishes it."""

    def layer(name, *shape, bias=None):
        return {f"{name}/kernel": shape, f"{name}/bias": bias or shape[-1:]}

    def norm(name):
        return {f"{name}/scale": (768,), f"{name}/bias": (768,)}

    shapes = {"cls": (1, 1, 768), "Transformer/posembed_input/pos_embedding": (1, tokens, 768)}
    shapes |= layer("embedding", 16, 16, 3, 768) | norm("Transformer/encoder_norm") | layer("head", 768, num_classes)
    for number in range(12):
        block = f"Transformer/encoderblock_{number}"
        shapes |= norm(f"{block}/LayerNorm_0") | norm(f"{block}/LayerNorm_2")
        shapes |= layer(f"{block}/MlpBlock_3/Dense_0", 768, 3072) | layer(f"{block}/MlpBlock_3/Dense_1", 3072, 768)
        for part in ("query", "key", "value"):
            shapes |= layer(f"{block}/MultiHeadDotProductAttention_1/{part}", 768, 12, 64, bias=(12, 64))
        shapes |= layer(f"{block}/MultiHeadDotProductAttention_1/out", 12, 64, 768)
    return shapes | (layer("pre_logits", 768, 768) if pre_logits else {})


def as_torch(given):
    """The same network by torchvision's names and layouts, by what each is in the papers and not by the code under test."""
    state = {
        "class_token": given["cls"],
        "encoder.pos_embedding": given["Transformer/posembed_input/pos_embedding"],
        "conv_proj.weight": given["embedding/kernel"].transpose(3, 2, 0, 1),
        "conv_proj.bias": given["embedding/bias"],
        "encoder.ln.weight": given["Transformer/encoder_norm/scale"],
        "encoder.ln.bias": given["Transformer/encoder_norm/bias"],
        "heads.head.weight": given["head/kernel"].T,
        "heads.head.bias": given["head/bias"],
    }
    for number in range(12):
        theirs, ours = f"Transformer/encoderblock_{number}", f"encoder.layers.encoder_layer_{number}"
        attention = f"{theirs}/MultiHeadDotProductAttention_1"
        for flax, torch in (("LayerNorm_0", "ln_1"), ("LayerNorm_2", "ln_2")):
            state |= {f"{ours}.{torch}.weight": given[f"{theirs}/{flax}/scale"], f"{ours}.{torch}.bias": given[f"{theirs}/{flax}/bias"]}
        for flax, torch in (("Dense_0", "mlp.0"), ("Dense_1", "mlp.3")):
            state |= {f"{ours}.{torch}.weight": given[f"{theirs}/MlpBlock_3/{flax}/kernel"].T}
            state |= {f"{ours}.{torch}.bias": given[f"{theirs}/MlpBlock_3/{flax}/bias"]}
        parts = ("query", "key", "value")
        state |= {
            f"{ours}.self_attention.in_proj_weight": np.concatenate(
                [given[f"{attention}/{part}/kernel"].reshape(768, 768).T for part in parts]
            ),
            f"{ours}.self_attention.in_proj_bias": np.concatenate([given[f"{attention}/{part}/bias"].reshape(768) for part in parts]),
            f"{ours}.self_attention.out_proj.weight": given[f"{attention}/out/kernel"].reshape(768, 768).T,
            f"{ours}.self_attention.out_proj.bias": given[f"{attention}/out/bias"],
        }
    return state


@pytest.fixture(scope="module")
def vit():
    return build_classifier("vit_b16", 7, image_size=32)


def random_arrays(shapes):
    random = np.random.default_rng(0)
    return {name: (0.02 * random.standard_normal(shape)).astype("float32") for name, shape in shapes.items()}


def test_flax_and_torch_names_give_the_same_network(vit, tmp_path):
    given = random_arrays(flax_vit())
    np.savez(tmp_path / "augreg.npz", **given)
    account = load_weights(vit, "vit_b16", tmp_path / "augreg.npz")
    assert account == {"source": "augreg.npz", "loaded": len(vit.weights), "left_out": {}, "resized": {}, "unused": {}}
    images = pixels(vit)
    by_flax = np.asarray(vit(images))
    from_tensors(vit, "vit_b16", as_torch(given), "torch")
    np.testing.assert_array_equal(np.asarray(vit(images)), by_flax)


def test_head_behind_a_hidden_layer_is_left_out_with_it(vit):
    account = from_tensors(vit, "vit_b16", random_arrays(flax_vit(pre_logits=True)), "i21k.npz", FLAX)
    assert set(account["left_out"]) == {"logits/kernel", "logits/bias"}
    assert {pattern: reason.split(" in ")[0] for pattern, reason in account["unused"].items()} == {"pre_logits/*": "2", "head/*": "2"}
    assert "hidden layer" in account["unused"]["head/*"]


def test_flax_names_of_another_backbone_are_refused():
    with pytest.raises(ConfigError, match="Backbones that take such a file: vit_b16"):
        from_tensors(None, "resnet18", {"Transformer/encoder_norm/scale": np.zeros(1)}, "file.npz", FLAX)


# Formats and the account


@pytest.mark.parametrize(
    "names, naming",
    [
        (["conv1.weight"], TORCHVISION),
        (["cls", "Transformer/encoder_norm/scale"], FLAX),
        (["conv1/kernel"], None),
        ([], None),
    ],
)
def test_names_say_whose_they_are(names, naming):
    assert naming_of(names) is naming


@pytest.fixture(scope="module")
def small():
    return build_classifier("resnet18", 10, image_size=32, stem="cifar")


def state_dict(dtype="float32"):
    """A ResNet18 with CIFAR stem, and its values rounded to `dtype`."""
    given = make_tensors(resnet(3))
    return {name: array if array.dtype.kind == "i" else array.astype(dtype) for name, array in given.items()}


def save_torch(given, path):
    kinds = {"float32": "Float", "float16": "Half", "float64": "Double", "bfloat16": "BFloat16", "int64": "Long"}
    top, entries = {}, []
    for number, (name, array) in enumerate(given.items()):
        strides = tuple(stride // array.itemsize for stride in array.strides)
        top[name] = torch_builder.tensor(array.shape, strides, 0, torch_builder.storage(array.size, str(number), kinds[array.dtype.name]))
        entries.append((f"archive/data/{number}", array.tobytes()))
    path.write_bytes(torch_builder.zip_file(top, *entries))


SAVE = {
    ".pth": save_torch,
    ".safetensors": save_file,
    ".npz": lambda given, path: np.savez(path, **given),  # NumPy's own format has no bfloat16
}


@pytest.mark.parametrize(
    "suffix, dtype",
    [(suffix, dtype) for suffix in SAVE for dtype in ("float32", "float16", "float64")]
    + [(suffix, ml_dtypes.bfloat16) for suffix in (".pth", ".safetensors")],
)
def test_names_of_torchvision_are_read_from_every_format(suffix, dtype, small, tmp_path):
    given = state_dict(dtype)
    path = tmp_path / f"resnet18{suffix}"
    SAVE[suffix](given, path)
    account = load_weights(small, "resnet18", path)
    assert account["loaded"] == len(small.weights) - 2
    assert set(account["left_out"]) == {"logits/kernel", "logits/bias"}
    assert account["unused"] == {"*num_batches_tracked": "20 in the file: BatchNorm counts no steps where its momentum is constant"}
    kernel = np.asarray(small.get_layer("layer2_0_conv1").kernel)
    np.testing.assert_array_equal(kernel, given["layer2.0.conv1.weight"].astype("float32").transpose(2, 3, 1, 0))


@pytest.mark.parametrize("suffix", [".npz", ".pth", ".safetensors", ".weights.h5"])
def test_absent_file_is_said(suffix, small, tmp_path):
    with pytest.raises(MissingError, match="There is no weights file"):
        load_weights(small, "resnet18", tmp_path / f"absent{suffix}")


@pytest.mark.parametrize("stem, left_out", [("imagenet", set()), ("cifar", {"conv1/kernel"})])
def test_cifar_stem_takes_all_but_conv1(stem, left_out):
    model = build_classifier("resnet50_torch", 1000, image_size=32, stem=stem)
    account = from_tensors(model, "resnet50_torch", make_tensors(resnet(7, (3, 4, 6, 3), BOTTLENECK)), "resnet50.pth")
    assert set(account["left_out"]) == left_out
    assert account["loaded"] == len(model.weights) - len(left_out)


def test_absent_first_layer_is_an_error(small):
    given = state_dict()
    del given["conv1.weight"]
    with pytest.raises(ConfigError, match=r"only in the model \(1\): conv1/kernel"):
        from_tensors(small, "resnet18", given, "file.pth")


@pytest.mark.parametrize(
    "array, said",
    [
        (np.full(64, np.nan, "float32"), "bn1.bias holds numbers that are not finite"),
        (np.full(64, "a"), "bn1.bias holds <U1, which are no numbers"),
        (np.full(64, 1j), "bn1.bias holds complex128"),
    ],
)
def test_what_are_no_weights_is_refused_untouched(array, said, small, tmp_path):
    path = tmp_path / "file.npz"
    np.savez(path, **state_dict() | {"bn1.bias": array})
    before = np.asarray(small.get_layer("conv1").kernel)
    with pytest.raises(DamagedError, match=said):
        load_weights(small, "resnet18", path)
    np.testing.assert_array_equal(np.asarray(small.get_layer("conv1").kernel), before)


@pytest.mark.parametrize("damage", [lambda content: content[:5000], lambda content: b"<!DOCTYPE html>", lambda content: b""])
def test_damaged_safetensors_are_named(damage, small, tmp_path):
    path = tmp_path / "file.safetensors"
    save_file(state_dict(), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DamagedError, match=path.name):
        load_weights(small, "resnet18", path)


def test_safetensors_beyond_the_model_are_refused_unread(small, tmp_path):
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(DamagedError, match="claims 8,589,934,592 bytes"):
        load_weights(small, "resnet18", path)


def published_shapes():
    yield from ((TORCHVISION, backbone, shapes) for backbone, _, _, shapes in CASES.values())
    yield FLAX, "vit_b16", flax_vit()


def test_layouts_find_the_shape_without_memory():
    """So that a file is checked against the model before any of it is copied."""
    for naming, backbone, shapes in published_shapes():
        for move in naming.moves[backbone](**get_backbone(backbone).options):
            tracemalloc.start()
            LaidOut(move, np.broadcast_to(np.float32(0), shapes[move.tensor]))
            assert tracemalloc.get_traced_memory()[1] < 100_000, move.tensor
            tracemalloc.stop()


def test_features_do_not_depend_on_the_head(small):
    """The same tensors with a head of ten classes and of a thousand give the same features."""
    given = state_dict()
    from_tensors(small, "resnet18", given, "file.pth")
    other = build_classifier("resnet18", 1000, image_size=32, stem="cifar")
    assert not from_tensors(other, "resnet18", given, "file.pth")["left_out"]
    images = pixels(small)
    np.testing.assert_array_equal(np.asarray(feature_extractor(small)(images)), np.asarray(feature_extractor(other)(images)))


def test_released_memory_of_a_mapped_file_is_read_again_when_wanted():
    tensors = read_tensors(Path(__file__).parent / "fixtures" / "zip.pth")
    before = {name: np.array(tensor) for name, tensor in tensors.items()}
    for tensor in (*tensors.values(), np.ones(3), None):
        release(tensor)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, before[name])
