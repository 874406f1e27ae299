import pytest

from yatsude.data import cache
from yatsude.errors import ChecksumError


def test_a_file_is_whole_missing_or_damaged(tmp_path):
    path = tmp_path / "f"
    assert not cache.check(path)
    path.write_bytes(b"as it arrived")
    assert not cache.check(path)
    cache.remember(path)
    assert cache.check(path)
    path.write_bytes(b"bit rot")
    with pytest.raises(ChecksumError, match=r"sha256 \w{64}, expected \w{64}; it was removed"):
        cache.check(path)
    assert not path.exists()
    assert not cache.check(path)


def test_the_cache_is_an_absolute_place(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cache.folder("here", "s") == tmp_path / "here" / "s"
    assert cache.folder("~/c", "s").is_absolute()
