"""Many processes train what one process trains, and fail, stop and resume as one."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sagan import UserError
from sagan.distributed import Processes, check_batch, in_memory_order
from sagan.files import load_tensors
from sagan.metric_names import depends_on_machine
from sagan.run import Run
from sagan.training.rng import StepRNG

CPU = torch.device("cpu")


def start(count, *arguments, restarts=0, module="sagan"):
    """`torchrun` of that many processes; its worst habit, a page of its own after every error, goes to stderr."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    launcher += ["--max-restarts", str(restarts), "-m", module] if module else ["--max-restarts", str(restarts)]
    return subprocess.Popen(
        [sys.executable, *(launcher if count > 1 else ["-m", module] if module else []), *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_each(*arguments):
    """Two processes without torchrun, which sends no signals and whose store is not rank 0's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    one = {"OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"} | address
    return [
        subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=os.environ | one | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def finish(process, status=0):
    output, errors = process.communicate(timeout=300)
    assert (process.returncode == 0) == (status == 0), errors
    return output, errors


def said(errors):
    """The lines of sagan among those of torchrun."""
    print(errors)  # shown if the test fails
    return [line for line in errors.splitlines() if line.startswith("sagan: ")]


def steps_logged(run):
    try:
        rows = Run(run).metrics()
    except UserError:
        return 0
    return rows[-1]["step"] if rows else 0


def workers(process):
    """The processes that torchrun has started."""
    return [int(n) for n in subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True).stdout.split()]


def test_shares_of_the_random_numbers_are_what_one_process_draws():
    def draw(rng, n):
        x = rng.uniform(n, -1, 1, torch.float32)
        return [rng.normal(n, 5), x, rng.integers(n, 0, 9), rng.integers(n, -2, 3)]

    one = draw(StepRNG(7), 12)
    for count in (2, 3):
        parts = [draw(StepRNG(7, rank=rank, count=count), 12 // count) for rank in range(count)]
        for whole, *shares in zip(one, *parts, strict=True):
            assert torch.equal(torch.stack(shares, 1).flatten(0, 1), whole)


def test_a_batch_that_cannot_be_shared_is_refused():
    check_batch(12, 2, Processes(CPU, 0, 3))
    with pytest.raises(UserError, match=r"--batch-size 12\b.*\b4 processes\b.*--accumulate 2\b.*\b8\b"):
        check_batch(12, 2, Processes(CPU, 0, 4))


def test_alone_nothing_is_sent():
    alone = Processes(CPU)
    t = torch.rand(3)
    alone.average_([t])
    assert alone.is_first
    assert alone.first(lambda: 3) == alone.in_turn(lambda: 3) == 3
    assert [int(a) for a in alone.map(np.array, 3)] == [0, 1, 2]
    assert [alone.any(said) for said in (True, False)] == [True, False]


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (5, 1, 3, 3), (1, 4, 3, 3), (5, 4, 1, 1), (7, 5), ()])
def test_in_the_order_of_memory_flattening_copies_nothing(shape):
    for t in (torch.rand(shape), torch.rand(shape).movedim(0, -1) if shape else torch.rand(())):
        assert torch.equal(in_memory_order(t).reshape(-1), torch.empty(0).set_(t.untyped_storage()))
        assert in_memory_order(t).reshape(-1).data_ptr() == t.data_ptr()
    x = torch.rand(4, 6)[:, ::2]  # with memory in between: a view all the same, but not a flat one
    in_memory_order(x).zero_()
    assert not x.any()


WORKER = """
import sys, time, json, numpy as np, torch
from safetensors.torch import save_file
from sagan import ModelConfig, TrainingConfig, distributed
from sagan.distributed import join
from sagan.training.step import Trainer

torch.set_default_dtype(torch.float64)
with join("cpu") as processes:
    model = ModelConfig(resolution=32, num_classes=3, latent_dim=8, base_channels=4)
    found = {}
    for name, options in json.loads(sys.argv[2]).items():
        config = TrainingConfig(batch_size=8, precision="fp32", **options)
        trainer = Trainer(model, config, processes.device, processes)

        def batch(i):
            noise = torch.Generator().manual_seed(i)
            x = torch.randint(256, (8, 32, 32, 3), generator=noise, dtype=torch.uint8).permute(0, 3, 1, 2)
            share = slice(processes.rank, None, processes.count)
            return x[share], torch.randint(3, (8,), generator=noise)[share]

        log = [trainer.train_step(i, batch) for i in range(2)][-1]
        networks = {network: getattr(trainer, network) for network in ("generator", "discriminator", "lecam")}
        for network, module in (networks | ({"guide": trainer.guide.heads} if trainer.guide else {})).items():
            state = module.state_dict()
            found |= {f"{name}/{network}/{key}": t.contiguous() for key, t in state.items()}
        found |= {f"{name}/log/{key}": t for key, t in log.items()}
    assert [int(a) for a in processes.map(lambda i: np.array(i * i), 5)] == [0, 1, 4, 9, 16]
    assert processes.first(lambda: processes.rank) == 0
    assert processes.any(processes.rank == processes.count - 1) and not processes.any(False)

    shapes = [(6, 4, 3, 3), (5, 1, 3, 3), (1, 4, 3, 3), (5, 4, 1, 1), (7, 5), (3, 4, 5), (7,), ()]

    def tensors(rank):
        rng = torch.Generator().manual_seed(rank)
        plain = [torch.randn(shape, generator=rng) for shape in 2 * shapes]
        return [t.to(memory_format=torch.channels_last) if t.dim() == 4 and i < 4 else t for i, t in enumerate(plain)]

    distributed.MESSAGE = 300  # several messages, one of more than that
    everyone = [tensors(rank) for rank in range(processes.count)]
    for view in (lambda t: t, distributed.in_memory_order):
        own = tensors(processes.rank)
        processes.average_([view(t) for t in own])
        for t, *shares in zip(own, *everyone, strict=True):
            assert torch.equal(t, sum(shares) / processes.count), t.shape
    save_file(found, f"{sys.argv[1]}/{processes.count}-{processes.rank}.safetensors")
"""

OPTIONS = {
    "plain": {},
    "relativistic": {"loss": "relativistic", "r1": 0.1, "r2": 0.1},
    "augmented": {"augment": ["color", "translation", "cutout"], "accumulate": 2},
    "guided": {"guide": 0.1},
    "regularised": {"lecam": 0.1, "gradient_penalty": 10.0, "discriminator_steps": 2},
}


def test_two_processes_train_what_one_trains(tmp_path):
    """In float64, where nothing but rounding may differ, with batch norm over the whole batch; and alike in both."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    options = {name: some | {"sync_batch_norm": True} for name, some in OPTIONS.items()}
    options["each its own"] = {}
    arguments = script, tmp_path, json.dumps(options)
    for job in [start(1, *arguments, module=None), *start_each(*arguments)]:
        finish(job)
    one, first, second = (load_file(tmp_path / f"{name}.safetensors") for name in ("1-0", "2-0", "2-1"))
    for name, t in one.items():
        assert torch.equal(first[name], second[name]), name
        if not name.startswith("each its own"):
            assert torch.allclose(first[name], t, rtol=0, atol=1e-9), (name, (first[name] - t).abs().max())
    weight = "generator/blocks.0.conv1.weight"
    assert not torch.allclose(first[f"each its own/{weight}"], one[f"each its own/{weight}"], rtol=0, atol=1e-6)
    assert torch.equal(one[f"each its own/{weight}"], one[f"plain/{weight}"])


@pytest.mark.slow
def test_resumed_with_another_number_of_processes(tmp_path, train_options):
    """2, then 1, then 2: the log has every step once, and weights follow those of one process."""
    options = [*train_options, "--sync-batch-norm", "True"]
    finish(start(1, "train", *options, "--steps", "6", "--out", tmp_path / "whole"))
    run = tmp_path / "run"
    for count, steps in ((2, 2), (1, 4), (2, 6)):
        config = json.loads((run / "config.json").read_text()) if run.exists() else None
        if config:  # as if it had been stopped there: a run knows its last step
            config["config"]["training"]["steps"] = steps
            (run / "config.json").write_text(json.dumps(config))
        how = ["--resume", run, "--device", "cpu"] if config else [*options, "--steps", steps, "--out", run]
        output, _ = finish(start(count, "train", *how))
        assert output.count(f"sagan sample {run}") == 1
    assert [row["step"] for row in Run(run).metrics()] == [2, 4, 6]
    (ours, about), (wanted, _) = (load_tensors(Run(p).checkpoint_path(6)) for p in (run, tmp_path / "whole"))
    assert about == {"step": 6, "detours": 0}
    assert ours.keys() == wanted.keys()
    for row, other in zip(Run(run).metrics(), Run(tmp_path / "whole").metrics(), strict=True):
        assert row["loss/discriminator"] == pytest.approx(other["loss/discriminator"], rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["a full disk", "a bad option", "a batch that cannot be shared"])
def test_an_error_is_one_line_and_ends_all(tmp_path, train_options, case):
    run = tmp_path / "run"
    arguments, wanted = {
        "a full disk": (["--steps", "9"], r"\bcheckpoints\b"),
        "a bad option": (["--steps", "-1"], r"steps\b.*-1\b"),
        "a batch that cannot be shared": (["--batch-size", "5"], r"--batch-size 5\b.*\b2 processes\b"),
    }[case]
    if case == "a full disk":
        run.mkdir()
        (run / "checkpoints").touch()  # a file where the first process wants a folder
    _, errors = finish(start(2, "train", *train_options, *arguments, "--out", run), status=1)
    (line,) = said(errors)
    assert re.search(wanted, line)
    assert errors.count("Traceback (most recent call last)") == 1  # torchrun's own
    assert not (run / "config.json").exists() or case == "a full disk"


@pytest.mark.parametrize(
    ("number", "whom"),
    [
        (signal.SIGTERM, 1),
        pytest.param(signal.SIGINT, 0, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, None, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_one_ends_all_with_one_checkpoint(tmp_path, train_options, number, whom):
    run = tmp_path / "run"
    process = start(2, "train", *train_options, "--steps", "100000", "--checkpoint-every", "100000", "--out", run)
    while steps_logged(run) < 4:
        time.sleep(0.02)
        assert process.poll() is None, process.communicate()
    os.kill(workers(process)[whom] if whom is not None else process.pid, number)
    output, errors = process.communicate(timeout=60)
    assert f"sagan train --resume {run}" in output
    (path,) = Run(run).checkpoints()
    assert load_tensors(path)[1]["step"] >= steps_logged(run)
    if whom is not None:
        assert process.returncode == 0, errors
        assert "Traceback" not in errors


LONG = ["--steps", "100000", "--checkpoint-every", "100000", "--out"]


def wait_for_steps(run, *jobs):
    while steps_logged(run) < 4:
        time.sleep(0.02)
        assert all(job.poll() is None for job in jobs), [job.communicate() for job in jobs]


@pytest.mark.slow
@pytest.mark.parametrize("whom", [0, 1])
def test_a_process_that_dies_ends_the_job_in_one_line(tmp_path, train_options, whom):
    run = tmp_path / "run"
    job = start(2, "train", *train_options, *LONG, run)
    wait_for_steps(run, job)
    os.kill(workers(job)[whom], signal.SIGKILL)
    killed = time.monotonic()
    _, errors = finish(job, status=1)
    assert time.monotonic() - killed < 15  # torchrun's SIGKILL comes after 30 s
    (line,) = said(errors)
    assert re.match(rf"sagan: process {1 - whom} of 2 has lost the others \(.*\); resume .* --resume$", line)


@pytest.mark.slow
@pytest.mark.parametrize("whom", [0, 1])
def test_asked_to_end_a_process_does_not_wait_for_one_that_is_silent(tmp_path, train_options, whom):
    """It waits in a collective, in C++, as for a process that has died NCCL's does: no handler in Python can run."""
    run = tmp_path / "run"
    job = start(2, "train", *train_options, *LONG, run)
    wait_for_steps(run, job)
    pids = workers(job)
    os.kill(pids[whom], signal.SIGSTOP)
    time.sleep(1)  # the other one comes to the collective
    os.kill(pids[1 - whom], signal.SIGTERM)
    asked = time.monotonic()
    while len(workers(job)) == 2 and time.monotonic() - asked < 20:
        time.sleep(0.05)
    left = workers(job)
    for pid in left:  # torchrun's SIGTERM does not reach the one that was stopped
        os.kill(pid, signal.SIGKILL)
    assert left == [pids[whom]]
    _, errors = finish(job, status=1)
    (line,) = said(errors)
    assert line.startswith(f"sagan: process {1 - whom} of 2 has lost the others (no sign of life of process {whom}); ")


ENDS = """
import sys, time, torch
from sagan import UserError
from sagan.distributed import join

with join("cpu") as processes:
    print("ready", flush=True)
    if sys.argv[1] == "sleep":
        time.sleep(60)
    elif processes.is_first:
        processes.average(torch.ones(1))
    elif sys.argv[1] == "fail":
        processes.report_failure()
        time.sleep(60)
    elif sys.argv[1] == "raise":
        raise UserError("what the user can fix")
"""


def test_a_process_that_has_failed_ends_those_that_wait_in_a_collective(tmp_path):
    """Without a word, and even before its end, which closes the connection: NCCL need not notice that."""
    (tmp_path / "worker.py").write_text(ENDS)
    first, second = start_each(tmp_path / "worker.py", "fail")
    try:
        assert (first.communicate(timeout=30), first.returncode) == (("ready\n", ""), 2)
    finally:
        second.kill()


@pytest.mark.slow
def test_without_a_training_run_to_save_a_signal_ends_the_process(tmp_path):
    (tmp_path / "worker.py").write_text(ENDS)
    jobs = start_each(tmp_path / "worker.py", "sleep")
    for job in jobs:
        assert job.stdout.readline() == "ready\n"
    for job in jobs:
        job.send_signal(signal.SIGTERM)
    assert [(job.communicate(timeout=20)[1], job.returncode) for job in jobs] == [("", 128 + signal.SIGTERM)] * 2


SLOW_DISK = """
import sys, time
from datetime import timedelta
from sagan import cli, distributed
from sagan.training import recorder

def write(*arguments, quick=recorder.write_checkpoint):
    time.sleep(12)
    quick(*arguments)

distributed.TIMEOUT = timedelta(seconds=8)
recorder.write_checkpoint = write
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_checkpoint_may_take_longer_than_a_collective_waits(tmp_path, train_options):
    (tmp_path / "worker.py").write_text(SLOW_DISK)
    arguments = [tmp_path / "worker.py", "train", *train_options, "--steps", "4", "--out", tmp_path / "run"]
    for job in start_each(*arguments):
        finish(job)
    assert len(Run(tmp_path / "run").checkpoints()) == 2


@pytest.mark.slow
def test_killed_workers_bring_the_job_back(tmp_path, train_options):
    """Ten times, either of two: the job ends by itself as one left alone does, no row missing or doubled."""
    options = [*train_options, "--steps", "120"]
    finish(start(2, "train", *options, "--out", tmp_path / "whole"))
    run, kills, rng = tmp_path / "run", 10, random.Random(0)
    options += ["--out", run, "--go-on", "True"]
    process = start(2, "train", *options, restarts=kills)
    for kill in range(kills):
        moment, newest = 120 * (kill + rng.random()) / (kills + 1), 0
        while steps_logged(run) < moment:
            time.sleep(0.01)
            assert process.poll() is None, process.communicate()
        time.sleep(rng.random() * 0.1)  # anywhere in a step or a checkpoint
        newest = max((int(path.stem[5:]) for path in Run(run).checkpoints()), default=0)
        before, whom = workers(process), rng.randrange(2)
        os.kill(before[whom], signal.SIGKILL)
        print(f"killed process {whom} near step {steps_logged(run)}, newest checkpoint {newest}")
        while len(workers(process)) < 2 or set(workers(process)) & set(before):  # they are being replaced
            time.sleep(0.05)
            assert process.poll() is None, process.communicate()
    finish(process)
    rows, wanted = (
        [{key: value for key, value in row.items() if not depends_on_machine(key)} for row in Run(p).metrics()]
        for p in (run, tmp_path / "whole")
    )
    assert [row["step"] for row in rows] == list(range(2, 121, 2))
    assert rows == wanted
    ours, theirs = (load_tensors(Run(p).checkpoint_path(120))[0] for p in (run, tmp_path / "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    _, errors = finish(start(1, "train", *options, "--lecam", "0.5"), status=2)
    assert re.search(rf"{re.escape(str(run))}\b.*\boptions\b", errors)


@pytest.mark.slow
def test_sampling_by_two_is_that_of_one(tmp_path, train_options):
    run = tmp_path / "run"
    finish(start(1, "train", *train_options, "--steps", "2", "--out", run))
    for count in (1, 2):
        finish(start(count, "sample", run, "--count", "70", "--out", tmp_path / f"{count}.npz"))
    one, two = (np.load(tmp_path / f"{count}.npz")["images"] for count in (1, 2))
    assert np.array_equal(one, two)
