//! Kernels that are wrong are found out.

use lora_pro_cuda_emulator::Checks;

use crate::common::{ORDERS, compiled, device, error, run};

/// Asserts that an error names all of these.
fn names(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

#[test]
fn a_missing_barrier_gives_wrong_numbers_in_every_order() {
    let input: Vec<f64> = (0..256).map(f64::from).collect();
    for order in ORDERS {
        for (kernel, mask) in [("no_barrier", 255), ("no_warp_barrier", 31)] {
            let found = run(&device(order), kernel, 1, 2048, 0, &input, &[0.0; 256]).unwrap();
            let wrong = (0..256).filter(|&i| found[i] != input[i ^ mask]).count();
            assert_eq!(
                wrong, 128,
                "{kernel}, order {order}: the first of each pair reads too soon"
            );
        }
    }
}

#[test]
fn shared_memory_starts_as_nan() {
    let found = run(
        &device(0),
        "no_zero",
        2,
        8,
        0,
        &[1.0f64; 256],
        &[0.0f64; 256],
    )
    .unwrap();
    assert!(found.iter().all(|sum| sum.is_nan()));
}

#[test]
fn divergent_barriers() {
    for order in ORDERS {
        let device = device(order);
        for count in [1, 100, 255] {
            let text = error(&device, "returns_early", 0, count);
            names(
                &text,
                &[
                    "divergent barrier",
                    "__syncthreads",
                    "wrong.cuh",
                    "255 returned",
                ],
            );
        }
        let text = error(&device, "two_barriers", 0, 0);
        names(
            &text,
            &[
                "divergent barrier",
                "threads 0 to 127 at",
                "threads 128 to 255 at",
            ],
        );
    }
}

#[test]
fn lanes_that_are_missed() {
    for order in ORDERS {
        let device = device(order);
        let text = error(&device, "missing_lane", 0, 0);
        names(
            &text,
            &[
                "deadlock",
                "threads 32 to 38 at __shfl_sync",
                "mask ffffffff",
                "thread 39 returned",
            ],
        );
        let text = error(&device, "lane_at_barrier", 0, 0);
        names(
            &text,
            &[
                "deadlock",
                "threads 40 to 63 at __syncwarp",
                "thread 39 at __syncthreads",
            ],
        );
    }
}

#[test]
fn warp_operations_that_do_not_fit() {
    for order in ORDERS {
        let device = device(order);
        names(
            &error(&device, "two_operations", 0, 0),
            &["__shfl_xor_sync", "__shfl_down_sync"],
        );
        names(&error(&device, "two_masks", 0, 0), &["__syncwarp"]);
        names(
            &error(&device, "foreign_mask", 0, 0),
            &["leaves out the own lane"],
        );
        names(
            &error(&device, "outside_of_mask", 0, 0),
            &["outside of the mask"],
        );
    }
}

#[test]
fn shared_memory_overruns() {
    let device = device(0);
    let size = 100;
    for byte in [-1, 100, 127, 4000] {
        let text = error(&device, "write_shared", size, byte);
        names(
            &text,
            &["shared memory overrun", &format!("byte {byte} of 100")],
        );
    }
    for byte in [-500_000, 500_000] {
        names(
            &error(&device, "write_shared", size, byte),
            &["write outside of the device's memory"],
        );
        names(
            &error(&device, "read_shared", size, byte),
            &["read outside of the device's memory"],
        );
    }
}

#[test]
fn device_memory_overruns() {
    let device = device(0);
    let size = 256 * 8;
    for byte in [-1, -1000] {
        let text = error(&device, "write_device", 0, byte);
        names(
            &text,
            &[
                "write_device",
                "device memory overrun",
                &format!("byte {byte} of the 2048"),
            ],
        );
    }
    for byte in [size, size + 4096, size + 50_000] {
        names(
            &error(&device, "write_device", 0, byte),
            &["thread 0", "write outside of the device's memory"],
        );
        names(
            &error(&device, "read_device", 0, byte),
            &["thread 0", "read outside of the device's memory"],
        );
    }
}

#[test]
fn what_the_compiler_checks() {
    let device = compiled(Checks::On);
    names(
        &error(&device, "misaligned", 0, 0),
        &["thread 7: misaligned access", "wrong.cuh"],
    );
    names(
        &error(&device, "outside_of_array", 0, 4),
        &["index 4 is outside of an array"],
    );
}

#[test]
fn traps() {
    names(&error(&device(0), "traps", 0, 0), &["__trap"]);
    names(
        &error(&device(0), "divides", 0, 0),
        &["integer division by zero"],
    );
}

#[test]
fn a_device_goes_on_after_an_error() {
    let device = device(2);
    error(&device, "returns_early", 0, 3);
    error(&device, "write_device", 0, 1 << 16);
    let input: Vec<f64> = (0..256).map(f64::from).collect();
    assert_eq!(
        run(&device, "copy", 1, 0, 3, &input, &[0.0; 256]).unwrap(),
        input
    );
    assert_eq!(device.in_use(), 0);
}
