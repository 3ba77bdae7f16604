"""Arrays of .npz files: read as NumPy reads them, never unpickled, and refused before memory is spent."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from sagan.errors import UserError
from sagan.files import DamagedFile
from sagan.npz import MAX_ARRAYS, Npz

ROWS = np.random.default_rng(0).integers(256, size=(7, 5, 4, 3), dtype=np.uint8)


def npy(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def header(dtype, shape, fortran=False):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": fortran, "shape": shape})
    return file.getvalue()


def archive(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def check_refused(path, words, use=lambda npz: npz.load("a", 2**20), kind=UserError):
    """Check that a file is refused in one line with these words, in little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(kind) as error:
            use(Npz(path))
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    text = str(error.value)
    assert "\n" not in text
    assert words in text, text


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_as_numpy_reads_it(tmp_path, save):
    save(tmp_path / "x.npz", rows=ROWS, big=ROWS[..., 0].astype(">f8"), fortran=np.asfortranarray(ROWS[0, :, :, 0]))
    npz = Npz(tmp_path / "x.npz")
    assert "rows" in npz
    assert "cols" not in npz
    assert npz.header("rows").shape == ROWS.shape
    assert (npz.load("rows", 2**20) == ROWS).all()
    assert (npz.load("big", 2**20) == ROWS[..., 0]).all()
    assert (npz.load("fortran", 2**20) == ROWS[0, :, :, 0]).all()
    rows = npz.rows("rows")
    for number in (6, 0, 3):
        assert (rows[number] == ROWS[number]).all()
    with pytest.raises(UserError, match="Fortran order"):
        npz.rows("fortran")


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_objects_are_never_read(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([Trap(), None], dtype=object))
    check_refused(tmp_path / "x.npz", "Python objects")
    archive(tmp_path / "y.npz", {"a.npy": npy(np.zeros(3, [("x", "f4"), ("y", "O")]), allow_pickle=True)})
    check_refused(tmp_path / "y.npz", "Python objects")


def test_claims_of_the_header_are_checked_first(tmp_path):
    archive(tmp_path / "x.npz", {"a.npy": header("|u1", (2**20, 2**10, 2**10)) + b"few"})
    check_refused(tmp_path / "x.npz", "size of its header")
    archive(tmp_path / "x.npz", {"a.npy": header("|u1", (-4, -1)) + b"four"})
    check_refused(tmp_path / "x.npz", "array a cannot be read")
    np.savez(tmp_path / "x.npz", a=np.zeros(2**21, np.uint8))
    check_refused(tmp_path / "x.npz", "limit of 1 MiB")


def test_a_header_without_end(tmp_path):
    start = b"\x93NUMPY\x02\x00" + (2**31).to_bytes(4, "little")
    archive(tmp_path / "x.npz", {"a.npy": start + b" " * 2**26}, zipfile.ZIP_DEFLATED)
    check_refused(tmp_path / "x.npz", "array a cannot be read")


def test_the_size_in_the_archive_may_lie(tmp_path):
    """The directory and the header agree on a terabyte; there are 20,000 bytes."""
    data = header("|u1", (2**30, 2**10)) + bytes(20_000)
    path = archive(tmp_path / "x.npz", {"a.npy": data})
    raw, size = bytearray(path.read_bytes()), len(header("|u1", (2**30, 2**10))) + 2**40
    entry = raw.rindex(b"PK\x01\x02")
    name = entry + 46 + len("a.npy")
    extra = b"\x01\x00\x10\x00" + 2 * size.to_bytes(8, "little")  # ZIP64: both sizes
    raw[entry + 20 : entry + 28] = b"\xff" * 8
    raw[entry + 30 : entry + 32] = len(extra).to_bytes(2, "little")
    raw[name:name] = extra
    end = raw.rindex(b"PK\x05\x06")
    raw[end + 12 : end + 16] = (end - entry).to_bytes(4, "little")
    path.write_bytes(raw)
    assert zipfile.ZipFile(path).infolist()[0].file_size == size
    check_refused(path, "larger than the file", lambda npz: npz.rows("a")[0])


def test_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr("sagan.npz.BOMB", (2**20, 100))
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros((2**10, 2**11), np.uint8))
    check_refused(tmp_path / "x.npz", "100 times", lambda npz: npz.rows("a"))
    archive(tmp_path / "y.npz", {f"{i}.npy": b"" for i in range(MAX_ARRAYS + 1)})
    check_refused(tmp_path / "y.npz", "1,001 arrays")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_kind_of_damage_is_one_line(tmp_path, save):
    path = tmp_path / "x.npz"
    save(path, a=ROWS)
    intact = path.read_bytes()

    def read(npz):
        assert (npz.load("a", 2**20) == ROWS).all()
        rows = npz.rows("a")
        assert (np.stack([rows[i] for i in range(len(ROWS))]) == ROWS).all()
        raise DamagedFile("nothing was changed that is read")

    rng = np.random.default_rng(1)
    for at in rng.integers(len(intact), size=150).tolist():
        damaged = bytearray(intact)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            check_refused(path, "", read)
        except KeyError:  # the array's name was changed: as if it were not there
            assert "a" not in Npz(path)
    for length in (0, 3, 100, len(intact) // 2, len(intact) - 1):
        path.write_bytes(intact[:length])
        check_refused(path, "damaged", kind=DamagedFile)


def test_a_flipped_bit_of_the_data(tmp_path):
    many = np.arange(2**16, dtype=np.uint16)  # larger than what is read with the header
    np.savez(tmp_path / "x.npz", a=many)
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[data.index(many[-5:].tobytes())] ^= 1
    (tmp_path / "x.npz").write_bytes(data)
    check_refused(tmp_path / "x.npz", "cannot be read", lambda npz: npz.rows("a")[0], DamagedFile)
    archive(tmp_path / "y.npz", {"a.npy": npy(ROWS)})
    with zipfile.ZipFile(tmp_path / "y.npz", "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("a.npy", npy(ROWS))
    check_refused(tmp_path / "y.npz", "twice")
