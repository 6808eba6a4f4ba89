//! The kernels' structures and the host's twins are of the same sizes.

use lora_pro_cuda::device::{Device, Launch};
use lora_pro_cuda::sizes;

use crate::counting::counting;

#[test]
fn structures_are_as_large_as_the_kernels() {
    let device = counting(0);
    let expected = sizes();
    let bytes = expected.len() * 4;
    let at = device.allocate(bytes).expect("memory");
    let argument = Launch {
        words: [at, 0],
        ..Launch::default()
    };
    let mut found = vec![0; bytes];
    // SAFETY: the kernel writes one u32 for each structure.
    unsafe {
        device
            .launch(0, "sizes", 1, 0, &argument)
            .expect("a launch");
        device.read(0, at, &mut found).expect("a copy");
        device.free(at, bytes);
    }
    let found: Vec<usize> = found
        .chunks_exact(4)
        .map(|x| u32::from_le_bytes(x.try_into().expect("four bytes")) as usize)
        .collect();
    assert_eq!(found, expected);
}
