"""KV cache of llama.cpp kept in Terrace: cut into chunks, hash-chained, restored in any process.

``python -m terrace_kv.llama --model FILE.gguf --prompt FILE`` runs a prompt with it.
"""

from terrace_kv.llama.adapter import PrefixCache, Restored
from terrace_kv.llama.engine import Engine, EngineError

__all__ = ["Engine", "EngineError", "PrefixCache", "Restored"]
