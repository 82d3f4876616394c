// terrace_kv._core: the client library for Python.  terrace_kv/__init__.py is what users import.
//
// Threads: the interpreter lock is released around every call that may wait or copy.

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <typeinfo>

#include "client/core/client.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace terrace {
namespace {

constexpr double kNsPerSecond = 1e9;

constexpr const char* kPartWanted = "an int from 0 to 65535";
constexpr const char* kKeyWanted = "bytes of length 1 or more, str.encode() of a text";
constexpr const char* kBoolWanted = "True or False";
constexpr size_t kReprBytesMax = 80;  // of a value in a message

// "NAME = VALUE: use WANTED".
std::string Wrong(const std::string& name, nb::handle value, const char* wanted) {
  std::string shown = nb::repr(value).c_str();
  if (shown.size() > kReprBytesMax) {
    size_t end = kReprBytesMax;
    while (end > 0 && (static_cast<unsigned char>(shown[end]) & 0xc0) == 0x80) --end;  // UTF-8
    shown = shown.substr(0, end) + "...";
  }
  return name + " = " + shown + ": use " + wanted;
}

// ValueError for a number out of range, TypeError for what is of another type; both name it.
template <typename T>
T Argument(nb::handle value, const char* name, const char* wanted) {
  try {
    return nb::cast<T>(value);
  } catch (const std::bad_cast&) {
    const std::string message = Wrong(name, value, wanted);
    constexpr bool kNumber = std::is_arithmetic_v<T> && !std::is_same_v<T, bool>;
    if (kNumber && PyLong_Check(value.ptr())) throw nb::value_error(message.c_str());
    throw nb::type_error(message.c_str());
  }
}

int64_t Nanoseconds(nb::handle value, const char* name) {
  constexpr const char* kWanted = "a number of seconds, 0 or more";
  const auto seconds = Argument<double>(value, name, kWanted);
  if (!(seconds >= 0)) throw nb::value_error(Wrong(name, value, kWanted).c_str());
  return static_cast<int64_t>(std::min(seconds, 1e9) * kNsPerSecond);
}

uint16_t Part(nb::handle value) { return Argument<uint16_t>(value, "part", kPartWanted); }

std::string Name(StatusCode code) { return std::string(StatusCodeName(code)); }

// ValueError for what never will work as it is asked, else terrace_kv.Unavailable with the code's
// name; without a daemon with that of the last attempt to connect.
[[noreturn]] void Raise(const Status& status, const Client& client) {
  if (status.code() == StatusCode::kInvalid) throw nb::value_error(status.message().c_str());
  StatusCode code = status.code();
  if (code == StatusCode::kUnavailable) {
    const nb::gil_scoped_release unlocked;
    const Status why = client.AwaitAvailable(0);
    if (!why.ok()) code = why.code();
  }
  const nb::object type = nb::module_::import_("terrace_kv").attr("Unavailable");
  const nb::object error =
      type(std::string(StatusCodeName(code)) + ": " + status.message(), Name(code));
  PyErr_SetObject(type.ptr(), error.ptr());
  throw nb::python_error();
}

// A contiguous buffer borrowed from Python for the length of a call.
class Borrowed {
 public:
  // `name()`: the argument's, for errors, which are of the type that the object's own have.
  template <typename NameOf>
  Borrowed(nb::handle object, const NameOf& name) {
    if (HoldsObjects(object)) {
      throw nb::type_error((name() + ": an array of dtype object has no bytes of its own: use a "
                                     "dtype of numbers")
                               .c_str());
    }
    if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_C_CONTIGUOUS) == 0) return;
    nb::python_error error;
    const std::string why = nb::str(error.value()).c_str();
    PyErr_SetString(error.type().ptr(), (name() + ": " + why +
                                         ": use a C-contiguous buffer: bytes, or a numpy array in "
                                         "memory of the CPU")
                                            .c_str());
    throw nb::python_error();
  }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
  ~Borrowed() { PyBuffer_Release(&view_); }

  std::span<const std::byte> bytes() const {
    return {static_cast<const std::byte*>(view_.buf), static_cast<size_t>(view_.len)};
  }

 private:
  // Of numpy: the bytes are addresses in this process.
  static bool HoldsObjects(nb::handle object) {
    const nb::object dtype = nb::getattr(object, "dtype", nb::none());
    const nb::object holds = nb::getattr(dtype, "hasobject", nb::none());
    return holds.ptr() == Py_True;
  }

  Py_buffer view_{};
};

