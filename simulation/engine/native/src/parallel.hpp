// Threads of one call, and block sums added in block order. Compiled once, for any processor: see parallel.cpp.
#pragma once
#include <cstdint>

namespace ps {

// Runs work(context, worker) for worker 0 .. threads-1, the first on the calling thread; fewer where no thread is given.
void parallel(int32_t threads, void (*work)(void *context, int32_t worker), void *context);

// A vector of `size` sums over blocks, each block's sum added in the order of blocks whichever is done first.
class Ordered {
  public:
    Ordered(double *total, int64_t size, int64_t blocks);
    ~Ordered();
    Ordered(const Ordered &) = delete;
    Ordered &operator=(const Ordered &) = delete;
    double *borrow();                        // zeros, for one block; null where memory is short
    void give(int64_t block, double *sums);  // takes back what was borrowed

  private:
    struct Parts;
    Parts *parts;
};

}  // namespace ps
