import gzip
import io
import shutil
import tarfile

import pytest

from yatsude import net
from yatsude.data.catalogue import find
from yatsude.data.sources import manpages
from yatsude.errors import ChecksumError, DataError, MachineError, NetworkError

SOURCE = find("manpages-ja")


def package(pages: dict[str, str], packing: str = "xz") -> bytes:
    """A .deb as Debian makes it: an ar archive of three members."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=f"w:{packing}") as tar:
        for name, source in pages.items():
            entry = tarfile.TarInfo(f"./usr/share/man/ja/man1/{name}.gz")
            content = gzip.compress(source.encode())
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("./usr/share/man/ja/man1/link.1.gz")
        link.type, link.linkname = tarfile.SYMTYPE, "a.1.gz"
        tar.addfile(link)
    result = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0"), (f"data.tar.{packing}", data.getvalue())):
        result += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content
        result += b"\n" * (len(content) % 2)
    return result


@pytest.fixture
def apt(monkeypatch):
    """An apt-get that fetches two small packages; `lists` says whether it has package lists of its own."""
    state = {"lists": True, "calls": [], "packing": "xz"}

    def run(command, *, purpose, folder):
        state["calls"].append(command)
        if "download" in command:
            if not state["lists"]:
                raise NetworkError("E: Unable to locate package manpages-ja")
            for name in manpages.PACKAGES:
                page = f".TH A 1\n.SH 名前\n{name} の説明です。\n"
                content = package({f"{name}.1": page, "mdoc.1": ".Dd 1999\n.Sh 名前\n"}, state["packing"])
                (folder / f"{name}_1_all.deb").write_bytes(content)
        elif "update" in command:
            state["lists"] = True
        return ""

    monkeypatch.setattr(net, "run_client", run)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    return state


@pytest.mark.parametrize("packing", ["xz", "gz"])
def test_pages_of_both_packages_and_a_warm_cache(apt, monkeypatch, tmp_path, packing):
    apt["packing"] = packing
    rows = list(manpages.read(SOURCE, tmp_path))
    assert sorted(row.text for row in rows) == [f"名前\n{name} の説明です。" for name in manpages.PACKAGES]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert len(list(manpages.read(SOURCE, tmp_path))) == 2
    assert len(apt["calls"]) == 1


def test_where_package_lists_are_missing_it_fetches_its_own(apt, tmp_path):
    apt["lists"] = False
    assert len(list(manpages.read(SOURCE, tmp_path))) == 2
    assert ["update" in call for call in apt["calls"]] == [False, True, False]
    assert not (tmp_path / "apt").exists()


def test_no_apt(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MachineError, match="has no apt-get"):
        list(manpages.read(SOURCE, tmp_path))


def test_damage_is_told(apt, tmp_path):
    deb = manpages.fetch(SOURCE, tmp_path)[0]
    deb.write_bytes(b"rot")
    with pytest.raises(ChecksumError, match="it was removed"):
        list(manpages.read(SOURCE, tmp_path))
    assert len(list(manpages.read(SOURCE, tmp_path))) == 2
    zstd = package({}).replace(b"data.tar.xz  ", b"data.tar.zst ")
    for content in (b"rot", package({})[:-40], zstd):
        deb.write_bytes(content)
        manpages.cache.remember(deb)
        with pytest.raises(DataError, match=deb.name):
            list(manpages.read(SOURCE, tmp_path))
