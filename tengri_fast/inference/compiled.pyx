"""Compiled models (.tgp): the plan and the packed weights as one file; layout and checks are csrc/nn's.

The file carries a note, free text of at most 64 KiB. Ours is JSON: the source's SHA-256, outputs, metadata and the
layers' names, which the C side does not need.
"""

from libc.string cimport memcpy

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from tengri_fast.inference.capi cimport (
    TF_OK,
    tf_fault,
    tf_isa,
    tf_isa_select,
    tf_model,
    tf_model_file_bytes,
    tf_model_load,
    tf_model_note,
    tf_model_open,
    tf_model_output_size,
    tf_model_write,
    tf_status,
    tf_status_text,
)
from tengri_fast.inference.session cimport Block, Model, adopt, isa_of, make_block

import hashlib
import json
import os
import threading

from tengri_fast.errors import ConfigurationError, ModelLoadingError
from tengri_fast.inference.facts import CompiledLayer

__all__ = ["load", "save", "to_bytes"]

NOTE_LIMIT = 65_536
NOTE_KIND = "tengri_fast model"

if tf_isa_select(NULL) != TF_OK:
    raise ConfigurationError(
        f"`TENGRI_ISA` must name an instruction set this machine has, was {os.environ.get('TENGRI_ISA')!r}"
    )


def note_of(Model model):
    """The note for a model's file as bytes; what does not fit is left out, the layers' names first, then metadata."""
    note = {
        "kind": NOTE_KIND,
        "sha256": model.sha256,
        "output_mode": model.output_mode,
        "format": model.format,
        "outputs": [list(entry) for entry in model.outputs],
        "metadata": dict(model.metadata),
        "layers": layer_rows(model),
    }
    for dropped in (None, "names", "metadata", "layers"):
        if dropped == "names":
            note["layers"] = [["", *row[1:]] for row in note["layers"]]
        elif dropped is not None:
            note[dropped] = type(note[dropped])()
        text = json.dumps(note, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= NOTE_LIMIT:
            return text
    raise ModelLoadingError(f"the names of the outputs must fit {NOTE_LIMIT} bytes, took {len(text)}")


def layer_rows(Model model):
    """[name, kind, output size, format] of each layer."""
    if model.network is None:
        return [[layer.name, layer.kind, layer.output_size, layer.format] for layer in model.layers]
    return [[node.layer.name, node.layer.kind, node.layer.output_size, node.format] for node in model.network.nodes]


def to_bytes(Model model):
    """The content of a model's compiled file."""
    cdef bytes note = note_of(model)
    cdef size_t size = tf_model_file_bytes(model.ptr, len(note))
    cdef bytes data = PyBytes_FromStringAndSize(NULL, size)
    cdef tf_status status = tf_model_write(model.ptr, PyBytes_AS_STRING(note), len(note), PyBytes_AS_STRING(data), size)
    if status != TF_OK:
        raise ModelLoadingError(f"the model could not be written: {(<bytes> tf_status_text(status)).decode()}")
    return data


def save(Model model, path):
    """Write a model's compiled file beside `path` and rename it."""
    data = to_bytes(model)
    path = os.fsdecode(path)
    beside = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}.{threading.get_ident()}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def load(source, isa=None):
    """A model from the path or the bytes of a compiled file; see :meth:`Model.from_compiled`."""
    cdef tf_isa wanted = isa_of(isa)
    cdef tf_model *ptr = NULL
    cdef tf_fault fault
    cdef tf_status status
    cdef Block block = None
    cdef bytes data
    fault.node = -1
    fault.rule = NULL
    if isinstance(source, (bytes, bytearray, memoryview)):
        name = "compiled model"
        data = bytes(source)
        if not data:
            raise ModelLoadingError("compiled model: must not be empty")
        block = make_block(len(data))
        memcpy(block.ptr, PyBytes_AS_STRING(data), len(data))
        status = tf_model_open(block.ptr, len(data), wanted, &ptr, &fault)
    else:
        name = os.fspath(source)
        data = os.fsencode(name)
        if b"\0" in data:
            raise ModelLoadingError("`source` must be a path without zero bytes")
        if not os.path.isfile(name):
            raise ModelLoadingError(f"{name}: no such file")
        status = tf_model_load(PyBytes_AS_STRING(data), wanted, &ptr, &fault)
    if status != TF_OK:
        rule = (<bytes> tf_status_text(status) if fault.rule is NULL else <bytes> fault.rule).decode()
        raise ModelLoadingError(f"{name}: {f'layer {fault.node}: ' if fault.node >= 0 else ''}{rule}")
    facts = read_note(ptr)
    if not facts["sha256"]:
        facts["sha256"] = hash_of(source)
    facts["mapped"] = block
    return adopt(ptr, facts)


def hash_of(source):
    """SHA-256 of a file whose note does not tell that of its source."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return hashlib.sha256(source).hexdigest()
    with open(source, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


cdef dict read_note(const tf_model *ptr):
    """What our note says; a file that carries another text gets plain defaults, as the text means nothing to us."""
    cdef size_t size = 0
    cdef const char *text = tf_model_note(ptr, &size)
    cdef int width = tf_model_output_size(ptr)
    facts = {"layers": (), "outputs": (), "metadata": {}, "format": "mixed", "sha256": "", "output_mode": "every"}
    try:
        note = json.loads((<bytes> text[:size]).decode())
        if not isinstance(note, dict) or note.get("kind") != NOTE_KIND:
            return facts
        found = {
            "layers": tuple([CompiledLayer(str(a), str(b), int(c), str(d)) for a, b, c, d in note["layers"]]),
            "outputs": tuple([(str(name), int(wide)) for name, wide in note["outputs"]]),
            "metadata": {str(key): str(value) for key, value in note["metadata"].items()},
            "format": str(note["format"]),
            "sha256": str(note["sha256"]),
            "output_mode": "last" if note["output_mode"] == "last" else "every",
        }
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return facts
    if sum(wide for _, wide in found["outputs"]) != width or min(wide for _, wide in found["outputs"]) < 1:
        found["outputs"] = ()
    return found
