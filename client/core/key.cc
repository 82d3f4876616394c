#include <openssl/evp.h>

#include <cstring>

#include "client/core/client.h"

namespace terrace {

Result<shm::ChunkKey> MakeKey(std::span<const std::byte> bytes, uint16_t part) {
  if (bytes.empty()) return Status(StatusCode::kInvalid, "a key has at least one byte");
  if (bytes.size() <= shm::kKeyBytes) {
    return shm::ChunkKey::FromBytes(bytes.data(), bytes.size(), part);
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest, &length, EVP_sha256(), nullptr) != 1 ||
      length != shm::kKeyBytes) {
    return Status(StatusCode::kIoError, "libcrypto computes no SHA-256");
  }
  shm::ChunkKey key = shm::ChunkKey::FromBytes(digest, length, part);
  key.length = shm::kKeyLengthHashed;
  return key;
}

}  // namespace terrace
