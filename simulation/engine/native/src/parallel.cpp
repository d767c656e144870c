#include "parallel.hpp"

#ifdef __linux__
#include <pthread.h>
#include <sched.h>
#endif

#include <algorithm>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "pool.hpp"

namespace ps {

// A new thread may wait its turn, a few milliseconds, on the processor of the one that made it, with others idle: it
// is told to run on any but that.
static void elsewhere(std::thread &thread) {
#ifdef __linux__
    cpu_set_t allowed;
    const int here = sched_getcpu();
    if (here < 0 || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    CPU_CLR(here, &allowed);
    if (CPU_COUNT(&allowed) > 0) pthread_setaffinity_np(thread.native_handle(), sizeof allowed, &allowed);
#endif
}

void parallel(int32_t threads, void (*work)(void *, int32_t), void *context) {
    if (threads < 2) return work(context, 0);
    if (pooled(threads, work, context)) return;
    std::vector<std::thread> others;
    try {
        others.reserve(static_cast<size_t>(std::max(threads, 1)));
        for (int32_t worker = 1; worker < threads; ++worker) {
            others.emplace_back(work, context, worker);
            elsewhere(others.back());
        }
    } catch (const std::system_error &) {  // no more threads: the ones there are take all the blocks
    } catch (const std::bad_alloc &) {
    }
    work(context, 0);
    for (auto &other : others) other.join();
}

struct Ordered::Parts {
    double *total;
    size_t size;
    std::mutex guard;
    std::vector<double *> waiting, idle;
    size_t next = 0;
};

Ordered::Ordered(double *total, int64_t size, int64_t blocks) : parts(new (std::nothrow) Parts) {
    if (!parts) return;
    parts->total = total;
    parts->size = static_cast<size_t>(size);
    try {
        parts->waiting.assign(static_cast<size_t>(blocks), nullptr);
        parts->idle.reserve(static_cast<size_t>(blocks));
    } catch (const std::bad_alloc &) {
        delete parts;
        parts = nullptr;
    }
}

Ordered::~Ordered() {
    if (!parts) return;
    for (auto *each : parts->waiting) delete[] each;
    for (auto *each : parts->idle) delete[] each;
    delete parts;
}

double *Ordered::borrow() {
    if (!parts) return nullptr;
    double *found = nullptr;
    {
        const std::lock_guard<std::mutex> held(parts->guard);
        if (!parts->idle.empty()) {
            found = parts->idle.back();
            parts->idle.pop_back();
        }
    }
    if (!found) found = new (std::nothrow) double[parts->size];
    if (found) std::fill_n(found, parts->size, 0.0);
    return found;
}

void Ordered::give(int64_t block, double *sums) {
    const std::lock_guard<std::mutex> held(parts->guard);
    parts->waiting[static_cast<size_t>(block)] = sums;
    for (auto &next = parts->next; next < parts->waiting.size() && parts->waiting[next]; ++next) {
        double *ready = parts->waiting[next];
        for (size_t i = 0; i < parts->size; ++i) parts->total[i] += ready[i];
        parts->waiting[next] = nullptr;
        parts->idle.push_back(ready);
    }
}

}  // namespace ps
