//! The tests' own kernels, with arrays in and arrays out.

use std::path::{Path, PathBuf};

use lora_pro_core::Error;
use lora_pro_cuda::device::{Device, Launch};
use lora_pro_cuda_emulator::{Checks, Emulator, build};

/// Forwards, backwards, and two random ones.
pub const ORDERS: [i32; 4] = [0, 1, 2, 3];

pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels")
}

pub fn device(order: i32) -> Emulator {
    compiled(Checks::Off).with_order(order)
}

pub fn compiled(checks: Checks) -> Emulator {
    let library = build(&sources(), Path::new(env!("CARGO_TARGET_TMPDIR")), checks).unwrap();
    Emulator::of(&library).unwrap()
}

/// Numbers that a kernel takes and gives.
pub trait Number: Copy + Default {}
impl Number for f64 {}
impl Number for f32 {}
impl Number for i32 {}
impl Number for u32 {}
impl Number for u16 {}

fn bytes_of<T: Number>(numbers: &mut [T]) -> &mut [u8] {
    // SAFETY: numbers have no padding, and any bytes are a number.
    unsafe { std::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), size_of_val(numbers)) }
}

/// Launches a kernel with a copy of `input` as `model` and of `output` as `tasks`; gives back what
/// is then in `tasks`.
pub fn run<I: Number, O: Number>(
    device: &Emulator,
    kernel: &'static str,
    grid: u32,
    shared: u32,
    word: u64,
    input: &[I],
    output: &[O],
) -> Result<Vec<O>, Error> {
    let (mut input, mut output) = (input.to_vec(), output.to_vec());
    let (input, bytes) = (bytes_of(&mut input), bytes_of(&mut output));
    let (model, tasks) = (device.allocate(input.len())?, device.allocate(bytes.len())?);
    let argument = Launch {
        model,
        tasks,
        words: [word, 0],
        ..Launch::default()
    };
    // SAFETY: the kernels of the tests read and write these arrays, or are to be caught.
    let result = unsafe {
        device.write(0, model, input)?;
        device.write(0, tasks, bytes)?;
        let launched = device.launch(0, kernel, grid, shared, &argument);
        device.read(0, tasks, bytes)?;
        device.free(model, input.len());
        device.free(tasks, bytes.len());
        launched
    };
    result.map(|()| output)
}

/// The text of the error that a kernel ends with.
pub fn error(device: &Emulator, kernel: &'static str, shared: u32, word: i64) -> String {
    let zeros = [0.0f64; 256];
    let result = run(device, kernel, 1, shared, word as u64, &zeros, &zeros);
    result.expect_err(kernel).to_string()
}
