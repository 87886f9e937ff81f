// The fastest round trip of a flag between two cores, in nanoseconds, and how fast a thread writes over memory that
// both cores' caches hold, in GB/s: each thread pinned to a core of its own. Linux.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <sched.h>
#include <thread>
#include <vector>

namespace {

constexpr int kTrips = 20000, kRounds = 100;
constexpr size_t kFloats = 32 * 1024, kLine = 16;  // 128 KiB: what the second-level cache holds

double now() { return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Takes the given one of the cores that this process may use.
bool pin(int wanted) {
  cpu_set_t allowed, one;
  sched_getaffinity(0, sizeof allowed, &allowed);
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &allowed) || wanted--) continue;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    return sched_setaffinity(0, sizeof one, &one) == 0;
  }
  return false;
}

alignas(64) std::atomic<int> turn{0};

void await(int value) {
  while (turn.load(std::memory_order_acquire) != value) {
  }
}

}  // namespace

int main() {
  std::vector<float> shared(kFloats);
  std::atomic<bool> pinned{true};
  double trip = 1e9, write = 1e9;
  std::thread other([&] {
    if (!pin(1)) pinned = false;
    for (int i = 0; i < kTrips; ++i) await(2 * i + 1), turn.store(2 * i + 2, std::memory_order_release);
    volatile float sink = 0;
    for (int i = kTrips; i < kTrips + kRounds; ++i) {
      await(2 * i + 1);
      for (size_t at = 0; at < kFloats; at += kLine) sink = shared[at];
      turn.store(2 * i + 2, std::memory_order_release);
    }
    (void)sink;
  });
  // After the other one began: it would inherit the core.
  if (!pin(0)) pinned = false;
  for (int i = 0; i < kTrips; ++i) {
    const double begin = now();
    turn.store(2 * i + 1, std::memory_order_release);
    await(2 * i + 2);
    trip = std::min(trip, now() - begin);
  }
  for (int i = kTrips; i < kTrips + kRounds; ++i) {
    turn.store(2 * i + 1, std::memory_order_release);
    await(2 * i + 2);
    const double begin = now();
    std::fill(shared.begin(), shared.end(), static_cast<float>(i));
    write = std::min(write, now() - begin);
  }
  other.join();
  if (!pinned) return 1;
  std::printf("{\"round_trip_ns\": %.0f, \"shared_write_gb_s\": %.1f}\n", trip, kFloats * sizeof(float) / write);
}
