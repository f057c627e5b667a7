"""Forged pickles in weight files: torch writes no file, and NumPy reads no address."""

import pickle
import zipfile

import pytest
import torch
from torch import nn

from src.models import load_weights


def binunicode(text):
    return b"X" + len(text.encode()).to_bytes(4, "little") + text.encode()


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def test_an_old_file_cannot_let_torch_write_a_file(tmp_path):
    """Old files name their networks' source code, and torch could write the differences."""
    names = binunicode("dump_patches") + b"\x88"
    names += binunicode("__name__") + binunicode(str(tmp_path / "written"))
    source = binunicode("src.py") + binunicode("import os\n")
    body = b"\x80\x02" + REBUILD + b"N}(" + names + b"u\x86b0"  # sets its attributes
    body += b"(" + binunicode("module") + REBUILD + source + b"tQ."
    sizes = {"little_endian": True, "protocol_version": 1001, "type_sizes": {}}
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, sizes)]
    file = tmp_path / "old.pt"
    file.write_bytes(b"".join(head) + body + pickle.dumps([], 2))
    with pytest.raises(ValueError):
        load_weights(nn.Linear(2, 2), file)
    assert [path.name for path in tmp_path.iterdir()] == ["old.pt"]


def test_a_numpy_number_holds_no_address(tmp_path):
    fields = b"}" + binunicode("a") + b"cnumpy\ndtype\n" + binunicode("O") + b"\x85RK\x00\x86s"
    kind = b"cnumpy\ndtype\n" + binunicode("V8") + b"\x89\x88\x87R(K\x03" + binunicode("|")
    kind += b"N(" + binunicode("a") + b"t" + fields + b"K\x08K\x01K\x00tb"
    number = b"cnumpy._core.multiarray\nscalar\n" + kind + b"U\x08AAAAAAAA\x86R"
    file = tmp_path / "forged.pt"
    torch.save({}, file)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            new = (
                b"\x80\x02cbuiltins\nset\n" + number + b"\x85R." if "data.pkl" in name else content
            )
            archive.writestr(name, new)
    with pytest.raises(ValueError):
        load_weights(nn.Linear(2, 2), file)
