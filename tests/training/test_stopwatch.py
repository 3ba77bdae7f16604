"""Seconds, memory and the share of the peak in the metrics log."""

import time
from itertools import pairwise

import pytest
import torch

from sagan import ModelConfig
from sagan.device import Precision, peak_speed
from sagan.metric_names import depends_on_machine
from sagan.run import Run
from sagan.training import recorder, stopwatch
from sagan.training.operations import count_operations
from sagan.training.stopwatch import Stopwatch
from sagan.training.writer import BackgroundWriter


def test_seconds_of_steps_of_data_and_of_pauses(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])

    def work(seconds):
        now[0] += seconds
        return seconds

    watch = Stopwatch()
    get = watch.timed(work)
    for _ in range(4):
        assert get(0.5) == 0.5  # of data
        work(2.0)
    for part, seconds in (("checkpoint", 3.0), ("samples", 1.0), ("checkpoint", 4.0)):
        with watch.pause(part):
            work(seconds)
    assert watch.steps(4) == {"seconds/step": 2.5, "seconds/data": 0.5}
    assert watch.elapsed == 18.0
    watch.restart()
    work(6.0)
    assert watch.steps(2) == {"seconds/step": 3.0, "seconds/data": 0.0}
    assert watch.take("checkpoint") == {"seconds/checkpoint": 7.0}  # a pause before the restart too, and once only
    assert watch.take("checkpoint") == watch.take("evaluation") == {}


def test_what_a_run_logs(command, tmp_path, train_options, monkeypatch):
    """A row has the seconds of the checkpoint before it; share of peak and operations only where a peak is known."""
    wait = BackgroundWriter.wait
    monkeypatch.setattr(BackgroundWriter, "wait", lambda self: (time.sleep(0.25), wait(self)))
    assert command("train", *train_options, "--steps", 6, "--out", tmp_path / "cpu")[0] == 0
    rows = Run(tmp_path / "cpu").metrics()
    assert [row["step"] for row in rows] == [2, 4, 6]
    usual = {"images_per_second", "seconds/step", "seconds/data", "memory_gib"}
    checkpoint = {"seconds/checkpoint"}  # of step 3; that of step 6 comes after the last row
    found = [{key for key in row if depends_on_machine(key)} for row in rows]
    assert found == [usual, usual | checkpoint, usual]
    assert rows[1]["seconds/checkpoint"] >= 0.25
    for row in rows:
        assert 0 < row["seconds/data"] < row["seconds/step"]
        assert 0.01 < row["memory_gib"] < 100
    seconds = 4 * 2 / rows[1]["images_per_second"]  # of two steps and the checkpoint
    assert 2 * rows[1]["seconds/step"] + rows[1]["seconds/checkpoint"] == pytest.approx(seconds, rel=0.2)

    monkeypatch.setattr(recorder, "peak_speed", lambda device, precision: 1e12)
    assert command("train", *train_options, "--steps", 2, "--out", tmp_path / "known")[0] == 0
    (row,) = Run(tmp_path / "known").metrics()
    model = Run(tmp_path / "known").info.config.model
    assert row["peak_share"] == pytest.approx(4 / row["seconds/step"] * count_operations(model) / 1e12)


def test_peaks_are_of_the_card_and_the_precision(monkeypatch):
    cuda = torch.device("cuda", 0)
    for name, precision, peak in (
        ("NVIDIA H200", "bf16", 989e12),
        ("NVIDIA H100 80GB HBM3", "tf32", 495e12),
        ("NVIDIA A100-SXM4-80GB", "fp32", 19.5e12),
        ("NVIDIA H100 PCIe", "bf16", None),  # slower than the card of that name with HBM3
        ("A card of tomorrow", "bf16", None),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert peak_speed(cuda, Precision(precision)) == peak
    assert peak_speed(torch.device("cpu"), Precision("fp32")) is None


def test_operations_are_those_of_the_shapes():
    """Each convolution with its weight's taps on the pixels of the small side, passes counted as they are needed."""
    model = ModelConfig(
        resolution=32, num_classes=0, latent_dim=8, base_channels=4, discriminator_widths=(4, 6),
        generator_attention=(), discriminator_attention=(),
    )  # fmt: skip

    def conv(c_in, c_out, taps, side):
        return 2 * taps * c_in * c_out * side**2

    stem = 2 * 8 * 16 * model.generator_channels[0]
    generator = conv(4, 3, 9, 32)
    for i, (a, b) in enumerate(pairwise(model.generator_channels)):
        generator += conv(a, b, 9, 4 << i) + conv(b, b, 9, 8 << i) + conv(a, b, 1, 4 << i)
    image = conv(3, 4, 9, 32) + conv(3, 4, 1, 16)
    inner = conv(4, 4, 9, 16) + conv(4, 6, 9, 16) + conv(6, 6, 9, 16) + conv(4, 6, 1, 16) + 2 * 6
    # D's step: G once, D on two images, backward to weights and inputs, but not to the image. G's: both, once each,
    # backward to all in G but the latent, and to the inputs of D.
    in_d_step = stem + generator + 2 * (2 * image + 3 * inner)
    in_g_step = 2 * stem + 3 * generator + 2 * (image + inner)
    counted = count_operations(model), count_operations(model, discriminator_steps=3)
    assert counted[0] == pytest.approx(in_d_step + in_g_step, rel=0.01)
    assert counted[1] == pytest.approx(3 * in_d_step + in_g_step, rel=0.01)
