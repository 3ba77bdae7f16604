import contextlib
import json
import os
import socket
import subprocess
import sys
import textwrap
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from sagan import UserError
from sagan.files import (
    MAX_JSON_BYTES,
    DamagedFile,
    expand_home,
    load_array,
    load_tensors,
    locked,
    map_array,
    read_metadata,
    save_array,
    save_tensors,
    sweep,
    write_array,
    write_atomically,
)

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b/c": torch.tensor(3), "empty": torch.zeros(0, 4)}


def test_tensors_and_metadata_come_back(tmp_path):
    path = tmp_path / "new folder" / "x.safetensors"
    save_tensors(path, TENSORS, {"step": 7, "names": ["é", "b"]})
    tensors, metadata = load_tensors(path)
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[k], TENSORS[k]) and tensors[k].dtype == TENSORS[k].dtype for k in TENSORS)
    assert (metadata["step"], metadata["names"]) == (7, ["é", "b"])


def test_memory_order_does_not_matter(tmp_path):
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    save_tensors(tmp_path / "x", {"x": x}, {})
    assert torch.equal(load_tensors(tmp_path / "x")[0]["x"], x)


def test_every_changed_byte_is_noticed(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, TENSORS, {"step": 1})
    whole = path.read_bytes()
    name = whole.index(b"crc32")  # of the checksum, without which the file is as another tool writes it
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        path.write_bytes(bytes(damaged))
        if position in range(name, name + 5) and damaged[position] != ord('"'):
            tensors, metadata = load_tensors(path)
            assert all(torch.equal(t, TENSORS[key]) for key, t in tensors.items())
            assert (metadata["step"], len(metadata)) == (1, 2)  # an unknown field, which readers of metadata refuse
            continue
        with pytest.raises(DamagedFile):
            load_tensors(path)


@pytest.mark.parametrize("keep", [0, 1, 8, 100, -1])
def test_cut_off_files_are_damaged(tmp_path, keep):
    path = tmp_path / "x.safetensors"
    save_tensors(path, TENSORS, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedFile, match=r"x\.safetensors\b.*damaged"):
        load_tensors(path)


def test_a_pickle_is_not_opened(tmp_path):
    path = tmp_path / "x.safetensors"
    torch.save(TENSORS, path)
    with pytest.raises(DamagedFile):
        load_tensors(path)


def test_a_file_of_another_tool_needs_no_checksum_but_no_wrong_one(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path, {"format": "pt", "step": "7"})
    tensors, metadata = load_tensors(path)
    assert metadata == {"step": 7}
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(t, TENSORS[name]) for name, t in tensors.items())
    save_file(TENSORS, path, {"format": "pt", "step": "7", "crc32": "7"})
    with pytest.raises(DamagedFile, match=r"x\.safetensors\b.*checksum"):
        load_tensors(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="nothing-here"):
        load_tensors(tmp_path / "nothing-here")


