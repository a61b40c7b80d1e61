"""Files and folders that are whole, whatever happens while they are written, and seals that notice every change."""
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from distillnb import machine
from distillnb.machine import SEAL, check_seal, seal, written_whole

names = st.sampled_from(["a", "b", "c d", "ü", "deep/a", "deep/x/b"])
folders = st.dictionaries(names, st.binary(max_size=40), max_size=5)


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def read(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("system", [sys.platform, "plan9"])
@settings(max_examples=40, deadline=None)
@given(folders, folders, st.booleans())
def test_a_folder_is_the_new_one_or_the_old_one(tmp_path_factory, system, old, new, fails):
    place = tmp_path_factory.mktemp("whole")
    write(place / "x", old)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.platform", system)  # the way that goes everywhere, too
        try:
            with written_whole(place / "x") as beside:
                write(beside, new)
                if fails:
                    raise OSError("no space left on device")
        except OSError:
            assert fails
    assert read(place / "x") == (old if fails else old | new), "what only the old one had stays"
    assert os.listdir(place) == ["x"]


def test_what_is_dropped_goes_and_what_is_somebodys_stays(tmp_path):
    write(tmp_path / "x", {"students/old/config.json": b"{}", "students/notes.txt": b"mine", "summary.csv": b"1"})
    with written_whole(tmp_path / "x", drop=lambda entry: entry.name == "old") as new:
        write(new, {"students/new/config.json": b"{}", "summary.csv": b"2"})
    assert read(tmp_path / "x") == {"students/new/config.json": b"{}", "students/notes.txt": b"mine", "summary.csv": b"2"}


def test_a_folder_that_cannot_be_moved_is_renewed_in_place(tmp_path, monkeypatch):
    write(tmp_path / "x", {"a": b"old", "deep/b": b"old", "note": b"mine"})
    monkeypatch.chdir(tmp_path / "x")
    inode = os.stat(".").st_ino
    with written_whole(".") as new:
        write(new, {"a": b"new", "deep/b": b"new", "deep/c": b"new"})
    assert os.stat(tmp_path / "x").st_ino == inode
    assert read(tmp_path / "x") == {"a": b"new", "deep/b": b"new", "deep/c": b"new", "note": b"mine"}


def test_links_and_files_of_others_survive(tmp_path):
    write(tmp_path / "x", {"a": b"old"})
    (tmp_path / "x" / "link").symlink_to("a")
    with written_whole(tmp_path / "x") as new:
        write(new, {"a": b"new"})
    assert (tmp_path / "x" / "link").is_symlink() and (tmp_path / "x" / "link").read_bytes() == b"new"


def test_what_the_killed_have_left_is_cleared_and_put_back(tmp_path):
    write(tmp_path / ".x.abc.partial", {"lock": b"", "before/a": b"old", "x/a": b"half"})
    write(tmp_path / ".x.def.partial", {"x/a": b"half"})
    write(tmp_path / ".y.abc.partial", {"y": b"of another file"})
    with FileLock(tmp_path / ".x.def.partial" / "lock"), pytest.raises(OSError):
        with written_whole(tmp_path / "x"):
            assert (tmp_path / "x" / "a").read_bytes() == b"old", "it had been moved away, and is back"
            raise OSError
    assert sorted(os.listdir(tmp_path)) == [".x.def.partial", ".y.abc.partial", "x"], "whoever holds a lock is writing there"
    with written_whole(tmp_path / "x") as new:
        write(new, {"a": b"new"})
    assert sorted(os.listdir(tmp_path)) == [".y.abc.partial", "x"] and read(tmp_path / "x") == {"a": b"new"}


def test_a_second_rename_that_fails_puts_the_old_one_back(tmp_path, monkeypatch):
    write(tmp_path / "x", {"a": b"old"})
    rename = os.replace
    monkeypatch.setattr("sys.platform", "plan9")

    def busy(source, target):
        if Path(target).name == "x" and Path(source).name == "x" and (Path(source) / "a").read_bytes() == b"new":
            raise PermissionError("in use")
        rename(source, target)
    monkeypatch.setattr(machine.os, "replace", busy)
    with pytest.raises(PermissionError):
        with written_whole(tmp_path / "x") as new:
            write(new, {"a": b"new"})
    assert read(tmp_path / "x") == {"a": b"old"} and os.listdir(tmp_path) == ["x"]


LOOP = """
import sys
from pathlib import Path
from distillnb.machine import written_whole
print("ready", flush=True)
for round in range(10 ** 9):
    with written_whole(Path(sys.argv[1])) as new:
        new.mkdir()
        for name in "abc":
            (new / name).write_text(f"{round} " * 2000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere two folders are not exchanged in one step")
def test_killed_at_any_moment_a_folder_is_of_one_piece(tmp_path):
    for trial in range(12):
        process = subprocess.Popen([sys.executable, "-c", LOOP, tmp_path / "x"], stdout=subprocess.PIPE)
        process.stdout.readline()
        try:
            process.wait(.01 + .013 * trial)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
        found = read(tmp_path / "x") if (tmp_path / "x").exists() else {}
        assert len(set(found.values())) <= 1 and set(found) in (set(), {"a", "b", "c"})
    with written_whole(tmp_path / "x") as new:
        new.mkdir()
    assert os.listdir(tmp_path) == ["x"]


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "ü"]), st.binary(max_size=30), min_size=1), st.data())
def test_a_seal_notices_every_change(tmp_path_factory, files, data):
    folder = tmp_path_factory.mktemp("sealed")
    write(folder, files)
    assert not check_seal(folder)
    seal(folder)
    assert check_seal(folder)
    write(folder, {"README.md": b"what is added later is nobody's business"})
    assert check_seal(folder)
    name, content = data.draw(st.sampled_from(sorted(files))), data.draw(st.binary(max_size=30))
    (folder / name).write_bytes(content)
    os.utime(folder / name, ns=(1, 1 + len(content)))
    if content == files[name]:
        assert check_seal(folder)
    else:
        with pytest.raises(ValueError, match="is not the file that was saved.*delete digests.json"):
            check_seal(folder)
    (folder / name).unlink()
    with pytest.raises(ValueError, match="lacks"):
        check_seal(folder)
    shutil.rmtree(folder)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]", b"7", b'{"a": 1}', b'{"a": "' + b"0" * 64 + b'"}', b"[" * 9999, b'{"../b": "0"}'])
def test_a_damaged_seal_is_said_to_be_one(tmp_path, content):
    write(tmp_path, {"a": b"1", SEAL: content})
    with pytest.raises(ValueError, match="digests.json|lacks b"):
        check_seal(tmp_path)
