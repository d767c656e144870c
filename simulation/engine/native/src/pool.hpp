// Threads kept from call to call: see pool.cpp.
#pragma once
#include <cstdint>

namespace ps {

// As `parallel`, by the threads kept; false where another call has them or there is no memory: nothing was run.
bool pooled(int32_t threads, void (*work)(void *context, int32_t worker), void *context);

}  // namespace ps