template <typename NameOf>
shm::ChunkKey Key(nb::handle bytes, uint16_t part, const NameOf& name) {
  if (!PyBytes_Check(bytes.ptr())) {
    throw nb::type_error(Wrong(name(), bytes, kKeyWanted).c_str());
  }
  const std::span<const char> view(PyBytes_AS_STRING(bytes.ptr()),
                                   static_cast<size_t>(PyBytes_GET_SIZE(bytes.ptr())));
  const Result<shm::ChunkKey> key = MakeKey(std::as_bytes(view), part);
  if (!key.ok()) throw nb::value_error(Wrong(name(), bytes, kKeyWanted).c_str());
  return *key;
}

// Any iterable's items, but not a text's or bytes' own: those are a key that lacks its list.
nb::list Items(nb::handle iterable, const char* name, const char* wanted) {
  const bool single = PyBytes_Check(iterable.ptr()) || PyUnicode_Check(iterable.ptr());
  if (single || (!PySequence_Check(iterable.ptr()) && !nb::hasattr(iterable, "__iter__"))) {
    throw nb::type_error(Wrong(name, iterable, wanted).c_str());
  }
  PyObject* const list = PySequence_List(iterable.ptr());
  if (list == nullptr) nb::raise_python_error();
  return nb::steal<nb::list>(list);
}

std::vector<shm::ChunkKey> Keys(nb::handle keys, nb::handle part) {
  const nb::list items = Items(keys, "keys", "a sequence of bytes");
  const uint16_t number = Part(part);
  std::vector<shm::ChunkKey> out;
  out.reserve(items.size());
  for (nb::handle item : items) {
    // The name is built only for who reads it.
    out.push_back(Key(item, number, [&] { return "keys[" + std::to_string(out.size()) + "]"; }));
  }
  return out;
}

nb::list Names(const std::vector<StatusCode>& codes) {
  nb::list out;
  for (const StatusCode code : codes) out.append(Name(code));
  return out;
}

// -------------------------------------------------------------------------------------- pins

struct PyPin {
  Pin pin;
  int exports = 0;  // buffers that Python holds
};

int GetBuffer(PyObject* self, Py_buffer* view, int flags) {
  auto* held = nb::inst_ptr<PyPin>(self);
  if (!held->pin.held()) {
    PyErr_SetString(PyExc_BufferError, "the pin was released");
    return -1;
  }
  const std::span<const std::byte> bytes = held->pin.bytes();
  const int filled = PyBuffer_FillInfo(view, self, const_cast<std::byte*>(bytes.data()),
                                       static_cast<Py_ssize_t>(bytes.size()), 1, flags);
  if (filled == 0) ++held->exports;
  return filled;
}

void ReleaseBuffer(PyObject* self, Py_buffer*) { --nb::inst_ptr<PyPin>(self)->exports; }

PyType_Slot kPinSlots[] = {{Py_bf_getbuffer, reinterpret_cast<void*>(GetBuffer)},
                           {Py_bf_releasebuffer, reinterpret_cast<void*>(ReleaseBuffer)},
                           {0, nullptr}};

void ReleasePin(PyPin& self) {
  if (self.exports > 0) {
    PyErr_SetString(PyExc_BufferError, "the pin's bytes are in use by a memoryview or an array");
    throw nb::python_error();
  }
  self.pin.Release();
}

// -------------------------------------------------------------------------------- namespaces

using NamespaceRef = std::shared_ptr<Namespace>;

struct PyNamespace {
  NamespaceRef ns;

  size_t Match(nb::handle keys, nb::handle part) const {
    const std::vector<shm::ChunkKey> wanted = Keys(keys, part);
    const nb::gil_scoped_release unlocked;
    return ns->Match(wanted).prefix;
  }

  nb::list States(nb::handle keys, nb::handle part) const {
    const std::vector<shm::ChunkKey> wanted = Keys(keys, part);
    MatchResult found;
    {
      const nb::gil_scoped_release unlocked;
      found = ns->Match(wanted);
    }
    nb::list out;
    for (size_t i = 0; i < wanted.size(); ++i) {
      const bool known = found.status == StatusCode::kOk && i < found.states.size();
      out.append(!known                                  ? "unavailable"
                 : found.states[i] == KeyState::kReady   ? "ready"
                 : found.states[i] == KeyState::kNvme    ? "nvme"
                 : found.states[i] == KeyState::kFilling ? "filling"
                                                         : "absent");
    }
    return out;
  }

