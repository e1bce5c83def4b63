"""Files of publishers: the names of torchvision and Flax in every format, with every tensor used or recorded."""

import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch_builder
from safetensors.numpy import save_file
from test_backbones import random_pixels
from torch_reference import BOTTLENECK, CASES, efficientnet_lite, make_tensors, resnet, vit_b_16

from tl_keras.backbones import build_classifier, feature_extractor, get_backbone
from tl_keras.errors import ConfigError, DamagedError, MissingError
from tl_keras.weights import LoadingInfo, load_weights
from tl_keras.weights.assign import release_memory
from tl_keras.weights.from_publisher import LazyTranspose, assign_published, find_name_map
from tl_keras.weights.name_maps import EFFICIENTNET_PYTORCH, FLAX, TORCHVISION
from tl_keras.weights.position_embedding import resize_positions
from tl_keras.weights.torch_file import read_tensors

# Made with torch.nn.functional.interpolate, align_corners=True.
POSITIONS = Path(__file__).parent / "fixtures" / "positions_bicubic.npz"


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


@pytest.mark.parametrize("size, side", [(32, 2), pytest.param(384, 24, marks=pytest.mark.slow)])
def test_vit_loads_at_another_image_size(size, side):
    model = build_classifier("vit_b16", 1000, image_size=size)
    tensors = make_tensors(vit_b_16())
    info = assign_published(model, "vit_b16", tensors, "vit.pth")
    assert info.resized == {"pos_embedding/kernel": f"14 x 14 patches in the file, interpolated to {side} x {side}"}
    kernel = np.asarray(model.get_layer("pos_embedding").kernel)
    expected = resize_positions(tensors["encoder.pos_embedding"], 1 + side * side)
    np.testing.assert_array_equal(kernel, expected)
    np.testing.assert_array_equal(kernel[:, 0], tensors["encoder.pos_embedding"][:, 0])


def test_positions_that_cannot_be_resized_are_named():
    model = build_classifier("vit_b16", 10, image_size=32)
    tensors = make_tensors(vit_b_16()) | {"encoder.pos_embedding": np.zeros((1, 196, 768), "float32")}
    with pytest.raises(ConfigError, match=r"pos_embedding/kernel \(1, 196, 768\) in the file, \(1, 5, 768\) in the model"):
        assign_published(model, "vit_b16", tensors, "vit.pth")


# Flax


def flax_vit(num_classes=7, tokens=5, *, pre_logits=False):
    """Return names and shapes of ViT-B/16 as the Vision Transformer repository publishes it."""

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


def as_torch(tensors):
    """Return the tensors with torchvision's names and layouts, derived from the papers and not from the code under test."""
    state = {
        "class_token": tensors["cls"],
        "encoder.pos_embedding": tensors["Transformer/posembed_input/pos_embedding"],
        "conv_proj.weight": tensors["embedding/kernel"].transpose(3, 2, 0, 1),
        "conv_proj.bias": tensors["embedding/bias"],
        "encoder.ln.weight": tensors["Transformer/encoder_norm/scale"],
        "encoder.ln.bias": tensors["Transformer/encoder_norm/bias"],
        "heads.head.weight": tensors["head/kernel"].T,
        "heads.head.bias": tensors["head/bias"],
    }
    for number in range(12):
        source, target = f"Transformer/encoderblock_{number}", f"encoder.layers.encoder_layer_{number}"
        attention = f"{source}/MultiHeadDotProductAttention_1"
        for flax, torch in (("LayerNorm_0", "ln_1"), ("LayerNorm_2", "ln_2")):
            state |= {
                f"{target}.{torch}.weight": tensors[f"{source}/{flax}/scale"],
                f"{target}.{torch}.bias": tensors[f"{source}/{flax}/bias"],
            }
        for flax, torch in (("Dense_0", "mlp.0"), ("Dense_1", "mlp.3")):
            state |= {f"{target}.{torch}.weight": tensors[f"{source}/MlpBlock_3/{flax}/kernel"].T}
            state |= {f"{target}.{torch}.bias": tensors[f"{source}/MlpBlock_3/{flax}/bias"]}
        parts = ("query", "key", "value")
        state |= {
            f"{target}.self_attention.in_proj_weight": np.concatenate(
                [tensors[f"{attention}/{part}/kernel"].reshape(768, 768).T for part in parts]
            ),
            f"{target}.self_attention.in_proj_bias": np.concatenate([tensors[f"{attention}/{part}/bias"].reshape(768) for part in parts]),
            f"{target}.self_attention.out_proj.weight": tensors[f"{attention}/out/kernel"].reshape(768, 768).T,
            f"{target}.self_attention.out_proj.bias": tensors[f"{attention}/out/bias"],
        }
    return state


