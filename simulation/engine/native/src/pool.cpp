// Threads that stay for the next call. One started anew begins up to half a millisecond late, half as long as a round
// of a hundred phones takes.
//
// They are nobody's: never joined, their memory never freed, so that a process may end at any time. A forked child has
// none of its parent's threads and forgets them; it makes its own. One call has them at a time.
#include "pool.hpp"

#include <pthread.h>
#include <signal.h>
#ifdef __linux__
#include <sched.h>
#endif

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

namespace ps {
namespace {

enum { MOST_WORKERS = 64, GLANCES = 64 };
// Who waits looks for so long before it sleeps. Others' threads need the processors, torch's above all.
constexpr std::chrono::microseconds PATIENCE{50};

inline void pause_a_moment() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

// A number that rises, and somebody who waits until it has reached one.
struct alignas(128) Bell {
    std::atomic<uint64_t> count{0};
    std::mutex guard;
    std::condition_variable sleepers;

    void ring() {
        {
            const std::lock_guard<std::mutex> held(guard);  // or a sleeper could miss it between its look and its sleep
            count.fetch_add(1, std::memory_order_release);
        }
        sleepers.notify_one();
    }
    bool reached(uint64_t wanted) const { return count.load(std::memory_order_acquire) >= wanted; }
    void wait(uint64_t wanted) {
        const auto until = std::chrono::steady_clock::now() + PATIENCE;
        do {
            for (int i = 0; i < GLANCES; ++i) {
                if (reached(wanted)) return;
                pause_a_moment();
            }
        } while (std::chrono::steady_clock::now() < until);
        std::unique_lock<std::mutex> held(guard);
        sleepers.wait(held, [&] { return reached(wanted); });
    }
};

struct Worker {
    Bell start;
    pthread_t thread;
    int32_t number;
    struct Pool *pool;
};

struct Pool {
    Bell done;
    std::atomic<bool> taken{false};
    uint64_t finished = 0;  // of all calls so far
    void (*work)(void *, int32_t) = nullptr;
    void *context = nullptr;
    int32_t count = 0;
#ifdef __linux__
    cpu_set_t places = {};  // where its threads may run
#endif
    Worker workers[MOST_WORKERS];
};

std::atomic<Pool *> the_pool{nullptr};

void forget() { the_pool.store(nullptr, std::memory_order_relaxed); }

void serve(Worker *me) {
    for (uint64_t turn = 1;; ++turn) {
        me->start.wait(turn);
        me->pool->work(me->pool->context, me->number);
        me->pool->done.ring();
    }
}

// The process's pool, or null: no memory, or another call has it.
Pool *take() {
    Pool *pool = the_pool.load(std::memory_order_acquire);
    if (!pool) {
        static const int once = pthread_atfork(nullptr, nullptr, forget);
        Pool *fresh = once == 0 ? new (std::nothrow) Pool : nullptr;
        if (!fresh || the_pool.compare_exchange_strong(pool, fresh))
            pool = fresh;
        else
            delete fresh;
    }
    return pool && !pool->taken.exchange(true, std::memory_order_acquire) ? pool : nullptr;
}

// One more thread. It takes no signals: they are for the program's own threads.
bool grow(Pool *pool) {
    Worker *worker = &pool->workers[pool->count];
    worker->number = pool->count + 1, worker->pool = pool;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool made = true;
    try {
        std::thread thread(serve, worker);
        worker->thread = thread.native_handle();
        thread.detach();
    } catch (const std::system_error &) {
        made = false;
    } catch (const std::bad_alloc &) {
        made = false;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pool->count += made;
    return made;
}

// A thread woken may wait its turn, a few milliseconds, on the processor of the one that woke it, with others idle: it
// is told to run on any but that. Threads from `first` on are new.
void keep_away(Pool *pool, int32_t first) {
#ifdef __linux__
    const int here = sched_getcpu();
    cpu_set_t wanted;
    if (here < 0 || sched_getaffinity(0, sizeof wanted, &wanted) != 0) return;
    if (CPU_COUNT(&wanted) > 1) CPU_CLR(here, &wanted);
    if (!CPU_EQUAL(&wanted, &pool->places)) first = 0;
    pool->places = wanted;
    for (int32_t i = first; i < pool->count; ++i)
        pthread_setaffinity_np(pool->workers[i].thread, sizeof wanted, &wanted);
#endif
}

}  // namespace

bool pooled(int32_t threads, void (*work)(void *, int32_t), void *context) {
    Pool *pool = take();
    if (!pool) return false;
    const int32_t before = pool->count, wanted = threads - 1 < MOST_WORKERS ? threads - 1 : MOST_WORKERS;
    while (pool->count < wanted && grow(pool)) {
    }
    keep_away(pool, before);
    const int32_t woken = pool->count < wanted ? pool->count : wanted;
    pool->work = work, pool->context = context;
    for (int32_t i = 0; i < woken; ++i) pool->workers[i].start.ring();
    work(context, 0);
    pool->finished += static_cast<uint64_t>(woken);
    pool->done.wait(pool->finished);
    pool->taken.store(false, std::memory_order_release);
    return true;
}

}  // namespace ps
