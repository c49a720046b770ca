"""Weight files of every kind, written with the real field numbers and names, and all that can be wrong with one."""
from __future__ import annotations

import os
import pickle
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.weight_files import (
    WRITERS,
    Stored,
    caffemodel,
    field,
    frozen_graph,
    keras_tensors,
    write_h5,
    write_pth,
)
from torch import Tensor

from streamdream import models
from streamdream.errors import MissingPackage, ModelError
from streamdream.models import Model, fetch, file_formats, weights
from streamdream.models.network import Network
from streamdream.models.nodes import Conv
from streamdream.models.weights import readers
from streamdream.models.weights.random import random_weights

BVLC, INCEPTION5H = models.get("bvlc_googlenet"), models.get("inception5h")


@pytest.fixture(scope="module")
def bvlc() -> Stored:
    return random_weights(BVLC.nodes())


def same_features(model: Model, found: Stored, expected: Stored, tap: str, size: int = 64) -> None:
    picture = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1)) * 100
    taps = [Network(model.nodes(), stored, [tap], torch.device("cpu"), torch.float32)(picture)[tap]
            for stored in (found, expected)]
    assert torch.equal(*taps)


# --- round trips ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", WRITERS)
def test_a_caffe_network_comes_back_from_every_format(name: str, bvlc: Stored, tmp_path: Path) -> None:
    path = tmp_path / name
    extra = {"loss1/conv.weight": torch.zeros(128, 512, 1, 1), "loss1/conv.bias": torch.zeros(128)}
    WRITERS[name](path, bvlc | extra)
    found = weights.load(path, BVLC)
    expected = {key: t.half().float() for key, t in bvlc.items()} if name.startswith("half") else bvlc
    assert list(found) == list(bvlc)
    assert all(torch.equal(found[key], expected[key]) and found[key].dtype == torch.float32 for key in expected)
    same_features(BVLC, found, expected, "inception_4c/output")


def test_inception5h_comes_back_from_the_graph_and_from_its_pth(tmp_path: Path) -> None:
    stored = random_weights(INCEPTION5H.nodes())
    (tmp_path / "tensorflow_inception_graph.pb").write_bytes(frozen_graph(stored))
    torch.save({key.replace("_pre_activation.", "_pre_activation_matmul.") if key.startswith("softmax")
                else key.replace(".", "_pre_relu_conv."): t for key, t in stored.items()}, tmp_path / "inception5h.pth")
    for path in sorted(tmp_path.iterdir()):
        found = weights.load(path, INCEPTION5H)
        assert list(found) == list(stored)
        assert all(torch.equal(found[key], stored[key]) for key in stored)
    same_features(INCEPTION5H, found, stored, "mixed4a")


@pytest.mark.parametrize("first", [1, 0, pytest.param(95, marks=pytest.mark.soak)])
def test_keras_s_h5_comes_back_whatever_its_numbers_begin_with(first: int, tmp_path: Path) -> None:
    model, stored = models.get("keras_inception_v3"), keras_tensors()
    write_h5(tmp_path / "notop.h5", stored, first)
    found = weights.load(tmp_path / "notop.h5", model)
    assert len(found) == 2 * 94
    for number in (1, 7, 94):
        deviation = torch.sqrt(stored[f"batch_normalization_{number}.moving_variance"] + 1e-3)
        mean, beta = (stored[f"batch_normalization_{number}.{kind}"] for kind in ("moving_mean", "beta"))
        torch.testing.assert_close(found[f"conv2d_{number}.weight"],
                                   stored[f"conv2d_{number}.kernel"] / deviation.view(-1, 1, 1, 1))
        torch.testing.assert_close(found[f"conv2d_{number}.bias"], beta - mean / deviation)