  nb::list Get(nb::handle keys, nb::handle part, nb::handle timeout, nb::handle verify,
               nb::handle wait) const {
    const std::vector<shm::ChunkKey> wanted = Keys(keys, part);
    const GetOptions options{.timeout_ns = Nanoseconds(timeout, "timeout"),
                             .wait_for_filling = Argument<bool>(wait, "wait", kBoolWanted),
                             .verify = Argument<bool>(verify, "verify", kBoolWanted)};
    std::vector<GetResult> got;
    {
      const nb::gil_scoped_release unlocked;
      got = ns->Get(wanted, options);
    }
    nb::list out;
    for (GetResult& result : got) {
      if (result.status == StatusCode::kOk) {
        out.append(nb::cast(PyPin{.pin = std::move(result.pin)}));
      } else {
        out.append(nb::none());
      }
    }
    return out;
  }

  nb::list Put(nb::handle items, nb::handle part, nb::handle timeout) const {
    constexpr const char* kItemWanted = "a tuple (key, buffer)";
    const nb::list pairs = Items(items, "items", "a sequence of tuples (key, buffer)");
    const uint16_t number = Part(part);
    const int64_t timeout_ns = Nanoseconds(timeout, "timeout");
    std::vector<std::unique_ptr<Borrowed>> borrowed;
    std::vector<PutItem> wanted;
    for (nb::handle item : pairs) {
      const auto name = [&] { return "items[" + std::to_string(wanted.size()) + "]"; };
      if (!nb::isinstance<nb::tuple>(item) || nb::len(item) != 2) {
        throw nb::type_error(Wrong(name(), item, kItemWanted).c_str());
      }
      const auto pair = nb::borrow<nb::tuple>(item);
      const shm::ChunkKey key = Key(pair[0], number, [&] { return "key of " + name(); });
      borrowed.push_back(
          std::make_unique<Borrowed>(pair[1], [&] { return "buffer of " + name(); }));
      wanted.push_back({.key = key, .payload = borrowed.back()->bytes()});
    }
    std::vector<StatusCode> ends;
    {
      const nb::gil_scoped_release unlocked;
      ends = ns->Put(wanted, timeout_ns);
    }
    return Names(ends);
  }

  template <typename Act>
  nb::list Each(nb::handle keys, nb::handle part, Act act) const {
    const std::vector<shm::ChunkKey> wanted = Keys(keys, part);
    std::vector<StatusCode> ends;
    {
      const nb::gil_scoped_release unlocked;
      ends = act(*ns, wanted);
    }
    return Names(ends);
  }
};

// ------------------------------------------------------------------------------------ client

// Lets a share go without the interpreter's lock: the last one ends the connection, which waits for
// the library's thread.
class Unlocked {
 public:
  explicit Unlocked(std::shared_ptr<Client>& client) : client_(client) {}
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;
  ~Unlocked() {
    const nb::gil_scoped_release unlocked;
    client_.reset();
  }

 private:
  std::shared_ptr<Client>& client_;
};

nb::object Seconds(int64_t wall_ms) {
  if (wall_ms == 0) return nb::none();
  return nb::cast(static_cast<double>(wall_ms) / 1000);
}

nb::object TextOrNone(std::string_view text) {
  if (text.empty()) return nb::none();
  return nb::str(text.data(), text.size());
}

// Of terrace_kv.Explanation.
nb::dict Fields(const Explanation& of, const std::string& label, const nb::bytes& key) {
  nb::list tiers;
  if (of.in_dram) tiers.append("dram");
  if (of.on_nvme) tiers.append("nvme");
  const bool caused = of.cause != GoneCause::kNone;
  nb::dict out;
  out["answer"] = TextOrNone(terrace::Name(of.answer));
  out["cause"] = caused ? TextOrNone(terrace::Name(of.cause)) : nb::none();
  out["when"] = Seconds(of.when_ms);
  out["tiers"] = nb::tuple(tiers);
  out["size"] = of.payload_bytes;
  out["put"] = Seconds(of.put_ms);
  out["namespace_known"] = of.namespace_known;
  out["other_namespace"] = TextOrNone(of.other_label);
  out["other_field"] = TextOrNone(of.other_field);
  out["history_since"] = Seconds(of.history_since_ms);
  out["history_lost"] = of.history_lost;
  out["daemon_started"] = Seconds(of.daemon_started_ms);
  out["text"] = of.Text(nb::repr(key).c_str(), label);
  return out;
}

