// Kernels for any processor the compiler aims at, four lanes.
#include "dispatch.hpp"

#define PS_NAMESPACE ps_baseline
#define PS_LANES 4
#include "kernels.hpp"

const ps::Kernels *ps::baseline() { return &ps_baseline::kernels; }
