"""`compress` from the command line to the files, on a network small enough to do for real."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgecompress.cli import main
from edgecompress.cli.compress import Method, options_of
from edgecompress.cli.compress import compress as compress_command
from edgecompress.compress.method_options import OPTIONS, PruneOptions
from edgecompress.errors import BadConfig
from edgecompress.model.load import load_source
from edgecompress.model.reference import run_onnx
from edgecompress.model.trainable import to_trainable

CLASSES = 3

torch.set_num_threads(1)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.norm(self.stem(x)))
        return self.head(self.flatten(self.pool(self.relu(self.body(x)))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.onnx, trained a little to tell three textures apart, and data.npz."""
    where = tmp_path_factory.mktemp("compress")
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, 240)
    x = rng.normal(size=(240, 1, 12, 12)).astype(np.float32)
    x[y == 1, :, ::2] += 1
    x[y == 2, :, :, ::2] += 1
    np.savez(where / "data.npz", x=x, y=y)
    np.savez(where / "unlabelled.npz", x=x)
    np.savez(where / "small.npz", x=x[:2])
    np.savez(where / "foreign.npz", x=x, y=y + 1)
    torch.manual_seed(0)
    network = Small().train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimizer.step()
    torch.onnx.export(
        network.eval(), (torch.zeros(1, 1, 12, 12),), where / "net.onnx", dynamo=False,
        input_names=["image"], output_names=["scores"],
    )  # fmt: skip
    return where


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def run(line: str, capsys: pytest.CaptureFixture[str]) -> dict:
    code = main([*f"compress {line} --json".split()])
    document = json.loads(capsys.readouterr().out)
    assert code == document.get("error", {}).get("exit_code", 0)
    return document


def test_pruning_halves_the_network_and_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "net.onnx --method prune --ratio 0.5 --repair --data data.npz -o half"
    result = run(line, capsys)
    assert {change["layer"]: change["after"] for change in result["changes"]} == {
        "stem": "8", "body": "8",
    }  # fmt: skip
    assert result["after"]["macs"] == 36 * (8 * 9 + 8 * 8 * 9) + 8 * CLASSES
    assert result["before"]["macs"] == 36 * (16 * 9 + 16 * 16 * 9) + 16 * CLASSES
    assert result["before"]["image_weight_bytes"] > 3 * result["after"]["image_weight_bytes"]
    assert result["accuracy"].keys() == {"validation", "test"}
    assert json.loads((folder / "half" / "result.json").read_text()) == result
    again = to_trainable(load_source(str(folder / "half" / "model.onnx")))
    assert again.graph.get_submodule("body").weight.shape == (8, 8, 3, 3)
    before, after = result["accuracy"]["test"]
    data = load_test_split(folder)
    made = run_onnx(onnx.load(folder / "half" / "model.onnx"), data[0])
    assert after == pytest.approx(100 * float((made.argmax(1) == data[1]).mean()))
    assert before > 80


