import errno
import hashlib
import os
import signal
import subprocess
import sys

import pytest

from yatsude.errors import MachineError
from yatsude.files import disk_full_is_an_error, held, new_file, new_folder, sha256_of


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "deep" / "figures.json"
    for content in ("old", "new"):
        with new_file(path) as draft:
            draft.write_text(content)
            assert not path.exists() or path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(path.parent) == ["figures.json"]


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "figures.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), new_file(path) as draft:
        raise ZeroDivisionError(draft.write_text("half"))
    assert path.read_text() == "old"
    assert names(tmp_path) == ["figures.json"]


def test_a_new_folder_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "out"
    for name in ("old", "new"):
        with new_folder(path) as draft:
            (draft / "inner").mkdir()
            (draft / "inner" / name).write_text(name)
    assert names(path / "inner") == ["new"]
    assert names(tmp_path) == ["out"]


def test_an_error_leaves_the_old_folder(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(ZeroDivisionError), new_folder(path) as draft:
        raise ZeroDivisionError((draft / "half").write_text("half"))
    assert names(path) == ["old"]
    assert names(tmp_path) == ["out"]


@pytest.mark.skipif(os.name != "posix", reason="elsewhere nobody can ask for a process")
def test_what_a_killed_process_left_is_put_right_and_a_living_one_is_left_alone(tmp_path):
    path, nobody = tmp_path / "out", 999_999_999
    for name in (f".out.{nobody}.old", f".out.{nobody}.part", f".out.{os.getppid()}.part", f".outer.{nobody}.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "inner").write_text(name)
    with pytest.raises(ZeroDivisionError), new_folder(path):
        raise ZeroDivisionError
    assert (path / "inner").read_text() == f".out.{nobody}.old"
    assert names(tmp_path) == sorted([f".out.{os.getppid()}.part", f".outer.{nobody}.part", "out"])


def test_a_full_disk_names_the_place_and_the_free_space(tmp_path):
    path = tmp_path / "figures.json"
    path.write_text("old")
    with pytest.raises(MachineError, match=r"disk full while writing .*figures\.json: \d+ MB free"), new_file(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old"
    with pytest.raises(MachineError, match="disk full"), disk_full_is_an_error(tmp_path / "not" / "there"):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")


def test_other_errors_of_the_system_stay_themselves(tmp_path):
    with pytest.raises(PermissionError), new_file(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize("moment", ["yatsude.files._flush", "pathlib.Path.replace"])
def test_killed_before_the_end_the_old_file_is_whole(tmp_path, moment):
    code = f"""
import os, sys
from pathlib import Path
from unittest import mock
from yatsude.files import new_file
with mock.patch("{moment}", lambda *args: os.kill(os.getpid(), 9)), new_file(Path(sys.argv[1])) as draft:
    draft.write_text("new")
"""
    path = tmp_path / "page"
    path.write_text("old")
    run = subprocess.run([sys.executable, "-c", code, str(path)], env=os.environ, check=False, capture_output=True)
    assert run.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    with new_file(path) as draft:
        draft.write_text("new")
    assert path.read_text() == "new"


def test_sha256_is_that_of_the_library(tmp_path):
    content = os.urandom((1 << 20) + 17)
    (tmp_path / "x").write_bytes(content)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
    place = tmp_path / "run"
    with held(place), pytest.raises(MachineError, match="is in use by another process"), held(place):
        pass
    with held(place):
        assert list(place.iterdir()) == []
