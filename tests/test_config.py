from __future__ import annotations

from pathlib import Path

import pytest

from edgecompress.config import CONFIG_NAME, Config, check_options, load_config, parse_shape
from edgecompress.errors import BadConfig


def written(folder: Path, text: str) -> Path:
    (folder / CONFIG_NAME).write_text(text, encoding="utf-8")
    return folder


def test_no_file_means_nothing_said(tmp_path: Path) -> None:
    assert load_config(tmp_path) == Config()


def test_every_option_is_read(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        'model = "net.onnx"\ndata = "calib.npz"\ntarget = "cortex-m4"\nflash = "512K"\n'
        'ram = 131072\nlatency_us = 5e4\neffort = "balanced"\noptimize = "size"\n'
        'seed = 7\noutput = "out"\n'
        "input_shape = [1, 3, 32, 32]\n",
    )
    config = load_config(folder)
    assert (config.flash, config.ram) == (512 * 1024, 131072)
    assert (config.model, config.data, config.target) == ("net.onnx", "calib.npz", "cortex-m4")
    assert (config.latency_us, config.effort, config.seed) == (5e4, "balanced", 7)
    assert config.optimize == "size"
    assert (config.output, config.input_shape) == ("out", (1, 3, 32, 32))


def test_unknown_key_is_named_with_the_allowed_ones(tmp_path: Path) -> None:
    with pytest.raises(BadConfig) as caught:
        load_config(written(tmp_path, 'traget = "cortex-m7"\n'))
    assert "'traget' is not an option" in caught.value.message
    assert caught.value.next_step is not None
    assert set(Config.model_fields) <= set(
        caught.value.next_step.removeprefix("Allowed: ").rstrip(".").split(", ")
    )


def test_bad_toml_names_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"edgecompress\.toml is not TOML: .*line 2"):
        load_config(written(tmp_path, 'model = "a"\ntarget = \n'))


def test_binary_file_is_not_toml(tmp_path: Path) -> None:
    (tmp_path / CONFIG_NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadConfig, match="is not TOML"):
        load_config(tmp_path)


def test_folder_in_the_files_place_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / CONFIG_NAME).mkdir()
    with pytest.raises(BadConfig, match="cannot be read"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('flash = "512Q"', "flash"),
        ("flash = -1", "flash"),
        ("ram = 1.5", "ram"),
        ("ram = true", "ram"),
        ("model = 3", "model"),
        ('model = ""', "model"),
        ("seed = -1", "seed"),
        ("seed = 1.5", "seed"),
        ('effort = "heroic"', "effort"),
        ("latency_us = 0", "latency_us"),
        ('input_shape = "1,x"', "input_shape"),
        ("input_shape = [1, 0]", "input_shape"),
        ("input_shape = []", "input_shape"),
        ("input_shape = 5", "input_shape"),
    ],
)
def test_wrong_value_is_refused_by_name(tmp_path: Path, line: str, key: str) -> None:
    with pytest.raises(BadConfig, match=rf"edgecompress\.toml: '{key}' = "):
        load_config(written(tmp_path, f"{line}\n"))


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadConfig) as caught:
        load_config(written(tmp_path, 'seed = "x"\neffort = 1\nnonsense = 1\n'))
    assert all(f"'{key}'" in caught.value.message for key in ("seed", "effort", "nonsense"))


def test_origin_is_blamed() -> None:
    with pytest.raises(BadConfig, match=r"^command line: "):
        check_options({"flash": "much"}, origin="command line")


def test_shapes_from_text_and_lists() -> None:
    assert parse_shape("1, 3,32,32") == (1, 3, 32, 32)
    assert parse_shape([1, 28]) == (1, 28)
    for bad in ("", "1,,2", "1x3", [1.0], [True], None):
        with pytest.raises(ValueError, match="whole numbers"):
            parse_shape(bad)
