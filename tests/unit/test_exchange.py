"""Tables to and from files of other programs: what is written is read back to the bit."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet
import pytest

from driftline.errors import InputError
from driftline.exchange import FORMATS, Block, export_version, open_table
from driftline.exchange.importing import import_table
from driftline.notebook import Versions
from driftline.versions import TableReader
from tests.support.version_commands import Scene

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of third parties


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Two versions: 300 rows, some of them changed, some gone."""
    made = Scene(tmp_path / "data")
    made.live.upsert(range(300))
    made.commit()
    made.live.upsert(range(0, 300, 7))
    made.live.delete([1, 2, 3])
    made.commit()
    return made


def reader(scene: Scene, version: str = "V-R-1.1") -> TableReader:
    repository = scene.repository
    return TableReader(repository.cache, repository.manifest(version), "items")


def whole(blocks: list[Block]) -> dict[int, tuple[bytes, bytes]]:
    return {
        int(row): (vector.tobytes(), state.tobytes())
        for block in blocks
        for row, vector, state in zip(block.ids, block.vectors, block.state, strict=True)
    }


def contents(scene: Scene) -> dict[int, tuple[bytes, bytes]]:
    rows = reader(scene).load()
    return {
        int(row): (vector.tobytes(), state.tobytes())
        for row, vector, state in zip(rows.ids, rows.rows, rows.state, strict=True)
    }


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_exported_is_read_back_to_the_bit(scene: Scene, tmp_path: Path, format: str) -> None:
    path = tmp_path / f"items.{format}"
    shown = scene.json("export", "latest", str(path))
    assert isinstance(shown, dict)
    assert (shown["rows"], shown["format"], shown["version"]) == (297, format, "V-R-1.1")

    file = open_table(path)

    assert (file.rows, file.dim, file.state_size) == (297, 3, 1)
    blocks = list(file.blocks(50))
    assert max(map(len, blocks)) <= 50
    assert [block.first for block in blocks][:2] == [0, len(blocks[0])]
    assert whole(blocks) == contents(scene)


def test_an_export_that_fails_leaves_nothing(scene: Scene, tmp_path: Path) -> None:
    def stop(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_version(reader(scene), tmp_path / "items.parquet", "parquet", stop)
    assert list(tmp_path.glob("items*")) == []


def test_an_export_goes_over_no_file(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "items.npz").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"items\.npz exists"):
        scene.run("export", "latest", str(tmp_path / "items.npz"))
    with pytest.raises(InputError, match="parquet, npz, safetensors, lance"):
        scene.run("export", "latest", str(tmp_path / "items.csv"))


def test_numpy_reads_what_was_exported(scene: Scene, tmp_path: Path) -> None:
    export_version(reader(scene), tmp_path / "items.npz", "npz")
    with np.load(tmp_path / "items.npz") as found:
        assert found["vector"].shape == (297, 3)
        assert sorted(found) == ["id", "lsn", "state", "vector"]


def test_duckdb_and_polars_query_a_version(scene: Scene, tmp_path: Path) -> None:
    versions = Versions(scene.repository)
    dataset = versions.dataset("items@latest", tmp_path / "copies")

    few, every = duckdb.sql("select id from dataset where id < 10"), duckdb.sql("select id from dataset")
    assert few is not None
    assert every is not None
    count, again = len(few.fetchall()), len(every.fetchall())  # scanned as often as it is asked
    lazily = polars.scan_pyarrow_dataset(dataset).filter(polars.col("id") < 10).collect()

    assert (count, again, len(lazily)) == (7, 297, 7)
    assert versions.dataset("items@latest", tmp_path / "copies").count_rows() == 297


def test_batches_are_read_when_asked_for(scene: Scene) -> None:
    batches = Versions(scene.repository).batches("items@V-R-1.0", rows=64)
    assert next(batches).num_rows <= 64
    assert batches.schema.names == ["id", "vector", "state", "lsn"]
    assert sum(batch.num_rows for batch in batches) > 0


def parquet(**columns: object) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "bad.parquet"
        pyarrow.parquet.write_table(pa.table(columns), path)
        return path

    return write


def npz(compressed: bool = False, **columns: np.ndarray) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "bad.npz"
        (np.savez_compressed if compressed else np.savez)(path, **columns)  # type: ignore[arg-type]
        return path

    return write


def text(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(b"not a table at all")
        return folder / name

    return write


def truncated(folder: Path) -> Path:
    path = folder / "cut.npz"
    np.savez(path, id=np.arange(100), vector=np.ones((100, 3), np.float32))
    path.write_bytes(path.read_bytes()[:500])
    return path


ONES = np.ones((3, 2), np.float32)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (parquet(id=[1, 2]), "has no column vector; it has id"),
        (parquet(id=[1, None], vector=[[1.0], [2.0]]), "column id, row 1: null"),
        (parquet(id=[1, -2], vector=[[1.0], [2.0]]), "column id, row 1: -2 is below 0"),
        (parquet(id=["a"], vector=[[1.0]]), "column id is"),
        (
            parquet(id=[1, 2], vector=[[1.0], [2.0, 3.0]]),
            "column vector, row 1: 2 numbers, the first row has 1",
        ),
        (parquet(id=[1, 2], vector=[[1.0], None]), "column vector, row 1: null"),
        (parquet(id=[1, 2], vector=[[1.0], [None]]), "column vector, row 1: a number is null"),
        (parquet(id=[1, 2], vector=[1.0, 2.0]), "column vector is double: lists of numbers"),
        (npz(vector=ONES), "has no column id; it has vector"),
        (npz(id=np.arange(2), vector=ONES), r"column vector has shape \(3, 2\), for 2 ids"),
        (npz(id=np.arange(3), vector=ONES * [[1], [np.nan], [1]]), "column vector, row 1: number 0 is nan"),
        (npz(id=np.arange(3.0), vector=ONES), "column id is float64"),
        (npz(compressed=True, id=np.arange(3), vector=ONES), "column id is compressed"),
        (text("bad.npz"), "is not an npz file"),
        (text("bad.safetensors"), "bad.safetensors: "),
        (text("bad.parquet"), "bad.parquet: "),
        (truncated, "is not an npz file"),
        (lambda folder: folder / "none.npz", "none.npz does not exist"),
    ],
)
def test_a_bad_file_is_refused_by_file_column_and_row(
    tmp_path: Path, write: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        list(open_table(write(tmp_path)).blocks(2))


def test_an_id_that_comes_twice_is_named_with_both_rows(tmp_path: Path) -> None:
    path = tmp_path / "twice.npz"
    np.savez(path, id=np.array([5, 6, 5]), vector=ONES)

    class Table:
        class spec:  # noqa: N801
            name, dim, state_size = "items", 2, 0

    with pytest.raises(InputError, match="column id, row 2: 5 is in row 0 already"):
        import_table(Table, open_table(path))  # type: ignore[arg-type]
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 2