def test_keras_s_pth_gives_the_same_as_its_h5(tmp_path: Path) -> None:
    model, stored = models.get("keras_inception_v3"), keras_tensors()
    write_h5(tmp_path / "a.h5", stored)
    names = {"kernel": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    converted = {f"{key.partition('.')[0]}.{names[key.partition('.')[2]]}": t for key, t in stored.items()}
    gammas = {key.replace(".bias", ".weight"): torch.ones_like(t) for key, t in converted.items() if ".bias" in key}
    torch.save(converted | gammas, tmp_path / "b.pth")
    first, second = weights.load(tmp_path / "a.h5", model), weights.load(tmp_path / "b.pth", model)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_cars_comes_back_under_its_own_names(tmp_path: Path) -> None:
    model = models.get("cars_googlenet")
    stored = random_weights(model.nodes())
    (tmp_path / "web_car.caffemodel").write_bytes(caffemodel(stored, old=True))
    found = weights.load(tmp_path / "web_car.caffemodel", model)
    assert {"conv1.weight", "conv2_1x1.bias", "inception_3a_1x1.weight", "loss3_classifier_model.bias"} <= set(found)
    assert all(torch.equal(found[key], stored[key]) for key in stored)


def test_a_file_without_the_classifier_serves_for_all_below_it(bvlc: Stored, tmp_path: Path) -> None:
    path = tmp_path / "bvlc_googlenet.pth"
    write_pth(path, {key.replace("/", "_"): t for key, t in bvlc.items() if not key.startswith("loss3")})
    found = weights.load(path, BVLC)
    same_features(BVLC, found, bvlc, "inception_5b/output")
    with pytest.raises(ModelError, match=r"^bvlc_googlenet.pth holds no loss3/classifier; dream a lower layer"):
        Network(BVLC.nodes(), found, ["prob"], torch.device("cpu"), torch.float32)


def test_formats_are_listed_once() -> None:
    assert set(fetch.SUFFIXES) == set(readers.READERS) == set(file_formats.CHECKS)
    assert {source.suffix for model in models.MODELS.values() for source in model.sources} <= set(fetch.SUFFIXES)


# --- refusals ---------------------------------------------------------------------------------------------------------

def refused(path: Path, model: Model, *parts: str) -> None:
    """In one line that begins with the file's name and holds the parts."""
    with pytest.raises(ModelError) as caught:
        weights.load(path, model)
    text = str(caught.value)
    assert text.startswith(path.name) and "\n" not in text and len(text) < 250, text
    for part in parts:
        assert part in text, text


def whole_file(suffix: str, path: Path, bvlc: Stored) -> Model:
    """A good file of that format; returns the network it is for."""
    if suffix == ".h5":
        write_h5(path, keras_tensors())
        return models.get("keras_inception_v3")
    if suffix == ".pb":
        path.write_bytes(frozen_graph(random_weights(INCEPTION5H.nodes())))
        return INCEPTION5H
    {".caffemodel": WRITERS["new.caffemodel"], ".pth": WRITERS["neural-dream.pth"], ".pt": WRITERS["wrapped.pth"],
     ".safetensors": WRITERS["own.safetensors"]}[suffix](path, bvlc)
    return BVLC


@pytest.mark.parametrize("suffix", fetch.SUFFIXES)
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.95])
def test_a_truncated_file_is_refused(suffix: str, kept: float, bvlc: Stored, tmp_path: Path) -> None:
    path = tmp_path / f"cut{suffix}"
    model = whole_file(suffix, path, bvlc)
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * kept))
    refused(path, model, "is damaged or truncated" if kept else "is empty")


