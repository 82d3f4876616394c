// An Explanation in words: what happened, and what to do about it.

#include <array>
#include <ctime>

#include "client/core/client.h"

namespace terrace {
namespace {

struct Words {
  std::string_view name;
  std::string_view happened;  // behind "the chunk "
  std::string_view mend;      // a sentence without its full stop; empty: nothing is to be done
};

constexpr std::string_view kMoreDram =
    "Raise dram, or give it an NVMe tier (nvme = [\"/var/lib/terrace\"])";
constexpr std::string_view kMoreNvme = "Raise nvme_bytes to keep more";
constexpr std::string_view kHeals = "The next put stores it anew";
constexpr std::string_view kLook = "Look at the pins and claims in `terrace status`, or raise dram";

constexpr std::array<Words, 24> kCauses = {{
    {"none", "", ""},
    {"evicted dram", "was reclaimed from DRAM for chunks that were worth more", kMoreDram},
    {"removed", "was removed by a client", kHeals},
    {"cleared", "was cleared with its namespace", kHeals},
    {"epoch ended", "ended with its namespace's epoch, which was bumped", kHeals},
    {"damaged dram", "was dropped: its bytes in DRAM were no longer those of the commit",
     "Look for a process that writes after its commit, or bad memory; the next put stores it anew"},
    {"abandoned", "was never committed: its put ended with its deadline or its process", kHeals},
    {"no room", "was refused: the pool had no room for it", kLook},
    {"evicted nvme", "was reclaimed from NVMe for chunks that were worth more", kMoreNvme},
    {"evicted unwritten", "was reclaimed from DRAM while it still waited to be written to NVMe",
     "The device is slower than the puts: put with `durable`, or raise dram"},
    {"evicted not admitted", "was reclaimed from DRAM, and nvme_admission had declined to write it",
     "nvme_admission = \"always\" writes every chunk"},
    {"evicted queue full",
     "was reclaimed from DRAM, and too many others waited to be written to NVMe before it",
     "The device is slower than the puts: put with `durable`, or raise dram"},
    {"evicted too large", "was reclaimed from DRAM, and is too large for a segment of the NVMe log",
     "Raise nvme_segment, or put smaller chunks"},
    {"evicted both", "was reclaimed from NVMe, and then from DRAM before it was written again",
     kMoreNvme},
    {"damaged nvme", "was dropped: its bytes on NVMe were not those that were written",
     "Look at the device if this repeats; the next put stores it anew"},
    {"damaged for client", "was dropped: a client's verified get found its bytes damaged",
     "Look for a process that writes after its commit, or bad memory; the next put stores it anew"},
    {"read failed", "was dropped: it could not be read from NVMe",
     "Look at the device and at the daemon's log; the next put stores it anew"},
    {"quarantined", "was dropped: its segment of the NVMe log failed too often and was given up",
     "Look at the device; the next put stores it anew"},
    {"header differs", "was refused at commit: the header was not the one of its claim",
     "Use the library's Fill or Seal to write it"},
    {"aborted", "was never committed: its put was taken back", kHeals},
    {"index full", "was refused: the index had no slot near its place", "Raise index_slots"},
    {"claims full", "was refused: its session had as many puts open as it may",
     "Commit or abort before more are begun"},
    {"no room to load", "could not be read into DRAM: the pool had no room for it", kLook},
    {"unknown", "left for a reason that only a later version knows", ""},
}};
static_assert(kCauses.size() == static_cast<size_t>(GoneCause::kUnknown) + 1);

const Words& WordsOf(GoneCause cause) { return kCauses[static_cast<size_t>(cause)]; }

// "on 2026-01-31 at 12:00:00 UTC"
std::string At(int64_t wall_ms) {
  if (wall_ms == 0) return "at an unknown time";
  const time_t seconds = wall_ms / 1000;
  tm parts{};
  char text[48];
  gmtime_r(&seconds, &parts);
  if (std::strftime(text, sizeof text, "on %F at %T UTC", &parts) == 0) return "at some time";
  return text;
}

std::string Sentence(std::string_view words) {
  return words.empty() ? "" : " " + std::string(words) + ".";
}

std::string Elsewhere(const Explanation& of) {
  if (of.other_label.empty()) return "";
  if (of.other_field == "label") {
    return " It is ready in namespace '" + of.other_label + "': ask under that label.";
  }
  return " It is ready in namespace '" + of.other_label + "', whose " + of.other_field +
         " differs: the engine that asks is not set up as the one that put it.";
}

std::string History(const Explanation& of) {
  std::string text = " The history goes back to " + At(of.history_since_ms).substr(3);
  if (of.history_lost != 0) {
    text += ", without " + std::to_string(of.history_lost) + " events that it lost under load";
  }
  return text + ".";
}

// What an answer from before this life of the daemon cannot know.
std::string Restart(const Explanation& of) {
  if (of.daemon_started_ms == 0) return "";
  return " The daemon was started " + At(of.daemon_started_ms) +
         ": what was only in DRAM before is gone.";
}

std::string Place(const Explanation& of) {
  if (of.in_dram && of.on_nvme) return "in DRAM and on NVMe";
  return of.in_dram ? "in DRAM" : "on NVMe";
}

}  // namespace

std::string_view Name(KeyAnswer answer) {
  switch (answer) {
    case KeyAnswer::kReady: return "ready";
    case KeyAnswer::kFilling: return "being written";
    case KeyAnswer::kLoading: return "being loaded";
    case KeyAnswer::kGone: return "gone";
    case KeyAnswer::kRefused: return "refused";
    case KeyAnswer::kOtherNamespace: return "other namespace";
    case KeyAnswer::kNeverPut: return "never put";
  }
  return "unknown";
}

std::string_view Name(GoneCause cause) { return WordsOf(cause).name; }

std::string Explanation::Text(const std::string& key, const std::string& label) const {
  const std::string chunk = "Chunk " + key + " of namespace '" + label + "' ";
  const Words& words = WordsOf(cause);
  switch (answer) {
    case KeyAnswer::kReady: {
      std::string text = chunk + "is ready, " + Place(*this);
      if (put_ms != 0) text += ", put " + At(put_ms);
      text += ".";
      if (cause == GoneCause::kNoRoomToLoad) {
        text += " Its last read was refused " + At(when_ms) + ": the pool had no room for it." +
                Sentence(words.mend);
      }
      return text;
    }
    case KeyAnswer::kFilling:
      return chunk + "is being written: a get that waits for it finds it once it is committed.";
    case KeyAnswer::kLoading: return chunk + "is being read from NVMe.";
    case KeyAnswer::kGone:
    case KeyAnswer::kRefused: {
      std::string text = chunk + std::string(words.happened) + ", " + At(when_ms) + "." +
                         Sentence(words.mend) + Elsewhere(*this);
      if (when_ms < daemon_started_ms) text += Restart(*this);
      return text;
    }
    case KeyAnswer::kOtherNamespace: {
      const std::string here = namespace_known ? "was never put there, as far as the history goes."
                                               : "was never put: there is no such namespace.";
      return chunk + here + Elsewhere(*this) + History(*this);
    }
    case KeyAnswer::kNeverPut: break;
  }
  std::string text = chunk + "was never put, as far as the history goes";
  if (!namespace_known) text += ": there is no such namespace";
  return text + "." + History(*this) + Restart(*this);
}

}  // namespace terrace
