//! The device's own rules: memory, copies, launches that cannot be.

use crate::common::device;
use lora_pro_cuda::device::{Device, Launch};

#[test]
fn memory_is_aligned_and_starts_as_nan() {
    let device = device(0);
    for bytes in [1, 8, 255, 256, 257, 70_000] {
        let at = device.allocate(bytes).unwrap();
        assert_eq!(at % 256, 0);
        let mut found = vec![0; bytes];
        // SAFETY: allocated above.
        unsafe { device.read(0, at, &mut found) }.unwrap();
        assert_eq!(found, vec![0xFF; bytes]);
        // SAFETY: allocated above.
        unsafe { device.free(at, bytes) };
    }
    assert_eq!(device.in_use(), 0);
    device.allocate(0).unwrap_err();
    device.allocate(usize::MAX).unwrap_err();
    device.allocate(1 << 60).unwrap_err();
}

#[test]
fn copies_stay_within_allocations() {
    let device = device(0);
    let (a, b) = (device.allocate(16).unwrap(), device.allocate(16).unwrap());
    let mut found = [0; 16];
    // SAFETY: within the allocations, or refused.
    unsafe {
        device.write(0, a, &[7; 16]).unwrap();
        device.fill(0, a + 4, 3, 4).unwrap();
        device.copy(0, a, b, 16).unwrap();
        device.read(0, b, &mut found).unwrap();
        assert_eq!(found, [7, 7, 7, 7, 3, 3, 3, 3, 7, 7, 7, 7, 7, 7, 7, 7]);

        device.write(0, a + 1, &[7; 16]).unwrap_err();
        device.read(0, a - 1, &mut found).unwrap_err();
        device.fill(0, a, 3, 17).unwrap_err();
        device.copy(0, a, b + 1, 16).unwrap_err();
        device.copy(0, a, a + 1, 8).unwrap_err();
        device.read(0, 64, &mut found).unwrap_err();
        device.free(a, 16);
        device.read(0, a, &mut found).unwrap_err();
        device.free(b, 16);
    }
    device.synchronize(0).unwrap();
}

#[test]
fn what_free_has_seen_comes_later() {
    let device = device(0);
    let at = device.allocate(16).unwrap();
    // SAFETY: the end of a block of 256 bytes is written, of which 16 are allocated; that nothing
    // but the device looks at.
    unsafe { (at as *mut u8).add(20).write(1) };
    // SAFETY: the first is as it should be; the second is refused.
    unsafe {
        device.free(at, 16);
        device.free(at, 16);
    }
    let text = device.synchronize(0).unwrap_err().to_string();
    assert!(
        text.contains("byte 20 of the 16"),
        "the first error: {text}"
    );
    device.synchronize(0).unwrap();

    let at = device.allocate(16).unwrap();
    // SAFETY: as above, with a wrong size, which is refused.
    unsafe { device.free(at, 8) };
    let text = device.synchronize(0).unwrap_err().to_string();
    assert!(text.contains("no 8 bytes"), "{text}");
}

#[test]
fn launches_that_cannot_be() {
    let device = device(0);
    let launch = |kernel, grid, shared| {
        // SAFETY: refused, or a kernel that takes nothing.
        let result = unsafe { device.launch(0, kernel, grid, shared, &Launch::default()) };
        result.map_err(|error| error.to_string())
    };
    let text = launch("no_such_kernel", 1, 0).unwrap_err();
    assert!(text.contains("no kernel `no_such_kernel`"), "{text}");
    launch("foreign_mask", 0, 0).unwrap_err();
    launch("foreign_mask", 1, 227 * 1024 + 1).unwrap_err();
    launch("returns_early", 1, 227 * 1024).unwrap();
}

#[test]
fn nothing_waits_while_a_stream_is_captured() {
    let device = device(0);
    let at = device.allocate(4).unwrap();
    assert!(!device.is_capturing(0).unwrap());
    device.set_capturing(true);
    assert!(device.is_capturing(7).unwrap());
    device.synchronize(0).unwrap_err();
    device.allocate(4).unwrap_err();
    // SAFETY: allocated above.
    unsafe {
        device.write(0, at, &[0; 4]).unwrap_err();
        device.read(0, at, &mut [0; 4]).unwrap_err();
        device.fill(0, at, 0, 4).unwrap();
        device
            .launch(0, "returns_early", 1, 0, &Launch::default())
            .unwrap();
    }
    device.set_capturing(false);
    device.synchronize(0).unwrap();
    // SAFETY: allocated above.
    unsafe { device.free(at, 4) };
}

#[test]
fn it_reports_its_name() {
    let about = device(0).info();
    assert_eq!((about.name.as_str(), about.ordinal), ("CPU emulator", 0));
}
