import io
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from yatsude import manifest
from yatsude.checkpoint.provenance import chain, licences
from yatsude.data.catalogue import find
from yatsude.data.sources import hub
from yatsude.errors import CheckpointError, ChecksumError, DataError, NetworkError


@pytest.fixture
def asked(monkeypatch) -> Iterator[list[str]]:
    """A loopback double of the hub; the list holds the paths that were asked for."""
    table = io.BytesIO()
    pq.write_table(pa.table({"text": ["ハブの文です。", "もう一つ。"]}), table)
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            if self.path == "/redirected":
                return self.answer(table.getvalue())
            if self.path.endswith(".parquet"):
                self.send_response(302)
                self.send_header("Location", "/redirected")
                return self.end_headers()
            here = f"http://127.0.0.1:{self.server.server_port}/api/datasets/o/n/parquet/default"
            answers = {
                "/api/datasets/o/n": {"cardData": {"license": ["cc-by-4.0", "mit"]}},
                "/api/datasets/o/n/parquet": {"default": {"train": [f"{here}/0.parquet"], "test": []}},
                "/api/datasets/o/two": {},
                "/api/datasets/o/two/parquet": {"ja": {"train": [f"{here}/1.parquet"]}, "en": {"train": []}},
            }
            if self.path not in answers:
                return self.send_error(404)
            return self.answer(json.dumps(answers[self.path]).encode())

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(hub, "HOSTS", ("127.0.0.1",))
    yield paths
    server.shutdown()
    server.server_close()


def test_texts_licence_and_a_warm_cache(asked, tmp_path):
    source = find("hf:o/n")
    assert [row.text for row in hub.read(source, tmp_path)] == ["ハブの文です。", "もう一つ。"]
    assert hub.licence(source, tmp_path).licence == "cc-by-4.0, mit"
    asked.clear()
    assert len(list(hub.read(source, tmp_path))) == 2
    assert asked == []


def test_a_data_set_that_states_no_licence_keeps_its_model_from_export(asked, tmp_path, capsys):
    source = find("hf:o/two:ja/train")
    hub.fetch(source, tmp_path)
    page = hub.licence(source, tmp_path)
    assert page.licence == "unknown"
    assert "hf:o/two:ja/train states no licence" in capsys.readouterr().err
    (tmp_path / "data").mkdir()
    manifest.write(tmp_path / "data", "data", licences=[page])
    with pytest.raises(CheckpointError, match="source 'hf:o/two:ja/train' has no licence"):
        licences(chain([tmp_path / "data"]))


def test_a_file_that_changed_in_the_cache(asked, tmp_path):
    source = find("hf:o/n")
    path = hub.fetch(source, tmp_path)[0]
    path.write_bytes(b"rot")
    with pytest.raises(ChecksumError):
        hub.fetch(source, tmp_path)
    assert len(list(hub.read(source, tmp_path))) == 2


def test_of_several_configurations_one_must_be_named(asked, tmp_path):
    with pytest.raises(DataError, match="has the configurations en, ja; name one: hf:o/two:CONFIG/train"):
        hub.fetch(find("hf:o/two"), tmp_path / "a")
    with pytest.raises(DataError, match="has the configurations en, ja; name one"):
        hub.fetch(find("hf:o/two:fr/train"), tmp_path / "b")
    assert len(list(hub.read(find("hf:o/two:ja/train"), tmp_path / "c"))) == 2
    assert asked[-2].endswith("/1.parquet")
    assert find("hf:o/two:ja/train").attribution == "o/two"


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_answer_in_the_cache_is_named(asked, tmp_path, content):
    source = find("hf:o/n")
    (tmp_path / "about.json").write_text(content)
    for read in (hub.fetch, hub.licence):
        with pytest.raises(DataError, match=r"about\.json is damaged .* remove it"):
            read(source, tmp_path)


def test_what_the_hub_does_not_have(asked, tmp_path):
    with pytest.raises(DataError, match="no split 'dev'; the data set has test, train"):
        hub.fetch(find("hf:o/n:dev"), tmp_path / "a")
    with pytest.raises(NetworkError, match="404"):
        hub.fetch(find("hf:o/missing"), tmp_path / "b")
    with pytest.raises(DataError, match="expected hf:OWNER/NAME"):
        hub.fetch(find("hf:nonsense"), tmp_path / "c")