@pytest.fixture(scope="module")
def vit():
    return build_classifier("vit_b16", 7, image_size=32)


def random_arrays(shapes):
    random = np.random.default_rng(0)
    return {name: (0.02 * random.standard_normal(shape)).astype("float32") for name, shape in shapes.items()}


def test_flax_and_torch_names_give_the_same_model(vit, tmp_path):
    tensors = random_arrays(flax_vit())
    np.savez(tmp_path / "augreg.npz", **tensors)
    info = load_weights(vit, "vit_b16", tmp_path / "augreg.npz")
    assert info == LoadingInfo("augreg.npz", len(vit.weights))
    images = random_pixels(vit)
    by_flax = np.asarray(vit(images))
    assign_published(vit, "vit_b16", as_torch(tensors), "torch")
    np.testing.assert_array_equal(np.asarray(vit(images)), by_flax)


def test_a_head_after_a_hidden_layer_is_not_used(vit):
    info = assign_published(vit, "vit_b16", random_arrays(flax_vit(pre_logits=True)), "i21k.npz", FLAX)
    assert set(info.missing) == {"logits/kernel", "logits/bias"}
    assert {pattern: reason.split(" in ")[0] for pattern, reason in info.unexpected.items()} == {"pre_logits/*": "2", "head/*": "2"}
    assert "hidden layer" in info.unexpected["head/*"]


def test_flax_names_of_another_backbone_are_refused():
    with pytest.raises(ConfigError, match="Backbones that take such a file: vit_b16"):
        assign_published(None, "resnet18", {"Transformer/encoder_norm/scale": np.zeros(1)}, "file.npz", FLAX)


# Formats and the record


@pytest.mark.parametrize(
    "names, name_map",
    [
        (["conv1.weight"], TORCHVISION),
        (["_conv_stem.weight", "_blocks.0._bn1.weight"], EFFICIENTNET_PYTORCH),
        (["cls", "Transformer/encoder_norm/scale"], FLAX),
        (["conv1/kernel"], None),
        ([], None),
    ],
)
def test_names_identify_their_publisher(names, name_map):
    assert find_name_map(names) is name_map


@pytest.fixture(scope="module")
def small():
    return build_classifier("resnet18", 10, image_size=32, stem="cifar")


def state_dict(dtype="float32"):
    """Return the tensors of a ResNet18 with CIFAR stem, rounded to `dtype`."""
    tensors = make_tensors(resnet(3))
    return {name: array if array.dtype.kind == "i" else array.astype(dtype) for name, array in tensors.items()}


