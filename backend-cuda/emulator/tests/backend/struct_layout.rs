//! The kernels' structures and the host's mirrors have the same fields in the same places.

use lora_pro_cuda::device::{Device, Launch};
use lora_pro_cuda::layout;

use crate::counting::counting;

#[test]
fn fields_of_shared_structures_have_the_same_offsets() {
    let device = counting(0);
    let expected = layout();
    let mut found = vec![0u8; 4 * (1 + 2 * expected.len())];
    let at = device.allocate(found.len()).expect("memory");
    let argument = Launch {
        words: [at, 0],
        ..Launch::default()
    };
    // SAFETY: the kernel writes a count and as many numbers; there is room for twice as many as are
    // expected.
    unsafe {
        device
            .launch(0, "layout", 1, 0, &argument)
            .expect("a launch");
        device.read(0, at, &mut found).expect("a copy");
        device.free(at, found.len());
    }
    let number = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().expect("four bytes")) as usize;
    let mut found = found.chunks_exact(4).map(number);
    assert_eq!(found.next(), Some(expected.len()), "structures and fields");
    for ((name, offset), found) in expected.into_iter().zip(found) {
        assert_eq!(found, offset, "{name}");
    }
}
