// Everything r x r: one block for each adapter (for each side of it in `decompose`).
#include "closed_form.cuh"
#include "eigen.cuh"
#include "gram.cuh"
#include "product.cuh"

// Room for block sums and rotations in shared memory, before the two matrices of a decomposition
// that lie there where they fit; `words[0]` is the largest rank for which they do.
constexpr int ROOM = 32;

DEVICE double2* turns_in(double* shared) { return reinterpret_cast<double2*>(shared + ROOM); }

// Decomposes a side's Gram matrix and inverts it.
DEVICE_LARGE void decompose_side(const Pair& pair, int side, double* shared, int fits) {
    Smalls m(pair);
    int r = pair.r, size = r * r;
    double2* turns = turns_in(shared);
    double* room = reinterpret_cast<double*>(turns + (r + 1) / 2);
    bool inside = r <= fits;
    double* s = inside ? room : m(TEMPORARY + 2 * side);
    double* q = inside ? room + size : m(VECTORS + side);
    for (int at = threadIdx.x; at < size; at += BLOCK) s[at] = m(FF + side)[at];
    decompose(s, q, m.values(side), turns, r);
    if (inside)
        for (int at = threadIdx.x; at < size; at += BLOCK) m(VECTORS + side)[at] = q[at];
    __syncthreads();
    invert(pair, side);
}

// Adds a side's survey up; refuses what is not finite; decomposes the Gram matrix.
//
// Task: an adapter, a side.
KERNEL decompose_grams(const Launch launch) {
    SHARED(double, shared);
    Task task = launch.tasks[blockIdx.x];
    const Pair& pair = launch.model->pairs[task.item];
    const Side& side = pair.side[task.side];
    Smalls m(pair);
    int r = pair.r;
    Squares squares = squares_of(2 * r, 2 * r);
    for (int at = threadIdx.x; at < r * r; at += BLOCK) {
        int i = at / r, j = at % r;
        auto entry = [&](int i, int j) {
            return gathered(side.products, squares, side.chunk_count, true, i, j);
        };
        m(FF + task.side)[at] = entry(i, j);
        m(FG + task.side)[at] = entry(i, r + j);
        m(GG + task.side)[at] = entry(r + i, r + j);
    }
    __syncthreads();
    double factor = trace(m, FF + task.side, shared);
    double gradient = trace(m, GG + task.side, shared);
    bool finite = isfinite(factor) && isfinite(gradient);
    if (threadIdx.x == 0) {
        pair.report->factor_square[task.side] = factor;
        pair.report->gradient_square[task.side] = gradient;
        if (!finite) {
            atomicOr(&pair.report->refused, u32(NOT_FINITE));
            atomicOr(&launch.model->status->refused, u32(NOT_FINITE));
        }
    }
    if (finite && pair.hyper.method != LORA)
        decompose_side(pair, task.side, shared, int(launch.words[0]));
}

// The global norm of all gradients, from their squares in the order of the model; the same in
// every block.
DEVICE_LARGE double gradient_norm(const Model& model, double* shared) {
    double sum = 0.0;
    for (int k = threadIdx.x; k < model.pair_count; k += BLOCK) {
        const Report& report = *model.pairs[k].report;
        sum += report.gradient_square[0] + report.gradient_square[1];
    }
    for (int k = threadIdx.x; k < model.param_count; k += BLOCK)
        sum += model.params[k].report->gradient_square[0];
    return sqrt(block_sum(sum, shared)) * model.control->grad_scale;
}

// What multiplies raw gradients; leaves the norm and the clip in the status, once.
DEVICE_LARGE double gamma_of(const Model& model, const Hyper& hyper, double* shared) {
    double norm = gradient_norm(model, shared), limit = model.control->max_grad_norm;
    double clip = limit > 0.0 && norm > limit ? limit / norm : 1.0;
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        model.status->grad_norm = norm;
        model.status->grad_clip = clip;
    }
    return (hyper.maximize ? -1.0 : 1.0) * model.control->grad_scale * clip;
}

