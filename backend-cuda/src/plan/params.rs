//! The launches for unpaired parameters.

use super::Pass;
use super::tasks::param_chunks;
use crate::constants::SUM_ROOM;
use crate::model::{Param, Precision, Task};

/// A launch for parameters, where it has any tasks.
fn pass(kernel: &'static str, tasks: Vec<Task>, words: [u64; 2]) -> Option<Pass> {
    (!tasks.is_empty()).then_some(Pass {
        kernel,
        tasks,
        shared: SUM_ROOM * 8,
        words,
    })
}

/// One block for each parameter.
fn whole(kernel: &'static str, params: &[Param]) -> Option<Pass> {
    let task = |item| Task {
        item,
        ..Task::default()
    };
    pass(kernel, (0..params.len() as u32).map(task).collect(), [0; 2])
}

/// One block for each chunk of the parameters that are computed in this type.
fn chunks(kernel: &'static str, params: &[Param], precision: Precision) -> Option<Pass> {
    let all = params.iter().enumerate();
    let chosen = all.filter(|(_, param)| param.hyper.precision() == precision);
    let tasks = chosen.flat_map(|(item, param)| param_chunks(item as u32, param));
    pass(kernel, tasks.collect(), [0; 2])
}

/// Squares of values and gradients, which the decision whether the step may go on needs.
pub(super) fn squares(params: &[Param]) -> Vec<Pass> {
    let passes = [
        chunks("square_params_f32", params, Precision::F32),
        chunks("square_params_f64", params, Precision::F64),
        whole("sum_params", params),
    ];
    passes.into_iter().flatten().collect()
}

/// Whether a parameter's step might overflow.
pub(super) fn check(params: &[Param]) -> Option<Pass> {
    whole("check_params", params)
}

/// The steps of all parameters.
pub(super) fn steps(params: &[Param]) -> Vec<Pass> {
    let passes = [
        chunks("step_params_f32", params, Precision::F32),
        chunks("step_params_f64", params, Precision::F64),
        whole("count_params", params),
    ];
    passes.into_iter().flatten().collect()
}

/// The copies of all values to their backups, or back.
pub(super) fn backup(params: &[Param], words: [u64; 2]) -> Option<Pass> {
    let all = params.iter().enumerate();
    let tasks = all.flat_map(|(item, param)| param_chunks(item as u32, param));
    pass("back_up_params", tasks.collect(), words)
}
