#include "model.h"

#include <fcntl.h>
#include <sys/utsname.h>
#include <torch/version.h>

#include <algorithm>
#include <boost/crc.hpp>
#include <boost/hash2/md5.hpp>
#include <boost/json.hpp>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <string_view>
#include <thread>

#include "../json/json_text.h"

namespace json = boost::json;

namespace dcrnn_fast::server {
namespace {

constexpr int kFormat = 1;

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

// Reads a .pt2 file, a zip archive that compresses nothing: the entries by their names without the archive's root folder, such as
// "extra/encoder.json". It reads one file, even if another one takes its name meanwhile.
class Archive {
 public:
  // Reads every byte and compares it with its checksum: PyTorch's loader does not. Throws ModelError for what is no file, and Damaged.
  explicit Archive(const std::string& path);
  std::string read(const std::string& name) const;
  std::string path() const { return "/proc/self/fd/" + std::to_string(fileno(file_.get())); }

 private:
  struct Entry {
    std::uint64_t start, size;
    std::uint32_t checksum;
  };
  std::string bytes(std::uint64_t start, std::uint64_t size) const;
  void read_directory();
  bool intact(const Entry& entry) const;

  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
  std::map<std::string, Entry> entries_;
};

// A pipe is not waited for.
Archive::Archive(const std::string& path) : file_(fdopen(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK), "rb"), std::fclose) {
  if (!file_) throw ModelError(path + " does not exist or cannot be read; write it with `dcrnn-fast export --format aoti`");
  if (!std::filesystem::is_regular_file(this->path()))
    throw ModelError(path + " is not a regular file; name a file of `dcrnn-fast export --format aoti`");
  read_directory();
  for (const auto& [name, entry] : entries_)
    if (!intact(entry)) throw Damaged("its entry " + name + " does not have its checksum");
}

std::string Archive::read(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) throw std::runtime_error("it has no entry " + name);
  return bytes(found->second.start, found->second.size);
}

std::string Archive::bytes(std::uint64_t start, std::uint64_t size) const {
  std::string bytes(size, '\0');
  if (fseeko(file_.get(), static_cast<off_t>(start), SEEK_SET) != 0 || std::fread(bytes.data(), 1, size, file_.get()) != size)
    throw Damaged("it ends early");
  return bytes;
}

void Archive::read_directory() {
  const std::uint64_t size = std::filesystem::file_size(path());
  const std::uint64_t tail_size = std::min<std::uint64_t>(size, kEndSize + kLongestComment);
  const std::string tail = bytes(size - tail_size, tail_size);
  const std::size_t end = tail.rfind("PK\x05\x06");
  if (end == std::string::npos) throw Damaged("it is not a zip archive");
  const std::uint32_t count = number(tail, end + 10, 2), directory_size = number(tail, end + 12, 4), start = number(tail, end + 16, 4);
  if (start == kElsewhere || std::uint64_t{start} + directory_size > size) throw Damaged("its directory is beyond its first 4 GB");
  const std::string directory = bytes(start, directory_size);
  std::size_t at = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (number(directory, at, 4) != kListed) throw Damaged("its directory is none");
    const std::uint32_t method = number(directory, at + 10, 2), checksum = number(directory, at + 16, 4);
    const std::uint32_t packed = number(directory, at + 20, 4), plain = number(directory, at + 24, 4),
                        header = number(directory, at + 42, 4);
    const std::uint32_t name_size = number(directory, at + 28, 2);
    if (method != 0 || packed != plain || plain == kElsewhere) throw Damaged("an entry is compressed, or larger than 4 GB");
    if (at + kListedSize + name_size > directory.size()) throw Damaged("it ends early");
    const std::string name = directory.substr(at + kListedSize, name_size), local = bytes(header, kEntrySize);
    if (number(local, 0, 4) != kEntry) throw Damaged("an entry is not where its directory says");
    const std::uint64_t begin = std::uint64_t{header} + kEntrySize + number(local, 26, 2) + number(local, 28, 2);
    if (!entries_.emplace(name.substr(name.find('/') + 1), Entry{begin, plain, checksum}).second) throw Damaged("it has an entry twice");
    at += kListedSize + name_size + number(directory, at + 30, 2) + number(directory, at + 32, 2);
  }
}

bool Archive::intact(const Entry& entry) const {
  boost::crc_32_type checksum;
  for (std::uint64_t done = 0; done < entry.size;) {
    const std::string part = bytes(entry.start + done, std::min<std::uint64_t>(entry.size - done, 1 << 20));
    checksum.process_bytes(part.data(), part.size());
    done += part.size();
  }
  return checksum.checksum() == entry.checksum;
}

std::string text_of(const json::object& about, const char* key) { return std::string(about.at(key).as_string()); }

// "2.13" of "2.13.0+cpu".
std::string release(const std::string& version) { return version.substr(0, version.find('.', version.find('.') + 1)); }

std::set<std::string> instruction_sets() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("flags")) {
      std::istringstream words(line.substr(line.find(':') + 1));
      return {std::istream_iterator<std::string>(words), {}};
    }
  return {};
}

