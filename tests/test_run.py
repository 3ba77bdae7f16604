import json
from dataclasses import replace

import pytest
import torch

from sagan import Config, Generator, ModelConfig, UserError, load
from sagan.files import MAX_JSON_BYTES, load_tensors, save_tensors
from sagan.presets import PRESETS
from sagan.run import Run, RunInfo, default_output, load_generator, read_generator

INFO = RunInfo(
    Config(model=ModelConfig(resolution=32, num_classes=2, base_channels=4, generator_attention=((8, "channel"),))),
    ("cats", "dogs"),
    "key",
)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_configuration_comes_back_exactly(tmp_path, preset):
    config = PRESETS[preset]
    info = RunInfo(replace(config, model=replace(config.model, num_classes=2)), ("a", "ü"), "key")
    Run.create(tmp_path / "run", info)
    assert Run(tmp_path / "run").info == info


def test_load_gives_the_saved_generator_with_its_norms_worked_in(tmp_path):
    torch.manual_seed(0)
    run = Run.create(tmp_path / "run", INFO)
    generator = Generator(INFO.config.model)
    z, y = torch.randn(16, 128), torch.arange(16) % 2
    for _ in range(3):
        generator(z, y)
    run.save_generator(generator, step=5)
    wanted = generator.eval()(z, y)
    for path in (run.path, run.generator_path, str(run.path)):
        loaded = load(path)
        assert torch.allclose(loaded(z, y), wanted, atol=1e-6)
        assert not loaded.training
        assert not any("norm.u" in name for name in loaded.state_dict())


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    Run.create(tmp_path / "run", INFO)
    with pytest.raises(UserError, match=r"run\b.*--resume\b"):
        Run.create(tmp_path / "run", INFO)


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"\brun\b.*config\.json"):
        Run(tmp_path)
    with pytest.raises(UserError, match=r"run\b.*\bcheckpoint\b"):
        load(Run.create(tmp_path / "run", INFO).path)
    with pytest.raises(UserError, match=r"missing\b.*\brun\b"):
        load(tmp_path / "missing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["config"]["model"].update(resolution=33), r"resolution\b.*\b33\b"),
        (lambda c: c["config"]["model"].update(resolutoin=32), "resolutoin"),
        (lambda c: c["config"]["training"].update(loss="hing"), "config.training.loss"),
        (lambda c: c["config"]["training"].update(batch_size="many"), "config.training.batch_size"),
        (lambda c: c.pop("class_names"), "class_names"),
    ],
)
def test_a_changed_configuration_is_one_clear_line(tmp_path, change, message):
    run = Run.create(tmp_path / "run", INFO)
    content = json.loads(run.config_path.read_text())
    change(content)
    run.config_path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as error:
        Run(run.path)
    assert "\n" not in str(error.value)
    assert str(run.config_path) in str(error.value)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda metadata: metadata["model"].update(kernel_size=5), "model.kernel_size"),
        (lambda metadata: metadata.update(backbone="novel"), "backbone"),
        (lambda metadata: metadata["model"].update({"\x1b]0;x\x07": 5}), "model.?]0;x?"),
    ],
)
def test_a_generator_of_a_newer_version_is_refused_with_the_field(tmp_path, change, field):
    run = Run.create(tmp_path / "run", INFO)
    run.save_generator(Generator(INFO.config.model), step=5)
    tensors, metadata = load_tensors(run.generator_path)
    change(metadata)
    save_tensors(run.generator_path, tensors, metadata)
    with pytest.raises(UserError, match=r"^[^\n]*$") as error:
        load(run.path)
    assert f" {field}, " in str(error.value)
    assert "generator.safetensors" in str(error.value)


def test_a_cache_folder_in_the_configuration_is_not_used(tmp_path):
    info = replace(INFO, config=replace(INFO.config, data=replace(INFO.config.data, cache="/etc")))
    run = Run.create(tmp_path / "run", info)
    assert run.info == info  # this process was given it
    assert Run(run.path).info.config.data.cache == ""


def test_a_configuration_that_is_no_json(tmp_path):
    run = Run.create(tmp_path / "run", INFO)
    run.config_path.write_text("{")
    with pytest.raises(UserError, match=r"config\.json\b"):
        Run(run.path)


def test_the_best_step_is_that_of_the_smallest_distance(tmp_path):
    run = Run.create(tmp_path / "run", INFO)
    assert run.best_step() is None
    rows = [{"step": 1, "loss": 2.0}, *({"step": i, "distance": d} for i, d in ((1, 9.0), (2, 4.0), (3, 5.0)))]
    run.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 4, "dist')
    assert run.best_step() == 2
    assert len(run.metrics()) == 4


def test_a_configuration_of_absurd_size_is_not_read(tmp_path):
    run = Run.create(tmp_path / "run", INFO)
    with open(run.config_path, "a") as file:
        file.write(" " * (MAX_JSON_BYTES - run.config_path.stat().st_size))
    assert Run(run.path).info == INFO
    with open(run.config_path, "a") as file:
        file.write(" ")
    with pytest.raises(UserError, match=r"config\.json\b.*\b16 MiB"):
        Run(run.path)


def test_where_a_file_made_from_a_run_is_written(tmp_path):
    run = Run.create(tmp_path / "run", INFO)
    run.save_generator(Generator(INFO.config.model), step=5)
    for path in (run.path, str(run.path), run.generator_path):
        assert default_output(path, "x.png") == run.path / "x.png"


def test_a_generator_ready_to_use_needs_no_gradients_and_keeps_its_names_and_step(tmp_path):
    run = Run.create(tmp_path / "run", INFO)
    run.save_generator(Generator(INFO.config.model), step=5)
    generator, names, step = load_generator(run.path)
    assert (names, step) == (("cats", "dogs"), 5)
    assert not any(p.requires_grad for p in generator.parameters())
    assert not generator.training
    raw, *_ = read_generator(run.path)
    assert any(name.endswith(".u") for name in raw.state_dict())
    assert not any(name.endswith(".u") for name in generator.state_dict())
