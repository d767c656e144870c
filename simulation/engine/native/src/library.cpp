// The library's door: what ctypes calls, and which instruction set answers.
#include <algorithm>
#include <chrono>
#include <vector>

#include "dispatch.hpp"

#define PS_EXPORT __attribute__((visibility("default")))

namespace {

bool runs(int32_t isa) {
#if PS_X86
    __builtin_cpu_init();
    if (isa == 2)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && runs(1);
    if (isa == 1) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return isa == 0;
}

const ps::Kernels *kernels_of(int32_t isa) {
    if (isa < 0) isa = ps_isa();
    if (isa > 2 || !runs(isa)) return nullptr;
    return isa == 2 ? ps::avx512() : isa == 1 ? ps::avx2() : ps::baseline();
}

struct Peak {
    const ps::Kernels *kernels;
    double seconds;
    std::vector<double> rates;
};

void measure(void *context, int32_t worker) {
    auto &peak = *static_cast<Peak *>(context);
    using clock = std::chrono::steady_clock;
    volatile float kept = 0;
    double done = 0, spent = 0;
    const auto from = clock::now();
    do {
        float sink = 0;
        done += peak.kernels->fma(1 << 14, &sink);
        kept = kept + sink;
        spent = std::chrono::duration<double>(clock::now() - from).count();
    } while (spent < peak.seconds);
    peak.rates[static_cast<size_t>(worker)] = done / spent * 1e-9;
}

}  // namespace

extern "C" {

PS_EXPORT int32_t ps_abi(void) { return POCKETSCORE_ABI; }

PS_EXPORT int64_t ps_size(int32_t part) {
    const int64_t sizes[] = {sizeof(ps_phones), sizeof(ps_local), sizeof(ps_answer), sizeof(ps_mlp), sizeof(ps_additive)};
    return part < 0 || part > 4 ? -1 : sizes[part];
}

PS_EXPORT int32_t ps_isa(void) {
    for (int32_t isa = 2; isa > 0; --isa)
        if (runs(isa) && (isa == 2 ? ps::avx512() : ps::avx2())) return isa;
    return 0;
}

PS_EXPORT int32_t ps_mlp_round(const ps_phones *phones, const ps_local *local, const ps_mlp *model, ps_answer *answer,
                               int32_t threads, int32_t isa) {
    const auto *kernels = kernels_of(isa);
    return kernels ? kernels->mlp(phones, local, model, answer, threads) : 2;
}

PS_EXPORT int32_t ps_additive_round(const ps_phones *phones, const ps_local *local, const ps_additive *model,
                                    ps_answer *answer, int32_t threads, int32_t isa) {
    const auto *kernels = kernels_of(isa);
    return kernels ? kernels->additive(phones, local, model, answer, threads) : 2;
}

PS_EXPORT double ps_fma_peak(int32_t threads, double seconds, int32_t isa) {
    const auto *kernels = kernels_of(isa);
    if (!kernels || threads < 1 || threads > 1024) return 0;
    Peak peak{kernels, seconds, std::vector<double>(static_cast<size_t>(threads), 0.0)};
    ps::parallel(threads, measure, &peak);
    double total = 0;
    for (const double rate : peak.rates) total += rate;
    return total;
}
}
