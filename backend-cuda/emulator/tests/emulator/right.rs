//! Kernels that are right give what plain loops give, in any order of threads.

use lora_pro_cuda::device::{Device, Launch};

use crate::common::{Number, ORDERS, device, run};

fn numbers(count: usize) -> Vec<f64> {
    (0..count)
        .map(|i| ((i * 37 + 11) % 101) as f64 / 16.0 - 3.0)
        .collect()
}

#[test]
fn sums_of_blocks() {
    let input = numbers(5 * 256);
    for order in ORDERS {
        let found = run(&device(order), "block_sum", 5, 64, 0, &input, &[0.0; 6]).unwrap();
        for (block, chunk) in input.chunks(256).enumerate() {
            assert_eq!(found[block], chunk.iter().sum::<f64>(), "order {order}");
        }
        assert_eq!(found[5].to_bits(), 5, "blocks counted");
    }
}

/// The lane that each of the 13 shuffles of `shuffle_all` takes from; none where it takes no part.
fn source(shuffle: usize, thread: usize) -> Option<usize> {
    let lane = thread % 32;
    let source = match shuffle {
        0 => 5,
        1 => 7 * thread % 32,
        2 => lane / 8 * 8 + 3,
        3 => lane ^ 17,
        // A lane of a later group: the own one. Of an earlier group: that one.
        4 if lane & 8 == 0 => lane,
        4 => lane ^ 12,
        5 => {
            if lane + 9 < 32 {
                lane + 9
            } else {
                lane
            }
        }
        6 => {
            if lane % 4 + 3 < 4 {
                lane + 3
            } else {
                lane
            }
        }
        7 => lane.checked_sub(9).unwrap_or(lane),
        8 => {
            if lane % 4 >= 3 {
                lane - 3
            } else {
                lane
            }
        }
        9 if lane < 16 => lane ^ 1,
        10 if lane < 16 => lane ^ 2,
        11 if lane >= 16 => lane ^ 3,
        12 => lane ^ 31,
        _ => return None,
    };
    Some(thread / 32 * 32 + source)
}

fn shuffled<T: Number + PartialEq + std::fmt::Debug>(
    kernel: &'static str,
    of: impl Fn(usize) -> T,
) {
    let input: Vec<T> = (0..256).map(of).collect();
    for order in ORDERS {
        let found = run(
            &device(order),
            kernel,
            1,
            0,
            0,
            &input,
            &[T::default(); 16 * 256],
        )
        .unwrap();
        for (at, &value) in found.iter().enumerate() {
            let expected = source(at % 16, at / 16).map_or(T::default(), |from| input[from]);
            assert_eq!(
                value,
                expected,
                "{kernel}, order {order}: thread {}, shuffle {}",
                at / 16,
                at % 16
            );
        }
    }
}

#[test]
fn shuffles_of_every_type() {
    shuffled("shuffle_f64", |i| i as f64 + 0.5);
    shuffled("shuffle_f32", |i| i as f32 - 0.25);
    shuffled("shuffle_i32", |i| -(i as i32) - 1);
    shuffled("shuffle_u32", |i| u32::MAX - i as u32);
}

#[test]
fn products_of_warps() {
    let size = 12;
    let input = numbers(8 * 16 * size);
    let start = numbers(8 * 64);
    for order in ORDERS {
        let found = run(
            &device(order),
            "multiply",
            1,
            0,
            size as u64,
            &input,
            &start,
        )
        .unwrap();
        for (at, &value) in found.iter().enumerate() {
            let (warp, i, j) = (at / 64, at / 8 % 8, at % 8);
            let (a, b) = input[warp * 16 * size..][..16 * size].split_at(8 * size);
            let sum = |sum: f64, k: usize| a[i * size + k].mul_add(b[k * 8 + j], sum);
            assert_eq!(
                value,
                (0..size).fold(start[at], sum),
                "order {order}, number {at}"
            );
        }
    }
}