struct PyClient {
  // Each call shares it: another thread may close while one waits.
  std::shared_ptr<Client> client;

  PyClient(nb::handle socket, nb::handle name, nb::handle timeout) {
    ClientOptions options;
    options.socket = Argument<std::string>(socket, "socket", "a str: the path of a socket");
    options.client_name = Argument<std::string>(name, "name", "a str");
    options.connect_timeout_ns = Nanoseconds(timeout, "timeout");
    const nb::gil_scoped_release unlocked;
    client = Client::Create(options);
    // A daemon that is away is a miss, not an error: it may come.
    static_cast<void>(client->AwaitAvailable(options.connect_timeout_ns));
  }

  std::shared_ptr<Client> open() const {
    if (client == nullptr) throw nb::value_error("the client was closed");
    return client;
  }

  void Close() {
    std::shared_ptr<Client> closed = std::move(client);
    const nb::gil_scoped_release unlocked;
    closed.reset();
  }

  // False once closed.
  bool available() const {
    std::shared_ptr<Client> inside = client;
    // In a forked child it connects; and the last share ends the connection.
    const nb::gil_scoped_release unlocked;
    const bool answer = inside != nullptr && inside->available();
    inside.reset();
    return answer;
  }

  uint32_t chunk_bytes_max() const {
    std::shared_ptr<Client> inside = open();
    const nb::gil_scoped_release unlocked;
    const uint32_t bytes = inside->chunk_bytes_max();
    inside.reset();
    return bytes;
  }

  std::string StatusJson() const {
    std::shared_ptr<Client> inside = open();
    std::optional<Result<std::string>> json;
    const Unlocked last(inside);
    {
      const nb::gil_scoped_release unlocked;
      json.emplace(inside->StatusJson());
    }
    if (!json->ok()) Raise(json->status(), *inside);
    return **json;
  }

  nb::dict Explain(const std::string& label, nb::handle key, nb::handle part) const {
    const shm::ChunkKey wanted = Key(key, Part(part), [] { return std::string("key"); });
    std::shared_ptr<Client> inside = open();
    std::optional<Result<Explanation>> explained;
    const Unlocked last(inside);
    {
      const nb::gil_scoped_release unlocked;
      explained.emplace(inside->Explain(label, wanted));
    }
    if (!explained->ok()) Raise(explained->status(), *inside);
    return Fields(**explained, label, nb::borrow<nb::bytes>(key));
  }

  PyNamespace Register(const NamespaceIdentity& identity) const {
    std::shared_ptr<Client> inside = open();
    std::optional<Result<NamespaceRef>> ns;
    const Unlocked last(inside);
    {
      const nb::gil_scoped_release unlocked;
      ns.emplace(inside->Register(identity));
    }
    if (!ns->ok()) Raise(ns->status(), *inside);
    return PyNamespace{.ns = **ns};
  }
};

template <typename T>
T Field(const nb::dict& fields, const char* name, const char* wanted) {
  return Argument<T>(fields[name], name, wanted);
}

NamespaceIdentity Identity(nb::handle label, const nb::dict& fields) {
  NamespaceIdentity out;
  out.label = Argument<std::string>(label, "name", "a str");
  constexpr const char* kNumbers = "a sequence of ints of 0 or more";
  constexpr const char* kNumber = "an int from 0 to 4294967295";
  const auto text = [&fields](const char* name) {
    return Field<std::string>(fields, name, "a str");
  };
  out.model = text("model");
  out.weights_digest = text("weights_digest");
  out.dtype = text("dtype");
  out.layout = text("layout");
  out.hash_algorithm = text("hash_algorithm");
  out.hash_seed = text("hash_seed");
  out.engine_build = text("engine_build");
  out.isa = text("isa");
  out.salt = text("salt");
  out.tokens_per_chunk = Field<uint32_t>(fields, "tokens_per_chunk", kNumber);
  out.layer_bytes = Field<std::vector<uint64_t>>(fields, "layer_bytes", kNumbers);
  out.ranks = Field<uint32_t>(fields, "ranks", kNumber);
  out.group_trailing = Field<std::vector<uint32_t>>(fields, "group_trailing", kNumbers);
  return out;
}

}  // namespace
}  // namespace terrace

