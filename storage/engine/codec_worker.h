#pragma once

// Does codec jobs, one after the other.
//
// Threads: belongs to one thread at a time.

#include <vector>

#include "storage/base/status.h"
#include "storage/codec/decoder.h"
#include "storage/codec/encoder.h"
#include "storage/engine/codec_job.h"

namespace terrace {

class CodecWorker {
 public:
  // Fills the job's status and outcome; its results are not touched.
  void Do(CodecJob& job);

 private:
  Status Encode(CodecJob& job);
  Status TakePlain(const CodecJob& job);
  Status Decode(CodecJob& job);

  Encoder encoder_;
  Decoder decoder_;
  std::vector<uint8_t> plain_;  // a copy that no client can change any more
};

}  // namespace terrace