void check_cpu(const json::object& cpu, const std::string& wrong) {
  utsname here{};
  uname(&here);
  for (const auto& [key, ours] : {std::pair{"system", here.sysname}, std::pair{"machine", here.machine}})
    if (cpu.at(key).as_string() != ours) throw ModelError(wrong + "its " + key + " is " + shown(cpu.at(key)) + ", and here it is " + ours);
  const std::set<std::string> ours = instruction_sets();
  std::string lacking;
  for (const json::value& needed : cpu.at("instructions").as_array())
    if (!ours.contains(std::string(needed.as_string()))) lacking += (lacking.empty() ? "" : ", ") + std::string(needed.as_string());
  if (!lacking.empty()) throw ModelError(wrong + "this one lacks " + lacking + "; export the run on this machine, or with --cpu portable");
}

// Throws ModelError for another format, PyTorch release, kind of CPU or version of the operators than the package's description `about`
// names. `path` is the package's, for the message.
void check_fit(const json::object& about, const std::string& path) {
  if (about.at("format") != kFormat)
    throw ModelError(path + " has format " + shown(about.at("format")) + ", and this server reads format " + std::to_string(kFormat) +
                     "; build the server of dcrnn_fast " + shown(about.at("dcrnn_fast")) + ", or export the run again with this version");
  if (about.at("kind") != "aoti")
    throw ModelError(path + " is of format " + shown(about.at("kind")) + "; export the run with --format aoti");
  const std::string theirs = text_of(about, "torch"), ours = TORCH_VERSION;
  if (release(theirs) != release(ours))
    throw ModelError(path + " was compiled for PyTorch " + theirs + ", and this server was built with " + ours +
                     "; build the server with that PyTorch, or export the run again with this one");
  check_cpu(about.at("cpu").as_object(), path + " was compiled for another kind of CPU: ");
  for (const auto& [name, schema] : about.at("operators").as_object()) {
    const std::string found = operator_schema(name);
    if (found.empty())
      throw ModelError(path + " calls the operator " + std::string(name) +
                       ", which this server lacks; build it with dcrnn_fast::ops, or export the run with --backend reference");
    if (schema.as_string() != found)
      throw ModelError(path + " was written by dcrnn_fast " + text_of(about, "dcrnn_fast") + ", whose operator " + std::string(name) +
                       " takes other arguments than here; build the server of that version, or export the run again with this one");
  }
}

// PyTorch unpacks the code into the temporary folder; without room, it would blame the file.
void check_room(const Archive& archive, const std::string& path) {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::temp_directory_path(error);
  if (error) throw ModelError("TMPDIR names no folder, into which the code of " + path + " is unpacked: " + error.message());
  const std::uintmax_t room = std::filesystem::space(folder, error).available, size = std::filesystem::file_size(archive.path(), error);
  if (error || room >= size) return;
  throw ModelError("there is no room for the code of " + path + " in the temporary folder " + folder.string() + ": it takes " +
                   std::to_string(size) + " bytes; make room, or name another folder by TMPDIR");
}

std::unique_ptr<const Model> load(const std::string& path, std::size_t threads) {
  try {
    const Archive archive(path);
    const std::string encoder = archive.read("extra/encoder.json");
    const json::value about_value = parse_json(archive.read("extra/dcrnn_fast.json")), encoding = parse_json(encoder);
    const json::object& about = about_value.as_object();
    check_fit(about, path);
    check_room(archive, path);
    boost::hash2::md5_128 digest;
    digest.update(encoder.data(), encoder.size());
    if (text_of(about, "encoder_md5") != to_string(digest.result())) throw std::runtime_error("its encoder is another model's");
    const auto names = json::value_to<std::vector<std::string>>(about.at("names"));
    const std::size_t fields = about.at("fields").as_array().size(), dense = about.at("dense").as_array().size();
    auto model = std::make_unique<Model>(Model{.id = text_of(about, "model").substr(0, 12),
                                               .written_by = text_of(about, "dcrnn_fast"),
                                               .torch = text_of(about, "torch"),
                                               .names = names,
                                               .tasks = json::value_to<std::vector<std::string>>(about.at("tasks")),
                                               .encoder = Encoder(encoding.as_object(), about),
                                               .unseen = std::make_unique<Unseen>(about),
                                               .engine = load_engine({archive.path(), names, fields, dense, threads})});
    for (const float score : model->engine->run(std::vector<std::int64_t>(fields), std::vector<float>(dense), 1))
      if (!std::isfinite(score)) throw std::runtime_error("it gives a score that is not a number");
    return model;
  } catch (const ModelError&) {
    throw;
  } catch (const Damaged& error) {
    throw ModelError(path + " is damaged, or no file of `dcrnn-fast export`: " + error.what() + "; export the run again");
  } catch (const std::exception& error) {
    const std::string_view said = error.what();
    throw ModelError(path + " is not a file of `dcrnn-fast export`, or was changed after it was written (" +
                     std::string(said.substr(0, std::min<std::size_t>(said.find('\n'), 300))) + "); export the run again");
  }
}

}  // namespace

// The thread that loads a model and the one that deletes it end at once, so that the system can unload the model's code: see Batcher::work.
std::shared_ptr<const Model> load_model(const std::string& path, std::size_t threads) {
  std::unique_ptr<const Model> model = std::async(std::launch::async, load, path, threads).get();
  return {model.release(), [](const Model* old) { std::thread([old] { delete old; }).join(); }};
}

}  // namespace dcrnn_fast::server