DEVICE void set_step(Pair& pair, const Control& control, double gamma) {
    const Hyper& hyper = pair.hyper;
    Step& step = pair.step;
    double lr = hyper.lr * control.lr_factor;
    bool whole = hyper.method == FULL || hyper.method == FACTORED;
    double decay = 1.0 - lr * hyper.weight_decay;
    step.gamma = gamma;
    step.lr[0] = lr;
    step.lr[1] = lr * hyper.lr_ratio;
    // B A as a whole is to decay by 1 - lr w.
    step.decay[0] = whole ? sqrt(decay) : decay;
    step.decay[1] = whole ? sqrt(decay) : 1.0 - lr * hyper.lr_ratio * hyper.weight_decay;
    step.base_decay = decay;
    step.t = *pair.counter + 1;
    step.c1 = 1.0 - pow(hyper.beta1, double(step.t));
    step.c2 = 1.0 - pow(hyper.beta2, double(step.t));
    step.k = sqrt(step.c2) / step.c1;
    step.eps = hyper.eps * sqrt(step.c2);
    step.clip = 1.0;
}

// The coefficients of (dA, dB): P and what F is multiplied by, of both sides.
template <class T> DEVICE_LARGE void set_direction(const Pair& pair, const Smalls& m, double gamma) {
    double factor = gamma / (pair.s * pair.s);
    set_coefficients(m, coefficients<T>(pair, 0, 0), factor, of(PLUS + 1));
    set_coefficients(m, coefficients<T>(pair, 0, 1), 1.0, of(X));
    set_coefficients(m, coefficients<T>(pair, 1, 0), factor, of(PLUS));
    combine(m, TEMPORARY, 1.0, of(Q), 1.0, of(X));
    set_coefficients(m, coefficients<T>(pair, 1, 1), -1.0, turned(TEMPORARY));
}

// The coefficients of H = (sU, sV'), the parts of E: what multiplies G, and F on side 1.
template <class T> DEVICE_LARGE void set_split(const Pair& pair, const Smalls& m, double gamma) {
    set_coefficients(m, coefficients<T>(pair, 0, 0), gamma / pair.s, of(PLUS + 1));
    set_coefficients(m, coefficients<T>(pair, 0, 1), 0.0, of(Q));
    set_coefficients(m, coefficients<T>(pair, 1, 0), gamma / pair.s, of(PLUS));
    set_coefficients(m, coefficients<T>(pair, 1, 1), -pair.s, turned(Q));
}

// The quadratic form of the squares of E's rows and columns: with H and F of a side,
// |E's column|^2 = H'S H + 2 H'M F + F'K F, with S, M, K of the other side.
template <class T> DEVICE_LARGE void set_squares(const Pair& pair, const Smalls& m) {
#pragma unroll 1
    for (int side = 0; side < 2; ++side) {
        int other = 1 - side;
        set_coefficients(m, coefficients<T>(pair, side, 2), 1.0, of(FF + other));
        set_coefficients(m, coefficients<T>(pair, side, 3), 2.0, of(FH + other));
        set_coefficients(m, coefficients<T>(pair, side, 4), 1.0, of(HH + other));
    }
}

DEVICE void refuse_doubtful(const Model& model, Report& report) {
    atomicOr(&report.refused, u32(DOUBTFUL));
    atomicOr(&model.status->refused, u32(DOUBTFUL));
}

// The largest numbers that leave room for what is computed and stored.
struct Bounds {
    double computes, stores;
};

DEVICE Bounds bounds_of(bool in_f64, int dtype) {
    if (in_f64) return Bounds{1e120, dtype == F64 ? 1e120 : dtype == F16 ? 3e4 : 1e30};
    return Bounds{1e17, dtype == F16 ? 3e4 : 1e30};
}

// Whether Adam's N stays of the order of 1: where a moment's square decays no slower than its mean.
DEVICE bool is_tame(const Hyper& hyper) {
    return (hyper.beta1 == 0.0 || hyper.beta1 * hyper.beta1 < hyper.beta2) &&
           (hyper.in_f64 || hyper.eps > 1e-30);
}

// An entry of N: (1 - b1) / sqrt((1 - b2) (1 - b1^2 / b2)) is 7.3 for the usual betas.
constexpr double LARGEST_N = 10.0;