def load_test_split(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    from edgecompress.model.data import load_data

    test = load_data(str(folder / "data.npz"), input_shape=(1, 1, 12, 12)).test
    assert test.y is not None
    return test.x, test.y


@pytest.mark.parametrize("criterion", ["taylor", "apoz"])
def test_criteria_from_the_command_line(criterion: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = (
        f"net.onnx -m prune --criterion {criterion} --scope global --data data.npz -o {criterion}"
    )
    result = run(line, capsys)
    assert result["options"]["criterion"] == criterion
    assert result["after"]["parameters"] < result["before"]["parameters"]


def test_sparsity_pays_in_the_image_and_not_in_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    result = run("net.onnx -m sparsify --sparsity 0.75 -o sparse", capsys)
    before, after = result["before"], result["after"]
    assert before["file_weight_bytes"] == after["file_weight_bytes"]
    weights = 16 * 9 + 16 * 16 * 9 + 16 * CLASSES
    assert after["nonzero_weights"] == weights // 4
    biases = 4 * (16 + 16 + CLASSES)
    # A bit for each weight, a byte for each that is not zero; padded to units of eight.
    assert weights * 3 / 8 <= after["image_weight_bytes"] - biases <= weights * 3 / 8 + 12
    assert result["accuracy"] == {}


def test_quantization_and_sharing_write_deployables(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line, limit in (("-m quantize --bits 4", 15), ("-m share --values 4", 4)):
        result = run(f"net.onnx {line} --data unlabelled.npz -o out", capsys)
        assert result["form"] == "int8 QDQ"
        assert result["metric"] == "same top-1 as before %"
        assert load_source(str(folder / "out" / "model.onnx")).kind == "deployable"
        for tensor in onnx.load(folder / "out" / "model.onnx").graph.initializer:
            if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1:
                assert len(np.unique(onnx.numpy_helper.to_array(tensor))) <= limit


def test_activations_take_sixteen_bits_or_no_zero_point(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = "net.onnx -m quantize --data data.npz -o wide"
    made = {}
    for setting in ("", "--activation-bits 16", "--symmetric-activations"):
        made[setting] = run(f"{base} {setting}", capsys)["accuracy"]["test"][1]
        model = onnx.load(folder / "wide" / "model.onnx")
        points = [
            onnx.numpy_helper.to_array(one)
            for one in model.graph.initializer
            if one.name.endswith("zero_point") and one.name.startswith("image")
        ]
        assert [point.dtype for point in points] == [np.int16 if "16" in setting else np.int8]
        assert bool(points[0]) == ("symmetric" not in setting)
    assert made["--activation-bits 16"] >= made[""] - 100 / 24


def test_factorization_leaves_the_smallest_factors(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "net.onnx -m lowrank --layers body --data data.npz -o factors"
    by_energy = run(f"{line} --energy 0.8", capsys)
    by_rank = run(f"{line} --factorization cp --rank 6", capsys)
    assert [change["layer"] for change in by_energy["changes"]] == ["body"]
    assert by_energy["after"]["parameters"] < by_energy["before"]["parameters"]
    weights = {"body_first": (6, 16, 1, 1), "body_vertical": (6, 1, 3, 1)}
    graph = to_trainable(load_source(str(folder / "factors" / "model.onnx"))).graph
    assert {name: graph.get_submodule(name).weight.shape for name in weights} == weights
    saved = 16 * 16 * 9 - 6 * (16 + 16 + 3 + 3)
    assert by_rank["before"]["parameters"] - by_rank["after"]["parameters"] == saved


def tiny_student() -> nn.Module:
    """A network of a tenth of the weights, not trained."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, CLASSES),
    )  # fmt: skip


def test_a_student_learns_from_unlabelled_data(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    line = "net.onnx -m distill --student test_cli_compress:tiny_student --data unlabelled.npz"
    results = [run(f"{line} -o student --finetune-steps {steps}", capsys) for steps in (1, 100)]
    learnt = [result["accuracy"]["validation"][1] for result in results]
    assert learnt[1] > learnt[0] + 10
    assert results[1]["after"]["parameters"] < results[1]["before"]["parameters"] / 10
    shapes = [weight.shape for weight in to_trainable(
        load_source(str(folder / "student" / "model.onnx"))).graph.parameters()]  # fmt: skip
    assert shapes[0] == (6, 1, 3, 3)


def test_zeros_outlive_finetuning_and_the_same_seed_gives_the_same_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = (
        "net.onnx -m sparsify --sparsity 0.75 --finetune-steps 20 --seed 4 --data data.npz -o same"
    )
    first, second, at_once = (
        run(f"{line} {how}", capsys) for how in ("--gradual", "--gradual", "--at-once")
    )
    assert first["hashes"] == second["hashes"] != at_once["hashes"]
    for result in (first, at_once):
        assert result["after"]["nonzero_weights"] == result["before"]["nonzero_weights"] // 4


def test_the_table_has_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", "net.onnx", "-m", "prune", "-d", "data.npz", "-o", "table"]) == 0
    shown = capsys.readouterr().out
    for words in ("before", "after", "MACs", "Top-1, test", "table/model.onnx (float32)", "stem"):
        assert words in shown


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("net.onnx -m prune --ratio 1.5", "ratio of 1.5 is out of range"),
        ("net.onnx -m prune --ratio 0.01", "removes no channel of any of the 2 groups"),
        ("net.onnx -m prune --criterion taylor", "'taylor' needs data"),
        ("net.onnx -m prune --repair", "Repair needs data"),
        ("net.onnx -m sparsify --sparsity 1", "sparsity of 1"),
        ("net.onnx -m quantize", "Quantization needs data"),
        ("net.onnx -m quantize --bits 5 --data data.npz", "--bits 5"),
        ("net.onnx -m sparsify --ratio 0.5", "--ratio belongs to --method prune"),
        ("net.onnx -m sparsify --finetune-steps 5", "Fine-tuning needs data"),
        ("net.onnx -m sparsify --gradual", "Gradual pruning happens during training"),
        ("net.onnx -m lowrank --energy 0", "energy of 0 is out of range"),
        ("net.onnx -m lowrank --energy 1", "No layer gets smaller"),
        ("net.onnx -m lowrank --layers nose", "no layer 'nose' to factorize"),
        ("net.onnx -m share --layers nose --data data.npz", "no layer 'nose'"),
        ("net.onnx -m prune --data small.npz", "small holds 2 samples"),
        ("net.onnx -m prune --data foreign.npz", "Labels go up to 3, the model has 3 outputs"),
        ("net.onnx -m distill --data data.npz", "Distillation needs a student"),
        ("net.onnx -m distill --student net.onnx --data data.npz", "Distillation is training"),
        ("net.onnx -m prune -o x.onnx", "--output names a folder"),
        ("one.onnx -m prune", "no prunable layer"),
        ("nothing.onnx -m prune", "no file 'nothing.onnx'"),
    ],
)
def test_bad_input_is_one_clear_line_and_leaves_nothing(
    line: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if line.startswith("one"):
        torch.onnx.export(nn.Conv2d(1, 2, 3), (torch.zeros(1, 1, 8, 8),), "one.onnx", dynamo=False)
    output = "" if "-o " in line else " -o never"
    error = run(line + output, capsys)["error"]
    assert words in error["message"]
    assert error["exit_code"] == 2
    assert not (folder / "never").exists()
    assert not [*folder.glob(".never*")]


def test_every_method_of_the_library_is_on_the_command_line() -> None:
    assert {method.value for method in Method} == OPTIONS.keys()
    settings = {name for options in OPTIONS.values() for name in options.model_fields}
    assert settings <= inspect.signature(compress_command).parameters.keys()


def test_the_target_decides_the_multiple_and_the_user_decides_last() -> None:
    chosen = options_of(Method.prune, {"ratio": 0.3}, target="cortex-m55")
    assert chosen == PruneOptions(ratio=0.3, multiple_of=8)
    given = options_of(Method.prune, {"multiple_of": 2}, target="cortex-m55")
    assert given == PruneOptions(multiple_of=2)
    with pytest.raises(BadConfig, match="prune takes --ratio, --criterion"):
        options_of(Method.prune, {"sparsity": 0.3})
