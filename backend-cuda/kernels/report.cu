// The lengths of an adapter's updates. After a dry run (`words[0]`): the clip that keeps them in
// the trust region. After the step: its report, and the step counter.
//
// Task: an adapter.
#include "block.cuh"

// The factor that keeps updates of these lengths in the trust region of the larger factor.
DEVICE double clip_of(double limit, const double (&update)[2], const double (&factor_square)[2]) {
    bool first = factor_square[0] >= factor_square[1];
    double length = first ? update[0] : update[1];
    double moved = length == 0.0 ? 0.0 : length / sqrt(first ? factor_square[0] : factor_square[1]);
    return limit > 0.0 && moved > limit ? limit / moved : 1.0;
}

KERNEL write_report(const Launch launch) {
    SHARED(double, shared);
    if (!step_is_live(*launch.model)) return;
    Adapter& adapter = launch.model->adapters[launch.tasks[blockIdx.x].item];
    double update[2];
#pragma unroll
    for (int k = 0; k < 2; ++k) {
        double sum = 0.0;
        const Side& side = adapter.side[k];
        for (int c = threadIdx.x; c < side.chunk_count; c += BLOCK) sum += side.squares[c];
        update[k] = sqrt(block_sum(sum, shared));
    }
    if (threadIdx.x != 0) return;
    Report& report = *adapter.report;
    if (launch.words[0] != 0) {
        adapter.step.clip = clip_of(adapter.hyper.update_clip, update, report.factor_square);
        return;
    }
    report.update_norm[0] = update[0];
    report.update_norm[1] = update[1];
    report.clip = adapter.step.clip;
    report.step = *adapter.counter = adapter.step.t;
}