@pytest.mark.parametrize("suffix", fetch.SUFFIXES)
def test_models_tells_a_damaged_file_from_a_whole_one(suffix: str, bvlc: Stored, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """Without reading it: truncated, or overwritten with noise or zeros."""
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path))
    path = tmp_path / "weights" / f"file{suffix}"
    path.parent.mkdir()
    model = whole_file(suffix, path, bvlc)
    path = path.rename(path.with_stem(model.name))
    content = path.read_bytes()
    assert model.available() == (True, str(path))
    noise = np.random.default_rng(0).bytes(len(content))
    truncated = b"" if content.startswith(file_formats.PICKLE) else content[:len(content) // 3]
    for damaged in (truncated, noise, bytes(len(content)), b"", b"[" * 100):
        path.write_bytes(damaged)
        assert model.available() == (
            False, f"{path} is damaged or truncated: streamdream fetch {model.name} --again")


@pytest.mark.parametrize("suffix", fetch.SUFFIXES)
@pytest.mark.parametrize(("content", "part"), [
    (b"\n<!DOCTYPE html><html><title>404</title></html>", "is a web page"), (b"<html><body>", "is a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
    (b"these are not weights at all, sorry " * 20, ""), (bytes(5000), ""), (b"\x0a\x04name", ""),
])
def test_what_is_no_weight_file_is_refused(suffix: str, content: bytes, part: str, tmp_path: Path) -> None:
    path = tmp_path / f"page{suffix}"
    path.write_bytes(content)
    refused(path, BVLC, part)


@pytest.mark.parametrize(("name", "wrong", "parts"), [
    ("inception_3a/5x5.weight", torch.zeros(32, 16, 3, 3),
     ["inception_3a/5x5.weight", "32x16x3x3", "not 32x16x5x5"]),
    ("inception_4a/1x1.bias", torch.zeros(191), ["inception_4a/1x1.bias", "is 191, not 192"]),
    ("loss3/classifier.weight", torch.zeros(365, 1024, 1, 1), ["loss3/classifier.weight", "365x1024"]),
    ("conv2/3x3.weight", torch.full((192, 64, 3, 3), float("nan")), ["conv2/3x3.weight", "not finite"]),
    ("conv2/3x3.bias", torch.zeros(192, dtype=torch.int32), ["conv2/3x3.bias", "not finite"]),
    ("inception_4b/3x3.weight", None, ["does not hold bvlc_googlenet", "inception_4b/3x3.weight is missing"]),
    ("inception_5b/pool_proj.bias", None, ["inception_5b/pool_proj.bias is missing"]),
])
def test_the_first_tensor_that_does_not_fit_is_named(name: str, wrong: Tensor | None, parts: list[str], bvlc: Stored,
                                                     tmp_path: Path) -> None:
    changed = bvlc | {"inception_5b/3x3.weight": torch.zeros(1)}  # a later one is wrong as well
    if wrong is None:
        del changed[name]
        changed["inception_5b/3x3.weight"] = bvlc["inception_5b/3x3.weight"]
    else:
        changed[name] = wrong
        if name.startswith("loss3"):
            changed["inception_5b/3x3.weight"] = bvlc["inception_5b/3x3.weight"]
    save_file(changed, tmp_path / "w.safetensors")
    refused(tmp_path / "w.safetensors", BVLC, *parts)


def test_another_network_s_file_is_refused(bvlc: Stored, tmp_path: Path) -> None:
    (tmp_path / "bvlc.caffemodel").write_bytes(caffemodel(bvlc))
    refused(tmp_path / "bvlc.caffemodel", INCEPTION5H, "does not hold inception5h: conv2d0.weight is missing")
    refused(tmp_path / "bvlc.caffemodel", models.get("places365_googlenet"), "loss3/classifier.weight is 1000x1024x1x1")


def test_a_batch_norm_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    model, stored = models.get("keras_inception_v3"), keras_tensors()
    lacking = {key: t for key, t in stored.items() if key != "batch_normalization_9.moving_mean"}
    write_h5(tmp_path / "a.h5", lacking)
    refused(tmp_path / "a.h5", model, "batch_normalization_9.running_mean is missing")
    write_h5(tmp_path / "b.h5", stored | {"batch_normalization_9.beta": torch.zeros(7)})
    refused(tmp_path / "b.h5", model, "batch_normalization_9.bias is [7], not [64]")


def test_a_blob_with_fewer_numbers_than_its_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.caffemodel"
    short = field(7, field(1, bytes([64, 3, 7, 7]))) + field(5, struct.pack("<3f", 1, 2, 3))
    path.write_bytes(field(100, field(1, "conv1/7x7_s2") + field(7, short)))
    refused(path, BVLC, "conv1/7x7_s2.weight has 3 numbers", "[64, 3, 7, 7]")


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(form: str, tmp_path: Path) -> None:
    path, target = tmp_path / "w.pth", tmp_path / "it-ran"
    content = {"conv1_7x7_s2.weight": torch.zeros(1), "bomb": Bomb(target)}
    if form == "bare":
        path.write_bytes(pickle.dumps(Bomb(target), protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    refused(path, BVLC, "is refused", "code that would run")
    path.write_bytes(pickle.dumps(Bomb(target)))
    refused(path, BVLC, "not a PyTorch file")
    assert not target.exists()


def test_what_is_no_dictionary_of_tensors_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2, 3], tmp_path / "list.pth")
    refused(tmp_path / "list.pth", BVLC, "holds a list, not named tensors")
    torch.save({"lr": 0.1}, tmp_path / "numbers.pth")
    refused(tmp_path / "numbers.pth", BVLC, "holds nothing that a .pth file with weights would hold")


@pytest.mark.parametrize(("suffix", "module"), [(".caffemodel", "google.protobuf"), (".h5", "h5py")])
def test_a_missing_package_is_named_with_its_command(suffix: str, module: str, monkeypatch: pytest.MonkeyPatch,
                                                     tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / f"w{suffix}").write_bytes(b"x")
    with pytest.raises(MissingPackage, match=r"package (protobuf|h5py): pip install 'streamdream\[weights\]'"):
        weights.load(tmp_path / f"w{suffix}", BVLC)


def test_a_constant_that_is_one_number_everywhere_is_filled(tmp_path: Path) -> None:
    """TensorFlow writes one float_val for a tensor of equal numbers."""
    path = tmp_path / "g.pb"
    value = field(1, 1) + field(2, field(2, field(1, 64))) + field(5, struct.pack("<f", 0.5))
    constant = field(1, "conv2d0_b") + field(2, "Const") + field(5, field(1, "value") + field(2, field(8, value)))
    path.write_bytes(field(1, constant))
    assert torch.equal(readers.read(path, ".pb")["conv2d0_b"], torch.full((64,), 0.5))


def test_doubles_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "d.caffemodel"
    numbers = np.arange(3, dtype="<f8")
    path.write_bytes(field(100, field(1, "a") + field(7, field(7, field(1, b"\x03")) + field(8, numbers.tobytes()))))
    assert readers.read(path, ".caffemodel")["a.weight"].tolist() == [0, 1, 2]


def test_the_protobuf_library_reads_what_it_writes() -> None:
    """Its own encoder against the bytes written by hand above."""
    protobuf = pytest.importorskip("streamdream.models.weights.protobuf")
    net = protobuf.message("NetParameter")()
    layer = net.layer.add(name=b"conv1")
    added = layer.blobs.add(data=[struct.pack("<2f", 1, 2)])
    added.shape.dim.append(2)
    by_hand = field(100, field(1, "conv1") + field(7, field(5, struct.pack("<2f", 1, 2)) + field(7, field(1, 2))))
    parsed = protobuf.message("NetParameter")()
    parsed.MergeFromString(by_hand)
    assert parsed == net


def test_weights_are_kept_in_memory_until_the_file_changes(bvlc: Stored, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"googlenet are not here; .*streamdream fetch bvlc_googlenet .*--from FILE"):
        BVLC.load_weights()
    assert BVLC.available() == (False, "streamdream fetch bvlc_googlenet")
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / "bvlc_googlenet.safetensors"
    save_file(bvlc, path)
    first = BVLC.load_weights()
    assert BVLC.load_weights() is first and BVLC.available() == (True, str(path))
    path.write_bytes(b"broken")
    with pytest.raises(ModelError, match=r"damaged or truncated.*fetch bvlc_googlenet --again"):
        BVLC.load_weights()


def test_every_convolution_of_every_network_is_found_in_its_own_layout() -> None:
    for model in models.MODELS.values():
        stored = random_weights(model.nodes())
        assert list(weights.match_to_nodes(stored, model)) == list(stored)
        assert sum(isinstance(node, Conv) for node in model.nodes()) * 2 == len(stored)