def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    write_atomically(path, lambda p: p.write_text("old"))

    def fails(temporary):
        temporary.write_text("half of the n")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"x\.json\b.*No space left on device"):
        write_atomically(path, fails)
    with pytest.raises(ZeroDivisionError):
        write_atomically(path, lambda temporary: temporary.write_text("x") and 1 / 0)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_folder_in_the_way_of_the_parent(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/x\.json\b"):
        write_atomically(tmp_path / "file" / "x.json", lambda p: p.write_text(json.dumps(1)))


def leave(folder, *, host=None, process):
    path = folder / f".tmp-{host or socket.gethostname()}-{process}-0123abcd-x.png"
    path.write_text("half")
    return path


def test_what_the_dead_left_is_swept_and_the_livings_is_not(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead = leave(tmp_path, process=process.pid)
    (tmp_path / "folder").mkdir()
    folder = leave(tmp_path / "folder", process=process.pid)
    kept = [
        leave(tmp_path, process=os.getpid()),
        leave(tmp_path, process=1),
        leave(tmp_path, host="elsewhere", process=process.pid),
        leave(tmp_path, host=f"{socket.gethostname()}-{process.pid}", process=1),
        folder,
    ]
    sweep(tmp_path)
    assert not dead.exists()
    assert all(path.exists() for path in kept)
    sweep(tmp_path, alone=True)
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_what_a_kill_within_a_write_leaves_is_swept(tmp_path):
    script = f"""
        import os, signal
        from pathlib import Path
        from sagan.files import write_atomically
        path = Path({str(tmp_path)!r}, "x.json")
        write_atomically(path, lambda p: (p.write_text("half"), os.kill(os.getpid(), signal.SIGKILL)))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    sweep(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_lock_keeps_others_out_and_leaves_nothing(tmp_path):
    path = tmp_path / "new folder" / ".lock"
    with locked(path, "busy: wait"):
        with pytest.raises(UserError, match=r"^busy: wait$"), locked(path, "busy: wait"):
            pass
        assert path.exists()
    assert not list(path.parent.iterdir())
    with locked(path, "busy"), locked(tmp_path / "other", "busy"):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path):
    script = f"""
        import os, signal
        from pathlib import Path
        from sagan.files import locked
        with locked(Path({str(tmp_path / ".lock")!r}), "busy"):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path / ".lock", "busy"):
        pass


def test_metadata_nested_too_deeply_are_damage(tmp_path):
    save_file(TENSORS, tmp_path / "x.safetensors", {"step": "[" * 100_000})
    with pytest.raises(DamagedFile):
        load_tensors(tmp_path / "x.safetensors")


def test_arrays_come_back_and_numpy_reads_them(tmp_path):
    for array in (np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((0, 4), np.int64), np.array(3, np.uint8)):
        save_array(tmp_path / "x.npy", array)
        for read in (load_array, np.load, map_array):
            found = read(tmp_path / "x.npy")
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array)
        write_array(tmp_path / "y.npy", array.dtype, array.shape, [array])
        assert (tmp_path / "y.npy").read_bytes() == (tmp_path / "x.npy").read_bytes()


@pytest.mark.parametrize("read", [load_array, map_array])
def test_any_flipped_bit_of_an_array_is_found(tmp_path, read):
    save_array(tmp_path / "x.npy", np.arange(20, dtype=np.float32))
    data = (tmp_path / "x.npy").read_bytes()
    for at in range(len(data)):
        (tmp_path / "x.npy").write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        with pytest.raises(DamagedFile):
            read(tmp_path / "x.npy")
    for end in (0, 10, 100, len(data) - 1):
        (tmp_path / "x.npy").write_bytes(data[:end])
        with pytest.raises(DamagedFile):
            read(tmp_path / "x.npy")


def test_a_flipped_bit_of_a_header_without_checksum_is_no_crash(tmp_path):
    """NumPy parses the header as Python, which raises errors of many types."""
    np.save(tmp_path / "x.npy", np.arange(20, dtype=np.float32))
    data = (tmp_path / "x.npy").read_bytes()
    for at in range(128):
        for bit in range(8):
            (tmp_path / "x.npy").write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
            with contextlib.suppress(DamagedFile):
                load_array(tmp_path / "x.npy")


def test_a_home_that_is_not_known_stays_in_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_home("~/x") == tmp_path / "x"
    assert str(expand_home("~nobody-of-this-name/x")) == "~nobody-of-this-name/x"


@pytest.mark.parametrize("read", [load_tensors, read_metadata])
def test_a_header_of_a_hundred_megabytes_is_refused_unread(tmp_path, read):
    """JSON takes many times its size when it is parsed."""
    metadata = {"x": "[" + "[]," * (MAX_JSON_BYTES // 3) + "0]"}
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"a": torch.zeros(2)}, metadata))
    tracemalloc.start()
    with pytest.raises(DamagedFile, match=r"x\.safetensors\b.*\b16 MiB"):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    path.write_bytes(save({"a": torch.zeros(2)}, {"x": "[1]"}))
    read(path)


def test_metadata_are_read_without_the_tensors(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.ones(3)}, {"step": 5})
    assert read_metadata(path)["step"] == 5
    with pytest.raises(UserError, match="does not exist"):
        read_metadata(tmp_path / "y.safetensors")
