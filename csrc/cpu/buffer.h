// Uninitialised scratch memory, aligned to a cache line and kept for the next call. Fresh memory comes from the system zeroed, page by
// page; for small batches that took as long as the matrix products.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace dcrnn_fast::cpu {

// malloc keeps no large blocks for reuse. The system hands them out page by page while the passes write to them: 12000 page faults for 50
// MB of activations. Pages of 2 MiB, where the system grants them on request, avoid most of these.
inline void ask_for_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] size_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t page = 2 << 20, fresh = 32 << 20;
  const uintptr_t start = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = (start + page - 1) / page * page, end = (start + bytes) / page * page;
  if (bytes >= fresh && begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// The blocks that no call uses now, at most `limit` bytes in the whole process. No thread waits for the lock, since a forked child may find
// it locked forever: a thread that does not get the lock takes memory from the system, which is not kept. Kept, one block for each call
// that did not get the lock would add up to the limit.
class Pool {
 public:
  static Pool& instance() {
    static Pool* const pool = new Pool;  // never destroyed: a thread may outlive static objects
    return *pool;
  }

  // A block, and its size; 0 if it is not to be kept.
  std::pair<void*, size_t> take(size_t bytes) {
    size_t size = 0;
    if (const std::unique_lock lock(mutex_, std::try_to_lock); lock) {
      const auto block = free_.lower_bound(bytes);
      if (block != free_.end() && block->first <= 2 * bytes) {
        const std::pair<void*, size_t> taken{block->second, block->first};
        kept_ -= block->first;
        free_.erase(block);
        return taken;
      }
      size = bytes;
    }
    try {
      void* const data = ::operator new(bytes, alignment);  // no more than asked for: AddressSanitizer then sees an overrun of one byte
      ask_for_huge_pages(data, bytes);
      return {data, size};
    } catch (const std::bad_alloc&) {
      throw std::runtime_error("dcrnn_fast: scratch memory of " + std::to_string(bytes) + " bytes could not be allocated");
    }
  }

  void give(void* data, size_t bytes) {
#if !defined(__SANITIZE_ADDRESS__)  // it must see that the block is no longer in use
    if (const std::unique_lock lock(mutex_, std::try_to_lock); lock && bytes > 0 && kept_ + bytes <= limit) {
      free_.emplace(bytes, data);
      kept_ += bytes;
      return;
    }
#endif
    ::operator delete(data, alignment);
  }

 private:
  static constexpr size_t limit = 32 << 20;
  static constexpr std::align_val_t alignment{64};
  std::mutex mutex_;
  std::multimap<size_t, void*> free_;
  size_t kept_ = 0;
};

template <typename T>
class Buffer {
 public:
  explicit Buffer(int64_t count = 0) {
    if (count > 0) block_ = Pool::instance().take(count * sizeof(T));
  }
  Buffer(Buffer&& other) noexcept : block_(std::exchange(other.block_, {})) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~Buffer() {
    if (block_.first) Pool::instance().give(block_.first, block_.second);
  }

  T* get() const { return static_cast<T*>(block_.first); }

 private:
  std::pair<void*, size_t> block_{};
};

}  // namespace dcrnn_fast::cpu
