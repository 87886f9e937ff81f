// How the drivers run work on somebody else's threads, and where they take scratch memory from.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace sparsepack {

// Runs body(user, i) for i in [0, count), in any order, on any threads, and returns when all are done.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual void run(void (*body)(void* user, size_t index), size_t count, void* user) = 0;
};

class SerialExecutor final : public Executor {
 public:
  void run(void (*body)(void*, size_t), size_t count, void* user) override {
    for (size_t i = 0; i < count; ++i) body(user, i);
  }
};

// The jobs [begin, end) of one thread, which takes them from the front; others help from the back.
class Share {
 public:
  void fill(size_t begin, size_t end) { range_ = begin << 32 | end; }
  bool own() { return !owned_.exchange(true, std::memory_order_relaxed); }
  bool take(bool front, size_t& job) {
    uint64_t range = range_.load(std::memory_order_relaxed);
    while (range >> 32 < (range & UINT32_MAX)) {
      const uint64_t rest = front ? range + (uint64_t{1} << 32) : range - 1;
      if (!range_.compare_exchange_weak(range, rest, std::memory_order_relaxed)) continue;
      job = front ? range >> 32 : rest & UINT32_MAX;
      return true;
    }
    return false;
  }

 private:
  alignas(64) std::atomic<uint64_t> range_{0};
  std::atomic<bool> owned_{false};
};

// Runs jobs 0 to count - 1 (fewer than 2^32). Each thread makes itself a worker, a callable with what it
// needs of its own, and gives it one job after the other.
//
// Neighbouring jobs stay with one thread, and the same ones from layer to layer, because memory that two
// caches hold is slow to write: a line takes as long as a way to the other cache and back, whatever was
// asked for ahead. Rows are uneven and threads get interrupted, so whoever is done helps the others.
// Returns how many threads took part.
template <class Make>
size_t for_each_job(Executor& executor, size_t count, size_t threads, const Make& make) {
  constexpr size_t kMost = 64;
  if (count == 0) return 0;
  if (count == 1) return make()(0), 1;
  struct Shared {
    std::array<Share, kMost> shares;
    size_t share_count, claims;
    const Make* make;
    std::atomic<size_t> threads{0};
    std::atomic<bool> failed{false};

    bool next(size_t first, bool own, size_t& job) {
      if (shares[first].take(own, job)) return true;
      for (size_t i = 1; i < share_count; ++i) {
        if (shares[(first + i) % share_count].take(false, job)) return true;
      }
      return false;
    }
  } shared;
  // The executor sees only as many claims as threads could serve.
  shared.claims = std::min(count, kMost);
  shared.share_count = std::clamp<size_t>(threads, 1, shared.claims);
  shared.make = &make;
  for (size_t i = 0; i < shared.share_count; ++i) {
    shared.shares[i].fill(count * i / shared.share_count, count * (i + 1) / shared.share_count);
  }
  auto claim = [](void* user, size_t index) {
    auto& s = *static_cast<Shared*>(user);
    // Executors give a thread neighbouring claims, so that their number says where it belongs.
    size_t first = index * s.share_count / s.claims;
    bool own = false;
    for (size_t i = 0; i < s.share_count && !own; ++i) {
      const size_t free = (first + i) % s.share_count;
      if ((own = s.shares[free].own())) first = free;
    }
    size_t job;
    if (!s.next(first, own, job)) return;
    ++s.threads;  // a thread works until nothing is left, so each counts once
    try {
      auto worker = (*s.make)();
      do worker(job);
      while (s.next(first, own, job));
    } catch (...) {  // only scratch memory can fail; nothing may unwind through a foreign pool
      s.failed = true;
    }
  };
  executor.run(claim, shared.claims, &shared);
  if (shared.failed) throw std::bad_alloc();
  return shared.threads;
}

// How finely to cut work. Nobody tells an operator how many threads it has, and a cut that a single
// thread does not need costs it a few percent, so the layer watches how many took part so far. Only
// time depends on this, never a result.
class Crew {
 public:
  size_t threads() const { return most_.load(std::memory_order_relaxed); }
  size_t enough_jobs() {
    constexpr unsigned kWatched = 4, kEvery = 32;
    constexpr size_t kUnknown = 16, kPerThread = 4;
    // So many that further threads would be seen as well.
    if (threads() > 1) return kPerThread * threads();
    return runs_.fetch_add(1, std::memory_order_relaxed) % kEvery < kWatched ? kUnknown : 1;
  }
  void saw(size_t threads) {
    size_t most = most_.load(std::memory_order_relaxed);
    while (threads > most && !most_.compare_exchange_weak(most, threads, std::memory_order_relaxed)) {
    }
  }

 private:
  std::atomic<unsigned> runs_{0};
  std::atomic<size_t> most_{1};
};

// Page-sized alignment keeps tiles aligned for every vector width and off shared cache lines.
class Buffer {
 public:
  void reserve(size_t bytes) {
    if (bytes <= size_) return;
    const size_t rounded = (bytes + kAlign - 1) / kAlign * kAlign;
    void* fresh = std::aligned_alloc(kAlign, rounded);
    if (!fresh) throw std::bad_alloc();
    data_.reset(fresh);
    size_ = rounded;
  }
  float* floats() { return static_cast<float*>(data_.get()); }

  std::thread::id last_user;

 private:
  static constexpr size_t kAlign = 4096;
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> data_;
  size_t size_ = 0;
};

// One pool for the whole library: as many buffers exist as were ever in use at once. A thread gets back
// the buffer that it had, as long as nobody else needed it.
class Scratch {
 public:
  explicit Scratch(size_t bytes) {
    {
      std::lock_guard<std::mutex> lock(mutex());
      auto found = std::find_if(pool().begin(), pool().end(), [](const auto& buffer) {
        return buffer->last_user == std::this_thread::get_id();
      });
      if (found == pool().end() && !pool().empty()) --found;
      if (found != pool().end()) {
        buffer_ = std::move(*found);
        pool().erase(found);
      }
    }
    if (!buffer_) buffer_ = std::make_unique<Buffer>();
    buffer_->last_user = std::this_thread::get_id();
    buffer_->reserve(bytes);
  }
  ~Scratch() {
    std::lock_guard<std::mutex> lock(mutex());
    pool().push_back(std::move(buffer_));
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* floats() { return buffer_->floats(); }

 private:
  static std::mutex& mutex() {
    // Never destroyed: a runtime's threads may outlive this library's static objects.
    static auto* m = new std::mutex;
    return *m;
  }
  static std::vector<std::unique_ptr<Buffer>>& pool() {
    static auto* p = new std::vector<std::unique_ptr<Buffer>>;
    return *p;
  }
  std::unique_ptr<Buffer> buffer_;
};

}  // namespace sparsepack
