// Where the fields of all structures lie, for the test that compares them with the host's mirrors
// (src/model.rs).
#include "model.cuh"
#include "platform.cuh"

// Of a structure that began at `base`. The run-time compiler has no `offsetof`.
#define AT(S, field) \
    (reinterpret_cast<const char*>(&reinterpret_cast<const S*>(base)->field) - base)

// How many numbers follow, then the numbers.
template <class... All> DEVICE void write_all(u32* out, All... all) {
    *out = sizeof...(All);
    ((*++out = u32(all)), ...);
}

// To the address `words[0]`: of each structure of model.cuh its size, then its fields' offsets, in
// their order. One block; no tasks.
KERNEL layout(const Launch launch) {
    if (threadIdx.x != 0) return;
    u32* out = reinterpret_cast<u32*>(launch.words[0]);
    const char* base = reinterpret_cast<const char*>(out);
    write_all(
        out,
        sizeof(View), AT(View, at), AT(View, row), AT(View, col), AT(View, dtype), AT(View, contiguity),
        sizeof(Hyper), AT(Hyper, lr), AT(Hyper, lr_ratio), AT(Hyper, beta1), AT(Hyper, beta2),
        AT(Hyper, eps), AT(Hyper, weight_decay), AT(Hyper, momentum), AT(Hyper, damping),
        AT(Hyper, update_clip), AT(Hyper, method), AT(Hyper, x), AT(Hyper, damping_kind),
        AT(Hyper, maximize), AT(Hyper, stochastic), AT(Hyper, in_f64),
        sizeof(Side), AT(Side, f), AT(Side, g), AT(Side, first), AT(Side, second), AT(Side, largest),
        AT(Side, master), AT(Side, old), AT(Side, updated), AT(Side, weights), AT(Side, panel),
        AT(Side, parts), AT(Side, gradient), AT(Side, products), AT(Side, squares), AT(Side, backup),
        AT(Side, len), AT(Side, ld), AT(Side, chunk), AT(Side, chunk_count), AT(Side, part_count),
        AT(Side, pad),
        sizeof(Step), AT(Step, gamma), AT(Step, lr), AT(Step, decay), AT(Step, base_decay),
        AT(Step, c1), AT(Step, c2), AT(Step, k), AT(Step, eps), AT(Step, clip), AT(Step, t),
        sizeof(Report), AT(Report, factor_square), AT(Report, gradient_square), AT(Report, update_norm),
        AT(Report, equivalent_norm), AT(Report, clip), AT(Report, step), AT(Report, rejected),
        AT(Report, pad),
        sizeof(Adapter), AT(Adapter, side), AT(Adapter, hyper), AT(Adapter, step), AT(Adapter, s),
        AT(Adapter, base), AT(Adapter, wide), AT(Adapter, scales), AT(Adapter, rank_matrices),
        AT(Adapter, coefficients), AT(Adapter, report), AT(Adapter, counter), AT(Adapter, r),
        AT(Adapter, width), AT(Adapter, wide_ld), AT(Adapter, wide_dtype), AT(Adapter, wide_rows),
        AT(Adapter, name),
        sizeof(Param), AT(Param, value), AT(Param, grad), AT(Param, hyper), AT(Param, first),
        AT(Param, second), AT(Param, largest), AT(Param, master), AT(Param, squares), AT(Param, backup),
        AT(Param, report), AT(Param, counter), AT(Param, rows), AT(Param, cols), AT(Param, ld),
        AT(Param, chunk_count), AT(Param, name),
        sizeof(Control), AT(Control, lr_factor), AT(Control, grad_scale), AT(Control, max_grad_norm),
        AT(Control, allow_overflow), AT(Control, pad),
        sizeof(Status), AT(Status, grad_norm), AT(Status, grad_clip), AT(Status, rejected),
        AT(Status, unreported), AT(Status, unreported_steps), AT(Status, pad),
        sizeof(Model), AT(Model, adapters), AT(Model, params), AT(Model, control), AT(Model, status),
        AT(Model, adapter_count), AT(Model, param_count),
        sizeof(Task), AT(Task, item), AT(Task, side), AT(Task, chunk), AT(Task, other),
        sizeof(Launch), AT(Launch, model), AT(Launch, tasks), AT(Launch, numbers), AT(Launch, words));
}
