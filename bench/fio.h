#pragma once

// fio, the yardstick of a device: one job a run, on io_uring with O_DIRECT and registered buffers.
//
// Threads: main.

#include <cstdint>
#include <string>

#include "storage/base/result.h"

namespace terrace {

struct FioJob {
  std::string file;
  std::string pattern;  // as fio's --rw: "randread", "write"
  uint64_t block_bytes = 0;
  uint32_t depth = 1;
  uint64_t offset = 0;
  uint64_t range_bytes = 0;  // from there; a file that is shorter is made longer
  uint64_t io_bytes = 0;     // transferred in this run
  bool zeros = false;        // write nothing else
};

class Fio {
 public:
  // kNotFound, with the mend, when it is not installed.  `folder` is for what it says, and for a
  // small file by which it is found out whether it is given huge pages.
  static Result<Fio> Find(const std::string& folder);

  // Of the pages that its buffers lie on.
  uint64_t page_bytes() const { return huge_ ? 2 << 20 : 4 << 10; }

  // Bytes a second.  kIoError with what it said.
  Result<double> Run(const FioJob& job) const;

 private:
  Fio(std::string binary, std::string folder)
      : binary_(std::move(binary)), folder_(std::move(folder)) {}

  std::string binary_, folder_;
  bool huge_ = true;
};

}  // namespace terrace
