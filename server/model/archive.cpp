#include "archive.h"

#include <algorithm>
#include <boost/crc.hpp>
#include <stdexcept>
#include <vector>

#include "model.h"

namespace dcrnn_fast::server {
namespace {

struct Damaged : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The zip format: little-endian numbers, a directory of all entries at the end, and after it a record that says where the directory begins.
constexpr std::uint32_t kListed = 0x02014b50, kEntry = 0x04034b50, kElsewhere = 0xffffffff;
constexpr std::size_t kEndSize = 22, kListedSize = 46, kEntrySize = 30, kLongestComment = 0xffff;

std::uint32_t number(const std::string& bytes, std::size_t at, std::size_t size) {
  if (at + size > bytes.size()) throw Damaged("it ends early");
  std::uint32_t value = 0;
  for (std::size_t i = size; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

std::string bytes_of(std::ifstream& file, std::uint64_t start, std::uint64_t size) {
  std::string bytes(size, '\0');
  file.clear();
  file.seekg(static_cast<std::streamoff>(start));
  if (!file.read(bytes.data(), static_cast<std::streamsize>(size))) throw Damaged("it ends early");
  return bytes;
}

}  // namespace

Archive::Archive(const std::string& path, const std::string& shown) : file_(path, std::ios::binary | std::ios::ate) {
  if (!file_) throw ModelError(shown + " cannot be read; write it with `dcrnn-fast export --format aoti`");
  try {
    read_directory(static_cast<std::uint64_t>(file_.tellg()));
    for (const auto& [name, entry] : entries_)
      if (!intact(entry)) throw Damaged("its entry " + name + " does not have its checksum");
  } catch (const Damaged& error) {
    throw ModelError(shown + " is damaged, or no file of `dcrnn-fast export`: " + error.what() + "; export the run again");
  }
}

std::string Archive::read(const std::string& name) {
  const Entry& entry = entries_.at(name);
  return bytes_of(file_, entry.start, entry.size);
}

void Archive::read_directory(std::uint64_t size) {
  const std::uint64_t tail_size = std::min<std::uint64_t>(size, kEndSize + kLongestComment);
  const std::string tail = bytes_of(file_, size - tail_size, tail_size);
  const std::size_t end = tail.rfind("PK\x05\x06");
  if (end == std::string::npos) throw Damaged("it is no zip archive");
  const std::uint32_t count = number(tail, end + 10, 2), directory_size = number(tail, end + 12, 4), start = number(tail, end + 16, 4);
  if (start == kElsewhere || std::uint64_t{start} + directory_size > size) throw Damaged("its directory is beyond its first 4 GB");
  const std::string directory = bytes_of(file_, start, directory_size);
  std::size_t at = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (number(directory, at, 4) != kListed) throw Damaged("its directory is none");
    const std::uint32_t method = number(directory, at + 10, 2), checksum = number(directory, at + 16, 4);
    const std::uint32_t packed = number(directory, at + 20, 4), plain = number(directory, at + 24, 4),
                        header = number(directory, at + 42, 4);
    const std::uint32_t name_size = number(directory, at + 28, 2);
    if (method != 0 || packed != plain || plain == kElsewhere) throw Damaged("an entry is compressed, or larger than 4 GB");
    if (at + kListedSize + name_size > directory.size()) throw Damaged("it ends early");
    const std::string name = directory.substr(at + kListedSize, name_size), local = bytes_of(file_, header, kEntrySize);
    if (number(local, 0, 4) != kEntry) throw Damaged("an entry is not where its directory says");
    const std::uint64_t begin = std::uint64_t{header} + kEntrySize + number(local, 26, 2) + number(local, 28, 2);
    if (!entries_.emplace(name.substr(name.find('/') + 1), Entry{begin, plain, checksum}).second) throw Damaged("it has an entry twice");
    at += kListedSize + name_size + number(directory, at + 30, 2) + number(directory, at + 32, 2);
  }
}

bool Archive::intact(const Entry& entry) {
  boost::crc_32_type checksum;
  for (std::uint64_t done = 0; done < entry.size;) {
    const std::string part = bytes_of(file_, entry.start + done, std::min<std::uint64_t>(entry.size - done, 1 << 20));
    checksum.process_bytes(part.data(), part.size());
    done += part.size();
  }
  return checksum.checksum() == entry.checksum;
}

}  // namespace dcrnn_fast::server
