// Counts the wavefronts that a warp's accesses to shared memory take. Shared memory has 32 banks of 4 bytes. Lanes whose words differ but
// lie in the same bank wait for one another. 32 lanes are served together if each accesses 4 bytes or less, 16 of 8 bytes, 8 of 16 bytes:
// these are 1, 2 and 4 wavefronts without a conflict.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <source_location>
#include <string>
#include <vector>

namespace dcrnn_fast::cuda::host {

struct Access {
  const char* file;
  unsigned line, bytes;
  uintptr_t address;
};

// What the accesses at one line of the sources took, and what they would take without conflicts.
struct Wavefronts {
  int64_t accesses = 0, taken = 0, least = 0;
};

// Where launches count, if anywhere. Only the first block of a launch counts.
inline std::map<std::string, Wavefronts>* counted = nullptr;

inline Wavefronts wavefronts(const Access* const (&lanes)[32]) {
  const unsigned bytes = lanes[0]->bytes, together = bytes <= 4 ? 32 : 128 / bytes;
  Wavefronts out{1, 0, 32 / together};
  for (unsigned first = 0; first < 32; first += together) {
    std::set<uintptr_t> words[32];
    for (unsigned lane = first; lane < first + together; ++lane)
      for (unsigned byte = 0; byte < bytes; byte += 4) {
        const uintptr_t word = (lanes[lane]->address + byte) / 4;
        words[word % 32].insert(word);
      }
    size_t most = 0;
    for (const auto& bank : words) most = std::max(most, bank.size());
    out.taken += most;
  }
  return out;
}

// Adds the accesses of a block's threads, each in the order of its thread. Returns whether all lanes of each warp made the same ones.
inline bool count(const std::vector<std::vector<Access>>& threads) {
  for (size_t warp = 0; warp < threads.size(); warp += 32)
    for (size_t i = 0; i < threads[warp].size(); ++i) {
      const Access* lanes[32];
      for (size_t lane = 0; lane < 32; ++lane) {
        const auto& own = threads[warp + lane];
        if (own.size() != threads[warp].size() || own[i].line != threads[warp][i].line) return false;
        lanes[lane] = &own[i];
      }
      const std::string path = lanes[0]->file;
      Wavefronts& sum = (*counted)[path.substr(path.rfind('/') + 1) + ":" + std::to_string(lanes[0]->line)];
      const Wavefronts more = wavefronts(lanes);
      sum.accesses += more.accesses, sum.taken += more.taken, sum.least += more.least;
    }
  return true;
}

}  // namespace dcrnn_fast::cuda::host
