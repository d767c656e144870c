// The kernels of one instruction set: the same source in a namespace of its own, so that no two mix when linked.
// Included by kernels_*.cpp after the standard headers, PS_NAMESPACE and PS_LANES being set. Nothing from the standard
// library that is a template may be used in here: the linker keeps one copy, perhaps the one for a newer processor.
namespace PS_NAMESPACE {
#include "vector.hpp"
#include "hash.hpp"
#include "encode.hpp"
#include "rounds.hpp"
#include "additive.hpp"
#include "mlp.hpp"
#include "peak.hpp"

static const ps::Kernels kernels = {mlp_round, additive_round, fma_block};
}  // namespace PS_NAMESPACE
