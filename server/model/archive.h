// Reads a .pt2 file, which is a zip archive that compresses nothing.
#pragma once

#include <cstdint>
#include <fstream>
#include <map>
#include <string>

namespace dcrnn_fast::server {

// The entries of a file by their names without the archive's root folder, such as "extra/encoder.json".
class Archive {
 public:
  // Reads every byte and compares it with its checksum: PyTorch's loader does not. Throws ModelError for a file that is missing, damaged,
  // or no archive.
  Archive(const std::string& path, const std::string& shown);
  bool has(const std::string& name) const { return entries_.contains(name); }
  std::string read(const std::string& name);

 private:
  struct Entry {
    std::uint64_t start, size;
    std::uint32_t checksum;
  };
  void read_directory(std::uint64_t size);
  bool intact(const Entry& entry);

  std::ifstream file_;
  std::map<std::string, Entry> entries_;
};

}  // namespace dcrnn_fast::server
