"""llama.cpp through ctypes: the few calls that a prefix cache needs, each parameter asserted.

The library is the one inside the pinned package ``xllamacpp``.  Its parameter structs go by value
and have no version; their sizes and defaults are read back before they are trusted.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from terrace_kv.llama.keys import file_identity

SEQUENCE = 0  # the only sequence that is used
MODEL_PARAMS_BYTES = 80
CONTEXT_PARAMS_BYTES = 168
PARAMS_BYTES_MAX = 4096  # room for a parameter struct of an unknown build
TYPE_F16 = 1  # ggml_type
TYPE_BF16 = 30
# Rotary kinds that give a cell more than one position: (name, value) of llama_rope_type.
MULTI_ROPE = {8: "M-RoPE", 24: "vision RoPE", 40: "interleaved M-RoPE"}

_MODEL_PARAMS = ctypes.c_byte * MODEL_PARAMS_BYTES


class _ModelParams(ctypes.Structure):
    _fields_ = [("bytes", _MODEL_PARAMS)]


class _ContextParams(ctypes.Structure):
    _fields_ = [
        ("n_ctx", ctypes.c_uint32),
        ("n_batch", ctypes.c_uint32),
        ("n_ubatch", ctypes.c_uint32),
        ("n_seq_max", ctypes.c_uint32),
        ("_16", ctypes.c_byte * 12),
        ("n_threads", ctypes.c_int32),
        ("n_threads_batch", ctypes.c_int32),
        ("_36", ctypes.c_byte * 16),
        ("flash_attn_type", ctypes.c_int32),
        ("_56", ctypes.c_byte * 48),
        ("type_k", ctypes.c_int32),
        ("type_v", ctypes.c_int32),
        ("_112", ctypes.c_byte * 56),
    ]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.c_void_p),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.c_void_p),
        ("n_seq_id", ctypes.c_void_p),
        ("seq_id", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
    ]


class EngineError(RuntimeError):
    """The engine refused, or is not the build that this code knows."""


_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_SILENT = _LOG(lambda level, text, data: None)


def _find_library() -> Path:
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or not spec.submodule_search_locations:
        raise EngineError("xllamacpp is not installed: scripts/setup installs it, or pip does")
    for folder in spec.submodule_search_locations:
        library = Path(folder) / "xllamacpp.abi3.so"
        if library.exists():
            return library
    raise EngineError(f"no xllamacpp.abi3.so in {list(spec.submodule_search_locations)}")


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    pointer, size, i32, u32 = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int32,
        ctypes.c_uint32,
    )
    text, flag = ctypes.c_char_p, ctypes.c_bool
    signatures: dict[str, tuple[object, list[object]]] = {
        "llama_log_set": (None, [_LOG, pointer]),
        "llama_backend_init": (None, []),
        "llama_model_default_params": (_ModelParams, []),
        "llama_context_default_params": (_ContextParams, []),
        "llama_model_load_from_file": (pointer, [text, _ModelParams]),
        "llama_init_from_model": (pointer, [pointer, _ContextParams]),
        "llama_free": (None, [pointer]),
        "llama_model_free": (None, [pointer]),
        "llama_model_get_vocab": (pointer, [pointer]),
        "llama_model_n_layer": (i32, [pointer]),
        "llama_model_n_swa": (i32, [pointer]),
        "llama_model_rope_type": (i32, [pointer]),
        "llama_model_is_recurrent": (flag, [pointer]),
        "llama_model_is_hybrid": (flag, [pointer]),
        "llama_model_has_encoder": (flag, [pointer]),
        "llama_model_desc": (i32, [pointer, text, size]),
        "llama_vocab_n_tokens": (i32, [pointer]),
        "llama_vocab_is_eog": (flag, [pointer, i32]),
        "llama_tokenize": (i32, [pointer, text, i32, pointer, i32, flag, flag]),
        "llama_token_to_piece": (i32, [pointer, i32, text, i32, i32, flag]),
        "llama_batch_get_one": (_Batch, [pointer, i32]),
        "llama_decode": (i32, [pointer, _Batch]),
        "llama_get_logits_ith": (pointer, [pointer, i32]),
        "llama_get_memory": (pointer, [pointer]),
        "llama_memory_clear": (None, [pointer, flag]),
        "llama_state_seq_get_size": (size, [pointer, i32]),
        "llama_state_seq_get_data": (size, [pointer, pointer, size, i32]),
        "llama_state_seq_set_data": (size, [pointer, pointer, size, i32]),
        "llama_print_system_info": (text, []),
        "llama_version": (text, []),
        "llama_n_ctx": (u32, [pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


def _written_bytes(path: Path, function: str) -> int:
    """How far a function that returns a struct in memory writes: the size of that struct.

    The x86-64 ABI passes the address of such a result as a hidden first argument, so the build
    itself can be asked; room to spare keeps a larger struct from harming anything.
    """
    ask = ctypes.CDLL(str(path))[function]  # a function object of its own, without a signature
    ask.restype, ask.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    room = PARAMS_BYTES_MAX
    fills = [(ctypes.c_ubyte * room)(*([byte] * room)) for byte in (0x55, 0xAA)]
    for fill in fills:
        ask(ctypes.addressof(fill))
    same = [index + 1 for index in range(room) if fills[0][index] == fills[1][index]]
    return (max(same, default=0) + 7) // 8 * 8  # padding at the end is not written


def _check_sizes(path: Path) -> None:
    for function, expected in (
        ("llama_model_default_params", MODEL_PARAMS_BYTES),
        ("llama_context_default_params", CONTEXT_PARAMS_BYTES),
    ):
        seen = _written_bytes(path, function)
        if seen != expected:
            raise EngineError(
                f"this llama.cpp build has other parameters: {function} gives {seen} bytes, "
                f"not {expected}"
            )


def _check_defaults(defaults: _ContextParams) -> None:
    seen = (
        defaults.n_ctx,
        defaults.n_batch,
        defaults.n_ubatch,
        defaults.n_seq_max,
        defaults.flash_attn_type,
        defaults.type_k,
        defaults.type_v,
    )
    if seen != (512, 2048, 512, 1, -1, TYPE_F16, TYPE_F16):
        raise EngineError(f"this llama.cpp build has other context parameters: {seen}")


class Engine:
    """A model and a context of one sequence, set so that KV bits do not depend on batching.

    Parameters
    ----------
    model
        A GGUF file.
    context_tokens
        The context's length; 0 leaves it to `open_context`, before which nothing can be decoded.
    threads
        Threads of a decode; two on busy cores are slower than one.
    kv_type
        Elements of K and V, `TYPE_F16` or `TYPE_BF16`.

    Raises
    ------
    EngineError
        When the build is unknown, the model cannot be loaded, or its cells cannot be cut (sliding
        windows, several positions a cell); the message names why.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        context_tokens: int = 0,
        threads: int = 1,
        kv_type: int = TYPE_F16,
    ) -> None:
        if not Path(model).is_file():
            raise EngineError(f"{model} is no file")
        path = _find_library()
        self._library = _load(path)
        _check_sizes(path)
        self._library.llama_log_set(_SILENT, None)
        self._library.llama_backend_init()
        _check_defaults(self._library.llama_context_default_params())
        #: What the file was when it was loaded: `keys.file_identity`.
        self.weights = file_identity(model)
        self._model = self._library.llama_model_load_from_file(
            str(model).encode(), self._library.llama_model_default_params()
        )
        if not self._model:
            raise EngineError(f"llama.cpp cannot load {model}: is it a whole GGUF file?")
        self._refuse_what_cannot_be_cut()
        self._vocab = self._library.llama_model_get_vocab(self._model)
        self._threads = threads
        self._kv_type = kv_type
        self._context = None
        if context_tokens:
            self.open_context(context_tokens)

    def open_context(self, context_tokens: int) -> None:
        """Makes the context, once: its KV memory is taken here, so count the prompt first."""
        params = self._library.llama_context_default_params()
        params.n_ctx = (context_tokens + 255) // 256 * 256
        params.n_batch = params.n_ctx
        params.n_ubatch = 32  # from 64 up KV bits depend on how a prompt was split
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = self._threads
        params.flash_attn_type = 1
        params.type_k = params.type_v = self._kv_type
        self._context = self._library.llama_init_from_model(self._model, params)
        if not self._context:
            raise EngineError(
                f"llama.cpp cannot make a context of {context_tokens} tokens: too little memory?"
            )

    def _refuse_what_cannot_be_cut(self) -> None:
        window = self._library.llama_model_n_swa(self._model)
        if window > 0:
            raise EngineError(
                f"a sliding window (SWA, {window} tokens): its cells cannot be cut by token"
            )
        for kind in ("is_recurrent", "is_hybrid", "has_encoder"):
            if getattr(self._library, f"llama_model_{kind}")(self._model):
                name = kind.partition("_")[2]
                raise EngineError(f"a model with {name} state: it cannot be cut by token")
        rope = self._library.llama_model_rope_type(self._model)
        if rope in MULTI_ROPE:
            raise EngineError(f"{MULTI_ROPE[rope]}: a cell has several positions and cannot be cut")

    @property
    def layers(self) -> int:
        """How many layers the model has."""
        return int(self._library.llama_model_n_layer(self._model))

    @property
    def context_tokens(self) -> int:
        """The context's length in tokens."""
        return int(self._library.llama_n_ctx(self._context))

    @property
    def description(self) -> str:
        """The model in the engine's words."""
        buffer = ctypes.create_string_buffer(256)
        self._library.llama_model_desc(self._model, buffer, len(buffer))
        return buffer.value.decode(errors="replace")

    @property
    def build(self) -> str:
        """The engine's build: KV bytes of another one are not comparable."""
        own = self._library.llama_version().decode()
        return f"xllamacpp {importlib.metadata.version('xllamacpp')}, llama {own}"

    @property
    def isa(self) -> str:
        """What the bits of the CPU kernels depend on: instruction sets, and libm's own choice."""
        info = self._library.llama_print_system_info().decode()
        enabled = [part.split("=")[0].strip() for part in info.split("|") if "= 1" in part]
        features = " ".join(name.rpartition(":")[2].strip() for name in enabled)
        return f"{platform.machine()} {features} {''.join(platform.libc_ver())}"

    def tokenize(self, text: str) -> list[int]:
        """Tokens of ``text``, with the model's own start token."""
        raw = text.encode()
        room = (ctypes.c_int32 * (len(raw) + 16))()
        count = self._library.llama_tokenize(
            self._vocab, raw, len(raw), room, len(room), True, False
        )
        if count < 0:
            raise EngineError("llama.cpp cannot tokenize the prompt")
        return list(room[:count])

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for."""
        buffer = ctypes.create_string_buffer(256)
        length = self._library.llama_token_to_piece(
            self._vocab, token, buffer, len(buffer), 0, False
        )
        return buffer.raw[: max(length, 0)]

    def is_end(self, token: int) -> bool:
        """Whether the token ends a generation."""
        return bool(self._library.llama_vocab_is_eog(self._vocab, token))

    def decode(self, tokens: Sequence[int]) -> None:
        """Computes ``tokens`` behind what the context holds; at most the context's length."""
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        batch = self._library.llama_batch_get_one(array, len(tokens))
        status = self._library.llama_decode(self._context, batch)
        if status != 0:
            raise EngineError(f"llama_decode answered {status} for {len(tokens)} tokens")

    def logits(self) -> npt.NDArray[np.float32]:
        """Logits of the last decoded token, float32, one a vocabulary entry (a copy)."""
        count = self._library.llama_vocab_n_tokens(self._vocab)
        address = self._library.llama_get_logits_ith(self._context, -1)
        if not address:
            raise EngineError("no logits: nothing was decoded")
        view = (ctypes.c_float * count).from_address(address)
        return np.frombuffer(view, dtype=np.float32).copy()

    def clear(self) -> None:
        """Forgets the sequence; its bytes stay where they are, unreadable."""
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), False)

    def state(self) -> npt.NDArray[np.uint8]:
        """The sequence's state as the engine writes it, uint8, one dimension."""
        size = self._library.llama_state_seq_get_size(self._context, SEQUENCE)
        blob = np.empty(size, dtype=np.uint8)
        written = self._library.llama_state_seq_get_data(
            self._context, blob.ctypes.data, size, SEQUENCE
        )
        if written != size:
            raise EngineError(f"the engine wrote {written} of {size} bytes of state")
        return blob

    def set_state(self, blob: npt.NDArray[np.uint8]) -> bool:
        """Restores a state; False, with an empty sequence, when the engine refuses it."""
        read = self._library.llama_state_seq_set_data(
            self._context, blob.ctypes.data, blob.size, SEQUENCE
        )
        if read == blob.size:
            return True
        self.clear()
        return False

    def close(self) -> None:
        """Frees context and model."""
        if self._context:
            self._library.llama_free(self._context)
        self._library.llama_model_free(self._model)