// Whether a bound on anything that is computed or stored comes near to the largest number.
DEVICE_LARGE bool may_overflow(const Pair& pair, const Smalls& m, double equivalent, double* shared) {
    const Hyper& hyper = pair.hyper;
    double a = sqrt(pair.report->factor_square[0]), b = sqrt(pair.report->factor_square[1]);
    double adjusted = 0.0;
    for (int side = 0; side < 2; ++side)
        adjusted += sqrt(fmax(0.0, trace(m, HH + side, shared))) / pair.s;
    if (hyper.method != LORA) {
        adjusted += norm(m, X, shared) * (a + b);
        adjusted += norm(m, Q, shared) * b;
    }
    double direction = LARGEST_N;
    if (hyper.method == SGD) direction = adjusted / (1.0 - hyper.momentum);
    if (hyper.method == FACTORED || hyper.method == FULL) {
        // |B SB^+| is at most |SB^+|^(1/2), so |U| is at most that times |N| / s; and with X the pair
        // is at most as far from (gA, gB) as without.
        double n = LARGEST_N * sqrt(double(pair.side[0].len) * pair.side[1].len), roots = 0.0;
        for (int side = 0; side < 2; ++side)
            roots += sqrt(norm(m, PLUS + side, shared));
        direction = 4.0 * n * (pair.s * (a + b) + roots / pair.s);
    }
    double lr = fmax(pair.step.lr[0], pair.step.lr[1]);
    Bounds bounds = bounds_of(hyper.in_f64, pair.side[0].f.dtype);
    bool certain = adjusted < bounds.computes && direction < bounds.computes &&
                   equivalent < bounds.computes && a + b + lr * direction < bounds.stores &&
                   (hyper.method == SGD || is_tame(hyper));
    return !certain;
}

// What the passes of the method apply; the step's numbers; whether anything might overflow.
//
// Task: an adapter.
template <class T> DEVICE void split(const Launch& launch) {
    SHARED(double, shared);
    const Model& model = *launch.model;
    Pair& pair = model.pairs[launch.tasks[blockIdx.x].item];
    double gamma = gamma_of(model, pair.hyper, shared);
    // Nobody reads it before the barriers of the sums below.
    if (threadIdx.x == 0) set_step(pair, *model.control, gamma);
    if (model.status->refused & NOT_FINITE) return;
    Smalls m(pair);
    int method = pair.hyper.method;
    if (method == LORA) {
        raw_products(pair, m, gamma);
    } else {
        split_products(pair, m, gamma);
        look(m, turned(FG), of(FG + 1));
        choose(pair, m, gamma);
    }
    // |E|^2 with E = B H0 + H1' A.
    double square = dot(m, of(FF + 1), of(HH), shared) +
                    dot(m, of(FF), of(HH + 1), shared) +
                    2.0 * dot(m, of(FH + 1), turned(FH), shared);
    double equivalent = sqrt(fmax(0.0, square));
    bool doubtful = may_overflow(pair, m, equivalent, shared);
    if (threadIdx.x == 0) {
        pair.report->equivalent_norm = equivalent;
        if (doubtful) refuse_doubtful(model, *pair.report);
    }
    if (method == SGD || method == EFFICIENT) set_direction<T>(pair, m, gamma);
    if (method == FULL || method == FACTORED) set_split<T>(pair, m, gamma);
    if (method == FACTORED) set_squares<T>(pair, m);
}

KERNEL split_f32(const Launch launch) { split<float>(launch); }
KERNEL split_f64(const Launch launch) { split<double>(launch); }

// Full mode, N in the place of g: the coefficients of (dA, dB) from F G' of both sides.
//
// Task: an adapter.
template <class T> DEVICE void choose_full(const Launch& launch) {
    if (!may_go(*launch.model)) return;
    const Pair& pair = launch.model->pairs[launch.tasks[blockIdx.x].item];
    Smalls m(pair);
    Squares squares = squares_of(m.r, m.r);
    for (int at = threadIdx.x; at < 2 * m.r * m.r; at += BLOCK) {
        int side = at / (m.r * m.r), entry = at % (m.r * m.r);
        m(FG + side)[entry] = gathered(pair.side[side].products, squares, pair.side[side].chunk_count,
                                       false, entry / m.r, entry % m.r);
    }
    __syncthreads();
    look(m, turned(FG), of(FG + 1));
    choose(pair, m, pair.s);
    set_direction<T>(pair, m, pair.s);
}

KERNEL choose_full_f32(const Launch launch) { choose_full<float>(launch); }
KERNEL choose_full_f64(const Launch launch) { choose_full<double>(launch); }

// Adds up what a pass of the factored mode left: X [several matrices of r rows]', one r x r matrix
// for each.
DEVICE_LARGE void gather_stack(const Pair& pair, int side, int count, double factor, double* out) {
    int r = pair.r;
    Squares squares = squares_of(r, count * r);
    for (int at = threadIdx.x; at < count * r * r; at += BLOCK) {
        int which = at / (r * r), i = at / r % r, j = at % r;
        out[at] = factor * gathered(pair.side[side].products, squares, pair.side[side].chunk_count,
                                    false, i, which * r + j);
    }
    __syncthreads();
}