#[test]
fn votes() {
    // All, none, one, and every third of the threads.
    let cases: [fn(usize) -> bool; 4] = [|_| true, |_| false, |i| i == 40, |i| i % 3 == 0];
    for (order, case) in ORDERS
        .into_iter()
        .flat_map(|order| cases.map(|case| (order, case)))
    {
        let input: Vec<i32> = (0..256).map(|i| i32::from(case(i))).collect();
        let found = run(&device(order), "votes", 1, 0, 0, &input, &[0u32; 8 * 256]).unwrap();
        let count = input.iter().sum::<i32>() as u32;
        for (thread, found) in found.chunks(8).enumerate() {
            let warp = &input[thread / 32 * 32..][..32];
            let ballot = warp
                .iter()
                .enumerate()
                .fold(0, |set, (lane, &vote)| set | (vote as u32) << lane);
            let (any, all) = (u32::from(ballot != 0), u32::from(ballot == u32::MAX));
            let (or, and) = (u32::from(count > 0), u32::from(count == 256));
            assert_eq!(
                found,
                [or, and, count, ballot, any, all, or, ballot.count_ones()],
                "order {order}"
            );
        }
    }
}

#[test]
fn atomics() {
    let start = [0, 0, 0, u32::MAX, u32::MAX, 0, i32::MIN as u32, 0];
    for order in ORDERS {
        let found = run(&device(order), "atomics", 3, 0, 0, &[0u32], &start).unwrap();
        assert_eq!(
            found,
            [
                768,
                u32::MAX >> 1,
                767,
                7,
                u32::MAX - 7,
                -1536i32 as u32,
                0,
                9
            ]
        );
    }
}

#[test]
fn names_of_cuda() {
    assert_eq!(
        run(&device(0), "names", 1, 0, 0, &[0u32], &[0u32; 8]).unwrap(),
        [1; 8]
    );
}

#[test]
fn halves() {
    let mut input = [0.0f32; 256];
    // Ties to even, the largest, just too large, the smallest, half of it, a little more, NaN.
    let cases = [
        1.0 + 1.0 / 2048.0,
        1.0 + 3.0 / 2048.0,
        65519.0,
        65520.0,
        6e-8,
        2.98e-8,
        2.99e-8,
        f32::NAN,
        -0.0,
    ];
    input[..cases.len()].copy_from_slice(&cases);
    let found = run(&device(0), "halves", 1, 0, 0, &input, &[0u16; 65536 + 256]).unwrap();
    for (bits, &again) in found[..65536].iter().enumerate() {
        let nan = bits & 0x7fff > 0x7c00;
        assert_eq!(again, if nan { 0x7fff } else { bits as u16 });
    }
    let expected = [0x3c00, 0x3c02, 0x7bff, 0x7c00, 1, 0, 1, 0x7fff, 0x8000];
    assert_eq!(found[65536..][..cases.len()], expected);
}

#[test]
fn many_devices_at_once() {
    let input = numbers(4 * 256);
    std::thread::scope(|scope| {
        for order in ORDERS {
            let input = &input;
            scope.spawn(move || {
                let device = device(order);
                for _ in 0..20 {
                    assert_eq!(
                        run(&device, "copy", 4, 0, 30, input, &[0.0; 1024]).unwrap(),
                        *input
                    );
                }
            });
        }
    });
}

/// `cargo test --release -p lora-pro-cuda-emulator -- --ignored --nocapture` prints what things cost.
#[test]
#[ignore = "measures"]
fn costs() {
    let device = device(0);
    let at = device.allocate(2048).unwrap();
    let time = |kernel, grid: u32, times: u64| {
        let argument = Launch {
            model: at,
            tasks: at,
            words: [times, 0],
            ..Launch::default()
        };
        let start = std::time::Instant::now();
        // SAFETY: one block writes 256 numbers.
        unsafe { device.launch(0, kernel, grid, 0, &argument) }.unwrap();
        start.elapsed().as_nanos() as f64 / (f64::from(grid) * times.max(1) as f64)
    };
    println!("launch: {:.0} ns", time("names", 1, 0));
    println!("launch again: {:.0} ns", time("names", 1, 0));
    println!("block: {:.0} ns", time("names", 1000, 0));
    println!(
        "barrier: {:.1} ns per thread",
        time("copy", 1, 20_000) / 256.0
    );
    println!(
        "shuffle: {:.1} ns per thread",
        time("many_shuffles", 1, 20_000) / 256.0
    );
    println!(
        "mma_f64: {:.0} ns per warp",
        time("many_products", 1, 20_000) / 8.0
    );
    // SAFETY: allocated above.
    unsafe { device.free(at, 2048) };
}
