// Unpaired parameters: ordinary AdamW.
//
// Task of each, where it says no other: a parameter, a chunk of its entries.
#include "adam.cuh"
#include "block.cuh"

// An entry in memory: its place in a view, row by row.
DEVICE i64 place_in(const View& view, i64 entry, i64 cols) {
    return entry / cols * view.row + entry % cols * view.col;
}

// The same in state, whose rows are padded.
DEVICE i64 place_in(const Param& param, i64 entry) {
    return entry / param.cols * param.ld + entry % param.cols;
}

template <class T> DEVICE T value_at(const Param& param, i64 entry) {
    T x = load<T>(param.value.at, place_in(param.value, entry, param.cols), param.value.dtype);
    if (param.master == nullptr) return x;
    return prefer_master(x, param.master[place_in(param, entry)], param.value.dtype);
}

// Squares of the value and of the gradient, before anything is written.
template <class T> DEVICE void square_param(const Launch& launch) {
    SHARED(double, shared);
    Task task = launch.tasks[blockIdx.x];
    const Param& param = launch.model->params[task.item];
    i64 count = param.rows * param.cols, start = i64(task.chunk) * CHUNK_ENTRIES;
    double squares[2] = {0.0, 0.0};
    for (i64 entry = start + threadIdx.x; entry < min(count, start + CHUNK_ENTRIES); entry += BLOCK) {
        double value = double(value_at<T>(param, entry));
        double grad = double(load<T>(param.grad.at, place_in(param.grad, entry, param.cols), param.grad.dtype));
        squares[0] = fma(value, value, squares[0]);
        squares[1] = fma(grad, grad, squares[1]);
    }
    for (int k = 0; k < 2; ++k) {
        double sum = block_sum(squares[k], shared);
        if (threadIdx.x == 0) param.squares[2 * task.chunk + k] = sum;
    }
}

KERNEL square_params_f32(const Launch launch) { square_param<float>(launch); }
KERNEL square_params_f64(const Launch launch) { square_param<double>(launch); }

// Adds up a parameter's squares; rejects what is not finite. Task: a parameter.
KERNEL sum_params(const Launch launch) {
    SHARED(double, shared);
    const Param& param = launch.model->params[launch.tasks[blockIdx.x].item];
    double squares[2];
    for (int k = 0; k < 2; ++k) {
        double sum = 0.0;
        for (int c = threadIdx.x; c < param.chunk_count; c += BLOCK) sum += param.squares[2 * c + k];
        squares[k] = block_sum(sum, shared);
    }
    if (threadIdx.x != 0) return;
    param.report->factor_square[0] = squares[0];
    param.report->gradient_square[0] = squares[1];
    if (!isfinite(squares[0]) || !isfinite(squares[1])) {
        atomicOr(&param.report->rejected, u32(NOT_FINITE));
        atomicOr(&launch.model->status->rejected, u32(NOT_FINITE));
    }
}

// Whether a parameter's step might overflow. Task: a parameter.
KERNEL check_params(const Launch launch) {
    SHARED(double, shared);
    const Model& model = *launch.model;
    const Param& param = model.params[launch.tasks[blockIdx.x].item];
    const Hyper& hyper = param.hyper;
    double gamma = gamma_of(model, hyper, shared);
    if (threadIdx.x != 0) return;
    double value = sqrt(param.report->factor_square[0]);
    double gradient = sqrt(param.report->gradient_square[0]) * fabs(gamma);
    double stored = value + LARGEST_N * hyper.lr * model.control->lr_factor;
    Bounds bounds = bounds_of(hyper.in_f64, param.value.dtype);
    if (!hyper.in_f64) bounds.computes = 1e15;
    if (!(gradient < bounds.computes && stored < bounds.stores && normalized_step_is_bounded(hyper)))
        reject_overflow(model, *param.report);
}

template <class T> DEVICE void step_param(const Launch& launch) {
    const Model& model = *launch.model;
    if (!step_is_live(model)) return;
    Task task = launch.tasks[blockIdx.x];
    const Param& param = model.params[task.item];
    const Hyper& hyper = param.hyper;
    u64 step = *param.counter + 1;
    double lr = hyper.lr * model.control->lr_factor;
    double c1 = 1.0 - pow(hyper.beta1, double(step)), root = sqrt(1.0 - pow(hyper.beta2, double(step)));
    Adam<T> adam(hyper, root / c1, hyper.eps * root);
    T gamma = T((hyper.maximize ? -1.0 : 1.0) * model.control->grad_scale * model.status->grad_clip);
    T decay = T(1.0 - lr * hyper.weight_decay);
    Round round{hyper.stochastic != 0, seed_of(param.name, 0, step)};
    T *first = static_cast<T*>(param.first), *second = static_cast<T*>(param.second);
    T* largest = static_cast<T*>(param.largest);
    i64 count = param.rows * param.cols, start = i64(task.chunk) * CHUNK_ENTRIES;
    for (i64 entry = start + threadIdx.x; entry < min(count, start + CHUNK_ENTRIES); entry += BLOCK) {
        T x = gamma * load<T>(param.grad.at, place_in(param.grad, entry, param.cols), param.grad.dtype);
        i64 at = place_in(param, entry);
        T m = first[at] = adam.mean(first[at], x);
        T v = second[at] = adam.square(second[at], x);
        if (largest != nullptr) v = largest[at] = nan_max(largest[at], v);
        T value = fma(decay, value_at<T>(param, entry), -(T(lr) * adam.direction(m, v)));
        if (param.master != nullptr) value = T(param.master[at] = float(value));
        store(param.value.at, place_in(param.value, entry, param.cols), param.value.dtype, value, round, entry);
    }
}

KERNEL step_params_f32(const Launch launch) { step_param<float>(launch); }
KERNEL step_params_f64(const Launch launch) { step_param<double>(launch); }

// Counts a parameter's step. Task: a parameter.
KERNEL count_params(const Launch launch) {
    if (!step_is_live(*launch.model) || threadIdx.x != 0) return;
    const Param& param = launch.model->params[launch.tasks[blockIdx.x].item];
    param.report->step = *param.counter += 1;
}
