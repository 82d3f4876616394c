#include "storage/catalog/catalog_update.h"

#include "storage/catalog/row_store.h"

namespace terrace {

void CatalogUpdate::Bound(const char* what, size_t bytes, size_t bytes_max) {
  if (bytes <= bytes_max || !refused_.empty()) return;
  refused_ = std::string(what) + " of " + std::to_string(bytes) +
             " bytes: " + std::to_string(bytes_max) + " at most";
}

void CatalogUpdate::Put(const TenantRow& row) {
  Bound("a tenant's name", row.name.size(), kCatalogNameBytesMax);
  Bound("a tenant's blob", row.blob.size(), kCatalogBlobBytesMax);
  changes_.push_back({Change::Kind::kPut, catalog::TenantKey(row.name), catalog::Value(row)});
}

void CatalogUpdate::Put(const NamespaceRow& row) {
  Bound("a namespace's label", row.label.size(), kCatalogNameBytesMax);
  Bound("a namespace's spec", row.spec.size(), kCatalogBlobBytesMax);
  changes_.push_back(
      {Change::Kind::kPut, catalog::NamespaceKey(row.tenant, row.label), catalog::Value(row)});
}

void CatalogUpdate::Put(const NextIdRow& row) {
  changes_.push_back({Change::Kind::kPut, catalog::NextIdKey(row.tenant), catalog::Value(row)});
}

void CatalogUpdate::Put(const LeaseRow& row) {
  changes_.push_back(
      {Change::Kind::kPut, catalog::NameKey(catalog::Kind::kLease, row.name), catalog::Value(row)});
}

void CatalogUpdate::Put(const EnduranceRow& row) {
  changes_.push_back(
      {Change::Kind::kPut, catalog::EnduranceKey(row.device, row.day), catalog::Value(row)});
}

void CatalogUpdate::EraseTenant(const std::string& name) {
  changes_.push_back({Change::Kind::kErase, catalog::TenantKey(name), ""});
}

void CatalogUpdate::EraseNamespace(uint32_t tenant, const std::string& label) {
  changes_.push_back({Change::Kind::kErase, catalog::NamespaceKey(tenant, label), ""});
}

void CatalogUpdate::EraseLease(const ChunkName& name) {
  changes_.push_back({Change::Kind::kErase, catalog::NameKey(catalog::Kind::kLease, name), ""});
}

void CatalogUpdate::EraseEndurance(uint32_t device, uint32_t day) {
  changes_.push_back({Change::Kind::kErase, catalog::EnduranceKey(device, day), ""});
}

void CatalogUpdate::EraseChunks(uint32_t tenant, uint32_t namespace_id) {
  const std::string prefix = catalog::ChunkPrefix(tenant, namespace_id);
  changes_.push_back({Change::Kind::kEraseRange, prefix, catalog::PrefixEnd(prefix)});
}

Status CatalogUpdate::Check() const {
  if (!refused_.empty()) return Status(StatusCode::kInvalid, refused_);
  if (changes_.size() > kUpdateChangesMax) {
    return Status(StatusCode::kInvalid, "an update of " + std::to_string(changes_.size()) +
                                            " changes: " + std::to_string(kUpdateChangesMax) +
                                            " at most");
  }
  if (bytes() > kUpdateBytesMax) {
    return Status(StatusCode::kInvalid, "an update of " + std::to_string(bytes()) + " bytes: " +
                                            std::to_string(kUpdateBytesMax) + " at most");
  }
  return Status::Ok();
}

size_t CatalogUpdate::bytes() const {
  size_t bytes = 0;
  for (const Change& change : changes_) bytes += change.key.size() + change.value.size();
  return bytes;
}

void CatalogUpdate::AddTo(RowBatch* batch) const {
  for (const Change& change : changes_) {
    switch (change.kind) {
      case Change::Kind::kPut: batch->Put(change.key, change.value); break;
      case Change::Kind::kErase: batch->Erase(change.key); break;
      case Change::Kind::kEraseRange: batch->EraseRange(change.key, change.value); break;
    }
  }
}

}  // namespace terrace