def save_torch(tensors, path):
    prefixes = {"float32": "Float", "float16": "Half", "float64": "Double", "bfloat16": "BFloat16", "int64": "Long"}
    root, entries = {}, []
    for number, (name, array) in enumerate(tensors.items()):
        strides = tuple(stride // array.itemsize for stride in array.strides)
        root[name] = torch_builder.tensor(
            array.shape, strides, 0, torch_builder.storage(array.size, str(number), prefixes[array.dtype.name])
        )
        entries.append((f"archive/data/{number}", array.tobytes()))
    path.write_bytes(torch_builder.zip_file(root, *entries))


SAVE = {
    ".pth": save_torch,
    ".safetensors": save_file,
    ".npz": lambda tensors, path: np.savez(path, **tensors),  # NumPy's own format has no bfloat16
}


@pytest.mark.parametrize(
    "suffix, dtype",
    [(suffix, dtype) for suffix in SAVE for dtype in ("float32", "float16", "float64")]
    + [(suffix, ml_dtypes.bfloat16) for suffix in (".pth", ".safetensors")],
)
def test_torchvision_names_are_loaded_from_every_format(suffix, dtype, small, tmp_path):
    tensors = state_dict(dtype)
    path = tmp_path / f"resnet18{suffix}"
    SAVE[suffix](tensors, path)
    info = load_weights(small, "resnet18", path)
    assert info.loaded == len(small.weights) - 2
    assert set(info.missing) == {"logits/kernel", "logits/bias"}
    assert info.unexpected == {"*num_batches_tracked": "20 in the file: BatchNorm counts no steps where its momentum is constant"}
    kernel = np.asarray(small.get_layer("layer2_0_conv1").kernel)
    np.testing.assert_array_equal(kernel, tensors["layer2.0.conv1.weight"].astype("float32").transpose(2, 3, 1, 0))


@pytest.mark.parametrize("suffix", [".npz", ".pth", ".safetensors", ".weights.h5"])
def test_an_absent_file_is_a_missing_error(suffix, small, tmp_path):
    with pytest.raises(MissingError, match="There is no weights file"):
        load_weights(small, "resnet18", tmp_path / f"absent{suffix}")


@pytest.mark.parametrize("stem, missing", [("imagenet", set()), ("cifar", {"conv1/kernel"})])
def test_a_cifar_stem_loads_all_but_conv1(stem, missing):
    model = build_classifier("resnet50_torch", 1000, image_size=32, stem=stem)
    info = assign_published(model, "resnet50_torch", make_tensors(resnet(7, (3, 4, 6, 3), BOTTLENECK)), "resnet50.pth")
    assert set(info.missing) == missing
    assert info.loaded == len(model.weights) - len(missing)


def test_an_absent_first_layer_is_an_error(small):
    tensors = state_dict()
    del tensors["conv1.weight"]
    with pytest.raises(ConfigError, match=r"only in the model \(1\): conv1/kernel"):
        assign_published(small, "resnet18", tensors, "file.pth")


@pytest.mark.parametrize(
    "array, message",
    [
        (np.full(64, np.nan, "float32"), "bn1.bias holds numbers that are not finite"),
        (np.full(64, "a"), "bn1.bias holds <U1, which are no numbers"),
        (np.full(64, 1j), "bn1.bias holds complex128"),
    ],
)
def test_values_that_are_not_finite_numbers_are_refused(array, message, small, tmp_path):
    path = tmp_path / "file.npz"
    np.savez(path, **state_dict() | {"bn1.bias": array})
    before = np.asarray(small.get_layer("conv1").kernel)
    with pytest.raises(DamagedError, match=message):
        load_weights(small, "resnet18", path)
    np.testing.assert_array_equal(np.asarray(small.get_layer("conv1").kernel), before)


@pytest.mark.parametrize("damage", [lambda content: content[:5000], lambda content: b"<!DOCTYPE html>", lambda content: b""])
def test_a_damaged_safetensors_file_is_named(damage, small, tmp_path):
    path = tmp_path / "file.safetensors"
    save_file(state_dict(), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DamagedError, match=path.name):
        load_weights(small, "resnet18", path)


def test_a_safetensors_file_larger_than_the_model_is_refused_unread(small, tmp_path):
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(DamagedError, match="claims 8,589,934,592 bytes"):
        load_weights(small, "resnet18", path)


def published_shapes():
    yield from ((TORCHVISION, backbone, shapes) for backbone, _, _, shapes in CASES.values())
    yield EFFICIENTNET_PYTORCH, "efficientnet_lite0", efficientnet_lite("efficientnet_lite0")
    yield FLAX, "vit_b16", flax_vit()


def test_layouts_give_the_shape_without_allocating_memory():
    """A file is thus checked against the model before anything is copied."""
    for name_map, backbone, shapes in published_shapes():
        for mapping in name_map.mappings[backbone](**get_backbone(backbone).options):
            tracemalloc.start()
            LazyTranspose(mapping, np.broadcast_to(np.float32(0), shapes[mapping.tensor]))
            assert tracemalloc.get_traced_memory()[1] < 100_000, mapping.tensor
            tracemalloc.stop()


def test_features_do_not_depend_on_the_head(small):
    """The same tensors give the same features to models with ten and with a thousand classes."""
    tensors = state_dict()
    assign_published(small, "resnet18", tensors, "file.pth")
    other = build_classifier("resnet18", 1000, image_size=32, stem="cifar")
    assert not assign_published(other, "resnet18", tensors, "file.pth").missing
    images = random_pixels(small)
    np.testing.assert_array_equal(np.asarray(feature_extractor(small)(images)), np.asarray(feature_extractor(other)(images)))


def test_released_memory_of_a_mapped_file_can_be_read_again():
    tensors = read_tensors(Path(__file__).parent / "fixtures" / "zip.pth")
    before = {name: np.array(tensor) for name, tensor in tensors.items()}
    for tensor in (*tensors.values(), np.ones(3), None):
        release_memory(tensor)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, before[name])
