import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yatsude import __version__, manifest
from yatsude.errors import DataError
from yatsude.manifest import Licence

MINE = Licence(source="mine", licence="CC-BY-4.0", attribution="Somebody", url="https://example.org")
YOURS = Licence(source="yours", licence="CC0-1.0", attribution="Nobody")


def fill(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


def test_what_is_written_reads_back_the_same(tmp_path):
    folder = fill(tmp_path / "out", page="日本語", other="")
    fill(folder / "deep", text="x")
    written = manifest.write(folder, "data", licences=[MINE], counts={"documents": 3, "share": 0.5, "kind": "a"})
    assert manifest.read(folder, "data") == written
    assert written.version == __version__
    assert written.counts == {"documents": 3, "share": 0.5, "kind": "a"}
    assert {name: file.bytes for name, file in written.files.items()} == {"deep/text": 1, "other": 0, "page": 9}
    manifest.check(folder, written)


def test_licences_travel_and_are_named_once(tmp_path):
    first, second = fill(tmp_path / "a", page="1"), fill(tmp_path / "b", page="2")
    manifest.write(first, "data", licences=[MINE, YOURS])
    manifest.write(second, "data", licences=[MINE])
    out = manifest.write(fill(tmp_path / "c"), "tokenizer", inputs=[first, second], licences=[YOURS])
    assert out.licences == (MINE, YOURS)
    assert [entry.folder for entry in out.inputs] == ["../a", "../b"]
    assert out.inputs[0].manifest_sha256 != out.inputs[1].manifest_sha256


def test_the_same_bytes_written_again_leave_what_was_made_of_them_current(tmp_path, monkeypatch):
    source, out = fill(tmp_path / "source", page="1"), fill(tmp_path / "out")
    manifest.write(source, "data", recipe_sha256="one")
    first = (source / "manifest.json").read_bytes()
    manifest.write(out, "tokenizer", inputs=[source], recipe_sha256="r")
    monkeypatch.setattr(manifest, "__version__", "9.9")  # stands for the time, which differs as well
    manifest.write(source, "data", recipe_sha256="two")
    assert (source / "manifest.json").read_bytes() != first
    assert manifest.is_current(out, "tokenizer", "r", [source])
    fill(source, page="2")
    manifest.write(source, "data", recipe_sha256="one")
    assert not manifest.is_current(out, "tokenizer", "r", [source])


def test_hidden_files_and_the_manifest_itself_are_left_out(tmp_path):
    folder = fill(tmp_path / "out", seen="x", **{".part": "x"})
    fill(folder / ".cache", text="x")
    manifest.write(folder, "data")
    assert set(manifest.write(folder, "data").files) == {"seen"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "is missing; the manifest lists it with 3 bytes: run 'yatsude data' again"),
        (lambda path: path.write_text("12"), "is not what was written .*: run 'yatsude data' again"),
        (lambda path: path.write_text("124"), "is not what was written"),
    ],
)
def test_a_changed_file_is_found(tmp_path, change, message):
    folder = fill(tmp_path / "out", page="123")
    page = manifest.write(folder, "data")
    change(folder / "page")
    with pytest.raises(DataError, match=message):
        manifest.check(folder, page)


def test_a_missing_manifest_says_which_stage_writes_it(tmp_path):
    with pytest.raises(DataError, match="expected the output of 'yatsude tokenizer'"):
        manifest.read(tmp_path, "tokenizer")
    with pytest.raises(DataError, match="expected an output folder"):
        manifest.read(tmp_path / "none")


def test_another_stage_is_refused(tmp_path):
    manifest.write(fill(tmp_path / "out"), "data")
    with pytest.raises(DataError, match="was written by 'data', expected the output of 'yatsude tokenizer'"):
        manifest.read(tmp_path / "out", "tokenizer")


@settings(deadline=None)
@given(st.data())
def test_a_damaged_manifest_is_one_clear_error(tmp_path_factory, data):
    folder = fill(tmp_path_factory.mktemp("damaged"), page="x")
    manifest.write(folder, "data", licences=[MINE])
    whole = (folder / "manifest.json").read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    (folder / "manifest.json").write_bytes(
        data.draw(st.sampled_from([whole[:cut], whole[:cut] + b"\xff", b"[]", b"{}"]))
    )
    with pytest.raises(DataError, match="is damaged"):
        manifest.read(folder)