// Factored mode: X and Q for N, of which B'N A' = (1 / c1) [(B'Da B)(Y Db A') + (B'Da Z)(A Db A')],
// and the coefficients of D = (T1 Y + T2 F) w + T3 F:
//
//     T1 = S^+ (F w F') / (s c1),  T2 = S^+ (F w Y') / (s c1) of the other side,  T3 = X or -(Q + X)'
//
// The columns' weights of the pass lack the root of the mean of the rows' means, a number that is
// known only now. Task: an adapter.
template <class T> DEVICE void choose_factored(const Launch& launch) {
    SHARED(double, shared);
    if (!may_go(*launch.model)) return;
    Pair& pair = launch.model->pairs[launch.tasks[blockIdx.x].item];
    Smalls m(pair);
    double sum = 0.0;
    for (int k = threadIdx.x; k < pair.side[1].chunk_count; k += BLOCK) sum += pair.side[1].squares[k];
    double mean = sqrt(block_sum(sum, shared) / pair.side[1].len / pair.step.c2);
    gather_stack(pair, 0, 2, mean, m(WEIGHTED));
    gather_stack(pair, 1, 2, 1.0, m(WEIGHTED + 2));
    // WEIGHTED: A w A', A w Y', B'w B, B'w Z.
    look_at(m, of(WEIGHTED + 2), turned(WEIGHTED + 1), of(WEIGHTED + 3), of(WEIGHTED));
    choose(pair, m, pair.s / pair.step.c1);
#pragma unroll 1
    for (int side = 0; side < 2; ++side) {
        int other = 1 - side;
        double factor = (side == 0 ? mean : 1.0) / (pair.s * pair.step.c1);
#pragma unroll 1
        for (int k = 0; k < 2; ++k) {
            solve(m, other, TEMPORARY, factor, of(WEIGHTED + 2 * other + k));
            set_coefficients(m, coefficients<T>(pair, side, k), 1.0, of(TEMPORARY));
        }
    }
    set_coefficients(m, coefficients<T>(pair, 0, 2), 1.0, of(X));
    combine(m, TEMPORARY, 1.0, of(Q), 1.0, of(X));
    set_coefficients(m, coefficients<T>(pair, 1, 2), -1.0, turned(TEMPORARY));
}

KERNEL choose_factored_f32(const Launch launch) { choose_factored<float>(launch); }
KERNEL choose_factored_f64(const Launch launch) { choose_factored<double>(launch); }

// Factored mode: how M = B Y + Z A is carried over to the new factors F1:
//
//     Y  <- SB1^+ [(B1'B) Y + (B1'Z) A]
//     Z' <- SA1^+ [(A1 Y')B' + (A1 A')Z'] - (SB1^+ B1'M A1' SA1^+)' B1'
//
// as T1 Y + T2 F + T3 F1. Task: an adapter.
template <class T> DEVICE void choose_carry(const Launch& launch) {
    SHARED(double, shared);
    if (!may_go(*launch.model)) return;
    const Pair& pair = launch.model->pairs[launch.tasks[blockIdx.x].item];
    Smalls m(pair);
#pragma unroll 1
    for (int side = 0; side < 2; ++side) {
        // F1 F1', F1 F', F1 Y'.
        gather_stack(pair, side, 3, 1.0, m(ADVANCED + 3 * side));
        assign(m, FF + side, 1.0, of(ADVANCED + 3 * side));
        decompose_side(pair, side, shared, int(launch.words[0]));
    }
    look_at(m, of(ADVANCED + 4), turned(ADVANCED + 2), of(ADVANCED + 5), turned(ADVANCED + 1));
    inside(m, TEMPORARY + 2, 1.0);
#pragma unroll 1
    for (int side = 0; side < 2; ++side) {
        int other = 1 - side;
#pragma unroll 1
        for (int k = 0; k < 2; ++k) {
            solve(m, other, TEMPORARY, 1.0, of(ADVANCED + 3 * other + 1 + k));
            set_coefficients(m, coefficients<T>(pair, side, k), 1.0, of(TEMPORARY));
        }
    }
    set_coefficients(m, coefficients<T>(pair, 1, 2), -1.0, turned(TEMPORARY + 2));
}

KERNEL choose_carry_f32(const Launch launch) { choose_carry<float>(launch); }
KERNEL choose_carry_f64(const Launch launch) { choose_carry<double>(launch); }