// nanobind's macro names its argument, and takes it by value.
// NOLINTNEXTLINE(performance-unnecessary-value-param)
NB_MODULE(_core, module) {
  using namespace terrace;
  module.attr("__version__") = TERRACE_VERSION;

  nb::class_<PyPin>(module, "Pin", nb::type_slots(kPinSlots),
                    "Bytes of a ready chunk, held in place; a read-only buffer.")
      .def("__len__", [](const PyPin& self) { return self.pin.bytes().size(); })
      .def("release", &ReleasePin, "Lets go.  BufferError while a memoryview or array uses it.")
      .def("verify",
           [](PyPin& self) {
             if (!self.pin.held()) return false;
             ++self.exports;  // no other thread lets go of it meanwhile
             bool same = false;
             {
               const nb::gil_scoped_release unlocked;
               same = self.pin.Verify().ok();
             }
             --self.exports;
             return same;
           })
      .def("__enter__", [](nb::handle self) { return nb::borrow(self); })
      .def(
          "__exit__", [](PyPin& self, nb::handle, nb::handle, nb::handle) { ReleasePin(self); },
          "type"_a.none(), "value"_a.none(), "traceback"_a.none());

  nb::class_<PyNamespace>(module, "Namespace")
      .def("match", &PyNamespace::Match, "keys"_a, "part"_a)
      .def("states", &PyNamespace::States, "keys"_a, "part"_a)
      .def("get", &PyNamespace::Get, "keys"_a, "part"_a, "timeout"_a, "verify"_a, "wait"_a)
      .def("put", &PyNamespace::Put, "items"_a, "part"_a, "timeout"_a)
      .def(
          "prefetch",
          [](const PyNamespace& self, nb::handle keys, nb::handle part, nb::handle timeout) {
            const int64_t timeout_ns = Nanoseconds(timeout, "timeout");
            return self.Each(keys, part, [timeout_ns](Namespace& ns, const auto& wanted) {
              return ns.Prefetch(wanted, timeout_ns);
            });
          },
          "keys"_a, "part"_a, "timeout"_a)
      .def(
          "persist",
          [](const PyNamespace& self, nb::handle keys, nb::handle part, nb::handle timeout) {
            const int64_t timeout_ns = Nanoseconds(timeout, "timeout");
            return self.Each(keys, part, [timeout_ns](Namespace& ns, const auto& wanted) {
              return ns.Persist(wanted, timeout_ns);
            });
          },
          "keys"_a, "part"_a, "timeout"_a)
      .def(
          "remove",
          [](const PyNamespace& self, nb::handle keys, nb::handle part) {
            return self.Each(keys, part,
                             [](Namespace& ns, const auto& wanted) { return ns.Remove(wanted); });
          },
          "keys"_a, "part"_a)
      .def(
          "lease",
          [](const PyNamespace& self, nb::handle keys, nb::handle part, nb::handle ttl) {
            const int64_t ttl_ns = Nanoseconds(ttl, "ttl");
            return self.Each(keys, part, [ttl_ns](Namespace& ns, const auto& wanted) {
              return ns.Lease(wanted, ttl_ns);
            });
          },
          "keys"_a, "part"_a, "ttl"_a);

  nb::class_<PyClient>(module, "Client")
      .def(nb::init<nb::handle, nb::handle, nb::handle>(), "socket"_a, "name"_a, "timeout"_a)
      .def_prop_ro("available", &PyClient::available)
      .def_prop_ro("chunk_bytes_max", &PyClient::chunk_bytes_max)
      .def_prop_ro("socket", [](const PyClient& self) { return self.open()->socket(); })
      .def("status_json", &PyClient::StatusJson)
      .def("explain", &PyClient::Explain, "label"_a, "key"_a, "part"_a)
      .def("close", &PyClient::Close)
      .def(
          "register",
          [](const PyClient& self, nb::handle label, const nb::dict& fields) {
            return self.Register(Identity(label, fields));
          },
          "label"_a, "fields"_a);
}
