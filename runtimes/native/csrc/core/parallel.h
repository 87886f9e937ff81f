// How the drivers run work on somebody else's threads, and where they take scratch memory from.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
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

// Jobs are claimed from a shared counter: rows are uneven and threads get interrupted, so a fixed
// split would wait for the slowest. The executor sees only as many claimants as threads could serve.
// Returns how many threads took part.
template <class Job>
size_t for_each_job(Executor& executor, size_t count, const Job& job) {
  constexpr size_t kMaxThreads = 64;
  if (count == 0) return 0;
  if (count == 1) return job(0), 1;
  struct Shared {
    std::atomic<size_t> next{0};
    size_t count;
    const Job* job;
    std::atomic<size_t> threads{0};
    std::atomic<bool> failed{false};
  } shared;
  shared.count = count;
  shared.job = &job;
  auto claim = [](void* user, size_t) {
    auto& s = *static_cast<Shared*>(user);
    try {
      // A thread works until nothing is left, so each counts once.
      size_t i = s.next.fetch_add(1, std::memory_order_relaxed);
      if (i < s.count) ++s.threads;
      for (; i < s.count; i = s.next.fetch_add(1, std::memory_order_relaxed)) (*s.job)(i);
    } catch (...) {  // only scratch memory can fail; nothing may unwind through a foreign pool
      s.failed = true;
    }
  };
  executor.run(claim, count < kMaxThreads ? count : kMaxThreads, &shared);
  if (shared.failed) throw std::bad_alloc();
  return shared.threads;
}

// How finely to cut work. Nobody tells an operator how many threads it has, and a cut that a single
// thread does not need costs it a few percent, so the layer watches how many took part so far. Only
// time depends on this, never a result.
class Crew {
 public:
  size_t enough_jobs() {
    constexpr unsigned kWatched = 4, kEvery = 32;
    constexpr size_t kUnknown = 16, kPerThread = 4;
    const unsigned run = runs_.fetch_add(1, std::memory_order_relaxed);
    if (run % kEvery < kWatched) return kUnknown;
    const size_t threads = most_.load(std::memory_order_relaxed);
    return threads <= 1 ? 1 : kPerThread * threads;
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

 private:
  static constexpr size_t kAlign = 4096;
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> data_;
  size_t size_ = 0;
};

// One pool for the whole library: as many buffers exist as were ever in use at once.
class Scratch {
 public:
  explicit Scratch(size_t bytes) {
    {
      std::lock_guard<std::mutex> lock(mutex());
      if (!pool().empty()) {
        buffer_ = std::move(pool().back());
        pool().pop_back();
      }
    }
    if (!buffer_) buffer_ = std::make_unique<Buffer>();
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
